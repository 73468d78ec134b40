//! DNS names: queries that are let through, and peers by name.

use std::fmt;

use sluice_api::cilium as api;
use sluice_types::{Label, Source};

use super::{Mismatch, NameError, name};
use crate::selector::{LabelKey, LabelSelector, Requirement, Selector};

/// One element of `dns`: a name, or a pattern of names, or both, of which one must fit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DnsRule {
    /// Where it stands, `dns[0]`.
    pub part: String,
    names: Vec<String>,
}

impl DnsRule {
    /// Reads one as written. Without a name and without a pattern it names nothing.
    ///
    /// # Errors
    /// A text is no name or no pattern.
    pub fn parse(part: String, written: &api::DnsRule) -> Result<Self, NameError> {
        let exact = written.match_name.as_deref().map(name::name);
        let pattern = written.match_pattern.as_deref().map(name::pattern);
        let names = exact.into_iter().chain(pattern).collect::<Result<Vec<_>, _>>()?;
        if names.is_empty() { Err(NameError::Empty) } else { Ok(Self { part, names }) }
    }

    /// Queries for the names of a peer.
    #[must_use]
    pub fn of(part: String, names: &FqdnSelector) -> Self {
        Self { part, names: vec![names.0.clone()] }
    }

    /// Whether a query for this name is meant.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self, asked: &str) -> Result<(), Mismatch> {
        if self.names.iter().any(|pattern| name::matches(pattern, asked)) {
            return Ok(());
        }
        Err(Mismatch::new("name", self.names.join(" or "), Some(name::without_last_dot(asked))))
    }
}

impl fmt::Display for DnsRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names.join(" or "))
    }
}

/// One element of `toFQDNs`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FqdnSelector(String);

impl FqdnSelector {
    /// A name.
    ///
    /// # Errors
    /// The text is no name.
    pub fn name(text: &str) -> Result<Self, NameError> {
        name::name(text).map(Self)
    }

    /// A pattern of names.
    ///
    /// # Errors
    /// The text is no pattern.
    pub fn pattern(text: &str) -> Result<Self, NameError> {
        name::pattern(text).map(Self)
    }

    /// Whether the addresses of this name are meant.
    #[must_use]
    pub fn matches(&self, asked: &str) -> bool {
        name::matches(&self.0, asked)
    }

    /// The text: lower case, without a dot at the end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The label of identities that stand for addresses of such names.
    #[must_use]
    pub fn label(&self) -> Label {
        Label::new(Source::Fqdn, &*self.0, "")
    }

    /// Selects these identities.
    #[must_use]
    pub fn selector(&self) -> Selector {
        let key = LabelKey::new(Source::Fqdn, &*self.0);
        Selector::Labels(LabelSelector::from_iter([Requirement::Exists(key)]))
    }

    /// The name or pattern that a selector made by [`Self::selector`] stands for.
    #[must_use]
    pub fn of_selector(selector: &Selector) -> Option<Self> {
        let Selector::Labels(labels) = selector else { return None };
        let key = labels.requirements().map(Requirement::key).find(|key| key.source == Source::Fqdn)?;
        name::pattern(&key.key).ok().map(Self)
    }
}
