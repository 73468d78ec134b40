//! Whom a policy may select, and where its peers are: nothing leaves its namespace by a trick.

use sluice_types::Identity;

use super::scene::{Scene, labels};
use crate::{Config, Subject};

const OTHERS: [&str; 3] = ["pay/backend", "pay/db", "kube-system/dns"];

#[test]
fn a_namespaced_policy_selects_only_its_own_pods() {
    let tricks = [
        "{}",
        "{matchLabels: {app: backend}}",
        "{matchLabels: {'k8s:io.kubernetes.pod.namespace': pay}}",
        "{matchLabels: {io.kubernetes.pod.namespace: pay}}",
        "{matchLabels: {'any:io.kubernetes.pod.namespace': pay}}",
        "{matchExpressions: [{key: 'k8s:io.kubernetes.pod.namespace', operator: NotIn, values: [shop]}]}",
        "{matchExpressions: [{key: 'k8s:io.kubernetes.pod.namespace', operator: In, values: [shop, pay]}]}",
        "{matchExpressions: [{key: 'k8s:io.kubernetes.pod.namespace', operator: Exists}]}",
        "{matchExpressions: [{key: io.kubernetes.pod.namespace, operator: DoesNotExist}]}",
        "{matchExpressions: [{key: 'reserved:init', operator: DoesNotExist}]}",
        "{matchExpressions: [{key: 'reserved:host', operator: DoesNotExist}]}",
        "{matchLabels: {io.cilium.k8s.namespace.labels.team: b}}",
        "{matchExpressions: [{key: io.cilium.k8s.namespace.labels.team, operator: NotIn, values: [a]}]}",
        "{matchLabels: {'reserved:health': ''}}",
        "{matchLabels: {'reserved:init': ''}}",
    ];
    for selector in tricks {
        let mut scene = Scene::shop();
        scene.endpoint("health-pod", labels(&["reserved:health"]), &[]);
        scene.cnp("p", &format!("{{endpointSelector: {selector}, ingress: [{{}}], egress: [{{}}]}}"));
        for other in OTHERS.into_iter().chain(["health-pod"]) {
            let policy = scene.repository.resolve(scene.subject(other));
            assert!(!policy.ingress.enforced && !policy.egress.enforced, "{selector} selects {other}");
        }
    }
    // A namespace in matchLabels gives way to the policy's own.
    let mut scene = Scene::shop();
    scene.cnp(
        "p",
        "{endpointSelector: {matchLabels: {'k8s:io.kubernetes.pod.namespace': pay}}, ingress: [{}]}",
    );
    scene.check("pay/db -> shop/backend TCP/80: default");
}

#[test]
fn where_peers_are_looked_for() {
    // Columns: shop/db, pay/db, 192.0.2.1, host, health, unmanaged.
    let peers = ["shop/db", "pay/db", "192.0.2.1", "host", "health", "unmanaged"];
    let cnp = [
        ("{}", "X....."),
        ("{matchLabels: {app: db}}", "X....."),
        ("{matchLabels: {'k8s:app': db}}", "X....."),
        ("{matchLabels: {'any:app': db}}", "X....."),
        ("{matchLabels: {'container:app': db}}", "......"),
        ("{matchLabels: {'k8s:io.kubernetes.pod.namespace': pay}}", ".X...."),
        ("{matchLabels: {io.kubernetes.pod.namespace: pay, app: db}}", ".X...."),
        ("{matchLabels: {io.cilium.k8s.namespace.labels.team: b}}", ".X...."),
        ("{matchExpressions: [{key: 'k8s:io.kubernetes.pod.namespace', operator: Exists}]}", "XX...."),
        (
            "{matchExpressions: [{key: 'k8s:io.kubernetes.pod.namespace', operator: NotIn, values: [shop]}]}",
            ".X....",
        ),
        ("{matchExpressions: [{key: app, operator: NotIn, values: [x]}]}", "X....."),
        ("{matchExpressions: [{key: app, operator: DoesNotExist}]}", "......"),
        ("{matchLabels: {'reserved:host': ''}}", "...X.."),
        ("{matchLabels: {'reserved:world': ''}}", "..X..."),
        ("{matchExpressions: [{key: 'reserved:init', operator: DoesNotExist}]}", "XXXXXX"),
        (
            "{matchExpressions: [{key: app, operator: In, values: [db]}, {key: tier, operator: NotIn, values: [inner]}]}",
            "......",
        ),
        (
            "{matchLabels: {app: db}, matchExpressions: [{key: tier, operator: In, values: [inner, web]}]}",
            "X.....",
        ),
        ("{matchLabels: {io.cilium.k8s.policy.serviceaccount: default}}", "X....."),
        ("{matchLabels: {io.cilium.k8s.policy.cluster: other}}", "......"),
    ];
    let ccnp = [
        ("{}", "XX...."),
        ("{matchLabels: {app: db}}", "XX...."),
        ("{matchLabels: {'k8s:io.kubernetes.pod.namespace': pay}}", ".X...."),
        ("{matchExpressions: [{key: app, operator: NotIn, values: [x]}]}", "XX...."),
        ("{matchLabels: {io.cilium.k8s.namespace.labels.team: b}}", ".X...."),
        ("{matchLabels: {'reserved:health': ''}}", "....X."),
    ];
    let check = |clusterwide: bool, selector: &str, want: &str| {
        let mut scene = Scene::shop();
        let spec = format!(
            "{{endpointSelector: {{matchLabels: {{app: backend}}}}, egress: [{{toEndpoints: [{selector}]}}]}}"
        );
        if clusterwide {
            scene.ccnp("p", &spec)
        } else {
            scene.cnp("p", &spec)
        }
        for (peer, want) in peers.into_iter().zip(want.chars()) {
            let want = if want == 'X' { "allow" } else { "default" };
            scene.check(&format!("shop/backend -> {peer} TCP/80: {want}"));
        }
    };
    for (selector, want) in cnp {
        check(false, selector, want);
    }
    for (selector, want) in ccnp {
        check(true, selector, want);
    }
}

#[test]
fn a_clusterwide_policy_selects_every_endpoint_but_the_node() {
    let mut scene = Scene::shop();
    scene.endpoint("health-pod", labels(&["reserved:health"]), &[]);
    scene.ccnp("p", "{endpointSelector: {}, ingress: [{}]}");
    for name in ["shop/db", "pay/db", "health-pod"] {
        assert!(scene.repository.resolve(scene.subject(name)).ingress.enforced, "{name}");
    }
    assert!(!scene.repository.resolve(&node()).ingress.enforced);
    let mut scene = Scene::shop();
    scene.endpoint("health-pod", labels(&["reserved:health"]), &[]);
    scene.ccnp(
        "p",
        "{endpointSelector: {matchExpressions: [{key: io.kubernetes.pod.namespace, operator: Exists}]}, ingress: [{}]}",
    );
    assert!(!scene.repository.resolve(scene.subject("health-pod")).ingress.enforced);
    assert!(scene.repository.resolve(scene.subject("shop/db")).ingress.enforced);
}

fn node() -> Subject {
    Subject {
        identity: Identity::HOST,
        labels: labels(&["reserved:host", "node:role=control-plane"]),
        named_ports: Vec::new(),
        services: Vec::new(),
        audit: false,
    }
}

#[test]
fn a_node_rule_selects_the_node_alone() {
    let mut scene = Scene::shop_with(Config { host_firewall: true, ..Config::default() });
    scene.ccnp(
        "p",
        "{nodeSelector: {matchLabels: {role: control-plane}}, ingress: [{fromEntities: [cluster]}]}",
    );
    assert!(scene.repository.resolve(&node()).ingress.enforced);
    assert!(!scene.repository.resolve(scene.subject("shop/db")).ingress.enforced);
    scene.ccnp("p", "{nodeSelector: {matchLabels: {role: worker}}, ingress: [{fromEntities: [cluster]}]}");
    assert!(!scene.repository.resolve(&node()).ingress.enforced);
}

#[test]
fn several_policies_of_one_name_in_different_places_are_different() {
    let mut scene = Scene::shop();
    scene.cnp("p", "{endpointSelector: {}, ingress: [{}]}");
    scene.ccnp("p", "{endpointSelector: {matchLabels: {app: nobody}}, ingress: [{}]}");
    scene.knp("p", "{podSelector: {matchLabels: {app: nobody}}}");
    assert_eq!(scene.repository.policies().count(), 3);
    scene.remove(&crate::PolicyRef::new(crate::PolicyKind::Ccnp, "", "p"));
    scene.check("pay/db -> shop/backend TCP/80: default");
}
