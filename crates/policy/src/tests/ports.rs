//! Ports, ranges, names and ICMP types.

use sluice_types::Protocol;

use super::scene::Scene;

fn ingress(ports: &str) -> Scene {
    let mut scene = Scene::shop();
    scene.pod(
        "shop/backend",
        &[("app", "backend")],
        &[("http", Protocol::Tcp, 8080), ("udp", Protocol::Udp, 99)],
    );
    scene.cnp(
        "p",
        &format!("{{endpointSelector: {{matchLabels: {{app: backend}}}}, ingress: [{{{ports}}}]}}"),
    );
    scene
}

#[test]
fn numbers_and_ranges() {
    let cases = [
        ("{port: 80, protocol: TCP}", "TCP/80", "TCP/79 TCP/81 UDP/80"),
        ("{port: '80', protocol: UDP}", "UDP/80", "TCP/80"),
        ("{port: 80, endPort: 80, protocol: TCP}", "TCP/80", "TCP/81"),
        ("{port: 80, endPort: 0, protocol: TCP}", "TCP/80", "TCP/81 TCP/79"),
        ("{port: 80, endPort: 90, protocol: SCTP}", "SCTP/80 SCTP/85 SCTP/90", "SCTP/79 SCTP/91 TCP/85"),
        ("{port: 1, endPort: 65535, protocol: TCP}", "TCP/1 TCP/65535 TCP/32768", "UDP/1 TCP/0"),
        ("{port: 65535, protocol: TCP}", "TCP/65535", "TCP/65534"),
        ("{port: 32768, endPort: 65535, protocol: TCP}", "TCP/32768 TCP/65535", "TCP/32767"),
        ("{port: 0, protocol: TCP}", "TCP/0 TCP/1 TCP/65535", "UDP/1 ICMP/0"),
        ("{port: 80}, {port: 443, protocol: TCP}", "TCP/80 UDP/80 SCTP/80 TCP/443", "UDP/443"),
    ];
    for (ports, allowed, denied) in cases {
        ingress(&format!("toPorts: [{{ports: [{ports}]}}]")).check(&format!(
            "shop/db -> shop/backend {allowed}: allow
             shop/db -> shop/backend {denied}: default"
        ));
    }
}

#[test]
fn every_range_is_made_of_blocks_that_cover_it_exactly() {
    use crate::{map_state::L4Match, rule::PortRange};
    let ends = [0u16, 1, 2, 3, 7, 8, 9, 79, 80, 255, 256, 257, 1023, 1024, 32767, 32768, 40000, 65534, 65535];
    for first in ends {
        for last in ends.into_iter().filter(|last| *last >= first) {
            let blocks: Vec<_> = PortRange::new(first, last).unwrap().blocks().collect();
            assert!(blocks.len() <= 30, "{first}-{last}: {blocks:?}");
            for port in 0..=u16::MAX {
                let hits = blocks
                    .iter()
                    .filter(|(port_of_block, prefix)| {
                        *prefix == 0
                            || L4Match::Port {
                                protocol: Protocol::Tcp,
                                port: *port_of_block,
                                prefix: *prefix,
                            }
                            .covers(Protocol::Tcp, port)
                    })
                    .count();
                assert_eq!(hits, usize::from((first..=last).contains(&port)), "{first}-{last}: {port}");
            }
        }
    }
    assert!(PortRange::new(2, 1).is_none());
}

#[test]
fn names_of_the_subject() {
    ingress("toPorts: [{ports: [{port: http}]}]").check(
        "shop/db -> shop/backend TCP/8080: allow
         shop/db -> shop/backend TCP/80 UDP/8080 TCP/99: default",
    );
    ingress("toPorts: [{ports: [{port: HTTP, protocol: TCP, endPort: 9000}]}]").check(
        "shop/db -> shop/backend TCP/8080: allow
         shop/db -> shop/backend TCP/8081: default",
    );
    // The protocol must agree, and a name that nobody gives means nothing.
    ingress("toPorts: [{ports: [{port: http, protocol: UDP}, {port: nothing}, {port: '0x50'}]}]")
        .check("shop/db -> shop/backend TCP/8080 UDP/8080 TCP/80: default");
    let mut scene = ingress("toPorts: [{ports: [{port: http}]}]");
    let twice = [("http", Protocol::Tcp, 8080), ("http", Protocol::Tcp, 9090)];
    scene.pod("shop/backend", &[("app", "backend")], &twice);
    scene.check("shop/db -> shop/backend TCP/8080 TCP/9090: default");
}

#[test]
fn names_of_each_peer() {
    let mut scene = Scene::shop();
    scene.pod("pay/web", &[("app", "web")], &[("http", Protocol::Tcp, 80)]);
    scene.pod("shop/web", &[("app", "web")], &[("http", Protocol::Tcp, 8080)]);
    scene.pod("shop/db", &[("app", "db")], &[("http", Protocol::Udp, 53)]);
    scene.cnp(
        "p",
        "{endpointSelector: {matchLabels: {app: frontend}}, egress: [{toPorts: [{ports: [{port: http, protocol: TCP}]}]}]}",
    );
    scene.check(
        "shop/frontend -> pay/web TCP/80: allow
         shop/frontend -> pay/web TCP/8080: default
         shop/frontend -> shop/web TCP/8080: allow
         shop/frontend -> shop/web TCP/80: default
         shop/frontend -> shop/db UDP/53 TCP/53: default
         shop/frontend -> 192.0.2.1 TCP/80 TCP/8080: default",
    );
    // Names that change are followed.
    scene.pod("shop/web", &[("app", "web")], &[("http", Protocol::Tcp, 9090)]);
    scene.check(
        "shop/frontend -> shop/web TCP/9090: allow
         shop/frontend -> shop/web TCP/8080: default",
    );
    scene.cnp(
        "p",
        "{endpointSelector: {matchLabels: {app: frontend}}, egress: [{toEndpoints: [{}], toPorts: [{ports: [{port: http}]}]}]}",
    );
    scene.check(
        "shop/frontend -> pay/web TCP/80: default
         shop/frontend -> shop/web TCP/9090: allow
         shop/frontend -> shop/db UDP/53: allow",
    );
}

#[test]
fn a_denied_name_is_denied_at_its_number_only() {
    let mut scene = ingress("fromEntities: [all]");
    scene.cnp("d", "{endpointSelector: {}, ingressDeny: [{toPorts: [{ports: [{port: http}]}]}]}");
    scene.check(
        "shop/db -> shop/backend TCP/8080: deny
         shop/db -> shop/backend TCP/8081: allow",
    );
}

#[test]
fn icmp_types() {
    let cases = [
        ("{type: 8}", "ICMP/8", "ICMP/0 ICMPv6/8 TCP/8"),
        ("{type: '8', family: IPv4}", "ICMP/8", "ICMPv6/8"),
        ("{type: EchoRequest}", "ICMP/8", "ICMP/0"),
        ("{type: Echo}", "ICMP/8", "ICMP/0"),
        ("{type: EchoReply}, {type: 3}", "ICMP/0 ICMP/3", "ICMP/8"),
        ("{type: EchoRequest, family: IPv6}", "ICMPv6/128", "ICMP/128 ICMP/8 ICMPv6/129"),
        ("{type: PacketTooBig, family: IPv6}", "ICMPv6/2", "ICMP/2"),
        ("{type: 255}", "ICMP/255", "ICMP/254"),
        ("{type: 0}", "ICMP/0", "ICMP/1"),
    ];
    for (fields, allowed, denied) in cases {
        for peers in ["", "fromEndpoints: [{}], "] {
            ingress(&format!("{peers}icmps: [{{fields: [{fields}]}}]")).check(&format!(
                "shop/db -> shop/backend {allowed}: allow
                 shop/db -> shop/backend {denied}: default"
            ));
        }
    }
}

#[test]
fn a_denied_icmp_type_leaves_the_others() {
    let mut scene = ingress("fromEndpoints: [{}]");
    scene.cnp("d", "{endpointSelector: {}, ingressDeny: [{icmps: [{fields: [{type: EchoRequest}]}]}]}");
    scene.check(
        "shop/db -> shop/backend ICMP/8: deny
         shop/db -> shop/backend ICMP/0 ICMPv6/128 TCP/8: allow",
    );
}

#[test]
fn ten_thousand_entries_in_one_policy() {
    let entry = |port| format!("{{toPorts: [{{ports: [{{port: {port}, protocol: TCP}}]}}]}}");
    let entries: Vec<String> = (1..=10_000).map(entry).collect();
    let mut scene = Scene::shop();
    scene.cnp("p", &format!("{{endpointSelector: {{}}, ingress: [{}]}}", entries.join(", ")));
    scene.check(
        "shop/db -> shop/backend TCP/1 TCP/5000 TCP/10000: allow
         shop/db -> shop/backend TCP/10001 UDP/1: default",
    );
    let policy = scene.repository.resolve(scene.subject("shop/backend"));
    // One for each, the node's, and that egress is open.
    assert_eq!(policy.map_state.entries.len(), 10_002);
}
