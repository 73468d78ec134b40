//! A policy of one language in the words of the other: NetworkPolicy and CiliumNetworkPolicy.
//!
//! The meaning stays exactly the same, or there is an error that names the field; nothing is left out. Pure.

mod to_cilium;
mod to_kubernetes;

use std::fmt;

pub use to_cilium::to_cilium;
pub use to_kubernetes::to_kubernetes;

/// What the other language cannot say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Inexpressible {
    /// Where it stands, `spec.ingress[0].toPorts[0].rules`.
    pub path: String,
    /// Why not.
    pub reason: String,
}

impl Inexpressible {
    fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }
}

impl fmt::Display for Inexpressible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

impl std::error::Error for Inexpressible {}

#[cfg(test)]
mod tests;
