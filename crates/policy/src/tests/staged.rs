//! Policies in audit mode: they change nothing, and what they would deny is reported.

use sluice_types::Direction;

use super::scene::Scene;
use crate::{Config, PolicyKind, PolicyRef};

fn staged(scene: &mut Scene, name: &str, spec: &str) {
    scene.apply(&format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: {name}, namespace: shop, \
         annotations: {{sluice.dev/audit: 'true'}}}}, spec: {spec}}}"
    ));
}

const FRONTEND_ONLY: &str = "{endpointSelector: {matchLabels: {app: backend}}, ingress: [{fromEndpoints: [{matchLabels: {app: frontend}}]}]}";
const DB_ONLY: &str = "{endpointSelector: {matchLabels: {app: backend}}, ingress: [{fromEndpoints: [{matchLabels: {app: db}}]}]}";
const NOT_SSH: &str = "{endpointSelector: {matchLabels: {app: backend}}, ingressDeny: [{toPorts: [{ports: [{port: '22', protocol: TCP}]}]}]}";

#[test]
fn alone_it_closes_nothing() {
    let mut scene = Scene::shop();
    staged(&mut scene, "p", FRONTEND_ONLY);
    scene.check(
        "shop/frontend -> shop/backend TCP/80: allow
         shop/db -> shop/backend TCP/80: audit
         192.0.2.1 -> shop/backend UDP/53: audit
         host -> shop/backend TCP/80: allow
         shop/db -> shop/frontend TCP/80: allow
         shop/backend -> shop/db TCP/80: allow",
    );
    let policy = scene.repository.resolve(scene.subject("shop/backend"));
    assert!(!policy.ingress.enforced && policy.ingress.isolated_by.is_empty());
    assert_eq!(policy.ingress.staged_by, [PolicyRef::new(PolicyKind::Cnp, "shop", "p")]);
    assert!(policy.egress.staged_by.is_empty());
}

/// Beside an enforced policy it opens nothing, and tells only of what that one lets pass.
#[test]
fn beside_an_enforced_policy_it_neither_opens_nor_closes() {
    let mut scene = Scene::shop();
    scene.cnp("p", FRONTEND_ONLY);
    staged(&mut scene, "q", DB_ONLY);
    scene.check(
        "shop/frontend -> shop/backend TCP/22: allow
         shop/db -> shop/backend TCP/22: default
         pay/db -> shop/backend TCP/22: default",
    );
    staged(&mut scene, "deny", NOT_SSH);
    scene.check(
        "shop/frontend -> shop/backend TCP/22: audit
         shop/frontend -> shop/backend TCP/80: allow
         shop/db -> shop/backend TCP/22: default",
    );
    let decided = scene.decided_by("shop/backend", Direction::Ingress, "shop/frontend", "TCP/22");
    assert_eq!(decided, "cnp/shop/deny ingressDeny[0]");
    // Enforced, it denies.
    scene.cnp("deny", NOT_SSH);
    scene.check("shop/frontend -> shop/backend TCP/22: deny");
}

/// What a policy in audit mode requires of peers narrows the rules of no other.
#[test]
fn its_requirements_are_its_own() {
    let mut scene = Scene::shop();
    scene.cnp("p", FRONTEND_ONLY);
    let requires = "{endpointSelector: {matchLabels: {app: backend}}, ingress: [{fromRequires: [{matchLabels: {tier: inner}}]}]}";
    staged(&mut scene, "q", requires);
    scene.check("shop/frontend -> shop/backend TCP/80: audit");
    scene.cnp("q", requires);
    scene.check("shop/frontend -> shop/backend TCP/80: default");
}

#[test]
fn administrators_before_it_decide_alone() {
    let mut scene = Scene::shop_with(Config::complete());
    staged(&mut scene, "p", FRONTEND_ONLY);
    scene.kcnp(
        "a",
        "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: b}}}]}]}",
    );
    scene.check(
        "pay/db -> shop/backend TCP/80: allow
         shop/db -> shop/backend TCP/80: audit",
    );
}
