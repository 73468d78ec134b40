//! Rules of `ClusterNetworkPolicy`: what administrators say before and after everybody else
//! (`policy.networking.k8s.io/v1alpha2`; upstream `pkg/k8s/cluster_network_policy.go`).
//!
//! Such rules never isolate: what none of them decides is left to the policies of namespaces, and what those do not
//! decide to the baseline.

use std::sync::Arc;

use sluice_api::{
    LabelSelector as Written,
    cluster_network_policy::{
        ClusterNetworkPolicyEgressPeer as EgressPeer, ClusterNetworkPolicyIngressPeer as IngressPeer,
        ClusterNetworkPolicyProtocol as WrittenProtocol, ClusterNetworkPolicySpec,
        ClusterNetworkPolicySubject, DestinationPort, NamespacedPod,
    },
};
use sluice_types::{Direction, Protocol, Source};

use super::{
    Path, Reason, Report, cidr,
    ports::{port_name, port_number},
    reason::Words,
    selectors::{self, Keys, keep_to_cluster, namespace_key},
};
use crate::{
    config::Config,
    l7::{DnsRule, FqdnSelector, L7Rules},
    labels::NAMESPACE_LABEL_PREFIX,
    rule::{Action, Peers, PortRange, PortRule, Ports, Priority, Rule, RuleSubject, Tier, Traffic},
    selector::{LabelKey, LabelSelector, Requirement, Selector},
};

const OPTION: &str = "enable-k8s-cluster-network-policy";
const TIERS: Words = Words(&["Admin", "Baseline"]);
const ACTIONS: Words = Words(&["Accept", "Deny", "Pass"]);
const SUBJECTS: Words = Words(&["namespaces", "pods"]);
const PEERS: Words = Words(&["namespaces", "pods", "nodes", "networks", "domainNames"]);
const PROTOCOLS: Words = Words(&["tcp", "udp", "sctp", "destinationNamedPort"]);
const PORTS: Words = Words(&["number", "range"]);
/// The last priority that may be written.
const PRIORITY_MAX: u32 = 1000;
/// How many elements each list may have.
const LIST_MAX: usize = 25;
/// The longest name of a rule.
const NAME_MAX: usize = 100;
/// The places between two priorities: one for each rule of a policy.
const RULES_PER_PRIORITY: u32 = 100;
/// Who answers questions about names, and the names of its ports.
const DNS_NAMESPACE: &str = "kube-system";
const DNS_APP: (&str, &str) = ("k8s-app", "kube-dns");
const DNS_PORTS: [(Protocol, &str); 2] = [(Protocol::Udp, "dns"), (Protocol::Tcp, "dns-tcp")];
const DNS_PORT: u16 = 53;

/// One rule, whichever direction it is for.
struct WrittenRule<'a> {
    name: Option<&'a str>,
    action: &'a str,
    peers: Vec<EgressPeer>,
    protocols: Option<&'a [WrittenProtocol]>,
}

/// The rules of a policy.
pub(super) fn rules(spec: &ClusterNetworkPolicySpec, config: &Config, report: &mut Report) -> Vec<Rule> {
    let path = Path::root("spec");
    if !config.admin_tiers {
        report.refuse(&path, Reason::NeedsOption(OPTION));
        return Vec::new();
    }
    let tier = match spec.tier.as_str() {
        "Admin" => Ok(Tier::Admin),
        "Baseline" => Ok(Tier::Baseline),
        other => Err(Reason::NoneOf { found: other.to_owned(), known: TIERS }),
    };
    let tier = report.accept(&path.field("tier"), tier);
    let priority = u32::try_from(spec.priority).ok().filter(|priority| *priority <= PRIORITY_MAX);
    let priority = priority.ok_or(Reason::PolicyPriority(spec.priority));
    let priority = report.accept(&path.field("priority"), priority);
    let subject = subject(&spec.subject, &path.field("subject"), report);
    let ingress = spec.ingress.iter().flatten().map(|rule| WrittenRule {
        name: rule.name.as_deref(),
        action: &rule.action,
        peers: rule.from.iter().cloned().map(only_pods).collect(),
        protocols: rule.protocols.as_deref(),
    });
    let egress = spec.egress.iter().flatten().map(|rule| WrittenRule {
        name: rule.name.as_deref(),
        action: &rule.action,
        peers: rule.to.clone(),
        protocols: rule.protocols.as_deref(),
    });
    let lists: [(Direction, &str, Vec<WrittenRule<'_>>); 2] =
        [(Direction::Ingress, "from", ingress.collect()), (Direction::Egress, "to", egress.collect())];
    let frame = Frame {
        subject: subject.unwrap_or_else(|| RuleSubject::Endpoints(LabelSelector::default())),
        tier: tier.unwrap_or(Tier::Admin),
        priority: priority.unwrap_or_default() * RULES_PER_PRIORITY,
        config,
    };
    let mut rules = Vec::new();
    for (direction, from_or_to, written) in lists {
        let list = path.field(direction.as_str());
        check_length(&written, 0, "rules", &list, report);
        for (nth, (path, rule)) in (0..).zip(list.items(Some(&written))) {
            rules.extend(frame.rules(rule, direction, nth, from_or_to, &path, report));
        }
    }
    rules
}

fn only_pods(peer: IngressPeer) -> EgressPeer {
    EgressPeer { namespaces: peer.namespaces, pods: peer.pods, ..EgressPeer::default() }
}

fn check_length<T>(list: &[T], least: usize, what: &'static str, path: &Path, report: &mut Report) {
    if list.len() < least {
        report.refuse(path, Reason::Empty);
    }
    if list.len() > LIST_MAX {
        report.refuse(path, Reason::TooMany { what, max: LIST_MAX });
    }
}

fn check_one(given: &[bool], known: Words, path: &Path, report: &mut Report) {
    if given.iter().filter(|given| **given).count() != 1 {
        report.refuse(path, Reason::NotExactlyOne(known));
    }
}

fn subject(written: &ClusterNetworkPolicySubject, path: &Path, report: &mut Report) -> Option<RuleSubject> {
    check_one(&[written.namespaces.is_some(), written.pods.is_some()], SUBJECTS, path, report);
    let by_namespace = written.namespaces.as_ref();
    let by_namespace =
        by_namespace.map(|namespaces| of_namespaces(namespaces, &path.field("namespaces"), report));
    let by_pod = written.pods.as_ref().map(|pods| of_pods(pods, &path.field("pods"), report));
    by_namespace.or(by_pod).map(RuleSubject::Endpoints)
}

/// All pods of some namespaces.
fn of_namespaces(written: &Written, path: &Path, report: &mut Report) -> LabelSelector {
    let mut selector = selectors::read(written, Keys::Kubernetes(NAMESPACE_LABEL_PREFIX), path, report);
    selector.require(Requirement::Exists(namespace_key()));
    selector
}

/// Some pods of some namespaces.
fn of_pods(written: &NamespacedPod, path: &Path, report: &mut Report) -> LabelSelector {
    let every = Written::default();
    let namespaces = written.namespace_selector.as_ref().unwrap_or(&every);
    let mut selector = of_namespaces(namespaces, &path.field("namespaceSelector"), report);
    let pods =
        selectors::read(&written.pod_selector, Keys::Kubernetes(""), &path.field("podSelector"), report);
    selector.extend(pods);
    selector
}

/// What the rules of one policy share.
struct Frame<'a> {
    subject: RuleSubject,
    tier: Tier,
    priority: u32,
    config: &'a Config,
}

/// Whom one rule is about, while its peers are read.
#[derive(Default)]
struct Found {
    selectors: Vec<Selector>,
    /// DNS names, and where the first of them stands.
    names: Vec<DnsRule>,
    names_at: Option<Path>,
    /// Whether some of them have no ports of their own.
    beyond_pods: bool,
}

impl Frame<'_> {
    /// The rule, and what must be asked before its names can be known.
    fn rules(
        &self,
        written: &WrittenRule<'_>,
        direction: Direction,
        nth: u32,
        from_or_to: &str,
        path: &Path,
        report: &mut Report,
    ) -> Vec<Rule> {
        let action = match written.action {
            "Accept" => Ok(Action::Allow),
            "Deny" => Ok(Action::Deny),
            "Pass" => Ok(Action::Pass),
            other => Err(Reason::NoneOf { found: other.to_owned(), known: ACTIONS }),
        };
        let action = report.accept(&path.field("action"), action);
        if written.name.is_some_and(|name| name.chars().count() > NAME_MAX) {
            report.refuse(&path.field("name"), Reason::NotPrintable(NAME_MAX));
        }
        let list = path.field(from_or_to);
        check_length(&written.peers, 1, "peers", &list, report);
        let mut found = Found::default();
        for (path, peer) in list.items(Some(&written.peers)) {
            self.peer(peer, direction, action, &path, &mut found, report);
        }
        let ports = parse_protocols(written.protocols, found.beyond_pods, path, report);
        let priority = Priority::new(self.priority + nth).unwrap_or(Priority::MAX);
        let rule = |path: &Path, peers, ports| Rule {
            path: path.0.strip_prefix("spec.").unwrap_or(&path.0).to_owned(),
            subject: self.subject.clone(),
            direction,
            tier: self.tier,
            priority,
            // Refused already if it is none.
            action: action.unwrap_or(Action::Deny),
            peers: Peers::Select(peers),
            ports,
            requires: Vec::new(),
            default_deny: false,
            audit: false,
            description: written.name.map(str::to_owned),
            log: None,
        };
        let mut rules = vec![rule(path, found.selectors, ports)];
        if let Some(at) = found.names_at {
            rules.push(rule(&at, vec![self.name_servers()], questions(found.names)));
        }
        rules
    }

    fn peer(
        &self,
        peer: &EgressPeer,
        direction: Direction,
        action: Option<Action>,
        path: &Path,
        found: &mut Found,
        report: &mut Report,
    ) {
        let given = [
            peer.namespaces.is_some(),
            peer.pods.is_some(),
            peer.nodes.is_some(),
            peer.networks.is_some(),
            peer.domain_names.is_some(),
        ];
        check_one(&given, if direction == Direction::Ingress { SUBJECTS } else { PEERS }, path, report);
        found.beyond_pods |= peer.nodes.is_some() || peer.networks.is_some() || peer.domain_names.is_some();
        let mut pods = |mut selector: LabelSelector| {
            keep_to_cluster(&mut selector, self.config);
            found.selectors.push(Selector::Labels(selector));
        };
        if let Some(namespaces) = &peer.namespaces {
            pods(of_namespaces(namespaces, &path.field("namespaces"), report));
        }
        if let Some(written) = &peer.pods {
            pods(of_pods(written, &path.field("pods"), report));
        }
        if let Some(nodes) = &peer.nodes {
            found.selectors.extend(self.nodes(nodes, &path.field("nodes"), report));
        }
        if let Some(networks) = &peer.networks {
            let path = path.field("networks");
            check_length(networks, 1, "networks", &path, report);
            for (path, text) in path.items(Some(networks)) {
                let prefix = report.accept(&path, cidr::prefix(text));
                found.selectors.extend(prefix.map(Selector::prefix));
            }
        }
        if let Some(names) = &peer.domain_names {
            self.names(names, action, &path.field("domainNames"), found, report);
        }
    }

    /// Every node with these labels, the local one included.
    fn nodes(&self, written: &Written, path: &Path, report: &mut Report) -> Vec<Selector> {
        if !self.config.node_selector_labels {
            report.refuse(path, Reason::NeedsOption("enable-node-selector-labels"));
        }
        let nodes = selectors::read(written, Keys::Node, path, report);
        let of = |name: &str| {
            let mut nodes = nodes.clone();
            nodes.require(Requirement::reserved(name));
            Selector::Labels(nodes)
        };
        ["remote-node", "host"].map(of).into()
    }

    fn names(
        &self,
        names: &[String],
        action: Option<Action>,
        path: &Path,
        found: &mut Found,
        report: &mut Report,
    ) {
        if action.is_some_and(|action| action != Action::Allow) {
            report.refuse(path, Reason::NamesAreOnlyAccepted);
        }
        if self.config.proxies.dns.is_none() {
            report.refuse(path, Reason::NotSupported);
        }
        check_length(names, 1, "names", path, report);
        for (at, text) in path.items(Some(names)) {
            // `*.` in front stands for any number of labels here, and stars are nowhere else.
            let name = match text.strip_prefix("*.") {
                Some(rest) => {
                    FqdnSelector::name(rest).and_then(|_| FqdnSelector::pattern(&format!("**.{rest}")))
                }
                None => FqdnSelector::name(text),
            };
            let Some(name) = report.accept(&at, name.map_err(Reason::Name)) else { continue };
            found.selectors.push(name.selector());
            found.names.push(DnsRule::of(at.below(path), &name));
        }
        found.names_at.get_or_insert_with(|| path.clone());
    }

    /// The cluster's name servers.
    fn name_servers(&self) -> Selector {
        let own = Requirement::equals(LabelKey::new(Source::K8s, DNS_APP.0), DNS_APP.1);
        let place = super::namespace_requirement(DNS_NAMESPACE, &self.config.cluster_name);
        Selector::Labels(place.into_iter().chain([own]).collect())
    }
}

/// Questions about these names.
fn questions(names: Vec<DnsRule>) -> Ports {
    let number = |protocol| Traffic::Ports(protocol, PortRange::single(DNS_PORT));
    let named = |(protocol, name): (Protocol, &str)| Traffic::NamedPort(protocol, name.to_owned());
    let traffic = DNS_PORTS.into_iter().flat_map(|port| [number(port.0), named(port)]);
    let l7 = Some(Arc::new(L7Rules::Dns(names)));
    Ports::Select(vec![PortRule { l7, ..PortRule::new("", traffic.collect()) }])
}

fn parse_protocols(
    written: Option<&[WrittenProtocol]>,
    beyond_pods: bool,
    path: &Path,
    report: &mut Report,
) -> Ports {
    let Some(written) = written else { return Ports::Any };
    let list = path.field("protocols");
    check_length(written, 1, "protocols", &list, report);
    let rule = |(at, protocol): (Path, &WrittenProtocol)| {
        let traffic = traffic(protocol, beyond_pods, &at, report);
        PortRule::new(at.below(path), traffic)
    };
    Ports::Select(list.items(Some(written)).map(rule).collect())
}

fn traffic(written: &WrittenProtocol, beyond_pods: bool, path: &Path, report: &mut Report) -> Vec<Traffic> {
    let given = [
        written.tcp.is_some(),
        written.udp.is_some(),
        written.sctp.is_some(),
        written.destination_named_port.is_some(),
    ];
    check_one(&given, PROTOCOLS, path, report);
    let numbered = [
        ("tcp", Protocol::Tcp, &written.tcp),
        ("udp", Protocol::Udp, &written.udp),
        ("sctp", Protocol::Sctp, &written.sctp),
    ];
    let mut traffic = Vec::new();
    for (field, protocol, ports) in numbered {
        if let Some(ports) = ports {
            traffic.extend(of_protocol(ports, protocol, &path.field(field), report));
        }
    }
    if let Some(name) = &written.destination_named_port {
        let path = path.field("destinationNamedPort");
        if beyond_pods {
            report.refuse(&path, Reason::NamedPortBeyondPods);
        }
        let name = report.accept(&path, port_name(name));
        let named = |name: String| {
            [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|each| Traffic::NamedPort(each, name.clone()))
        };
        traffic.extend(name.into_iter().flat_map(named));
    }
    traffic
}

fn of_protocol(
    written: &DestinationPort,
    protocol: Protocol,
    path: &Path,
    report: &mut Report,
) -> Option<Traffic> {
    let Some(ports) = &written.destination_port else { return Some(Traffic::Protocol(protocol)) };
    let path = path.field("destinationPort");
    check_one(&[ports.number.is_some(), ports.range.is_some()], PORTS, &path, report);
    if let Some(number) = ports.number {
        let number = report.accept(&path.field("number"), port_number(number))?;
        return Some(Traffic::Ports(protocol, PortRange::single(number)));
    }
    let written = ports.range?;
    let path = path.field("range");
    let start = report.accept(&path.field("start"), port_number(written.start));
    let end = report.accept(&path.field("end"), port_number(written.end));
    let (start, end) = (start?, end?);
    let range = PortRange::new(start, end).filter(|_| start < end);
    let range = report.accept(&path, range.ok_or(Reason::RangeEmpty { start, end }))?;
    Some(Traffic::Ports(protocol, range))
}
