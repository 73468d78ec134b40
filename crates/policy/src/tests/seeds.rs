//! The examples of `docs/examples/seeds`, with verdicts written by hand.

use std::{fs, path::Path};

use sluice_types::Protocol;

use super::scene::{Scene, parse_object};
use crate::Config;

pub(super) fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/seeds").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn errors(name: &str) -> Vec<String> {
    let manifests = sluice_api::read_manifests(&text(name));
    let policies = manifests.into_iter().filter(|manifest| manifest.kind.ends_with("Policy"));
    let parsed = policies.map(|manifest| parse_object(manifest.content.unwrap(), &Config::default()).1);
    parsed.filter_map(Result::err).flatten().map(|error| error.to_string()).collect()
}

#[test]
fn ns_isolation() {
    let mut scene = Scene::new(Config::default());
    for pod in ["payments/a", "payments/b", "shop/a"] {
        scene.pod(pod, &[("app", "x")], &[]);
    }
    scene.apply(&text("ns-isolation.yaml"));
    scene.check(
        "payments/a -> payments/b TCP/80 UDP/53 ICMP/8: allow
         shop/a -> payments/b TCP/80 UDP/53 ICMP/8: default
         192.0.2.1 -> payments/b TCP/80: default
         host -> payments/b TCP/80: allow
         remote-node -> payments/b TCP/80: default
         payments/a -> shop/a TCP/80: allow
         payments/a -> 192.0.2.1 TCP/80: allow",
    );
}

#[test]
fn frontend_to_backend() {
    for (file, namespace) in [
        ("allow-frontend-to-backend.yaml", "shop"),
        ("allow-frontend-to-backend-production.yaml", "production"),
    ] {
        let mut scene = Scene::shop();
        for app in ["frontend", "backend", "db"] {
            scene.pod(&format!("production/{app}"), &[("app", app)], &[]);
        }
        scene.apply(&text(file));
        scene.check(&format!(
            "{namespace}/frontend -> {namespace}/backend TCP/8080: allow
             {namespace}/frontend -> {namespace}/backend TCP/8081 UDP/8080 ICMP/8: default
             {namespace}/db -> {namespace}/backend TCP/8080: default
             pay/frontend -> {namespace}/backend TCP/8080: default
             192.0.2.1 -> {namespace}/backend TCP/8080: default
             host -> {namespace}/backend TCP/8080: allow
             pay/db -> {namespace}/frontend TCP/80: allow
             {namespace}/backend -> pay/db TCP/80: allow"
        ));
    }
}

#[test]
fn from_monitoring() {
    let mut scene = Scene::shop();
    scene.pod("monitoring/prometheus", &[("app", "prometheus")], &[]);
    scene.pod("monitoring/other", &[("app", "other")], &[]);
    scene.pod("shop/prometheus", &[("app", "prometheus")], &[]);
    scene.apply(&text("allow-from-monitoring.yaml"));
    scene.check(
        "monitoring/prometheus -> shop/backend TCP/9090: allow
         monitoring/prometheus -> shop/backend TCP/8080: default
         monitoring/other -> shop/backend TCP/9090: default
         shop/prometheus -> shop/backend TCP/9090: default
         monitoring/prometheus -> shop/frontend TCP/8080: allow",
    );
}

#[test]
fn metadata_endpoint() {
    let mut scene = Scene::shop();
    scene.apply(&text("deny-metadata-endpoint.yaml"));
    scene.check(
        "shop/backend -> 169.254.169.254 TCP/80 UDP/53 ICMP/8: deny
         shop/backend -> 169.254.169.253 TCP/80: default
         pay/backend -> 169.254.169.254 TCP/80: allow
         pay/backend -> shop/backend TCP/80: allow",
    );
    // The deny holds whatever else is allowed.
    scene.cnp("everything", "{endpointSelector: {}, egress: [{toEntities: [all]}]}");
    scene.check(
        "shop/backend -> 169.254.169.254 TCP/80: deny
         shop/backend -> 169.254.169.253 TCP/80: allow
         shop/backend -> pay/db TCP/80: allow",
    );
}

#[test]
fn default_deny() {
    let mut scene = Scene::new(Config::default());
    for pod in ["payments/a", "payments/b", "shop/a"] {
        scene.pod(pod, &[("app", "x")], &[]);
    }
    scene.apply(&text("default-deny.yaml"));
    scene.check(
        "payments/a -> payments/b TCP/80 ICMP/8: default
         shop/a -> payments/b TCP/80: default
         payments/a -> shop/a TCP/80: default
         payments/a -> 192.0.2.1 TCP/80: default
         host -> payments/b TCP/80: allow
         payments/b -> host TCP/80: default",
    );
}

#[test]
fn cluster_only_egress() {
    let mut scene = Scene::shop();
    scene.pod("internal-tools/t", &[("app", "t")], &[]);
    scene.also("203.0.113.1/32", "reserved:kube-apiserver");
    scene.apply(&text("cluster-only-egress.yaml"));
    scene.check(
        "internal-tools/t -> shop/backend TCP/80 ICMP/8: allow
         internal-tools/t -> host TCP/80: allow
         internal-tools/t -> remote-node TCP/80: allow
         internal-tools/t -> kube-apiserver TCP/443: allow
         internal-tools/t -> 203.0.113.1 TCP/443: allow
         internal-tools/t -> 192.0.2.1 TCP/80: default
         internal-tools/t -> 2001:db8::1 TCP/80: default
         192.0.2.1 -> internal-tools/t TCP/80: allow",
    );
}

#[test]
fn dev_to_production_database() {
    let mut scene = Scene::shop();
    scene.pod("production/database", &[("app", "database"), ("env", "production")], &[]);
    scene.pod("production/app", &[("app", "app")], &[]);
    scene.pod("development/app", &[("app", "app")], &[]);
    scene.apply(&text("deny-dev-to-prod-db.yaml"));
    scene.check(
        "production/app -> production/database TCP/5432: allow
         shop/backend -> production/database TCP/5432: allow
         production/app -> production/database TCP/5433 UDP/5432 ICMP/8: default
         development/app -> production/database TCP/5432 TCP/80 ICMP/8: deny
         192.0.2.1 -> production/database TCP/5432: default
         remote-node -> production/database TCP/5432: allow
         development/app -> production/app TCP/80: allow",
    );
}

#[test]
fn baseline() {
    let mut scene = Scene::shop();
    scene.also("203.0.113.1/32", "reserved:kube-apiserver");
    scene.apply(&text("baseline.yaml"));
    scene.check(
        "shop/backend -> 192.0.2.1 TCP/443 ICMP/8: deny
         pay/db -> 2001:db8::1 TCP/443: deny
         shop/backend -> kube-apiserver TCP/443: allow
         shop/backend -> kube-apiserver TCP/80: default
         shop/backend -> 203.0.113.1 TCP/443: deny
         shop/backend -> pay/db TCP/443: default
         192.0.2.1 -> shop/backend TCP/80: allow",
    );
}

#[test]
fn every_field() {
    let mut scene = Scene::shop();
    scene.pod("production/a", &[("app", "a")], &[("http", Protocol::Tcp, 80)]);
    scene.apply(&text("every-field.yaml"));
    scene.check(
        "shop/backend -> production/a TCP/80 ICMP/8: default
         production/a -> shop/backend TCP/80: default
         production/a -> 192.0.2.1 TCP/80: default
         host -> production/a TCP/80: allow",
    );
}

#[test]
fn what_is_still_to_come_is_refused_by_its_name() {
    let later = "not supported yet by this version";
    let cases = [
        ("api-l7-allow.yaml", vec!["spec.ingress[0].toPorts[0].rules.http"]),
        ("api-http-filter.yaml", vec!["spec.ingress[0].toPorts[0].rules.http"]),
        ("grpc-method-policy.yaml", vec!["spec.ingress[0].toPorts[0].rules.http"]),
        (
            "kafka-topic-policy.yaml",
            vec!["spec.ingress[0].toPorts[0].rules.kafka", "spec.ingress[1].toPorts[0].rules.kafka"],
        ),
        (
            "kafka-topic-control.yaml",
            vec!["spec.ingress[0].toPorts[0].rules.kafka", "spec.ingress[1].toPorts[0].rules.kafka"],
        ),
        ("allow-external-apis.yaml", vec!["spec.egress[0].toPorts[0].rules.dns", "spec.egress[1].toFQDNs"]),
        ("allow-s3-egress.yaml", vec!["spec.egress[0].toPorts[0].rules.dns", "spec.egress[1].toFQDNs"]),
        ("host-fw-control-plane.yaml", vec!["spec.nodeSelector"]),
        (
            "cde-lockdown.yaml",
            vec![
                "spec.ingress[0].toPorts[0].rules.http",
                "spec.egress[0].toPorts[0].rules.dns",
                "spec.egress[2].toFQDNs",
            ],
        ),
    ];
    for (file, paths) in cases {
        let want: Vec<String> = paths.iter().map(|path| format!("{path}: {later}")).collect();
        assert_eq!(errors(file), want, "{file}");
    }
}
