//! Findings about DNS names and those who ask for them.

use super::{check, cnp, knp};

fn to_names(names: &str) -> String {
    cnp(
        "names",
        &format!("{{endpointSelector: {{matchLabels: {{app: web}}}}, egress: [{{toFQDNs: {names}}}]}}"),
    )
}

fn asking(subject: &str, rules: &str) -> String {
    let ports = format!("[{{ports: [{{port: '53', protocol: ANY}}], {rules}}}]");
    cnp(
        "dns",
        &format!("{{endpointSelector: {subject}, egress: [{{toEntities: [cluster], toPorts: {ports}}}]}}"),
    )
}

#[test]
fn names_need_questions() {
    let none = "no DNS rule lets these pods ask for names, so no address is ever learnt and nothing matches";
    let with =
        |names: &str, subject: &str, rules: &str| format!("{}{}", to_names(names), asking(subject, rules));
    let cases = [
        ("nobody asks", to_names("[{matchName: a.com}]"), none),
        ("port 53 without rules", with("[{matchName: a.com}]", "{}", ""), none),
        (
            "others ask",
            with("[{matchName: a.com}]", "{matchLabels: {app: db}}", "rules: {dns: [{matchPattern: '*'}]}"),
            none,
        ),
        ("everybody asks", with("[{matchName: a.com}]", "{}", "rules: {dns: [{matchPattern: '*'}]}"), ""),
        ("the same name", with("[{matchName: A.com}]", "{}", "rules: {dns: [{matchName: a.com.}]}"), ""),
        (
            "another name",
            with("[{matchName: a.com}, {matchName: b.com}]", "{}", "rules: {dns: [{matchName: b.com}]}"),
            "no DNS rule lets these pods ask for a.com, so its addresses are never learnt",
        ),
        (
            "a wider pattern",
            with("[{matchPattern: '**.a.com'}]", "{}", "rules: {dns: [{matchPattern: '*.a.com'}]}"),
            "**.a.com means names that no DNS rule lets these pods ask for, such as a.b.a.com",
        ),
        (
            "the same pattern",
            with("[{matchPattern: '*.a.com'}]", "{}", "rules: {dns: [{matchPattern: '*.a.com'}]}"),
            "",
        ),
    ];
    check("SL001", &cases);
}

#[test]
fn names_and_patterns() {
    let with =
        |names: &str| format!("{}{}", to_names(names), asking("{}", "rules: {dns: [{matchPattern: '*'}]}"));
    let cases = [
        (
            "glued to the domain",
            with("[{matchPattern: '*a.com'}]"),
            "the pattern *a.com also means names of other owners, such as somebody-elses-a.com",
        ),
        (
            "a whole top",
            with("[{matchPattern: '*.com'}]"),
            "the pattern *.com also means names of other owners, such as somebody-elses.com",
        ),
        (
            "any depth of a top",
            with("[{matchPattern: '**.com'}]"),
            "the pattern **.com also means names of other owners, such as a.com",
        ),
        ("everything", with("[{matchPattern: '*'}]"), "the pattern * means every name there is"),
        (
            "below a domain",
            with("[{matchPattern: '*.a.com'}, {matchPattern: '**.a.com'}, {matchPattern: 'api-*.a.com'}]"),
            "",
        ),
    ];
    check("SL004", &cases);
    let cases = [
        (
            "a Service",
            with("[{matchName: api.shop.svc.cluster.local}]"),
            "api.shop.svc.cluster.local is a name of the cluster: toFQDNs never selects pods or Services",
        ),
        ("outside", with("[{matchName: local.com}]"), ""),
    ];
    check("SL003", &cases);
}

#[test]
fn closed_egress_and_names() {
    let want = "egress of these pods is closed, and no rule lets them ask the name servers";
    let egress = |peers: &str| {
        cnp("p", &format!("{{endpointSelector: {{matchLabels: {{app: web}}}}, egress: [{peers}]}}"))
    };
    let cases = [
        ("pods", egress("{toEndpoints: [{matchLabels: {app: db}}]}"), want),
        ("prefixes are reached by address", egress("{toCIDR: [198.51.100.0/24]}"), ""),
        ("the API server too", egress("{toEntities: [kube-apiserver]}"), ""),
        ("closed on purpose", egress("{toEndpoints: []}"), ""),
        ("the whole cluster", egress("{toEntities: [cluster]}"), ""),
        (
            "the whole cluster on one port",
            egress("{toEntities: [cluster], toPorts: [{ports: [{port: '80', protocol: TCP}]}]}"),
            want,
        ),
        ("everything", egress("{toEntities: [all]}"), ""),
        (
            "default deny off",
            egress("{toEndpoints: [{matchLabels: {app: db}}]}")
                .replace("egress:", "enableDefaultDeny: {egress: false}, egress:"),
            "",
        ),
        (
            "another policy",
            format!("{}{}", egress("{toEndpoints: [{matchLabels: {app: db}}]}"), asking("{}", "")),
            "",
        ),
        (
            "a NetworkPolicy",
            knp(
                "k",
                "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]}",
            ),
            want,
        ),
        (
            "a NetworkPolicy for all pods",
            knp("k", "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}]}]}"),
            "",
        ),
    ];
    check("SL005", &cases);
    let udp = |more: &str| {
        cnp(
            "p",
            &format!(
                "{{endpointSelector: {{}}, egress: [{{toEntities: [cluster], toPorts: [{{ports: [{{port: '53', protocol: UDP}}{more}]}}]}}]}}"
            ),
        )
    };
    let want =
        "questions may be asked over UDP only; long answers are truncated and asked for again over TCP";
    let cases = [
        ("only UDP", udp(""), want),
        ("both", udp(", {port: '53', protocol: TCP}"), ""),
        ("every port", cnp("p", "{endpointSelector: {}, egress: [{toEntities: [cluster]}]}"), ""),
    ];
    check("SL002", &cases);
}
