use super::*;
use crate::read_manifests;

const TEXT: &str = "\
# The second document is meant.
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: a, namespace: n}
spec:
  endpointSelector:
    matchLabels:
      app.kubernetes.io/name: web
      k8s:app: web
      app: short
  ingress:
  - fromEndpoints: []
  - fromEndpoints:
    - {}
    - matchExpressions: [{key: a, operator: Exists}, {key: b, operator: In, values: [x, y]}]
    toPorts:
    - ports:
      - port: \"80\"
";

fn at(line: u32, column: u32) -> Place {
    Place { line, column }
}

#[test]
fn paths_lead_to_the_value() {
    let manifest = &read_manifests(TEXT)[0];
    let cases = [
        ("", at(3, 1)),
        ("kind", at(4, 7)),
        ("metadata.namespace", at(5, 32)),
        ("spec", at(7, 3)),
        // A list in block style begins with its first element, not with the dash.
        ("spec.ingress", at(13, 5)),
        ("spec.ingress[1]", at(14, 5)),
        ("spec.ingress[1].fromEndpoints[0]", at(15, 7)),
        ("spec.ingress[1].fromEndpoints[1].matchExpressions[1].values[1]", at(16, 89)),
        ("spec.ingress[1].toPorts[0].ports[0].port", at(19, 15)),
        // Keys with dots, with and without brackets; the short key `app` is not taken for the long one.
        ("spec.endpointSelector.matchLabels[app.kubernetes.io/name]", at(9, 31)),
        ("spec.endpointSelector.matchLabels.app.kubernetes.io/name", at(9, 31)),
        ("spec.endpointSelector.matchLabels[k8s:app]", at(10, 16)),
        ("spec.endpointSelector.matchLabels.app", at(11, 12)),
    ];
    for (path, want) in cases {
        assert_eq!(manifest.place(path), want, "{path}");
    }
}

#[test]
fn a_path_that_leads_nowhere_ends_at_what_exists() {
    let manifest = &read_manifests(TEXT)[0];
    let cases = [
        ("nothing", ""),
        ("specs", ""),
        ("[0]", ""),
        ("spec[0]", "spec"),
        ("spec.egress[3].toPorts", "spec"),
        ("spec.ingress[2]", "spec.ingress"),
        ("spec.ingress[-1]", "spec.ingress"),
        ("spec.ingress[x", "spec.ingress"),
        ("spec.ingress.fromEndpoints", "spec.ingress"),
        ("spec.ingress[0].fromEndpoints[0].matchLabels", "spec.ingress[0].fromEndpoints"),
        ("spec.ingress[1].toPorts[0].ports[0].port.more", "spec.ingress[1].toPorts[0].ports[0].port"),
        ("spec.endpointSelector.matchLabels.ap", "spec.endpointSelector.matchLabels"),
    ];
    for (path, want) in cases {
        assert_eq!(manifest.place(path), manifest.place(want), "{path}");
    }
}

#[test]
fn the_places_of_errors_are_those_of_their_paths() {
    for (from, to) in
        [("port: \"80\"", "port: [80]"), ("[x, y]", "[x, 1]"), ("k8s:app: web", "k8s:app: true")]
    {
        let manifest = read_manifests(&TEXT.replace(from, to)).remove(0);
        let error = manifest.content.as_ref().unwrap_err();
        assert_eq!(manifest.place(&error.path), at(error.line, error.column), "{error}");
    }
}

#[test]
fn a_list_gives_each_of_its_items_its_own_places() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n- apiVersion: v1\n  kind: \
        Pod\n  metadata: {name: b}\n";
    let manifests = read_manifests(text);
    assert_eq!(manifests[0].place("metadata.name"), at(4, 48));
    assert_eq!(manifests[1].place("metadata.name"), at(7, 20));
}

#[test]
fn a_document_that_cannot_be_read_has_its_start() {
    let manifest = &read_manifests("---\na: [\n")[0];
    assert!(manifest.content.is_err());
    assert_eq!(manifest.place("spec.ingress"), at(manifest.line, 1));
}
