//! What is found, in a form that every kind of output is made of.

use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// It works as written and may be meant; worth a thought.
    Hint,
    /// It is probably not what was meant.
    Warning,
    /// It cannot be what was meant, or somebody is locked out.
    Error,
}

impl Severity {
    /// The word, `warning`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hint => "hint",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Another place that a finding is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Related {
    /// The file, as documents call it.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
    /// What is there, `cnp/shop/web ingress[0]`.
    pub message: String,
}

/// One finding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// The rule's stable code, `SL001`.
    pub code: &'static str,
    /// The rule's name, `fqdn-without-dns-rule`.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The file, as documents call it.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// The object, `cnp/shop/web` or `Pod/shop/web`; empty if it could not be read.
    pub object: String,
    /// The field, `spec.ingress[0].toPorts[0]`; empty when the object as a whole is meant.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
    /// Other places it is about.
    pub related: Vec<Related>,
}
