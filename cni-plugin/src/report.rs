//! Diagnostics for the runtime's log: lines on standard error, which belongs to nobody's protocol.

use std::fmt::Write as _;

/// Writes one line with the error and all its causes.
pub(crate) fn warn(error: &dyn std::error::Error) {
    eprintln!("sluice-cni: {}", with_causes(error));
}

/// Writes one line: what was attempted in vain, and why.
pub(crate) fn warn_about(what: &str, error: &dyn std::error::Error) {
    eprintln!("sluice-cni: {what}: {}", with_causes(error));
}

/// The error and its causes, outermost first.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, ": {error}").ok();
        cause = error.source();
    }
    text
}

/// Writes one line of information.
pub(crate) fn note(text: &str) {
    eprintln!("sluice-cni: {text}");
}
