//! The rules that came nearest to allowing something, and what stood in the way.

use std::{collections::BTreeSet, fmt};

use ipnet::IpNet;
use sluice_types::{Direction, Labels, Protocol, RuleId};

use crate::{
    l7::Mismatch,
    map_state::Query,
    named_ports::unambiguous,
    referents::{Backend, ServiceName, ServicePort},
    repository::{InstalledRule, PeerSet, Repository},
    requests::RequestDecision,
    resolve::means_port,
    rule::{Action, PortRange, PortRule, Ports, RuleOrigin, Subject, Traffic},
    selector::{CidrSelector, LabelSelector, Selector, most_specific_prefixes},
    selector_cache::SelectorId,
};

/// How many are told about.
const SHOWN_MAX: usize = 5;

/// A rule that allows something like what was asked about.
#[derive(Clone, Debug, PartialEq)]
pub struct NearMiss {
    /// The rule.
    pub id: RuleId,
    /// Where it comes from.
    pub rule: RuleOrigin,
    /// Everything that stands in the way, at least one thing.
    pub obstacles: Vec<Obstacle>,
}

/// One thing that stands in the way.
#[derive(Clone, Debug, PartialEq)]
pub enum Obstacle {
    /// The rule is for other peers.
    Peer {
        /// The selector that comes nearest; `None` if the rule selects nobody at all.
        wanted: Option<Selector>,
        /// The requirements of that selector that the peer does not fulfil, in words.
        unmet: Vec<String>,
    },
    /// The peer does not have what `fromRequires` or `toRequires` asks for.
    Requires(LabelSelector),
    /// The rule is for other ports.
    Port(Vec<Traffic>),
    /// The destination is not behind this Service.
    Service(String),
    /// The rule is for other requests.
    Request {
        /// The part, `toPorts[0].http[1]`.
        part: String,
        /// What is different.
        mismatch: Mismatch,
    },
}

impl Obstacle {
    /// How far away the rule is because of this: unmet requirements count one by one.
    fn distance(&self) -> usize {
        match self {
            Self::Peer { wanted: None, .. } => 10,
            Self::Peer { unmet, .. } => unmet.len().max(1) * 2,
            Self::Requires(_) | Self::Service(_) | Self::Port(_) => 2,
            Self::Request { .. } => 1,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer { wanted: None, .. } => f.write_str("it selects no peer"),
            Self::Peer { unmet, .. } => write!(f, "the peer is not {}", unmet.join(" and ")),
            Self::Requires(selector) => write!(f, "it requires a peer with {selector}"),
            Self::Port(traffic) if traffic.is_empty() => f.write_str("it names no port"),
            Self::Port(traffic) => {
                let ports: Vec<String> = traffic.iter().map(ToString::to_string).collect();
                write!(f, "it is for {}", ports.join(", "))
            }
            Self::Service(name) => write!(f, "the destination is not behind the Service {name}"),
            Self::Request { part, mismatch } => write!(f, "{part}: {mismatch}"),
        }
    }
}

impl fmt::Display for Traffic {
    /// `8080/TCP`, `8000-8099/TCP`, `TCP`, `http/TCP`, `type 8/ICMP`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(protocol) => write!(f, "{protocol}"),
            Self::Ports(protocol, range) => write!(f, "{range}/{protocol}"),
            Self::NamedPort(protocol, name) => write!(f, "{name}/{protocol}"),
            Self::Icmp(protocol, kind) => write!(f, "type {kind}/{protocol}"),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.bounds().into_inner();
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

impl Repository {
    /// The rules of `subject` that come nearest to allowing what was denied.
    pub(super) fn near_misses(
        &self,
        subject: &Subject,
        query: &Query,
        request: Option<&RequestDecision>,
    ) -> Vec<NearMiss> {
        let rules = self.matching_rules(&subject.labels);
        let unknown = Labels::default();
        let peer = self.labels(query.peer).unwrap_or(&unknown);
        let look = Look { repository: self, subject, query, peer, rules: &rules };
        let mut misses: Vec<NearMiss> = rules
            .iter()
            .filter(|rule| rule.rule.direction == query.direction && rule.rule.action == Action::Allow)
            .flat_map(|rule| look.at(rule, request))
            .filter(|miss| !miss.obstacles.is_empty())
            .collect();
        misses.sort_by_key(|miss| miss.obstacles.iter().map(Obstacle::distance).sum::<usize>());
        misses.truncate(SHOWN_MAX);
        misses
    }
}

/// What was asked about, while rules are looked at one by one.
struct Look<'a> {
    repository: &'a Repository,
    subject: &'a Subject,
    query: &'a Query,
    peer: &'a Labels,
    /// Every rule of the subject: what one requires counts for all.
    rules: &'a [&'a InstalledRule],
}

impl Look<'_> {
    /// One miss, or one for each part of the rule that is about requests.
    fn at(&self, rule: &InstalledRule, request: Option<&RequestDecision>) -> Vec<NearMiss> {
        let mut obstacles: Vec<Obstacle> = self.peer_obstacle(rule).into_iter().collect();
        obstacles.extend(self.port_obstacle(rule));
        let miss = |obstacles| NearMiss { id: rule.id, rule: rule.origin.clone(), obstacles };
        if !obstacles.is_empty() {
            return vec![miss(obstacles)];
        }
        let mismatches = request.into_iter().flat_map(|request| &request.mismatches);
        mismatches
            .filter(|(id, _, _)| *id == rule.id)
            .map(|(_, part, mismatch)| {
                miss(vec![Obstacle::Request { part: part.clone(), mismatch: mismatch.clone() }])
            })
            .collect()
    }

    fn peer_obstacle(&self, rule: &InstalledRule) -> Option<Obstacle> {
        let (selectors, by_endpoint) = match &rule.peers {
            PeerSet::Any => return None,
            PeerSet::Select(selectors) => (selectors, false),
            PeerSet::Endpoints(selectors) => (selectors, true),
        };
        if !selectors.iter().any(|selector| self.repository.is_selected(*selector, self.query.peer)) {
            let selectors: BTreeSet<SelectorId> = selectors.iter().copied().collect();
            let known = selectors.iter().filter_map(|id| self.repository.selector(*id));
            let nearest =
                known.map(|selector| (selector, self.unmet(selector))).min_by_key(|(_, unmet)| unmet.len());
            return Some(match nearest {
                Some((selector, unmet)) => Obstacle::Peer { wanted: Some(selector.clone()), unmet },
                None => Obstacle::Peer { wanted: None, unmet: Vec::new() },
            });
        }
        let same = |other: &&InstalledRule| {
            other.rule.direction == rule.rule.direction && other.rule.action == rule.rule.action
        };
        let mut required = self.rules.iter().copied().filter(same).flat_map(|other| &other.rule.requires);
        let unmet = required.find(|selector| by_endpoint && !selector.matches(self.peer));
        unmet.cloned().map(Obstacle::Requires)
    }

    /// What the peer lacks to be selected.
    fn unmet(&self, selector: &Selector) -> Vec<String> {
        match selector {
            Selector::Labels(labels) => {
                let unmet = labels.requirements().filter(|requirement| !requirement.matches(self.peer));
                unmet.map(ToString::to_string).collect()
            }
            Selector::Cidr(CidrSelector { prefix, except }) => {
                let own = most_specific_prefixes(self.peer);
                let hole = except.iter().find(|hole| own.iter().any(|own| hole.contains(own)));
                match hole {
                    Some(hole) => vec![format!("outside of {hole}, which {prefix} excepts")],
                    None => vec![format!("in {prefix}")],
                }
            }
        }
    }

    fn port_obstacle(&self, rule: &InstalledRule) -> Option<Obstacle> {
        let Ports::Select(rules) = &rule.rule.ports else { return None };
        let mut elsewhere = None;
        for ports in rules {
            match &ports.service {
                None if self.covers(ports) => return None,
                None => {}
                Some(name) => match self.behind(name) {
                    own if own.is_empty() => elsewhere = Some(Obstacle::Service(name.to_string())),
                    own if self.covers_one_of(ports, name, &own) => return None,
                    _ => {}
                },
            }
        }
        let named = || Obstacle::Port(rules.iter().flat_map(|ports| ports.traffic.clone()).collect());
        Some(elsewhere.unwrap_or_else(named))
    }

    /// The ports of the destination that a Service leads to.
    fn behind(&self, name: &ServiceName) -> Vec<&ServicePort> {
        match self.query.direction {
            Direction::Ingress => {
                let own = self.subject.services.iter().filter(|own| own.service == *name);
                own.flat_map(|own| &own.ports).collect()
            }
            Direction::Egress => {
                let backends = self.repository.service(name).map(|service| service.backends.as_slice());
                let prefixes = most_specific_prefixes(self.peer);
                let is_peer = |backend: &&Backend| match backend.identity {
                    Some(identity) => identity == self.query.peer,
                    None => prefixes.contains(&IpNet::from(backend.address)),
                };
                let own = backends.unwrap_or_default().iter().filter(is_peer);
                own.flat_map(|backend| &backend.ports).collect()
            }
        }
    }

    /// Whether the port that was asked about is one of these, and is meant.
    fn covers_one_of(&self, ports: &PortRule, name: &ServiceName, own: &[&ServicePort]) -> bool {
        let Some(service) = self.repository.service(name) else { return false };
        let asked = (self.query.protocol, self.query.port.unwrap_or_default());
        let is_named = |name: &str| self.is_named(asked.0, name, asked.1);
        let mut own = own.iter().filter(|port| (port.protocol, port.port) == asked);
        own.any(|port| means_port(ports, service, port, &is_named))
    }

    /// Whether the receiving side gives a port this name.
    fn is_named(&self, protocol: Protocol, name: &str, port: u16) -> bool {
        match self.query.direction {
            Direction::Ingress => {
                unambiguous(&self.subject.named_ports).get(&(name.to_owned(), protocol)) == Some(&port)
            }
            Direction::Egress => self.repository.has_port(self.query.peer, name, protocol, port),
        }
    }

    fn covers(&self, ports: &PortRule) -> bool {
        let (protocol, port) = (self.query.protocol, self.query.port.unwrap_or_default());
        ports.traffic.iter().any(|traffic| match traffic {
            Traffic::Protocol(its) => *its == protocol,
            Traffic::Ports(its, range) => *its == protocol && range.bounds().contains(&port),
            Traffic::Icmp(its, kind) => *its == protocol && u16::from(*kind) == port,
            Traffic::NamedPort(its, name) => *its == protocol && self.is_named(*its, name, port),
        })
    }
}
