//! Kubernetes `NetworkPolicy`.

use sluice_types::Protocol;

use super::scene::Scene;

fn backend(rest: &str) -> Scene {
    let mut scene = Scene::shop();
    scene.knp("p", &format!("{{podSelector: {{matchLabels: {{app: backend}}}}, {rest}}}"));
    scene
}

#[test]
fn policy_types() {
    // (fields, ingress is closed, egress is closed)
    let cases = [
        ("", true, false),
        ("ingress: []", true, false),
        ("egress: []", true, false),
        ("egress: [{to: [{podSelector: {}}]}]", true, true),
        ("policyTypes: []", true, false),
        ("policyTypes: [Ingress]", true, false),
        ("policyTypes: [Egress]", false, true),
        ("policyTypes: [Ingress, Egress]", true, true),
        ("policyTypes: [Ingress], egress: [{to: [{podSelector: {}}]}]", true, false),
        ("policyTypes: [Egress], ingress: [{from: [{podSelector: {}}]}]", false, true),
    ];
    for (rest, ingress, egress) in cases {
        let word = |closed| if closed { "default" } else { "allow" };
        backend(rest).check(&format!(
            "pay/db -> shop/backend TCP/80 ICMP/8: {}
             shop/backend -> pay/db TCP/80 ICMP/8: {}
             host -> shop/backend TCP/80: allow
             pay/db -> shop/frontend TCP/80: allow",
            word(ingress),
            word(egress)
        ));
    }
}

#[test]
fn peers() {
    // Columns: shop/frontend, shop/db, pay/frontend, pay/db, 192.0.2.1, remote-node.
    let peers = ["shop/frontend", "shop/db", "pay/frontend", "pay/db", "192.0.2.1", "remote-node"];
    let table = [
        ("{podSelector: {}}", "XX...."),
        ("{podSelector: {matchLabels: {app: frontend}}}", "X....."),
        ("{namespaceSelector: {}}", "XXXX.."),
        ("{namespaceSelector: {matchLabels: {team: b}}}", "..XX.."),
        ("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: pay}}}", "..XX.."),
        ("{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: db}}}", "...X.."),
        ("{namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}", ".X.X.."),
        ("{namespaceSelector: {matchLabels: {team: b}}}, {podSelector: {matchLabels: {app: db}}}", ".XXX.."),
        ("{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [b]}]}}", "XX...."),
        ("{namespaceSelector: {matchExpressions: [{key: team, operator: DoesNotExist}]}}", "......"),
        ("{namespaceSelector: {matchExpressions: [{key: team, operator: Exists}]}}", "XXXX.."),
        ("{podSelector: {matchExpressions: [{key: app, operator: In, values: [db, x]}]}}", ".X...."),
        ("{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [db]}]}}", "X....."),
        ("{ipBlock: {cidr: 0.0.0.0/0}}", "....X."),
        ("{ipBlock: {cidr: 0.0.0.0/0, except: [192.0.2.0/24]}}", "......"),
        ("{ipBlock: {cidr: 192.0.2.0/24}}", "....X."),
    ];
    for (list, want) in table {
        for (rule, egress) in [
            (format!("ingress: [{{from: [{list}]}}]"), false),
            (format!("policyTypes: [Egress], egress: [{{to: [{list}]}}]"), true),
        ] {
            let scene = backend(&rule);
            for (peer, want) in peers.into_iter().zip(want.chars()) {
                let want = if want == 'X' { "allow" } else { "default" };
                let line = if egress {
                    format!("shop/backend -> {peer} TCP/80 UDP/1 ICMP/8: {want}")
                } else {
                    format!("{peer} -> shop/backend TCP/80 UDP/1 ICMP/8: {want}")
                };
                scene.check(&line);
            }
        }
    }
}

#[test]
fn ports() {
    let cases = [
        ("[]", "TCP/1 UDP/1 ICMP/8", ""),
        ("[{}]", "TCP/1 TCP/65535", "UDP/1 ICMP/8"),
        ("[{protocol: UDP}]", "UDP/1 UDP/53", "TCP/1 ICMP/8"),
        ("[{port: 80}]", "TCP/80", "UDP/80 TCP/81"),
        ("[{port: 80, protocol: SCTP}]", "SCTP/80", "TCP/80"),
        ("[{port: 80, endPort: 90}]", "TCP/80 TCP/90", "TCP/79 TCP/91 UDP/80"),
        ("[{port: web}]", "TCP/8080", "TCP/80 UDP/8080"),
        ("[{port: web, protocol: UDP}]", "", "TCP/8080 UDP/8080"),
        ("[{port: 80}, {port: 53, protocol: UDP}]", "TCP/80 UDP/53", "TCP/53 UDP/80"),
    ];
    for (ports, allowed, denied) in cases {
        for peers in ["", "from: [], ", "from: [{podSelector: {}}], "] {
            let mut scene = Scene::shop();
            scene.pod("shop/backend", &[("app", "backend")], &[("web", Protocol::Tcp, 8080)]);
            scene.knp("p", &format!("{{podSelector: {{}}, ingress: [{{{peers}ports: {ports}}}]}}"));
            for (traffic, want) in [(allowed, "allow"), (denied, "default")] {
                if !traffic.is_empty() {
                    scene.check(&format!("shop/db -> shop/backend {traffic}: {want}"));
                }
            }
        }
    }
}

#[test]
fn rules_and_policies_add_up() {
    let mut scene = backend(
        "ingress: [{from: [{podSelector: {matchLabels: {app: frontend}}}], ports: [{port: 80}]}, {from: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 81}]}]",
    );
    scene.knp("q", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}}}], ports: [{port: 82}]}]}");
    scene.check(
        "shop/frontend -> shop/backend TCP/80: allow
         shop/frontend -> shop/backend TCP/81 TCP/82: default
         shop/db -> shop/backend TCP/81: allow
         shop/db -> shop/backend TCP/80: default
         pay/db -> shop/backend TCP/82: allow
         pay/db -> shop/frontend TCP/82: allow
         pay/db -> shop/frontend TCP/80: default",
    );
    // A deny of another kind of object beats them.
    scene.ccnp(
        "d",
        "{endpointSelector: {}, ingressDeny: [{fromEndpoints: [{matchLabels: {app: frontend}}]}]}",
    );
    scene.check("shop/frontend -> shop/backend TCP/80: deny");
}

#[test]
fn both_sides_must_allow() {
    let mut scene = Scene::shop();
    scene.knp("in", "{podSelector: {matchLabels: {app: backend}}, ingress: [{from: [{podSelector: {}}]}]}");
    scene.knp("out", "{podSelector: {matchLabels: {app: frontend}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]}");
    scene.check(
        "shop/frontend -> shop/backend TCP/80: default
         shop/db -> shop/backend TCP/80: allow
         shop/frontend -> shop/db TCP/80: allow",
    );
}

#[test]
fn an_absent_pod_selector_means_every_pod_of_the_namespace() {
    let mut scene = Scene::shop();
    scene.knp("p", "{policyTypes: [Ingress]}");
    scene.check(
        "pay/db -> shop/backend TCP/80: default
         shop/db -> pay/backend TCP/80: allow",
    );
}
