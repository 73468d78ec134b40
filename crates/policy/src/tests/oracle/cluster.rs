//! What a `ClusterNetworkPolicy` says.

use sluice_api::{
    ClusterNetworkPolicy, LabelSelector,
    cluster_network_policy::{
        ClusterNetworkPolicyEgressPeer as EgressPeer, ClusterNetworkPolicyProtocol as Written,
        DestinationPort, NamespacedPod,
    },
};
use sluice_types::{Direction, Protocol};

use super::{Findings, Packet, Peer, Says, Statement, Tier, World, peers, ports, requests};

impl<'a> World<'a> {
    pub(super) fn cluster(
        &self,
        policy: &'a ClusterNetworkPolicy,
        packet: Packet<'_>,
        found: &mut Findings<'a>,
    ) {
        let spec = &policy.spec;
        let subject = Peer::Pod(packet.subject.clone());
        if !self.pods(spec.subject.namespaces.as_ref(), spec.subject.pods.as_ref(), &subject) {
            return;
        }
        let tier = if spec.tier == "Admin" { Tier::Admin } else { Tier::Baseline };
        let mut one = |nth: i64,
                       action: &str,
                       is_peer: bool,
                       protocols: Option<&'a Vec<Written>>,
                       names: Vec<&'a str>| {
            found.rules = true;
            let mut say = |says| found.statements.push(Statement::new(tier, spec.priority * 100 + nth, says));
            let exact = match protocols {
                None => Some(false),
                Some(list) => {
                    list.iter().filter_map(|written| traffic(written, packet)).reduce(|a, b| a || b)
                }
            };
            if let (true, Some(exact)) = (is_peer, exact) {
                say(match action {
                    "Accept" => Says::Allow { exact },
                    "Deny" => Says::Deny,
                    "Pass" => Says::Pass,
                    other => panic!("{other}"),
                });
            }
            if !names.is_empty() && self.asks_for_names(packet) {
                say(Says::Requests(requests::Rules::names(names)));
            }
        };
        match packet.direction {
            Direction::Ingress => {
                for (nth, rule) in (0..).zip(spec.ingress.iter().flatten()) {
                    let is_peer = rule
                        .from
                        .iter()
                        .any(|peer| self.pods(peer.namespaces.as_ref(), peer.pods.as_ref(), packet.peer));
                    one(nth, &rule.action, is_peer, rule.protocols.as_ref(), Vec::new());
                }
            }
            Direction::Egress => {
                for (nth, rule) in (0..).zip(spec.egress.iter().flatten()) {
                    let is_peer = rule.to.iter().any(|peer| self.destination(peer, packet.peer));
                    let names = rule.to.iter().flat_map(|peer| peer.domain_names.iter().flatten());
                    one(
                        nth,
                        &rule.action,
                        is_peer,
                        rule.protocols.as_ref(),
                        names.map(String::as_str).collect(),
                    );
                }
            }
        }
    }

    fn pods(&self, namespaces: Option<&LabelSelector>, pods: Option<&NamespacedPod>, peer: &Peer) -> bool {
        let in_namespace = |selector: &LabelSelector| {
            matches!(peer, Peer::Pod(_)) && self.selects(selector, peer, "io.cilium.k8s.namespace.labels.")
        };
        namespaces.is_some_and(in_namespace)
            || pods.is_some_and(|pods| {
                let there = in_namespace(&pods.namespace_selector.clone().unwrap_or_default());
                there && self.selects(&pods.pod_selector, peer, "")
            })
    }

    fn destination(&self, written: &EgressPeer, peer: &Peer) -> bool {
        let known_as = |name: &String| {
            let pattern = name.strip_prefix("*.").map_or_else(|| name.clone(), |rest| format!("**.{rest}"));
            self.is_known_as(&pattern, peer)
        };
        self.pods(written.namespaces.as_ref(), written.pods.as_ref(), peer)
            || written.nodes.as_ref().is_some_and(|selector| peers::is_node(selector, peer, true))
            || written.networks.iter().flatten().any(|prefix| peers::is_inside(prefix, peer))
            || written.domain_names.iter().flatten().any(known_as)
    }

    /// Whether the packet goes to the cluster's name servers.
    fn asks_for_names(&self, packet: Packet<'_>) -> bool {
        let Peer::Pod(pod) = packet.peer else { return false };
        let is_server = pod.namespace() == "kube-system" && pod.labels.contains(&("k8s-app", "kube-dns"));
        let named = match packet.protocol {
            Protocol::Udp => ports::number(pod, "dns", Protocol::Udp),
            Protocol::Tcp => ports::number(pod, "dns-tcp", Protocol::Tcp),
            Protocol::Sctp | Protocol::Icmp | Protocol::Icmpv6 | Protocol::Other(_) => return false,
        };
        is_server && (packet.port == 53 || named == Some(packet.port))
    }
}

/// Whether the packet is meant; if so, whether just its port is named.
fn traffic(written: &Written, packet: Packet<'_>) -> Option<bool> {
    let numbered = |ports: &Option<DestinationPort>, protocol: Protocol| {
        let ports = ports.as_ref().filter(|_| packet.protocol == protocol)?;
        let Some(ports) = &ports.destination_port else { return Some(false) };
        let port = i64::from(packet.port);
        let by_number = ports.number.filter(|number| *number == port).map(|_| true);
        by_number
            .or_else(|| ports.range.filter(|range| (range.start..=range.end).contains(&port)).map(|_| false))
    };
    let by_name = written
        .destination_named_port
        .as_ref()
        .filter(|name| packet.protocol.has_ports() && ports::named(name, packet) == Some(packet.port));
    numbered(&written.tcp, Protocol::Tcp)
        .or_else(|| numbered(&written.udp, Protocol::Udp))
        .or_else(|| numbered(&written.sctp, Protocol::Sctp))
        .or_else(|| by_name.map(|_| true))
}
