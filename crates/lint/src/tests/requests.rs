//! Findings about rules for requests.

use super::{check, cnp};

fn http(rule: &str) -> String {
    let ports = format!("[{{ports: [{{port: '8080', protocol: TCP}}], rules: {{http: [{rule}]}}}}]");
    let spec = format!(
        "{{endpointSelector: {{matchLabels: {{app: api}}}}, ingress: [{{fromEndpoints: [{{matchLabels: {{app: web}}}}], toPorts: {ports}}}]}}"
    );
    cnp("api", &spec)
}

#[test]
fn what_voids_requests() {
    let with = |name: &str, selector: &str, rule: &str| {
        format!(
            "{}{}",
            http("{method: GET}"),
            cnp(name, &format!("{{endpointSelector: {selector}, ingress: [{rule}]}}"))
        )
    };
    let whose = |who: &str| {
        format!("requests of {who} all pass: another rule allows the port without naming requests")
    };
    let web = "app=web of shop";
    let port = "toPorts: [{ports: [{port: '8080', protocol: TCP}]}]";
    let cases = [
        ("every port of the cluster", with("q", "{}", "{fromEntities: [cluster]}"), whose(web)),
        ("this port of everybody", with("q", "{}", &format!("{{{port}}}")), whose(web)),
        (
            "some of the peers",
            with("q", "{}", &format!("{{fromEndpoints: [{{matchLabels: {{app: web, tier: a}}}}], {port}}}")),
            whose(&web.replace("app=web", "app=web and tier=a")),
        ),
        (
            "other peers",
            with("q", "{}", &format!("{{fromEndpoints: [{{matchLabels: {{app: prometheus}}}}], {port}}}")),
            String::new(),
        ),
        (
            "another port",
            with("q", "{}", "{fromEntities: [cluster], toPorts: [{ports: [{port: '8081', protocol: TCP}]}]}"),
            String::new(),
        ),
        ("other pods", with("q", "{matchLabels: {app: db}}", "{fromEntities: [cluster]}"), String::new()),
        (
            "requests too",
            with(
                "q",
                "{}",
                "{fromEntities: [cluster], toPorts: [{ports: [{port: '8080', protocol: TCP}], rules: {http: [{method: POST}]}}]}",
            ),
            String::new(),
        ),
        ("nobody", with("q", "{}", "{fromEndpoints: []}"), String::new()),
    ];
    for (name, text, want) in cases {
        check("SL031", &[(name, text, &want)]);
    }
    let off = http("{method: GET}").replace("ingress:", "enableDefaultDeny: {ingress: false}, ingress:");
    check(
        "SL031",
        &[(
            "default deny off",
            off,
            "with default deny switched off these rules refuse nothing: requests they do not name pass too",
        )],
    );
}

#[test]
fn questions_are_voided_by_the_same_port_only() {
    let dns = "{toEntities: [cluster], toPorts: [{ports: [{port: '53', protocol: UDP}], rules: {dns: [{matchName: a.com}]}}]}";
    let with = |rule: &str| cnp("p", &format!("{{endpointSelector: {{}}, egress: [{dns}, {rule}]}}"));
    let want = "requests of host all pass: another rule allows the port without naming requests";
    let cases = [
        (
            "the same port",
            with("{toEntities: [cluster], toPorts: [{ports: [{port: '53', protocol: UDP}]}]}"),
            want,
        ),
        ("every port", with("{toEntities: [cluster]}"), ""),
        (
            "a range",
            with("{toEntities: [cluster], toPorts: [{ports: [{port: '1', endPort: 99, protocol: UDP}]}]}"),
            "",
        ),
    ];
    check("SL031", &cases);
}

#[test]
fn peers_of_requests() {
    let rule = |peers: &str| {
        cnp(
            "p",
            &format!(
                "{{endpointSelector: {{matchLabels: {{app: api}}}}, ingress: [{{{peers} toPorts: [{{ports: [{{port: '80', protocol: TCP}}], rules: {{http: [{{method: GET}}]}}}}]}}]}}"
            ),
        )
    };
    let cases = [
        ("nobody named", rule(""), "anybody may send these requests, from outside of the cluster too"),
        ("everybody named", rule("fromEntities: [all],"), ""),
        ("somebody", rule("fromEndpoints: [{}],"), ""),
    ];
    check("SL030", &cases);
}

#[test]
fn patterns() {
    let path = |pattern: &str| http(&format!("{{path: '{pattern}'}}"));
    let star =
        |what: &str| format!("{what} is a repetition of what stands before the star, not \"anything\"");
    for (pattern, want) in [
        ("/api/*", star("/*")),
        ("/orders*", star("s*")),
        ("/a*/b", star("a*")),
        ("/api/.*", String::new()),
        ("/[a-z]*", String::new()),
        ("/(ab)*", String::new()),
        ("/a*b", String::new()),
    ] {
        check("SL035", &[(pattern, path(pattern), &want)]);
    }
    for (pattern, want) in [
        ("/v1.0/x", "a dot is any character: /v1.0/x also matches /v1-0/x"),
        ("/(v1.0)/x.*", "a dot is any character: /(v1.0)/x.* also matches /(v1-0)/x.*"),
        ("/a.b.c", "a dot is any character: /a.b.c also matches /a-b-c"),
        ("/v1\\.0", ""),
        ("/.*", ""),
        ("/a.+", ""),
        ("/a.?b", ""),
        ("/[a.b]", ""),
    ] {
        check("SL033", &[(pattern, path(pattern), want)]);
    }
    check(
        "SL033",
        &[(
            "host",
            http("{host: api.example.com}"),
            "a dot is any character: api.example.com also matches api-example-com",
        )],
    );
    let anchors = "`^` and `$` change nothing: a pattern must match the whole text anyway";
    for (pattern, want) in [
        ("^/a", anchors),
        ("/a$", anchors),
        ("/a/", "this is the path /a/ alone, and nothing below it"),
        ("/", ""),
        ("/a", ""),
    ] {
        check("SL034", &[(pattern, path(pattern), want)]);
    }
}

#[test]
fn what_no_request_has() {
    let cases = [
        ("method", http("{method: get}"), "no request has the method get"),
        ("methods", http("{method: 'get|put'}"), "no request has the method get|put"),
        ("one of them", http("{method: 'get|PUT'}"), ""),
        ("any case", http("{method: '(?i)get'}"), ""),
        ("path", http("{path: api}"), "no path matches api: it does not begin with a slash"),
        (
            "paths",
            http("{path: '(api|v1)/.*'}"),
            "no path matches (api|v1)/.*: it does not begin with a slash",
        ),
        ("anything first", http("{path: '.*api'}"), ""),
        ("anchored", http("{path: '^/api'}"), ""),
        ("dot segments", http("{path: '/a/\\.\\./b'}"), "no path holds /../ when it is judged"),
        ("slashes", http("{path: //a}"), "no path holds // when it is judged"),
        ("the server", http("{method: OPTIONS, path: '\\*'}"), ""),
        ("scheme", http("{host: 'https://a'}"), "no request has the host https://a"),
    ];
    check("SL036", &cases);
}

#[test]
fn values_of_headers() {
    let value = |text: &str| http(&format!("{{headers: ['{text}']}}"));
    let literal = |value: &str| format!("values of headers are no patterns: X must be exactly {value:?}");
    for (line, want) in [
        ("X: .*", "`.*` means any value of X here, and these two characters for Cilium".to_owned()),
        ("X: v.*", literal("v.*")),
        ("X: [0-9]+", literal("[0-9]+")),
        ("X: (a|b)", literal("(a|b)")),
        ("X: ^a", literal("^a")),
        ("X: a.b", String::new()),
        ("X: */*", String::new()),
        ("X: (a)", String::new()),
        ("X", String::new()),
    ] {
        check("SL032", &[(line, value(line), &want)]);
    }
    let of_match = |more: &str| http(&format!("{{headerMatches: [{{name: X, value: 'v.*'{more}}}]}}"));
    check(
        "SL032",
        &[
            ("a match", of_match(""), &literal("v.*")),
            ("a value that is set", of_match(", mismatch: REPLACE"), ""),
        ],
    );
}

#[test]
fn kafka() {
    let rule = |rules: &str| {
        let ports = format!("[{{ports: [{{port: '9092', protocol: TCP}}], rules: {{kafka: [{rules}]}}}}]");
        cnp(
            "p",
            &format!(
                "{{endpointSelector: {{}}, ingress: [{{fromEndpoints: [{{matchLabels: {{app: a}}}}], toPorts: {ports}}}]}}"
            ),
        )
    };
    let both = "no rule lets ApiVersions and Metadata pass, which clients send before anything else";
    let cases = [
        ("a key", rule("{apiKey: produce, topic: t}"), both),
        (
            "with one of them",
            rule("{apiKey: produce, topic: t}, {apiKey: apiversions}"),
            "no rule lets Metadata pass, which clients send before anything else",
        ),
        (
            "with both",
            rule("{apiKey: produce, topic: t}, {apiKey: apiversions}, {apiKey: metadata, topic: t}"),
            "",
        ),
        (
            "about another topic",
            rule("{apiKey: produce, topic: t}, {apiKey: apiversions}, {apiKey: metadata, topic: u}"),
            "no rule lets Metadata pass, which clients send before anything else",
        ),
        ("a role", rule("{role: produce, topic: t}"), ""),
        ("a topic", rule("{topic: t}"), ""),
    ];
    check("SL039", &cases);
}
