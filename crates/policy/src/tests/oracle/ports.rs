//! What traffic a policy means.

use sluice_api::{
    IntOrString,
    cilium::{IcmpRule, Port, PortRule},
};
use sluice_types::{Direction, Protocol};

use sluice_arbitrary::{Pod, Svc};

use super::{Packet, Peer, World};

impl World<'_> {
    /// Whether one of the ports is the packet's; if so, whether one names just this port.
    pub(super) fn ports(&self, rule: &PortRule, packet: Packet<'_>) -> Option<bool> {
        let named = |name: &str| named(name, packet);
        let found = rule
            .ports
            .iter()
            .flatten()
            .filter_map(|port| element(port, packet.protocol, packet.port, &named));
        found.reduce(|one, other| one || other)
    }

    /// Whether the packet goes to what is behind a Service.
    pub(super) fn behind(
        &self,
        written: &str,
        rule: &PortRule,
        namespace: Option<&str>,
        packet: Packet<'_>,
        deny: bool,
        is_peer: &dyn Fn(&Peer) -> bool,
    ) -> bool {
        let name = match (written.contains('/'), namespace) {
            (false, Some(namespace)) => format!("{namespace}/{written}"),
            (true, _) | (false, None) => written.to_owned(),
        };
        let Some(service) = self.services.iter().find(|service| service.name == name) else { return false };
        let receiver = match packet.direction {
            Direction::Ingress => Peer::Pod(packet.subject.clone()),
            Direction::Egress => packet.peer.clone(),
        };
        let is_receiver = |backend: &&&str| match (self.backend(backend), &receiver) {
            (Peer::Pod(one), Peer::Pod(other)) => one.name == other.name,
            (Peer::Address(one), Peer::Address(other)) => one == *other,
            _ => false,
        };
        if service.behind.iter().any(|backend| is_receiver(&backend)) {
            let to_target = |(_, protocol, _, target): &&(&str, Protocol, u16, u16)| {
                *protocol == packet.protocol && *target == packet.port
            };
            return is_peer(packet.peer)
                && service.ports.iter().filter(to_target).any(|port| means(rule, port, &receiver));
        }
        matches!(&receiver, Peer::Address(address) if service.cluster_ip.parse() == Ok(*address))
            && self.before_translation(service, rule, packet, deny, is_peer)
    }

    fn before_translation(
        &self,
        service: &Svc,
        rule: &PortRule,
        packet: Packet<'_>,
        deny: bool,
        is_peer: &dyn Fn(&Peer) -> bool,
    ) -> bool {
        let own = service.ports.iter().filter(|port| port.1 == packet.protocol && port.2 == packet.port);
        own.into_iter().any(|port| {
            let meant = |backend: &&str| {
                let backend = self.backend(backend);
                is_peer(&backend) && means(rule, port, &backend)
            };
            if deny {
                service.behind.iter().any(meant)
            } else {
                !service.behind.is_empty() && service.behind.iter().all(meant)
            }
        })
    }
}

/// Whether a rule means a port of a Service, by either of its numbers, its name, or the name at the pod behind it.
fn means(rule: &PortRule, port: &(&str, Protocol, u16, u16), backend: &Peer) -> bool {
    let (own_name, protocol, own, target) = *port;
    let at_pod = |name: &str| match backend {
        Peer::Pod(pod) => number(pod, name, protocol),
        Peer::Reserved(_) | Peer::Node(_) | Peer::Address(_) => None,
    };
    rule.ports.iter().flatten().any(|written| {
        let by_own_name = |name: &str| if name == own_name { Some(own) } else { None };
        element(written, protocol, target, &at_pod).is_some()
            || element(written, protocol, own, &by_own_name).is_some()
    })
}

/// Whether an element of `ports` means a port; if so, whether it names just this one.
fn element(
    port: &Port,
    protocol: Protocol,
    number: u16,
    named: &dyn Fn(&str) -> Option<u16>,
) -> Option<bool> {
    let same = match port.protocol.as_deref() {
        None | Some("ANY") => protocol.has_ports(),
        Some(name) => self::protocol(name) == protocol,
    };
    let (first, is_name) = match port.port.as_ref().unwrap() {
        IntOrString::Int(first) => (u16::try_from(*first).ok(), false),
        IntOrString::String(text) => match text.parse() {
            Ok(first) => (Some(first), false),
            Err(_) => (named(text), true),
        },
    };
    let first = first?;
    let last = port.end_port.and_then(|last| u16::try_from(last).ok()).filter(|last| !is_name && *last > 0);
    let last = last.unwrap_or(first);
    let every = first == 0 && !is_name;
    let inside = every || (first..=last).contains(&number);
    (same && inside).then_some(!every && first == last)
}

pub(super) fn icmp(rule: &IcmpRule, packet: Packet<'_>) -> bool {
    rule.fields.iter().flatten().any(|field| {
        let protocol = match field.family.as_deref() {
            None | Some("IPv4") => Protocol::Icmp,
            Some(_) => Protocol::Icmpv6,
        };
        let IntOrString::Int(kind) = field.kind else { panic!("{field:?}") };
        protocol == packet.protocol && kind == i64::from(packet.port)
    })
}

/// The number the receiving side gives to a port's name.
pub(super) fn named(name: &str, packet: Packet<'_>) -> Option<u16> {
    match (packet.direction, packet.peer) {
        (Direction::Ingress, _) => number(packet.subject, name, packet.protocol),
        (Direction::Egress, Peer::Pod(pod)) => number(pod, name, packet.protocol),
        (Direction::Egress, _) => None,
    }
}

pub(super) fn protocol(name: &str) -> Protocol {
    match name {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        other => panic!("{other}"),
    }
}

/// The number behind a name, unless the pod uses the name twice.
pub(super) fn number(pod: &Pod, name: &str, protocol: Protocol) -> Option<u16> {
    let found: Vec<u16> = pod
        .ports
        .iter()
        .filter(|(own, its, _)| *own == name && *its == protocol)
        .map(|(_, _, number)| *number)
        .collect();
    if let [number] = found.as_slice() { Some(*number) } else { None }
}
