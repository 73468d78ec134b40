use std::{collections::BTreeSet, fs, path::Path};

use super::*;
use crate::{document, read_manifests};

fn judge(document: &Value) -> Result<(), String> {
    let text = |key: &str| document[key].as_str().unwrap_or_default();
    let group = text("apiVersion").rsplit_once('/').map_or("", |(group, _)| group);
    let kind = Kind::find(group, text("kind")).ok_or_else(|| format!("no schema for {document}"))?;
    judge_as(kind, document)
}

fn judge_as(kind: Kind, document: &Value) -> Result<(), String> {
    let schema = jsonschema::validator_for(&json_schema(kind)).unwrap();
    let errors: Vec<String> =
        schema.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors.join("\n")) }
}

fn documents(text: &str) -> Vec<Value> {
    document::split(text).into_iter().map(|chunk| document::read(chunk).unwrap().to_json()).collect()
}

fn one(text: &str) -> Value {
    documents(text).remove(0)
}

fn cilium(spec: &str) -> String {
    format!("{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: a}}, spec: {spec}}}")
}

fn ingress(entry: &str) -> String {
    cilium(&format!("{{endpointSelector: {{}}, ingress: [{entry}]}}"))
}

fn egress(entry: &str) -> String {
    cilium(&format!("{{endpointSelector: {{}}, egress: [{entry}]}}"))
}

fn to_ports(rule: &str) -> String {
    ingress(&format!("{{toPorts: [{rule}]}}"))
}

fn requests(rules: &str) -> String {
    to_ports(&format!("{{ports: [{{port: 80}}], rules: {{{rules}}}}}"))
}

fn kubernetes(spec: &str) -> String {
    format!("{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: a}}, spec: {spec}}}")
}

fn admin(tier: &str, priority: i64, action: &str, peer: &str) -> String {
    format!(
        "{{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {{name: a}}, spec: \
         {{tier: {tier}, priority: {priority}, subject: {{namespaces: {{}}}}, egress: [{{action: {action}, to: \
         [{peer}]}}]}}}}"
    )
}

fn core(kind: &str, rest: &str) -> String {
    format!("{{apiVersion: v1, kind: {kind}, metadata: {{name: a}}, {rest}}}")
}

#[test]
fn schemas_are_schemas() {
    for kind in KINDS {
        let schema = json_schema(*kind);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!((&schema["title"], &schema["type"]), (&kind.name().into(), &"object".into()));
        jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        // This also finds references that lead nowhere.
        jsonschema::draft202012::new(&schema).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    }
}

#[test]
fn fields_are_described() {
    fn describe(name: &str, schema: &Value, missing: &mut Vec<String>) {
        for (field, value) in schema["properties"].as_object().into_iter().flatten() {
            if value.get("description").is_none() {
                missing.push(format!("{name}.{field}"));
            }
        }
    }
    let mut missing = Vec::new();
    for kind in KINDS {
        let schema = json_schema(*kind);
        describe(kind.name(), &schema, &mut missing);
        for (name, definition) in schema["$defs"].as_object().unwrap() {
            describe(name, definition, &mut missing);
        }
    }
    // Every object has these two; their words say it all.
    missing.retain(|field| !field.ends_with(".apiVersion") && !field.ends_with(".kind"));
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn limits_lead_somewhere() {
    let limits: Value = serde_json::from_str(LIMITS).unwrap();
    let mut types = BTreeSet::new();
    let mut texts = String::new();
    for kind in KINDS {
        let root = kind.shape(SchemaGenerator::new(SchemaSettings::draft2020_12())).to_value();
        types.insert(root["title"].as_str().unwrap().to_owned());
        types.extend(root["$defs"].as_object().unwrap().keys().cloned());
        let whole = json_schema(*kind);
        check_fields(&root["title"], &root, &limits);
        root["$defs"]
            .as_object()
            .unwrap()
            .iter()
            .for_each(|(name, own)| check_fields(&json!(name), own, &limits));
        texts += &whole.to_string();
    }
    for name in limits["types"].as_object().unwrap().keys() {
        assert!(types.contains(name), "no kind has the type {name}");
    }
    for name in limits["words"].as_object().unwrap().keys() {
        assert!(texts.contains(&format!("\"#/$defs/{name}\"")), "nobody uses the word {name}");
        assert!(!types.contains(name), "{name} is a type");
    }
}

/// Whether every field that a type's limits speak of is one of the type's.
fn check_fields(name: &Value, shape: &Value, limits: &Value) {
    let limits = &limits["types"][name.as_str().unwrap()];
    let required = limits["required"].as_array().into_iter().flatten().map(|field| field.as_str().unwrap());
    let limited = limits["properties"].as_object().into_iter().flatten().map(|(field, _)| field.as_str());
    for field in limited.chain(required) {
        assert!(shape["properties"].get(field).is_some(), "{name} has no {field}");
    }
}

#[test]
fn examples_are_valid() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/seeds");
    let mut judged = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        for document in documents(&fs::read_to_string(&path).unwrap()) {
            judge(&document).unwrap_or_else(|errors| panic!("{}: {errors}", path.display()));
            judged += 1;
        }
    }
    assert!(judged >= 20, "only {judged} documents");
}

/// What is right, and documents that differ from it by one slip each. The right one shows that the slip is the reason.
fn slips_are_refused(cases: Vec<(String, Vec<String>)>) {
    for (right, wrong) in cases {
        assert_eq!(judge(&one(&right)), Ok(()), "{right}");
        for wrong in wrong {
            assert!(judge(&one(&wrong)).is_err(), "the schema accepts {wrong}");
        }
    }
}

#[test]
fn slips_in_rules_are_refused() {
    slips_are_refused(vec![
        (
            cilium("{endpointSelector: {}, ingress: [{}]}"),
            vec![
                cilium("{endpointSelector: {}, ingres: [], ingress: [{}]}"),
                cilium("{endpointSelector: {}, nodeSelector: {}, ingress: [{}]}"),
                cilium("{nodeSelector: {}, ingress: [{}]}"),
                cilium("{endpointSelector: {}}"),
                cilium("{endpointSelector: {}, ingress: []}"),
                cilium("{endpointSelector: {}, ingress: [{}], egress: null}"),
                cilium("{endpointSelector: null, ingress: [{}]}"),
                cilium("{endpointSelector: {}, ingress: {}}"),
                cilium("{endpointSelector: {}, ingress: [{}]}").replace("cilium.io/v2", "cilium.io/v3"),
                cilium("{endpointSelector: {}, ingress: [{}]}").replace("{name: a}", "{namespace: a}"),
                cilium("{endpointSelector: {}, ingress: [{}]}").replace("{name: a}", "{name: ''}"),
                cilium("{endpointSelector: {}, ingress: [{}]}").replace(" metadata: {name: a},", ""),
                cilium("{endpointSelector: {}, ingress: [{}]}")
                    .replace("{name: a}", "{name: a, labels: [b]}"),
                cilium("{endpointSelector: {}, ingress: [{}]}").replace("spec:", "spek:"),
            ],
        ),
        (
            cilium("{endpointSelector: {}, egressDeny: [{toPorts: [{ports: [{port: 1}]}]}]}"),
            vec![
                cilium("{endpointSelector: {}, egressDeny: [{toFQDNs: []}]}"),
                cilium("{endpointSelector: {}, egressDeny: [{toPorts: [{rules: {http: [{}]}}]}]}"),
                cilium("{endpointSelector: {}, ingressDeny: [{authentication: {mode: required}}]}"),
            ],
        ),
        (
            ingress("{fromEndpoints: [{matchExpressions: [{key: a, operator: In, values: [b]}]}]}"),
            vec![
                ingress("{fromEndpoints: [{matchExpressions: [{key: a, operator: in, values: [b]}]}]}"),
                ingress("{fromEndpoints: [{matchExpressions: [{key: a, operator: In}]}]}"),
                ingress("{fromEndpoints: [{matchExpressions: [{key: a, operator: In, values: []}]}]}"),
                ingress("{fromEndpoints: [{matchExpressions: [{key: a, operator: Exists, values: [b]}]}]}"),
                ingress("{fromEndpoints: [{matchLabels: {a: true}}]}"),
                ingress("{fromEndpoints: [{matchLabels: {a: b c}}]}"),
                ingress("{fromEndpoints: null}"),
                ingress("{fromEndpoint: []}"),
            ],
        ),
    ]);
}

#[test]
fn slips_in_ports_are_refused() {
    let list = |length: usize| format!("{{ports: [{}]}}", vec!["{port: 80}"; length].join(", "));
    slips_are_refused(vec![
        (ingress("{toPorts: []}"), vec![ingress("{toPort: []}"), ingress("null")]),
        (to_ports(&list(40)), vec![to_ports(&list(41))]),
        (
            to_ports("{ports: [{port: 65535, endPort: 0, protocol: TCP}, {port: '0'}, {port: http}]}"),
            vec![
                to_ports("{ports: [{port: 65536}]}"),
                to_ports("{ports: [{port: '65536'}]}"),
                to_ports("{ports: [{port: -1}]}"),
                to_ports("{ports: [{port: '080'}]}"),
                to_ports("{ports: [{port: a_b}]}"),
                to_ports("{ports: [{port: 1.5}]}"),
                to_ports("{ports: [{port: 80, endPort: -1}]}"),
                to_ports("{ports: [{port: 80, endPort: 65536}]}"),
                to_ports("{ports: [{port: 80, protocol: tcp}]}"),
                to_ports("{ports: [{protocol: TCP}]}"),
                to_ports("{ports: [{}]}"),
            ],
        ),
        (
            to_ports("{ports: [{port: 443}], serverNames: [a.b]}"),
            vec![
                to_ports("{ports: [{port: 443}], serverNames: []}"),
                to_ports("{ports: [{port: 443}], serverNames: ['']}"),
            ],
        ),
        (
            ingress("{icmps: [{fields: [{type: 255}, {type: EchoRequest, family: IPv6}, {type: '8'}]}]}"),
            vec![
                ingress("{icmps: [{fields: [{type: 256}]}]}"),
                ingress("{icmps: [{fields: [{type: '256'}]}]}"),
                ingress("{icmps: [{fields: [{type: Ping}]}]}"),
                ingress("{icmps: [{fields: [{type: 8, family: ipv4}]}]}"),
                ingress("{icmps: [{fields: [{family: IPv4}]}]}"),
            ],
        ),
    ]);
}

#[test]
fn slips_in_peers_are_refused() {
    slips_are_refused(vec![
        (
            egress("{toCIDR: [10.0.0.0/32, '::/0', 10.0.0.1, 'fd00::1'], toCIDRSet: [{cidr: 10.0.0.0/8}]}"),
            vec![
                egress("{toCIDR: [10.0.0.0/33]}"),
                egress("{toCIDR: ['::/129']}"),
                egress("{toCIDR: [010.0.0.1/8]}"),
                egress("{toCIDR: [example.org]}"),
                egress("{toCIDRSet: [{cidr: 10.0.0.1}]}"),
                egress("{toCIDRSet: [{cidr: 10.0.0.0/8, cidrGroupRef: a}]}"),
                egress("{toCIDRSet: [{}]}"),
            ],
        ),
        (
            egress("{toEntities: [world]}"),
            vec![egress("{toEntities: [World]}"), egress("{toEntities: [internet]}")],
        ),
        (
            egress("{toFQDNs: [{matchName: a.b}, {matchPattern: '*.a_b.c'}]}"),
            vec![
                egress("{toFQDNs: [{matchPattern: '*.a b'}]}"),
                egress("{toFQDNs: [{matchName: '*.a'}]}"),
                egress("{toFQDNs: [{matchName: a, matchPattern: a}]}"),
                egress("{toFQDNs: [{}]}"),
            ],
        ),
    ]);
}

#[test]
fn slips_in_requests_are_refused() {
    slips_are_refused(vec![
        (
            requests("http: [{method: GET, headerMatches: [{name: X, mismatch: LOG}]}]"),
            vec![
                requests("http: [{method: GET, headerMatches: [{name: X, mismatch: log}]}]"),
                requests("http: [{method: GET, headerMatches: [{mismatch: LOG}]}]"),
                requests("http: [{method: [GET]}]"),
                requests("https: []"),
            ],
        ),
        (
            requests("kafka: [{role: produce, topic: a, apiVersion: 3}]"),
            vec![
                requests("kafka: [{role: Produce}]"),
                requests("kafka: [{role: produce, apiKey: fetch}]"),
                requests("kafka: [{topic: a b}]"),
            ],
        ),
    ]);
}

#[test]
fn slips_in_other_policies_are_refused() {
    slips_are_refused(vec![
        (
            kubernetes("{podSelector: {}, policyTypes: [Ingress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}"),
            vec![
                kubernetes("{podSelector: {}, policyTypes: [ingress]}"),
                kubernetes("{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}"),
                kubernetes("{podSelector: {}, egress: [{to: [{}]}]}"),
                kubernetes("{podSelector: {}, egress: [{ports: [{port: 0}]}]}"),
                kubernetes("{podSelector: {}, egress: [{ports: [{endPort: 80}]}]}"),
                kubernetes("{podSelector: {}, egress: [{ports: [{port: 80, protocol: ANY}]}]}"),
                kubernetes("{podSelector: {}, ingress: null}"),
                kubernetes("{}").replace(", spec: {}", ""),
            ],
        ),
        (
            admin("Admin", 1000, "Accept", "{domainNames: ['*.a.b']}"),
            vec![
                admin("Admin", 1001, "Accept", "{namespaces: {}}"),
                admin("Admin", -1, "Accept", "{namespaces: {}}"),
                admin("Foo", 1, "Accept", "{namespaces: {}}"),
                admin("Admin", 1, "allow", "{namespaces: {}}"),
                admin("Admin", 1, "Allow", "{namespaces: {}}"),
                admin("Admin", 1, "Deny", "{domainNames: [a.b]}"),
                admin("Admin", 1, "Deny", "{namespaces: {}, nodes: {}}"),
                admin("Admin", 1, "Deny", "{pods: {namespaceSelector: {}}}"),
                admin("Admin", 1, "Deny", ""),
                admin("Admin", 1, "Deny", "{networks: [10.0.0.1]}"),
            ],
        ),
        (
            "{apiVersion: cilium.io/v2alpha1, kind: CiliumCIDRGroup, metadata: {name: a}, spec: {externalCIDRs: []}}"
                .to_owned(),
            vec![
                "{apiVersion: cilium.io/v2, kind: CiliumCIDRGroup, metadata: {name: a}, spec: {}}".to_owned(),
                "{apiVersion: cilium.io/v2, kind: CiliumCIDRGroup, metadata: {name: a}, spec: {externalCIDRs: [a]}}"
                    .to_owned(),
            ],
        ),
    ]);
}

#[test]
fn slips_in_other_objects_are_refused() {
    slips_are_refused(vec![
        (
            core("Pod", "spec: {anything: 1, containers: [{ports: [{containerPort: 80, protocol: null}]}]}"),
            vec![
                core("Pod", "spec: {containers: [{ports: [{containerPort: 0}]}]}"),
                core("Pod", "spec: {containers: [{ports: [{containerPort: 80, protocol: tcp}]}]}"),
                core("Pod", "spec: {containers: {}}"),
            ],
        ),
        (
            core("Service", "spec: {type: null, ports: [{port: 80, targetPort: web}]}"),
            vec![
                core("Service", "spec: {type: clusterIP}"),
                core("Service", "spec: {ports: [{targetPort: web}]}"),
                core("Service", "spec: {ports: [{port: 65536}]}"),
            ],
        ),
        (
            core("Secret", "data: {a: YQ==}"),
            vec![core("Secret", "data: {a: a-b}"), core("Secret", "data: {a: 1}")],
        ),
    ]);
}

#[test]
fn a_schema_is_for_its_own_kind() {
    let policy = one(&cilium("{endpointSelector: {}, ingress: [{}]}"));
    for kind in KINDS {
        assert_eq!(judge_as(*kind, &policy).is_ok(), *kind == Kind::CiliumNetworkPolicy, "{kind:?}");
    }
    // Names of built-in kinds in groups that have others of the same name.
    let calico = "{apiVersion: crd.projectcalico.org/v1, kind: NetworkPolicy, metadata: {name: a}, spec: {}}";
    assert!(judge_as(Kind::NetworkPolicy, &one(calico)).is_err());
}

/// Unknown fields and nulls: the reader and the schema are of one mind.
#[test]
fn the_shape_is_the_readers() {
    let cases = [
        kubernetes("{podSelector: {}, ingress: [{from: null}]}"),
        kubernetes("{podSelector: {}, ingress: [{form: []}]}"),
        kubernetes("{podSelector: {matchLabels: null}}"),
        kubernetes("{podSelector: {}, ingress: [{from: []}]}"),
        ingress("{fromCIDR: []}"),
        ingress("{fromCidr: []}"),
        ingress("{toPorts: [{ports: [{port: null}]}]}"),
        ingress("{fromEndpoints: [{}]}").replace("spec:", "status: {x: 1}, spec:"),
        ingress("{fromEndpoints: [{}]}").replace("{name: a}", "{name: a, creationTimestamp: null}"),
        ingress("{fromEndpoints: [{}]}").replace("{name: a}", "{name: a, labels: null}"),
        core("Pod", "spec: null"),
        core("Pod", "spec: {containers: null, hostNetwork: null}"),
        core("Pod", "status: null"),
        core("Service", "spec: {selector: null}"),
        core("Secret", "data: null"),
        core("Namespace", "spec: {finalizers: [kubernetes]}"),
        core("Node", "spec: {podCIDRs: [1]}"),
    ];
    for text in cases {
        let read = read_manifests(&text).remove(0).content;
        let judged = judge(&one(&text));
        assert_eq!(read.is_ok(), judged.is_ok(), "{text}: {read:?} {judged:?}");
    }
}
