//! The versions of the CNI specification that are spoken.

use std::fmt;

use crate::environment::Verb;
use crate::error::Error;

/// A version of the specification, oldest first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum SpecVersion {
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl SpecVersion {
    /// All of them, oldest first.
    pub(crate) const ALL: [Self; 5] = [Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// The newest.
    pub(crate) const NEWEST: Self = Self::V1_1_0;

    /// The version written `text`, if it is spoken.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|version| version.as_str() == text);
        found.ok_or_else(|| Error::Version { found: text.to_owned() })
    }

    /// As it is written.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// All of them as words, for messages.
    pub(crate) fn list() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }

    /// Refuses a verb that this version does not have.
    pub(crate) fn check_has(self, verb: Verb) -> Result<(), Error> {
        let since = match verb {
            Verb::Add | Verb::Del | Verb::Version => Self::V0_3_0,
            Verb::Check => Self::V0_4_0,
            Verb::Gc | Verb::Status => Self::V1_1_0,
        };
        if self < since { Err(Error::VerbTooNew { verb, since, found: self }) } else { Ok(()) }
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        for version in SpecVersion::ALL {
            assert_eq!(SpecVersion::parse(version.as_str()).unwrap(), version);
        }
        for other in ["", "0.1.0", "0.2.0", "1.0", "1.2.0", "v1.0.0", "1.0.0 ", "01.0.0"] {
            assert_eq!(SpecVersion::parse(other).unwrap_err().code(), 1, "{other:?}");
        }
    }

    #[test]
    fn verbs_by_version() {
        use SpecVersion as V;
        let cases = [
            (Verb::Add, V::V0_3_0, true),
            (Verb::Del, V::V0_3_0, true),
            (Verb::Check, V::V0_3_1, false),
            (Verb::Check, V::V0_4_0, true),
            (Verb::Gc, V::V1_0_0, false),
            (Verb::Gc, V::V1_1_0, true),
            (Verb::Status, V::V1_0_0, false),
            (Verb::Status, V::V1_1_0, true),
        ];
        for (verb, version, expected) in cases {
            assert_eq!(version.check_has(verb).is_ok(), expected, "{verb} {version}");
        }
    }
}
