//! What happens to one flow, at both ends.

use std::fmt;

use sluice_policy::{
    Asked, Explanation, Outcome, PolicyRef, Query,
    l7::{HeaderAction, HeaderEffect},
};
use sluice_types::{Direction, Identity, Protocol};

use crate::{
    cluster::Cluster,
    end::UnknownEnd,
    flow::{Flow, FlowPort, FlowRequest},
    participant::Who,
};

/// What happens in the end, in the words of reports, flows and metrics.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Word {
    /// It passes.
    Allow,
    /// The packet is dropped.
    Deny,
    /// The proxy refuses the request: 403, a Kafka error, a closed handshake.
    L7Deny,
    /// The DNS proxy refuses the query.
    DnsRefused,
    /// It passes because of audit mode, and is reported.
    Audit,
}

impl Word {
    /// The word itself.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::L7Deny => "l7-deny",
            Self::DnsRefused => "dns-refused",
            Self::Audit => "audit",
        }
    }

    /// Whether the traffic arrives.
    #[must_use]
    pub const fn passes(self) -> bool {
        matches!(self, Self::Allow | Self::Audit)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why nothing can be said about a flow.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TraceError {
    /// Nobody is called that.
    #[error(transparent)]
    Unknown(#[from] UnknownEnd),
    /// The receiver has no such port.
    #[error("{end} has no {protocol} port named {name:?}{known}")]
    Port {
        /// The receiver.
        end: String,
        /// The protocol.
        protocol: Protocol,
        /// The name.
        name: String,
        /// The names it has, as the end of a sentence.
        known: String,
    },
}

/// The judgement of one end.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// Whose policy was asked.
    pub subject: String,
    /// The decision with its reasons.
    pub explanation: Explanation,
    /// What this end does.
    pub word: Word,
}

/// What happens to a flow.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Destination port after names were looked up.
    pub port: u16,
    /// Identities of sender and receiver.
    pub identities: (Identity, Identity),
    /// The sender's judgement; none if policies cannot select it.
    pub egress: Option<Side>,
    /// The receiver's judgement; none if policies cannot select it. It is there even if the sender's side already
    /// stops the flow: whoever repairs one side wants to know the other.
    pub ingress: Option<Side>,
}

impl Trace {
    /// Both judgements, the sender's first.
    pub fn sides(&self) -> impl Iterator<Item = &Side> {
        self.egress.iter().chain(&self.ingress)
    }

    /// The side that settles it: the first that stops the flow, else the first that would without audit mode.
    #[must_use]
    pub fn decisive(&self) -> Option<&Side> {
        let stops = self.sides().find(|side| !side.word.passes());
        stops.or_else(|| self.sides().find(|side| side.word == Word::Audit))
    }

    /// What happens in the end.
    #[must_use]
    pub fn word(&self) -> Word {
        self.decisive().map_or(Word::Allow, |side| side.word)
    }

    /// Which side settles it; none if both let it pass.
    #[must_use]
    pub fn at(&self) -> Option<Direction> {
        self.decisive().map(|side| side.explanation.direction)
    }

    /// The policies that decide: of a denial those whose rule denies or that isolate, else those that allow.
    #[must_use]
    pub fn by(&self) -> Vec<PolicyRef> {
        let deciding: Vec<&Side> = match self.decisive() {
            Some(side) => vec![side],
            None => self.sides().collect(),
        };
        let mut policies: Vec<PolicyRef> = Vec::new();
        for policy in deciding.into_iter().flat_map(|side| side.deciding()) {
            if !policies.contains(policy) {
                policies.push(policy.clone());
            }
        }
        policies
    }

    /// Whether a proxy reads what is in the connection, at either end.
    #[must_use]
    pub fn is_proxied(&self) -> bool {
        self.sides()
            .any(|side| side.explanation.request.is_some() || side.explanation.outcome == Outcome::Depends)
    }
}

impl Side {
    fn deciding(&self) -> Vec<&PolicyRef> {
        match &self.explanation.rule {
            Some(rule) => vec![&rule.policy],
            None if self.word == Word::Allow => Vec::new(),
            None => self.explanation.isolated_by.iter().collect(),
        }
    }
}

impl Cluster {
    /// What happens to a flow.
    ///
    /// # Errors
    /// An end that nobody is called by, or a port name that the receiver does not have.
    pub fn trace(&mut self, flow: &Flow) -> Result<Trace, TraceError> {
        self.settle();
        let (from, to) = (self.known_end(&flow.from)?, self.known_end(&flow.to)?);
        let identities = (from.identity, to.identity);
        let port = self.port(flow)?;
        let host = [from, to].into_iter().find(|end| matches!(end.participant.who, Who::Host(_)));
        if let Some(labels) = host.map(|host| host.labels.clone()) {
            self.host_is(&labels);
        }
        let mut trace = Trace { port, identities, egress: None, ingress: None };
        if flow.from == flow.to {
            // Traffic to an own address never leaves the pod.
            return Ok(trace);
        }
        let query = |direction, peer| Query { direction, peer, protocol: flow.protocol, port: Some(port) };
        let sent = flow.request.as_ref();
        trace.egress = self.side(&flow.from, query(Direction::Egress, identities.1), sent);
        let received = forwarded(sent, trace.egress.as_ref());
        trace.ingress = self.side(&flow.to, query(Direction::Ingress, identities.0), received.as_ref());
        Ok(trace)
    }

    fn port(&self, flow: &Flow) -> Result<u16, TraceError> {
        let name = match &flow.port {
            FlowPort::Number(port) => return Ok(*port),
            FlowPort::Named(name) => name.to_ascii_lowercase(),
        };
        let ports = &self.known_end(&flow.to)?.participant.ports;
        let found = ports.iter().find(|own| own.name == name && own.protocol == flow.protocol);
        found.map(|own| own.port).ok_or_else(|| {
            let names: Vec<&str> = ports.iter().map(|own| own.name.as_str()).collect();
            let known =
                if names.is_empty() { String::new() } else { format!("; it has {}", names.join(", ")) };
            TraceError::Port { end: flow.to.clone(), protocol: flow.protocol, name, known }
        })
    }

    fn side(&self, name: &str, query: Query, request: Option<&FlowRequest>) -> Option<Side> {
        let subject = self.known.get(name)?.subject.as_ref()?;
        let policy = self.repository.resolve(subject);
        let explanation = match request {
            None => self.repository.explain(subject, &policy, &query, None),
            Some(request) => request.with(|request| {
                let asked = Asked { request, secrets: &self.secrets };
                self.repository.explain(subject, &policy, &query, Some(asked))
            }),
        };
        let word = match explanation.outcome {
            // Without a request nothing is refused: the connection opens, and the proxy waits for what comes.
            Outcome::Allow | Outcome::Depends => Word::Allow,
            Outcome::Deny(_) => Word::Deny,
            Outcome::Refuse if matches!(request, Some(FlowRequest::Dns(_))) => Word::DnsRefused,
            Outcome::Refuse => Word::L7Deny,
            Outcome::Audit => Word::Audit,
        };
        Some(Side { subject: name.to_owned(), explanation, word })
    }
}

/// The request as the receiver's side sees it: with what the sender's proxy did to its headers.
fn forwarded(request: Option<&FlowRequest>, egress: Option<&Side>) -> Option<FlowRequest> {
    let mut request = request?.clone();
    let decision = egress.and_then(|side| side.explanation.request.as_ref());
    if let (FlowRequest::Http(call), Some(decision)) = (&mut request, decision) {
        for effect in &decision.effects {
            apply(effect, &mut call.headers);
        }
    }
    Some(request)
}

fn apply(effect: &HeaderEffect, headers: &mut Vec<(String, String)>) {
    let HeaderEffect { action, name, value } = effect;
    let is_other = |(own, _): &(String, String)| !own.eq_ignore_ascii_case(name);
    let value = || String::from_utf8_lossy(value).into_owned();
    match action {
        HeaderAction::Log => {}
        HeaderAction::Add => headers.push((name.clone(), value())),
        HeaderAction::Delete => headers.retain(is_other),
        HeaderAction::Replace => {
            headers.retain(is_other);
            headers.push((name.clone(), value()));
        }
    }
}
