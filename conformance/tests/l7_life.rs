//! The life of the proxy: generations that hand over under load, and ends that lose as little as they can.

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use rustix::process::{Pid, Signal, kill_process};
    use sluice_conformance::agent::{PATIENCE, binary};
    use sluice_conformance::clock;
    use sluice_conformance::http::{HttpClient, HttpServer};
    use sluice_conformance::load::{Load, Request};
    use sluice_conformance::node::NodeConfig;
    use sluice_conformance::scene::Scene;

    const PODS: [&str; 2] = ["shop/backend", "shop/frontend"];
    const HANDOVERS: usize = 100;
    /// Of a hundred hand-overs.
    const BOUND: Duration = Duration::from_secs(60);
    /// Some answers are on their way when the sockets change hands.
    const REQUESTS: [Request; 4] = [
        Request { line: "GET /a", status: 200 },
        Request { line: "DELETE /a", status: 403 },
        Request { line: "GET /a?wait=30", status: 200 },
        Request { line: "GET /b", status: 403 },
    ];

    /// What the frontend may GET from the backend.
    fn policy(path: &str) -> String {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: web, namespace: shop}}\nspec:\n  \
             endpointSelector: {{matchLabels: {{app: backend}}}}\n  ingress:\n  - fromEndpoints: [{{matchLabels: {{app: \
             frontend}}}}]\n    toPorts:\n    - ports: [{{port: \"80\", protocol: TCP}}]\n      rules: {{http: [{{method: \
             GET, path: \"{path}\"}}]}}\n"
        )
    }

    /// A node whose proxy is a file of its own, which can be replaced.
    struct Life {
        _server: HttpServer,
        scene: Scene,
        programs: tempfile::TempDir,
    }

    impl Life {
        fn new() -> Self {
            let programs = tempfile::tempdir().unwrap();
            let place = programs.path().join("sluice-l7proxy");
            for name in ["0", "1"] {
                std::fs::copy(binary("sluice-l7proxy").unwrap(), programs.path().join(name)).unwrap();
            }
            std::fs::hard_link(programs.path().join("1"), &place).unwrap();
            let config = NodeConfig { l7: true, l7_program: Some(place), ..NodeConfig::default() };
            let scene = Scene::new(&config, &PODS, &policy("/(a|ws).*")).unwrap();
            let backend = scene.node.pod("shop/backend").unwrap();
            let server = HttpServer::start(&backend.netns, &backend.addresses, &[80]).unwrap();
            Self { _server: server, scene, programs }
        }

        fn place(&self) -> PathBuf {
            self.programs.path().join("sluice-l7proxy")
        }

        /// Another version of the program, as whoever updates it puts it there.
        fn install(&self, name: &str) {
            let new = self.programs.path().join("new");
            std::fs::hard_link(self.programs.path().join(name), &new).unwrap();
            std::fs::rename(new, self.place()).unwrap();
        }

        fn proxy(&self) -> Pid {
            self.scene.node.agent.proxy_pid().unwrap()
        }

        /// Waits until another process than `before` is the proxy.
        fn wait_for_another(&self, before: Pid) {
            clock::wait_for("the next generation", PATIENCE, || {
                let now = self.scene.node.agent.proxy_pid();
                if now.is_some_and(|now| now != before) { Ok(()) } else { Err(format!("still {now:?}")) }
            })
            .unwrap();
        }

        fn wait_for_proxies(&self, wanted: usize) {
            clock::wait_for("old generations to end", PATIENCE, || {
                let all = self.scene.node.agent.proxies();
                if all.len() == wanted { Ok(()) } else { Err(format!("{all:?}")) }
            })
            .unwrap();
        }

        fn client(&self) -> HttpClient {
            let server = self.scene.places("shop/backend", 80).unwrap()[0];
            HttpClient::connect(self.scene.netns("shop/frontend").unwrap(), server).unwrap()
        }

        fn tunnel(&self) -> HttpClient {
            let mut tunnel = self.client();
            tunnel
                .send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                .unwrap();
            assert_eq!(tunnel.answer().unwrap().status, 101);
            tunnel
        }

        fn load(&self) -> Load {
            let servers = self.scene.places("shop/backend", 80).unwrap();
            assert_eq!(servers.len(), 2, "both families");
            Load::start(self.scene.netns("shop/frontend").unwrap(), &servers, 4, &REQUESTS).unwrap()
        }
    }

    fn echoes(tunnel: &mut HttpClient, word: &str) -> bool {
        tunnel.send(word).and_then(|()| tunnel.read(word.len())).is_ok_and(|echo| echo == word)
    }

    #[test]
    fn a_hundred_hand_overs_lose_nothing() {
        let life = Life::new();
        let load = life.load();
        let mut tunnel = life.tunnel();
        let first = life.proxy();
        let begin = clock::now();
        for nth in 0..HANDOVERS {
            let before = life.proxy();
            life.install(if nth % 2 == 0 { "0" } else { "1" });
            life.wait_for_another(before);
            assert!(echoes(&mut tunnel, "still"), "after {nth}");
        }
        let took = clock::now() - begin;
        let tally = load.finish().unwrap();
        eprintln!("{HANDOVERS} hand-overs in {took:?}: {tally:?}");
        assert_eq!(tally.failures, Vec::<String>::new());
        assert!(took < BOUND, "{took:?}");
        // There was load all the time, and it noticed each hand-over.
        assert!(tally.answered > 50 * HANDOVERS, "{tally:?}");
        assert!(tally.farewells > HANDOVERS, "{tally:?}");
        // Of the old generations, only that with the tunnel has something left to do, by the rules of today.
        life.wait_for_proxies(2);
        assert!(life.scene.node.agent.proxies().contains(&first));
        life.scene.put(&policy("/b")).unwrap();
        assert!(!echoes(&mut tunnel, "gone"));
        assert_eq!(life.client().ask("GET /a").unwrap().status, 403);
        assert_eq!(life.client().ask("GET /b").unwrap().status, 200);
        life.wait_for_proxies(1);
    }

    /// A program that cannot take over changes nothing, and the next one that can is taken.
    #[test]
    fn a_program_that_does_not_work_replaces_nobody() {
        let life = Life::new();
        let load = life.load();
        let proxy = life.proxy();
        std::fs::write(life.programs.path().join("broken"), "no program").unwrap();
        std::fs::copy("/bin/false", life.programs.path().join("false")).unwrap();
        for name in ["broken", "false"] {
            life.install(name);
            std::thread::sleep(Duration::from_millis(500));
            assert_eq!(life.proxy(), proxy, "{name}");
        }
        life.install("0");
        life.wait_for_another(proxy);
        let tally = load.finish().unwrap();
        assert_eq!(tally.failures, Vec::<String>::new());
        assert!(tally.answered > 100, "{tally:?}");
    }

    /// Other arguments are another proxy. What has not ended in the time that it was given is cut.
    #[test]
    fn an_agent_with_other_arguments_replaces_the_proxy() {
        let mut life = Life::new();
        let load = life.load();
        let before = life.proxy();
        life.scene.node.kill_agent().unwrap();
        for flag in ["--l7-proxy-argument", "--drain-time=1"] {
            life.scene.node.agent.add_flag(flag);
        }
        life.scene.node.revive_agent().unwrap();
        life.wait_for_another(before);
        life.wait_for_proxies(1);

        let (mut tunnel, mut idle, mut asking) = (life.tunnel(), life.client(), life.client());
        for client in [&mut idle, &mut asking] {
            assert!(!client.ask("GET /a").unwrap().is_last());
        }
        let before = life.proxy();
        life.install("0");
        life.wait_for_another(before);
        assert!(asking.ask("GET /a").unwrap().is_last());
        assert!(echoes(&mut tunnel, "still"));
        life.wait_for_proxies(1);
        assert!(!echoes(&mut tunnel, "gone"));
        assert!(idle.ask("GET /a").is_err());
        assert_eq!(load.finish().unwrap().failures, Vec::<String>::new());
    }

    /// Who is told to end answers what it was asked, and not for long.
    #[test]
    fn a_proxy_that_is_told_to_end_answers_first() {
        let life = Life::new();
        let proxy = life.proxy();
        let mut asking = life.client();
        asking.send("GET /a?wait=400 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        // Until the server has it.
        std::thread::sleep(Duration::from_millis(100));
        let mut idle = life.client();
        assert_eq!(idle.ask("GET /a").unwrap().status, 200);
        let begin = clock::now();
        kill_process(proxy, Signal::TERM).unwrap();
        let answer = asking.answer().unwrap();
        assert_eq!((answer.status, answer.is_last()), (200, true));
        life.wait_for_another(proxy);
        life.wait_for_proxies(1);
        let took = clock::now() - begin;
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert!(idle.ask("GET /a").is_err(), "nobody waits for who asks nothing");
        assert_eq!(life.client().ask("GET /a").unwrap().status, 200);
    }

    /// The kernel remembers connections that the proxy closed first, their clients do not.
    #[test]
    fn a_client_may_use_its_port_again() {
        let life = Life::new();
        for server in life.scene.places("shop/backend", 80).unwrap() {
            let own = if server.is_ipv4() { "0.0.0.0:45678" } else { "[::]:45678" };
            for nth in 0..10 {
                let netns = life.scene.netns("shop/frontend").unwrap();
                // Not before the client's own end has heard that all was heard.
                let mut client = clock::wait_for("a connection", Duration::from_secs(5), || {
                    let client = HttpClient::connect_as(netns, own.parse().unwrap(), server);
                    client.map_err(|error| format!("{error:#}"))
                })
                .unwrap();
                client.send("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
                assert_eq!(client.answer().unwrap().status, 200, "{nth}");
                assert!(client.read(1).is_err(), "it ends");
            }
        }
    }

    #[test]
    fn what_happens_is_counted() {
        let life = Life::new();
        let before = life.proxy();
        assert_eq!(life.client().ask("GET /a").unwrap().status, 200);
        life.install("0");
        life.wait_for_another(before);
        for _ in 0..3 {
            assert_eq!(life.client().ask("GET /a").unwrap().status, 200);
        }
        let mut client = life.client();
        assert_eq!(client.ask("DELETE /a").unwrap().status, 403);
        let broken = life.client().ask("GET /a b c");
        assert_eq!(broken.unwrap().status, 400);
        let wanted = [
            "cilium_policy_l7_total{rule=\"received\",proxy_type=\"http\"} 5",
            "cilium_policy_l7_total{rule=\"denied\",proxy_type=\"http\"} 1",
            "cilium_policy_l7_total{rule=\"parse_errors\",proxy_type=\"http\"} 1",
            "hubble_http_requests_total{protocol=\"http\",reporter=\"server\",status=\"2xx\",verdict=\"forwarded\"} 3",
            "sluice_proxy_connections_total 5",
            "sluice_proxy_open_connections 1",
            "sluice_proxy_handovers_total 1",
            "sluice_proxy_up 1",
            "cilium_policy 1",
        ];
        clock::wait_for("the numbers", PATIENCE, || {
            let text =
                life.scene.node.agent.fetch_text("/v1/metrics").map_err(|error| format!("{error:#}"))?;
            let missing = wanted.iter().find(|wanted| !text.lines().any(|line| line == **wanted));
            let is_forwarded = text.contains("cilium_forward_count_total{direction=\"INGRESS\"} ");
            if missing.is_none() && is_forwarded { Ok(()) } else { Err(format!("{missing:?} in {text}")) }
        })
        .unwrap();
        assert_eq!(client.ask("GET /a").unwrap().status, 200, "it was open");
    }
}
