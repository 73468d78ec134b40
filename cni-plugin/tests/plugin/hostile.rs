//! Input that no honest runtime sends: each is refused with the right code, and nothing is changed.

use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use crate::lab::{CONTAINER, Lab};

const VERBS: [&str; 5] = ["ADD", "DEL", "CHECK", "GC", "STATUS"];

#[test]
fn standard_input() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    let deep = "[".repeat(100_000);
    let huge = vec![b' '; 2 << 20];
    let long_text = format!("{{\"cniVersion\": \"1.1.0\", \"name\": \"{}\"}}", "x".repeat(2 << 20));
    let long_name = format!("{{\"cniVersion\": \"1.1.0\", \"name\": \"{}\"}}", "x".repeat(1000));
    let previous =
        |version: &str| lab.config(&json!({ "prevResult": { "cniVersion": version } })).to_string();
    let (other, unknown) = (previous("0.4.0"), previous("7.0.0"));
    let cases: [(&str, &[u8], u64); 17] = [
        ("nothing", b"", 6),
        ("white space", b" \n\t ", 6),
        ("2 MiB of white space", &huge, 6),
        ("2 MiB of name", long_text.as_bytes(), 6),
        ("1000 bytes of name", long_name.as_bytes(), 7),
        ("no JSON", b"cniVersion: 1.0.0", 6),
        ("cut off", br#"{"cniVersion": "1.1.0", "na"#, 6),
        ("two documents", br#"{"cniVersion": "1.1.0"} {}"#, 6),
        ("invalid UTF-8", b"{\"cniVersion\": \"1.1.0\", \"name\": \"\xff\xfe\"}", 6),
        ("deep nesting", deep.as_bytes(), 6),
        ("a list", b"[]", 6),
        ("null", b"null", 6),
        ("no version", br#"{"name": "pods"}"#, 1),
        ("wrong version", br#"{"cniVersion": "9.9.9", "name": "pods"}"#, 1),
        ("version of a wrong type", br#"{"cniVersion": ["1.1.0"], "name": "pods"}"#, 6),
        ("result of another version", other.as_bytes(), 7),
        ("result of no version", unknown.as_bytes(), 7),
    ];
    for verb in VERBS {
        for (name, input, code) in cases {
            let outcome = lab.call(verb, pod.netns.path(), &json!({})).input(input).run();
            assert!(!outcome.success, "{verb} {name}: {outcome:?}");
            let message = outcome.refused(code);
            assert!(message.len() < 500, "{verb} {name}: {message}");
        }
    }
    assert_eq!(lab.traces(Some(&pod)), [""; 0]);
    assert!(lab.state().requests.is_empty(), "the agent was not asked for anything");
}

#[test]
fn environment() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    let long = "a".repeat(4096);
    let cases = [
        ("CNI_COMMAND", ""),
        ("CNI_COMMAND", "ADD;DEL"),
        ("CNI_COMMAND", "add"),
        ("CNI_CONTAINERID", ""),
        ("CNI_CONTAINERID", "../../etc"),
        ("CNI_CONTAINERID", "a/b"),
        ("CNI_CONTAINERID", &long),
        ("CNI_IFNAME", ""),
        ("CNI_IFNAME", "../x"),
        ("CNI_IFNAME", "lo"),
        ("CNI_IFNAME", "sixteen-letters-"),
        ("CNI_IFNAME", "eth%d"),
        ("CNI_NETNS", ""),
        ("CNI_NETNS", "netns/pod"),
        ("CNI_ARGS", "K8S_POD_NAME=a;K8S_POD_NAME=b"),
        ("CNI_ARGS", "nonsense"),
    ];
    for (key, value) in cases {
        let outcome = lab.call("ADD", pod.netns.path(), &lab.config(&json!({}))).env(key, value).run();
        outcome.refused(4);
    }
    assert_eq!(lab.traces(Some(&pod)), [""; 0]);
    assert!(lab.state().requests.is_empty());
}

#[test]
fn namespaces() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    let at = |name: &str| lab.path().join(name);
    std::fs::write(at("file"), "").unwrap();
    symlink(pod.netns.path(), at("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    let mut gone = lab.pod("gone");
    gone.remove();
    let cases = [
        (at("file"), 4),
        (at("link"), 4),
        (at("fifo"), 4),
        (lab.path().to_owned(), 4),
        (Path::new("/dev/zero").to_owned(), 4),
        (Path::new("/proc/self/ns/mnt").to_owned(), 4),
        (Path::new("/proc/self/ns/net").to_owned(), 4),
        (Path::new("/proc/1/ns/net").to_owned(), 4),
        (lab.node.path().to_owned(), 4),
        (gone.netns.path().to_owned(), 3),
        (at("none"), 3),
    ];
    for (path, code) in cases {
        for verb in ["ADD", "CHECK"] {
            let config = lab.config(&if verb == "ADD" { json!({}) } else { json!({ "prevResult": {} }) });
            lab.call(verb, &path, &config).run().refused(code);
        }
        lab.call("DEL", &path, &lab.config(&json!({}))).run().silent();
    }
    assert_eq!(lab.traces(Some(&pod)), [""; 0]);
    assert!(!lab.state().requests.iter().any(|request| request.starts_with("POST")));
}

#[test]
fn version_needs_nothing() {
    let lab = Lab::new();
    let ask = |input: &[u8]| {
        let call = lab.call("VERSION", lab.path(), &json!({})).input(input);
        let names = ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_PATH", "CNI_ARGS"];
        names.into_iter().fold(call, |call, name| call.env(name, "")).run()
    };
    let all = json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    for (input, asked_in) in [("", "1.1.0"), (r#"{"cniVersion": "0.4.0"}"#, "0.4.0"), ("{}", "1.1.0")] {
        let answer = ask(input.as_bytes()).result();
        assert_eq!(
            (&answer["cniVersion"], &answer["supportedVersions"]),
            (&json!(asked_in), &all),
            "{input}"
        );
    }
    ask(b"nonsense").refused(6);
    ask(b"[]").refused(6);
}

#[test]
fn previous_results() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    let cases = [
        (json!("x"), 6),
        (json!({ "ips": "10.0.0.1" }), 6),
        (json!({ "ips": [{ "address": "10.0.0.1/99" }] }), 6),
        (json!({ "ips": [{ "address": "10.0.0.1/8", "interface": 3 }], "interfaces": [{ "name": "x" }] }), 6),
        (json!({ "interfaces": [{ "name": 5 }] }), 6),
        (json!({}), 7),
        (json!({ "ips": [{ "address": "10.0.0.1/8" }, { "address": "10.0.0.2/8" }] }), 7),
        (json!({ "ips": [{ "address": "127.0.0.1/8" }] }), 7),
        (json!({ "ips": [{ "address": "10.0.0.1/8" }] }), 111),
    ];
    for (previous, code) in cases {
        let config = lab.config(&json!({ "prevResult": previous }));
        lab.call("ADD", pod.netns.path(), &config).run().refused(code);
    }
    // Names of interfaces that lead out of the directory of the pins.
    let names = ["../../../x", "/etc", "a/../b", "."].map(|name| json!({ "name": name }));
    let config = lab.config(&json!({ "prevResult": { "interfaces": names } }));
    lab.call("DEL", pod.netns.path(), &config).run().silent();
    assert_eq!(lab.traces(Some(&pod)), [""; 0]);
}

#[test]
fn the_longest_names() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    let config = lab.config(&json!({ "name": "n".repeat(64) }));
    let id = "c".repeat(128);
    let call = |verb| {
        let call = lab.call(verb, pod.netns.path(), &config);
        call.env("CNI_CONTAINERID", &id).env("CNI_IFNAME", "fifteen-letters").run()
    };
    call("ADD").result();
    assert_ne!(id, CONTAINER);
    call("DEL").silent();
    assert_eq!(lab.traces(Some(&pod)), [""; 0]);
}
