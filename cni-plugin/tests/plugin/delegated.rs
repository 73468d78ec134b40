//! Addresses from another plugin: the reference `host-local`, and plugins that misbehave.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::lab::{Lab, Pod};

/// A configuration with `host-local` and its data below the lab's directory.
fn config(lab: &Lab, changes: &Value) -> Value {
    let range = |subnet: &str| json!([{ "subnet": subnet }]);
    let mut config = lab.config(&json!({
        "cniVersion": "1.0.0",
        "ipam": {
            "type": "host-local",
            "dataDir": lab.path().join("host-local"),
            "ranges": [range("10.7.0.0/29"), range("fd07::/64")],
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    }));
    for (key, value) in changes.as_object().unwrap() {
        config.as_object_mut().unwrap().insert(key.clone(), value.clone());
    }
    config
}

/// The addresses that `host-local` has handed out.
fn handed_out(lab: &Lab) -> Vec<String> {
    let entries = std::fs::read_dir(lab.path().join("host-local/pods")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("10.") || name.starts_with("fd")).collect();
    names.sort();
    names
}

#[track_caller]
fn assert_clean(lab: &Lab, pod: &Pod) {
    assert_eq!(lab.traces(Some(pod)), [""; 0]);
    assert_eq!(handed_out(lab), [""; 0]);
}

#[test]
fn host_local() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    let result = lab.call("ADD", pod.netns.path(), &config(&lab, &json!({}))).run().result();
    assert_eq!(handed_out(&lab), ["10.7.0.2", "fd07::2"]);
    assert_eq!(
        result["ips"][0],
        json!({ "address": "10.7.0.2/32", "gateway": "169.254.1.1", "interface": 1 })
    );
    assert_eq!(result["ips"][1]["address"], "fd07::2/128");
    {
        let state = lab.state();
        let endpoint = state.endpoints.values().next().unwrap();
        assert!(!endpoint.own_ipam && !endpoint.chained);
        assert_eq!(endpoint.ipv4.unwrap().to_string(), "10.7.0.2");
        assert!(state.leases.is_empty());
    }
    let with_result = config(&lab, &json!({ "prevResult": result }));
    lab.call("CHECK", pod.netns.path(), &with_result).run().silent();
    for address in handed_out(&lab) {
        std::fs::remove_file(lab.path().join("host-local/pods").join(address)).unwrap();
    }
    let message = lab.call("CHECK", pod.netns.path(), &with_result).run();
    assert!(!message.success && message.stdout.contains("IPAM plugin host-local"), "{message:?}");
    lab.call("DEL", pod.netns.path(), &with_result).run().silent();
    lab.call("DEL", pod.netns.path(), &with_result).run().silent();
    assert_clean(&lab, &pod);
}

#[test]
fn a_failed_add_gives_the_addresses_back() {
    let mut lab = Lab::new();
    let pod = lab.pod("pod");
    let add = |lab: &Lab| lab.call("ADD", pod.netns.path(), &config(lab, &json!({}))).run();
    lab.state().refuse = Some(("POST /v1/endpoints".to_owned(), 409, "conflict".to_owned()));
    add(&lab).refused(101);
    lab.state().refuse = None;
    assert_clean(&lab, &pod);
    lab.stop_agent();
    add(&lab).refused(11);
    assert_clean(&lab, &pod);
    // DEL reaches the IPAM plugin without the agent, too.
    lab.start_agent();
    add(&lab).result();
    lab.stop_agent();
    lab.call("DEL", pod.netns.path(), &config(&lab, &json!({}))).run().silent();
    assert_eq!(handed_out(&lab), [""; 0]);
}

#[test]
fn killed_between_address_and_interface() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    for step in ["AddLeased", "AddVethCreated", "AddEndpointCreated"] {
        let call = lab.call("ADD", pod.netns.path(), &config(&lab, &json!({})));
        assert!(call.env("SLUICE_CNI_TEST_STOP_AFTER", step).run().killed);
        assert_eq!(handed_out(&lab).len(), 2);
        lab.call("ADD", pod.netns.path(), &config(&lab, &json!({}))).run().result();
        assert_eq!(handed_out(&lab).len(), 2, "{step}");
        lab.call("DEL", pod.netns.path(), &config(&lab, &json!({}))).run().silent();
        assert_clean(&lab, &pod);
    }
}

/// Row 26 of the bad inputs: the plugin's files were edited, and it hands out an address that is in use.
#[test]
fn an_address_that_is_in_use() {
    let lab = Lab::new();
    let (one, two) = (lab.pod("one"), lab.pod("two"));
    lab.call("ADD", one.netns.path(), &config(&lab, &json!({}))).run().result();
    std::fs::remove_dir_all(lab.path().join("host-local")).unwrap();
    let second = lab.call("ADD", two.netns.path(), &config(&lab, &json!({}))).env("CNI_CONTAINERID", "two");
    let message = second.run().refused(106);
    assert!(message.contains("10.7.0.2/32"), "{message}");
    assert_eq!(lab.state().endpoints.len(), 1);
    assert!(two.netlink().find_link("eth0").unwrap().is_none());
    assert!(one.netlink().find_link("eth0").unwrap().is_some_and(|link| link.is_up));

    // And one that the node itself has.
    let mut node = lab.netlink();
    let loopback = node.link("lo").unwrap().index;
    node.add_address(loopback, "10.7.0.3/32".parse().unwrap()).unwrap();
    let third = lab.call("ADD", two.netns.path(), &config(&lab, &json!({}))).env("CNI_CONTAINERID", "two");
    let message = third.run().refused(109);
    assert!(message.contains("10.7.0.3 is an address of the node"), "{message}");
}

#[test]
fn plugins_that_misbehave() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    let plugins = lab.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let log = lab.path().join("log");
    let ips = |list: &str| format!("echo '{{\"cniVersion\": \"1.0.0\", \"ips\": [{list}]}}'");
    let address = |address: &str| format!("{{\"address\": \"{address}\"}}");
    let two = ips(&format!("{},{}", address("10.7.0.2/24"), address("10.7.0.3/24")));
    let cases = [
        ("no-json", "echo hello".to_owned(), 6),
        ("no-ips", ips(""), 109),
        ("two-ips", two, 109),
        ("loopback", ips(&address("127.0.0.1/8")), 109),
        ("bad-ip", ips(&address("10.7.0.2")), 6),
        ("refuses", "echo '{\"code\": 117, \"msg\": \"out of luck\"}'; exit 1".to_owned(), 117),
        ("dies", "kill -9 $$".to_owned(), 108),
        ("fails-silently", "exit 3".to_owned(), 108),
        ("floods", "head -c 3000000 /dev/zero; exit 0".to_owned(), 6),
    ];
    for (name, script, code) in cases {
        let path = plugins.join(name);
        let body = format!("#!/bin/sh\necho $CNI_COMMAND >> {}\ncat > /dev/null\n{script}\n", log.display());
        std::fs::write(&path, body).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(&log, "").unwrap();
        let config = lab.config(&json!({ "cniVersion": "1.0.0", "ipam": { "type": name } }));
        let call = lab.call("ADD", pod.netns.path(), &config).env("CNI_PATH", plugins.to_str().unwrap());
        let outcome = call.run();
        // A refusal is tried twice, with a deletion between: what failed might be left of an ADD that was killed.
        outcome.refused(code);
        let asked = std::fs::read_to_string(&log).unwrap();
        assert!(asked.starts_with("ADD\n") && asked.ends_with("DEL\n"), "{name}: {asked}");
        assert_eq!(lab.traces(Some(&pod)), [""; 0], "{name}");
    }
    for (name, path) in
        [("missing", plugins.to_str().unwrap()), ("host-local", ""), ("plain", plugins.to_str().unwrap())]
    {
        std::fs::write(plugins.join("plain"), "not executable").unwrap();
        let config = lab.config(&json!({ "cniVersion": "1.0.0", "ipam": { "type": name } }));
        lab.call("ADD", pod.netns.path(), &config).env("CNI_PATH", path).run().refused(108);
    }
}

#[test]
fn status_and_gc_go_on_to_plugins_that_have_them() {
    let lab = Lab::new();
    let plugins = lab.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let log = lab.path().join("log");
    for (name, versions) in [("old", "\"1.0.0\""), ("new", "\"1.0.0\", \"1.1.0\"")] {
        let script = format!(
            "#!/bin/sh\ncat > /dev/null\nif [ $CNI_COMMAND = VERSION ]; then echo '{{\"supportedVersions\": [{versions}]}}'\n\
             else echo {name} $CNI_COMMAND >> {}; fi\n",
            log.display()
        );
        std::fs::write(plugins.join(name), script).unwrap();
        std::fs::set_permissions(plugins.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = lab.config(&json!({ "ipam": { "type": name }, "cni.dev/valid-attachments": [] }));
        for verb in ["STATUS", "GC"] {
            let call = lab.call(verb, lab.path(), &config).env("CNI_PATH", plugins.to_str().unwrap());
            call.env("CNI_CONTAINERID", "").env("CNI_IFNAME", "").env("CNI_NETNS", "").run().silent();
        }
    }
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "new STATUS\nnew GC\n");
}
