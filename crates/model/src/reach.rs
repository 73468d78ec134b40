//! Everything that may pass from one to another, for all protocols and ports at once: what matrix and diff compare.
//!
//! The ports fall into spans in which no entry of either side's table begins or ends, so one question to the engine
//! stands for a whole span.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use sluice_policy::{EndpointPolicy, L4Match, Query, l7::L7Rules, requests::Says};
use sluice_types::{Direction, Identity, Protocol, Verdict};

use crate::{cluster::Cluster, end::UnknownEnd, participant::Who};

/// Stands for the protocols that policies cannot name: a rule about all protocols covers it.
const UNNAMED: Protocol = Protocol::Other(253);
/// The protocols that are told apart; the last one stands for all others.
pub const PROTOCOLS: [Protocol; 6] =
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp, Protocol::Icmpv6, UNNAMED];

/// What becomes of the traffic of a span.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Passage {
    /// It is dropped.
    Closed,
    /// It passes, and is reported because policy denies it.
    Audited,
    /// It passes as far as a proxy lets the requests in it pass.
    Requests(Requests),
    /// It passes.
    Open,
}

/// The requests that pass: at both ends, if both look.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Requests {
    egress: Option<Asked>,
    ingress: Option<Asked>,
}

/// What one end lets pass.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Asked {
    /// Whatever no rule names passes as well: rules may still change headers.
    others: bool,
    /// In one line each, sorted, with the rule itself: the line may leave a value out.
    rules: Vec<(String, L7Rules)>,
}

impl Requests {
    /// The requests in words, without saying which end asks for them: `GET /orders`. Of both ends each must let a
    /// request pass.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let asked = [&self.egress, &self.ingress].into_iter().flatten();
        let words: BTreeSet<String> = asked
            .flat_map(|asked| {
                let others = asked.others.then(|| "any other request".to_owned());
                asked.rules.iter().map(|(words, _)| words.clone()).chain(others)
            })
            .collect();
        if words.is_empty() { vec!["no request".to_owned()] } else { words.into_iter().collect() }
    }
}

/// Ports of one protocol, or types of ICMP, to which the same happens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Span {
    /// The protocol.
    pub protocol: Protocol,
    /// First port or type.
    pub first: u16,
    /// Last port or type.
    pub last: u16,
    /// What becomes of it.
    pub passage: Passage,
}

impl Span {
    /// Whether the span is all of its protocol.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        (self.first, self.last) == bounds(self.protocol)
    }
}

/// `8080/TCP`, `30000-32767/TCP`, `TCP`, `ICMP type 8`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.protocol == UNNAMED {
            return f.write_str("other protocols");
        }
        let Self { protocol, first, last, .. } = self;
        match (self.is_whole(), self.protocol.has_ports(), first == last) {
            (true, _, _) => protocol.fmt(f),
            (false, true, true) => write!(f, "{first}/{protocol}"),
            (false, true, false) => write!(f, "{first}-{last}/{protocol}"),
            (false, false, true) => write!(f, "{protocol} type {first}"),
            (false, false, false) => write!(f, "{protocol} types {first}-{last}"),
        }
    }
}

/// Everything that may pass from one to another. Spans cover all protocols, in a fixed order without gaps.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reach {
    spans: Vec<Span>,
}

impl Reach {
    /// All spans.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Those in which something passes.
    pub fn passing(&self) -> impl Iterator<Item = &Span> {
        self.spans.iter().filter(|span| span.passage != Passage::Closed)
    }

    /// Whether everything passes without a question.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.spans.iter().all(|span| span.passage == Passage::Open)
    }

    /// Whether nothing passes.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.passing().next().is_none()
    }

    /// The passage of one port.
    #[must_use]
    pub fn at(&self, protocol: Protocol, port: u16) -> &Passage {
        let protocol = if PROTOCOLS.contains(&protocol) { protocol } else { UNNAMED };
        let is_it = |span: &&Span| span.protocol == protocol && (span.first..=span.last).contains(&port);
        self.spans.iter().find(is_it).map_or(&Passage::Closed, |span| &span.passage)
    }
}

/// A settled cluster with everybody's policy at hand.
#[derive(Debug)]
pub struct Judges<'c> {
    cluster: &'c Cluster,
    policies: BTreeMap<&'c str, Arc<EndpointPolicy>>,
}

impl Cluster {
    /// Works out everybody's policy, so that many questions can be asked. There is one local node: the first
    /// [`Who::Host`].
    pub fn judges(&mut self) -> Judges<'_> {
        self.settle();
        let is_host = |who: &Who| matches!(who, Who::Host(_));
        let host = self.known.values().find(|known| is_host(&known.participant.who));
        if let Some(labels) = host.map(|host| host.labels.clone()) {
            self.host_is(&labels);
        }
        let policy = |subject| self.repository.resolve(subject);
        let judged =
            self.known.iter().filter_map(|(name, known)| Some((name.as_str(), known.subject.as_ref()?)));
        let policies = judged.map(|(name, subject)| (name, policy(subject))).collect();
        Judges { cluster: self, policies }
    }
}

impl Judges<'_> {
    /// What may pass between two, by name.
    ///
    /// # Errors
    /// Nobody is called that.
    pub fn reach(&self, from: &str, to: &str) -> Result<Reach, UnknownEnd> {
        let identity = |name: &str| self.cluster.known_end(name).map(|known| known.identity);
        let (sender, receiver) = (identity(from)?, identity(to)?);
        if from == to {
            // Traffic to an own address never leaves the pod.
            let whole = |protocol| span(protocol, bounds(protocol), Passage::Open);
            return Ok(Reach { spans: PROTOCOLS.map(whole).to_vec() });
        }
        let egress = self.policies.get(from).map(|policy| (&**policy, Direction::Egress, receiver));
        let ingress = self.policies.get(to).map(|policy| (&**policy, Direction::Ingress, sender));
        let sides: Vec<Side<'_>> = [egress, ingress].into_iter().flatten().collect();
        let matches = matches(&sides).collect();
        let spans = PROTOCOLS.iter().flat_map(|protocol| protocol_spans(&sides, &matches, *protocol));
        Ok(Reach { spans: spans.collect() })
    }

    /// The policy of somebody who is judged.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<&EndpointPolicy> {
        self.policies.get(name).map(|policy| &**policy)
    }

    /// Whether two are the same for every policy: nobody can tell them apart, and they are judged alike.
    #[must_use]
    pub fn are_alike(&self, one: &str, other: &str) -> bool {
        let known = |name: &str| self.cluster.known.get(name);
        let (Some(one), Some(other)) = (known(one), known(other)) else { return false };
        one.identity == other.identity
            && one.subject == other.subject
            && one.participant.ports == other.participant.ports
    }
}

type Side<'a> = (&'a EndpointPolicy, Direction, Identity);

fn span(protocol: Protocol, (first, last): (u16, u16), passage: Passage) -> Span {
    Span { protocol, first, last, passage }
}

/// First and last port or type.
const fn bounds(protocol: Protocol) -> (u16, u16) {
    match protocol {
        Protocol::Tcp | Protocol::Udp | Protocol::Sctp => (1, u16::MAX),
        Protocol::Icmp | Protocol::Icmpv6 => (0, 255),
        Protocol::Other(_) => (0, 0),
    }
}

/// Everything by which one of the sides tells ports apart.
fn matches<'a>(sides: &[Side<'a>]) -> impl Iterator<Item = &'a L4Match> {
    sides.iter().flat_map(|(policy, direction, peer)| {
        let requests = policy.requests.iter().map(|(key, _)| key);
        let keys = policy.map_state.iter().map(|(_, key, _)| key).chain(requests);
        let (direction, peer) = (*direction, *peer);
        keys.filter(move |key| key.direction == direction && key.peer.is_none_or(|own| own == peer))
            .map(|key| &key.l4)
    })
}

fn protocol_spans(sides: &[Side<'_>], matches: &BTreeSet<&L4Match>, protocol: Protocol) -> Vec<Span> {
    let (first, last) = bounds(protocol);
    let blocks = matches.iter().filter_map(|own| block(own, protocol));
    let starts: BTreeSet<u16> =
        blocks.flat_map(|(first, next)| [Some(first), next]).flatten().chain([first]).collect();
    let starts: Vec<u16> = starts.into_iter().filter(|start| (first..=last).contains(start)).collect();
    let mut spans: Vec<Span> = Vec::new();
    for (nth, start) in starts.iter().enumerate() {
        let end = starts.get(nth + 1).map_or(last, |next| next - 1);
        let passage = passage(sides, protocol, *start);
        match spans.last_mut().filter(|before| before.passage == passage) {
            Some(before) => before.last = end,
            None => spans.push(span(protocol, (*start, end), passage)),
        }
    }
    spans
}

/// The first port of a block, and the first one behind it.
fn block(own: &L4Match, wanted: Protocol) -> Option<(u16, Option<u16>)> {
    match *own {
        L4Match::Port { protocol, port, prefix } if protocol == wanted => {
            let size = 1_u32 << 16_u8.saturating_sub(prefix);
            Some((port, u16::try_from(u32::from(port) + size).ok()))
        }
        L4Match::Port { .. } | L4Match::Protocol(_) | L4Match::Any => None,
    }
}

fn passage(sides: &[Side<'_>], protocol: Protocol, port: u16) -> Passage {
    let mut requests = Requests::default();
    let mut audited = false;
    for (policy, direction, peer) in sides {
        let query = Query { direction: *direction, peer: *peer, protocol, port: Some(port) };
        match policy.map_state.decide(&query).verdict {
            Verdict::Allow => {}
            Verdict::Deny(_) => return Passage::Closed,
            Verdict::Audit(_) => audited = true,
            // Only policies in audit mode look at the requests.
            Verdict::Redirect(_) if policy.map_state.enforced(&query).0.verdict == Verdict::Allow => {
                audited = true;
            }
            Verdict::Redirect(_) => {
                let asked = asked(policy, &query);
                match direction {
                    Direction::Egress => requests.egress = Some(asked),
                    Direction::Ingress => requests.ingress = Some(asked),
                }
            }
        }
    }
    match (requests == Requests::default(), audited) {
        (false, _) => Passage::Requests(requests),
        (true, true) => Passage::Audited,
        (true, false) => Passage::Open,
    }
}

fn asked(policy: &EndpointPolicy, query: &Query) -> Asked {
    let mut asked = Asked { others: policy.map_state.audit(query.direction), rules: Vec::new() };
    for slot in policy.requests.slots(query) {
        match &slot.says {
            Says::Requests { rules, .. } => asked.rules.extend(apart(rules)),
            Says::Allow => {
                asked.others = true;
                break;
            }
            Says::Deny | Says::Pass => break,
        }
    }
    asked.rules.sort_by(|(one, _), (other, _)| one.cmp(other));
    asked.rules.dedup();
    asked
}

/// Each rule on its own, without where it stands.
fn apart(rules: &L7Rules) -> Vec<(String, L7Rules)> {
    fn each<R: Clone>(
        rules: &[R],
        part: fn(&mut R) -> &mut String,
        alone: fn(Vec<R>) -> L7Rules,
    ) -> Vec<L7Rules> {
        let placeless = |rule: &R| {
            let mut rule = rule.clone();
            part(&mut rule).clear();
            alone(vec![rule])
        };
        rules.iter().map(placeless).collect()
    }
    let alone = match rules {
        L7Rules::Http(rules) => each(rules, |rule| &mut rule.part, L7Rules::Http),
        L7Rules::Kafka(rules) => each(rules, |rule| &mut rule.part, L7Rules::Kafka),
        L7Rules::Dns(rules) => each(rules, |rule| &mut rule.part, L7Rules::Dns),
        L7Rules::Tls(rules) => each(rules, |rule| &mut rule.part, L7Rules::Tls),
    };
    rules.words().into_iter().zip(alone).collect()
}

#[cfg(test)]
mod tests;
