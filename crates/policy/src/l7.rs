//! Rules about requests: HTTP and gRPC, Kafka, DNS names, TLS server names.
//!
//! A rule says of one request whether it names it, and if not, what is different. What a request may do follows from
//! all rules of a peer and port together, which is [`crate::requests`]'s work. Pure; proxies bring the requests.

pub mod dns;
pub mod http;
pub mod kafka;
mod mismatch;
mod name;
mod pattern;
pub mod tls;

pub use dns::{DnsRule, FqdnSelector};
pub use http::{Effects, HeaderAction, HeaderEffect, HttpRequest, HttpRule, HttpRuleSet, Secrets};
pub use kafka::{KafkaRequest, KafkaRule};
pub use mismatch::Mismatch;
pub use name::NameError;
pub use pattern::{PATTERN_BYTES_MAX, PATTERN_PROGRAM_BYTES_MAX, Pattern, PatternError};
pub use tls::ServerName;

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

impl Parser {
    /// The word for reports, `HTTP`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Kafka => "Kafka",
            Self::Dns => "DNS",
            Self::Tls => "TLS",
        }
    }
}

/// Rules about the requests of one protocol: a request passes if one of them names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum L7Rules {
    /// HTTP requests and gRPC calls.
    Http(Vec<HttpRule>),
    /// Kafka requests.
    Kafka(Vec<KafkaRule>),
    /// DNS queries.
    Dns(Vec<DnsRule>),
    /// Names in TLS handshakes.
    Tls(Vec<ServerName>),
}

impl L7Rules {
    /// Who reads the requests.
    #[must_use]
    pub const fn parser(&self) -> Parser {
        match self {
            Self::Http(_) => Parser::Http,
            Self::Kafka(_) => Parser::Kafka,
            Self::Dns(_) => Parser::Dns,
            Self::Tls(_) => Parser::Tls,
        }
    }

    /// What each of them names, in one line without the protocol's name.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        match self {
            Self::Http(rules) => rules.iter().map(ToString::to_string).collect(),
            Self::Kafka(rules) => rules.iter().map(ToString::to_string).collect(),
            Self::Dns(rules) => rules.iter().map(ToString::to_string).collect(),
            Self::Tls(rules) => rules.iter().map(ToString::to_string).collect(),
        }
    }

    /// Where each of them stands in its port rule, `http[1]`.
    #[must_use]
    pub fn parts(&self) -> Vec<&str> {
        match self {
            Self::Http(rules) => rules.iter().map(|rule| rule.part.as_str()).collect(),
            Self::Kafka(rules) => rules.iter().map(|rule| rule.part.as_str()).collect(),
            Self::Dns(rules) => rules.iter().map(|rule| rule.part.as_str()).collect(),
            Self::Tls(rules) => rules.iter().map(|rule| rule.part.as_str()).collect(),
        }
    }
}

/// A request, as a proxy has read it.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// An HTTP request or gRPC call.
    Http(HttpRequest<'a>),
    /// A Kafka request.
    Kafka(KafkaRequest<'a>),
    /// A query for this name.
    Dns(&'a str),
    /// A handshake that asks for this name, or for none.
    Tls(Option<&'a str>),
}

impl Request<'_> {
    /// Who reads it.
    #[must_use]
    pub const fn parser(&self) -> Parser {
        match self {
            Self::Http(_) => Parser::Http,
            Self::Kafka(_) => Parser::Kafka,
            Self::Dns(_) => Parser::Dns,
            Self::Tls(_) => Parser::Tls,
        }
    }
}
