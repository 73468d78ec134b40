//! After the reference plugins `ptp` and `bridge`, and before `portmap`.

use std::path::Path;

use serde_json::{Value, json};
use sluice_ebpf_loader::attach;

use crate::lab::{Lab, Outcome, Pod};

fn other(lab: &Lab, plugin: &str) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "pods", "type": plugin, "bridge": "cni-test",
        "ipam": {
            "type": "host-local", "dataDir": lab.path().join("host-local"),
            "ranges": [[{ "subnet": "10.8.0.0/24" }], [{ "subnet": "fd08::/64" }]],
        },
    })
}

fn run_other(lab: &Lab, verb: &str, pod: &Pod, plugin: &str, previous: Option<&Value>) -> Outcome {
    let mut config = other(lab, plugin);
    if let Some(previous) = previous {
        config["prevResult"] = previous.clone();
    }
    lab.call(verb, pod.netns.path(), &config).run_program(&Path::new("/usr/lib/cni").join(plugin))
}

fn ours(lab: &Lab, verb: &str, pod: &Pod, previous: &Value) -> Outcome {
    let config = lab.config(&json!({ "cniVersion": "1.0.0", "prevResult": previous }));
    lab.call(verb, pod.netns.path(), &config).run()
}

#[test]
fn on_veths_of_ptp_and_bridge() {
    for plugin in ["ptp", "bridge"] {
        let lab = Lab::new();
        let pod = lab.pod("pod");
        let previous = run_other(&lab, "ADD", &pod, plugin, None).result();
        let result = ours(&lab, "ADD", &pod, &previous).result();
        assert_eq!(result, previous, "{plugin}: the result is passed on");
        let host = {
            let state = lab.state();
            let endpoint = state.endpoints.values().next().unwrap();
            assert!(endpoint.chained && !endpoint.own_ipam);
            assert_eq!(endpoint.ipv4.unwrap().to_string(), "10.8.0.2");
            assert_eq!(endpoint.ipv6.unwrap().to_string(), "fd08::2");
            assert_eq!(endpoint.mac, pod.netlink().link("eth0").unwrap().mac.unwrap().to_string());
            assert_eq!(state.requests, ["GET /v1/status", "POST /v1/endpoints"]);
            (endpoint.host_ifname.clone(), endpoint.host_ifindex)
        };
        assert!(host.0.starts_with("veth"), "{host:?}");
        let is_attached =
            || lab.node.run(|| attach::is_attached(&lab.pins(), &host.0, host.1)).unwrap().unwrap();
        assert!(is_attached());
        ours(&lab, "CHECK", &pod, &result).silent();
        lab.node.run(|| attach::detach(&lab.pins(), &host.0)).unwrap().unwrap();
        assert!(ours(&lab, "CHECK", &pod, &result).refused(110).contains("not attached"));
        lab.node.run(|| attach::attach_container(&lab.pins(), &host.0, host.1)).unwrap().unwrap();

        ours(&lab, "DEL", &pod, &result).silent();
        assert!(!is_attached());
        assert!(pod.netlink().find_link("eth0").unwrap().is_some(), "the interface is the other plugin's");
        run_other(&lab, "DEL", &pod, plugin, Some(&previous)).silent();
        ours(&lab, "DEL", &pod, &result).silent();
        assert_eq!(attach::pinned_interfaces(&lab.pins()).unwrap(), [""; 0]);
        assert!(lab.state().endpoints.is_empty());
    }
}

/// Runtimes delete in reverse order, but after a crash the interface may be gone first.
#[test]
fn deleted_after_the_interface_is_gone() {
    let lab = Lab::new();
    let mut pod = lab.pod("pod");
    let previous = run_other(&lab, "ADD", &pod, "ptp", None).result();
    ours(&lab, "ADD", &pod, &previous).result();
    pod.remove();
    let path = pod.netns.path().to_owned();
    drop(pod);
    let config = lab.config(&json!({ "cniVersion": "1.0.0", "prevResult": previous }));
    lab.call("DEL", &path, &config).run().silent();
    assert_eq!(attach::pinned_interfaces(&lab.pins()).unwrap(), [""; 0]);
    assert!(lab.state().endpoints.is_empty());
}

#[test]
fn a_failed_add_leaves_the_other_plugins_work() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    let previous = run_other(&lab, "ADD", &pod, "ptp", None).result();
    lab.state().refuse = Some(("POST /v1/endpoints".to_owned(), 409, "conflict".to_owned()));
    ours(&lab, "ADD", &pod, &previous).refused(101);
    lab.state().refuse = None;
    assert_eq!(attach::pinned_interfaces(&lab.pins()).unwrap(), [""; 0]);
    assert!(pod.netlink().find_link("eth0").unwrap().is_some_and(|link| link.is_up));
    // Killed with the programs attached, then again.
    for step in ["AddProgramsAttached", "AddEndpointCreated"] {
        let config = lab.config(&json!({ "cniVersion": "1.0.0", "prevResult": previous }));
        let call = lab.call("ADD", pod.netns.path(), &config).env("SLUICE_CNI_TEST_STOP_AFTER", step);
        assert!(call.run().killed);
        ours(&lab, "ADD", &pod, &previous).result();
        ours(&lab, "CHECK", &pod, &previous).silent();
        ours(&lab, "DEL", &pod, &previous).silent();
        assert_eq!(attach::pinned_interfaces(&lab.pins()).unwrap(), [""; 0], "{step}");
    }
    let config = lab
        .config(&json!({ "cniVersion": "1.0.0", "prevResult": previous, "ipam": { "type": "host-local" } }));
    lab.call("ADD", pod.netns.path(), &config).run().refused(7);
}

#[test]
fn portmap_works_with_our_result() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    let result = {
        let config = lab.config(&json!({ "cniVersion": "1.0.0" }));
        lab.call("ADD", pod.netns.path(), &config).run().result()
    };
    let portmap = |verb: &str, result: &Value| {
        let config = json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "portmap", "snat": true, "prevResult": result,
            "runtimeConfig": { "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }] },
        });
        lab.call(verb, pod.netns.path(), &config).run_program(Path::new("/usr/lib/cni/portmap"))
    };
    let passed_on = portmap("ADD", &result).result();
    assert_eq!(passed_on["ips"], result["ips"]);
    // DEL and CHECK get the result of the whole list.
    let config = lab.config(&json!({ "cniVersion": "1.0.0", "prevResult": passed_on }));
    lab.call("CHECK", pod.netns.path(), &config).run().silent();
    portmap("DEL", &passed_on).silent();
    lab.call("DEL", pod.netns.path(), &config).run().silent();
    assert_eq!(lab.traces(Some(&pod)), [""; 0]);
}
