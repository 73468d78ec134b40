//! Entities against everything they may and may not mean.

use super::scene::{Scene, labels};

/// Peers in the order of the columns below.
const PEERS: [&str; 13] = [
    "shop/frontend",
    "pay/db",
    "host",
    "remote-node",
    "kube-apiserver",
    "203.0.113.1",
    "192.0.2.1",
    "2001:db8::1",
    "ingress",
    "init",
    "health",
    "unmanaged",
    "other-cluster",
];

#[test]
fn whom_each_entity_means() {
    // One column per peer; 203.0.113.1 is an API server outside of the cluster.
    let table = [
        ("all", "XXXXXXXXXXXXX"),
        ("world", ".....XXX....."),
        ("world-ipv4", ".....XX......"),
        ("world-ipv6", ".......X....."),
        ("cluster", "XXXXXX..XXXX."),
        ("cluster-mesh", "XXXXXX..XXXXX"),
        ("host", "..X.........."),
        ("remote-node", "...XX........"),
        ("kube-apiserver", "....XX......."),
        ("ingress", "........X...."),
        ("init", ".........X..."),
        ("health", "..........X.."),
        ("unmanaged", "...........X."),
        ("none", "............."),
    ];
    for (entity, want) in table {
        let mut scene = Scene::shop();
        scene.also("203.0.113.1/32", "reserved:kube-apiserver");
        let elsewhere =
            ["k8s:app=x", "k8s:io.kubernetes.pod.namespace=shop", "k8s:io.cilium.k8s.policy.cluster=other"];
        scene.endpoint("other-cluster", labels(&elsewhere), &[]);
        scene.cnp("p", &format!("{{endpointSelector: {{matchLabels: {{app: backend}}}}, egress: [{{toEntities: [{entity}]}}]}}"));
        for (peer, want) in PEERS.into_iter().zip(want.chars()) {
            let want = if want == 'X' { "allow" } else { "default" };
            scene.check(&format!("shop/backend -> {peer} TCP/80 ICMP/8: {want}"));
        }
    }
}

#[test]
fn an_external_api_server_is_the_world_too() {
    let mut scene = Scene::shop();
    scene.also("203.0.113.1/32", "reserved:kube-apiserver");
    scene.cnp(
        "p",
        "{endpointSelector: {}, egress: [{toEntities: [kube-apiserver]}], egressDeny: [{toEntities: [world]}]}",
    );
    scene.check("shop/backend -> 203.0.113.1 TCP/443: deny");
}

#[test]
fn entities_are_a_union() {
    let mut scene = Scene::shop();
    scene.cnp("p", "{endpointSelector: {}, ingress: [{fromEntities: [world, remote-node, none]}]}");
    scene.check(
        "192.0.2.1 -> shop/backend TCP/80: allow
         remote-node -> shop/backend TCP/80: allow
         pay/db -> shop/backend TCP/80: default",
    );
}
