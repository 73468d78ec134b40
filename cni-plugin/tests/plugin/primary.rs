//! Primary mode with the agent's own addresses.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use sluice_ebpf_loader::attach;
use sluice_netlink::{VethSpec, sysctl};

use crate::lab::{CONTAINER, Lab, Pod, timed};

#[test]
fn add_check_del() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    let config = lab.config(&json!({ "dns": { "nameservers": ["10.0.0.10"] } }));
    let result = lab.call("ADD", pod.netns.path(), &config).run().result();

    let host = lab.host_link();
    assert_eq!(result["cniVersion"], "1.1.0");
    assert_eq!(result["dns"]["nameservers"][0], "10.0.0.10");
    let interfaces = result["interfaces"].as_array().unwrap();
    assert_eq!(
        interfaces[0],
        json!({ "name": host.name, "mac": host.mac.unwrap().to_string(), "mtu": 1450, "sandbox": "" })
    );
    assert_eq!((&interfaces[1]["name"], &interfaces[1]["mtu"]), (&json!("eth0"), &json!(1450)));
    assert_eq!(interfaces[1]["sandbox"], pod.netns.path().to_str().unwrap());
    let ips: Vec<_> =
        result["ips"].as_array().unwrap().iter().map(|ip| (&ip["address"], &ip["gateway"])).collect();
    let expected =
        [(&json!("10.244.0.1/32"), &json!("169.254.1.1")), (&json!("fd00:10:244::1/128"), &json!("fe80::1"))];
    assert_eq!(ips, expected);
    assert_eq!(result["routes"][1], json!({ "dst": "::/0", "gw": "fe80::1" }));

    // The kernel says the same.
    let mut inside = pod.netlink();
    let eth0 = inside.link("eth0").unwrap();
    assert!(eth0.is_up && host.is_up && eth0.mtu == 1450);
    assert_eq!(interfaces[1]["mac"], eth0.mac.unwrap().to_string());
    let addresses = inside.addresses(Some(eth0.index)).unwrap();
    for net in ["10.244.0.1/32", "fd00:10:244::1/128"] {
        let own = addresses.iter().find(|own| own.net.to_string() == net).unwrap();
        assert!(!own.is_tentative, "{net}");
    }
    let neighbours = inside.neighbours(Some(eth0.index)).unwrap();
    for gateway in ["169.254.1.1", "fe80::1"] {
        let gateway: IpAddr = gateway.parse().unwrap();
        assert!(neighbours.iter().any(|one| one.ip == gateway && one.is_permanent && one.mac == host.mac));
        assert!(inside.routes().unwrap().iter().any(|one| one.gateway == Some(gateway) && one.is_default()));
    }
    let routes = lab.netlink().routes().unwrap();
    for net in ["10.244.0.1/32", "fd00:10:244::1/128"] {
        let own = |route: &&sluice_netlink::Route| route.destination.to_string() == net;
        assert_eq!(routes.iter().find(own).unwrap().ifindex, host.index);
    }
    let is_attached = lab.node.run(|| attach::is_attached(&lab.pins(), &host.name, host.index)).unwrap();
    assert!(is_attached.unwrap());
    let rp_filter = lab.node.run(|| sysctl::read(&["net", "ipv4", "conf", &host.name, "rp_filter"])).unwrap();
    assert_eq!(rp_filter.unwrap(), "0");
    let accept_ra = pod.netns.run(|| sysctl::read(&["net", "ipv6", "conf", "eth0", "accept_ra"])).unwrap();
    assert_eq!(accept_ra.unwrap(), "0");

    // The agent heard what is true.
    {
        let state = lab.state();
        let endpoint = state.endpoints.values().next().unwrap();
        assert_eq!((endpoint.host_ifindex, &endpoint.host_ifname), (host.index, &host.name));
        assert_eq!(
            (&endpoint.mac, &endpoint.host_mac),
            (&eth0.mac.unwrap().to_string(), &host.mac.unwrap().to_string())
        );
        assert_eq!(endpoint.pod_namespace.as_deref(), Some("shop"));
        assert_eq!((endpoint.pod_name.as_deref(), endpoint.pod_uid.as_deref()), (Some("web-0"), Some("u-1")));
        assert!(endpoint.own_ipam && !endpoint.chained);
        assert_eq!(state.requests, ["POST /v1/ipam", "POST /v1/endpoints"]);
    }

    let config = lab.config(&json!({ "prevResult": result }));
    lab.call("CHECK", pod.netns.path(), &config).run().silent();
    assert!(lab.add(&pod).refused(105).contains("already"), "a complete attachment is not replaced");
    lab.call("CHECK", pod.netns.path(), &config).run().silent();
    lab.call("DEL", pod.netns.path(), &config).run().silent();
    assert_eq!(lab.traces(Some(&pod)), [""; 0]);
    lab.call("DEL", pod.netns.path(), &config).run().silent();
    lab.add(&pod).result();
    lab.del(&pod).silent();
    assert_eq!(lab.traces(Some(&pod)), [""; 0]);
}

/// The agent of these tests never says in the kernel that an endpoint is ready, so nothing may pass, although the
/// ways are there.
#[test]
fn closed_until_the_policy_is_there() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    lab.add(&pod).result();
    let mut node = lab.netlink();
    let loopback = node.link("lo").unwrap().index;
    for (own, target) in
        [("10.244.0.254/32", "10.244.0.254:9"), ("fd00:10:244::fe/128", "[fd00:10:244::fe]:9")]
    {
        node.add_address(loopback, own.parse().unwrap()).unwrap();
        let server = lab.node.run(|| UdpSocket::bind(target).unwrap()).unwrap();
        server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let any = if own.contains('.') { "0.0.0.0:0" } else { "[::]:0" };
        let client = pod.netns.run(|| UdpSocket::bind(any).unwrap()).unwrap();
        let arrives = |what: &str| {
            client.send_to(what.as_bytes(), target).unwrap();
            server.recv_from(&mut [0; 16]).is_ok()
        };
        let host = lab.host_link();
        assert!(!arrives("early"), "{own}");
        lab.node.run(|| attach::detach(&lab.pins(), &host.name)).unwrap().unwrap();
        assert!(arrives("without programs"), "{own}: the way itself is open");
        lab.node.run(|| attach::attach_container(&lab.pins(), &host.name, host.index)).unwrap().unwrap();
        assert!(!arrives("again"), "{own}");
    }
}

#[test]
fn results_of_every_version() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let config = lab.config(&json!({ "cniVersion": version, "mtu": 1400 }));
        let result = lab.call("ADD", pod.netns.path(), &config).run().result();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["ips"][0].get("version").is_some(), version < "1.0.0", "{version}");
        assert_eq!(lab.host_link().mtu, 1400);
        let config = lab.config(&json!({ "cniVersion": version, "mtu": 1400, "prevResult": result }));
        let check = lab.call("CHECK", pod.netns.path(), &config).run();
        if version < "0.4.0" {
            drop(check.refused(1))
        } else {
            check.silent()
        }
        lab.call("DEL", pod.netns.path(), &lab.config(&json!({ "cniVersion": version }))).run().silent();
        assert_eq!(lab.traces(Some(&pod)), [""; 0], "{version}");
    }
}

#[test]
fn check_names_every_drift() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    let result = lab.add(&pod).result();
    let config = lab.config(&json!({ "prevResult": result }));
    let check = || lab.call("CHECK", pod.netns.path(), &config).run();
    check().silent();
    lab.call("CHECK", pod.netns.path(), &lab.config(&json!({}))).run().refused(7);

    let host = lab.host_link();
    let (mut node, mut inside) = (lab.netlink(), pod.netlink());
    let eth0 = inside.link("eth0").unwrap();
    let routes = node.routes().unwrap();
    let to_pod = routes.iter().find(|route| route.destination.to_string() == "10.244.0.1/32").unwrap();
    node.delete_route(to_pod).unwrap();
    assert!(check().refused(110).contains("the node has lost its route to 10.244.0.1/32"));
    node.add_route(to_pod).unwrap();
    check().silent();

    inside.delete_neighbour(eth0.index, "fe80::1".parse().unwrap()).unwrap();
    assert!(check().refused(110).contains("the container does not know that fe80::1 is at"));
    inside.set_neighbour(eth0.index, "fe80::1".parse().unwrap(), host.mac.unwrap()).unwrap();
    check().silent();

    lab.node.run(|| attach::detach(&lab.pins(), &host.name)).unwrap().unwrap();
    assert!(check().refused(110).contains("the datapath's programs are not attached"));
    lab.node.run(|| attach::attach_container(&lab.pins(), &host.name, host.index)).unwrap().unwrap();
    check().silent();

    let endpoints = std::mem::take(&mut lab.state().endpoints);
    assert!(check().refused(110).contains("the agent does not know the endpoint"));
    lab.state().endpoints = endpoints;

    inside.set_mtu(eth0.index, 1300).unwrap();
    inside.delete_address(eth0.index, "fd00:10:244::1/128".parse().unwrap()).unwrap();
    let message = check().refused(110);
    assert!(
        message.contains("has MTU 1300, not 1450") && message.contains("lost its address fd00"),
        "{message}"
    );

    inside.set_down(eth0.index).unwrap();
    let message = check().refused(110);
    assert!(message.contains("eth0 is down") && message.contains("route to 0.0.0.0/0 via"), "{message}");

    node.delete_link(host.index).unwrap();
    let message = check().refused(110);
    assert!(message.contains("is gone") && message.contains("interface eth0 is gone"), "{message}");
    lab.del(&pod).silent();
    assert_eq!(lab.traces(Some(&pod)), [""; 0]);
}

#[test]
fn the_agent_is_down() {
    let mut lab = Lab::new();
    let mut pod = lab.pod("pod");
    lab.stop_agent();
    let (outcome, time) = timed(|| lab.add(&pod));
    let message = outcome.refused(11);
    assert!(time < Duration::from_millis(500), "{time:?}");
    assert!(message.contains("the agent is not running"), "{message}");
    assert_eq!(lab.traces(Some(&pod)), [""; 0]);

    lab.start_agent();
    let result = lab.add(&pod).result();
    lab.stop_agent();
    let config = lab.config(&json!({ "prevResult": result }));
    for _ in 0..2 {
        lab.call("DEL", pod.netns.path(), &config).run().silent();
        let file = format!("{CONTAINER}_eth0.json");
        let owner = (CONTAINER.to_owned(), "eth0".to_owned());
        let expected = [format!("lease {owner:?}"), format!("endpoint {owner:?}"), format!("record {file}")];
        assert_eq!(lab.traces(Some(&pod)), expected);
        let record: Value = serde_json::from_slice(&std::fs::read(lab.queue().join(file)).unwrap()).unwrap();
        assert_eq!((&record["container_id"], &record["ifname"]), (&json!(CONTAINER), &json!("eth0")));
        assert_eq!(record["addresses"], json!(["10.244.0.1", "fd00:10:244::1"]));
    }
    // The container comes back before the agent has replayed: the record must not hit the new attachment.
    lab.start_agent();
    lab.add(&pod).result();
    assert!(!lab.traces(None).iter().any(|trace| trace.starts_with("record")));
    pod.remove();
    lab.del(&pod).silent();
    assert_eq!(lab.traces(None), [""; 0]);
}

#[test]
fn many_deletions_without_the_agent() {
    let mut lab = Lab::new();
    lab.stop_agent();
    for nth in 0..300 {
        let call = lab.call("DEL", lab.path(), &lab.config(&json!({})));
        call.env("CNI_NETNS", "").env("CNI_CONTAINERID", &format!("c{nth}")).run().silent();
    }
    assert_eq!(std::fs::read_dir(lab.queue()).unwrap().count(), 300, "there is no limit to the queue");
}

#[test]
fn deletion_without_agent_and_without_disk() {
    let mut lab = Lab::new();
    let pod = lab.pod("pod");
    lab.add(&pod).result();
    lab.stop_agent();
    // A file where the queue's directory should be.
    std::fs::create_dir(lab.path().join("state")).unwrap();
    std::fs::write(lab.queue(), "").unwrap();
    let message = lab.del(&pod).refused(5);
    assert!(message.contains("delete record"), "{message}");
    let left = lab.traces(Some(&pod));
    assert!(left.iter().all(|trace| trace.starts_with("lease") || trace.starts_with("endpoint")), "{left:?}");
    std::fs::remove_file(lab.queue()).unwrap();
    lab.del(&pod).silent();
    lab.start_agent();
    lab.del(&pod).silent();
    assert_eq!(lab.traces(Some(&pod)), [""; 0], "the agent knows now, so the record is gone");
}

#[test]
fn del_of_what_never_was() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    lab.del(&pod).silent();
    lab.call("DEL", pod.netns.path(), &lab.config(&json!({}))).env("CNI_NETNS", "").run().silent();
    lab.call("DEL", &lab.path().join("none"), &lab.config(&json!({}))).run().silent();
    lab.call("DEL", lab.path(), &lab.config(&json!({}))).run().silent();
    assert_eq!(lab.traces(Some(&pod)), [""; 0]);
}

#[test]
fn a_failed_add_leaves_nothing() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    let cases = [
        ("POST /v1/ipam", "exhausted", 102),
        ("POST /v1/ipam", "not-ready", 11),
        ("POST /v1/endpoints", "conflict", 101),
        ("POST /v1/endpoints", "internal", 101),
        ("POST /v1/endpoints", "not-ready", 11),
    ];
    for (request, word, code) in cases {
        lab.state().refuse = Some((request.to_owned(), 409, word.to_owned()));
        let message = lab.add(&pod).refused(code);
        assert!(message.contains(&format!("told to answer {word}")), "{message}");
        lab.state().refuse = None;
        assert_eq!(lab.traces(Some(&pod)), [""; 0], "{request} {word}");
    }
    // The agent does what it is asked and dies before it answers.
    for request in ["POST /v1/ipam", "POST /v1/endpoints"] {
        lab.state().hang_up_on = Some(request.to_owned());
        let failed = lab.add(&pod);
        assert!(!failed.success && !failed.stdout.is_empty(), "{failed:?}");
        lab.state().hang_up_on = None;
        assert_eq!(lab.traces(Some(&pod)), [""; 0], "{request}");
    }
    // No programs: the agent has never run on this bpffs.
    let config = lab.config(&json!({ "pinDir": lab.path().join("bpf/none") }));
    lab.call("ADD", pod.netns.path(), &config).run().refused(107);
    assert_eq!(lab.traces(Some(&pod)), [""; 0]);
    lab.add(&pod).result();
}

#[test]
fn names_that_are_taken() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    let spec = VethSpec { name: "eth0", peer_name: "other", ..VethSpec::default() };
    let mut inside = pod.netlink();
    inside.create_veth(&spec).unwrap();
    assert!(lab.add(&pod).refused(103).contains("eth0"));
    assert_eq!(lab.traces(Some(&pod)).len(), 2, "what was there stays, nothing else came");
    let index = inside.link("eth0").unwrap().index;
    inside.delete_link(index).unwrap();

    lab.add(&pod).result();
    let name = lab.host_link().name;
    lab.del(&pod).silent();
    let mut node = lab.netlink();
    node.create_veth(&VethSpec { name: &name, peer_name: "foreign", ..VethSpec::default() }).unwrap();
    let index = node.link(&name).unwrap().index;
    node.set_alias(index, "of somebody else").unwrap();
    let message = lab.add(&pod).refused(104);
    assert!(message.contains(&name) && message.contains("of somebody else"), "{message}");
    lab.del(&pod).silent();
    assert_eq!(node.link(&name).unwrap().index, index, "DEL does not touch it either");
}

#[test]
fn status() {
    let mut lab = Lab::new();
    let status = |lab: &Lab, changes: &Value| {
        let call = lab.call("STATUS", lab.path(), &lab.config(changes));
        call.env("CNI_CONTAINERID", "").env("CNI_IFNAME", "").env("CNI_NETNS", "").run()
    };
    status(&lab, &json!({})).silent();
    status(&lab, &json!({ "cniVersion": "1.0.0" })).refused(1);
    let pin_dir = lab.path().join("none");
    assert!(status(&lab, &json!({ "pinDir": pin_dir })).refused(51).contains("programs are not in"));
    lab.state().status = "starting".to_owned();
    assert!(status(&lab, &json!({})).refused(50).contains("starting"));
    lab.state().status = "degraded".to_owned();
    status(&lab, &json!({})).silent();
    for nth in 0..3 {
        lab.state().leases.insert((format!("c{nth}"), "eth0".to_owned()), nth);
    }
    assert!(status(&lab, &json!({})).refused(50).contains("no free address in the pools (10.244.0.0/24)"));
    lab.stop_agent();
    let (outcome, time) = timed(|| status(&lab, &json!({})));
    assert!(outcome.refused(50).contains("the agent is not running"));
    assert!(time < Duration::from_millis(500), "{time:?}");
}

#[test]
fn gc() {
    let lab = Lab::new();
    let (kept, lost, foreign) = (lab.pod("kept"), lab.pod("lost"), lab.pod("foreign"));
    lab.add(&kept).result();
    let add = |pod: &Pod, id: &str, network: &str| {
        let call = lab.call("ADD", pod.netns.path(), &lab.config(&json!({ "name": network })));
        call.env("CNI_CONTAINERID", id).run().result()
    };
    add(&lost, "lost", "pods");
    add(&foreign, "foreign", "another");
    // A veth that is called like ours and is not.
    let mut node = lab.netlink();
    let spec = VethSpec { name: "slu000000000001", peer_name: "p1", ..VethSpec::default() };
    node.create_veth(&spec).unwrap();
    let index = node.link(spec.name).unwrap().index;
    node.set_alias(index, "mine").unwrap();
    let gc = |changes: &Value| {
        let call = lab.call("GC", lab.path(), &lab.config(changes));
        call.env("CNI_CONTAINERID", "").env("CNI_IFNAME", "").env("CNI_NETNS", "").run()
    };
    let valid = |ids: &[&str]| {
        let all: Vec<_> = ids.iter().map(|id| json!({ "containerID": id, "ifname": "eth0" })).collect();
        json!({ "cni.dev/valid-attachments": all })
    };
    let left = || {
        let has_eth0 = |pod: &Pod| pod.netlink().find_link("eth0").unwrap().is_some();
        let pins = attach::pinned_interfaces(&lab.pins()).unwrap().len();
        (has_eth0(&kept), has_eth0(&lost), has_eth0(&foreign), pins, lab.state().endpoints.len())
    };
    gc(&json!({ "cniVersion": "1.0.0", "cni.dev/valid-attachments": [] })).refused(1);
    gc(&valid(&[CONTAINER, "lost"])).silent();
    assert_eq!(left(), (true, true, true, 3, 3));

    lab.state().gc_host_ifnames = ["slu000000000001", "../x", "lo"].map(str::to_owned).to_vec();
    gc(&valid(&[CONTAINER])).silent();
    assert_eq!(left(), (true, false, true, 2, 2));

    // Killed before the agent knew more than the lease, and then forgotten by the runtime.
    let call = lab.call("ADD", lost.netns.path(), &lab.config(&json!({}))).env("CNI_CONTAINERID", "lost");
    assert!(call.env("SLUICE_CNI_TEST_STOP_AFTER", "AddVethNamed").run().killed);
    assert_eq!((left().1, lab.state().leases.len()), (true, 3));
    gc(&valid(&[CONTAINER])).silent();
    assert_eq!((left(), lab.state().leases.len()), ((true, false, true, 2, 2), 2));

    // Without a list nothing of this network is valid: so the reference library's own client asks.
    gc(&json!({})).silent();
    assert_eq!(left(), (false, false, true, 1, 1));
    assert_eq!(node.link(spec.name).unwrap().index, index);
}

#[test]
fn a_result_that_cannot_be_delivered_is_taken_back() {
    let lab = Lab::new();
    let pod = lab.pod("pod");
    let status = lab
        .node
        .run(|| {
            let config = lab.config(&json!({}));
            let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
            let input = lab.path().join("config.json");
            std::fs::write(&input, config.to_string()).unwrap();
            std::process::Command::new(env!("CARGO_BIN_EXE_sluice-cni"))
                .env_clear()
                .envs([("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", CONTAINER), ("CNI_IFNAME", "eth0")])
                .env("CNI_NETNS", pod.netns.path())
                .stdin(std::fs::File::open(input).unwrap())
                .stdout(full)
                .stderr(std::process::Stdio::null())
                .status()
                .unwrap()
        })
        .unwrap();
    assert!(!status.success());
    assert_eq!(lab.traces(Some(&pod)), [""; 0]);
}
