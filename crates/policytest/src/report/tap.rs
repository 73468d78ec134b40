//! The Test Anything Protocol, version 14 (testanything.org).

use std::fmt::Write;

use serde_json::json;

use crate::report::{Outcome, Report, TestResult};

/// The report as TAP: a line per question, and a block of YAML for each that did not pass.
#[must_use]
pub fn tap(report: &Report) -> String {
    // Writing to a String cannot fail.
    let mut text = format!("TAP version 14\n1..{}\n", report.results.len());
    for (number, result) in (1..).zip(&report.results) {
        let ok = if result.outcome == Outcome::Passed { "ok" } else { "not ok" };
        let name = if result.name.is_empty() { "(the file)" } else { &result.name };
        let described = described(&format!("{}: {name}", result.file));
        writeln!(text, "{ok} {number} - {described}").ok();
        if result.outcome != Outcome::Passed {
            diagnosis(&mut text, result);
        }
    }
    text
}

/// Text after the number: on one line, its signs without a meaning of their own.
fn described(text: &str) -> String {
    text.replace('\\', "\\\\").replace('#', "\\#").replace(['\n', '\r'], " ")
}

/// JSON strings are YAML as well, whatever is in them.
fn diagnosis(text: &mut String, result: &TestResult) {
    let mut lines = vec![("message", json!(result.summary()))];
    lines.push(("at", json!(format!("{}:{}", result.file, result.detail.line))));
    if let Some(reason) = &result.got.reason {
        lines.push(("reason", json!(reason)));
    }
    if !result.detail.nearest.is_empty() {
        lines.push(("nearest", json!(result.detail.nearest)));
    }
    text.push_str("  ---\n");
    for (key, value) in lines {
        writeln!(text, "  {key}: {value}").ok();
    }
    text.push_str("  ...\n");
}
