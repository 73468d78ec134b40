use std::time::Duration;

use sluice_client::model::{EndpointOptions, Toggle};
use sluice_types::{Identity, Verdict};

use super::rig::*;
use crate::event::{Answer, Request};

#[test]
fn a_new_peer_is_in_the_policies_before_its_address_is_known() {
    let mut rig = Rig::new();
    let web = rig.running("web", "web");
    rig.manifests(&allow("p", "web", &from_pods("client")));
    let revision = rig.world.entries[&web.id.as_u16()].revision;
    rig.world.log.clear();
    rig.running("client", "client");
    let order = ["amend 1", "ipcache 10.0.0.3/32=257"].map(|what| rig.world.at(what));
    assert!(order.is_sorted(), "{:#?}", rig.world.log);
    assert_eq!(rig.world.ingress(web.id, "10.0.0.3", 80), Verdict::Allow);
    assert_eq!(rig.world.entries[&web.id.as_u16()].revision, revision, "no connection need be judged again");
}

#[test]
fn a_peer_that_is_gone_leaves_the_policies_after_the_ipcache() {
    let mut rig = Rig::new();
    let web = rig.running("web", "web");
    rig.manifests(&allow("p", "web", &from_pods("client")));
    rig.running("client", "client");
    let entries = rig.endpoint(web.id).policy_entries;
    rig.ask(Request::DeleteAttachment(owner("client"))).unwrap();
    rig.world.log.clear();
    rig.wait(Duration::from_secs(4));
    assert_eq!(rig.endpoint(web.id).policy_entries, entries, "within the grace nothing changes");
    rig.wait(Duration::from_secs(2));
    assert_eq!(rig.world.log.iter().filter(|line| *line == "amend 1").count(), 1, "{:#?}", rig.world.log);
    assert_eq!(rig.endpoint(web.id).policy_entries, entries - 1);
}

#[test]
fn a_label_change_moves_a_pod_to_another_identity() {
    let mut rig = Rig::new();
    let web = rig.running("web", "web");
    rig.manifests(&allow("p", "web", &from_pods("client")));
    let client = rig.running("client", "client");
    let address = client.attachment.ipv4.unwrap().to_string();
    assert_eq!(rig.world.ingress(web.id, &address, 80), Verdict::Allow);
    rig.world.log.clear();
    rig.pod("client", "stranger");
    assert!(
        matches!(rig.world.ingress(web.id, &address, 80), Verdict::Deny(_)),
        "the old permission is gone"
    );
    assert_ne!(rig.endpoint(client.id).identity, client.identity);
    let order = ["entry 2", "ipcache 10.0.0.3/32=258"].map(|what| rig.world.at(what));
    assert!(order.is_sorted(), "{:#?}", rig.world.log);
    assert_eq!(rig.world.records[&client.id].identity, Identity::new(258), "the disk knows too");
    rig.pod("client", "client");
    assert_eq!(rig.endpoint(client.id).identity, client.identity, "the same labels, the same number");
    assert_eq!(rig.world.ingress(web.id, &address, 80), Verdict::Allow);
}

#[test]
fn a_namespace_label_change_counts_for_its_pods() {
    let mut rig = Rig::new();
    let web = rig.running("web", "web");
    let namespace = |team: &str| {
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{team: {team}}}}}\n")
    };
    rig.manifests(&namespace("a"));
    let first = rig.endpoint(web.id);
    assert_ne!(first.identity, web.identity);
    assert!(first.labels.to_string().contains("namespace.labels.team=a"));
    rig.remove(&namespace("a"));
    assert_eq!(rig.endpoint(web.id).identity, web.identity);
}

#[test]
fn changes_that_come_while_a_batch_is_on_its_way_are_answered_together() {
    let mut rig = Rig::new();
    let web = rig.running("web", "web");
    rig.is_slow = true;
    let port = |nth: u32| format!("toPorts: [{{ports: [{{port: \"{}\"}}]}}]", 8000 + nth);
    rig.manifests(&allow("p0", "web", &port(0)));
    for nth in 1..=20 {
        rig.manifests(&allow(&format!("p{nth}"), "web", &port(nth)));
    }
    let batches = rig.world.batches;
    rig.release();
    rig.release();
    assert!(rig.held.is_none());
    assert_eq!(rig.world.batches, batches + 2, "the first, and one for the twenty others");
    let view = rig.endpoint(web.id);
    assert_eq!(view.realized_revision, view.wanted_revision);
    assert_eq!(view.isolated_by["ingress"].len(), 21);
}

#[test]
fn a_change_that_touches_nobody_writes_nothing_and_counts_as_realized() {
    let mut rig = Rig::new();
    let web = rig.running("web", "web");
    let batches = rig.world.batches;
    rig.manifests(&allow("p", "somebody-else", &from_pods("a")));
    assert_eq!(rig.world.batches, batches);
    let view = rig.endpoint(web.id);
    assert_eq!(view.realized_revision, view.wanted_revision);
    assert!(view.wanted_revision > web.wanted_revision);
}

#[test]
fn prefixes_come_after_policies_and_go_before_them() {
    let mut rig = Rig::new();
    let web = rig.running("web", "web");
    let policy = allow("p", "web", "fromCIDRSet: [{cidr: 10.8.0.0/16, except: [10.8.1.0/24]}]");
    rig.world.log.clear();
    rig.manifests(&policy);
    let first = Identity::LOCAL_MIN.as_u32();
    let order =
        ["install 1".to_owned(), format!("ipcache 10.8.0.0/16={first}")].map(|what| rig.world.at(&what));
    assert!(order.is_sorted(), "{:#?}", rig.world.log);
    assert_eq!(rig.world.ingress(web.id, "10.8.2.1", 80), Verdict::Allow);
    assert_ne!(rig.world.ingress(web.id, "10.8.1.1", 80), Verdict::Allow, "the hole");
    assert_ne!(rig.world.ingress(web.id, "10.9.0.1", 80), Verdict::Allow);

    rig.world.log.clear();
    rig.remove(&policy);
    rig.wait(Duration::from_secs(4));
    assert_eq!(rig.world.ipcache.len(), 4, "still mapped: node, pod, two prefixes");
    rig.wait(Duration::from_secs(3));
    assert_eq!(rig.world.ipcache.len(), 2, "{:?}", rig.world.ipcache);
    assert!(rig.world.log.contains(&"ipcache 10.8.0.0/16 gone".to_owned()));
    rig.manifests(&policy);
    assert_eq!(rig.world.ingress(web.id, "10.8.2.1", 80), Verdict::Allow);
}

#[test]
fn a_new_narrower_prefix_does_not_take_from_the_wider_one() {
    let mut rig = Rig::new();
    let (web, db) = (rig.running("web", "web"), rig.running("db", "db"));
    rig.manifests(&allow("wide", "web", "fromCIDR: [10.8.0.0/16]"));
    rig.world.log.clear();
    rig.manifests(&allow("narrow", "db", "fromCIDR: [10.8.1.0/24]"));
    assert_eq!(rig.world.ingress(web.id, "10.8.1.1", 80), Verdict::Allow, "by its label of the wider one");
    assert_eq!(rig.world.ingress(db.id, "10.8.1.1", 80), Verdict::Allow);
    assert_ne!(rig.world.ingress(db.id, "10.8.2.1", 80), Verdict::Allow);
    let narrow = Identity::LOCAL_MIN.as_u32() + 1;
    let order =
        ["amend 1".to_owned(), format!("ipcache 10.8.1.0/24={narrow}")].map(|what| rig.world.at(&what));
    assert!(order.is_sorted(), "{:#?}", rig.world.log);
}

#[test]
fn a_pods_address_is_the_pod_even_if_a_policy_names_it() {
    let mut rig = Rig::new();
    let web = rig.running("web", "web");
    rig.manifests(&allow("p", "web", "fromCIDR: [10.0.0.2/32, 192.168.0.1/32]"));
    assert_eq!(rig.world.ipcache[&"10.0.0.2/32".parse().unwrap()].identity, web.identity.as_u32());
    assert_eq!(rig.world.ipcache[&"192.168.0.1/32".parse().unwrap()].identity, Identity::HOST.as_u32());
    rig.ask(Request::DeleteAttachment(owner("web"))).unwrap();
    let entry = rig.world.ipcache[&"10.0.0.2/32".parse().unwrap()];
    assert!(entry.identity >= Identity::LOCAL_MIN.as_u32(), "now the prefix is what is left");
}

#[test]
fn port_names_follow_the_pod() {
    let mut rig = Rig::new();
    let web = rig.running("web", "web");
    rig.manifests(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n  \
         podSelector: {}\n  ingress: [{ports: [{port: http}]}]\n",
    );
    assert_ne!(rig.world.ingress(web.id, "8.8.8.8", 8080), Verdict::Allow, "nobody has that name");
    let named =
        pod("web", "web") + "spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}\n";
    rig.manifests(&named);
    assert_eq!(rig.world.ingress(web.id, "8.8.8.8", 8080), Verdict::Allow);
    rig.pod("web", "web");
    assert_ne!(rig.world.ingress(web.id, "8.8.8.8", 8080), Verdict::Allow);
}

/// The warnings of each policy, by name.
fn warnings(rig: &mut Rig) -> Vec<(String, Vec<String>)> {
    let Ok(Answer::Policies(policies)) = rig.ask(crate::event::Request::Policies) else { panic!() };
    policies.into_iter().map(|policy| (policy.name, policy.warnings)).collect()
}

#[test]
fn a_name_that_stands_for_nothing_is_told_until_it_does() {
    let mut rig = Rig::new();
    rig.manifests(&allow("p", "web", "fromCIDRSet: [{cidrGroupRef: partners}]"));
    let told = "ingress[0]: there is no CiliumCIDRGroup partners, so nothing is matched there".to_owned();
    assert_eq!(warnings(&mut rig), [("p".to_owned(), vec![told])]);
    let group = "apiVersion: cilium.io/v2\nkind: CiliumCIDRGroup\nmetadata: {name: partners}\nspec: {externalCIDRs: [192.0.2.0/24]}\n";
    rig.manifests(group);
    assert_eq!(warnings(&mut rig), [("p".to_owned(), vec![])]);
    assert_eq!(rig.problems(), Vec::<String>::new(), "a name that comes later is no fault of the node");
}

#[test]
fn two_protocols_on_one_port_are_told_with_both_policies() {
    let mut rig = Rig::new();
    rig.running("web", "web");
    let port =
        |rules: &str| format!("toPorts: [{{ports: [{{port: '80', protocol: TCP}}], rules: {{{rules}}}}}]");
    rig.manifests(&allow("p", "web", &port("http: [{}]")));
    assert_eq!(warnings(&mut rig), [("p".to_owned(), vec![])]);
    rig.manifests(&allow("q", "web", &port("kafka: [{}]")));
    let told = warnings(&mut rig);
    assert_eq!(
        told[0].1,
        [
            "ingress[0]: its port is read as HTTP here and as Kafka by cnp/shop/q ingress[0]; what both name is closed"
        ]
    );
    assert_eq!(
        told[1].1,
        [
            "ingress[0]: its port is read as Kafka here and as HTTP by cnp/shop/p ingress[0]; what both name is closed"
        ]
    );
}

/// What its pods are denied passes and is reported as long as the namespace says so; an endpoint's own option counts
/// before that.
#[test]
fn a_namespace_puts_its_pods_into_audit_mode() {
    let mut rig = Rig::new();
    let web = rig.running("web", "web");
    rig.manifests(&allow("p", "web", &from_pods("client")));
    assert!(matches!(rig.world.ingress(web.id, "192.0.2.1", 80), Verdict::Deny(_)));
    let namespace = |audit: &str| {
        format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, annotations: {{sluice.dev/audit: '{audit}'}}}}\n"
        )
    };
    rig.manifests(&namespace("true"));
    assert!(matches!(rig.world.ingress(web.id, "192.0.2.1", 80), Verdict::Audit(_)));
    assert_eq!(rig.endpoint(web.id).options.policy_audit_mode, Some(Toggle::Enabled));
    let options = EndpointOptions { policy_audit_mode: Some(Toggle::Disabled) };
    rig.ask(Request::Configure(web.id, options)).unwrap();
    assert!(matches!(rig.world.ingress(web.id, "192.0.2.1", 80), Verdict::Deny(_)));
    let api = rig.running("api", "web");
    assert!(matches!(rig.world.ingress(api.id, "192.0.2.1", 80), Verdict::Audit(_)));
    rig.remove(&namespace("true"));
    assert!(matches!(rig.world.ingress(api.id, "192.0.2.1", 80), Verdict::Deny(_)));
}
