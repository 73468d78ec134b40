//! Rules of Kubernetes `NetworkPolicy`: the meaning of `networking.k8s.io/v1`.

use sluice_api::{
    LabelSelector as Written,
    network_policy::{IpBlock, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec},
};
use sluice_types::{Direction, Protocol};
use std::collections::BTreeSet;

use super::{
    Path, Reason, Report, cidr,
    ports::{NumberOrName, number_or_name, range},
    reason::Words,
    selectors::{self, Keys, keep_to_cluster, namespace_key},
};
use crate::{
    config::Config,
    labels::NAMESPACE_LABEL_PREFIX,
    rule::{Action, Peers, PortRule, Ports, Priority, Rule, RuleSubject, Tier, Traffic},
    selector::{CidrSelector, LabelSelector, Requirement, Selector},
};

const POLICY_TYPES: Words = Words(&["Ingress", "Egress"]);
const PROTOCOLS: Words = Words(&["TCP", "UDP", "SCTP"]);

/// The rules of a policy in `namespace`.
///
/// A direction that the policy isolates without letting anything pass becomes a rule without peers.
pub(super) fn rules(
    spec: Option<&NetworkPolicySpec>,
    namespace: &str,
    config: &Config,
    report: &mut Report,
) -> Vec<Rule> {
    let path = Path::root("spec");
    let Some(spec) = spec else {
        report.refuse(&path, Reason::Required);
        return Vec::new();
    };
    let everything = Written::default();
    let selector = spec.pod_selector.as_ref().unwrap_or(&everything);
    let place = path.field("podSelector");
    let subject = selectors::confined_subject(selector, namespace, Keys::Kubernetes(""), &place, report);
    let isolated = isolated(spec, &path, report);
    let context = Context { namespace, config };
    let ingress = spec.ingress.as_deref().unwrap_or_default().iter();
    let egress = spec.egress.as_deref().unwrap_or_default().iter();
    // The lists are read even where a direction is not isolated, so that what is wrong in them is said.
    let ingress = ingress.map(|rule| (rule.from.as_deref(), rule.ports.as_deref()));
    let egress = egress.map(|rule| (rule.to.as_deref(), rule.ports.as_deref()));
    let lists = [
        (Direction::Ingress, "from", ingress.collect::<Vec<_>>()),
        (Direction::Egress, "to", egress.collect::<Vec<_>>()),
    ];
    let mut rules = Vec::new();
    for (direction, from_or_to, entries) in lists {
        let list = path.field(direction.as_str());
        let mut matched: Vec<(Path, Peers, Ports)> = Vec::new();
        for (path, (peers, ports)) in list.items(Some(&entries)) {
            let peers = context.peers(*peers, &path.field(from_or_to), report);
            let ports = parse_ports(*ports, &path, report);
            matched.push((path, peers, ports));
        }
        if matched.is_empty() {
            matched.push((list, Peers::Select(Vec::new()), Ports::Any));
        }
        if isolated.contains(&direction) {
            let rule = |(path, peers, ports)| rule(&subject, direction, &path, peers, ports);
            rules.extend(matched.into_iter().map(rule));
        }
    }
    rules
}

fn rule(subject: &RuleSubject, direction: Direction, path: &Path, peers: Peers, ports: Ports) -> Rule {
    Rule {
        path: path.0.strip_prefix("spec.").unwrap_or(&path.0).to_owned(),
        subject: subject.clone(),
        direction,
        tier: Tier::Normal,
        priority: Priority::default(),
        action: Action::Allow,
        peers,
        ports,
        requires: Vec::new(),
        default_deny: true,
        audit: false,
        description: None,
        log: None,
    }
}

/// The directions a policy isolates: those it names, or ingress, and egress if it has egress rules.
fn isolated(spec: &NetworkPolicySpec, path: &Path, report: &mut Report) -> Vec<Direction> {
    let named = spec.policy_types.as_deref().unwrap_or_default();
    if named.is_empty() {
        let egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
        return if egress { Direction::ALL.to_vec() } else { vec![Direction::Ingress] };
    }
    let mut directions = Vec::new();
    for (path, name) in path.field("policyTypes").items(Some(named)) {
        let direction = match name.as_str() {
            "Ingress" => Ok(Direction::Ingress),
            "Egress" => Ok(Direction::Egress),
            other => Err(Reason::NoneOf { found: other.to_owned(), known: POLICY_TYPES }),
        };
        directions.extend(report.accept(&path, direction));
    }
    directions
}

struct Context<'a> {
    namespace: &'a str,
    config: &'a Config,
}

impl Context<'_> {
    /// Absent and empty both mean everybody, known or not.
    fn peers(&self, peers: Option<&[NetworkPolicyPeer]>, path: &Path, report: &mut Report) -> Peers {
        if peers.is_none_or(<[_]>::is_empty) {
            return Peers::Any;
        }
        Peers::Select(path.items(peers).filter_map(|(path, peer)| self.peer(peer, &path, report)).collect())
    }

    fn peer(&self, peer: &NetworkPolicyPeer, path: &Path, report: &mut Report) -> Option<Selector> {
        let pods = peer.pod_selector.as_ref();
        let namespaces = peer.namespace_selector.as_ref();
        match (&peer.ip_block, pods, namespaces) {
            (None, None, None) => report.accept(path, Err(Reason::NoPeer)),
            (Some(block), None, None) => ip_block(block, &path.field("ipBlock"), report),
            (Some(_), _, _) => report.accept(path, Err(Reason::IpBlockAndPods)),
            (None, _, _) => Some(Selector::Labels(self.pods(pods, namespaces, path, report))),
        }
    }

    /// Pods of the namespaces that are selected, or of the policy's own if none is.
    fn pods(
        &self,
        pods: Option<&Written>,
        namespaces: Option<&Written>,
        path: &Path,
        report: &mut Report,
    ) -> LabelSelector {
        let mut selector = LabelSelector::default();
        if let Some(pods) = pods {
            let read = selectors::read(pods, Keys::Kubernetes(""), &path.field("podSelector"), report);
            selector.extend(read);
        }
        match namespaces {
            Some(namespaces) => {
                let path = path.field("namespaceSelector");
                let keys = Keys::Kubernetes(NAMESPACE_LABEL_PREFIX);
                selector.extend(selectors::read(namespaces, keys, &path, report));
                selector.require(Requirement::Exists(namespace_key()));
            }
            None => selector.require(Requirement::equals(namespace_key(), self.namespace)),
        }
        keep_to_cluster(&mut selector, self.config);
        selector
    }
}

fn ip_block(block: &IpBlock, path: &Path, report: &mut Report) -> Option<Selector> {
    let prefix = report.accept(&path.field("cidr"), cidr::prefix(&block.cidr))?;
    let mut except = BTreeSet::new();
    for (path, text) in path.field("except").items(block.except.as_deref()) {
        let hole = cidr::prefix(text)
            .and_then(|hole| cidr::check_hole(prefix, hole))
            .and_then(|hole| if hole == prefix { Err(Reason::HoleIsAll(hole)) } else { Ok(hole) });
        except.extend(report.accept(&path, hole));
    }
    Some(Selector::Cidr(CidrSelector { prefix, except }))
}

/// Absent and empty both mean all traffic, ICMP included.
fn parse_ports(ports: Option<&[NetworkPolicyPort]>, entry: &Path, report: &mut Report) -> Ports {
    if ports.is_none_or(<[_]>::is_empty) {
        return Ports::Any;
    }
    let rule = |(path, port): (Path, &NetworkPolicyPort)| {
        traffic(port, &path, report).map(|traffic| PortRule::new(path.below(entry), vec![traffic]))
    };
    Ports::Select(entry.field("ports").items(ports).filter_map(rule).collect())
}

fn traffic(written: &NetworkPolicyPort, path: &Path, report: &mut Report) -> Option<Traffic> {
    let protocol = match written.protocol.as_deref().unwrap_or("TCP") {
        "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        "SCTP" => Ok(Protocol::Sctp),
        other => Err(Reason::NoneOf { found: other.to_owned(), known: PROTOCOLS }),
    };
    let protocol = report.accept(&path.field("protocol"), protocol);
    let end_port = path.field("endPort");
    let Some(port) = &written.port else {
        if written.end_port.is_some() {
            report.refuse(&end_port, Reason::RangeWithoutStart);
        }
        return protocol.map(Traffic::Protocol);
    };
    match report.accept(&path.field("port"), number_or_name(port))? {
        NumberOrName::Number(0) => report.accept(&path.field("port"), Err(Reason::PortOutOfRange(0, 1))),
        NumberOrName::Number(first) => {
            let range = report.accept(&end_port, range(first, written.end_port))?;
            Some(Traffic::Ports(protocol?, range))
        }
        NumberOrName::Name(_) if written.end_port.is_some() => {
            report.accept(&end_port, Err(Reason::RangeWithoutStart))
        }
        NumberOrName::Name(name) => Some(Traffic::NamedPort(protocol?, name)),
    }
}
