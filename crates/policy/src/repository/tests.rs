use std::collections::BTreeSet;

use sluice_types::{Direction, Label, Protocol};

use super::*;
use crate::{
    labels::{pod_labels, reserved_labels},
    map_state::{L4Match, Query},
    parse,
    rule::PolicyKind,
};

fn labels(app: &str, namespace: &str) -> Labels {
    let own = BTreeMap::from([("app".to_owned(), app.to_owned())]);
    pod_labels(&own, namespace, &BTreeMap::new(), "default", "default")
}

fn subject(identity: u32, app: &str, namespace: &str) -> Subject {
    Subject {
        identity: Identity::new(identity),
        labels: labels(app, namespace),
        named_ports: Vec::new(),
        services: Vec::new(),
        audit: false,
    }
}

fn name(name: &str) -> PolicyRef {
    PolicyRef::new(PolicyKind::Cnp, "shop", name)
}

fn rules(spec: &str) -> Vec<Rule> {
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}"
    );
    match sluice_api::read_manifests(&text).remove(0).content {
        Ok(sluice_api::Object::CiliumNetworkPolicy(policy)) => {
            parse::cilium_network_policy(&policy, &Config::default()).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

const WEB_FROM_DB: &str =
    "{endpointSelector: {matchLabels: {app: web}}, ingress: [{fromEndpoints: [{matchLabels: {app: db}}]}]}";
const TWO: &str = "{endpointSelector: {matchLabels: {app: web}}, ingress: [
    {fromEndpoints: [{matchLabels: {app: db}}]}, {fromEndpoints: [{matchLabels: {app: job}}]}]}";

fn repository() -> Repository {
    let mut repository = Repository::new(Config::default());
    for (identity, app) in [(300, "web"), (301, "db"), (302, "job")] {
        drop(repository.set_identity(Identity::new(identity), labels(app, "shop")));
    }
    repository
}

fn ids(repository: &Repository) -> BTreeMap<String, RuleId> {
    repository.rules.iter().map(|(id, rule)| (rule.rule.path.clone(), *id)).collect()
}

#[test]
fn revisions_count_changes_of_rules() {
    let mut repository = repository();
    assert_eq!(repository.revision(), 1);
    assert!(!repository.upsert(name("p"), rules(WEB_FROM_DB)).is_empty());
    assert_eq!(repository.revision(), 2);
    assert!(repository.upsert(name("p"), rules(WEB_FROM_DB)).is_empty(), "nothing changed");
    assert_eq!(repository.revision(), 2);
    assert!(repository.remove(&name("other")).is_empty());
    assert_eq!(repository.revision(), 2);
    assert!(!repository.remove(&name("p")).is_empty());
    assert_eq!(repository.revision(), 3);
    drop(repository.set_identity(Identity::new(303), labels("db", "shop")));
    assert_eq!(repository.revision(), 3);
    assert_eq!(repository.policies().count(), 0);
}

#[test]
fn rules_keep_their_numbers_while_they_live() {
    let mut repository = repository();
    drop(repository.upsert(name("p"), rules(WEB_FROM_DB)));
    let first = ids(&repository)["ingress[0]"];
    drop(repository.upsert(name("p"), rules(TWO)));
    let both = ids(&repository);
    assert_eq!(both["ingress[0]"], first);
    assert_ne!(both["ingress[1]"], first);
    drop(repository.upsert(name("p"), rules(&TWO.replace("app: db", "app: job"))));
    assert_eq!(ids(&repository), both, "the rule at a place keeps its number when it is edited");
    drop(repository.remove(&name("p")));
    assert_eq!(repository.rule(first), None);
    drop(repository.upsert(name("p"), rules(WEB_FROM_DB)));
    assert!(!both.values().any(|id| repository.rule(*id).is_some()), "numbers are not given again at once");
}

#[test]
fn a_change_says_whom_it_touches() {
    let mut repository = repository();
    let web = labels("web", "shop");
    let db = labels("db", "shop");
    let changed = repository.upsert(name("p"), rules(WEB_FROM_DB));
    assert!(changed.affects(&web) && !changed.affects(&db) && !changed.affects(&labels("web", "pay")));

    let changed = repository.upsert(name("p"), rules(&WEB_FROM_DB.replace("app: web", "app: job")));
    assert!(changed.affects(&web), "it is no longer selected");
    assert!(changed.affects(&labels("job", "shop")), "it is selected now");
    drop(repository.upsert(name("p"), rules(WEB_FROM_DB)));

    let new_db = Identity::new(310);
    assert!(repository.set_identity(new_db, labels("db", "shop")).affects(&web));
    assert!(repository.set_identity(new_db, labels("db", "shop")).is_empty(), "nothing new");
    assert!(repository.set_identity(new_db, labels("db", "pay")).affects(&web), "it left");
    assert!(repository.set_identity(new_db, labels("job", "shop")).is_empty(), "nobody selects it");
    assert!(repository.remove_identity(new_db).is_empty());
    assert!(repository.remove_identity(Identity::new(301)).affects(&web));

    let port = |port| vec![NamedPort { name: "http".to_owned(), protocol: Protocol::Tcp, port }];
    assert!(repository.set_named_ports("shop/db", Identity::new(302), port(80)).is_empty());
    let by_name = "{endpointSelector: {matchLabels: {app: web}}, egress: [
        {toEndpoints: [{matchLabels: {app: job}}], toPorts: [{ports: [{port: http}]}]}]}";
    drop(repository.upsert(name("q"), rules(by_name)));
    assert!(repository.set_named_ports("shop/db", Identity::new(302), port(81)).affects(&web));
    assert!(repository.set_named_ports("shop/db", Identity::new(302), port(81)).is_empty());
    assert!(repository.set_named_ports("shop/x", Identity::new(300), port(81)).is_empty(), "not a peer");
    assert!(repository.remove_named_ports("shop/db").affects(&web));
}

#[test]
fn equal_subjects_share_their_policy() {
    let mut repository = repository();
    drop(repository.upsert(name("p"), rules(WEB_FROM_DB)));
    let web = subject(300, "web", "shop");
    let first = repository.resolve(&web);
    assert!(Arc::ptr_eq(&first, &repository.resolve(&web)));
    let audited = repository.resolve(&Subject { audit: true, ..web.clone() });
    assert!(!Arc::ptr_eq(&first, &audited) && audited.map_state.audit_ingress);

    // What does not touch it leaves its table as it is.
    drop(repository.upsert(name("q"), rules(&WEB_FROM_DB.replace("app: web", "app: job"))));
    let second = repository.resolve(&web);
    assert_eq!((first.revision, second.revision), (2, 3));
    assert!(Arc::ptr_eq(&first.map_state, &second.map_state));
    drop(repository.set_identity(Identity::new(320), labels("nobody", "shop")));
    assert!(Arc::ptr_eq(&second, &repository.resolve(&web)));

    // What does, does not.
    drop(repository.set_identity(Identity::new(321), labels("db", "shop")));
    let third = repository.resolve(&web);
    assert_eq!(third.map_state.entries.len(), second.map_state.entries.len() + 1);
    drop(repository.remove(&name("p")));
    assert!(!repository.resolve(&web).ingress.enforced);
}

#[test]
fn what_nobody_holds_is_not_kept() {
    let repository = repository();
    for identity in 300..400 {
        assert!(!repository.resolve(&subject(identity, "web", "shop")).ingress.enforced);
    }
    assert!(repository.resolved().len() <= 65);
}

#[test]
fn a_patched_policy_is_the_policy() {
    let mut repository = repository();
    drop(repository.set_identity(Identity::HOST, reserved_labels(Identity::HOST)));
    drop(repository.upsert(
        name("p"),
        rules(
            "{endpointSelector: {}, ingress: [{fromEntities: [host, cluster], toPorts: [{ports: [{port: 80, endPort: 90}]}]}],
              ingressDeny: [{fromEndpoints: [{matchLabels: {app: db}}]}]}",
        ),
    ));
    let web = subject(300, "web", "shop");
    let before = repository.resolve(&web);
    // The node's own identity changes too: what no rule asked for must stay.
    let mut node = reserved_labels(Identity::HOST);
    node.insert(Label::reserved("kube-apiserver"));
    drop(repository.set_identity(Identity::HOST, node));
    drop(repository.remove_identity(Identity::HOST));
    drop(repository.set_identity(Identity::HOST, reserved_labels(Identity::HOST)));
    drop(repository.remove_identity(Identity::new(301)));
    drop(repository.set_identity(Identity::new(302), labels("db", "shop")));
    let patched = repository.resolve(&web);
    let fresh = repository.resolver(&web, repository.matching_rules(&web.labels)).policy();
    assert_eq!(*patched, fresh);
    assert_ne!(patched.map_state, before.map_state);
}

#[test]
fn a_narrower_block_is_reported_before_a_wider_one() {
    let mut repository = repository();
    let spec = "{endpointSelector: {matchLabels: {app: web}}, ingress: [
        {fromEndpoints: [{}]}, {toPorts: [{ports: [{port: 80, protocol: TCP}]}]}]}";
    drop(repository.upsert(name("p"), rules(spec)));
    let web = subject(300, "web", "shop");
    let policy = repository.resolve(&web);
    let ask = |port| {
        let peer = Identity::new(301);
        let query = Query { direction: Direction::Ingress, peer, protocol: Protocol::Tcp, port: Some(port) };
        repository.explain(&web, &policy, &query, None).to_string()
    };
    assert_eq!(ask(80), "allowed by cnp/shop/p ingress[1]");
    assert_eq!(ask(81), "allowed by cnp/shop/p ingress[0]");
    assert!(policy.map_state.entries.keys().any(|key| key.l4 == L4Match::port(Protocol::Tcp, 80)));
}

#[test]
fn updates_leave_nothing_behind() {
    let mut repository = repository();
    for round in 0..1_000u32 {
        let spec = if round % 2 == 0 { WEB_FROM_DB } else { TWO };
        drop(repository.upsert(name("p"), rules(spec)));
    }
    assert_eq!(repository.policies().map(|view| view.rules).collect::<Vec<_>>(), [2]);
    assert_eq!(repository.rules.len(), 2);
    assert_eq!(repository.selectors().count(), 2);
    drop(repository.remove(&name("p")));
    assert!(repository.rules.is_empty() && repository.users.is_empty() && repository.by_home.is_empty());
    assert_eq!(repository.selectors().count(), 0);
}

#[test]
fn reports_name_policies_and_selectors() {
    let mut repository = repository();
    drop(repository.upsert(name("p"), rules(TWO)));
    let views: Vec<String> = repository
        .policies()
        .map(|view| format!("{} {} {}", view.policy, view.rules, view.revision))
        .collect();
    assert_eq!(views, ["cnp/shop/p 2 2"]);
    assert_eq!(repository.policies_of(&labels("web", "shop")).count(), 1);
    assert_eq!(repository.policies_of(&labels("web", "pay")).count(), 0);
    let selectors: BTreeSet<String> =
        repository.selectors().map(|view| format!("{} -> {:?}", view.selector, view.identities)).collect();
    let first = selectors.first().unwrap();
    assert_eq!(
        first,
        "any:app=db and k8s:io.cilium.k8s.policy.cluster=default and k8s:io.kubernetes.pod.namespace=shop -> {Identity(301)}"
    );
}
