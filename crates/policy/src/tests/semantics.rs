//! The rules that are easily got wrong, and the combinations of peers and ports.

use sluice_types::Direction;

use super::scene::Scene;

fn backend(entries: &str) -> Scene {
    let mut scene = Scene::shop();
    scene.cnp("p", &format!("{{endpointSelector: {{matchLabels: {{app: backend}}}}, {entries}}}"));
    scene
}

#[test]
fn an_empty_cnp_entry_allows_nothing_and_an_empty_knp_entry_everything() {
    backend("ingress: [{}]").check(
        "shop/frontend -> shop/backend TCP/80 UDP/53 ICMP/8: default
         192.0.2.1 -> shop/backend TCP/80: default
         host -> shop/backend TCP/80: allow
         shop/backend -> shop/frontend TCP/80: allow",
    );
    let mut scene = Scene::shop();
    scene.knp("p", "{podSelector: {matchLabels: {app: backend}}, ingress: [{}]}");
    scene.check(
        "shop/frontend -> shop/backend TCP/80 UDP/53 ICMP/8: allow
         192.0.2.1 -> shop/backend TCP/80: allow
         2001:db8::1 -> shop/backend TCP/80: allow",
    );
}

#[test]
fn peers_and_ports_absent_empty_and_present() {
    let everybody = "TCP/80: allow";
    let nobody = "TCP/80: default";
    // (entry, what a pod, the world and a pod on another port get)
    let cases = [
        ("{}", nobody, nobody, "TCP/81: default"),
        ("{toPorts: []}", nobody, nobody, "TCP/81: default"),
        ("{icmps: []}", nobody, nobody, "TCP/81: default"),
        ("{toPorts: [{ports: [{port: 80}]}]}", everybody, everybody, "TCP/81: default"),
        ("{toPorts: [{}]}", nobody, nobody, "TCP/81: default"),
        ("{toPorts: [{ports: []}]}", nobody, nobody, "TCP/81: default"),
        ("{fromEndpoints: [{}]}", everybody, nobody, "TCP/81 UDP/1 ICMP/8: allow"),
        ("{fromEndpoints: [{}], toPorts: []}", everybody, nobody, "TCP/81 UDP/1 ICMP/8: allow"),
        ("{fromEndpoints: [{}], icmps: []}", everybody, nobody, "TCP/81 UDP/1 ICMP/8: allow"),
        ("{fromEndpoints: [{}], toPorts: [{}]}", nobody, nobody, "TCP/81: default"),
        ("{fromEndpoints: [{}], toPorts: [{ports: []}]}", nobody, nobody, "TCP/81: default"),
        ("{fromEndpoints: [{}], icmps: [{}]}", nobody, nobody, "ICMP/8: default"),
        (
            "{fromEndpoints: [{}], toPorts: [{ports: [{port: 80}]}]}",
            everybody,
            nobody,
            "TCP/81 ICMP/8: default",
        ),
    ];
    for (entry, pod, world, other) in cases {
        backend(&format!("ingress: [{entry}]")).check(&format!(
            "shop/frontend -> shop/backend {pod}
             192.0.2.1 -> shop/backend {world}
             shop/frontend -> shop/backend {other}"
        ));
    }
}

#[test]
fn empty_lists_of_peers_match_nobody() {
    for list in ["fromEndpoints", "fromNodes", "fromEntities", "fromCIDR", "fromCIDRSet", "fromGroups"] {
        for ports in ["", ", toPorts: [{ports: [{port: 80}]}]", ", icmps: [{fields: [{type: 8}]}]"] {
            backend(&format!("ingress: [{{{list}: []{ports}}}]")).check(
                "shop/frontend -> shop/backend TCP/80 ICMP/8: default
                 192.0.2.1 -> shop/backend TCP/80 ICMP/8: default",
            );
        }
    }
    for list in
        ["toEndpoints", "toNodes", "toEntities", "toCIDR", "toCIDRSet", "toGroups", "toServices", "toFQDNs"]
    {
        for ports in ["", ", toPorts: [{ports: [{port: 80}]}]", ", icmps: [{fields: [{type: 8}]}]"] {
            backend(&format!("egress: [{{{list}: []{ports}}}]")).check(
                "shop/backend -> shop/frontend TCP/80 ICMP/8: default
                 shop/backend -> 192.0.2.1 TCP/80 ICMP/8: default",
            );
        }
    }
}

#[test]
fn empty_lists_in_deny_rules_deny_nobody_more() {
    for entry in
        ["{}", "{fromEndpoints: []}", "{fromCIDR: [], toPorts: [{ports: [{port: 80}]}]}", "{toPorts: [{}]}"]
    {
        backend(&format!("ingress: [{{fromEntities: [all]}}], ingressDeny: [{entry}]"))
            .check("shop/frontend -> shop/backend TCP/80: allow");
    }
}

#[test]
fn a_deny_rule_alone_closes_its_direction() {
    let scene = backend("ingressDeny: [{fromEndpoints: [{matchLabels: {app: db}}]}]");
    scene.check(
        "shop/db -> shop/backend TCP/80 ICMP/8: deny
         shop/frontend -> shop/backend TCP/80: default
         shop/backend -> shop/db TCP/80: allow",
    );
    backend(
        "enableDefaultDeny: {ingress: false}, ingressDeny: [{fromEndpoints: [{matchLabels: {app: db}}]}]",
    )
    .check(
        "shop/db -> shop/backend TCP/80: deny
         shop/frontend -> shop/backend TCP/80: allow
         192.0.2.1 -> shop/backend ICMP/8: allow",
    );
}

#[test]
fn default_deny_rides_on_entries() {
    backend("enableDefaultDeny: {egress: true}, ingress: [{fromEndpoints: [{}]}]").check(
        "shop/backend -> pay/db TCP/80: allow
         pay/db -> shop/backend TCP/80: default",
    );
    backend("enableDefaultDeny: {ingress: false}, ingress: [{fromEndpoints: [{}]}]")
        .check("pay/db -> shop/backend TCP/80: allow");
    // One policy that closes the direction is enough.
    let mut scene = backend("enableDefaultDeny: {ingress: false}, ingress: [{fromEndpoints: [{}]}]");
    scene.knp("q", "{podSelector: {}, policyTypes: [Ingress]}");
    scene.check(
        "pay/db -> shop/backend TCP/80: default
         shop/db -> shop/backend TCP/80: allow",
    );
}

#[test]
fn deny_beats_allow_at_every_layer_and_width() {
    let allows = [
        "{fromEntities: [all]}",
        "{fromEndpoints: [{matchLabels: {app: frontend}}]}",
        "{fromEndpoints: [{matchLabels: {app: frontend}}], toPorts: [{ports: [{port: 80, protocol: TCP}]}]}",
        "{toPorts: [{ports: [{port: 80, protocol: TCP}]}]}",
        "{toPorts: [{ports: [{port: 64, endPort: 95, protocol: TCP}]}]}",
    ];
    let denies = [
        "{fromEntities: [cluster]}",
        "{fromEndpoints: [{matchLabels: {app: frontend}}]}",
        "{fromEndpoints: [{matchLabels: {app: frontend}}], toPorts: [{ports: [{port: 80, protocol: TCP}]}]}",
        "{toPorts: [{ports: [{port: 80}]}]}",
        "{toPorts: [{ports: [{port: 0, protocol: TCP}]}]}",
        "{toPorts: [{ports: [{port: 1, endPort: 65535}]}]}",
    ];
    for allow in allows {
        for deny in denies {
            backend(&format!("ingress: [{allow}], ingressDeny: [{deny}]"))
                .check("shop/frontend -> shop/backend TCP/80: deny");
            // The same from two kinds of objects.
            let mut scene = backend(&format!("ingress: [{allow}]"));
            scene.ccnp("d", &format!("{{endpointSelector: {{}}, ingressDeny: [{deny}]}}"));
            scene.check("shop/frontend -> shop/backend TCP/80: deny");
            assert_eq!(
                scene.decided_by("shop/backend", Direction::Ingress, "shop/frontend", "TCP/80"),
                "ccnp/d ingressDeny[0]"
            );
        }
    }
}

#[test]
fn compilations() {
    // L3-only allow and L4-only deny.
    backend(
        "ingress: [{fromEndpoints: [{matchLabels: {app: frontend}}]}],
         ingressDeny: [{toPorts: [{ports: [{port: 80, protocol: TCP}]}]}]",
    )
    .check(
        "shop/frontend -> shop/backend TCP/80: deny
         shop/frontend -> shop/backend TCP/81 UDP/80 ICMP/8: allow
         shop/db -> shop/backend TCP/81: default
         shop/db -> shop/backend TCP/80: deny",
    );
    // A hole in a range.
    backend(
        "ingress: [{toPorts: [{ports: [{port: 1000, endPort: 2000, protocol: TCP}]}]}],
         ingressDeny: [{toPorts: [{ports: [{port: 1500, protocol: TCP}]}]}]",
    )
    .check(
        "shop/db -> shop/backend TCP/1000 TCP/1499 TCP/1501 TCP/2000: allow
         shop/db -> shop/backend TCP/1500: deny
         shop/db -> shop/backend TCP/999 TCP/2001: default",
    );
    // A specific allow under a wide deny.
    backend(
        "ingress: [{fromEndpoints: [{matchLabels: {app: frontend}}], toPorts: [{ports: [{port: 3005, protocol: TCP}]}]}],
         ingressDeny: [{toPorts: [{ports: [{port: 3000, endPort: 3010, protocol: TCP}]}]}]",
    )
    .check(
        "shop/frontend -> shop/backend TCP/3000 TCP/3005 TCP/3010: deny
         shop/frontend -> shop/backend TCP/2999 TCP/3011: default",
    );
    // Blocking the internet must not name ports.
    backend(
        "egress: [{toEntities: [all]}],
         egressDeny: [{toEntities: [world], toPorts: [{ports: [{port: 1, endPort: 65535, protocol: TCP}]}]}]",
    )
    .check(
        "shop/backend -> 192.0.2.1 TCP/1 TCP/443 TCP/65535: deny
         shop/backend -> 192.0.2.1 UDP/443 ICMP/8: allow
         shop/backend -> pay/db TCP/443: allow",
    );
}

#[test]
fn a_deny_of_the_world_reaches_every_prefix() {
    let mut scene =
        backend("ingress: [{fromCIDR: [198.51.100.0/24], toPorts: [{ports: [{port: 443, protocol: TCP}]}]}]");
    scene.check("198.51.100.7 -> shop/backend TCP/443: allow");
    scene.ccnp("d", "{endpointSelector: {}, ingressDeny: [{fromEntities: [world]}]}");
    scene.check(
        "198.51.100.7 -> shop/backend TCP/443: deny
         192.0.2.1 -> shop/backend TCP/443: deny
         2001:db8::1 -> shop/backend TCP/443: deny
         host -> shop/backend TCP/443: allow",
    );
}

#[test]
fn protocol_any_is_tcp_udp_and_sctp_and_never_icmp() {
    for protocol in ["", ", protocol: ANY"] {
        backend(&format!("ingress: [{{toPorts: [{{ports: [{{port: 80{protocol}}}]}}]}}]")).check(
            "shop/db -> shop/backend TCP/80 UDP/80 SCTP/80: allow
             shop/db -> shop/backend ICMP/80 ICMPv6/80 47/80 TCP/81: default",
        );
        backend(&format!("ingress: [{{toPorts: [{{ports: [{{port: 0{protocol}}}]}}]}}]")).check(
            "shop/db -> shop/backend TCP/1 UDP/65535 SCTP/0: allow
             shop/db -> shop/backend ICMP/8 ICMPv6/128 47/0: default",
        );
    }
    backend("ingress: [{fromEndpoints: [{}]}]")
        .check("shop/db -> shop/backend TCP/1 UDP/1 SCTP/1 ICMP/8 ICMPv6/128 47/0: allow");
}

#[test]
fn requirements_narrow_what_endpoints_are_allowed_and_grant_nothing() {
    let scene = backend("ingress: [{fromRequires: [{matchLabels: {tier: web}}]}]");
    scene.check("shop/frontend -> shop/backend TCP/80: default");
    let scene =
        backend("ingress: [{fromRequires: [{matchLabels: {tier: web}}], toPorts: [{ports: [{port: 80}]}]}]");
    scene.check("shop/frontend -> shop/backend TCP/80: default");

    let mut scene = backend("ingress: [{fromRequires: [{matchLabels: {tier: web}}]}, {fromEndpoints: [{}]}]");
    scene.cnp("q", "{endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {app: db}}, {matchLabels: {app: frontend}}]}]}");
    scene.cnp("r", "{endpointSelector: {}, ingress: [{fromEntities: [world]}]}");
    scene.check(
        "shop/frontend -> shop/backend TCP/80: allow
         shop/db -> shop/backend TCP/80: default
         192.0.2.1 -> shop/backend TCP/80: allow
         shop/db -> shop/frontend TCP/80: allow",
    );
    // In its own words: the requirements of deny rules narrow deny rules only.
    backend(
        "ingress: [{fromEndpoints: [{}]}],
         ingressDeny: [{fromEndpoints: [{}], fromRequires: [{matchLabels: {tier: web}}]}]",
    )
    .check(
        "shop/frontend -> shop/backend TCP/80: deny
         shop/db -> shop/backend TCP/80: allow",
    );
    backend("egress: [{toRequires: [{matchLabels: {tier: web}}], toEndpoints: [{}]}]").check(
        "shop/backend -> shop/frontend TCP/80: allow
         shop/backend -> shop/db TCP/80: default",
    );
}

#[test]
fn the_deciding_rule_is_named() {
    let mut scene = backend(
        "description: who may come in, log: {value: backend},
         ingress: [{fromEndpoints: [{matchLabels: {app: frontend}}]}, {fromEndpoints: [{matchLabels: {app: db}}]}]",
    );
    scene.knp("iso", "{podSelector: {}, policyTypes: [Ingress]}");
    let by = |peer| scene.decided_by("shop/backend", Direction::Ingress, peer, "TCP/80");
    assert_eq!(by("shop/frontend"), "cnp/shop/p ingress[0]");
    assert_eq!(by("shop/db"), "cnp/shop/p ingress[1]");
    assert_eq!(by("pay/db"), "nobody");
    let decision = scene.decide("shop/backend", Direction::Ingress, "shop/frontend", "TCP/80");
    let origin = scene.repository.rule(decision.rule).unwrap();
    assert_eq!(origin.description.as_deref(), Some("who may come in"));
    assert_eq!(origin.log.as_deref(), Some("backend"));

    let backend = scene.subject("shop/backend");
    let policy = scene.repository.resolve(backend);
    let closed_by: Vec<String> = policy.ingress.isolated_by.iter().map(ToString::to_string).collect();
    assert_eq!(closed_by, ["cnp/shop/p", "knp/shop/iso"]);
    assert!(!policy.egress.enforced && policy.egress.isolated_by.is_empty());

    let ask = |peer: &str| {
        let peer = scene.identity(peer);
        let query = crate::Query {
            direction: Direction::Ingress,
            peer,
            protocol: sluice_types::Protocol::Tcp,
            port: Some(80),
        };
        scene.repository.explain(backend, &policy, &query, None).to_string()
    };
    assert_eq!(ask("shop/frontend"), "allowed by cnp/shop/p ingress[0]");
    assert_eq!(
        ask("pay/db"),
        "denied: no rule allows it (default deny); ingress is closed by cnp/shop/p, knp/shop/iso"
    );
}
