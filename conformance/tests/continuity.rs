//! Traffic that runs while the agent dies, comes back, and policies are replaced: nothing allowed is lost, nothing
//! denied gets through.

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::{IpAddr, SocketAddr, UdpSocket};
    use std::time::Duration;

    use sluice_conformance::agent::{FlowEnd, PATIENCE};
    use sluice_conformance::clock::wait_for;
    use sluice_conformance::echo::{Arrivals, Echo};
    use sluice_conformance::netns::{Netns, hide_mounts};
    use sluice_conformance::node::{Node, NodeConfig};
    use sluice_conformance::probe::{Answer, Protocol, Question, ask};
    use sluice_conformance::topology::PodSpec;
    use sluice_conformance::traffic::Stream;

    const PORT: u16 = 80;
    const INTERVAL: Duration = Duration::from_millis(2);

    fn spec(app: &str) -> PodSpec {
        PodSpec { labels: BTreeMap::from([("app".to_owned(), app.to_owned())]), ports: BTreeMap::new() }
    }

    /// Admits pods with `app: APP` and nobody else; answers only.
    fn policy(name: &str, app: &str) -> String {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec:\n  endpointSelector: {{matchLabels: {{app: backend}}}}\n  ingress:\n  \
             - fromEndpoints: [{{matchLabels: {{app: {app}}}}}]\n  egress: [{{}}]\n"
        )
    }

    fn start(config: &NodeConfig, pods: &[&str], file: &str) -> Node {
        hide_mounts().unwrap();
        let mut node = Node::start(config).unwrap();
        node.write_namespace("shop", &BTreeMap::new()).unwrap();
        node.write_manifest("p.yaml", file).unwrap();
        for pod in pods {
            node.write_pod(pod, &spec(pod.trim_start_matches("shop/"))).unwrap();
        }
        node.add_pods(pods.iter().copied()).unwrap();
        settle(&node);
        let addresses = node.pods().values().flat_map(|pod| pod.addresses.iter().copied());
        let pings: Vec<Question> = addresses.map(ping).collect();
        for (outcome, question) in ask(&node.netns, &pings).unwrap().iter().zip(&pings) {
            assert_eq!(outcome.answer, Answer::Echoed(None), "the node does not reach {}", question.target);
        }
        node
    }

    fn ping(target: IpAddr) -> Question {
        Question { protocol: Protocol::Icmp, source: None, target, port: 8, len: 64, patience: PATIENCE }
    }

    /// Waits until the backend is isolated and every endpoint is at the wanted revision.
    fn settle(node: &Node) {
        wait_for("the policy in force", PATIENCE, || {
            let endpoints = node.agent.endpoints().map_err(|error| format!("{error:#}"))?;
            let backend = endpoints.iter().find(|endpoint| endpoint.pod() == "shop/backend");
            let is_isolated = backend.is_some_and(|endpoint| endpoint.ingress == "Enabled");
            let is_done = endpoints.iter().all(|endpoint| {
                endpoint.state == "ready" && endpoint.realized_revision == endpoint.wanted_revision
            });
            if is_isolated && is_done { Ok(()) } else { Err(format!("{endpoints:?}")) }
        })
        .unwrap();
    }

    /// What the agent says was dropped from or to the frontend.
    fn drops_of_frontend(node: &Node) -> Vec<String> {
        let own = &node.pod("shop/frontend").unwrap().addresses;
        let is_own = |end: &FlowEnd| end.ip.parse().is_ok_and(|ip: IpAddr| own.contains(&ip));
        let flows = node
            .monitor
            .flows(|flow| flow.verdict == "DROPPED" && (is_own(&flow.source) || is_own(&flow.destination)));
        flows.iter().map(ToString::to_string).collect()
    }

    struct Traffic {
        allowed: Vec<Stream>,
        denied: Vec<Stream>,
        arrivals: Arrivals,
        _echo: Echo,
    }

    impl Traffic {
        /// The frontend and others talk to the backend, in both families.
        fn start(node: &Node) -> Self {
            let backend = node.pod("shop/backend").unwrap();
            let arrivals = Arrivals::default();
            let ports = BTreeSet::from([(Protocol::Udp, PORT)]);
            let echo = Echo::start(&backend.netns, &backend.addresses, &ports, &arrivals).unwrap();
            let streams = |netns: &Netns| -> Vec<Stream> {
                let targets = backend.addresses.iter().map(|address| SocketAddr::new(*address, PORT));
                targets.map(|target| Stream::start(netns, target, INTERVAL).unwrap()).collect()
            };
            let allowed = streams(&node.pod("shop/frontend").unwrap().netns);
            let mut denied = streams(&node.pod("shop/other").unwrap().netns);
            denied.extend(streams(&node.world));
            Self { allowed, denied, arrivals, _echo: echo }
        }

        fn check(self, node: &Node) {
            for stream in self.allowed {
                let sent = stream.finish().unwrap();
                assert!(sent.tokens.len() > 100, "only {} datagrams were sent", sent.tokens.len());
                let lost: Vec<String> = sent
                    .tokens
                    .iter()
                    .enumerate()
                    .filter(|(_, token)| !sent.answered.contains(token))
                    .map(|(nth, token)| {
                        (nth, if self.arrivals.contains(*token) { "its answer" } else { "itself" })
                    })
                    .map(|(nth, what)| format!("number {nth} of {}: {what}", sent.tokens.len()))
                    .collect();
                assert!(lost.is_empty(), "lost: {lost:#?}; dropped: {:#?}", drops_of_frontend(node));
            }
            for stream in self.denied {
                let sent = stream.finish().unwrap();
                assert!(sent.tokens.len() > 100, "only {} datagrams were sent", sent.tokens.len());
                let leaked = sent.tokens.iter().filter(|token| self.arrivals.contains(**token)).count();
                assert_eq!(leaked, 0, "of {} denied datagrams {leaked} got through", sent.tokens.len());
                assert!(sent.answered.is_empty());
            }
        }
    }

    const PODS: [&str; 3] = ["shop/backend", "shop/frontend", "shop/other"];

    #[test]
    fn killing_the_agent_loses_and_leaks_nothing() {
        let mut node = start(&NodeConfig::default(), &PODS, &policy("p", "frontend"));
        let traffic = Traffic::start(&node);
        // Also in the middle of taking over.
        for lives_ms in [0, 10, 30, 60, 120, 250] {
            node.agent.kill().unwrap();
            node.agent.start_again(&node.netns).unwrap();
            std::thread::sleep(Duration::from_millis(lives_ms));
        }
        for _ in 0..3 {
            node.agent.kill().unwrap();
            node.agent.start_again(&node.netns).unwrap();
            node.agent.wait_ready().unwrap();
            settle(&node);
        }
        traffic.check(&node);
    }

    const VERSIONS: u32 = 100;

    #[test]
    fn replacing_a_policy_leaves_no_gap() {
        let node = start(&NodeConfig::default(), &PODS, &policy("p0", "frontend"));
        let traffic = Traffic::start(&node);
        for nth in 1..=VERSIONS {
            // One write takes the old policy away and brings the new one.
            node.write_manifest("p.yaml", &policy(&format!("p{nth}"), "frontend")).unwrap();
            if nth % 2 == 0 {
                settle(&node);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        wait_for("the last version", PATIENCE, || {
            let policies: serde_json::Value =
                node.agent.fetch("/v1/policies").map_err(|error| format!("{error:#}"))?;
            if policies.to_string().contains(&format!("\"p{VERSIONS}\"")) {
                Ok(())
            } else {
                Err(policies.to_string())
            }
        })
        .unwrap();
        settle(&node);
        traffic.check(&node);
    }

    fn socket(netns: &Netns, own: IpAddr, port: u16) -> UdpSocket {
        let socket = netns.run(|| Ok(UdpSocket::bind(SocketAddr::new(own, port))?)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        socket
    }

    fn passes(from: &UdpSocket, to: &UdpSocket) -> bool {
        from.send_to(b"sluice", to.local_addr().unwrap()).unwrap();
        to.recv_from(&mut [0; 16]).is_ok()
    }

    /// A node whose pool has room for the backend, the frontend and the fillers, and nobody else: who comes after
    /// the frontend gets its address.
    fn an_address_changes_hands(config: &NodeConfig, fillers: &[&str]) {
        let pods: Vec<&str> = ["shop/backend", "shop/frontend"].iter().chain(fillers).copied().collect();
        let mut node = start(config, &pods, &policy("p", "frontend"));
        let [address] = node.pod("shop/frontend").unwrap().addresses[..] else { panic!("one address") };
        let (backend, frontend) = (server(&node, address), client(&node, "shop/frontend", address));
        assert!(passes(&frontend, &backend), "the frontend is allowed");
        assert!(passes(&backend, &frontend), "its answer comes back");
        drop((backend, frontend));
        node.remove_pods(&["shop/frontend".to_owned()]).unwrap();
        node.write_pod("shop/heir", &spec("heir")).unwrap();
        wait_for("the address to be free again", PATIENCE, || {
            node.add_pods(["shop/heir"]).map_err(|error| format!("{error:#}"))
        })
        .unwrap();
        assert_eq!(node.pod("shop/heir").unwrap().addresses, [address], "the heir has the old address");
        let (backend, heir) = (server(&node, address), client(&node, "shop/heir", address));
        assert!(!passes(&backend, &heir), "what was an answer is none any more");
        assert!(!passes(&heir, &backend), "the heir is not the frontend");
        assert!(!passes(&backend, &heir), "still no answer");
    }

    #[test]
    fn an_ipv4_address_changes_hands_without_its_connections() {
        let config = NodeConfig {
            pool4: Some("10.244.9.0/29".to_owned()),
            pool6: Some(String::new()),
            ..NodeConfig::default()
        };
        an_address_changes_hands(&config, &["shop/one", "shop/two", "shop/three"]);
    }

    #[test]
    fn an_ipv6_address_changes_hands_without_its_connections() {
        let config = NodeConfig {
            pool4: Some(String::new()),
            pool6: Some("fd00:10:244:9::/126".to_owned()),
            ..NodeConfig::default()
        };
        an_address_changes_hands(&config, &[]);
    }

    fn server(node: &Node, peer: IpAddr) -> UdpSocket {
        let backend = node.pod("shop/backend").unwrap();
        let own = backend.addresses.iter().find(|own| own.is_ipv4() == peer.is_ipv4()).unwrap();
        socket(&backend.netns, *own, PORT)
    }

    fn client(node: &Node, pod: &str, own: IpAddr) -> UdpSocket {
        socket(&node.pod(pod).unwrap().netns, own, 4444)
    }
}
