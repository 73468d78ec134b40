//! Findings as SARIF 2.1.0 (OASIS, "Static Analysis Results Interchange Format").

use serde_json::{Value, json};
use sluice_lint::{Finding, RULES, Rule, Severity};

use crate::args::Format;
use crate::failure::Failure;
use crate::output::Output;

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json";

pub(super) fn print(findings: &[Finding], output: &mut Output) -> Result<(), Failure> {
    let results: Vec<Value> = findings.iter().map(result).collect();
    let rules: Vec<Value> = RULES.iter().map(rule).collect();
    let driver = json!({"name": "sluice", "version": env!("CARGO_PKG_VERSION"), "rules": rules});
    let run = json!({
        "tool": {"driver": driver},
        // Columns count characters, not units of UTF-16.
        "columnKind": "unicodeCodePoints",
        "results": results,
    });
    output.print_value(Format::Json, &json!({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}))
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Hint => "note",
    }
}

fn rule(rule: &Rule) -> Value {
    json!({
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": rule.summary},
        "help": {"text": rule.page, "markdown": rule.page},
        "defaultConfiguration": {"level": level(rule.severity)},
    })
}

fn result(finding: &Finding) -> Value {
    let index = RULES.iter().position(|rule| rule.code == finding.code);
    let related: Vec<Value> = finding
        .related
        .iter()
        .map(|related| {
            let mut place = location(&related.file, related.line, related.column);
            if let Some(place) = place.as_object_mut() {
                place.insert("message".to_owned(), json!({"text": related.message}));
            }
            place
        })
        .collect();
    json!({
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": level(finding.severity),
        "message": {"text": format!("{}. {}", finding.message, finding.help)},
        "locations": [location(&finding.file, finding.line, finding.column)],
        "relatedLocations": related,
    })
}

fn location(file: &str, line: u32, column: u32) -> Value {
    // Regions begin at 1; a place that is not known is the start of the file.
    let region = json!({"startLine": line.max(1), "startColumn": column.max(1)});
    json!({"physicalLocation": {"artifactLocation": {"uri": uri(file)}, "region": region}})
}

/// A path as a reference in the sense of RFC 3986: what is no letter, digit or plain sign of a path is escaped.
fn uri(file: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let escape = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    file.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::uri;

    #[test]
    fn paths_are_references() {
        assert_eq!(uri("policies/web-1.yaml"), "policies/web-1.yaml");
        assert_eq!(uri("a b/ü#1.yaml"), "a%20b/%C3%BC%231.yaml");
    }
}
