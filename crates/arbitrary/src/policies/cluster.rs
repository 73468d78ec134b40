//! Random policies of administrators.

use proptest::{collection::vec, option, prelude::*, sample::select};
use sluice_api::cluster_network_policy::{
    ClusterNetworkPolicyEgressPeer, ClusterNetworkPolicyEgressRule, ClusterNetworkPolicyIngressPeer,
    ClusterNetworkPolicyIngressRule, ClusterNetworkPolicyProtocol, ClusterNetworkPolicySpec,
    ClusterNetworkPolicySubject, DestinationPort, NamespacedPod, NumberOrRange, StartEnd,
};

use super::{NAMESPACE_KEYS, PLAIN_KEYS, PREFIXES, selector, words};

fn namespaced_pod() -> impl Strategy<Value = NamespacedPod> {
    (option::of(selector(NAMESPACE_KEYS)), selector(PLAIN_KEYS))
        .prop_map(|(namespace_selector, pod_selector)| NamespacedPod { namespace_selector, pod_selector })
}

/// Protocols; `named` if peers give names to ports.
fn protocols(named: bool) -> impl Strategy<Value = Option<Vec<ClusterNetworkPolicyProtocol>>> {
    let ports = select(vec![
        DestinationPort::default(),
        numbered(80),
        numbered(53),
        DestinationPort {
            destination_port: Some(NumberOrRange {
                number: None,
                range: Some(StartEnd { start: 79, end: 8_080 }),
            }),
        },
    ]);
    let numbered = (ports, 0..3usize).prop_map(|(ports, protocol)| {
        let only = |nth| (protocol == nth).then(|| ports.clone());
        ClusterNetworkPolicyProtocol {
            tcp: only(0),
            udp: only(1),
            sctp: only(2),
            destination_named_port: None,
        }
    });
    let by_name = select(vec!["http", "dns"]).prop_map(|name| ClusterNetworkPolicyProtocol {
        destination_named_port: Some(name.to_owned()),
        ..ClusterNetworkPolicyProtocol::default()
    });
    option::of(vec(prop_oneof![4 => numbered, if named { 1 } else { 0 } => by_name], 1..3))
}

fn numbered(port: i64) -> DestinationPort {
    DestinationPort { destination_port: Some(NumberOrRange { number: Some(port), range: None }) }
}

fn cluster_ingress() -> impl Strategy<Value = ClusterNetworkPolicyIngressRule> {
    let peer =
        (any::<bool>(), selector(NAMESPACE_KEYS), namespaced_pod()).prop_map(|(by_pod, namespaces, pods)| {
            ClusterNetworkPolicyIngressPeer {
                namespaces: (!by_pod).then_some(namespaces),
                pods: by_pod.then_some(pods),
            }
        });
    let action = select(vec!["Accept", "Deny", "Pass"]);
    (action, vec(peer, 1..3), protocols(true)).prop_map(|(action, from, protocols)| {
        ClusterNetworkPolicyIngressRule { name: None, action: action.to_owned(), from, protocols }
    })
}

fn cluster_egress() -> impl Strategy<Value = ClusterNetworkPolicyEgressRule> {
    let networks = || vec(select(PREFIXES.iter().map(|(prefix, _)| *prefix).collect::<Vec<_>>()), 1..3);
    let names = || vec(select(vec!["api.example.com", "*.example.com", "example.org"]), 1..3);
    let pods = || {
        prop_oneof![
            selector(NAMESPACE_KEYS).prop_map(|namespaces| ClusterNetworkPolicyEgressPeer {
                namespaces: Some(namespaces),
                ..ClusterNetworkPolicyEgressPeer::default()
            }),
            namespaced_pod().prop_map(|pods| ClusterNetworkPolicyEgressPeer {
                pods: Some(pods),
                ..ClusterNetworkPolicyEgressPeer::default()
            }),
        ]
    };
    let beyond = || {
        prop_oneof![
            1 => selector(&["zone", "disk"]).prop_map(|nodes| ClusterNetworkPolicyEgressPeer {
                nodes: Some(nodes), ..ClusterNetworkPolicyEgressPeer::default()
            }),
            2 => networks().prop_map(|networks| ClusterNetworkPolicyEgressPeer {
                networks: Some(words(&networks)), ..ClusterNetworkPolicyEgressPeer::default()
            }),
            2 => pods(),
        ]
    };
    let by_name = prop_oneof![
        2 => names().prop_map(|names| ClusterNetworkPolicyEgressPeer {
            domain_names: Some(words(&names)), ..ClusterNetworkPolicyEgressPeer::default()
        }),
        1 => beyond(),
    ];
    let action = || select(vec!["Accept", "Deny", "Pass"]);
    let rule = |(action, to, protocols): (&str, Vec<ClusterNetworkPolicyEgressPeer>, _)| {
        ClusterNetworkPolicyEgressRule { name: None, action: action.to_owned(), to, protocols }
    };
    prop_oneof![
        2 => (action(), vec(pods(), 1..3), protocols(true)).prop_map(rule),
        2 => (action(), vec(beyond(), 1..3), protocols(false)).prop_map(rule),
        1 => (Just("Accept"), vec(by_name, 1..3), protocols(false)).prop_map(rule),
    ]
}

pub(super) fn spec() -> impl Strategy<Value = ClusterNetworkPolicySpec> {
    let subject =
        (any::<bool>(), selector(NAMESPACE_KEYS), namespaced_pod()).prop_map(|(by_pod, namespaces, pods)| {
            ClusterNetworkPolicySubject {
                namespaces: (!by_pod).then_some(namespaces),
                pods: by_pod.then_some(pods),
            }
        });
    let tier = select(vec!["Admin", "Admin", "Baseline"]);
    let lists = (option::of(vec(cluster_ingress(), 0..4)), option::of(vec(cluster_egress(), 0..4)));
    // Few priorities, so that policies meet.
    (tier, 0..3i64, subject, lists).prop_map(|(tier, priority, subject, (ingress, egress))| {
        ClusterNetworkPolicySpec { tier: tier.to_owned(), priority: priority * 500, subject, ingress, egress }
    })
}
