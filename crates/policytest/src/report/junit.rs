//! JUnit's XML, as CI servers read it (`testsuites`, `testsuite`, `testcase`).

use std::fmt::Write;

use crate::report::{Outcome, Report, TestResult};

/// The report as JUnit XML: a suite per file.
#[must_use]
pub fn junit(report: &Report) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let total = report.results.len();
    let (failed, errors) = (report.failed, report.errors);
    let counts =
        |tests, failures, errors| format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\"");
    // Writing to a String cannot fail.
    writeln!(text, "<testsuites name=\"sluice policy test\" {}>", counts(total, failed, errors)).ok();
    for (file, results) in report.by_file() {
        let count = |outcome| results.iter().filter(|result| result.outcome == outcome).count();
        let counts = counts(results.len(), count(Outcome::Failed), count(Outcome::Error));
        writeln!(text, "  <testsuite name=\"{}\" {counts}>", escaped(file)).ok();
        for result in results {
            case(&mut text, result);
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

fn case(text: &mut String, result: &TestResult) {
    let name = if result.name.is_empty() { "(the file)" } else { &result.name };
    let (name, file) = (escaped(name), escaped(&result.file));
    let line = match result.detail.line {
        0 => String::new(),
        line => format!(" line=\"{line}\""),
    };
    let start = format!("    <testcase classname=\"{file}\" name=\"{name}\" file=\"{file}\"{line}");
    let tag = match result.outcome {
        Outcome::Passed => {
            writeln!(text, "{start}/>").ok();
            return;
        }
        Outcome::Failed => "failure",
        Outcome::Error => "error",
    };
    let mut lines = result.detail.sides.clone();
    lines.extend(result.detail.nearest.iter().map(|near| format!("nearest: {near}")));
    let (message, body) = (escaped(&result.summary()), escaped(&lines.join("\n")));
    writeln!(text, "{start}>\n      <{tag} message=\"{message}\">{body}</{tag}>\n    </testcase>").ok();
}

/// Text inside XML. Characters that XML 1.0 cannot hold are replaced.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}
