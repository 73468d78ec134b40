//! The examples of the founding documents: what they teach, and where they fall into the traps they warn of.

use std::{fs, path::Path};

use super::{documents, line};
use crate::{Options, lint};

/// Per file, everything but the hint that the other direction is open.
const WANT: &str = "\
allow-external-apis.yaml:17:9 hint SL002 questions may be asked over UDP only; long answers are truncated and asked for again over TCP
api-http-filter.yaml:25:13 hint SL032 `.*` means any value of X-App-Token here, and these two characters for Cilium
baseline.yaml:7:21 warning SL051 egress of every pod of the cluster is closed, kube-system and ingress among them
baseline.yaml:19:21 warning SL051 egress of every pod of the cluster is closed, kube-system and ingress among them
cde-lockdown.yaml:19:13 warning SL037 port 8443 usually carries TLS, in which no HTTP request can be read: it is refused
cde-lockdown.yaml:31:9 hint SL002 questions may be asked over UDP only; long answers are truncated and asked for again over TCP
deny-metadata-endpoint.yaml:9:5 warning SL020 egress has deny rules only, which close it: with nothing allowed, everything is denied
every-field.yaml:12:20 warning SL023 fromEndpoints is empty, which is nobody, so the rest of the rule means nothing
every-field.yaml:18:7 warning SL023 no port is named, so the element means nothing
every-field.yaml:24:20 warning SL023 fromEndpoints is empty, which is nobody, so the rest of the rule means nothing
every-field.yaml:34:17 warning SL023 toEntities is empty, which is nobody, so the rest of the rule means nothing
frontend-to-api.yaml:44:20 hint SL080 `service` is an addition of sluice
grpc-method-policy.yaml:21:23 warning SL033 a dot is any character: /inventory.InventoryService/CheckStock also matches /inventory-InventoryService/CheckStock
grpc-method-policy.yaml:23:23 warning SL033 a dot is any character: /inventory.InventoryService/ReserveStock also matches /inventory-InventoryService/ReserveStock
host-fw-control-plane.yaml:4:9 hint SL054 a mistake in a policy for nodes cuts off the node, and you with it
kafka-topic-control.yaml:20:11 warning SL039 no rule lets ApiVersions and Metadata pass, which clients send before anything else
kafka-topic-control.yaml:20:11 hint SL080 Cilium has no Kafka rules since 1.20
kafka-topic-control.yaml:31:11 warning SL039 no rule lets ApiVersions and Metadata pass, which clients send before anything else
kafka-topic-control.yaml:31:11 hint SL080 Cilium has no Kafka rules since 1.20
kafka-topic-policy.yaml:20:15 hint SL080 Cilium has no Kafka rules since 1.20
kafka-topic-policy.yaml:31:15 hint SL080 Cilium has no Kafka rules since 1.20";

#[test]
fn one_by_one() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/seeds");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).unwrap();
        let findings = lint(&documents(&name, &text), &Options::default());
        let worth = findings.iter().filter(|finding| finding.code != "SL025");
        all.extend(worth.map(|finding| format!("{name}:{}", line(finding))));
    }
    assert_eq!(all.join("\n"), WANT);
}
