//! Requests of redirected flows: who is asked, what passes, who the server sees, and what happens when something dies.

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use rustix::process::{Signal, kill_process};
    use sluice_conformance::agent::PATIENCE;
    use sluice_conformance::clock::wait_for;
    use sluice_conformance::http::{HttpClient, HttpServer};
    use sluice_conformance::node::NodeConfig;
    use sluice_conformance::scene::Scene;

    const PODS: [&str; 3] = ["shop/backend", "shop/frontend", "shop/other"];
    const PORTS: [u16; 4] = [80, 81, 8_050, 65_000];

    /// A policy of the namespace.
    fn policy(name: &str, app: &str, rules: &str) -> String {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
             endpointSelector: {{matchLabels: {{app: {app}}}}}\n{rules}---\n"
        )
    }

    /// Rules by which the frontend may GET below a path of the backend's port 80, and everything of port 81.
    fn ingress(path: &str) -> String {
        format!(
            "  ingress:\n  - fromEndpoints: [{{matchLabels: {{app: frontend}}}}]\n    toPorts:\n    - ports: [{{port: \"80\", \
             protocol: TCP}}]\n      rules: {{http: [{{method: GET, path: \"{path}\"}}]}}\n    - ports: [{{port: \"81\", \
             protocol: TCP}}]\n"
        )
    }

    /// The pods, and a server in one of them.
    struct Shop {
        server: HttpServer,
        scene: Scene,
    }

    impl Shop {
        fn new(config: &NodeConfig, manifest: &str) -> Self {
            let scene = Scene::new(config, &PODS, manifest).unwrap();
            let backend = scene.node.pod("shop/backend").unwrap();
            let server = HttpServer::start(&backend.netns, &backend.addresses, &PORTS).unwrap();
            Self { server, scene }
        }

        fn addresses(&self, pod: &str) -> &[IpAddr] {
            &self.scene.node.pod(pod).unwrap().addresses
        }

        /// Each address of the backend with the address of the same family of `pod`.
        fn pairs(&self, pod: &str) -> Vec<(IpAddr, IpAddr)> {
            let own = self.addresses(pod).iter().copied();
            own.zip(self.addresses("shop/backend").iter().copied()).collect()
        }

        fn connect(&self, pod: &str, server: IpAddr, port: u16) -> anyhow::Result<HttpClient> {
            HttpClient::connect(self.scene.netns(pod).unwrap(), SocketAddr::new(server, port))
        }

        fn proxy(&self, signal: Signal) {
            kill_process(self.scene.node.agent.proxy_pid().unwrap(), signal).unwrap();
        }
    }

    fn with_proxy() -> NodeConfig {
        NodeConfig { l7: true, ..NodeConfig::default() }
    }

    /// One request on a connection of its own.
    fn status(client: anyhow::Result<HttpClient>, request: &str) -> u16 {
        client.and_then(|mut client| client.ask(request)).map_or(0, |answer| answer.status)
    }

    #[test]
    fn requests_are_judged_and_the_server_sees_its_client() {
        let shop = Shop::new(&with_proxy(), &policy("web", "backend", &ingress("/a.*")));
        for (own, server) in shop.pairs("shop/frontend") {
            let mut client = shop.connect("shop/frontend", server, 80).unwrap();
            for nth in 0..3 {
                let answer = client.ask(&format!("GET /a{nth}")).unwrap();
                assert_eq!((answer.status, answer.body), (200, format!("{own} GET /a{nth} HTTP/1.1")));
                let answer = client.ask("DELETE /a").unwrap();
                assert_eq!((answer.status, answer.body.as_str()), (403, "Access denied\r\n"));
                assert!(answer.fields.iter().any(|field| field.starts_with("X-Sluice-Flow: ")), "{answer:?}");
            }
            // What is judged is what is forwarded.
            let answer = client.ask("GET /b/../a%2fb").unwrap();
            assert_eq!((answer.status, answer.body), (200, format!("{own} GET /a/b HTTP/1.1")));
            assert_eq!(client.ask("GET /a/../b").unwrap().status, 403);
            client
                .send("GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
                .unwrap();
            assert_eq!(client.answer().unwrap().status, 400);
        }
        let seen = shop.server.requests();
        for (_, server) in shop.pairs("shop/other") {
            assert_eq!(status(shop.connect("shop/other", server, 80), "GET /a"), 0, "not its rule");
        }
        assert_eq!(shop.server.requests(), seen);
        // Who was denied what, and by whom.
        let flows = wait_for("the record", PATIENCE, || {
            let flows = shop
                .scene
                .node
                .monitor
                .flows(|flow| flow.verdict == "DROPPED" && flow.to_string().contains("DELETE"));
            if flows.is_empty() { Err("no flow".to_owned()) } else { Ok(flows) }
        })
        .unwrap();
        let text = flows[0].to_string();
        for part in ["DELETE", "403", "cnp/shop/web"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    /// A proxy that is stopped holds nothing up but what it must look into, and nothing passes it by.
    #[test]
    fn only_flows_with_rules_about_requests_meet_the_proxy() {
        let shop = Shop::new(&with_proxy(), &policy("web", "backend", &ingress("/a")));
        shop.proxy(Signal::STOP);
        for (own, server) in shop.pairs("shop/frontend") {
            let answer = shop.connect("shop/frontend", server, 81).unwrap().ask("DELETE /x").unwrap();
            assert_eq!((answer.status, answer.body), (200, format!("{own} DELETE /x HTTP/1.1")));
        }
        let seen = shop.server.requests();
        for (_, server) in shop.pairs("shop/frontend") {
            assert_eq!(status(shop.connect("shop/frontend", server, 80), "GET /a"), 0);
        }
        assert_eq!(shop.server.requests(), seen);
        shop.proxy(Signal::CONT);
    }

    /// A rule's ports may be a range, or all there are (CVE-2024-52529).
    #[test]
    fn rules_about_requests_hold_on_ranges_of_ports() {
        let rules = |ports: &str| {
            format!(
                "  ingress:\n  - fromEndpoints: [{{matchLabels: {{app: frontend}}}}]\n    toPorts:\n    - ports: [{{{ports}}}]\n      \
                 rules: {{http: [{{method: GET}}]}}\n"
            )
        };
        let shop = Shop::new(
            &with_proxy(),
            &policy("web", "backend", &rules("port: \"8000\", endPort: 8100, protocol: TCP")),
        );
        let check = |ports: &[u16]| {
            for (_, server) in shop.pairs("shop/frontend") {
                for port in ports {
                    let mut client = shop.connect("shop/frontend", server, *port).unwrap();
                    assert_eq!(client.ask("GET /a").unwrap().status, 200, "{port}");
                    assert_eq!(client.ask("PUT /a").unwrap().status, 403, "{port}");
                }
            }
        };
        check(&[8_050]);
        for (_, server) in shop.pairs("shop/frontend") {
            assert_eq!(status(shop.connect("shop/frontend", server, 81), "GET /a"), 0);
        }
        shop.scene
            .put(&policy("web", "backend", &rules("port: \"1\", endPort: 65535, protocol: TCP")))
            .unwrap();
        check(&[80, 65_000]);
    }

    /// The server's own policy judges its client after the client's proxy (CVE-2026-33726), each with its own rules.
    #[test]
    fn both_ends_look_into_the_requests() {
        let egress = "  egress:\n  - toEndpoints: [{matchLabels: {app: backend}}]\n    toPorts:\n    - ports: [{port: \"80\", \
                      protocol: TCP}]\n      rules: {http: [{path: \"/(a|b)\"}]}\n";
        let manifest = policy("out", "frontend", egress) + &policy("in", "backend", &ingress("/(a|c)"));
        let shop = Shop::new(&with_proxy(), &manifest);
        for (own, server) in shop.pairs("shop/frontend") {
            let mut client = shop.connect("shop/frontend", server, 80).unwrap();
            let answer = client.ask("GET /a").unwrap();
            assert_eq!((answer.status, answer.body), (200, format!("{own} GET /a HTTP/1.1")));
            for request in ["GET /b", "GET /c", "PUT /a"] {
                assert_eq!(client.ask(request).unwrap().status, 403, "{request}");
            }
        }
        // A client whose own policy lets everything pass, and whom the server does not know.
        shop.scene
            .put(&(policy("out", "other", egress) + &policy("in", "backend", &ingress("/.*"))))
            .unwrap();
        let seen = shop.server.requests();
        for (_, server) in shop.pairs("shop/other") {
            let got = status(shop.connect("shop/other", server, 80), "GET /a");
            assert!(matches!(got, 0 | 503 | 504), "{got}");
        }
        assert_eq!(shop.server.requests(), seen);
    }

    #[test]
    fn rules_about_what_leaves_the_node() {
        let egress = "  egress:\n  - toEntities: [world]\n    toPorts:\n    - ports: [{port: \"80\", protocol: TCP}]\n      \
                      rules: {http: [{method: GET}]}\n";
        let shop = Shop::new(&with_proxy(), &policy("out", "frontend", egress));
        let world: Vec<IpAddr> =
            ["198.51.100.1", "2001:db8:51::1"].iter().map(|text| text.parse().unwrap()).collect();
        let _server = HttpServer::start(&shop.scene.node.world, &world, &[80]).unwrap();
        for address in world {
            let mut client = shop.connect("shop/frontend", address, 80).unwrap();
            let answer = client.ask("GET /a").unwrap();
            assert_eq!(answer.status, 200);
            let own = shop.addresses("shop/frontend");
            assert!(
                !own.iter().any(|own| answer.body.starts_with(&own.to_string())),
                "masqueraded: {answer:?}"
            );
            assert_eq!(client.ask("POST /a").unwrap().status, 403);
        }
    }

    #[test]
    fn a_change_reaches_the_next_request_and_ends_tunnels() {
        let shop = Shop::new(&with_proxy(), &policy("web", "backend", &ingress("/(a|ws)")));
        let (_, server) = shop.pairs("shop/frontend")[0];
        let mut client = shop.connect("shop/frontend", server, 80).unwrap();
        let mut tunnel = shop.connect("shop/frontend", server, 80).unwrap();
        assert_eq!(client.ask("GET /a").unwrap().status, 200);
        tunnel
            .send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
            .unwrap();
        assert_eq!(tunnel.answer().unwrap().status, 101);
        assert_eq!(tunnel.read(5).unwrap(), "hello");
        shop.scene.put(&policy("web", "backend", &ingress("/(b|ws)"))).unwrap();
        assert_eq!(client.ask("GET /a").unwrap().status, 403);
        assert_eq!(client.ask("GET /b").unwrap().status, 200);
        tunnel.send("still").unwrap();
        assert_eq!(tunnel.read(5).unwrap(), "still");
        shop.scene.put(&policy("web", "backend", &ingress("/b"))).unwrap();
        let sent = tunnel.send("gone").and_then(|()| tunnel.read(4));
        assert!(sent.is_err(), "{sent:?}");
        assert_eq!(client.ask("GET /b").unwrap().status, 200);
    }

    #[test]
    fn headers_are_compared_with_what_is_in_secrets() {
        let rules = "  ingress:\n  - toPorts:\n    - ports: [{port: \"80\", protocol: TCP}]\n      \
            rules: {http: [{headerMatches: [{name: X-Token, secret: {namespace: shop, name: token}}]}]}\n";
        let shop = Shop::new(&with_proxy(), &policy("web", "backend", rules));
        let (_, server) = shop.pairs("shop/frontend")[0];
        let ask = |token: &str| {
            let mut client = shop.connect("shop/frontend", server, 80).unwrap();
            client.send(&format!("GET / HTTP/1.1\r\nHost: a\r\nX-Token: {token}\r\n\r\n")).unwrap();
            client.answer().unwrap().status
        };
        assert_eq!(ask("first"), 403, "there is no secret yet");
        for value in ["first", "second"] {
            let secret = format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{name: token, namespace: shop}}\nstringData: {{key: {value}}}\n"
            );
            shop.scene.node.write_manifest("secret.yaml", &secret).unwrap();
            wait_for("the secret", PATIENCE, || match ask(value) {
                200 => Ok(()),
                status => Err(format!("answered {status}")),
            })
            .unwrap();
        }
        assert_eq!(ask("first"), 403, "it is another one now");
    }

    #[test]
    fn audit_lets_requests_pass_and_reports_them() {
        let config = NodeConfig { audit: true, ..with_proxy() };
        let shop = Shop::new(&config, &policy("web", "backend", &ingress("/a")));
        let (_, server) = shop.pairs("shop/frontend")[0];
        assert_eq!(status(shop.connect("shop/frontend", server, 80), "DELETE /b"), 200);
        wait_for("the record", PATIENCE, || {
            let flows = shop
                .scene
                .node
                .monitor
                .flows(|flow| flow.verdict == "AUDIT" && flow.to_string().contains("DELETE"));
            if flows.is_empty() { Err("no flow".to_owned()) } else { Ok(()) }
        })
        .unwrap();
    }

    #[test]
    fn the_agent_may_die() {
        let mut shop = Shop::new(&with_proxy(), &policy("web", "backend", &ingress("/a")));
        let (_, server) = shop.pairs("shop/frontend")[0];
        let proxy = shop.scene.node.agent.proxy_pid().unwrap();
        let mut kept = shop.connect("shop/frontend", server, 80).unwrap();
        let mut check = |shop: &Shop| {
            for _ in 0..20 {
                assert_eq!(kept.ask("GET /a").unwrap().status, 200);
                assert_eq!(kept.ask("PUT /a").unwrap().status, 403);
                assert_eq!(status(shop.connect("shop/frontend", server, 80), "GET /a"), 200);
            }
        };
        check(&shop);
        for _ in 0..3 {
            shop.scene.node.kill_agent().unwrap();
            check(&shop);
            shop.scene.node.agent.start_again(&shop.scene.node.netns).unwrap();
            check(&shop);
            shop.scene.node.agent.wait_ready().unwrap();
            shop.scene.node.monitor.wait_for_start().unwrap();
            check(&shop);
        }
        assert_eq!(shop.scene.node.agent.proxy_pid(), Some(proxy), "the same one all the time");
    }

    #[test]
    fn a_proxy_that_dies_lets_nothing_pass_and_is_back_soon() {
        let shop = Shop::new(&with_proxy(), &policy("web", "backend", &ingress("/a")));
        let (_, server) = shop.pairs("shop/frontend")[0];
        assert_eq!(status(shop.connect("shop/frontend", server, 80), "GET /a"), 200);
        let first = shop.scene.node.agent.proxy_pid().unwrap();
        for _ in 0..3 {
            let before = shop.scene.node.agent.proxy_pid().unwrap();
            let seen = shop.server.requests();
            shop.proxy(Signal::KILL);
            let got = status(shop.connect("shop/frontend", server, 80), "PUT /a");
            assert!(matches!(got, 0 | 403), "{got}");
            assert_eq!(shop.server.requests(), seen);
            wait_for("another proxy", PATIENCE, || {
                let is_back = shop.scene.node.agent.proxy_pid().is_some_and(|pid| pid != before)
                    && status(shop.connect("shop/frontend", server, 80), "GET /a") == 200;
                if is_back { Ok(()) } else { Err("not back".to_owned()) }
            })
            .unwrap();
        }
        assert_ne!(shop.scene.node.agent.proxy_pid(), Some(first));
    }

    #[test]
    fn nobody_reaches_the_proxy_by_another_way() {
        let shop = Shop::new(&with_proxy(), &policy("web", "backend", &ingress("/a")));
        // The pod has no such listener on its loopback, and the node's is not for it.
        for address in ["127.0.0.1", "10.244.0.1"] {
            let target = SocketAddr::new(address.parse().unwrap(), 15_001);
            assert_eq!(
                status(HttpClient::connect(shop.scene.netns("shop/other").unwrap(), target), "GET /a"),
                0,
                "{address}"
            );
        }
        // From the node itself it is reached, and refuses.
        let target = SocketAddr::new("127.0.0.1".parse().unwrap(), 15_001);
        assert_eq!(status(HttpClient::connect(&shop.scene.node.netns, target), "GET /a"), 0);
    }
}
