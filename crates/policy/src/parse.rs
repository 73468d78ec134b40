//! From objects as users write them to rules: everything is checked here, and one error refuses the whole object.

use std::fmt;

/// What is wrong with an object, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ParseError {
    /// `spec.ingress[0].toPorts[1]`.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

impl std::error::Error for ParseError {}
