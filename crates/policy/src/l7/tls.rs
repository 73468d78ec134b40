//! Server names in TLS handshakes (SNI).

use std::fmt;

use super::{Mismatch, NameError, name};

/// One element of `serverNames`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerName {
    /// Where it stands, `serverNames[0]`.
    pub part: String,
    pattern: String,
}

impl ServerName {
    /// Reads a name, or a pattern of names.
    ///
    /// # Errors
    /// The text is neither.
    pub fn parse(part: String, text: &str) -> Result<Self, NameError> {
        Ok(Self { part, pattern: name::pattern(text)? })
    }

    /// Whether a handshake that asks for this name is meant. One without a name never is.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self, asked: Option<&str>) -> Result<(), Mismatch> {
        let meant = asked.is_some_and(|asked| {
            name::is_host_name(name::without_last_dot(asked)) && name::matches(&self.pattern, asked)
        });
        if meant { Ok(()) } else { Err(Mismatch::new("server name", &*self.pattern, asked)) }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pattern)
    }
}
