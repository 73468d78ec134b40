//! Places, order, silence, and documents that cannot be read.

use super::{check, cnp, documents, found};
use crate::{Options, lint};

#[test]
fn findings_stand_where_the_mistake_is_and_in_its_order() {
    let text = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: web
  namespace: shop
spec:
  endpointSelector: {}
  ingress:
  - fromEntities: [cluster]
    toPorts:
    - ports: [{port: \"8080\", protocol: TCP}]
      rules:
        http:
        - {method: get, path: /a.b}
        - method: GET
          path: /api/*
  egress:
  - toEndpoints: []
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: other}
spec:
  endpointSelector: {}
  ingres: []
";
    let want = [
        "13:9 hint SL038 everything that these pods exchange on the port goes through a proxy, which costs time and CPU",
        "14:20 error SL036 no request has the method get",
        "14:31 warning SL033 a dot is any character: /a.b also matches /a-b",
        "16:17 warning SL035 /* is a repetition of what stands before the star, not \"anything\"",
        "25:3 error SL070 unknown field \"ingres\"; did you mean \"ingress\"?",
    ];
    assert_eq!(found(text, &Options::default()), want);
}

#[test]
fn files_keep_their_order() {
    let bad = cnp("a", "{endpointSelector: {}, ingress: [{}], egress: [{toEndpoints: []}]}");
    let mut all = documents("z.yaml", &bad);
    all.extend(documents("b.yaml", &bad.replace("name: a", "name: b")));
    let files: Vec<String> =
        lint(&all, &Options::default()).into_iter().map(|finding| finding.file).collect();
    assert_eq!(files, ["z.yaml", "b.yaml"]);
}

#[test]
fn an_object_silences_what_is_found_about_itself() {
    let silent = |codes: &str| {
        let annotations = format!(", annotations: {{sluice.dev/lint-ignore: \"{codes}\"}}}}");
        let spec =
            "{endpointSelector: {}, ingressDeny: [{toPorts: [{ports: [{port: '0', protocol: TCP}]}]}]}";
        let one = cnp("a", spec).replacen("namespace: shop}", &format!("namespace: shop{annotations}"), 1);
        let other = cnp("b", "{endpointSelector: {}, egress: [{}]}");
        let found = lint(&documents("a.yaml", &format!("{one}{other}")), &Options::default());
        found.iter().map(|finding| format!("{} {}", finding.object, finding.code)).collect::<Vec<_>>()
    };
    let want = ["cnp/shop/a SL020", "cnp/shop/a SL055", "cnp/shop/a SL029", "cnp/shop/b SL021"];
    assert_eq!(silent(""), want);
    assert_eq!(silent("SL020, SL055"), ["cnp/shop/a SL029", "cnp/shop/b SL021"]);
    assert_eq!(silent("SL021"), want, "another object's finding stays");
    assert_eq!(silent("SL020,SL029,SL055,sl999").last().unwrap(), "cnp/shop/b SL021");
}

#[test]
fn annotations() {
    let with = |annotations: &str| {
        cnp("a", "{endpointSelector: {}, ingress: [{fromEntities: [cluster]}]}")
            .replace("namespace: shop}", &format!("namespace: shop, annotations: {{{annotations}}}}}"))
    };
    check(
        "SL074",
        &[
            ("ours", with("sluice.dev/audit: 'true', sluice.dev/lint-ignore: SL001"), ""),
            ("somebody else's", with("example.com/audit: x"), ""),
            ("unknown", with("sluice.dev/adit: x"), "the annotation sluice.dev/adit means nothing"),
            (
                "no code",
                with("sluice.dev/lint-ignore: 'SL001,SL1'"),
                "\"SL1\" is no code, so nothing is silenced by it",
            ),
        ],
    );
}

#[test]
fn what_cannot_be_read_is_found_with_its_place() {
    let text = format!(
        "{}---\na: [\n{}",
        cnp("a", "{endpointSelector: {}, ingress: [{fromCIDR: [10.0.0.1/33], fromEntities: [x]}]}"),
        cnp("b", "{endpointSelector: {}}")
    );
    let want = [
        "5:40 error SL071 combining fromCIDR and fromEntities is not supported: use two entries",
        "5:52 error SL071 \"10.0.0.1/33\" is no prefix: an address, a slash and a length are needed",
        "5:81 error SL071 unsupported entity: x",
        "7:4 error SL070 unclosed bracket '['",
        "12:7 error SL071 rule must have at least one of ingress, ingressDeny, egress, egressDeny, and the list must \
         not be empty",
    ];
    assert_eq!(found(&text, &Options::default()), want);
}

#[test]
fn objects_of_one_name() {
    let same = cnp("a", "{endpointSelector: {}, ingress: [{fromEntities: [cluster]}]}");
    let cases = [
        ("twice", format!("{same}{same}"), "a is defined again, and this definition is lost"),
        ("another kind", format!("{same}{}", super::knp("a", "{podSelector: {}}")), ""),
        ("another namespace", format!("{same}{}", same.replace("shop", "pay")), ""),
        ("unknown kinds", "kind: X\nmetadata: {name: a}\n---\nkind: X\nmetadata: {name: a}\n".to_owned(), ""),
    ];
    check("SL072", &cases);
}

#[test]
fn nothing_is_found_in_nothing() {
    assert_eq!(found("", &Options::default()), Vec::<String>::new());
    assert_eq!(found("kind: X\n", &Options::default()), Vec::<String>::new());
}
