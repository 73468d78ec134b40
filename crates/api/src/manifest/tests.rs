use super::*;
use crate::{CiliumNetworkPolicy, IntOrString};

fn one(text: &str) -> Manifest {
    let mut manifests = read_manifests(text);
    assert_eq!(manifests.len(), 1, "{manifests:?}");
    manifests.remove(0)
}

fn cnp(spec: &str) -> Result<Box<CiliumNetworkPolicy>, String> {
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: n}}\nspec:\n{spec}"
    );
    match one(&text).content {
        Ok(Object::CiliumNetworkPolicy(policy)) => Ok(policy),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn every_document_stands_alone() {
    let text = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
data: [{port: 80}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: broken
  namespace: shop
spec:
  endpointSelector: {}
  ingress:
  - fromEndpoint: []
---
: : [
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}, creationTimestamp: null}
";
    let read = read_manifests(text);
    assert_eq!(read.len(), 4);
    assert_eq!((read[0].kind.as_str(), &read[0].content), ("ConfigMap", &Ok(Object::Ignored)));
    assert_eq!((read[1].name.as_str(), read[1].namespace.as_deref()), ("broken", Some("shop")));
    let error = read[1].content.as_ref().unwrap_err();
    assert_eq!((error.line, error.column, error.path.as_str()), (14, 5, "spec.ingress[0]"));
    assert_eq!(error.reason, "unknown field \"fromEndpoint\"; did you mean \"fromEndpoints\"?");
    assert_eq!(read[2].content.as_ref().unwrap_err().line, 16);
    let Ok(Object::Namespace(namespace)) = &read[3].content else { panic!("{:?}", read[3]) };
    assert_eq!(namespace.metadata.labels.as_ref().unwrap()["team"], "a");
}

#[test]
fn json_and_lists_are_read() {
    let text = "{\n\t\"apiVersion\": \"v1\", \"kind\": \"List\",\n\t\"items\": [{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \
        \"metadata\": {\"name\": \"a\", \"namespace\": \"x\"}, \"spec\": {\"containers\": [{\"name\": \"c\", \
        \"image\": \"i\", \"resources\": null, \"ports\": [{\"name\": \"http\", \"containerPort\": 8080}]}]}, \
        \"status\": {\"podIP\": \"10.0.0.1\"}}]}";
    let manifest = one(text);
    let Ok(Object::Pod(pod)) = manifest.content else { panic!("{manifest:?}") };
    assert_eq!(pod.spec.containers.as_ref().unwrap()[0].ports.as_ref().unwrap()[0].container_port, 8080);
}

#[test]
fn absent_empty_and_null_lists_differ() {
    let peers =
        |text: &str| cnp(text).map(|policy| policy.spec.unwrap().ingress.unwrap().remove(0).from_endpoints);
    assert_eq!(peers("  ingress: [{}]"), Ok(None));
    assert_eq!(peers("  ingress: [{fromEndpoints: []}]"), Ok(Some(vec![])));
    let refused = peers("  ingress: [{fromEndpoints: null}]").unwrap_err();
    assert!(refused.ends_with("spec.ingress[0].fromEndpoints: must be of type array: null"), "{refused}");
    for list in
        ["ingress", "egress", "ingressDeny", "egressDeny", "labels", "endpointSelector", "enableDefaultDeny"]
    {
        let refused = cnp(&format!("  {list}:")).unwrap_err();
        assert!(refused.contains(&format!("spec.{list}: must be of type ")), "{refused}");
        assert!(refused.ends_with(": null"), "{refused}");
    }
    for field in [
        "toEndpoints",
        "toRequires",
        "toCIDR",
        "toCIDRSet",
        "toEntities",
        "toServices",
        "toFQDNs",
        "toGroups",
        "toNodes",
        "toPorts",
        "icmps",
    ] {
        let refused = cnp(&format!("  egress:\n  - {field}: ~")).unwrap_err();
        assert!(
            refused.ends_with(&format!("spec.egress[0].{field}: must be of type array: null")),
            "{refused}"
        );
    }
    let refused = cnp("  ingress:\n  -\n").unwrap_err();
    assert!(refused.ends_with("spec.ingress[0]: must be of type object: null"), "{refused}");
}

#[test]
fn the_difference_survives_a_round_trip() {
    for spec in [
        "{\"egress\":[{\"toCIDRSet\":[]}]}",
        "{\"egress\":[{}]}",
        "{\"egress\":[]}",
        "{\"endpointSelector\":{},\"egress\":[{\"toPorts\":[{}]},{\"toPorts\":[]}]}",
    ] {
        let policy = cnp(&format!("  {spec}")).unwrap();
        assert_eq!(serde_json::to_string(&policy.spec).unwrap(), spec);
    }
}

#[test]
fn slips_are_refused_with_the_field_that_was_meant() {
    let cases = [
        ("  ingres: []", "spec: unknown field \"ingres\"; did you mean \"ingress\"?"),
        (
            "  endpointselector: {}",
            "spec: unknown field \"endpointselector\"; did you mean \"endpointSelector\"?",
        ),
        ("  ingress: [{toPort: []}]", "spec.ingress[0]: unknown field \"toPort\"; did you mean \"toPorts\"?"),
        ("  egress: [{toFQDN: []}]", "spec.egress[0]: unknown field \"toFQDN\"; did you mean \"toFQDNs\"?"),
        ("  egress: [{toCidr: []}]", "spec.egress[0]: unknown field \"toCidr\"; did you mean \"toCIDR\"?"),
        (
            "  ingress: [{toPorts: [{ports: [{port: 80, proto: TCP}]}]}]",
            "spec.ingress[0].toPorts[0].ports[0]: unknown field \"proto\"; known are port, endPort, protocol",
        ),
        (
            "  ingress: [{fromEndpoints: [{matchLabel: {a: b}}]}]",
            "spec.ingress[0].fromEndpoints[0]: unknown field \"matchLabel\"; did you mean \"matchLabels\"?",
        ),
        (
            "  ingress: [{fromEndpoints: [{app: b}]}]",
            "spec.ingress[0].fromEndpoints[0]: unknown field \"app\"; known are matchLabels, matchExpressions",
        ),
        (
            "  ingress: [{fromEndpoints: [{matchLabels: {app: true}}]}]",
            "spec.ingress[0].fromEndpoints[0].matchLabels.app: must be of type string: boolean (put it in quotes)",
        ),
    ];
    for (spec, want) in cases {
        let error = cnp(spec).unwrap_err();
        assert!(error.ends_with(want), "{error}");
    }
}

#[test]
fn ports_are_numbers_or_text() {
    let port = |text: &str| {
        let policy = cnp(&format!("  ingress: [{{toPorts: [{{ports: [{{port: {text}}}]}}]}}]"))?;
        let mut rule = policy.spec.unwrap().ingress.unwrap().remove(0).to_ports.unwrap().remove(0);
        Ok::<_, String>(rule.ports.take().unwrap().remove(0).port.unwrap())
    };
    assert_eq!(port("80"), Ok(IntOrString::Int(80)));
    assert_eq!(port("\"80\""), Ok(IntOrString::String("80".to_owned())));
    assert_eq!(port("http"), Ok(IntOrString::String("http".to_owned())));
    assert_eq!(port("-1"), Ok(IntOrString::Int(-1)));
    assert!(port("80.0").is_err());
    assert!(port("[80]").is_err());
    assert!(port("null").is_err());
}

#[test]
fn what_is_no_object_is_said() {
    let cases = [
        ("just text", "line 1 column 1: the document is no object"),
        ("- a\n- b", "line 1 column 1: the document is no object"),
        ("metadata: {name: a}", "line 1 column 1: kind: the kind is required"),
        (
            "kind: CiliumNetworkPolicy\napiVersion: cilium.io/v3\nmetadata: {name: a}",
            "line 2 column 13: apiVersion: CiliumNetworkPolicy of version \"v3\" is not known; use v2",
        ),
        ("kind: Pod\napiVersion: v1", "line 1 column 1: metadata.name: a name is required"),
    ];
    for (text, want) in cases {
        assert_eq!(one(text).content.unwrap_err().to_string(), want, "{text}");
    }
    assert_eq!(one("kind: NetworkPolicy\napiVersion: crd.projectcalico.org/v1").content, Ok(Object::Ignored));
    assert!(read_manifests("# nothing\n---\n").is_empty());
}
