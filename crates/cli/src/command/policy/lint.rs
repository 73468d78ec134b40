//! `sluice policy lint`: what is probably not meant in manifests. The rules are in the crate `sluice-lint`.

mod human;
mod json;
mod read;
mod sarif;

use std::io::Write;

use sluice_lint::{Finding, Options, RULES, Severity};

use crate::args::{Deny, LintArgs, LintFormat};
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// How many findings there are of each severity.
#[derive(Clone, Copy, Debug)]
struct Counts {
    errors: usize,
    warnings: usize,
    hints: usize,
}

impl Counts {
    fn of(findings: &[Finding]) -> Self {
        let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        Self {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            hints: count(Severity::Hint),
        }
    }
}

pub(super) fn run(arguments: &LintArgs, output: &mut Output) -> Result<(), Failure> {
    if let Some(code) = &arguments.explain {
        return explain(code, output);
    }
    let input = read::read(&arguments.paths)?;
    let options =
        Options { portable: arguments.portable, map_budget: arguments.map_budget, ..Options::default() };
    let findings = sluice_lint::lint(&input.documents, &options);
    match arguments.format {
        LintFormat::Table => human::print(&input, &findings, output)?,
        LintFormat::Json => json::print(&input, &findings, output)?,
        LintFormat::Sarif => sarif::print(&findings, output)?,
    }
    output.flush()?;
    let least = match arguments.deny {
        Deny::Hints => Severity::Hint,
        Deny::Warnings => Severity::Warning,
        Deny::Errors => Severity::Error,
    };
    let denied = findings.iter().any(|finding| finding.severity >= least);
    // Everything has been said.
    if denied { Err(Failure::new(Exit::Error, "")) } else { Ok(()) }
}

fn explain(code: &str, output: &mut Output) -> Result<(), Failure> {
    let Some(rule) = sluice_lint::find(code) else {
        let names: Vec<&str> = RULES.iter().flat_map(|rule| [rule.code, rule.name]).collect();
        let known = match sluice_api::nearest(code, &names) {
            Some(known) => format!("Did you mean {known}?"),
            None => format!("Codes look like {}.", names.first().unwrap_or(&"SL001")),
        };
        return Err(Failure::not_found(format!("there is no code {code}")).hint(known));
    };
    write!(output, "{}", rule.page)?;
    Ok(())
}
