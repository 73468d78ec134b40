//! Why a rule does not name a request.

use std::fmt;

/// How much of a request a report repeats.
const SHOWN_CHARS_MAX: usize = 200;

/// What is different.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mismatch {
    /// What was compared, `method`.
    pub field: String,
    /// What the rule wants. Empty where that is secret, or where the thing must only be there.
    pub wanted: String,
    /// What the request has; `None` if it has no such thing.
    pub got: Option<String>,
}

impl Mismatch {
    pub(super) fn new(field: impl Into<String>, wanted: impl Into<String>, got: Option<&str>) -> Self {
        Self { field: field.into(), wanted: wanted.into(), got: got.map(shown) }
    }
}

/// What a request holds, fit for one line: anybody may have sent it.
fn shown(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(SHOWN_CHARS_MAX) {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.got, self.wanted.is_empty()) {
            (None, true) => write!(f, "{} is missing", self.field),
            (None, false) => write!(f, "{} is missing; it must be {}", self.field, self.wanted),
            (Some(got), true) => write!(f, "{} {got} is not what it must be", self.field),
            (Some(got), false) => write!(f, "{} {got} is not {}", self.field, self.wanted),
        }
    }
}
