//! Findings for people: where, what, the line, what to do.

use std::io::Write;

use sluice_lint::{Finding, Severity};

use super::{Counts, read::Input};
use crate::failure::Failure;
use crate::output::Output;

/// How long a line of advice may get.
const WIDTH: usize = 100;
/// The longest part of a line that is shown.
const EXCERPT_MAX: usize = 120;

pub(super) fn print(input: &Input, findings: &[Finding], output: &mut Output) -> Result<(), Failure> {
    for finding in findings {
        print_one(input, finding, output)?;
    }
    let counts = Counts::of(findings);
    let (documents, files) = (input.documents.len(), input.files());
    let looked_at = format!("{} of {}", plural(documents, "document"), plural(files, "file"));
    if findings.is_empty() {
        writeln!(output, "{} in {looked_at}", output.good("Nothing found"))?;
        return Ok(());
    }
    let parts = [(counts.errors, "error"), (counts.warnings, "warning"), (counts.hints, "hint")];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, what)| plural(count, what)).collect();
    writeln!(output, "{} in {looked_at}", output.bold(&parts.join(", ")))?;
    // The worst of them is where one starts.
    if let Some(worst) = findings.iter().rev().max_by_key(|finding| finding.severity) {
        writeln!(output, "Why, and how to mend it: sluice policy lint --explain {}", worst.code)?;
    }
    Ok(())
}

fn print_one(input: &Input, finding: &Finding, output: &mut Output) -> Result<(), Failure> {
    let severity = match finding.severity {
        Severity::Error => output.bad("error"),
        Severity::Warning => output.warn("warning"),
        Severity::Hint => output.dim("hint"),
    };
    let place = output.bold(&format!("{}:{}:{}:", finding.file, finding.line, finding.column));
    writeln!(output, "{place} {severity} {} {}", finding.code, finding.message)?;
    if let Some(line) = input.line(&finding.file, finding.line) {
        let number = finding.line.to_string();
        let shown: String = line.chars().take(EXCERPT_MAX).collect();
        let bar = output.dim(&format!("{number} |"));
        writeln!(output, "    {bar} {}", shown.trim_end())?;
        let known = usize::try_from(finding.column).unwrap_or_default();
        if known > 0 && known <= EXCERPT_MAX {
            let under = output.dim(&format!("{} |", " ".repeat(number.len())));
            writeln!(output, "    {under} {}^", " ".repeat(known - 1))?;
        }
    }
    for (nth, line) in wrapped(&finding.help).iter().enumerate() {
        let label = if nth == 0 { "help: " } else { "      " };
        writeln!(output, "    {}{line}", output.dim(label))?;
    }
    for related in &finding.related {
        let note = output.dim("note: ");
        let (file, line, column) = (&related.file, related.line, related.column);
        writeln!(output, "    {note}{file}:{line}:{column}: {}", related.message)?;
    }
    writeln!(output)?;
    Ok(())
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Lines of words, none of them longer than [`WIDTH`] unless a word is.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}
