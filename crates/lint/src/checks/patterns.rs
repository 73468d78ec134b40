//! Patterns of HTTP rules: written as globs, as prefixes, or so that nothing can match.

mod syntax;

use sluice_api::cilium::{HeaderMatch, HttpRule};

use crate::{
    finding::Severity,
    report::{At, Report},
    rules::{
        GLOB_IN_PATTERN, HEADER_VALUE_IS_LITERAL, PATTERN_NEVER_MATCHES, UNANCHORED_HABIT, UNESCAPED_DOT,
    },
    scene::{Policy, Scene},
};

pub(super) const ANY_VALUE: &str = ".*";

pub(super) fn check(scene: &Scene<'_>, report: &mut Report) {
    for policy in &scene.policies {
        for (path, rule) in http_rules(policy) {
            let fields = [("method", &rule.method), ("path", &rule.path), ("host", &rule.host)];
            for (field, text) in fields {
                // An empty text is what clients send for "none".
                if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
                    pattern(field, text, &policy.at(format!("{path}.{field}")), report);
                }
            }
            headers(policy, &path, rule, report);
        }
    }
}

/// Every HTTP rule of a policy with its place.
pub(super) fn http_rules<'a>(policy: &Policy<'a>) -> Vec<(String, &'a HttpRule)> {
    let mut found = Vec::new();
    for entry in policy.entries() {
        for (path, ports) in entry.port_rules() {
            let rules = ports.rules.as_ref().and_then(|rules| rules.http.as_deref()).unwrap_or_default();
            let rules = rules.iter().enumerate();
            found.extend(rules.map(|(nth, rule)| (format!("{path}.rules.http[{nth}]"), rule)));
        }
    }
    found
}

fn pattern(field: &str, text: &str, at: &At<'_>, report: &mut Report) {
    let Some(pattern) = syntax::Read::new(text) else { return };
    if let Some(reason) = never_matches(field, text, &pattern) {
        report.add(&PATTERN_NEVER_MATCHES, at, reason.0, reason.1);
        return;
    }
    if let Some(place) = pattern.glob() {
        let message = format!("{place} is a repetition of what stands before the star, not \"anything\"");
        let help = "Patterns are regular expressions: anything is `.*`, anything but a slash `[^/]*`.";
        report.add(&GLOB_IN_PATTERN, at, message, help);
    }
    if field != "method"
        && let Some(escaped) = pattern.with_escaped_dots()
    {
        let message = format!("a dot is any character: {text} also matches {}", pattern.confused_with());
        let help = match grpc_call(text).filter(|_| field == "path") {
            Some((service, method)) => format!(
                "Write '{escaped}', in single quotes or none. If it is a gRPC call, `rules.grpc` takes names as they \
                 are: `{{serviceName: {service}, methodName: {method}}}`."
            ),
            None => format!("Write '{escaped}', in single quotes or none."),
        };
        report.add(&UNESCAPED_DOT, at, message, help);
    }
    if pattern.is_anchored() {
        let message = "`^` and `$` change nothing: a pattern must match the whole text anyway";
        let help = "Leave them out. To match a part of the text, put `.*` before or behind it.";
        report.add(&UNANCHORED_HABIT, at, message, help);
    } else if field == "path" && text.len() > 1 && text.ends_with('/') {
        let message = format!("this is the path {text} alone, and nothing below it");
        let help = format!("What is below it is `{text}.*`.");
        report.add(&UNANCHORED_HABIT, at, message, help);
    }
}

/// Service and method, if a path may be that of a gRPC call.
fn grpc_call(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let is_name = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_'));
    let is_method = method.starts_with(|c: char| c.is_ascii_uppercase()) && is_name(method);
    (is_method && is_name(service)).then_some((service, method))
}

/// Why no request can have such a field, and what to write.
fn never_matches(field: &str, text: &str, pattern: &syntax::Read) -> Option<(String, String)> {
    match field {
        "method" => {
            let lower = pattern.all_begin_with(|byte| byte.is_ascii_lowercase());
            lower.then(|| {
                let help = format!("Methods are compared with case: write `{}`.", text.to_ascii_uppercase());
                (format!("no request has the method {text}"), help)
            })
        }
        "path" => {
            if pattern.all_begin_with(|byte| byte != b'/' && byte != b'*') {
                let help = format!(
                    "Paths begin with a slash: write `/{text}`, or `.*{text}` for any path that ends so."
                );
                return Some((format!("no path matches {text}: it does not begin with a slash"), help));
            }
            let literal = pattern.literal()?;
            let gone = ["//", "/./", "/../", "#"].into_iter().find(|part| literal.contains(part))?;
            let help =
                "Paths are judged in their normal form, without dot segments, doubled slashes and fragments.";
            Some((format!("no path holds {gone} when it is judged"), help.to_owned()))
        }
        _ => {
            let literal = pattern.literal()?;
            let help =
                "A host is the name, and the port if the client sends one: `api\\.example\\.com(:8080)?`.";
            literal.contains('/').then(|| (format!("no request has the host {literal}"), help.to_owned()))
        }
    }
}

fn headers(policy: &Policy<'_>, path: &str, rule: &HttpRule, report: &mut Report) {
    for (nth, line) in rule.headers.iter().flatten().enumerate() {
        if let Some((name, value)) = line.split_once(' ') {
            let name = name.strip_suffix(':').unwrap_or(name);
            let at = policy.at(format!("{path}.headers[{nth}]"));
            header(name, value, &format!("`- {name}`"), &at, report);
        }
    }
    for (nth, header_match) in rule.header_matches.iter().flatten().enumerate() {
        let HeaderMatch { name, value: Some(value), mismatch: None, .. } = header_match else { continue };
        let at = policy.at(format!("{path}.headerMatches[{nth}].value"));
        header(name, value, "the name without a value", &at, report);
    }
}

fn header(name: &str, value: &str, bare: &str, at: &At<'_>, report: &mut Report) {
    if value == ANY_VALUE {
        let message = format!("`.*` means any value of {name} here, and these two characters for Cilium");
        let help = format!("Write {bare}: that is any value everywhere.");
        report.add(&HEADER_VALUE_IS_LITERAL, at, message, help).severity = Severity::Hint;
    } else if looks_like_a_pattern(value) {
        let message = format!("values of headers are no patterns: {name} must be exactly {value:?}");
        let help = format!("List each value in a rule of its own, or write {bare} for any value.");
        report.add(&HEADER_VALUE_IS_LITERAL, at, message, help);
    }
}

/// Whether a text holds what one writes in regular expressions and hardly ever in a header.
fn looks_like_a_pattern(value: &str) -> bool {
    let parts = [".*", ".+", "\\d", "\\w", "\\s", "\\.", "[a-z", "[A-Z", "[0-9", "[^", "(?:", "(?i)"];
    let alternatives = value.contains('(') && value.contains('|') && value.contains(')');
    let anchored = value.starts_with('^') || value.ends_with('$');
    parts.iter().any(|part| value.contains(part)) || alternatives || anchored
}
