use std::collections::BTreeMap;

use proptest::{bool::weighted, collection::vec, option, prelude::*, sample::select};

use super::*;

struct Kept(BTreeMap<&'static str, &'static str>);

impl Secrets for Kept {
    fn value(&self, namespace: Option<&str>, name: &str) -> Option<Vec<u8>> {
        assert_eq!(namespace, Some("n"));
        self.0.get(name).map(|value| value.as_bytes().to_vec())
    }
}

fn rule(headers: Vec<HeaderRule>) -> HttpRule {
    HttpRule { part: "http[0]".into(), method: None, path: None, host: None, grpc: false, headers }
}

fn request<'a>(headers: &'a [(&'a str, &'a [u8])]) -> HttpRequest<'a> {
    HttpRequest { method: "GET", path: "/api/v1?id=7", authority: "shop:8080", headers }
}

fn outcome(rule: &HttpRule, request: &HttpRequest<'_>) -> String {
    rule.check(request, &()).map_or_else(|mismatch| mismatch.to_string(), |effects| format!("{effects:?}"))
}

#[test]
fn all_fields_must_match_as_a_whole() {
    let pattern = |text: &str| Some(Pattern::new(text).unwrap());
    let (passes, plain) = ("[]", rule(vec![]));
    for (name, changed, want) in [
        ("nothing is asked for", plain.clone(), passes),
        ("method", HttpRule { method: pattern("GET"), ..plain.clone() }, passes),
        ("case of methods", HttpRule { method: pattern("get"), ..plain.clone() }, "method GET is not get"),
        ("part of a method", HttpRule { method: pattern("GE"), ..plain.clone() }, "method GET is not GE"),
        ("path with query", HttpRule { path: pattern("/api/.*"), ..plain.clone() }, passes),
        (
            "path without query",
            HttpRule { path: pattern("/api/v1"), ..plain.clone() },
            "path /api/v1?id=7 is not /api/v1",
        ),
        ("host with port", HttpRule { host: pattern("shop:80.*"), ..plain.clone() }, passes),
        ("host", HttpRule { host: pattern("shop"), ..plain.clone() }, "host shop:8080 is not shop"),
    ] {
        assert_eq!(outcome(&changed, &request(&[])), want, "{name}");
    }
}

#[test]
fn header_lines() {
    let headers: &[(&str, &[u8])] =
        &[("X-Token", b"secret"), ("x-list", b"a"), ("X-List", b"b"), ("X-Empty", b"")];
    for (line, want) in [
        ("X-Token: secret", "[]"),
        ("x-token secret", "[]"),
        ("X-Token: other", "header X-Token secret is not other"),
        ("X-Token", "[]"),
        ("X-Token: .*", "[]"),
        ("X-Token: sec.*", "header X-Token secret is not sec.*"),
        ("X-Missing", "header X-Missing is missing"),
        ("X-Missing: .*", "header X-Missing is missing"),
        ("X-Missing: a", "header X-Missing is missing; it must be a"),
        ("X-List: a", "header X-List a,b is not a"),
        ("X-List: a,b", "[]"),
        ("X-Empty", "[]"),
    ] {
        assert_eq!(outcome(&rule(vec![HeaderRule::from_line(line)]), &request(headers)), want, "{line}");
    }
}

#[test]
fn what_is_done_where_a_header_differs() {
    use HeaderAction::{Add, Delete, Log, Replace};
    let written = |value: Option<&str>, secret: Option<&str>| api::HeaderMatch {
        name: "X-A".into(),
        value: value.map(Into::into),
        secret: secret.map(|name| api::SecretRef { namespace: Some("n".into()), name: name.into() }),
        mismatch: None,
    };
    let secrets = Kept(BTreeMap::from([("s", "kept")]));
    let cases = [
        // value, secret, action, header, what happens: actions with their values, or None for a refusal
        (Some("a"), None, None, Some("a"), Some(vec![])),
        (Some("a"), None, None, Some("b"), None),
        (None, None, None, Some("b"), Some(vec![])),
        (None, None, None, None, None),
        (Some("a"), None, Some(Log), Some("b"), Some(vec![(Log, "a")])),
        (Some("a"), None, Some(Log), Some("a"), Some(vec![])),
        (Some("a"), None, Some(Add), None, Some(vec![(Add, "a")])),
        (Some("a"), None, Some(Delete), Some("b"), Some(vec![(Delete, "a")])),
        (Some("a"), None, Some(Delete), None, Some(vec![])),
        (Some("a"), None, Some(Replace), Some("b"), Some(vec![(Replace, "a")])),
        (None, None, Some(Delete), Some("b"), Some(vec![(Delete, "")])),
        (None, None, Some(Delete), Some(""), Some(vec![])),
        (None, Some("s"), None, Some("kept"), Some(vec![])),
        (None, Some("s"), None, Some("a"), None),
        (Some("a"), Some("s"), None, Some("a"), None),
        (Some("a"), Some("gone"), None, Some("a"), Some(vec![])),
        (None, Some("gone"), None, Some("a"), None),
        (None, Some("gone"), Some(Add), Some("a"), None),
        (None, Some("gone"), Some(Delete), Some("a"), None),
        (None, Some("gone"), Some(Log), Some("a"), None),
        (None, Some("gone"), Some(Log), None, None),
        (Some("a"), Some("gone"), Some(Log), Some("b"), Some(vec![(Log, "a")])),
        (None, Some("s"), Some(Replace), None, Some(vec![(Replace, "kept")])),
    ];
    for (value, secret, action, header, want) in cases {
        let rule = rule(vec![HeaderRule::from_match(&written(value, secret), action)]);
        let headers: Vec<(&str, &[u8])> = header.iter().map(|value| ("x-a", value.as_bytes())).collect();
        let result = rule.check(&request(&headers), &secrets).ok();
        let text = |effect: &HeaderEffect| (effect.action, String::from_utf8(effect.value.clone()).unwrap());
        let got = result.map(|effects| effects.iter().map(text).collect::<Vec<_>>());
        let want = want.map(|list| list.into_iter().map(|(a, v)| (a, v.to_owned())).collect::<Vec<_>>());
        assert_eq!(got, want, "{value:?} {secret:?} {action:?} {header:?}");
    }
}

#[test]
fn the_authority_is_the_host_header() {
    let headers: &[(&str, &[u8])] = &[("host", b"other")];
    for (line, want) in [("Host: shop:8080", "[]"), ("host: other", "header host shop:8080 is not other")] {
        let rule = rule(vec![HeaderRule::from_line(line)]);
        assert_eq!(outcome(&rule, &request(headers)), want, "{line}");
        assert_eq!(outcome(&rule, &request(&[])), want, "{line}");
    }
}

#[test]
fn reports_are_short_and_tell_no_password() {
    let headers: &[(&str, &[u8])] =
        &[("authorization", b"canary-1"), ("Cookie", b"canary-2"), ("X", b"a\r\nb")];
    for (line, want) in [
        ("Authorization: a", "header Authorization (not shown) is not a"),
        ("cookie: a", "header cookie (not shown) is not a"),
        ("X: a", r"header X a\r\nb is not a"),
    ] {
        assert_eq!(outcome(&rule(vec![HeaderRule::from_line(line)]), &request(headers)), want, "{line}");
    }
    assert!(!format!("{:?}", request(headers)).contains("canary"));
    let path = format!("/{}", "x".repeat(9000));
    let long = HttpRequest { path: &path, ..request(&[]) };
    let said = outcome(&HttpRule { path: Some(Pattern::new("/a").unwrap()), ..rule(vec![]) }, &long);
    assert!(said.len() < 300 && said.ends_with("… is not /a"), "{said}");
}

#[test]
fn secrets_are_never_printed() {
    let secrets = Kept(BTreeMap::from([("s", "canary-7261")]));
    let secret = Some((Some("n".to_owned()), "s".to_owned()));
    let header = |mismatch| HeaderRule { name: "X-A".into(), value: None, secret: secret.clone(), mismatch };
    let headers: &[(&str, &[u8])] = &[("X-A", b"canary-9911")];
    let mismatch = rule(vec![header(None)]).check(&request(headers), &secrets).unwrap_err();
    let effects = rule(vec![header(Some(HeaderAction::Replace))]).check(&request(headers), &secrets).unwrap();
    let printed = format!("{mismatch} {mismatch:?} {effects:?}");
    assert!(!printed.contains("canary"), "{printed}");
}

#[test]
fn grpc_calls() {
    let grpc = |service, method| HttpRule::grpc("grpc[0]".into(), service, method).unwrap();
    let content: &[(&str, &[u8])] = &[("Content-Type", b"application/grpc+proto")];
    let call = |method, path, headers| HttpRequest { method, path, authority: "x", headers };
    for (rule, request, want) in [
        (grpc(Some("a.S"), Some("M")), call("POST", "/a.S/M", content), true),
        (grpc(Some("a.S"), None), call("POST", "/a.S/Other", content), true),
        (grpc(None, Some("M")), call("POST", "/b.T/M", content), true),
        (grpc(Some("a.S"), Some("M")), call("POST", "/aXS/M", content), false),
        (grpc(Some("a.S"), Some("M")), call("POST", "/a.S/m", content), false),
        (grpc(Some("a.S"), Some("M")), call("POST", "/a.S/M/", content), false),
        (grpc(Some("a.S"), None), call("POST", "/a.S/M/x", content), false),
        (grpc(Some("a.S"), Some("M")), call("GET", "/a.S/M", content), false),
        (grpc(Some("a.S"), Some("M")), call("POST", "/a.S/M", &[("Content-Type", b"text/plain")]), false),
        (grpc(Some("a.S"), Some("M")), call("POST", "/a.S/M", &[]), false),
    ] {
        assert_eq!(rule.check(&request, &()).is_ok(), want, "{rule:?} {request:?}");
    }
}

#[test]
fn a_set_that_is_too_big_becomes_several() {
    let path = |nth: usize| Some(Pattern::new(&format!("/p{nth}/[^/]+")).unwrap());
    let rules: Vec<HttpRule> = (0..40).map(|nth| HttpRule { path: path(nth), ..rule(vec![]) }).collect();
    let request = HttpRequest { path: "/p17/x", ..request(&[]) };
    for (limit, automata) in [(10 << 20, 1..=1), (8_000, 2..=39), (10, 40..=40)] {
        let set = HttpRuleSet::with_limit(rules.iter().zip(100..), limit);
        assert!(automata.contains(&set.path_automata()), "{limit}: {}", set.path_automata());
        assert_eq!(set.matching(&request, &()).collect::<Vec<_>>(), [117], "{limit}");
    }
    let many: Vec<HttpRule> = (0..1001).map(|nth| HttpRule { path: path(nth), ..rule(vec![]) }).collect();
    let set = HttpRuleSet::new(many.iter().zip(0..));
    assert_eq!((set.len(), set.path_automata()), (1001, 3));
    let last = HttpRequest { path: "/p1000/x", ..request };
    assert_eq!(set.matching(&last, &()).collect::<Vec<_>>(), [1000]);
    let equal = vec![rules[3].clone(); 9];
    assert_eq!(HttpRuleSet::new(equal.iter().zip(0..)).path_automata(), 1, "equal patterns are shared");
    assert_eq!(HttpRuleSet::default().matching(&request, &()).count(), 0, "no rule allows nothing");
}

#[test]
fn a_set_knows_whether_one_match_is_enough() {
    let header = |mismatch| HeaderRule { mismatch, ..HeaderRule::from_line("X-A: a") };
    for (mismatch, want) in [(None, false), (Some(HeaderAction::Log), true), (Some(HeaderAction::Add), true)]
    {
        let rules = [rule(vec![]), rule(vec![header(mismatch)])];
        assert_eq!(HttpRuleSet::new(rules.iter().zip(0..)).has_effects(), want, "{mismatch:?}");
    }
}

fn some_rule() -> impl Strategy<Value = HttpRule> {
    let methods = select(vec!["GET", "POST", "GET|PUT", "P.*", "(?i)get", "^GET$"]);
    let paths = select(vec!["/", "/a", "^/a$", "/a.*", "/a/[0-9]+", "/(a|b)/1", r"/a\?.*", "/[^/]+/1", ".*"]);
    let hosts = select(vec!["h", "h:80", ".*:80", "[gh]", "x"]);
    let actions = select(vec![
        None,
        None,
        Some(HeaderAction::Log),
        Some(HeaderAction::Add),
        Some(HeaderAction::Delete),
        Some(HeaderAction::Replace),
    ]);
    let header = (select(vec!["X", "x: 1", "x-y: 1,1", "X-Y 1"]), actions)
        .prop_map(|(line, mismatch)| HeaderRule { mismatch, ..HeaderRule::from_line(line) });
    let fields = (option::of(methods), option::of(paths), option::of(hosts));
    (fields, vec(header, 0..3), weighted(0.2)).prop_map(|((method, path, host), headers, grpc)| {
        let pattern = |text: Option<&str>| text.map(|text| Pattern::new(text).unwrap());
        let (method, path, host) = (pattern(method), pattern(path), pattern(host));
        HttpRule { part: "http[0]".into(), method, path, host, grpc, headers }
    })
}

proptest! {
    #[test]
    fn a_set_says_what_its_rules_say(
        rules in vec(some_rule(), 0..12),
        method in select(vec!["GET", "get", "PUT", "POST", "X"]),
        path in select(vec!["/", "/a", "/a?x", "/a/1", "/b/1", "/a/1/", ""]),
        authority in select(vec!["h", "h:80", "g", ""]),
        headers in vec(
            select(vec![("x", &b"1"[..]), ("X-Y", b"1"), ("X", b""), ("content-type", b"application/grpc")]),
            0..3,
        ),
        limit in select(vec![10 << 20, 4_000, 1]),
    ) {
        let request = HttpRequest { method, path, authority, headers: &headers };
        let set = HttpRuleSet::with_limit(rules.iter().zip(10..), limit);
        let one_by_one: Vec<(usize, Effects)> = rules
            .iter()
            .zip(10..)
            .filter_map(|(rule, index)| Some((index, rule.check(&request, &()).ok()?)))
            .collect();
        prop_assert_eq!(set.matches(&request, &()).collect::<Vec<_>>(), one_by_one);
    }
}
