//! What the proxies are told, and when.

use std::time::Duration;

use sluice_policy::l7::Secrets;
use sluice_proxy_rules::Rules;
use sluice_types::Verdict;

use super::rig::*;
use crate::effect::Failed;

/// Lets pods with `app=other` ask `web` for this path.
fn get(path: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec:\n  \
         endpointSelector: {{matchLabels: {{app: web}}}}\n  ingress:\n  - fromEndpoints: [{{matchLabels: {{app: other}}}}]\n    \
         toPorts:\n    - ports: [{{port: \"80\", protocol: TCP}}]\n      rules: {{http: [{{method: GET, path: {path}}}]}}\n"
    )
}

fn paths(rig: &Rig, id: sluice_types::EndpointId) -> Vec<String> {
    let Some(rules) = rig.world.rules.get(&id) else { return Vec::new() };
    let lists = rules.enforced.rules.iter().filter_map(|list| match list {
        Rules::Http(rules) => Some(rules),
        Rules::Kafka | Rules::Dns | Rules::Tls => None,
    });
    lists.flatten().filter_map(|rule| rule.path.clone()).collect()
}

#[test]
fn proxies_know_before_the_kernel_redirects_and_until_it_does_no_longer() {
    let mut rig = Rig::new();
    let (web, other) = (rig.running("web", "web"), rig.running("other", "other"));
    assert!(rig.world.rules.is_empty());
    rig.world.log.clear();
    rig.manifests(&get("/a"));
    assert_eq!(paths(&rig, web.id), ["/a"]);
    assert!(!rig.world.rules.contains_key(&other.id), "nobody asks about it");
    assert!(matches!(rig.world.ingress(web.id, "10.0.0.3", 80), Verdict::Redirect(_)));
    let (told, installed) =
        (rig.world.at(&format!("rules {}", web.id)), rig.world.at(&format!("install {}", web.id)));
    assert!(told < installed, "{:?}", rig.world.log);
    // The kernel's table is the same, only the requests are others.
    rig.world.log.clear();
    rig.manifests(&get("/b"));
    assert_eq!(paths(&rig, web.id), ["/b"]);
    assert!(!rig.world.log.iter().any(|line| line.starts_with("install")), "{:?}", rig.world.log);
    // What says nothing new is not written again.
    rig.world.log.clear();
    rig.pod("third", "third");
    assert!(!rig.world.log.iter().any(|line| line.starts_with("rules")), "{:?}", rig.world.log);
    rig.world.log.clear();
    rig.remove(&get("/b"));
    assert!(rig.world.rules.is_empty());
    let (installed, gone) =
        (rig.world.at(&format!("install {}", web.id)), rig.world.at(&format!("no rules {}", web.id)));
    assert!(installed < gone, "{:?}", rig.world.log);
}

#[test]
fn rules_that_cannot_be_written_are_tried_again_and_reported() {
    let mut rig = Rig::new();
    let web = rig.running("web", "web");
    rig.running("other", "other");
    rig.manifests(&get("/a"));
    rig.world.broken.insert(Failed::StoreRules(web.id));
    rig.manifests(&get("/b"));
    assert_eq!(paths(&rig, web.id), ["/a"], "the last ones stay");
    assert_eq!(rig.problems().len(), 1, "{:?}", rig.problems());
    rig.world.broken.clear();
    rig.wait(Duration::from_secs(31));
    assert_eq!(paths(&rig, web.id), ["/b"]);
    assert_eq!(rig.problems(), Vec::<String>::new());
}

#[test]
fn the_next_agent_tells_them_again() {
    let mut rig = Rig::new();
    let web = rig.running("web", "web");
    rig.running("other", "other");
    rig.manifests(&get("/a"));
    rig.world.rules.clear();
    let mut rig = rig.restart(&[(102, "slu2"), (103, "slu3")]);
    rig.event(crate::event::Event::NodeAddresses(["192.168.0.1".parse().unwrap()].into()));
    rig.manifests(&format!("{}---\n{}---\n{}", pod("web", "web"), pod("other", "other"), get("/a")));
    assert_eq!(paths(&rig, web.id), ["/a"]);
}

/// A Secret comes, changes and goes: the proxy has the value that there is, and only where a rule names it.
#[test]
fn secrets_are_told_with_the_rules_that_name_them() {
    let mut rig = Rig::new();
    let web = rig.running("web", "web");
    let secret = |value: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: token, namespace: shop}}\nstringData: {{key: {value}}}\n"
        )
    };
    let policy = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n  \
        endpointSelector: {}\n  ingress:\n  - toPorts:\n    - ports: [{port: \"80\", protocol: TCP}]\n      \
        rules: {http: [{headerMatches: [{name: X-Token, secret: {namespace: shop, name: token}}]}]}\n";
    let value = |rig: &Rig| {
        let rules = rig.world.rules.get(&web.id).unwrap();
        rules.secrets.value(Some("shop"), "token").map(|value| String::from_utf8(value).unwrap())
    };
    rig.manifests(policy);
    assert_eq!(value(&rig), None);
    rig.manifests(&secret("a"));
    assert_eq!(value(&rig).as_deref(), Some("a"));
    rig.manifests(&secret("b"));
    assert_eq!(value(&rig).as_deref(), Some("b"));
    rig.remove(&secret("b"));
    assert_eq!(value(&rig), None);
    rig.manifests(&get("/a"));
    rig.manifests(&secret("c"));
    assert!(rig.world.rules.get(&web.id).unwrap().secrets.is_empty(), "no rule names it");
}
