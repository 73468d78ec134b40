//! Modes, audit, and what the node may do.

use sluice_types::{Direction, DropReason, Verdict};

use super::scene::{Scene, labels};
use crate::{Config, Enforcement};

const FRONTEND_ONLY: &str = "{endpointSelector: {matchLabels: {app: backend}}, ingress: [{fromEndpoints: [{matchLabels: {app: frontend}}]}]}";

fn mode(enforcement: Enforcement) -> Scene {
    Scene::shop_with(Config { enforcement, ..Config::default() })
}

#[test]
fn default_is_open_until_a_rule_selects() {
    let mut scene = mode(Enforcement::Default);
    scene.check("pay/db -> shop/backend TCP/80: allow");
    scene.cnp("p", FRONTEND_ONLY);
    scene.check(
        "pay/db -> shop/backend TCP/80: default
         shop/frontend -> shop/backend TCP/80: allow
         shop/backend -> pay/db TCP/80: allow
         pay/db -> shop/frontend TCP/80: allow",
    );
    scene.remove(&crate::PolicyRef::new(crate::PolicyKind::Cnp, "shop", "p"));
    scene.check("pay/db -> shop/backend TCP/80: allow");
}

#[test]
fn never_ignores_rules() {
    let mut scene = mode(Enforcement::Never);
    scene.cnp("p", FRONTEND_ONLY);
    scene.ccnp("d", "{endpointSelector: {}, ingressDeny: [{fromEntities: [all]}]}");
    scene.check("pay/db -> shop/backend TCP/80: allow");
    let policy = scene.repository.resolve(scene.subject("shop/backend"));
    assert!(!policy.ingress.enforced && policy.ingress.isolated_by.is_empty());
    assert_eq!(policy.map_state.entries.len(), 2);
}

#[test]
fn always_is_closed_without_rules() {
    let mut scene = mode(Enforcement::Always);
    scene.check(
        "pay/db -> shop/backend TCP/80: default
         shop/backend -> 192.0.2.1 TCP/80: default
         host -> shop/backend TCP/80: default",
    );
    // With a rule for ingress the node is let in again.
    scene.cnp("p", FRONTEND_ONLY);
    scene.ccnp("q", "{endpointSelector: {matchLabels: {app: frontend}}, egress: [{toEntities: [cluster]}]}");
    scene.check(
        "host -> shop/backend TCP/80: allow
         shop/frontend -> shop/backend TCP/80: allow
         shop/backend -> 192.0.2.1 TCP/80: default",
    );
    // What does not close a direction does not open it either.
    let mut scene = mode(Enforcement::Always);
    scene.cnp(
        "p",
        "{endpointSelector: {}, enableDefaultDeny: {ingress: false}, ingress: [{fromEntities: [host]}]}",
    );
    scene.check("192.0.2.1 -> shop/backend TCP/80: default");
}

#[test]
fn pods_without_labels_are_closed() {
    let mut scene = mode(Enforcement::Default);
    scene.endpoint("starting", labels(&["reserved:init"]), &[]);
    scene.check(
        "shop/frontend -> starting TCP/80: default
         starting -> shop/frontend TCP/80: default
         host -> starting TCP/80: default",
    );
    scene.ccnp(
        "init",
        "{endpointSelector: {matchLabels: {'reserved:init': ''}}, ingress: [{fromEntities: [host]}], egress: [{toEntities: [world]}]}",
    );
    scene.check(
        "host -> starting TCP/80: allow
         starting -> 192.0.2.1 TCP/80: allow
         starting -> shop/frontend TCP/80: default
         pay/db -> shop/frontend TCP/80: allow",
    );
    let mut scene = mode(Enforcement::Never);
    scene.endpoint("starting", labels(&["reserved:init"]), &[]);
    scene.check("192.0.2.1 -> starting TCP/80: allow");
}

#[test]
fn the_node_reaches_its_pods_unless_a_rule_denies_it() {
    let mut scene = Scene::shop();
    scene.cnp("p", "{endpointSelector: {}, ingress: [{}], egress: [{}]}");
    scene.check(
        "host -> shop/backend TCP/80 ICMP/8: allow
         remote-node -> shop/backend TCP/80: default
         kube-apiserver -> shop/backend TCP/80: default
         shop/backend -> host TCP/80: default",
    );
    scene.cnp(
        "d",
        "{endpointSelector: {}, ingressDeny: [{fromEntities: [host], toPorts: [{ports: [{port: 80}]}]}]}",
    );
    scene.check(
        "host -> shop/backend TCP/80: deny
         host -> shop/backend TCP/81: allow",
    );
    let mut scene = Scene::shop_with(Config { allow_localhost: false, ..Config::default() });
    scene.cnp("p", "{endpointSelector: {}, ingress: [{}]}");
    scene.check("host -> shop/backend TCP/80: default");
}

#[test]
fn audit_of_the_agent_and_of_one_endpoint() {
    let deny = "{endpointSelector: {}, ingressDeny: [{fromEndpoints: [{matchLabels: {app: db}}]}]}";
    let mut scene = Scene::shop_with(Config { audit: true, ..Config::default() });
    scene.check("shop/db -> shop/backend TCP/80: allow");
    scene.cnp("p", deny);
    scene.check(
        "shop/db -> shop/backend TCP/80: audit
         pay/db -> shop/backend TCP/80: audit",
    );
    let audited =
        |scene: &Scene, peer| scene.decide("shop/backend", Direction::Ingress, peer, "TCP/80").verdict;
    assert_eq!(audited(&scene, "shop/db"), Verdict::Audit(DropReason::PolicyDeny));
    assert_eq!(audited(&scene, "pay/db"), Verdict::Audit(DropReason::PolicyDenied));

    let mut scene = Scene::shop();
    scene.cnp("p", deny);
    scene.subject_mut("shop/backend").audit = true;
    scene.check(
        "shop/db -> shop/backend TCP/80: audit
         shop/db -> shop/frontend TCP/80: deny
         shop/backend -> shop/frontend TCP/80: default",
    );
    let policy = scene.repository.resolve(scene.subject("shop/backend"));
    assert!(policy.map_state.audit_ingress && !policy.map_state.audit_egress);
}
