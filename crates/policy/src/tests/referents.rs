//! Rules that refer to Services, groups of prefixes, nodes and names: whom they stand for follows the objects.

use std::net::IpAddr;

use sluice_types::{Direction, Identity, Labels, Protocol};

use super::{
    scene::{Scene, errors, labels},
    seeds,
};
use crate::{
    Config, Query, Service,
    selector::{LabelKey, LabelSelector, Requirement},
};

const TCP: Protocol = Protocol::Tcp;

fn scene() -> Scene {
    Scene::shop_with(Config::complete())
}

/// A Service whose pods are selected by `app`.
fn of_app(app: &str) -> Service {
    let wanted = Requirement::equals(LabelKey::parse("k8s:app"), app);
    Service { selector: Some(LabelSelector::from_iter([wanted])), ..Service::default() }
}

fn with_address(address: &str) -> Service {
    Service { cluster_ips: vec![address.parse::<IpAddr>().unwrap()], ..Service::default() }
}

/// `frontend-to-api.yaml` as written, but for the pods of the cluster, which its second entry lets in on every port.
#[test]
fn frontend_to_api() {
    let mut scene = Scene::new(Config::complete());
    for app in ["frontend", "api", "other"] {
        scene.pod(&format!("default/{app}"), &[("app", app)], &[]);
    }
    scene.apply(&seeds::text("frontend-to-api.yaml"));
    scene.check(
        "default/other -> default/api TCP/9: allow
         192.0.2.1 -> default/api TCP/8080: default",
    );
    let first =
        |scene: &Scene| scene.decided_by("default/api", Direction::Ingress, "default/frontend", "TCP/8080");
    assert_eq!(first(&scene), "cnp/default/frontend-to-api ingress[1]", "nobody knows the Service");
    scene.service("default/api", of_app("api"), &[("", TCP, 8080, 8080)], &["default/api"]);
    assert_eq!(first(&scene), "cnp/default/frontend-to-api ingress[0]");
}

const INGRESS: &str = "{endpointSelector: {matchLabels: {app: backend}}, ingress: [
    {fromEndpoints: [{matchLabels: {app: frontend}}], toPorts: [{ports: [{port: 80, protocol: TCP}], service: api}]}]}";

#[test]
fn a_subject_behind_a_service() {
    let mut scene = scene();
    scene.cnp("p", INGRESS);
    let closed = "shop/frontend -> shop/backend TCP/80 TCP/8080: default";
    scene.check(closed);
    assert_eq!(scene.unresolved(), ["cnp/shop/p ingress[0]: there is no Service shop/api"]);

    scene.service("shop/api", Service::default(), &[("web", TCP, 80, 8080)], &[]);
    scene.check(closed);
    assert_eq!(scene.unresolved(), ["cnp/shop/p ingress[0]: the Service shop/api has no backends"]);

    // Of another namespace, or another pod's: the same as none.
    scene.service("pay/api", Service::default(), &[("web", TCP, 80, 8080)], &["shop/backend"]);
    scene.service("shop/api", Service::default(), &[("web", TCP, 80, 8080)], &["shop/db"]);
    scene.check(closed);

    // The Service's own port leads to 8080, and nothing else of the pod is open.
    scene.service(
        "shop/api",
        Service::default(),
        &[("web", TCP, 80, 8080), ("m", TCP, 90, 9090)],
        &["shop/backend"],
    );
    scene.check(
        "shop/frontend -> shop/backend TCP/8080: allow
         shop/frontend -> shop/backend TCP/80 TCP/90 TCP/9090 UDP/8080: default
         shop/db -> shop/backend TCP/8080: default",
    );
    assert!(scene.unresolved().is_empty());

    // It leads elsewhere now, and then nowhere.
    scene.service("shop/api", Service::default(), &[("web", TCP, 80, 8081)], &["shop/backend", "shop/db"]);
    scene.check(
        "shop/frontend -> shop/backend TCP/8081: allow
         shop/frontend -> shop/backend TCP/8080: default",
    );
    scene.remove_service("shop/api");
    scene.check("shop/frontend -> shop/backend TCP/8081 TCP/8080: default");
    assert_eq!(scene.unresolved(), ["cnp/shop/p ingress[0]: there is no Service shop/api"]);
}

#[test]
fn which_port_of_a_service_is_meant() {
    let cases = [
        ("the number after translation", "{port: 8080, protocol: TCP}", true),
        ("the Service's own number", "{port: 80, protocol: TCP}", true),
        ("the name in the Service", "{port: web, protocol: TCP}", true),
        ("the name that the pod gives", "{port: http, protocol: TCP}", true),
        ("a name of another port", "{port: metrics, protocol: TCP}", false),
        ("every protocol", "{port: 80}", true),
        ("a range", "{port: 8000, endPort: 8100}", true),
        ("every port", "{port: 0}", true),
        ("another protocol", "{port: 8080, protocol: UDP}", false),
        ("another number", "{port: 81, protocol: TCP}", false),
    ];
    for (name, port, allowed) in cases {
        let mut scene = scene();
        scene.pod("shop/backend", &[("app", "backend")], &[("http", TCP, 8080), ("metrics", TCP, 9090)]);
        scene.service("shop/api", with_address("10.96.0.1"), &[("web", TCP, 80, 8080)], &["shop/backend"]);
        let want = if allowed { "allow" } else { "default" };
        scene.cnp("in", &format!(
            "{{endpointSelector: {{matchLabels: {{app: backend}}}}, ingress: [{{toPorts: [{{ports: [{port}], service: api}}]}}]}}"
        ));
        scene.check(&format!(
            "shop/db -> shop/backend TCP/8080: {want}
             shop/db -> shop/backend TCP/80 TCP/8081: default"
        ));
        scene.cnp("out", &format!(
            "{{endpointSelector: {{matchLabels: {{app: db}}}}, egress: [{{toPorts: [{{ports: [{port}], service: api}}]}}]}}"
        ));
        scene.check(&format!(
            "shop/db -> shop/backend TCP/8080: {want}
             shop/db -> 10.96.0.1 TCP/80: {want}
             shop/db -> 10.96.0.1 TCP/8080: default
             shop/db -> 10.96.0.2 TCP/80: default"
        ));
        assert_eq!(
            scene.decided_by("shop/db", Direction::Egress, "10.96.0.1", "TCP/80") != "nobody",
            allowed,
            "{name}"
        );
    }
}

const EGRESS: &str = "{endpointSelector: {matchLabels: {app: frontend}}, egress: [
    {toEndpoints: [{matchLabels: {app: backend}}], toPorts: [{ports: [{port: 80, protocol: TCP}], service: api}]}]}";

#[test]
fn a_peer_behind_a_service() {
    let mut scene = scene();
    scene.cnp("p", EGRESS);
    scene.check("shop/frontend -> shop/backend TCP/80 TCP/8080: default");
    scene.service("shop/api", with_address("10.96.0.1"), &[("", TCP, 80, 8080)], &["shop/backend"]);
    scene.check(
        "shop/frontend -> shop/backend TCP/8080: allow
         shop/frontend -> shop/backend TCP/80: default
         shop/frontend -> pay/backend TCP/8080: default
         shop/frontend -> 10.96.0.1 TCP/80: allow
         shop/frontend -> 10.96.0.1 TCP/8080: default",
    );
    // Where the Service leads is not known before translation: what is behind it must be meant altogether.
    scene.service(
        "shop/api",
        with_address("10.96.0.1"),
        &[("", TCP, 80, 8080)],
        &["shop/backend", "shop/db"],
    );
    scene.check(
        "shop/frontend -> shop/backend TCP/8080: allow
         shop/frontend -> shop/db TCP/8080: default
         shop/frontend -> 10.96.0.1 TCP/80: default",
    );
    scene.cnp("p", &EGRESS.replace("toEndpoints: [{matchLabels: {app: backend}}], ", ""));
    scene.check(
        "shop/frontend -> shop/db TCP/8080: allow
         shop/frontend -> 10.96.0.1 TCP/80: allow",
    );
}

#[test]
fn a_service_with_addresses_outside() {
    let mut scene = scene();
    scene.cnp("p", &EGRESS.replace("toEndpoints: [{matchLabels: {app: backend}}], ", ""));
    scene.service("shop/api", Service::default(), &[("", TCP, 80, 8080)], &["203.0.113.7"]);
    scene.check(
        "shop/frontend -> 203.0.113.7 TCP/8080: allow
         shop/frontend -> 203.0.113.7 TCP/80: default
         shop/frontend -> 203.0.113.8 TCP/8080: default",
    );
    scene.service("shop/api", Service::default(), &[("", TCP, 80, 8080)], &["203.0.113.8"]);
    scene.check(
        "shop/frontend -> 203.0.113.8 TCP/8080: allow
         shop/frontend -> 203.0.113.7 TCP/8080: default",
    );
}

/// A denial says whether it is the Service or the port that is not met.
#[test]
fn what_stood_in_the_way() {
    let mut scene = scene();
    scene.cnp("p", INGRESS);
    scene.cnp("q", EGRESS);
    let why = |scene: &Scene, subject: &str, direction, peer: &str, port| {
        let policy = scene.repository.resolve(scene.subject(subject));
        let query = Query { direction, peer: scene.identity(peer), protocol: TCP, port: Some(port) };
        let found = scene.repository.explain(scene.subject(subject), &policy, &query, None);
        let nearest =
            found.nearest.first().map(|miss| miss.obstacles.iter().map(ToString::to_string).collect());
        nearest.map_or_else(|| "allowed".to_owned(), |list: Vec<String>| list.join("; "))
    };
    let cases = |scene: &Scene, port| {
        [
            why(scene, "shop/backend", Direction::Ingress, "shop/frontend", port),
            why(scene, "shop/frontend", Direction::Egress, "shop/backend", port),
        ]
    };
    let service = "the destination is not behind the Service shop/api";
    assert_eq!(cases(&scene, 80), [service, service]);
    scene.service("shop/api", Service::default(), &[("", TCP, 80, 8080)], &["shop/db"]);
    assert_eq!(cases(&scene, 8080), [service, service]);
    scene.service("shop/api", Service::default(), &[("", TCP, 80, 8080)], &["shop/backend"]);
    assert_eq!(cases(&scene, 8080), ["allowed", "allowed"]);
    assert_eq!(cases(&scene, 80), ["it is for 80/TCP", "it is for 80/TCP"]);
}

#[test]
fn what_is_denied_behind_a_service() {
    let mut scene = scene();
    scene.cnp(
        "p",
        "{endpointSelector: {}, enableDefaultDeny: {ingress: false, egress: false},
          ingressDeny: [{toPorts: [{ports: [{port: 80, protocol: TCP}], service: api}]}],
          egressDeny: [{toEndpoints: [{matchLabels: {app: db}}], toPorts: [{ports: [{port: 443, protocol: TCP}], service: db}]}]}",
    );
    scene.check("pay/db -> shop/backend TCP/8080: allow");
    scene.service("shop/api", Service::default(), &[("", TCP, 80, 8080)], &["shop/backend"]);
    scene.service(
        "shop/db",
        with_address("10.96.0.2"),
        &[("", TCP, 443, 5432)],
        &["shop/db", "shop/backend"],
    );
    scene.check(
        "pay/db -> shop/backend TCP/8080: deny
         pay/db -> shop/backend TCP/80: allow
         pay/db -> shop/frontend TCP/8080: allow
         shop/frontend -> shop/db TCP/5432: deny
         shop/frontend -> shop/backend TCP/5432: allow
         shop/frontend -> 10.96.0.2 TCP/443: deny
         shop/frontend -> 10.96.0.2 TCP/5432: allow",
    );
}

#[test]
fn services_by_name_and_labels_in_any_namespace() {
    let by = |services: &str, ports: &str| {
        format!(
            "{{endpointSelector: {{matchLabels: {{app: frontend}}}}, egress: [{{toServices: [{services}]{ports}}}]}}"
        )
    };
    let ports = ", toPorts: [{ports: [{port: 8080, protocol: TCP}]}]";
    let labelled =
        |value: &str| Service { labels: labels(&[&format!("k8s:team={value}")]), ..of_app("backend") };
    let cases = [
        ("name", "{k8sService: {serviceName: api, namespace: shop}}", "", [true, false], [true, true]),
        (
            "name with ports",
            "{k8sService: {serviceName: api, namespace: shop}}",
            ports,
            [true, false],
            [true, false],
        ),
        ("name in any namespace", "{k8sService: {serviceName: api}}", "", [true, true], [true, true]),
        (
            "labels",
            "{k8sServiceSelector: {selector: {matchLabels: {team: a}}, namespace: pay}}",
            "",
            [false, false],
            [false, false],
        ),
        (
            "labels in any namespace",
            "{k8sServiceSelector: {selector: {matchLabels: {team: a}}}}",
            "",
            [true, false],
            [true, true],
        ),
        (
            "of both the labels count",
            "{k8sService: {serviceName: api}, k8sServiceSelector: {selector: {matchLabels: {team: b}}}}",
            "",
            [false, true],
            [false, false],
        ),
        (
            "nobody",
            "{k8sService: {serviceName: api, namespace: nowhere}}",
            ports,
            [false, false],
            [false, false],
        ),
    ];
    for (name, services, ports, [shop, pay], [on_8080, on_81]) in cases {
        let mut scene = scene();
        scene.cnp("p", &by(services, ports));
        scene.check("shop/frontend -> shop/backend TCP/8080: default");
        scene.service("shop/api", labelled("a"), &[("", TCP, 80, 8080)], &["shop/backend"]);
        scene.service("pay/api", labelled("b"), &[("", TCP, 80, 8080)], &["pay/backend"]);
        let sent = |to: &str, traffic: &str| {
            scene.decide("shop/frontend", Direction::Egress, to, traffic).verdict
                == sluice_types::Verdict::Allow
        };
        assert_eq!(
            [sent("shop/backend", "TCP/8080"), sent("pay/backend", "TCP/8080")],
            [shop, pay],
            "{name}"
        );
        assert_eq!(
            [sent("shop/backend", "TCP/8080"), sent("shop/backend", "TCP/81")],
            [on_8080, on_81],
            "{name}"
        );
        assert!(!sent("shop/db", "TCP/8080"), "{name}");
        assert_eq!(scene.unresolved().is_empty(), shop || pay, "{name}: {:?}", scene.unresolved());
    }
}

#[test]
fn a_service_without_selector_never_means_pods() {
    let mut scene = scene();
    scene.cnp(
        "p",
        "{endpointSelector: {matchLabels: {app: frontend}}, egress: [{toServices: [{k8sService: {serviceName: db}}]}]}",
    );
    scene.service("shop/db", Service::default(), &[("", TCP, 5432, 5432)], &["203.0.113.7", "shop/backend"]);
    scene.check(
        "shop/frontend -> 203.0.113.7 TCP/5432 TCP/1 ICMP/8: allow
         shop/frontend -> 203.0.113.8 TCP/5432: default
         shop/frontend -> shop/backend TCP/5432: default",
    );
    // With one, it is the pods that it selects, wherever its addresses are.
    scene.service("shop/db", of_app("db"), &[("", TCP, 5432, 5432)], &["203.0.113.7"]);
    scene.check(
        "shop/frontend -> shop/db TCP/5432: allow
         shop/frontend -> pay/db TCP/5432: default
         shop/frontend -> 203.0.113.7 TCP/5432: default",
    );
}

#[test]
fn services_are_denied_like_they_are_allowed() {
    let mut scene = scene();
    scene.cnp("all", "{endpointSelector: {}, egress: [{toEntities: [all]}]}");
    scene.cnp(
        "p",
        "{endpointSelector: {}, egressDeny: [{toServices: [{k8sService: {serviceName: api, namespace: pay}}],
            toPorts: [{ports: [{port: 8080, protocol: TCP}]}]}]}",
    );
    scene.check("shop/frontend -> pay/backend TCP/8080: allow");
    scene.service("pay/api", of_app("backend"), &[("", TCP, 80, 8080)], &["pay/backend"]);
    scene.check(
        "shop/frontend -> pay/backend TCP/8080: deny
         shop/frontend -> pay/backend TCP/8081: allow
         shop/frontend -> shop/backend TCP/8080: allow
         shop/frontend -> pay/db TCP/8080: allow",
    );
}

#[test]
fn groups_of_prefixes() {
    let ways = [
        ("by name", "{cidrGroupRef: office}"),
        ("by labels", "{cidrGroupSelector: {matchLabels: {kind: office}}}"),
    ];
    for (name, way) in ways {
        let mut scene = scene();
        scene.cnp("p", &format!("{{endpointSelector: {{}}, ingress: [{{fromCIDRSet: [{way}]}}]}}"));
        scene.check("198.51.100.1 -> shop/backend TCP/80: default");
        assert_eq!(scene.unresolved().len(), 1, "{name}");
        scene.group("office", &["k8s:kind=office"], &["198.51.100.0/24", "2001:db8::/32"]);
        scene.group("home", &["k8s:kind=home"], &["203.0.113.0/24"]);
        assert!(scene.unresolved().is_empty(), "{name}");
        scene.check(
            "198.51.100.1 -> shop/backend TCP/80 ICMP/8: allow
             2001:db8::1 -> shop/backend TCP/80: allow
             203.0.113.1 -> shop/backend TCP/80: default
             shop/db -> shop/backend TCP/80: default",
        );
        scene.group("office", &["k8s:kind=office"], &["198.51.100.128/25"]);
        scene.check(
            "198.51.100.1 -> shop/backend TCP/80: default
             198.51.100.129 -> shop/backend TCP/80: allow
             2001:db8::1 -> shop/backend TCP/80: default",
        );
        scene.remove_group("office");
        scene.check("198.51.100.129 -> shop/backend TCP/80: default");
        assert_eq!(scene.unresolved().len(), 1, "{name}");
    }
}

#[test]
fn groups_with_holes_and_groups_that_are_denied() {
    let mut scene = scene();
    scene.cnp(
        "p",
        "{endpointSelector: {}, egress: [{toCIDRSet: [{cidrGroupRef: wide, except: [10.1.0.0/16]}]}],
          egressDeny: [{toCIDRSet: [{cidrGroupSelector: {matchExpressions: [{key: evil, operator: Exists}]}}]}]}",
    );
    scene.group("wide", &[], &["10.0.0.0/8", "10.1.1.0/24", "192.0.2.0/24"]);
    scene.check(
        "shop/db -> 10.2.0.1 TCP/80: allow
         shop/db -> 192.0.2.1 TCP/80: allow
         shop/db -> 10.1.0.1 TCP/80: default
         shop/db -> 10.1.1.1 TCP/80: default",
    );
    scene.group("evil", &["k8s:evil=yes"], &["10.2.0.0/16"]);
    scene.check("shop/db -> 10.2.0.1 TCP/80: deny");
    scene.group("evil", &[], &["10.2.0.0/16"]);
    scene.check("shop/db -> 10.2.0.1 TCP/80: allow");
}

#[test]
fn nodes_by_their_labels() {
    let mut scene = scene();
    scene.relabel(Identity::REMOTE_NODE, &["node:zone=a"]);
    scene.relabel(Identity::HOST, &["node:zone=a"]);
    let edge: Labels = labels(&["reserved:remote-node", "node:zone=b", "node:kubernetes.io/os=linux"]);
    scene.endpoint("edge", edge, &[]);
    scene.cnp(
        "p",
        "{endpointSelector: {}, ingress: [{fromNodes: [{matchLabels: {zone: b}}]}],
          egress: [{toNodes: [{matchLabels: {kubernetes.io/os: linux}}, {matchLabels: {'node:zone': a}}],
              toPorts: [{ports: [{port: 10250, protocol: TCP}]}]}]}",
    );
    let sent = |direction, peer: &str, traffic: &str| {
        scene.decide("shop/backend", direction, peer, traffic).verdict == sluice_types::Verdict::Allow
    };
    for (direction, peer, traffic, want) in [
        (Direction::Ingress, "edge", "TCP/80", true),
        (Direction::Ingress, "remote-node", "TCP/80", false),
        (Direction::Ingress, "shop/db", "TCP/80", false),
        (Direction::Egress, "edge", "TCP/10250", true),
        (Direction::Egress, "edge", "TCP/80", false),
        (Direction::Egress, "remote-node", "TCP/10250", true),
        // The local node is no other node, whatever its labels are.
        (Direction::Egress, "host", "TCP/10250", false),
    ] {
        assert_eq!(sent(direction, peer, traffic), want, "{direction} {peer} {traffic}");
    }
}

#[test]
fn the_node_itself_as_subject() {
    let mut scene = scene();
    scene.endpoint("node", labels(&["reserved:host", "node:role=worker"]), &[]);
    scene.ccnp(
        "p",
        "{nodeSelector: {matchLabels: {role: worker}}, ingress: [{fromEntities: [remote-node]},
            {toPorts: [{ports: [{port: 22, protocol: TCP}]}]}]}",
    );
    scene.ccnp(
        "other",
        "{nodeSelector: {matchLabels: {role: control-plane}}, ingressDeny: [{fromEntities: [all]}]}",
    );
    scene.ccnp("pods", "{endpointSelector: {}, ingressDeny: [{fromEntities: [remote-node]}]}");
    scene.check(
        "remote-node -> node TCP/10250: allow
         192.0.2.1 -> node TCP/22: allow
         192.0.2.1 -> node TCP/80: default
         shop/db -> node TCP/80: default
         remote-node -> shop/db TCP/80: deny",
    );
}

#[test]
fn peers_by_name() {
    let mut scene = scene();
    scene.also("203.0.113.5/32", "fqdn:api.example.com");
    scene.also("203.0.113.6/32", "fqdn:*.example.com");
    scene.cnp(
        "p",
        "{endpointSelector: {}, egress: [{toFQDNs: [{matchName: api.example.com}], toPorts: [{ports: [{port: 443}]}]},
            {toFQDNs: []}]}",
    );
    scene.check(
        "shop/db -> 203.0.113.5 TCP/443: allow
         shop/db -> 203.0.113.5 TCP/80: default
         shop/db -> 203.0.113.6 TCP/443: default
         shop/db -> 203.0.113.7 TCP/443: default
         shop/db -> pay/db TCP/443: default",
    );
    // A denied prefix stays denied under every name.
    scene.cnp("q", "{endpointSelector: {}, egressDeny: [{toCIDR: [203.0.113.0/24]}]}");
    scene.check("shop/db -> 203.0.113.5 TCP/443: deny");
}

#[test]
fn what_is_refused() {
    let cases = [
        (
            "ingress: [{toPorts: [{ports: [{port: 80}], service: 'A/b'}]}]",
            "toPorts[0].service: \"A/b\" is no Service",
        ),
        ("ingress: [{toPorts: [{ports: [{port: 80}], service: a/b/c}]}]", "is no Service"),
        ("ingress: [{toPorts: [{ports: [{port: 80}], service: ''}]}]", "is no Service"),
        (
            "egress: [{toServices: [{}]}]",
            "toServices[0]: one of k8sService or k8sServiceSelector is required",
        ),
        ("egress: [{toServices: [{k8sService: {}}]}]", "toServices[0].k8sService.serviceName: is required"),
        ("egress: [{toServices: [{k8sService: {serviceName: a}}], toEntities: [all]}]", "combining"),
        ("egress: [{toCIDRSet: [{cidrGroupRef: a, cidr: 10.0.0.0/8}]}]", "more than one of cidr"),
        ("egress: [{toCIDRSet: [{cidrGroupRef: ''}]}]", "toCIDRSet[0].cidrGroupRef: is required"),
        (
            "egress: [{toCIDRSet: [{except: [10.0.0.0/8]}]}]",
            "one of cidr, cidrGroupRef, or cidrGroupSelector",
        ),
        ("egress: [{toNodes: [{}]}]", "needs the option enable-node-selector-labels"),
        ("ingress: [{fromNodes: [{}]}]", "needs the option enable-node-selector-labels"),
    ];
    for (list, want) in cases {
        let found = errors("CiliumNetworkPolicy", &format!("{{endpointSelector: {{}}, {list}}}"));
        assert!(found.iter().any(|error| error.contains(want)), "{list}\n{found:?}");
    }
    let clusterwide = "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: 80}], service: api}]}]}";
    let found = errors("CiliumClusterwideNetworkPolicy", clusterwide);
    assert!(found[0].contains("needs a namespace here: write NAMESPACE/api"), "{found:?}");
}
