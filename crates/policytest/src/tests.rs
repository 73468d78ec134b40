//! The whole way from text to report.

use crate::{Outcome, Report, Source, is_policy_test, junit, read, sarif, schema, tap};

const HEAD: &str = "apiVersion: sluice.dev/v1\nkind: PolicyTest\nmetadata: {name: shop}\n";

const POLICY: &str = "apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: orders}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: frontend}}]
    toPorts:
    - ports: [{port: '8080', protocol: TCP}]
      rules:
        http: [{method: GET, path: /a}, {method: POST, path: /b}]
";

const SHOP: &str = "endpoints:
  shop/frontend: {labels: {app: frontend}}
  shop/orders: {labels: {app: orders}, ports: {http: 8080/TCP}}
  stripe: {ip: 192.0.2.10, names: [api.stripe.com]}
  cp: {reserved: [host], labels: {role: cp}}
";

fn sources() -> Vec<Source> {
    vec![Source::new("api.yaml", POLICY)]
}

fn run(body: &str) -> Report {
    let text = format!("{HEAD}{SHOP}{body}");
    let suites = read("shop.yaml", &text).unwrap();
    suites[0].run(&sources(), &|_| true)
}

/// What is wrong with a file, one line each.
fn mistakes(body: &str) -> Vec<String> {
    let text = format!("{HEAD}{SHOP}{body}");
    match read("shop.yaml", &text) {
        Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
        Ok(suites) => {
            let report = suites[0].run(&sources(), &|_| true);
            let place = |result: &crate::TestResult| {
                format!("{}:{}:{}", result.file, result.detail.line, result.detail.column)
            };
            let errors = report.results.iter().filter(|result| result.outcome == Outcome::Error);
            errors.map(|result| format!("{}: {}", place(result), result.summary())).collect()
        }
    }
}

fn outcomes(report: &Report) -> Vec<(String, Outcome)> {
    report.results.iter().map(|result| (result.name.clone(), result.outcome)).collect()
}

const MIXED: &str = "tests:
- {name: reads, from: shop/frontend, to: shop/orders, port: http, http: {method: GET, path: /a}, expect: allow}
- {name: deletes, from: shop/frontend, to: shop/orders, port: 8080, http: {method: DELETE, path: /a}, expect: allow}
- {name: others, from: stripe, to: shop/orders, port: 8080, expect: deny, at: ingress, by: [CNP/shop/api]}
matrix:
- {port: 8080, columns: [shop/orders, stripe], rows: {shop/frontend: X., stripe: '.-'}}
invalid:
- {name: no rules, object: {apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: p, namespace: shop}, spec: {endpointSelector: {}}}, error: AT LEAST ONE of}
- {name: fine, object: {apiVersion: v1, kind: Namespace, metadata: {name: p}}, error: x}
";

#[test]
fn every_kind_of_question() {
    let report = run(MIXED);
    use Outcome::{Failed, Passed};
    let wanted = [
        ("reads", Passed),
        ("deletes", Failed),
        ("others", Passed),
        ("shop/frontend -> shop/orders 8080/TCP", Passed),
        ("shop/frontend -> stripe 8080/TCP", Failed),
        ("stripe -> shop/orders 8080/TCP", Passed),
        ("no rules", Passed),
        ("fine", Failed),
    ];
    assert_eq!(outcomes(&report), wanted.map(|(name, outcome)| (name.to_owned(), outcome)));
    assert_eq!((report.passed, report.failed, report.errors), (5, 3, 0));
}

#[test]
fn forms() {
    let mut report = run(MIXED);
    report.merge(run("tests: [{from: shop/fronted, to: \"a\\u0001<b\", port: 1, expect: deny}]"));
    insta::assert_snapshot!("json", serde_json::to_string_pretty(&report).unwrap());
    insta::assert_snapshot!("junit", junit(&report));
    insta::assert_snapshot!("tap", tap(&report));
    insta::assert_snapshot!("sarif", serde_json::to_string_pretty(&sarif(&report)).unwrap());
}

#[test]
fn mistakes_have_places() {
    let case = |fields: &str| mistakes(&format!("tests:\n- {{name: a, {fields}}}\n"));
    let cases = [
        (
            "from: shop/fronted, to: shop/orders, port: 1, expect: deny",
            "shop.yaml:10:19: tests[0].from: nobody is called \"shop/fronted\"; did you mean shop/frontend?",
        ),
        (
            "from: shop/frontend, to: shop/orders, prot: 1, expect: deny",
            "shop.yaml:10:51: tests[0]: unknown field \"prot\"; did you mean \"port\"?",
        ),
        (
            "from: shop/frontend, to: shop/orders, port: 1, expect: denied",
            "shop.yaml:10:68: tests[0].expect: unknown word \"denied\"; did you mean \"deny\"?",
        ),
        (
            "from: shop/frontend, to: shop/orders, expect: deny",
            "shop.yaml:10:3: tests[0].port: a port is required",
        ),
        (
            "from: shop/frontend, to: shop/orders, port: https, expect: deny",
            "shop.yaml:10:57: tests[0].port: shop/orders has no TCP port named \"https\"; it has http",
        ),
        (
            "from: shop/frontend, to: shop/orders, port: 8080/TCP, expect: deny",
            "shop.yaml:10:57: tests[0].port: write a number, or a name of the receiver's ports; the protocol has its own field",
        ),
        (
            "from: shop/frontend, to: shop/orders, port: 1, protocol: ICMP, expect: deny",
            "shop.yaml:10:57: tests[0].port: ICMP has no ports; write icmpType",
        ),
        (
            "from: shop/frontend, to: shop/orders, port: 1, icmpType: 8, expect: deny",
            "shop.yaml:10:70: tests[0].icmpType: only ICMP and ICMPv6 have types",
        ),
        (
            "from: shop/frontend, to: shop/orders, port: 1, expect: deny, by: [shop/apy]",
            "shop.yaml:10:79: tests[0].by[0]: \"shop/apy\" is not known; did you mean \"shop/api\"?",
        ),
        (
            "from: shop/frontend, to: shop/orders, port: 1, expect: deny, dns: a, sni: b",
            "shop.yaml:10:3: tests[0]: one test asks one thing: write one of http, grpc, kafka, dns, sni",
        ),
        (
            "from: shop/frontend, to: shop/orders, port: 1, protocol: UDP, expect: deny, http: {}",
            "shop.yaml:10:70: tests[0].protocol: http, grpc, kafka and sni go over TCP",
        ),
        (
            "from: shop/frontend, to: shop/orders, port: 1, expect: deny, kafka: {apiKey: prodce}",
            "shop.yaml:10:90: tests[0].kafka.apiKey: \"prodce\" is not known; did you mean \"produce\"?",
        ),
        (
            "from: shop/frontend, to: shop/orders, expect: deny, port: 70000",
            "shop.yaml:10:71: tests[0].port: write a port as a number or as text",
        ),
        ("to: shop/orders, expect: deny, port: 1", "shop.yaml:10:3: tests[0]: the field from is required"),
    ];
    for (fields, want) in cases {
        assert_eq!(case(fields), [want], "{fields}");
    }
}

#[test]
fn mistakes_of_objects_stand_where_the_objects_stand() {
    let test = "tests: [{from: shop/frontend, to: shop/orders, port: 1, expect: deny}]\n";
    let object = |kind: &str, spec: &str| {
        format!(
            "{test}objects:\n- apiVersion: cilium.io/v2\n  kind: {kind}\n  metadata: {{name: p, namespace: shop}}\n  spec: {spec}\n"
        )
    };
    let cases = [
        (
            object("CiliumNetworkPolicy", "{endpointSelector: {}, ingress: [{toPort: []}]}"),
            "shop.yaml:14:43: spec.ingress[0]: unknown field \"toPort\"; did you mean \"toPorts\"?",
        ),
        (
            object("CiliumNetworkPolicy", "{endpointSelector: {}, ingress: [{fromCIDR: [x]}]}"),
            "shop.yaml:14:54: spec.ingress[0].fromCIDR[0]",
        ),
        (
            object("CiliumNetworkPolcy", "{}"),
            "shop.yaml:12:9: \"CiliumNetworkPolcy\" of \"cilium.io/v2\" is no kind that is read",
        ),
        (
            "matrix: [{port: 1, columns: [shop/orders, shop/ordrs], rows: {shop/frontend: Xx, stripe: X}}]\n"
                .to_owned(),
            "shop.yaml:9:43: matrix[0].columns[1]: nobody is called \"shop/ordrs\"; did you mean shop/orders?",
        ),
        (
            test.to_owned() + "config: {policyEnforcement: allways}\n",
            "shop.yaml:10:29: config.policyEnforcement: unknown word \"allways\"; did you mean \"always\"?",
        ),
        ("metadata: {}\n".to_owned(), "shop.yaml:9:1: "),
        ("{".to_owned(), "shop.yaml:"),
        (
            test.to_owned() + "---\napiVersion: v1\nkind: Pod\n",
            "shop.yaml:12:7: a test file holds no Pod; put objects under `objects` or in a file that `policies` names",
        ),
    ];
    for (body, want) in cases {
        let got = mistakes(&body);
        assert!(got.first().is_some_and(|got| got.starts_with(want)), "{body}\n{got:#?}");
    }
}

#[test]
fn files_that_hold_tests() {
    let cases = [
        (format!("{HEAD}tests: []\n"), true),
        (format!("apiVersion: v1\nkind: Pod\n---\n{HEAD}"), true),
        ("{apiVersion: sluice.dev/v1, kind: PolicyTest}".to_owned(), true),
        (POLICY.to_owned(), false),
        ("apiVersion: v1\nkind: ConfigMap\ndata: {a: 'kind: PolicyTest'}\n".to_owned(), false),
        ("kind: PolicyTest\nbroken: [\n".to_owned(), true),
        ("# no PolicyTest\nbroken: [\n".to_owned(), false),
    ];
    for (text, want) in cases {
        assert_eq!(is_policy_test(&text), want, "{text}");
    }
}

#[test]
fn hits_of_one_document_are_added_up() {
    let one =
        "tests: [{from: shop/frontend, to: shop/orders, port: 8080, http: {path: /a}, expect: allow}]\n";
    let mut report = run(one);
    report.merge(run(one));
    let rows: Vec<(String, usize)> =
        report.coverage().into_iter().map(|row| (format!("{} {}", row.policy, row.rule), row.hits)).collect();
    let wanted = [("shop/api ingress[0].http[0]", 2), ("shop/api ingress[0].http[1]", 0)];
    assert_eq!(rows, wanted.map(|(name, hits)| (name.to_owned(), hits)));
}

#[test]
fn the_schema_knows_what_is_read() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let value = |text: &str| -> serde_json::Value {
        sluice_api::read_trees(text)[0].as_ref().unwrap().decode().unwrap()
    };
    let good = value(&format!("{HEAD}{SHOP}{MIXED}"));
    assert!(
        validator.is_valid(&good),
        "{:?}",
        validator.iter_errors(&good).map(|e| e.to_string()).collect::<Vec<_>>()
    );
    for body in [
        "tests: [{from: a, to: b, port: 1, expect: denied}]\n",
        "tests: [{from: a, to: b, prot: 1, expect: deny}]\n",
        "policy: []\n",
    ] {
        assert!(!validator.is_valid(&value(&format!("{HEAD}{body}"))), "{body}");
    }
}

#[test]
fn a_file_as_manifests() {
    let text = format!(
        "{HEAD}{SHOP}  far: {{reserved: [remote-node], labels: {{role: x}}, ip: 172.16.0.9}}\nnamespaces: {{shop: {{team: a}}}}\n{MIXED}"
    );
    let suite = &read("shop.yaml", &text).unwrap()[0];
    let mut cluster = sluice_model::Cluster::new(sluice_policy::Config::complete());
    for manifest in suite.manifests().into_iter().chain(sources().remove(0).manifests) {
        cluster.apply(&manifest.content.unwrap()).unwrap();
    }
    let names: Vec<&str> = cluster.participants().map(|known| known.name.as_str()).collect();
    assert_eq!(names, ["far", "shop/frontend", "shop/orders"]);
    let labels = cluster.labels("shop/orders").unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(labels.contains(&"k8s:io.cilium.k8s.namespace.labels.team=a".to_owned()), "{labels:?}");
    let report = suite.run(&sources(), &|name| name == "deletes" || name.contains("-> stripe"));
    let commands: Vec<String> = report.results.iter().map(|result| result.detail.trace.join(" ")).collect();
    assert_eq!(
        commands,
        [
            "--src shop/frontend --dst shop/orders --dport 8080/TCP --http DELETE /a",
            "--src shop/frontend --dst api.stripe.com --dport 8080/TCP",
        ]
    );
}
