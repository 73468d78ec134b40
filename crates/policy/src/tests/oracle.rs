//! The semantics written down a second time, slowly: no rules, no selectors, no identities, no map.
//!
//! Objects are read as the API has them, and every packet and request is judged by going through all of them: what
//! they say is written down as statements, the statements are put in order, and the first one that decides decides.
//! Addresses are compared as addresses. Nothing of the engine is used but its configuration.

mod cluster;
mod kubernetes;
mod peers;
mod ports;
mod requests;

use std::{collections::BTreeMap, net::IpAddr};

use sluice_api::{
    LabelSelector,
    cilium::{
        CidrRule, EgressRule, FqdnSelector, IcmpRule, IngressRule, PolicyRule, PortRule, ServiceSelector,
    },
};
use sluice_arbitrary::{Group, Pod, Policy, Svc};
use sluice_types::{Direction, Protocol};

pub(super) use requests::Request;
use requests::{Parser, named};

use super::scene::Outcome;
use crate::{Config, Enforcement};

/// Who may stand on the other side.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    Pod(Pod),
    /// `host`, `remote-node`, `health`, `unmanaged`, `ingress`, `init`.
    Reserved(&'static str),
    /// Another node with labels.
    Node(&'static [(&'static str, &'static str)]),
    Address(IpAddr),
}

/// Everything a verdict depends on.
pub(super) struct World<'a> {
    pub(super) config: &'a Config,
    pub(super) namespace_labels: &'a BTreeMap<&'static str, Vec<(&'static str, &'static str)>>,
    pub(super) pods: &'a [Pod],
    pub(super) policies: &'a [Policy],
    /// Those that are not in audit mode.
    pub(super) enforced: &'a [Policy],
    pub(super) services: &'a [Svc],
    pub(super) groups: &'a [Group],
    /// What names each address was learnt for.
    pub(super) names: &'a [(&'static str, &'static [&'static str])],
}

/// A packet as the subject sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub(super) subject: &'a Pod,
    pub(super) direction: Direction,
    pub(super) peer: &'a Peer,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

/// Groups of policies, the first one that decides first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Tier {
    Admin,
    Normal,
    Baseline,
    Default,
}

/// What somebody says about the packet. At one priority the first of these counts.
#[derive(Clone, Debug)]
enum Says<'a> {
    Deny,
    Requests(requests::Rules<'a>),
    Allow {
        /// Names just this port.
        exact: bool,
    },
    Pass,
}

#[derive(Clone, Debug)]
struct Statement<'a> {
    tier: Tier,
    priority: i64,
    rank: u8,
    says: Says<'a>,
}

impl<'a> Statement<'a> {
    fn new(tier: Tier, priority: i64, says: Says<'a>) -> Self {
        let rank = match says {
            Says::Deny => 0,
            Says::Requests(_) => 1,
            Says::Allow { .. } => 2,
            Says::Pass => 3,
        };
        Self { tier, priority, rank, says }
    }
}

/// What the policies say about one packet.
#[derive(Default)]
struct Findings<'a> {
    /// Whether any rule is about the subject in this direction.
    rules: bool,
    /// Whether a policy isolates it.
    closed: bool,
    statements: Vec<Statement<'a>>,
}

impl Findings<'_> {
    fn allow(&mut self, exact: bool) {
        self.statements.push(Statement::new(Tier::Normal, 0, Says::Allow { exact }));
    }
}

impl<'a> World<'a> {
    /// Judges a packet, and the request in it if a proxy sees it.
    ///
    /// Policies in audit mode change nothing: what passes without them, and would be denied with them, is reported.
    pub(super) fn judge(&self, packet: Packet<'_>, request: Option<&Request<'_>>) -> Outcome {
        if self.enforced.len() == self.policies.len() {
            return self.enforce(packet, request);
        }
        let without = World { policies: self.enforced, ..*self };
        let outcome = without.enforce(packet, request);
        if outcome == Outcome::Allow && without.passes_to_everybody(packet) {
            return match self.enforce(packet, request) {
                Outcome::Deny | Outcome::Default | Outcome::Refused => Outcome::Audit,
                Outcome::Allow | Outcome::Audit | Outcome::Proxied => outcome,
            };
        }
        outcome
    }

    /// Whether a proxy sees the requests in a packet, be it only for policies in audit mode.
    pub(super) fn is_looked_into(&self, packet: Packet<'_>) -> bool {
        let outcomes = [self.judge(packet, None), self.enforce(packet, None)];
        outcomes[0] == Outcome::Proxied || outcomes == [Outcome::Allow, Outcome::Proxied]
    }

    /// Whether no administrator decides about the packet before everybody else.
    fn passes_to_everybody(&self, packet: Packet<'_>) -> bool {
        let statements = self.statements(packet);
        let first = statements.iter().find(|statement| !matches!(statement.says, Says::Pass));
        first.is_none_or(|statement| statement.tier != Tier::Admin)
    }

    /// Judges with every policy enforced, in audit mode or not.
    fn enforce(&self, packet: Packet<'_>, request: Option<&Request<'_>>) -> Outcome {
        if self.config.enforcement == Enforcement::Never {
            return Outcome::Allow;
        }
        let statements = self.statements(packet);
        let asks = |tier: Tier| {
            statements.iter().any(|other| other.tier == tier && matches!(other.says, Says::Requests(_)))
        };
        let mut heard: Vec<&requests::Rules<'_>> = Vec::new();
        for statement in &statements {
            match &statement.says {
                Says::Deny if heard.is_empty() => return Outcome::Deny,
                Says::Deny => return Outcome::Refused,
                Says::Requests(rules) => {
                    heard.push(rules);
                    match request {
                        None => return Outcome::Proxied,
                        Some(request) if named(&heard, request) => return Outcome::Allow,
                        Some(_) => {}
                    }
                }
                Says::Allow { exact } => {
                    let is_dns = !heard.is_empty() && matches!(request, Some(Request::Dns(_)));
                    if !is_dns || *exact || !asks(statement.tier) {
                        return Outcome::Allow;
                    }
                }
                Says::Pass => {}
            }
        }
        if heard.is_empty() { Outcome::Default } else { Outcome::Refused }
    }

    /// What is said about a packet, in order, without what a pass leaves out.
    fn statements(&self, packet: Packet<'_>) -> Vec<Statement<'a>> {
        let mut found = Findings::default();
        for policy in self.policies {
            match policy {
                Policy::Cnp(policy) => {
                    let namespace = policy.metadata.namespace.as_deref();
                    let all = policy.spec.iter().chain(policy.specs.iter().flatten());
                    all.for_each(|rule| self.cilium_rule(rule, namespace, packet, &mut found));
                }
                Policy::Ccnp(policy) => {
                    let all = policy.spec.iter().chain(policy.specs.iter().flatten());
                    all.for_each(|rule| self.cilium_rule(rule, None, packet, &mut found));
                }
                Policy::Knp(policy) => self.kubernetes(policy, packet, &mut found),
                Policy::Kcnp(policy) => self.cluster(policy, packet, &mut found),
            }
        }
        let mut statements = found.statements;
        if found.closed {
            statements.retain(|statement| statement.tier != Tier::Baseline);
        }
        let parsers: Vec<Parser> = statements
            .iter()
            .filter(|statement| statement.tier == Tier::Normal)
            .filter_map(|statement| match &statement.says {
                Says::Requests(rules) => Some(rules.parser()),
                Says::Deny | Says::Allow { .. } | Says::Pass => None,
            })
            .collect();
        if parsers.iter().any(|parser| *parser != parsers[0]) {
            // Nobody can read two protocols at once.
            statements.push(Statement::new(Tier::Normal, 0, Says::Deny));
        }
        let isolated = found.closed || self.config.enforcement == Enforcement::Always;
        let from_node = packet.direction == Direction::Ingress
            && matches!(packet.peer, Peer::Reserved("host"))
            && self.config.allow_localhost
            && found.rules;
        if from_node || !isolated {
            statements.push(Statement::new(Tier::Default, 0, Says::Allow { exact: false }));
        }
        for statement in &mut statements {
            if statement.tier == Tier::Baseline && isolated && matches!(statement.says, Says::Pass) {
                // Whoever passes to a default that denies, denies.
                statement.says = Says::Deny;
            }
        }
        statements.sort_by_key(|statement| (statement.tier, statement.priority, statement.rank));
        let mut passed = None;
        statements.retain(|statement| {
            let skipped = passed == Some(statement.tier);
            if !skipped && matches!(statement.says, Says::Pass) {
                passed = Some(statement.tier);
            }
            !skipped
        });
        statements
    }

    fn cilium_rule(
        &self,
        rule: &'a PolicyRule,
        namespace: Option<&str>,
        packet: Packet<'_>,
        found: &mut Findings<'a>,
    ) {
        if !self.is_subject(rule, namespace, packet) {
            return;
        }
        let asked = rule.enable_default_deny.unwrap_or_default();
        let (allow, deny, default_deny): (Vec<Entry<'a>>, Vec<Entry<'a>>, _) = match packet.direction {
            Direction::Ingress => (
                rule.ingress.iter().flatten().map(Entry::ingress).collect(),
                rule.ingress_deny.iter().flatten().map(Entry::ingress).collect(),
                asked.ingress,
            ),
            Direction::Egress => (
                rule.egress.iter().flatten().map(Entry::egress).collect(),
                rule.egress_deny.iter().flatten().map(Entry::egress).collect(),
                asked.egress,
            ),
        };
        if allow.is_empty() && deny.is_empty() {
            return;
        }
        let default_deny = default_deny.unwrap_or(true);
        found.rules = true;
        found.closed |= default_deny;
        for entry in &allow {
            for (exact, rules) in self.matches(entry, namespace, packet, false) {
                match rules {
                    Some(rules) => {
                        let says = Says::Requests(rules);
                        found.statements.push(Statement::new(Tier::Normal, 0, says));
                        if !default_deny {
                            found.allow(exact);
                        }
                    }
                    None => found.allow(exact),
                }
            }
        }
        if deny.iter().any(|entry| !self.matches(entry, namespace, packet, true).is_empty()) {
            found.statements.push(Statement::new(Tier::Normal, 0, Says::Deny));
        }
    }

    fn is_subject(&self, rule: &PolicyRule, namespace: Option<&str>, packet: Packet<'_>) -> bool {
        let selector = rule.endpoint_selector.as_ref().unwrap();
        namespace.is_none_or(|namespace| namespace == packet.subject.namespace())
            && self.selects(selector, &Peer::Pod(packet.subject.clone()), "")
    }

    /// The parts of an entry that are about the packet: whether each names just its port, and what it says of
    /// requests.
    fn matches(
        &self,
        entry: &Entry<'a>,
        namespace: Option<&str>,
        packet: Packet<'_>,
        deny: bool,
    ) -> Vec<(bool, Option<requests::Rules<'a>>)> {
        let is_peer = |peer: &Peer| self.entry_peers(entry, namespace, packet, peer, deny);
        let ports = entry.ports.unwrap_or_default();
        let icmps = entry.icmps.unwrap_or_default();
        if ports.is_empty() && icmps.is_empty() {
            return if is_peer(packet.peer) { vec![(false, None)] } else { Vec::new() };
        }
        let mut found = Vec::new();
        for rule in ports {
            let exact = match &rule.service {
                None => is_peer(packet.peer).then(|| self.ports(rule, packet)).flatten(),
                Some(service) => {
                    self.behind(service, rule, namespace, packet, deny, &is_peer).then_some(true)
                }
            };
            found.extend(exact.map(|exact| (exact, requests::Rules::of(rule))));
        }
        if is_peer(packet.peer) && icmps.iter().any(|rule| ports::icmp(rule, packet)) {
            found.push((true, None));
        }
        found
    }
}

/// One entry, whichever direction it is for.
struct Entry<'a> {
    endpoints: Option<&'a [LabelSelector]>,
    requires: Option<&'a [LabelSelector]>,
    cidr: Option<&'a [String]>,
    cidr_set: Option<&'a [CidrRule]>,
    entities: Option<&'a [String]>,
    nodes: Option<&'a [LabelSelector]>,
    services: Option<&'a [ServiceSelector]>,
    names: Option<&'a [FqdnSelector]>,
    ports: Option<&'a [PortRule]>,
    icmps: Option<&'a [IcmpRule]>,
}

impl<'a> Entry<'a> {
    fn ingress(rule: &'a IngressRule) -> Self {
        Self {
            endpoints: rule.from_endpoints.as_deref(),
            requires: rule.from_requires.as_deref(),
            cidr: rule.from_cidr.as_deref(),
            cidr_set: rule.from_cidr_set.as_deref(),
            entities: rule.from_entities.as_deref(),
            nodes: rule.from_nodes.as_deref(),
            services: None,
            names: None,
            ports: rule.to_ports.as_deref(),
            icmps: rule.icmps.as_deref(),
        }
    }

    fn egress(rule: &'a EgressRule) -> Self {
        Self {
            endpoints: rule.to_endpoints.as_deref(),
            requires: rule.to_requires.as_deref(),
            cidr: rule.to_cidr.as_deref(),
            cidr_set: rule.to_cidr_set.as_deref(),
            entities: rule.to_entities.as_deref(),
            nodes: rule.to_nodes.as_deref(),
            services: rule.to_services.as_deref(),
            names: rule.to_fqdns.as_deref(),
            ports: rule.to_ports.as_deref(),
            icmps: rule.icmps.as_deref(),
        }
    }
}
