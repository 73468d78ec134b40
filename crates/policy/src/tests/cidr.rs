//! Prefixes: whom they mean, and their holes.

use super::scene::Scene;
use crate::Config;

fn to(entries: &str) -> Scene {
    let mut scene = Scene::shop();
    scene.cnp("p", &format!("{{endpointSelector: {{matchLabels: {{app: backend}}}}, {entries}}}"));
    scene
}

#[test]
fn a_prefix_never_means_pods_or_nodes() {
    to("egress: [{toCIDR: [0.0.0.0/0, '::/0']}]").check(
        "shop/backend -> 192.0.2.1 TCP/80 UDP/1 ICMP/8: allow
         shop/backend -> 2001:db8::1 TCP/80 ICMPv6/128: allow
         shop/backend -> shop/frontend TCP/80: default
         shop/backend -> pay/db TCP/80: default
         shop/backend -> host TCP/80: default
         shop/backend -> remote-node TCP/80: default
         shop/backend -> health TCP/80: default",
    );
    to("egress: [{toCIDR: [0.0.0.0/0]}]").check(
        "shop/backend -> 192.0.2.1 TCP/80: allow
         shop/backend -> 2001:db8::1 TCP/80: default",
    );
}

#[test]
fn prefixes_and_addresses() {
    to("egress: [{toCIDR: [10.0.0.1/8, 192.0.2.7, '2001:db8::/32', 'fd00::1']}]").check(
        "shop/backend -> 10.255.0.1 TCP/80: allow
         shop/backend -> 11.0.0.1 TCP/80: default
         shop/backend -> 192.0.2.7 TCP/80: allow
         shop/backend -> 192.0.2.8 TCP/80: default
         shop/backend -> 2001:db8:1::1 TCP/80: allow
         shop/backend -> 2001:db9::1 TCP/80: default
         shop/backend -> fd00::1 TCP/80: allow
         shop/backend -> fd00::2 TCP/80: default",
    );
}

#[test]
fn a_hole_is_no_deny() {
    to("egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.96.0.0/12]}]}, {toCIDR: [10.100.0.0/16]}]")
        .check(
            "shop/backend -> 10.1.0.1 TCP/80: allow
         shop/backend -> 10.97.0.1 TCP/80: default
         shop/backend -> 10.100.0.1 TCP/80: allow
         shop/backend -> 10.111.0.1 TCP/80: default
         shop/backend -> 10.112.0.1 TCP/80: allow",
        );
    to("egress: [{toCIDRSet: [{cidr: 0.0.0.0/0, except: [0.0.0.0/0]}]}]")
        .check("shop/backend -> 192.0.2.1 TCP/80: default");
    to("egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.0.0.0/9, 10.0.0.0/10, 10.128.0.0/9]}]}]")
        .check("shop/backend -> 10.1.2.3 TCP/80: default\nshop/backend -> 10.200.0.1 TCP/80: default");
    to("egress: [{toEntities: [world]}], egressDeny: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}]")
        .check(
            "shop/backend -> 10.2.0.1 TCP/80: deny
             shop/backend -> 10.1.0.1 TCP/80: allow",
        );
}

#[test]
fn nested_prefixes_in_every_order() {
    let entries = [
        "egressDeny: [{toCIDR: [10.0.0.0/8]}]",
        "egress: [{toCIDR: [10.1.0.0/16]}]",
        "egressDeny: [{toCIDR: [10.1.1.0/24]}]",
        "egress: [{toCIDR: [0.0.0.0/0]}]",
    ];
    for rotation in 0..entries.len() {
        let mut scene = Scene::shop();
        for nth in 0..entries.len() {
            let entry = entries[(nth + rotation) % entries.len()];
            scene.cnp(&format!("p{nth}"), &format!("{{endpointSelector: {{}}, {entry}}}"));
        }
        scene.check(
            "shop/backend -> 10.2.0.1 TCP/80: deny
             shop/backend -> 10.1.2.1 TCP/80: deny
             shop/backend -> 10.1.1.1 TCP/80: deny
             shop/backend -> 192.0.2.1 TCP/80: allow",
        );
    }
}

#[test]
fn a_narrow_deny_holds_under_a_wide_allow() {
    to("egress: [{toCIDR: [0.0.0.0/0]}], egressDeny: [{toCIDR: [169.254.169.254/32]}]").check(
        "shop/backend -> 169.254.169.254 TCP/80 UDP/53 ICMP/8: deny
         shop/backend -> 169.254.169.253 TCP/80: allow",
    );
}

#[test]
fn nodes_and_pods_are_meant_only_where_the_options_say_so() {
    let text = "{endpointSelector: {}, egress: [{toCIDR: [172.18.0.0/16]}]}";
    for (nodes, want) in [(false, "default"), (true, "allow")] {
        let mut scene = Scene::shop_with(Config { cidr_match_nodes: nodes, ..Config::default() });
        let labels = super::scene::labels(&["reserved:remote-node", "cidr:172.18.0.3/32"]);
        drop(scene.repository.set_identity(sluice_types::Identity::REMOTE_NODE, labels));
        scene.cnp("p", text);
        scene.check(&format!("shop/backend -> remote-node TCP/80: {want}"));
    }
    for (pods, want) in [(false, "default"), (true, "allow")] {
        let mut scene = Scene::shop_with(Config { cidr_match_pods: pods, ..Config::default() });
        let mut labels = scene.subject("pay/db").labels.clone();
        labels.insert("cidr:172.18.0.3/32".parse().unwrap());
        scene.endpoint("pay/addressed", labels, &[]);
        scene.cnp("p", text);
        scene.check(&format!("shop/backend -> pay/addressed TCP/80: {want}"));
    }
}

#[test]
fn prefixes_come_and_go_with_their_rules() {
    let mut scene =
        to("egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.96.0.0/12]}]}, {toCIDR: [0.0.0.0/0]}]");
    let known = |scene: &Scene| {
        scene.repository.prefixes().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(known(&scene), "10.0.0.0/8 10.96.0.0/12");
    scene.knp("q", "{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}");
    scene.remove(&crate::PolicyRef::new(crate::PolicyKind::Cnp, "shop", "p"));
    assert_eq!(known(&scene), "10.0.0.0/8");
    scene.check("shop/backend -> 10.96.0.1 TCP/80: allow");
    scene.remove(&crate::PolicyRef::new(crate::PolicyKind::Knp, "shop", "q"));
    assert_eq!(known(&scene), "");
    assert_eq!(scene.repository.selectors().count(), 0);
}
