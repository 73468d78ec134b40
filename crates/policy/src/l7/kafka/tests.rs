use super::*;

fn rule(kinds: Option<Kinds>, topic: Option<&str>) -> KafkaRule {
    KafkaRule {
        part: "kafka[0]".into(),
        kinds,
        api_version: None,
        client_id: None,
        topic: topic.map(Into::into),
    }
}

fn ask<'a>(name: &str, topics: &'a [&'a str]) -> KafkaRequest<'a> {
    let api_key = api_key(name).unwrap();
    KafkaRequest { api_key, api_version: 9, client_id: Some("c"), topics, unknown_topics: 0 }
}

fn passes(rules: &[&KafkaRule], request: &KafkaRequest<'_>) -> bool {
    matches!(check(rules, request), Finding::Named(_))
}

#[test]
fn roles_cover_what_clients_send() {
    let produce = rule(Kinds::role("produce"), Some("orders"));
    let consume = rule(Kinds::role("consume"), Some("orders"));
    let (own, other) = (&["orders"][..], &["payments"][..]);
    for (name, topics, produces, consumes) in [
        ("produce", own, true, false),
        ("produce", other, false, false),
        ("fetch", own, false, true),
        ("fetch", other, false, false),
        ("metadata", own, true, true),
        ("metadata", other, false, false),
        ("metadata", &[], true, true),
        ("apiversions", &[], true, true),
        ("initproducerid", &[], true, false),
        ("addpartitionstotxn", other, false, false),
        ("txnoffsetcommit", own, true, false),
        ("joingroup", &[], false, true),
        ("consumergroupheartbeat", own, false, true),
        ("saslhandshake", &[], true, true),
        ("createtopics", own, false, false),
        ("deletetopics", own, false, false),
        ("alterconfigs", &[], false, false),
    ] {
        let request = ask(name, topics);
        assert_eq!(
            (passes(&[&produce], &request), passes(&[&consume], &request)),
            (produces, consumes),
            "{name}"
        );
    }
}

#[test]
fn every_topic_must_be_covered() {
    let kinds = || Kinds::named("Produce");
    let (a, b, any) = (rule(kinds(), Some("a")), rule(kinds(), Some("b")), rule(kinds(), None));
    assert!(passes(&[&a, &b], &ask("produce", &["a", "b"])));
    assert_eq!(check(&[&a, &b], &ask("produce", &["a", "b"])), Finding::Named(vec![0, 1]));
    assert!(!passes(&[&a], &ask("produce", &["a", "b"])));
    assert!(passes(&[&any], &ask("produce", &["a", "b"])));
    assert!(!passes(&[], &ask("produce", &[])));
    let unknown = KafkaRequest { unknown_topics: 1, ..ask("produce", &["a"]) };
    assert!(!passes(&[&a], &unknown), "a topic whose name is not known is not covered by a name");
    assert!(passes(&[&any], &unknown));
    let (every_kind, of_topic) = (rule(None, None), rule(None, Some("a")));
    for (api_key, want) in [(92, true), (93, false), (-1, false)] {
        let request = KafkaRequest { api_key, ..ask("produce", &[]) };
        assert_eq!(passes(&[&of_topic], &request), want, "{api_key}: may be about any topic");
        assert!(passes(&[&every_kind], &request), "{api_key}");
    }
    let Finding::Unnamed(why) = check(&[&a], &ask("produce", &["b"])) else { panic!() };
    assert_eq!(why[0].1.to_string(), "topic b is not a");
    let Finding::Unnamed(why) = check(&[&a], &ask("fetch", &["a"])) else { panic!() };
    assert_eq!(why[0].1.to_string(), "API key fetch is not produce");
}

#[test]
fn versions_and_clients() {
    let versioned = KafkaRule { api_version: Some(9), ..rule(None, None) };
    let named = KafkaRule { client_id: Some("c".into()), ..rule(None, None) };
    assert!(passes(&[&versioned], &ask("fetch", &[])) && passes(&[&named], &ask("fetch", &[])));
    assert!(!passes(&[&versioned], &KafkaRequest { api_version: 8, ..ask("fetch", &[]) }));
    assert!(!passes(&[&named], &KafkaRequest { client_id: None, ..ask("fetch", &[]) }));
    assert!(!passes(&[&named], &KafkaRequest { client_id: Some("d"), ..ask("fetch", &[]) }));
}

#[test]
fn names_and_numbers_are_one_to_one() {
    let mut numbers: Vec<i16> = API_KEYS.iter().map(|(key, _)| *key).collect();
    numbers.dedup();
    assert_eq!(numbers.len(), API_KEYS.len());
    assert!(numbers.is_sorted());
    for (key, name) in API_KEYS {
        assert_eq!((api_key(name), api_name(*key)), (Some(*key), Some(*name)));
    }
    assert_eq!(api_key("ListOffsets"), Some(2));
    assert_eq!(api_key("nothing"), None);
}
