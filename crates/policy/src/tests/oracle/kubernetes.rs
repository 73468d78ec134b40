//! What a Kubernetes `NetworkPolicy` says.

use sluice_api::{
    IntOrString, NetworkPolicy,
    network_policy::{NetworkPolicyPeer, NetworkPolicyPort},
};
use sluice_types::Direction;

use super::{Findings, Packet, Peer, World, peers, ports};

impl<'a> World<'a> {
    pub(super) fn kubernetes(&self, policy: &NetworkPolicy, packet: Packet<'_>, found: &mut Findings<'a>) {
        let namespace = policy.metadata.namespace.as_deref().unwrap();
        let spec = policy.spec.as_ref().unwrap();
        let subject = Peer::Pod(packet.subject.clone());
        let selected = spec.pod_selector.as_ref().is_none_or(|selector| self.selects(selector, &subject, ""));
        if packet.subject.namespace() != namespace || !selected {
            return;
        }
        let types = spec.policy_types.as_deref().unwrap_or_default();
        let isolates = match packet.direction {
            Direction::Ingress => types.is_empty() || types.iter().any(|name| name == "Ingress"),
            Direction::Egress if types.is_empty() => {
                spec.egress.as_ref().is_some_and(|rules| !rules.is_empty())
            }
            Direction::Egress => types.iter().any(|name| name == "Egress"),
        };
        if !isolates {
            return;
        }
        found.rules = true;
        found.closed = true;
        let mut one = |peers: Option<&Vec<NetworkPolicyPeer>>, ports: Option<&Vec<NetworkPolicyPort>>| {
            let peers = peers.map(Vec::as_slice).unwrap_or_default();
            let ports = ports.map(Vec::as_slice).unwrap_or_default();
            if !peers.is_empty()
                && !peers.iter().any(|peer| self.kubernetes_peer(peer, namespace, packet.peer))
            {
                return;
            }
            if ports.is_empty() {
                found.allow(false);
            }
            for exact in ports.iter().filter_map(|port| kubernetes_port(port, packet)) {
                found.allow(exact);
            }
        };
        match packet.direction {
            Direction::Ingress => {
                spec.ingress.iter().flatten().for_each(|rule| one(rule.from.as_ref(), rule.ports.as_ref()));
            }
            Direction::Egress => {
                spec.egress.iter().flatten().for_each(|rule| one(rule.to.as_ref(), rule.ports.as_ref()));
            }
        }
    }

    fn kubernetes_peer(&self, written: &NetworkPolicyPeer, namespace: &str, peer: &Peer) -> bool {
        if let Some(block) = &written.ip_block {
            return peers::is_inside(&block.cidr, peer)
                && !block.except.iter().flatten().any(|hole| peers::is_inside(hole, peer));
        }
        let Peer::Pod(pod) = peer else { return false };
        let there = match &written.namespace_selector {
            Some(selector) => self.selects(selector, peer, "io.cilium.k8s.namespace.labels."),
            None => pod.namespace() == namespace,
        };
        there && written.pod_selector.as_ref().is_none_or(|selector| self.selects(selector, peer, ""))
    }
}

/// Whether a port is the packet's; if so, whether just this one is named.
fn kubernetes_port(written: &NetworkPolicyPort, packet: Packet<'_>) -> Option<bool> {
    if ports::protocol(written.protocol.as_deref().unwrap_or("TCP")) != packet.protocol {
        return None;
    }
    let port = i64::from(packet.port);
    let (inside, exact) = match (&written.port, written.end_port) {
        (None, _) => (true, false),
        (Some(IntOrString::Int(first)), Some(last)) => ((*first..=last).contains(&port), *first == last),
        (Some(IntOrString::Int(number)), None) => (*number == port, true),
        (Some(IntOrString::String(name)), _) => {
            (ports::named(name, packet).map(i64::from) == Some(port), true)
        }
    };
    inside.then_some(exact)
}
