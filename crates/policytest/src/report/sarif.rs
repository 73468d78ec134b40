//! SARIF 2.1.0 (OASIS), as code hosts show findings beside the lines they are about.

use serde_json::{Value, json};

use crate::report::{Outcome, Report, TestResult};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// What failed and what is wrong with files, as SARIF. What passed is no finding.
#[must_use]
pub fn sarif(report: &Report) -> Value {
    let results: Vec<Value> = report.results.iter().filter_map(finding).collect();
    let rule = |id: &str, text: &str| json!({"id": id, "shortDescription": {"text": text}});
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "sluice policy test",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": [
                    rule("policy-test-failed", "A policy does something else than its test expects"),
                    rule("policy-test-invalid", "A test file or a manifest it uses is not valid"),
                ],
            }},
            "results": results,
        }],
    })
}

fn finding(result: &TestResult) -> Option<Value> {
    let (rule, text) = match result.outcome {
        Outcome::Passed => return None,
        Outcome::Failed => ("policy-test-failed", format!("{}: {}", result.name, result.summary())),
        Outcome::Error => ("policy-test-invalid", result.summary()),
    };
    let mut place = json!({"artifactLocation": {"uri": uri(&result.file)}});
    if result.detail.line > 0
        && let Some(place) = place.as_object_mut()
    {
        let column = result.detail.column.max(1);
        place.insert("region".to_owned(), json!({"startLine": result.detail.line, "startColumn": column}));
    }
    Some(json!({
        "ruleId": rule,
        "level": "error",
        "message": {"text": text},
        "locations": [{"physicalLocation": place}],
    }))
}

/// A path as a relative reference (RFC 3986): bytes that may not stand in one are written as `%XX`.
fn uri(path: &str) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
