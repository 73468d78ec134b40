//! The manifests' directory as people treat it: broken files, renamed ones, and pods that start before they are known.

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::IpAddr;
    use std::time::Duration;

    use serde_json::Value;
    use sluice_conformance::agent::{Endpoint, PATIENCE};
    use sluice_conformance::clock::wait_for;
    use sluice_conformance::echo::{Arrivals, Echo};
    use sluice_conformance::netns::hide_mounts;
    use sluice_conformance::node::{Node, NodeConfig};
    use sluice_conformance::probe::{Answer, Protocol, Question, ask};
    use sluice_conformance::topology::PodSpec;

    const PORT: u16 = 80;
    /// The identity of a pod that nobody knows yet.
    const INIT: u32 = 5;
    const POLICY: &str = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: shop}\n\
                          spec:\n  endpointSelector: {matchLabels: {app: backend}}\n  ingress:\n  \
                          - fromEndpoints: [{matchLabels: {app: frontend}}]\n";

    fn spec(app: &str) -> PodSpec {
        PodSpec { labels: BTreeMap::from([("app".to_owned(), app.to_owned())]), ports: BTreeMap::new() }
    }

    fn node_with(pods: &[&str]) -> Node {
        hide_mounts().unwrap();
        let mut node = Node::start(&NodeConfig::default()).unwrap();
        node.write_namespace("shop", &BTreeMap::new()).unwrap();
        for pod in pods {
            node.write_pod(pod, &spec(pod.trim_start_matches("shop/"))).unwrap();
        }
        node.add_pods(pods.iter().copied()).unwrap();
        node
    }

    fn endpoint(node: &Node, pod: &str) -> Endpoint {
        node.agent.endpoints().unwrap().into_iter().find(|endpoint| endpoint.pod() == pod).unwrap()
    }

    fn wait_until(node: &Node, what: &str, pod: &str, holds: impl Fn(&Endpoint) -> bool) {
        wait_for(what, PATIENCE, || {
            let endpoint = endpoint(node, pod);
            let is_done = endpoint.state == "ready" && endpoint.realized_revision == endpoint.wanted_revision;
            if is_done && holds(&endpoint) { Ok(()) } else { Err(format!("{endpoint:?}")) }
        })
        .unwrap();
    }

    fn serve(node: &Node, pod: &str) -> Echo {
        let pod = node.pod(pod).unwrap();
        let ports = BTreeSet::from([(Protocol::Tcp, PORT)]);
        Echo::start(&pod.netns, &pod.addresses, &ports, &Arrivals::default()).unwrap()
    }

    fn answers(node: &Node, from: &str, to: &str) -> Vec<Answer> {
        let question = |target: &IpAddr| Question {
            protocol: Protocol::Tcp,
            source: None,
            target: *target,
            port: PORT,
            len: 64,
            patience: Duration::from_millis(500),
        };
        let questions: Vec<Question> = node.pod(to).unwrap().addresses.iter().map(question).collect();
        let outcomes = ask(&node.pod(from).unwrap().netns, &questions).unwrap();
        outcomes.into_iter().map(|outcome| outcome.answer).collect()
    }

    fn is_answered(node: &Node, from: &str, to: &str) -> bool {
        let answers = answers(node, from, to);
        let answered = answers.iter().filter(|answer| matches!(answer, Answer::Echoed(_))).count();
        assert!(answered == 0 || answered == answers.len(), "the families differ: {answers:?}");
        answered > 0
    }

    #[test]
    fn a_broken_file_keeps_what_was_good() {
        let node = node_with(&["shop/backend", "shop/frontend", "shop/other"]);
        let _echo = serve(&node, "shop/backend");
        node.write_manifest("p.yaml", POLICY).unwrap();
        wait_until(&node, "isolation", "shop/backend", |endpoint| endpoint.ingress == "Enabled");

        let half = POLICY.strip_suffix("frontend}}]\n").unwrap();
        for (what, broken) in [("half written", half), ("not YAML", "spec: [\n"), ("no manifest", "hello\n")]
        {
            node.write_manifest("p.yaml", broken).unwrap();
            wait_for("the agent's problem", PATIENCE, || {
                let status: Value = node.agent.fetch("/v1/status").map_err(|error| format!("{error:#}"))?;
                let problems = status["problems"].to_string();
                if problems.contains("p.yaml") { Ok(()) } else { Err(problems) }
            })
            .unwrap();
            assert!(is_answered(&node, "shop/frontend", "shop/backend"), "{what}: the rule still allows");
            assert!(!is_answered(&node, "shop/other", "shop/backend"), "{what}: the rule still isolates");
        }

        // Whole again, under another name.
        node.write_manifest("q.yaml", POLICY).unwrap();
        node.remove_manifest("p.yaml").unwrap();
        wait_for("no problem", PATIENCE, || {
            let status: Value = node.agent.fetch("/v1/status").map_err(|error| format!("{error:#}"))?;
            match (status["state"].as_str(), status["problems"].as_array()) {
                (Some("ok"), Some(problems)) if problems.is_empty() => Ok(()),
                _ => Err(status.to_string()),
            }
        })
        .unwrap();
        assert!(!is_answered(&node, "shop/other", "shop/backend"));
        node.remove_manifest("q.yaml").unwrap();
        wait_until(&node, "no isolation", "shop/backend", |endpoint| endpoint.ingress == "Disabled");
        assert!(is_answered(&node, "shop/other", "shop/backend"));
    }

    #[test]
    fn a_pod_that_nobody_knows_is_closed_until_it_is_known() {
        let mut node = node_with(&["shop/backend"]);
        node.add_pods(["shop/late"]).unwrap();
        let _echoes = [serve(&node, "shop/backend"), serve(&node, "shop/late")];
        assert_eq!(endpoint(&node, "shop/late").identity, INIT);
        assert!(!is_answered(&node, "shop/late", "shop/backend"), "it may send nothing");
        assert!(!is_answered(&node, "shop/backend", "shop/late"), "it receives nothing");

        node.write_pod("shop/late", &spec("late")).unwrap();
        wait_until(&node, "its identity", "shop/late", |endpoint| endpoint.identity != INIT);
        assert!(is_answered(&node, "shop/late", "shop/backend"));
        assert!(is_answered(&node, "shop/backend", "shop/late"));
    }

    /// Whether the pod's own system takes packets for this address: it has a route of type "local" (IPv4 has it at
    /// once; IPv6 only some time after the interface came up).
    fn is_usable(node: &Node, pod: &str, address: &IpAddr) -> bool {
        const RTF_LOCAL: u32 = 0x8000_0000;
        let IpAddr::V6(address) = address else { return true };
        let hex: String = address.octets().iter().map(|byte| format!("{byte:02x}")).collect();
        let table = node
            .pod(pod)
            .unwrap()
            .netns
            .run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/ipv6_route")?))
            .unwrap();
        table.lines().filter(|line| line.starts_with(&hex)).any(|line| {
            let flags = line.split_whitespace().nth(8).and_then(|flags| u32::from_str_radix(flags, 16).ok());
            flags.is_some_and(|flags| flags & RTF_LOCAL != 0)
        })
    }

    #[test]
    fn an_address_works_when_add_returns() {
        let mut node = node_with(&[]);
        let mut late = Vec::new();
        for round in 0..6 {
            let names: Vec<String> = (0..8).map(|nth| format!("shop/pod{round}x{nth}")).collect();
            for name in &names {
                node.write_pod(name, &spec("pod")).unwrap();
            }
            node.add_pods(names.iter().map(String::as_str)).unwrap();
            for name in &names {
                let addresses = node.pod(name).unwrap().addresses.clone();
                late.extend(addresses.into_iter().filter(|address| !is_usable(&node, name, address)));
            }
            node.remove_pods(&names).unwrap();
        }
        assert!(late.is_empty(), "ADD returned, but the pods did not take packets yet for {late:?}");
    }

    #[test]
    fn many_pods_at_once_get_addresses_of_their_own() {
        let names: Vec<String> = (0..24).map(|nth| format!("shop/pod{nth}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let node = node_with(&names);
        let addresses: BTreeSet<IpAddr> =
            node.pods().values().flat_map(|pod| pod.addresses.iter().copied()).collect();
        assert_eq!(addresses.len(), 2 * names.len());
        let _echo = serve(&node, "shop/pod0");
        for name in &names[1..] {
            assert!(is_answered(&node, name, "shop/pod0"), "{name}");
        }
    }
}
