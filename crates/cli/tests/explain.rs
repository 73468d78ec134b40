//! `sluice policy trace` and `sluice explain` against an agent played by a thread.

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::{Command, Output};

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

    const STATUS: &str = r#"{"state": "ok", "version": "0.1.0", "uptime_s": 1, "source": "directory /m",
        "enforcement": "default", "audit": false, "revision": 2, "policies": 1, "identities": 2,
        "endpoints": {"ready": 2}, "devices": [], "ipam": [], "maps": [], "problems": []}"#;
    const POLICIES: &str = r#"[{"kind": "CiliumNetworkPolicy", "namespace": "shop", "name": "db", "origin": "db.yaml:1",
        "rules": 1, "endpoints": [1], "object": {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "db", "namespace": "shop"}, "spec": {"endpointSelector": {"matchLabels": {"app": "db"}},
        "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "web"}}],
                     "toPorts": [{"ports": [{"port": "5432", "protocol": "TCP"}]}]}]}}},
        {"kind": "CiliumNetworkPolicy", "namespace": "shop", "name": "job", "origin": "job.yaml:1",
        "rules": 1, "endpoints": [3], "object": {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "job", "namespace": "shop"}, "spec": {"endpointSelector": {"matchLabels": {"app": "job"}},
        "egress": [{"toServices": [{"k8sService": {"serviceName": "front", "namespace": "shop"}}],
                    "toPorts": [{"ports": [{"port": "http", "protocol": "TCP"}]}]},
                   {"toCIDRSet": [{"cidrGroupRef": "partners"}]}]}}}]"#;
    /// What policies are about. One pod has no endpoint, and so is not there.
    const OBJECTS: &str = r#"[
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
         "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "late", "namespace": "shop", "labels": {"app": "web"}}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "front", "namespace": "shop"},
         "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}},
        {"apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup", "metadata": {"name": "partners"},
         "spec": {"externalCIDRs": ["198.51.100.0/24"]}}]"#;
    const IPCACHE: &str = r#"[
        {"prefix": "192.0.2.9/32", "identity": 16777220, "labels": ["cidr:192.0.2.9/32", "reserved:world"], "endpoint": 0},
        {"prefix": "10.244.1.7/32", "identity": 300, "labels": ["k8s:app=web", "k8s:io.cilium.k8s.policy.cluster=east",
            "k8s:io.cilium.k8s.policy.serviceaccount=default", "k8s:io.kubernetes.pod.namespace=shop",
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop"], "endpoint": 0},
        {"prefix": "10.244.0.0/16", "identity": 2, "labels": ["reserved:world"], "endpoint": 0}]"#;

    fn endpoint(id: u16, name: &str) -> String {
        format!(
            r#"{{"id": {id}, "state": "ready", "ingress": "Enabled", "egress": "Disabled", "identity": {identity},
            "labels": ["k8s:app={name}", "k8s:io.cilium.k8s.policy.cluster=east",
            "k8s:io.cilium.k8s.policy.serviceaccount=default", "k8s:io.kubernetes.pod.namespace=shop",
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop"],
            "attachment": {{"container_id": "c{id}", "ifname": "eth0", "netns": "/run/netns/x", "pod_namespace": "shop",
              "pod_name": "{name}", "pod_uid": "u", "host_ifname": "slu{id}", "host_ifindex": 1,
              "mac": "02:00:00:00:00:01", "host_mac": "02:00:00:00:00:02", "ipv4": "10.244.0.{id}", "ipv6": null,
              "chained": false, "own_ipam": true}},
            "realized_revision": 2, "wanted_revision": 2, "policy_entries": 1, "options": {{}}}}"#,
            identity = 256 + id
        )
    }

    /// The same endpoint, in audit mode by its own option.
    fn audited(endpoint: String) -> String {
        endpoint.replace(r#""options": {}"#, r#""options": {"PolicyAuditMode": "Enabled"}"#)
    }

    /// A packet from one pod to another that no rule allowed.
    fn flow(time: u64, source: &str, port: u16, verdict: &str) -> String {
        format!(
            r#"{{"time_unix_ns": {time}, "verdict": "{verdict}", "direction": "ingress", "endpoint": 1,
            "source": {{"ip": "10.244.0.2", "port": 40000, "identity": 258, "namespace": "shop", "pod": "{source}"}},
            "destination": {{"ip": "10.244.0.1", "port": {port}, "identity": 257, "namespace": "shop", "pod": "db"}},
            "l4": {{"protocol": "TCP", "tcp_flags": "SYN"}}, "is_reply": false, "revision": 2, "length": 60, "ifindex": 1}}"#
        )
        .replace('\n', " ")
    }

    fn answer(mut stream: UnixStream) {
        let mut question = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut question).unwrap();
        let question = question.trim_end().trim_end_matches(" HTTP/1.0");
        let body = match question {
            "GET /v1/status" => STATUS.to_owned(),
            "GET /v1/policies" => POLICIES.to_owned(),
            "GET /v1/endpoints" => {
                format!("[{}, {}, {}]", endpoint(1, "db"), endpoint(2, "web"), audited(endpoint(3, "job")))
            }
            "GET /v1/objects" => OBJECTS.to_owned(),
            "GET /v1/bpf/ipcache" => IPCACHE.to_owned(),
            "GET /v1/monitor?last=4096&follow=false" => [
                flow(255, "web", 1, "DROPPED"),
                flow(256, "web", 22, "DROPPED"),
                flow(257, "web", 5432, "REDIRECTED"),
            ]
            .join("\n"),
            other => panic!("{other} was not expected"),
        };
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{body}").unwrap();
    }

    fn agent() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("agent.sock")).unwrap();
        std::thread::spawn(move || listener.incoming().for_each(|stream| answer(stream.unwrap())));
        dir
    }

    fn run(dir: &tempfile::TempDir, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command
            .current_dir(ROOT)
            .env("SLUICE_SOCKET", dir.path().join("agent.sock"))
            .env_remove("SLUICE_NODE");
        command.args(arguments).output().unwrap()
    }

    fn text(output: &Output) -> String {
        String::from_utf8(output.stdout.clone()).unwrap() + &String::from_utf8(output.stderr.clone()).unwrap()
    }

    #[test]
    fn the_agents_policies_and_pods_are_asked() {
        let agent = agent();
        let cases = [
            ("shop/web", "shop/db", "5432", 0),
            ("shop/web", "shop/db", "22", 1),
            ("10.244.1.7", "shop/db", "5432", 0),
            ("192.0.2.9", "shop/db", "5432", 1),
            ("shop/web", "192.0.2.9", "443", 0),
            ("shop/nobody", "shop/db", "1", 5),
            ("shop/web", "shop/late", "1", 5),
        ];
        for (src, dst, port, code) in cases {
            let output = run(&agent, &["policy", "trace", "--src", src, "--dst", dst, "--dport", port]);
            assert_eq!(output.status.code(), Some(code), "{src} {dst} {port}\n{}", text(&output));
        }
    }

    /// Services, groups of prefixes, names of ports and audit mode are as the agent knows them.
    #[test]
    fn what_policies_are_about_is_asked_too() {
        let agent = agent();
        for (dst, port, word) in [
            ("svc:shop/front", "80", "allow"),
            ("shop/web", "http", "allow"),
            ("shop/web", "8081", "audit"),
            ("198.51.100.7", "443", "allow"),
            ("198.51.101.7", "443", "audit"),
        ] {
            let output =
                run(&agent, &["policy", "trace", "--src", "shop/job", "--dst", dst, "--dport", port]);
            assert!(text(&output).contains(&format!("\n{word}: ")), "{dst} {port}\n{}", text(&output));
        }
    }

    #[test]
    fn the_last_drop_is_explained() {
        let agent = agent();
        let output = run(&agent, &["explain", "--last-drop"]);
        assert_eq!(output.status.code(), Some(1));
        insta::assert_snapshot!(text(&output), @r#"
        00:00:00.000Z DROPPED shop/web:40000 -> shop/db:22 TCP SYN (ingress) id=100

        shop/web -> shop/db   22/TCP

        SIDE      SUBJECT    VERDICT   WHY
        egress    shop/web   allow     no policy closes this direction
        ingress   shop/db    deny      closed by cnp/shop/db; no rule allows it

        deny: The packet is dropped at ingress, by cnp/shop/db.

        The nearest rule at ingress: cnp/shop/db ingress[0] (cnp/shop/db:12)
          it is for 5432/TCP
            12 |   - fromEndpoints:
            13 |     - matchLabels:
            14 |         app: web
            15 |     toPorts:
            16 |     - ports:
            17 |       - port: "5432"
            18 |         protocol: TCP

        To allow it at ingress, add to cnp/shop/db spec.ingress[0].toPorts (cnp/shop/db:16):
          - ports:
            - port: "22"
              protocol: TCP
        That opens nothing else between the pods that are known here.

        Next: sluice explain --last-drop --suggest > allow.yaml
        "#);
        let suggested = run(&agent, &["explain", "--last-drop", "--suggest"]);
        assert!(text(&suggested).contains("name: allow-web-to-db-22-ingress"), "{}", text(&suggested));
    }

    #[test]
    fn flows_are_found_by_id_and_pod() {
        let agent = agent();
        let flow_of = |arguments: &[&str]| {
            let output = run(&agent, &[&["explain"], arguments, &["-o", "json"]].concat());
            let code = output.status.code();
            let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            (code, value.pointer("/flow/port").and_then(serde_json::Value::as_u64))
        };
        assert_eq!(flow_of(&["ff"]), (Some(1), Some(1)));
        assert_eq!(flow_of(&["id=101"]), (Some(0), Some(5432)));
        assert_eq!(flow_of(&["--pod", "shop/web"]), (Some(1), Some(22)));
        assert_eq!(flow_of(&["--pod", "shop/other"]), (Some(5), None));
        assert_eq!(flow_of(&["abc"]), (Some(5), None));
        assert_eq!(flow_of(&[]), (Some(2), None));
    }

    #[test]
    fn recorded_flows_need_no_agent() {
        let nobody = tempfile::tempdir().unwrap();
        let file = nobody.path().join("drops.jsonl");
        let path = file.to_str().unwrap();
        let record = flow(256, "frontend", 8080, "DROPPED").replace(r#""pod": "db""#, r#""pod": "orders""#);
        std::fs::write(&file, format!("{record}\n\n")).unwrap();
        let explain = || run(&nobody, &["explain", "-f", "docs/examples/trace", "--flow", path]);
        let output = explain();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert!(text(&output).contains("but the policies here let it pass"), "{}", text(&output));
        std::fs::write(&file, "{\"time\": 1}\n").unwrap();
        let output = explain();
        assert_eq!(output.status.code(), Some(4));
        assert!(text(&output).contains("drops.jsonl:1: no flow"), "{}", text(&output));
    }
}
