//! An event of the kernel becomes a flow: numbers get their names.

use std::net::{Ipv4Addr, Ipv6Addr};

use sluice_ebpf_common::{Event, EventAction};
use sluice_flow::{Flow, FlowEnd, FlowVerdict, L4, PolicyOrigin};
use sluice_types::{Direction, DropReason, Identity, Protocol, RuleId};

use super::Names;

/// Translates times of the kernel's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockOffset {
    /// Wall clock minus monotonic clock, nanoseconds.
    pub(super) unix_minus_monotonic_ns: u64,
}

/// The flow of an event.
pub(super) fn flow(event: &Event, names: &Names, clock: ClockOffset) -> Flow {
    let direction =
        if event.direction == Direction::Egress as u8 { Direction::Egress } else { Direction::Ingress };
    let (own, peer) = (event.endpoint, event.peer_endpoint);
    let (source, destination) = match direction {
        Direction::Egress => (own, peer),
        Direction::Ingress => (peer, own),
    };
    let protocol = Protocol::from_number(event.protocol);
    let port = |bytes: [u8; 2]| if protocol.has_ports() { u16::from_be_bytes(bytes) } else { 0 };
    Flow {
        time_unix_ns: event.time_ns.saturating_add(clock.unix_minus_monotonic_ns),
        verdict: verdict(event.action),
        drop_reason: DropReason::from_number(event.reason),
        direction,
        endpoint: own,
        source: end(event.source_be, port(event.source_port_be), event.source_identity, source, event, names),
        destination: end(
            event.destination_be,
            port(event.destination_port_be),
            event.destination_identity,
            destination,
            event,
            names,
        ),
        l4: l4(event, protocol),
        is_reply: event.is_reply == 1,
        policies: policies(event, direction, names),
        revision: event.revision,
        length: event.length,
        lost: event.lost,
        ifindex: event.ifindex,
        http: None,
    }
}

const fn verdict(action: u8) -> FlowVerdict {
    const ALLOW: u8 = EventAction::Allow as u8;
    const AUDIT: u8 = EventAction::Audit as u8;
    const REDIRECT: u8 = EventAction::Redirect as u8;
    match action {
        ALLOW => FlowVerdict::Forwarded,
        AUDIT => FlowVerdict::Audit,
        REDIRECT => FlowVerdict::Redirected,
        _ => FlowVerdict::Dropped,
    }
}

fn end(address: [u8; 16], port: u16, identity: u32, endpoint: u16, event: &Event, names: &Names) -> FlowEnd {
    let identity = Identity::new(identity);
    let [a, b, c, d, ..] = address;
    let ip = match event.family {
        4 => Ipv4Addr::new(a, b, c, d).to_string(),
        6 => Ipv6Addr::from(address).to_string(),
        _ => String::new(),
    };
    let name = (endpoint != 0).then(|| names.endpoints.get(&endpoint)).flatten();
    FlowEnd {
        ip,
        port,
        identity,
        labels: names.identities.get(&identity).map(|labels| (**labels).clone()).unwrap_or_default(),
        namespace: name.map(|name| name.namespace.clone()).unwrap_or_default(),
        pod: name.map(|name| name.pod.clone()).unwrap_or_default(),
    }
}

fn l4(event: &Event, protocol: Protocol) -> L4 {
    let is_icmp = matches!(protocol, Protocol::Icmp | Protocol::Icmpv6);
    L4 {
        protocol: if event.protocol == 0 { String::new() } else { protocol.to_string() },
        tcp_flags: if protocol == Protocol::Tcp {
            tcp_flags(event.tcp_flags_or_icmp_type)
        } else {
            String::new()
        },
        icmp_type: is_icmp.then_some(event.tcp_flags_or_icmp_type),
    }
}

/// `SYN,ACK`: in the order of the header's bits.
fn tcp_flags(bits: u8) -> String {
    const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    let set = NAMES.iter().enumerate().filter(|(nth, _)| bits & (1 << nth) != 0);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join(",")
}

/// The rule that decided; for a default deny the policies that isolate the endpoint.
fn policies(event: &Event, direction: Direction, names: &Names) -> Vec<PolicyOrigin> {
    let rule = RuleId(event.rule);
    if rule != RuleId::NONE {
        return names.rules.get(&rule).cloned().into_iter().collect();
    }
    if event.reason == DropReason::PolicyDenied.number() {
        let name = names.endpoints.get(&event.endpoint);
        let is_audited = event.action == EventAction::Audit as u8;
        return name.map(|name| name.closed_by(direction, is_audited).to_vec()).unwrap_or_default();
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use sluice_client::model::EndpointRequest;
    use sluice_ebpf_common::EventKind;
    use sluice_policy::{DirectionState, EndpointPolicy, PolicyKind, PolicyRef};
    use sluice_types::Label;

    use super::super::EndpointName;
    use super::*;

    fn names() -> Names {
        let policy = EndpointPolicy {
            ingress: DirectionState {
                enforced: true,
                audit: false,
                isolated_by: vec![PolicyRef::new(PolicyKind::Knp, "shop", "closed")],
                staged_by: Vec::new(),
            },
            ..EndpointPolicy::default()
        };
        let pod = |name: &str| {
            let attachment = EndpointRequest {
                pod_namespace: Some("shop".into()),
                pod_name: Some(name.into()),
                ..crate::endpoint::tests::request()
            };
            Arc::new(EndpointName::new(&attachment, &policy))
        };
        let labels = Arc::new([Label::k8s("app", "web")].into_iter().collect());
        let origin = PolicyOrigin { policy: "cnp/shop/p".into(), rule: "ingress[0]".into() };
        Names {
            endpoints: Arc::new(HashMap::from([(7, pod("web")), (8, pod("client"))])),
            identities: Arc::new(HashMap::from([(Identity::new(300), labels)])),
            rules: Arc::new(HashMap::from([(RuleId(5), origin)])),
        }
    }

    fn event() -> Event {
        let mut event = Event {
            time_ns: 5,
            kind: EventKind::Drop as u8,
            reason: DropReason::PolicyDenied.number(),
            action: EventAction::Deny as u8,
            direction: Direction::Ingress as u8,
            protocol: 6,
            tcp_flags_or_icmp_type: 0x12,
            family: 4,
            endpoint: 7,
            peer_endpoint: 8,
            source_identity: 300,
            destination_identity: 1,
            source_port_be: 40_000_u16.to_be_bytes(),
            destination_port_be: 80_u16.to_be_bytes(),
            ..Event::default()
        };
        event.source_be[..4].copy_from_slice(&[10, 0, 0, 2]);
        event.destination_be[..4].copy_from_slice(&[10, 0, 0, 3]);
        event
    }

    const CLOCK: ClockOffset = ClockOffset { unix_minus_monotonic_ns: 100 };

    #[test]
    fn a_default_deny_names_both_pods_and_what_isolates() {
        let flow = flow(&event(), &names(), CLOCK);
        assert_eq!(
            flow.to_string(),
            "DROPPED shop/client:40000 -> shop/web:80 TCP SYN,ACK (ingress, POLICY_DENIED: no rule allows it \
             (default deny), by knp/shop/closed)"
        );
        assert_eq!((flow.time_unix_ns, flow.source.ip.as_str()), (105, "10.0.0.2"));
        assert_eq!(flow.source.labels.to_string(), "k8s:app=web");
    }

    #[test]
    fn a_rule_is_named_and_icmp_has_no_ports() {
        let event = Event { rule: 5, protocol: 1, tcp_flags_or_icmp_type: 8, direction: 1, ..event() };
        let flow = flow(&event, &names(), CLOCK);
        assert_eq!(flow.policies.len(), 1);
        assert_eq!((flow.source.pod.as_str(), flow.source.port), ("web", 0));
        assert_eq!((flow.l4.icmp_type, flow.l4.tcp_flags.as_str()), (Some(8), ""));
    }

    #[test]
    fn what_is_unknown_stays_a_number() {
        let event = Event { family: 0, protocol: 0, endpoint: 99, peer_endpoint: 0, rule: 77, ..event() };
        let flow = flow(&event, &names(), CLOCK);
        assert_eq!((flow.source.ip.as_str(), flow.destination.pod.as_str()), ("", ""));
        assert_eq!((flow.policies, flow.l4.protocol.as_str()), (vec![], ""));
    }
}
