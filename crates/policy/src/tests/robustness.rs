//! Inputs that went wrong elsewhere, by the rows of the list of bad inputs that no other table holds.

use sluice_types::Protocol;

use super::scene::{Scene, errors_with, policy_text};
use crate::{
    Asked, Config, Outcome, PolicyKind, PolicyRef, Query,
    l7::{FqdnSelector, HttpRequest, Request},
};

fn scene() -> Scene {
    Scene::shop_with(Config::complete())
}

fn errors(list: &str) -> Vec<String> {
    errors_with("CiliumNetworkPolicy", &format!("{{endpointSelector: {{}}, {list}}}"), &Config::complete())
}

/// Row 1: an empty list selects nobody, with and without ports; an absent one everybody on the ports.
#[test]
fn empty_lists_select_nobody_in_every_kind_of_peers() {
    let ports = "toPorts: [{ports: [{port: 80, protocol: TCP}]}]";
    let ingress = ["fromEndpoints", "fromCIDR", "fromCIDRSet", "fromEntities", "fromNodes", "fromGroups"];
    let egress =
        ["toEndpoints", "toCIDR", "toCIDRSet", "toEntities", "toNodes", "toGroups", "toServices", "toFQDNs"];
    for (direction, fields, from, to) in [
        ("ingress", ingress.as_slice(), "192.0.2.1", "shop/backend"),
        ("egress", egress.as_slice(), "shop/backend", "192.0.2.1"),
    ] {
        for field in fields {
            for (entry, want) in [
                (format!("{{{field}: []}}"), "default"),
                (format!("{{{field}: [], {ports}}}"), "default"),
                (format!("{{{ports}}}"), "allow"),
            ] {
                let mut scene = scene();
                scene.cnp("p", &format!("{{endpointSelector: {{}}, {direction}: [{entry}]}}"));
                scene.check(&format!("{from} -> {to} TCP/80: {want}"));
            }
            let null = errors(&format!("{direction}: [{{{field}: null, {ports}}}]"));
            assert_eq!(null.len(), 1, "{field}: null is neither: {null:?}");
        }
    }
}

/// Row 3: what nothing is left of selects nothing, and never the rest of the world.
#[test]
fn a_prefix_that_is_one_hole_selects_nothing() {
    let mut scene = scene();
    scene.cnp(
        "p",
        "{endpointSelector: {}, ingress: [{fromCIDRSet: [{cidr: 0.0.0.0/0, except: [0.0.0.0/0]}, {cidr: 10.0.0.1/8, except: [10.0.0.0/8, 10.1.0.0/16]}]}]}",
    );
    scene.check("192.0.2.1 -> shop/backend TCP/80: default");
    scene.check("10.1.2.3 -> shop/backend TCP/80: default");
    let knp = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [0.0.0.0/0]}}]}]}";
    let found = errors_with("NetworkPolicy", knp, &Config::complete());
    assert!(found[0].contains("must be smaller than the prefix"), "{found:?}");
}

/// Row 6: rules about requests hold on every port of a range, and where they cannot hold they are refused.
#[test]
fn requests_on_ranges_and_wildcards() {
    let mut scene = scene();
    scene.cnp(
        "p",
        "{endpointSelector: {matchLabels: {app: backend}}, ingress: [{toPorts: [{ports: [{port: 80, endPort: 8080, protocol: TCP}], rules: {http: [{method: GET}]}}]}]}",
    );
    let subject = scene.subject("shop/backend");
    let policy = scene.repository.resolve(subject);
    for port in [79, 80, 81, 4_000, 8_080, 8_081] {
        for (method, inside) in [("GET", Outcome::Allow), ("DELETE", Outcome::Refuse)] {
            let query = Query {
                direction: sluice_types::Direction::Ingress,
                peer: scene.identity("pay/db"),
                protocol: Protocol::Tcp,
                port: Some(port),
            };
            let request = Request::Http(HttpRequest { method, path: "/", authority: "b", headers: &[] });
            let got = policy.judge(&query, Some(Asked { request: &request, secrets: &() })).0;
            let outside = Outcome::Deny(sluice_types::DropReason::PolicyDenied);
            let want = if (80..=8_080).contains(&port) { inside } else { outside };
            assert_eq!(got, want, "{method} {port}");
        }
    }
    for (ports, want) in [
        ("{port: 0, protocol: TCP}", "port is 0"),
        ("{port: 80, protocol: UDP}", "can only apply to TCP"),
        ("{port: 80, protocol: SCTP}", "can only apply to TCP"),
        ("{port: 80}", "can only apply to TCP"),
    ] {
        let found =
            errors(&format!("ingress: [{{toPorts: [{{ports: [{ports}], rules: {{http: [{{}}]}}}}]}}]"));
        assert!(found.iter().any(|error| error.contains(want)), "{ports}: {found:?}");
    }
}

/// Row 9: the same key twice is two policies in one, and nobody knows which is meant.
#[test]
fn a_key_that_is_written_twice_is_refused() {
    for selector in ["{matchLabels: {app: a, app: b}}", "{matchLabels: {app: a}, matchLabels: {app: b}}"] {
        let found = errors(&format!("ingress: [{{fromEndpoints: [{selector}]}}]"));
        assert_eq!(found.len(), 1, "{selector}: {found:?}");
    }
    // Two sources of one key are two conditions.
    let mut scene = scene();
    scene.cnp(
        "p",
        "{endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {'k8s:app': db, 'any:app': frontend}}]}]}",
    );
    scene.check("shop/db -> shop/backend TCP/80: default");
    scene.check("shop/frontend -> shop/backend TCP/80: default");
}

/// Row 13: methods are compared as they are sent, and a rule may not say what no method is.
#[test]
fn methods() {
    let judge = |method: &str, sent: &str| {
        let mut scene = scene();
        scene.cnp("p", &format!(
            "{{endpointSelector: {{}}, ingress: [{{toPorts: [{{ports: [{{port: 80, protocol: TCP}}], rules: {{http: [{{method: '{method}'}}]}}}}]}}]}}"
        ));
        let policy = scene.repository.resolve(scene.subject("shop/backend"));
        let query = Query {
            direction: sluice_types::Direction::Ingress,
            peer: scene.identity("pay/db"),
            protocol: Protocol::Tcp,
            port: Some(80),
        };
        let request = Request::Http(HttpRequest { method: sent, path: "/", authority: "b", headers: &[] });
        policy.judge(&query, Some(Asked { request: &request, secrets: &() })).0
    };
    for (method, sent, want) in [
        ("GET", "GET", Outcome::Allow),
        ("GET", "get", Outcome::Refuse),
        ("get", "GET", Outcome::Refuse),
        ("GET ", "GET", Outcome::Refuse),
        ("GET|POST", "POST", Outcome::Allow),
        ("GET|POST", "POSTX", Outcome::Refuse),
        (".*", "ANYTHING", Outcome::Allow),
        // Nothing written is nothing asked for.
        ("", "DELETE", Outcome::Allow),
    ] {
        assert_eq!(judge(method, sent), want, "{method:?} {sent:?}");
    }
    let found = errors(
        "ingress: [{toPorts: [{ports: [{port: 80, protocol: TCP}], rules: {http: [{method: '*'}]}}]}]",
    );
    assert!(found[0].contains("http[0].method: invalid regex"), "{found:?}");
}

/// Row 14: what patterns of names cover.
#[test]
fn patterns_of_names() {
    for (pattern, covered, others) in [
        ("*", ["a", "a.b.c"].as_slice(), [].as_slice()),
        ("**", &["a", "a.b.c"], &[]),
        ("*.", &["a", "a.b"], &[]),
        ("*.com", &["a.com", "A.COM.", "-.com"], &["com", "a.b.com", "a.org"]),
        ("**.com", &["a.com", "a.b.com"], &["com", "a.b.com.org"]),
        (
            "a*b.example.com",
            &["ab.example.com", "axxb.example.com"],
            &["a.b.example.com", "ab.example.com.evil"],
        ),
        ("API.Example.com.", &["api.example.com", "api.example.com."], &["xapi.example.com"]),
    ] {
        let selector = FqdnSelector::pattern(pattern).unwrap();
        for name in covered {
            assert!(selector.matches(name), "{pattern} {name}");
        }
        for name in others {
            assert!(!selector.matches(name), "{pattern} {name}");
        }
    }
    let long = format!("{0}.{0}.{0}.{0}", "a".repeat(63));
    for (name, refused) in [
        (long.clone(), false),
        (format!("{long}a"), true),
        (format!("{}.com", "a".repeat(64)), true),
        ("b\u{fc}cher.example".to_owned(), true),
        ("xn--bcher-kva.example".to_owned(), false),
    ] {
        let found = errors(&format!("egress: [{{toFQDNs: [{{matchName: '{name}'}}]}}]"));
        assert_eq!(!found.is_empty(), refused, "{name}: {found:?}");
    }
}

/// Row 15: a document that is too large, too deep or says one thing too often is refused as a whole.
#[test]
fn documents_without_bounds() {
    let entry = "{fromEndpoints: [{matchLabels: {app: web}}]}";
    let many = vec![entry; 300_000].join(", ");
    let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for nth in 1..9 {
        let before = vec![format!("*a{}", nth - 1); 9].join(", ");
        bomb.push_str(&format!("a{nth}: &a{nth} [{before}]\n"));
    }
    let texts = [
        policy_text(
            "CiliumNetworkPolicy",
            "shop",
            "p",
            &format!("{{endpointSelector: {{}}, ingress: [{many}]}}"),
        ),
        policy_text("CiliumNetworkPolicy", "shop", "p", &format!("{{endpointSelector: {deep}}}")),
        format!("{}{bomb}", policy_text("CiliumNetworkPolicy", "shop", "p", "{endpointSelector: {}}")),
    ];
    assert!(texts[0].len() > 10 << 20);
    for text in texts {
        let manifests = sluice_api::read_manifests(&text);
        assert!(manifests.iter().all(|manifest| manifest.content.is_err()), "{} bytes", text.len());
    }
}

/// Row 17: the last of many versions holds, whoever owns the object and whoever wants to finish it; once it is gone,
/// nothing of it is left.
#[test]
fn the_last_version_holds_and_leaves_nothing_behind() {
    let mut scene = scene();
    let known = |scene: &Scene| (scene.repository.selectors().count(), scene.repository.prefixes());
    let before = known(&scene);
    for port in 1000..1100 {
        scene.apply(&format!(
            "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: p, namespace: shop, finalizers: \
             [a.io/x], deletionTimestamp: '2026-01-01T00:00:00Z', ownerReferences: [{{kind: Pod, name: gone}}]}}, spec: \
             {{endpointSelector: {{}}, ingress: [{{fromCIDR: [192.0.2.{last}], toPorts: [{{ports: [{{port: '{port}', \
             protocol: TCP}}]}}]}}]}}}}",
            last = port % 100
        ));
    }
    scene.check(
        "192.0.2.99 -> shop/backend TCP/1099: allow
         192.0.2.98 -> shop/backend TCP/1098: default",
    );
    scene.remove(&PolicyRef::new(PolicyKind::Cnp, "shop", "p"));
    scene.check("192.0.2.98 -> shop/backend TCP/1098: allow");
    assert_eq!(known(&scene), before);
    assert_eq!(scene.repository.policies().count(), 0);
}

/// Row 20: priorities at their ends keep their order; `precedence` holds the numbers behind them.
#[test]
fn priorities_at_their_ends() {
    let policy = |priority: i64, action: &str| {
        format!(
            "{{tier: Admin, priority: {priority}, subject: {{namespaces: {{}}}}, ingress: [{{action: {action}, from: [{{namespaces: {{}}}}]}}]}}"
        )
    };
    let mut scene = scene();
    scene.kcnp("last", &policy(1_000, "Deny"));
    scene.kcnp("first", &policy(0, "Accept"));
    scene.check("pay/db -> shop/backend TCP/80: allow");
    for refused in [-1, 1_001, 65_535, 65_536, i64::from(u32::MAX), i64::MAX] {
        let found = errors_with("ClusterNetworkPolicy", &policy(refused, "Deny"), &Config::complete());
        assert_eq!(found, [format!("spec.priority: priority {refused} is not in 0 to 1000")]);
    }
}
