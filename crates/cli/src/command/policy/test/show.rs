//! The results for people: a line per file, what failed and why, what no test meets.

use std::io::Write;

use sluice_policytest::{Outcome, Report, TestResult};

use crate::failure::Failure;
use crate::output::Output;
use crate::table::Table;

pub(super) fn report(report: &Report, coverage: bool, output: &mut Output) -> Result<(), Failure> {
    let files = report.by_file();
    let mut table = Table::pairs();
    for (file, results) in &files {
        table.row([(*file).to_owned(), counts(results, output)]);
    }
    write!(output, "{table}")?;
    for result in report.results.iter().filter(|result| result.outcome == Outcome::Error) {
        error(result, output)?;
    }
    for result in report.results.iter().filter(|result| result.outcome == Outcome::Failed) {
        failed(result, output)?;
    }
    if coverage {
        unmet(report, output)?;
    }
    let shown: Vec<String> = [
        (report.passed > 0 || report.results.is_empty())
            .then(|| output.good(&format!("{} passed", report.passed))),
        (report.failed > 0).then(|| output.bad(&format!("{} failed", report.failed))),
        (report.errors > 0).then(|| output.bad(&errors(report.errors))),
    ]
    .into_iter()
    .flatten()
    .collect();
    let noun = if files.len() == 1 { "file" } else { "files" };
    writeln!(output, "\n{} in {} {noun}", shown.join(", "), files.len())?;
    Ok(())
}

fn errors(count: usize) -> String {
    format!("{count} {}", if count == 1 { "error" } else { "errors" })
}

fn counts(results: &[&TestResult], output: &Output) -> String {
    let count = |outcome| results.iter().filter(|result| result.outcome == outcome).count();
    let (passed, failed, wrong) = (count(Outcome::Passed), count(Outcome::Failed), count(Outcome::Error));
    if wrong > 0 {
        return output.bad("not valid");
    }
    let passed = format!("{passed} passed");
    if failed == 0 {
        return output.good(&passed);
    }
    format!("{passed}, {}", output.bad(&format!("{failed} failed")))
}

fn error(result: &TestResult, output: &mut Output) -> Result<(), Failure> {
    let label = output.bad("error:");
    let message = result.error.as_deref().unwrap_or_default();
    let place = match result.detail.line {
        0 => result.file.clone(),
        line => format!("{}:{line}:{}", result.file, result.detail.column),
    };
    writeln!(output, "\n{label} {place}: {message}")?;
    Ok(())
}

fn failed(result: &TestResult, output: &mut Output) -> Result<(), Failure> {
    let label = output.bad("failed:");
    let name = output.bold(&result.name);
    writeln!(output, "\n{label} {name}")?;
    let mut rows = vec![
        ("at", format!("{}:{}", result.file, result.detail.line)),
        ("want", result.want.to_string()),
        ("got", result.got.to_string()),
    ];
    rows.extend(result.detail.sides.iter().map(|side| ("because", side.clone())));
    rows.extend(result.detail.nearest.iter().map(|near| ("nearest", near.clone())));
    let mut before = "";
    for (title, text) in rows {
        let shown = if title == before { "" } else { title };
        before = title;
        writeln!(output, "  {shown:<9}{text}")?;
    }
    if !result.detail.trace.is_empty() {
        let arguments: Vec<String> = result.detail.trace.iter().map(|word| quoted(word)).collect();
        let command = format!("sluice policy trace -f {} {}", quoted(&result.file), arguments.join(" "));
        writeln!(output, "  {:<9}{}", "look", output.dim(&command))?;
    }
    Ok(())
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn unmet(report: &Report, output: &mut Output) -> Result<(), Failure> {
    let coverage = report.coverage();
    let unmet: Vec<_> = coverage.iter().filter(|row| row.hits == 0).collect();
    let met = coverage.len() - unmet.len();
    writeln!(output, "\n{met} of {} parts of rules are met by a test", coverage.len())?;
    let mut table = Table::pairs();
    for row in unmet {
        let label = output.warn("not met");
        table.row([format!("  {label}  {} {}", row.policy, row.rule), format!("{}:{}", row.file, row.line)]);
    }
    write!(output, "{table}")?;
    Ok(())
}
