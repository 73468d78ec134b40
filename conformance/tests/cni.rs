//! The CNI plugin with the real agent, driven by a real runtime's library: `cnitool`, alone and in chains with the
//! reference plugins. Row numbers are those of the list of faults in the documentation of the tests.

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::io::Write;
    use std::net::IpAddr;
    use std::os::unix::process::ExitStatusExt;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output, Stdio};
    use std::time::Duration;

    use serde_json::{Value, json};
    use sluice_conformance::agent::{Agent, AgentFlags, PATIENCE, binary, spawn_in};
    use sluice_conformance::clock;
    use sluice_conformance::echo::{Arrivals, Echo};
    use sluice_conformance::netns::{Netns, hide_mounts};
    use sluice_conformance::node::{Node, NodeConfig, ip};
    use sluice_conformance::probe::{Answer, Protocol, Question, ask};
    use sluice_conformance::program::go_program;
    use sluice_conformance::topology::PodSpec;

    const REFERENCE_PLUGINS: &str = "/usr/lib/cni";
    const PORT: u16 = 8080;
    const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

    /// A node, and a runtime that keeps its own records in a place nobody else sees.
    struct Lab {
        node: Node,
        cnitool: PathBuf,
        _var_lib: tempfile::TempDir,
    }

    struct Done {
        verb: String,
        output: Output,
    }

    impl Done {
        #[track_caller]
        fn ok(self) -> String {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let Output { status, stdout, stderr } = &self.output;
            assert!(status.success(), "{}: {} {}", self.verb, text(stdout), text(stderr));
            text(stdout)
        }

        #[track_caller]
        fn result(self) -> Value {
            serde_json::from_str(&self.ok()).unwrap()
        }

        #[track_caller]
        fn refused(self) -> String {
            assert!(!self.output.status.success(), "{} succeeded", self.verb);
            assert_eq!(self.output.status.signal(), None);
            let all = [self.output.stdout, self.output.stderr].concat();
            String::from_utf8_lossy(&all).into_owned()
        }
    }

    impl Lab {
        fn new() -> Self {
            hide_mounts().unwrap();
            let var_lib = tempfile::tempdir().unwrap();
            let cnitool = go_program("cnitool").unwrap();
            rustix::mount::mount_bind(var_lib.path(), "/var/lib").unwrap();
            let node = Node::start(&NodeConfig::default()).unwrap();
            std::fs::create_dir(node.dir().join("net.d")).unwrap();
            Self { node, cnitool, _var_lib: var_lib }
        }

        fn ours(&self) -> Value {
            json!({
                "type": "sluice-cni",
                "agentSocket": self.node.agent.socket(),
                "stateDir": self.node.agent.state_dir(),
                "pinDir": self.node.dir().join("bpf/sluice/v1"),
            })
        }

        /// Writes the configuration of network `name`.
        fn network(&self, name: &str, version: &str, plugins: &[Value]) {
            let list = json!({ "cniVersion": version, "name": name, "plugins": plugins });
            let file = self.node.dir().join("net.d").join(format!("{name}.conflist"));
            std::fs::write(file, list.to_string()).unwrap();
        }

        /// A namespace for pod `shop/NAME`, whose manifest is written.
        fn pod(&self, name: &str) -> Netns {
            let labels = BTreeMap::from([("app".to_owned(), name.to_owned())]);
            let spec: PodSpec = serde_json::from_value(json!({ "labels": labels })).unwrap();
            self.node.write_namespace("shop", &BTreeMap::new()).unwrap();
            self.node.write_pod(&format!("shop/{name}"), &spec).unwrap();
            Netns::create(self.node.dir().join("netns").join(name)).unwrap()
        }

        /// Runs `cnitool VERB NETWORK` for a pod of [`Self::pod`].
        fn cnitool(&self, verb: &str, network: &str, pod: &Path) -> Done {
            self.cnitool_with(verb, network, pod, &[])
        }

        fn cnitool_with(&self, verb: &str, network: &str, pod: &Path, variables: &[(&str, &str)]) -> Done {
            let name = pod.file_name().unwrap().to_str().unwrap();
            let ours = binary("sluice-cni").unwrap();
            let mut command = Command::new(&self.cnitool);
            command
                .args([verb, network])
                .arg(pod)
                .env("NETCONFPATH", self.node.dir().join("net.d"))
                .env("CNI_PATH", format!("{}:{REFERENCE_PLUGINS}", ours.parent().unwrap().display()))
                .env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}"))
                .envs(variables.iter().copied());
            self.run(command, verb, b"")
        }

        /// Runs our plugin as a runtime does.
        fn plugin(&self, verb: &str, variables: &[(&str, &str)], config: &Value) -> Done {
            let mut command = Command::new(binary("sluice-cni").unwrap());
            command.env("CNI_COMMAND", verb).envs(variables.iter().copied());
            self.run(command, verb, config.to_string().as_bytes())
        }

        fn run(&self, mut command: Command, verb: &str, input: &[u8]) -> Done {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = spawn_in(&mut command, &self.node.netns, false).unwrap();
            child.stdin.take().unwrap().write_all(input).ok();
            Done { verb: verb.to_owned(), output: child.wait_with_output().unwrap() }
        }

        /// Names of the node's interfaces.
        fn links(&self) -> Vec<String> {
            let mut command = Command::new("ip");
            command.args(["-j", "link"]);
            let links: Vec<Value> = serde_json::from_str(&self.run(command, "ip", b"").ok()).unwrap();
            links.iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
        }

        /// Whatever is left of attachments: interfaces, pins, endpoints, leases, records.
        fn traces(&self) -> Vec<String> {
            let is_ours = |name: &String| name.starts_with("slu") || name.starts_with("veth");
            let mut found: Vec<_> = self.links().into_iter().filter(is_ours).collect();
            let pins = std::fs::read_dir(self.node.dir().join("bpf/sluice/v1")).unwrap();
            let pins = pins.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
            found.extend(pins.filter(|pin| pin.starts_with("link_slu") || pin.starts_with("link_veth")));
            let endpoints = self.node.agent.endpoints().unwrap();
            found.extend(endpoints.iter().map(|endpoint| format!("endpoint {}", endpoint.pod())));
            found.extend((self.leases() > 0).then(|| format!("{} leases", self.leases())));
            found.extend(self.records());
            found
        }

        fn leases(&self) -> u64 {
            let status: Value = self.node.agent.fetch("/v1/status").unwrap();
            status["ipam"].as_array().unwrap().iter().map(|pool| pool["used"].as_u64().unwrap()).sum()
        }

        fn records(&self) -> Vec<String> {
            let entries = std::fs::read_dir(self.node.agent.state_dir().join("delete-queue"));
            let names = entries.into_iter().flatten().map(|entry| entry.unwrap().file_name());
            names.map(|name| name.to_string_lossy().into_owned()).collect()
        }
    }

    /// Built from its Go module on first use.
    fn addresses(result: &Value) -> Vec<IpAddr> {
        let texts = result["ips"].as_array().unwrap().iter().map(|ip| ip["address"].as_str().unwrap());
        texts.map(|text| text.split_once('/').unwrap().0.parse().unwrap()).collect()
    }

    fn question(protocol: Protocol, target: IpAddr, port: u16) -> Question {
        Question { protocol, source: None, target, port, len: 64, patience: Duration::from_secs(1) }
    }

    fn reaches(from: &Netns, protocol: Protocol, target: IpAddr, port: u16) -> bool {
        matches!(ask(from, &[question(protocol, target, port)]).unwrap()[0].answer, Answer::Echoed(_))
    }

    #[test]
    fn alone_in_every_version() {
        let lab = Lab::new();
        let (one, two) = (lab.pod("one"), lab.pod("two"));
        for version in VERSIONS {
            lab.network("alone", version, &[lab.ours()]);
            lab.cnitool("status", "alone", one.path()).ok();
            let first = lab.cnitool("add", "alone", one.path()).result();
            let second = lab.cnitool("add", "alone", two.path()).result();
            assert_eq!(first["cniVersion"], version);
            for target in addresses(&second) {
                assert!(reaches(&one, Protocol::Icmp, target, 8), "{version}: {target}");
            }
            if version >= "0.4.0" {
                lab.cnitool("check", "alone", one.path()).ok();
            }
            assert!(lab.cnitool("add", "alone", one.path()).refused().contains("already"));
            for pod in [&one, &two, &one] {
                lab.cnitool("del", "alone", pod.path()).ok();
            }
            assert_eq!(lab.traces(), [""; 0], "{version}");
        }
    }

    /// The conflist that the agent writes, with `portmap` behind, as an administrator would extend it.
    #[test]
    fn the_agents_own_conflist() {
        let mut lab = Lab::new();
        let net_d = lab.node.dir().join("net.d");
        lab.node.agent.kill().unwrap();
        let flags = ["--pool4", "10.244.0.0/24", "--pool6", "fd00:10:244::/112", "--cni-conf-dir"];
        let mut flags: Vec<_> = flags.iter().map(|&flag| flag.to_owned()).collect();
        flags.push(net_d.display().to_string());
        let flags = AgentFlags { dir: lab.node.dir().to_owned(), flags };
        lab.node.agent = Agent::start(&lab.node.netns, flags).unwrap();
        let file = net_d.join("05-sluice.conflist");
        // Written last, and whole: a runtime that sees it can start pods.
        let text = clock::wait_for("the conflist", PATIENCE, || {
            std::fs::read(&file).map_err(|error| error.to_string())
        });
        let list: Value = serde_json::from_slice(&text.unwrap()).unwrap();
        assert_eq!(list["cniVersion"], "1.0.0");
        let name = list["name"].as_str().unwrap();
        let pod = lab.pod("pod");
        lab.cnitool("status", name, pod.path()).ok();
        lab.cnitool("add", name, pod.path()).result();
        lab.cnitool("check", name, pod.path()).ok();
        lab.cnitool("del", name, pod.path()).ok();
        assert_eq!(lab.traces(), [""; 0]);
    }

    /// After `ptp` and `bridge`, before `portmap`: the other plugins connect, the policy is ours.
    fn chained(first: &Value) {
        let lab = Lab::new();
        let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true }, "snat": true });
        lab.network("chain", "1.0.0", &[first.clone(), lab.ours(), portmap]);
        let rule = json!([{ "fromEndpoints": [{ "matchLabels": { "app": "friend" } }] }]);
        let policy = json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
            "metadata": { "name": "friends", "namespace": "shop" },
            "spec": { "endpointSelector": { "matchLabels": { "app": "server" } }, "ingress": rule },
        });
        lab.node.write_manifest("policy.json", &policy.to_string()).unwrap();
        let pods = ["server", "friend", "stranger"].map(|name| lab.pod(name));
        let [server, friend, stranger] = &pods;
        let map = r#"{"portMappings": [{"hostPort": 9090, "containerPort": 8080, "protocol": "tcp"}]}"#;
        let result = lab.cnitool_with("add", "chain", server.path(), &[("CAP_ARGS", map)]).result();
        for pod in [friend, stranger] {
            lab.cnitool("add", "chain", pod.path()).result();
        }
        let targets = addresses(&result);
        assert_eq!(targets.len(), 2, "{result}");
        let arrivals = Arrivals::default();
        let _echo =
            Echo::start(server, &targets, &BTreeSet::from([(Protocol::Tcp, PORT)]), &arrivals).unwrap();
        for target in targets {
            // The bridge learns, addresses settle: the first answer may take its time.
            clock::wait_for("the friend is let in", PATIENCE, || {
                if reaches(friend, Protocol::Tcp, target, PORT) { Ok(()) } else { Err(target.to_string()) }
            })
            .unwrap();
            assert!(!reaches(stranger, Protocol::Tcp, target, PORT), "{target}");
            assert!(!reaches(stranger, Protocol::Icmp, target, 8), "{target}");
        }
        for pod in &pods {
            lab.cnitool("check", "chain", pod.path()).ok();
        }
        assert_eq!(lab.node.agent.endpoints().unwrap().len(), 3);
        lab.cnitool_with("del", "chain", server.path(), &[("CAP_ARGS", map)]).ok();
        lab.cnitool("del", "chain", friend.path()).ok();
        // The container is gone with its namespace before the runtime deletes the network.
        let [_, _, stranger] = pods;
        let path = stranger.path().to_owned();
        drop(stranger);
        lab.cnitool("del", "chain", &path).ok();
        lab.cnitool("del", "chain", &path).ok();
        // The other plugin leaves its veth to the kernel, which takes it away with the namespace, some time later.
        clock::wait_for("nothing is left", PATIENCE, || match lab.traces() {
            traces if traces.is_empty() => Ok(()),
            traces => Err(traces.join(", ")),
        })
        .unwrap();
    }

    fn host_local(subnets: [&str; 2]) -> Value {
        let ranges = subnets.map(|subnet| json!([{ "subnet": subnet }]));
        json!({ "type": "host-local", "ranges": ranges, "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }] })
    }

    #[test]
    fn after_ptp() {
        chained(&json!({ "type": "ptp", "ipam": host_local(["10.8.0.0/24", "fd08::/64"]) }));
    }

    #[test]
    fn after_bridge() {
        let ipam = host_local(["10.9.0.0/24", "fd09::/64"]);
        chained(&json!({ "type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": ipam }));
    }

    #[test]
    fn before_portmap_and_with_host_local() {
        let lab = Lab::new();
        let mut ours = lab.ours();
        ours["ipam"] = host_local(["10.7.0.0/24", "fd07::/64"]);
        let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true }, "snat": true });
        lab.network("delegated", "1.0.0", &[ours, portmap]);
        let pod = lab.pod("pod");
        let map = r#"{"portMappings": [{"hostPort": 9090, "containerPort": 8080, "protocol": "tcp"}]}"#;
        let map = [("CAP_ARGS", map)];
        let result = lab.cnitool_with("add", "delegated", pod.path(), &map).result();
        let targets = addresses(&result);
        assert_eq!(targets, ["10.7.0.2".parse::<IpAddr>().unwrap(), "fd07::2".parse().unwrap()]);
        let arrivals = Arrivals::default();
        let _echo = Echo::start(&pod, &targets, &BTreeSet::from([(Protocol::Tcp, PORT)]), &arrivals).unwrap();
        // The node itself, as probes do, straight and through the mapped port.
        for target in &targets {
            assert!(reaches(&lab.node.netns, Protocol::Tcp, *target, PORT), "{target}");
        }
        assert!(reaches(&lab.node.netns, Protocol::Tcp, "192.0.2.2".parse().unwrap(), 9090));
        // Without the ports: `portmap` 1.1.1 looks for the IPv4 rules among those of IPv6 and fails by itself.
        lab.cnitool("check", "delegated", pod.path()).ok();
        lab.cnitool_with("del", "delegated", pod.path(), &map).ok();
        assert_eq!(lab.traces(), [""; 0]);
    }

    /// Rows 13, 15 and 16: the agent is down; what happens meanwhile is made good when it returns.
    #[test]
    fn deletions_are_replayed() {
        let mut lab = Lab::new();
        lab.network("alone", "1.1.0", &[lab.ours()]);
        let pods = ["a", "b", "c", "d"].map(|name| lab.pod(name));
        for pod in &pods {
            lab.cnitool("add", "alone", pod.path()).result();
        }
        assert_eq!(lab.leases(), 8);
        lab.node.agent.kill().unwrap();
        let late = lab.pod("late");
        let message = lab.cnitool("add", "alone", late.path()).refused();
        assert!(message.contains("the agent"), "{message}");
        assert!(lab.cnitool("status", "alone", late.path()).refused().contains("the agent"));
        let [a, b, c, d] = &pods;
        for pod in [a, b, c, c] {
            lab.cnitool("del", "alone", pod.path()).ok();
        }
        assert_eq!(lab.links().iter().filter(|name| name.starts_with("slu")).count(), 1);
        lab.node.agent.start_again(&lab.node.netns).unwrap();
        lab.node.agent.wait_ready().unwrap();
        clock::wait_for("the records are replayed", PATIENCE, || match lab.records() {
            records if records.is_empty() => Ok(()),
            records => Err(records.join(", ")),
        })
        .unwrap();
        let left = lab.node.agent.endpoints().unwrap();
        assert_eq!(left.iter().map(|endpoint| endpoint.pod()).collect::<Vec<_>>(), ["shop/d"]);
        assert_eq!(lab.leases(), 2);
        lab.cnitool("check", "alone", d.path()).ok();
        lab.cnitool("del", "alone", d.path()).ok();
        lab.cnitool("del", "alone", late.path()).ok();
        assert_eq!(lab.traces(), [""; 0]);
    }

    /// Row 14: killed at every step, as by a time limit; then deleted and added again, or added at once.
    #[test]
    fn killed_at_every_step() {
        let lab = Lab::new();
        lab.network("alone", "1.0.0", &[lab.ours()]);
        let (pod, other) = (lab.pod("pod"), lab.pod("other"));
        lab.cnitool("add", "alone", other.path()).result();
        let steps = [
            "AddLocked",
            "AddLeased",
            "AddVethCreated",
            "AddVethNamed",
            "AddHostSettings",
            "AddProgramsAttached",
            "AddHostUp",
            "AddPodSetUp",
            "AddHostRoutes",
            "AddEndpointCreated",
            "AddDone",
        ];
        for step in steps {
            for deletes_between in [true, false] {
                let stop = [("SLUICE_CNI_TEST_STOP_AFTER", step)];
                lab.cnitool_with("add", "alone", pod.path(), &stop).refused();
                if deletes_between || step == "AddDone" {
                    lab.cnitool("del", "alone", pod.path()).ok();
                }
                let result = lab.cnitool("add", "alone", pod.path()).result();
                lab.cnitool("check", "alone", pod.path()).ok();
                for target in addresses(&result) {
                    assert!(reaches(&other, Protocol::Icmp, target, 8), "{step}: {target}");
                }
                lab.cnitool("del", "alone", pod.path()).ok();
                assert_eq!(lab.traces().len(), 5, "{step}: what the other pod has: {:?}", lab.traces());
            }
        }
        for step in ["DelAgentTold", "DelLinkDeleted", "DelProgramsDetached"] {
            lab.cnitool("add", "alone", pod.path()).result();
            let stop = [("SLUICE_CNI_TEST_STOP_AFTER", step)];
            lab.cnitool_with("del", "alone", pod.path(), &stop).refused();
            lab.cnitool("del", "alone", pod.path()).ok();
            assert_eq!(lab.traces().len(), 5, "{step}: {:?}", lab.traces());
        }
        lab.cnitool("del", "alone", other.path()).ok();
        assert_eq!(lab.traces(), [""; 0]);
    }

    /// Row 17: GC, by the runtime's library and with a list of what stays.
    #[test]
    fn garbage() {
        let lab = Lab::new();
        lab.network("alone", "1.1.0", &[lab.ours()]);
        let pods = ["a", "b"].map(|name| lab.pod(name));
        for pod in &pods {
            lab.cnitool("add", "alone", pod.path()).result();
        }
        let mut config = lab.ours();
        config["cniVersion"] = "1.1.0".into();
        config["name"] = "by-hand".into();
        let added: Vec<_> = ["c", "d", "e"].map(|name| lab.pod(name)).into_iter().collect();
        for pod in &added {
            let name = pod.path().file_name().unwrap().to_str().unwrap();
            let variables = [
                ("CNI_CONTAINERID", name),
                ("CNI_IFNAME", "eth0"),
                ("CNI_NETNS", pod.path().to_str().unwrap()),
                ("CNI_ARGS", &format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}")),
            ];
            lab.plugin("ADD", &variables, &config).result();
        }
        let of_agent = || {
            let endpoints = lab.node.agent.endpoints().unwrap();
            endpoints.iter().map(|endpoint| endpoint.pod()).collect::<BTreeSet<_>>()
        };
        let named = |names: &[&str]| names.iter().map(|name| format!("shop/{name}")).collect::<BTreeSet<_>>();
        assert_eq!(of_agent(), named(&["a", "b", "c", "d", "e"]));
        config["cni.dev/valid-attachments"] = json!([{ "containerID": "c", "ifname": "eth0" }]);
        lab.plugin("GC", &[], &config).ok();
        assert_eq!(of_agent(), named(&["a", "b", "c"]), "another network's stay");
        assert_eq!(lab.links().iter().filter(|name| name.starts_with("slu")).count(), 3);
        config["cni.dev/valid-attachments"] = json!([]);
        lab.plugin("GC", &[], &config).ok();
        assert_eq!(of_agent(), named(&["a", "b"]));
        lab.cnitool("gc", "alone", added[0].path()).ok();
        assert_eq!(lab.traces(), [""; 0]);
    }

    /// Row 24 of the inputs: who a pod is, is not what the runtime's arguments say.
    #[test]
    fn a_claimed_uid() {
        let lab = Lab::new();
        lab.network("alone", "1.0.0", &[lab.ours()]);
        let pod = lab.pod("pod");
        let manifest = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "pod", "namespace": "shop", "uid": "u-1", "labels": { "app": "pod" } },
            "spec": { "containers": [{ "name": "main", "image": "none" }] },
        });
        lab.node.write_manifest("pod_shop_pod.json", &manifest.to_string()).unwrap();
        let claim =
            |uid: &str| format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=pod;K8S_POD_UID={uid}");
        clock::wait_for("the agent has read the manifest", PATIENCE, || {
            let done = lab.cnitool_with("add", "alone", pod.path(), &[("CNI_ARGS", &claim("u-2"))]);
            if done.output.status.success() {
                lab.cnitool("del", "alone", pod.path()).ok();
                return Err("the false uid was accepted".to_owned());
            }
            let message = done.refused();
            if message.contains("uid") { Ok(()) } else { Err(message) }
        })
        .unwrap();
        assert_eq!(lab.traces(), [""; 0]);
        lab.cnitool_with("add", "alone", pod.path(), &[("CNI_ARGS", &claim("u-1"))]).result();
        lab.cnitool("del", "alone", pod.path()).ok();
        assert_eq!(lab.traces(), [""; 0]);
    }

    /// Row 16: the namespace, and the interface with it, ended before DEL.
    #[test]
    fn del_after_the_namespace_is_gone() {
        let lab = Lab::new();
        lab.network("alone", "1.0.0", &[lab.ours()]);
        let pod = lab.pod("pod");
        lab.cnitool("add", "alone", pod.path()).result();
        let path = pod.path().to_owned();
        drop(pod);
        lab.cnitool("del", "alone", &path).ok();
        lab.cnitool("del", "alone", &path).ok();
        assert_eq!(lab.traces(), [""; 0]);
    }

    /// Row 18: many at once; no address twice, and every one of them connected.
    #[test]
    fn many_at_once() {
        const PODS: usize = 100;
        let mut lab = Lab::new();
        lab.node.write_namespace("shop", &BTreeMap::new()).unwrap();
        let names: Vec<_> = (0..PODS).map(|nth| format!("shop/p{nth}")).collect();
        for name in &names {
            lab.node.write_pod(name, &PodSpec::default()).unwrap();
        }
        lab.node.add_pods(names.iter().map(String::as_str)).unwrap();
        let all: BTreeSet<IpAddr> =
            lab.node.pods().values().flat_map(|pod| pod.addresses.iter().copied()).collect();
        assert_eq!(all.len(), 2 * PODS, "an address was given twice");
        let questions: Vec<_> = all.iter().map(|target| question(Protocol::Icmp, *target, 8)).collect();
        for chunk in questions.chunks(20) {
            for outcome in ask(&lab.node.netns, chunk).unwrap() {
                assert!(matches!(outcome.answer, Answer::Echoed(_)), "{outcome:?}");
            }
        }
        lab.node.remove_pods(&names).unwrap();
        assert_eq!(lab.traces(), [""; 0]);
    }

    /// Without this, a failing `ip` would look like a node without interfaces.
    #[test]
    fn the_instrument_sees_links() {
        let lab = Lab::new();
        ip(&lab.node.netns, "link add slutest type veth peer name sluother\n").unwrap();
        assert_eq!(lab.traces(), ["sluother", "slutest"]);
    }
}
