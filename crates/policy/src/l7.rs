//! Rules about requests: the words that the tables of endpoints need. No proxy looks at requests yet, so rules about
//! them are refused where they are parsed.

use std::fmt;

use sluice_types::Source;

use crate::{
    parse::Reason,
    selector::{LabelKey, LabelSelector, Requirement, Selector},
};

/// What a proxy can read.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Parser {
    /// HTTP and gRPC.
    Http,
    /// Kafka.
    Kafka,
    /// DNS.
    Dns,
    /// Server names of TLS.
    Tls,
}

/// Rules about the requests of one protocol. There are none yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum L7Rules {}

impl L7Rules {
    /// Who reads the requests.
    #[must_use]
    pub const fn parser(&self) -> Parser {
        match *self {}
    }
}

/// What is done to a request before it goes on.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Effects;

/// Why a rule does not name a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Mismatch {}

impl fmt::Display for Mismatch {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who reads it.
    pub parser: Parser,
    /// What it says.
    pub text: &'a str,
}

impl Request<'_> {
    /// Who reads it.
    #[must_use]
    pub const fn parser(&self) -> Parser {
        self.parser
    }
}

/// What secrets hold.
pub trait Secrets {}

/// DNS names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FqdnSelector(String);

impl FqdnSelector {
    /// Reads one as written.
    ///
    /// # Errors
    /// It names nothing.
    pub fn parse(written: &sluice_api::cilium::FqdnSelector) -> Result<Self, Reason> {
        let text = written.match_name.as_ref().or(written.match_pattern.as_ref());
        text.cloned().map(Self).ok_or(Reason::Required)
    }

    /// Selects the identities that stand for such names.
    #[must_use]
    pub fn selector(&self) -> Selector {
        let key = LabelKey::new(Source::Fqdn, &*self.0);
        Selector::Labels(LabelSelector::from_iter([Requirement::Exists(key)]))
    }
}
