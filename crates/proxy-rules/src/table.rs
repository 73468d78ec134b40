//! A table of rules about requests, written down.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_policy::l7::http::HeaderRule;
use sluice_policy::l7::{HeaderAction, HttpRule, L7Rules, Pattern};
use sluice_policy::{Key, L4Match, RequestTable, requests};
use sluice_types::{Direction, Identity, Protocol, RuleId};

use crate::RulesError;

/// All slots, and the lists of rules that they refer to. Many peers share a list.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Table {
    /// The lists.
    pub rules: Vec<Rules>,
    /// The slots.
    pub slots: Vec<Slot>,
}

/// What one rule of a policy says about one peer and port.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Slot {
    /// As seen from the endpoint.
    pub direction: Direction,
    /// The other side; none is anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Identity>,
    /// The number of the protocol; none is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// The first port of a block and how many of its bits are fixed, 1 to 16; none is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<(u16, u8)>,
    /// The order of slots, the highest first.
    pub precedence: u32,
    /// The number of the rule.
    pub rule: RuleId,
    /// Whether it names exactly this port.
    pub exact: bool,
    /// What it says.
    pub says: Says,
    /// Where in the rule it says so, `toPorts[0]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// What a slot says about requests.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Says {
    /// All pass.
    Allow,
    /// None passes.
    Deny,
    /// The next tier decides.
    Pass,
    /// Those that a rule of this list names; its place in [`Table::rules`].
    Requests(usize),
}

/// A list of rules. Of those about other protocols than HTTP only that they are there: they name no HTTP request.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Rules {
    /// HTTP requests and gRPC calls.
    Http(Vec<Rule>),
    /// Kafka requests.
    Kafka,
    /// DNS queries.
    Dns,
    /// Names in handshakes.
    Tls,
}

/// One element of `http` or `grpc`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Where it stands, `http[1]`.
    pub part: String,
    /// Pattern of the method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Pattern of path and query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Pattern of the authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Whether it must be a gRPC call.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub grpc: bool,
    /// Conditions on headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
}

/// A condition on a header.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Header {
    /// The name.
    pub name: String,
    /// The value; none is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Namespace and name of the secret that holds the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<(Option<String>, String)>,
    /// What is done where it is different; none refuses the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<Mismatch>,
}

/// What is done about a header that is different.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Mismatch {
    /// It is written down.
    Log,
    /// The value is added.
    Add,
    /// The header is taken out.
    Delete,
    /// The header gets the value.
    Replace,
}

impl Table {
    /// Writes a table down.
    #[must_use]
    pub fn new(table: &RequestTable) -> Self {
        let mut written = Self::default();
        let mut known: HashMap<*const L7Rules, usize> = HashMap::new();
        for (key, slot) in table.iter() {
            let (says, at) = match &slot.says {
                requests::Says::Allow => (Says::Allow, None),
                requests::Says::Deny => (Says::Deny, None),
                requests::Says::Pass => (Says::Pass, None),
                requests::Says::Requests { rules, at } => {
                    let place = *known.entry(Arc::as_ptr(rules)).or_insert_with(|| {
                        written.rules.push(Rules::new(rules));
                        written.rules.len() - 1
                    });
                    (Says::Requests(place), at.clone())
                }
            };
            let (protocol, port) = match key.l4 {
                L4Match::Any => (None, None),
                L4Match::Protocol(protocol) => (Some(protocol.number()), None),
                L4Match::Port { protocol, port, prefix } => (Some(protocol.number()), Some((port, prefix))),
            };
            written.slots.push(Slot {
                direction: key.direction,
                peer: key.peer,
                protocol,
                port,
                precedence: slot.precedence,
                rule: slot.rule,
                exact: slot.exact,
                says,
                at,
            });
        }
        written
    }

    /// The table as the engine has it.
    ///
    /// # Errors
    /// A slot or a pattern is none.
    pub fn to_engine(&self) -> Result<RequestTable, RulesError> {
        let rules: Vec<Arc<L7Rules>> =
            self.rules.iter().map(|rules| rules.to_engine().map(Arc::new)).collect::<Result<_, _>>()?;
        let slots = self.slots.iter().enumerate();
        slots.map(|(nth, slot)| slot.to_engine(&rules).ok_or(RulesError::Slot(nth))).collect()
    }
}

impl Slot {
    fn to_engine(&self, lists: &[Arc<L7Rules>]) -> Option<(Key, requests::Slot)> {
        let l4 = match (self.protocol.map(Protocol::from_number), self.port) {
            (None, None) => L4Match::Any,
            (Some(protocol), None) => L4Match::Protocol(protocol),
            (Some(protocol), Some((port, prefix @ 1..=16))) => L4Match::Port { protocol, port, prefix },
            (None | Some(_), Some(_)) => return None,
        };
        let says = match self.says {
            Says::Allow => requests::Says::Allow,
            Says::Deny => requests::Says::Deny,
            Says::Pass => requests::Says::Pass,
            Says::Requests(place) => {
                requests::Says::Requests { rules: Arc::clone(lists.get(place)?), at: self.at.clone() }
            }
        };
        let key = Key { direction: self.direction, peer: self.peer, l4 };
        Some((key, requests::Slot { precedence: self.precedence, rule: self.rule, exact: self.exact, says }))
    }
}

impl Rules {
    fn new(rules: &L7Rules) -> Self {
        match rules {
            L7Rules::Http(rules) => Self::Http(rules.iter().map(Rule::new).collect()),
            L7Rules::Kafka(_) => Self::Kafka,
            L7Rules::Dns(_) => Self::Dns,
            L7Rules::Tls(_) => Self::Tls,
        }
    }

    fn to_engine(&self) -> Result<L7Rules, RulesError> {
        Ok(match self {
            Self::Http(rules) => L7Rules::Http(rules.iter().map(Rule::to_engine).collect::<Result<_, _>>()?),
            Self::Kafka => L7Rules::Kafka(Vec::new()),
            Self::Dns => L7Rules::Dns(Vec::new()),
            Self::Tls => L7Rules::Tls(Vec::new()),
        })
    }
}

impl Rule {
    fn new(rule: &HttpRule) -> Self {
        let text = |pattern: &Option<Pattern>| pattern.as_ref().map(|own| own.as_str().to_owned());
        Self {
            part: rule.part.clone(),
            method: text(&rule.method),
            path: text(&rule.path),
            host: text(&rule.host),
            grpc: rule.grpc,
            headers: rule.headers.iter().map(Header::new).collect(),
        }
    }

    fn to_engine(&self) -> Result<HttpRule, RulesError> {
        let pattern = |text: &Option<String>| text.as_deref().map(Pattern::new).transpose();
        Ok(HttpRule {
            part: self.part.clone(),
            method: pattern(&self.method)?,
            path: pattern(&self.path)?,
            host: pattern(&self.host)?,
            grpc: self.grpc,
            headers: self.headers.iter().map(Header::to_engine).collect(),
        })
    }
}

impl Header {
    fn new(header: &HeaderRule) -> Self {
        let mismatch = header.mismatch.map(|action| match action {
            HeaderAction::Log => Mismatch::Log,
            HeaderAction::Add => Mismatch::Add,
            HeaderAction::Delete => Mismatch::Delete,
            HeaderAction::Replace => Mismatch::Replace,
        });
        let (name, value, secret) = (header.name.clone(), header.value.clone(), header.secret.clone());
        Self { name, value, secret, mismatch }
    }

    fn to_engine(&self) -> HeaderRule {
        let mismatch = self.mismatch.map(|action| match action {
            Mismatch::Log => HeaderAction::Log,
            Mismatch::Add => HeaderAction::Add,
            Mismatch::Delete => HeaderAction::Delete,
            Mismatch::Replace => HeaderAction::Replace,
        });
        let (name, value, secret) = (self.name.clone(), self.value.clone(), self.secret.clone());
        HeaderRule { name, value, secret, mismatch }
    }
}
