//! Findings for programs. The shape is documented in `docs/lint/README.md`.

use serde::Serialize;
use sluice_lint::{Finding, Related};

use super::{Counts, read::Input};
use crate::args::Format;
use crate::failure::Failure;
use crate::output::Output;

#[derive(Serialize)]
struct Report<'a> {
    errors: usize,
    warnings: usize,
    hints: usize,
    documents: usize,
    findings: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Item<'a> {
    code: &'a str,
    name: &'a str,
    severity: &'a str,
    file: &'a str,
    line: u32,
    column: u32,
    object: &'a str,
    path: &'a str,
    message: &'a str,
    help: &'a str,
    related: Vec<Place<'a>>,
}

#[derive(Serialize)]
struct Place<'a> {
    file: &'a str,
    line: u32,
    column: u32,
    message: &'a str,
}

pub(super) fn print(input: &Input, findings: &[Finding], output: &mut Output) -> Result<(), Failure> {
    let Counts { errors, warnings, hints } = Counts::of(findings);
    let documents = input.documents.len();
    let findings = findings.iter().map(item).collect();
    output.print_value(Format::Json, &Report { errors, warnings, hints, documents, findings })
}

fn item(finding: &Finding) -> Item<'_> {
    Item {
        code: finding.code,
        name: finding.name,
        severity: finding.severity.as_str(),
        file: &finding.file,
        line: finding.line,
        column: finding.column,
        object: &finding.object,
        path: &finding.path,
        message: &finding.message,
        help: &finding.help,
        related: finding.related.iter().map(place).collect(),
    }
}

fn place(related: &Related) -> Place<'_> {
    Place { file: &related.file, line: related.line, column: related.column, message: &related.message }
}
