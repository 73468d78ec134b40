use super::*;

fn policy(rest: &str) -> String {
    format!("apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n{rest}")
}

/// Formats what follows the kind of a policy.
fn rest(text: &str) -> String {
    let formatted = format(&policy(text)).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(format(&formatted).as_ref(), Ok(&formatted), "not stable");
    formatted.strip_prefix(&policy("")).unwrap_or_else(|| panic!("{formatted}")).to_owned()
}

#[test]
fn layout() {
    let cases = [
        (
            "flow becomes block",
            "spec: {a: [{b: 1}, [2, []], {}]}",
            "spec:\n  a:\n  - b: 1\n  - - 2\n    - []\n  - {}\n",
        ),
        (
            "lists are not indented",
            "a:\n    -   b:\n          - c\n        d: 1\n",
            "a:\n- b:\n  - c\n  d: 1\n",
        ),
        (
            "nothing is spelled null",
            "a:\nb: ~\nc: null\nd:\n-\n- ~\n-\n",
            "a: null\nb: null\nc: null\nd:\n- null\n- null\n- null\n",
        ),
        (
            "quotes",
            "a: 'x'\nb: \"80\"\nc: 80\nd: 'yes'\ne: '/a\\d'\nf: \"\"\ng: 'a: b'\n",
            "a: x\nb: \"80\"\nc: 80\nd: \"yes\"\ne: '/a\\d'\nf: \"\"\ng: \"a: b\"\n",
        ),
        ("lines are joined", "a: x\n  y\nb: 'x\n\n  y'\n", "a: x y\nb: \"x\\ny\"\n"),
        (
            "block scalars",
            "a: |\n      x\n\n        y\nb: |-\n z\nc: >-\n     one\n     two\n\n     three\nd: |\n",
            "a: |\n  x\n\n    y\nb: |-\n  z\nc: >-\n  one\n  two\n\n  three\nd: \"\"\n",
        ),
        (
            "one empty line at most",
            "\n\na: 1\n\n\n\nb:\n\n  c: 1\n\n  d: 1\n\n\n",
            "\na: 1\n\nb:\n  c: 1\n\n  d: 1\n",
        ),
        ("windows", "a: 1\r\nb: [x]\r\n", "a: 1\nb:\n- x\n"),
        (
            "order",
            "spec: {egress: [], x: 1, ingress: [], endpointSelector: {matchLabels: {z: a, b: c}}}\nmetadata: {namespace: n, name: m}\n",
            "metadata:\n  name: m\n  namespace: n\nspec:\n  endpointSelector:\n    matchLabels:\n      z: a\n      b: c\n  ingress: []\n  egress: []\n  x: 1\n",
        ),
    ];
    for (name, text, want) in cases {
        assert_eq!(rest(text), want, "{name}");
    }
}

#[test]
fn comments_stay_with_what_they_are_about() {
    let cases = [
        (
            "above and beside",
            "# m\nmetadata: # beside\n  # n\n  name: a  #   n\n",
            "# m\nmetadata: # beside\n  # n\n  name: a #   n\n",
        ),
        (
            "move with their field",
            "spec:\n  # out\n  egress: [] # o\n  # in\n  ingress: [] # i\n",
            "spec:\n  # in\n  ingress: [] # i\n  # out\n  egress: [] # o\n",
        ),
        (
            "in flow",
            "a: [ # head\n  x, # x\n  # y\n  y # yy\n  # end\n] # after\n",
            "# head\na: # after\n- x # x\n# y\n- y # yy\n# end\n",
        ),
        (
            "of elements",
            "a:\n- {b: 1, c: 2} # both\n- # dash\n  b: 1\n- x # x\n- {} # all\n",
            "a:\n# both\n- b: 1\n  c: 2\n# dash\n- b: 1\n- x # x\n- {} # all\n",
        ),
        (
            "above the first field of an element",
            "a:\n-\n  # one\n  to: []\n  # two\n  from: []\n",
            "a:\n# two\n- from: []\n  # one\n  to: []\n",
        ),
        (
            "taken out rules",
            "spec:\n  ingress:\n    - a\n    # - b\n  egress:\n    - c\n  # end of spec\n# end\n",
            "spec:\n  ingress:\n  - a\n  # - b\n  egress:\n  - c\n  # end of spec\n# end\n",
        ),
        (
            "below a field",
            "a:\n  # no\n  b\nc: | # text\n  # is text\n  x\n # after\nd: 1\n",
            "# no\na: b\nc: | # text\n  # is text\n  x\n# after\nd: 1\n",
        ),
        (
            "in nothing",
            "a: [ # none\n]\nb: # null\n# c\nc: {} # x\n",
            "a: [] # none\nb: null # null\n# c\nc: {} # x\n",
        ),
        (
            "with their empty lines",
            "a: 1\n\n# free\n\n# b\nb: 1\n\n# end\n",
            "a: 1\n\n# free\n\n# b\nb: 1\n\n# end\n",
        ),
    ];
    for (name, text, want) in cases {
        assert_eq!(rest(text), want, "{name}");
    }
}

#[test]
fn documents_keep_their_places() {
    let policy = "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\n";
    let formatted = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n";
    let other = "kind:   Pod\napiVersion: 'v1'\nx: &a [1]\ny: *a\n";
    let cases = [
        ("one", policy.to_owned(), formatted.to_owned()),
        ("nothing", String::new(), String::new()),
        ("only comments", "# a\n\n".to_owned(), "# a\n".to_owned()),
        ("marked", format!("---\n{policy}"), format!("---\n{formatted}")),
        ("no line end", policy.trim_end().to_owned(), formatted.to_owned()),
        ("mark of byte order", format!("\u{feff}{policy}"), formatted.to_owned()),
        (
            "others are left",
            format!("{other}\n---\n{policy}---\n{other}"),
            format!("{other}---\n{formatted}---\n{other}"),
        ),
        ("empty ones are dropped", format!("---\n---\n{policy}---\n\n---\n"), format!("---\n{formatted}")),
        (
            "behind the marker",
            format!("# a\n--- # b\n{policy}# c\n---\n# d\n"),
            format!("# a\n---\n# b\n{formatted}# c\n---\n# d\n"),
        ),
    ];
    for (name, text, want) in cases {
        assert_eq!(format(&text), Ok(want.clone()), "{name}");
        assert_eq!(format(&want), Ok(want), "{name}, again");
    }
}

#[test]
fn what_would_be_harmed_is_refused() {
    let cases = [
        ("a: &x [1]\n", 3, "anchors"),
        ("a: &x 1\n", 3, "anchors"),
        ("a: !!str 1\n", 3, "tags"),
        ("a: |2\n    x\n", 4, "text blocks"),
        ("a: |+\n  x\n\n\nb: 1\n", 4, "text blocks"),
        ("a: >\n\n  x\n", 5, "text blocks"),
        ("a: |\n  x\n   \n", 4, "text blocks"),
        ("a: |-\n  x\ty\u{7}\n", 4, ""),
        ("a: &x 1\nb: *x\n", 3, "anchors"),
        ("? [a]\n: 1\n", 3, ""),
        ("a: 1\na: 2\n", 4, "duplicate"),
        ("a: [1\n", 3, "bracket"),
        ("a: 1\n...\n", 4, "document ends"),
    ];
    for (text, line, reason) in cases {
        let text = policy(text);
        let error = format(&text).expect_err(&text);
        assert_eq!(error.line, line, "{text}{error}");
        assert!(error.reason.contains(reason), "{text}{error}");
        // Places count from the start of the text.
        let later = format(&format!("# first\n---\n{text}")).unwrap_err();
        assert_eq!((later.line, later.column), (line + 2, error.column), "{text}{later}");
    }
    assert!(format("%YAML 1.2\n---\na: 1\n").is_err());
}

#[test]
fn text_that_some_reader_takes_for_something_else_keeps_its_quotes() {
    let words = [
        "80",
        "0x1F",
        "1_000",
        "1e3",
        "-1",
        "+1",
        ".5",
        ".inf",
        "-.INF",
        "012",
        "12:30",
        "2001-01-01",
        "Yes",
        "off",
        "N",
        "Null",
        "TRUE",
        "~",
        "=",
        "<<",
        "",
        " a",
        "a ",
        "a:",
        "a: b",
        "a #b",
        "#a",
        "- a",
        "-",
        "[a]",
        "{a}",
        "*a",
        "&a",
        "!a",
        "|",
        ">",
        "%a",
        "@a",
        "`a",
        "'a",
        "?a",
        ",a",
        "::/0",
        "a\tb",
        "\u{1f}",
        "\u{85}",
    ];
    for word in words {
        let text = serde_json::json!({ "a": word }).to_string();
        let formatted = rest(&format!("spec: {text}\n"));
        assert!(
            formatted.starts_with("spec:\n  a: \"") || formatted.starts_with("spec:\n  a: '"),
            "{word}: {formatted}"
        );
    }
}

#[test]
fn text_that_nobody_takes_for_something_else_needs_no_quotes() {
    for word in [
        "web",
        "10.0.0.0/8",
        "2001:db8::/32",
        "k8s:app",
        "/api/.*",
        "^/a$",
        "io.kubernetes.pod.namespace",
        "a#b",
        "it's",
    ] {
        let formatted = rest(&format!("spec: {}\n", serde_json::json!({ "a": word })));
        let plain = !word.contains('#');
        assert_eq!(formatted == format!("spec:\n  a: {word}\n"), plain, "{formatted}");
    }
}

#[test]
fn every_field_has_its_place() {
    fn fields(schema: &serde_json::Value, found: &mut Vec<String>) {
        match schema {
            serde_json::Value::Object(keywords) => {
                if let Some(serde_json::Value::Object(properties)) = keywords.get("properties") {
                    found.extend(properties.keys().cloned());
                }
                keywords.values().for_each(|value| fields(value, found));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|value| fields(value, found)),
            serde_json::Value::String(_)
            | serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_) => {}
        }
    }
    let mut found = Vec::new();
    for kind in [
        Kind::CiliumNetworkPolicy,
        Kind::CiliumClusterwideNetworkPolicy,
        Kind::CiliumCidrGroup,
        Kind::NetworkPolicy,
        Kind::ClusterNetworkPolicy,
    ] {
        fields(&sluice_api::schema::json_schema(kind), &mut found);
    }
    found.sort();
    found.dedup();
    assert!(found.len() > 100, "{found:?}");
    let missing: Vec<&String> = found.iter().filter(|field| !order::is_known(field)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
