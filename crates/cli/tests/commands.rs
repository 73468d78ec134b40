//! The command as people and scripts meet it: tables, formats, exit codes, against an agent played by a thread.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::Path;
    use std::process::{Command, Output, Stdio};
    use std::sync::{Arc, Mutex};

    /// What the agent of the tests answers: `METHOD PATH` → status and body.
    type Answers = BTreeMap<String, (u16, String)>;

    /// An agent that answers from a table and remembers what it was asked.
    struct Agent {
        dir: tempfile::TempDir,
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl Agent {
        fn start(answers: &[(&str, u16, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let listener = UnixListener::bind(dir.path().join("agent.sock")).unwrap();
            let answers: Answers = answers
                .iter()
                .map(|(question, status, body)| ((*question).to_owned(), (*status, (*body).to_owned())))
                .collect();
            let asked = Arc::new(Mutex::new(Vec::new()));
            let log = Arc::clone(&asked);
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    answer(stream.unwrap(), &answers, &log);
                }
            });
            Self { dir, asked }
        }

        fn run(&self, arguments: &[&str]) -> Output {
            sluice(&self.dir.path().join("agent.sock"), arguments).output().unwrap()
        }

        fn asked(&self) -> Vec<String> {
            self.asked.lock().unwrap().clone()
        }
    }

    fn answer(mut stream: UnixStream, answers: &Answers, log: &Mutex<Vec<String>>) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut first = String::new();
        reader.read_line(&mut first).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let question = first.trim().trim_end_matches(" HTTP/1.0").to_owned();
        log.lock()
            .unwrap()
            .push(format!("{question} {}", String::from_utf8(body).unwrap()).trim().to_owned());
        let missing = (404, r#"{"message": "there is no such thing", "code": "not-found"}"#.to_owned());
        let (status, body) = answers.get(&question).cloned().unwrap_or(missing);
        // The command may have gone away already, for example after `monitor -n 1`.
        let _gone = write!(stream, "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n\r\n{body}");
    }

    fn sluice(socket: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command
            .arg("--socket")
            .arg(socket)
            .args(arguments)
            .env_remove("SLUICE_SOCKET")
            .env_remove("SLUICE_NODE");
        command.stdin(Stdio::null());
        command
    }

    fn stdout(output: &Output) -> String {
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout.clone()).unwrap()
    }

    fn stderr(output: &Output) -> String {
        String::from_utf8(output.stderr.clone()).unwrap()
    }

    const STATUS: &str = r#"{"state": "degraded", "version": "0.1.0", "uptime_s": 3700, "source": "directory /etc/m",
    "enforcement": "default", "audit": false, "revision": 7, "policies": 2, "identities": 12,
    "endpoints": {"ready": 2, "regenerating": 1}, "devices": ["eth0"],
    "ipam": [{"pool": "10.244.0.0/24", "used": 3, "resting": 1, "capacity": 253}],
    "maps": [{"name": "sluice_ct", "used": null, "capacity": 65536}, {"name": "sluice_ipcache", "used": 9, "capacity": 1024}],
    "problems": [{"object": "web.yaml:3", "message": "spec.ingress[0]: unknown field `toPort`"}]}"#;

    const ENDPOINT: &str = r#"{"id": 7, "state": "ready", "ingress": "Enabled", "egress": "Disabled (Audit)", "identity": 260,
    "labels": ["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop"],
    "attachment": {"container_id": "c1", "ifname": "eth0", "netns": "/run/netns/x", "pod_namespace": "shop",
      "pod_name": "web", "pod_uid": "u", "host_ifname": "slu000000000001", "host_ifindex": 12,
      "mac": "02:00:00:00:00:01", "host_mac": "02:00:00:00:00:02", "ipv4": "10.244.0.2", "ipv6": "fd00::2",
      "chained": false, "own_ipam": true},
    "realized_revision": 3, "wanted_revision": 3, "policy_entries": 2, "options": {"PolicyAuditMode": "Disabled"},
    "isolated_by": {"ingress": ["cnp/shop/web"]},
    "counters": [{"direction": "ingress", "outcome": "FORWARDED", "packets": 10, "bytes": 900},
                 {"direction": "ingress", "outcome": "POLICY_DENIED", "packets": 2, "bytes": 120}]}"#;

    fn endpoints() -> String {
        let second = ENDPOINT
            .replace(r#""id": 7"#, r#""id": 3"#)
            .replace(r#""ready""#, r#""waiting-for-identity""#)
            .replace(r#""pod_name": "web""#, r#""pod_name": "db""#)
            .replace(r#""ipv6": "fd00::2""#, r#""ipv6": null"#);
        format!("[{ENDPOINT}, {second}]")
    }

    #[test]
    fn status() {
        let agent = Agent::start(&[("GET /v1/status", 200, STATUS)]);
        insta::assert_snapshot!(stdout(&agent.run(&["status"])), @r"
    Agent         degraded, version 0.1.0, up 1 h 1 min
    Source        directory /etc/m
    Enforcement   default
    Policies      2 (revision 7)
    Endpoints     3 (2 ready, 1 regenerating)
    Identities    12
    Addresses     10.244.0.0/24: 3 of 253 in use, 1 resting
    Devices       eth0
    Maps          sluice_ct: ? of 65536
                  sluice_ipcache: 9 of 1024

    What needs a look:
      web.yaml:3: spec.ingress[0]: unknown field `toPort`
    ");
        let brief = agent.run(&["status", "--brief"]);
        assert_eq!((brief.status.code(), brief.stdout.as_slice()), (Some(1), b"degraded\n".as_slice()));
        let json: serde_json::Value =
            serde_json::from_str(&stdout(&agent.run(&["status", "-o", "json"]))).unwrap();
        assert_eq!(json["revision"], 7);
        assert!(stdout(&agent.run(&["status", "-o", "yaml"])).contains("enforcement: default\n"));
    }

    #[test]
    fn endpoint_list_has_the_columns_that_users_know() {
        let agent = Agent::start(&[("GET /v1/endpoints", 200, &endpoints())]);
        insta::assert_snapshot!(stdout(&agent.run(&["endpoint", "list"])), @r"
    ENDPOINT   POLICY (ingress)   POLICY (egress)    IDENTITY   LABELS (source:key[=value])            IPv6      IPv4         STATUS
               ENFORCEMENT        ENFORCEMENT
    3          Enabled            Disabled (Audit)   260        k8s:app=web                                      10.244.0.2   waiting-for-identity
                                                                k8s:io.kubernetes.pod.namespace=shop
    7          Enabled            Disabled (Audit)   260        k8s:app=web                            fd00::2   10.244.0.2   ready
                                                                k8s:io.kubernetes.pod.namespace=shop
    ");
    }

    #[test]
    fn endpoint_get_by_number_and_by_pod() {
        let agent =
            Agent::start(&[("GET /v1/endpoints", 200, &endpoints()), ("GET /v1/endpoints/7", 200, ENDPOINT)]);
        let by_number = stdout(&agent.run(&["endpoint", "get", "7"]));
        insta::assert_snapshot!(by_number, @r"
    Endpoint            7
    Pod                 shop/web
    Status              ready
    Ingress             Enabled, by cnp/shop/web
    Egress              Disabled (Audit)
    Identity            260
    Labels              k8s:app=web
                        k8s:io.kubernetes.pod.namespace=shop
    Addresses           10.244.0.2, fd00::2
    Interface           slu000000000001 (index 12), eth0 in the pod
    MAC                 02:00:00:00:00:01
    Network namespace   /run/netns/x
    Container           c1
    Policy              revision 3 of 3, 2 entries
    PolicyAuditMode     Disabled

    DIRECTION   OUTCOME         PACKETS   BYTES
    ingress     FORWARDED       10        900
    ingress     POLICY_DENIED   2         120
    ");
        assert_eq!(stdout(&agent.run(&["endpoint", "get", "shop/web"])), by_number);
        for (wanted, code) in [("8", 5), ("shop/none", 5), ("web", 2), ("0", 2), ("5000", 2)] {
            assert_eq!(agent.run(&["endpoint", "get", wanted]).status.code(), Some(code), "{wanted}");
        }
    }

    #[test]
    fn endpoint_config() {
        let enabled = ENDPOINT.replace(r#""PolicyAuditMode": "Disabled""#, r#""PolicyAuditMode": "Enabled""#);
        let agent = Agent::start(&[
            ("GET /v1/endpoints/7", 200, ENDPOINT),
            ("PATCH /v1/endpoints/7/config", 200, &enabled),
        ]);
        let set = stdout(&agent.run(&["endpoint", "config", "7", "PolicyAuditMode=Enabled"]));
        assert_eq!(set, "OPTION            VALUE\nPolicyAuditMode   Enabled\n");
        assert_eq!(
            agent.asked().last().unwrap(),
            r#"PATCH /v1/endpoints/7/config {"PolicyAuditMode":"Enabled"}"#
        );
        assert!(stdout(&agent.run(&["endpoint", "config", "7"])).ends_with("Disabled\n"));
        assert_eq!(agent.run(&["endpoint", "config", "7", "Debug=Enabled"]).status.code(), Some(4));
    }

    #[test]
    fn endpoint_log_and_identities() {
        let log = r#"[{"time_unix_ns": 1000000, "state": "ready", "message": "policy of revision 3 is in the kernel"}]"#;
        let identities = r#"[{"id": 260, "labels": ["k8s:app=web"], "references": 2}, {"id": 1, "labels": ["reserved:host"], "references": 1}]"#;
        let agent = Agent::start(&[
            ("GET /v1/endpoints/7", 200, ENDPOINT),
            ("GET /v1/endpoints/7/log", 200, log),
            ("GET /v1/identities", 200, identities),
        ]);
        insta::assert_snapshot!(stdout(&agent.run(&["endpoint", "log", "7"])), @r"
    TIME            STATE   MESSAGE
    00:00:00.001Z   ready   policy of revision 3 is in the kernel
    ");
        insta::assert_snapshot!(stdout(&agent.run(&["identity", "list"])), @r"
    ID    LABELS          REFCOUNT
    1     reserved:host   1
    260   k8s:app=web     2
    ");
        assert!(stdout(&agent.run(&["identity", "get", "host"])).contains("reserved:host"));
        assert_eq!(agent.run(&["identity", "get", "300"]).status.code(), Some(5));
        assert_eq!(agent.run(&["identity", "get", "nobody"]).status.code(), Some(2));
    }

    const POLICIES: &str = r#"[{"kind": "CiliumNetworkPolicy", "namespace": "shop", "name": "web", "origin": "web.yaml:1",
    "rules": 1, "endpoints": [3, 7], "object": {"kind": "CiliumNetworkPolicy", "metadata": {"name": "web"}}},
   {"kind": "CiliumClusterwideNetworkPolicy", "namespace": "", "name": "base", "origin": "base.yaml:1", "rules": 2,
    "endpoints": [], "error": "base.yaml:9: unknown field", "object": {}},
   {"kind": "NetworkPolicy", "namespace": "shop", "name": "tried", "origin": "tried.yaml:1", "rules": 1, "endpoints": [3],
    "object": {"metadata": {"name": "tried", "annotations": {"sluice.dev/audit": "true"}}}}]"#;

    #[test]
    fn policy_get() {
        let agent = Agent::start(&[("GET /v1/policies", 200, POLICIES)]);
        insta::assert_snapshot!(stdout(&agent.run(&["policy", "get"])), @r"
    POLICY           RULES   ENDPOINTS   ORIGIN         STATUS
    ccnp/base        2       0           base.yaml:1    last good version in force: base.yaml:9: unknown field
    cnp/shop/web     1       2           web.yaml:1     in force
    knp/shop/tried   1       1           tried.yaml:1   in audit mode
    ");
        insta::assert_snapshot!(stdout(&agent.run(&["policy", "get", "cnp/shop/web"])), @r"
    # cnp/shop/web, from web.yaml:1, selects endpoint 3, 7
    kind: CiliumNetworkPolicy
    metadata:
      name: web
    ");
        assert_eq!(agent.run(&["policy", "get", "cnp/shop/none"]).status.code(), Some(5));
        assert_eq!(agent.run(&["policy", "get", "web"]).status.code(), Some(2));
    }

    #[test]
    fn policy_apply() {
        let applied = r#"{"results": ["CiliumNetworkPolicy/shop/web created"], "revision": 8}"#;
        let agent = Agent::start(&[("POST /v1/policies/apply", 200, applied)]);
        let file = agent.dir.path().join("web.yaml");
        std::fs::write(&file, "kind: X\n").unwrap();
        let path = file.to_str().unwrap();
        assert_eq!(
            stdout(&agent.run(&["policy", "apply", "-f", path])),
            "CiliumNetworkPolicy/shop/web created\n"
        );
        let asked: serde_json::Value = serde_json::from_str(
            agent.asked().last().unwrap().strip_prefix("POST /v1/policies/apply ").unwrap(),
        )
        .unwrap();
        assert_eq!(asked, serde_json::json!({"text": "kind: X\n", "name": path}));
        assert_eq!(agent.run(&["policy", "apply", "-f", "/none.yaml"]).status.code(), Some(5));
        assert_eq!(agent.run(&["policy", "apply"]).status.code(), Some(2));

        let invalid = r#"{"message": "web.yaml:3: spec: empty policy", "code": "invalid"}"#;
        let agent = Agent::start(&[("POST /v1/policies/apply", 422, invalid)]);
        let refused = agent.run(&["policy", "apply", "-f", path]);
        assert_eq!(refused.status.code(), Some(4));
        assert!(stderr(&refused).contains("web.yaml:3: spec: empty policy"), "{refused:?}");
    }

    #[test]
    fn policy_delete() {
        let agent = Agent::start(&[
            ("DELETE /v1/policies/CiliumNetworkPolicy/shop/web", 200, ""),
            ("DELETE /v1/policies/CiliumClusterwideNetworkPolicy/-/base", 200, ""),
        ]);
        assert_eq!(
            stdout(&agent.run(&["policy", "delete", "cnp/shop/web", "ccnp/base"])),
            "cnp/shop/web deleted\nccnp/base deleted\n"
        );
        let file = agent.dir.path().join("p.yaml");
        std::fs::write(&file, "kind: CiliumNetworkPolicy\nmetadata: {name: web, namespace: shop}\n---\nkind: NetworkPolicy\nmetadata: {name: gone}\n").unwrap();
        let mixed = agent.run(&["policy", "delete", "-f", file.to_str().unwrap()]);
        assert_eq!(mixed.status.code(), Some(5));
        assert_eq!(String::from_utf8_lossy(&mixed.stdout), "cnp/shop/web deleted\n");
        assert!(stderr(&mixed).contains("knp/default/gone"));
        assert_eq!(agent.run(&["policy", "delete"]).status.code(), Some(2));
    }

    #[test]
    fn bpf_tables() {
        let policy = r#"[{"endpoint": 7, "verdict": "Allow", "direction": "ingress", "identity": 260, "labels": ["k8s:app=web"],
        "port": "8080/TCP", "proxy_port": 0, "precedence": 10, "rule": 3, "origin": "cnp/shop/web ingress[0]"},
       {"endpoint": 7, "verdict": "Deny", "direction": "ingress", "identity": 0, "labels": [], "port": "ANY",
        "proxy_port": 0, "precedence": 20, "rule": 4, "origin": "ccnp/base ingressDeny[0]"}]"#;
        let ct = r#"[{"protocol": "TCP", "source": "10.0.0.1:4", "destination": "10.0.0.2:80", "source_identity": 260,
        "destination_identity": 261, "flags": ["egress-judged", "replied"], "expires_s": 8000, "packets": [3, 2],
        "bytes": [180, 120], "rules": ["", "cnp/shop/web ingress[0]"]}]"#;
        let ipcache = r#"[{"prefix": "10.0.0.1/32", "identity": 260, "labels": ["k8s:app=web"], "endpoint": 7},
        {"prefix": "0.0.0.0/0", "identity": 9, "labels": ["reserved:world-ipv4"], "endpoint": 0}]"#;
        let agent = Agent::start(&[
            ("GET /v1/endpoints/7", 200, ENDPOINT),
            ("GET /v1/bpf/policy?endpoint=7", 200, policy),
            ("GET /v1/bpf/policy", 200, policy),
            ("GET /v1/bpf/ct", 200, ct),
            ("GET /v1/bpf/ipcache", 200, ipcache),
        ]);
        insta::assert_snapshot!(stdout(&agent.run(&["bpf", "policy", "get", "7"])), @r"
    POLICY   DIRECTION   LABELS (source:key[=value])   PORT/PROTO   PROXY PORT   RULE
    Deny     Ingress     ANY                           ANY          NONE         ccnp/base ingressDeny[0]
    Allow    Ingress     k8s:app=web                   8080/TCP     NONE         cnp/shop/web ingress[0]
    ");
        insta::assert_snapshot!(stdout(&agent.run(&["bpf", "policy", "get", "--all", "-n"])), @r"
    ENDPOINT   POLICY   DIRECTION   IDENTITY   PORT/PROTO   PROXY PORT   RULE
    7          Deny     Ingress     ANY        ANY          NONE         ccnp/base ingressDeny[0]
    7          Allow    Ingress     260        8080/TCP     NONE         cnp/shop/web ingress[0]
    ");
        insta::assert_snapshot!(stdout(&agent.run(&["bpf", "ct", "list"])), @r"
    PROTO   SOURCE       DESTINATION   IDENTITIES   EXPIRES   PACKETS   BYTES       FLAGS                   RULES
    TCP     10.0.0.1:4   10.0.0.2:80   260 -> 261   8000 s    3 / 2     180 / 120   egress-judged,replied   cnp/shop/web ingress[0]
    ");
        insta::assert_snapshot!(stdout(&agent.run(&["bpf", "ipcache", "list"])), @r"
    IP PREFIX/ADDRESS   IDENTITY   ENDPOINT   LABELS (source:key[=value])
    10.0.0.1/32         260        7          k8s:app=web
    0.0.0.0/0           9          -          reserved:world-ipv4
    ");
        assert_eq!(agent.run(&["bpf", "policy", "get"]).status.code(), Some(2));
        assert_eq!(agent.run(&["bpf", "policy", "get", "7", "--all"]).status.code(), Some(2));
    }

    fn flow(verdict: &str, source: &str) -> String {
        let reason = if verdict == "DROPPED" { r#""drop_reason": "POLICY_DENIED","# } else { "" };
        format!(
        r#"{{"time_unix_ns": 1000000, "verdict": "{verdict}", {reason} "direction": "ingress", "endpoint": 7,
        "source": {{"ip": "10.0.0.3", "port": 40000, "identity": 300, "namespace": "shop", "pod": "{source}"}},
        "destination": {{"ip": "10.0.0.2", "port": 80, "identity": 260, "namespace": "shop", "pod": "web"}},
        "l4": {{"protocol": "TCP", "tcp_flags": "SYN"}}, "is_reply": false,
        "policies": [{{"policy": "cnp/shop/web"}}], "revision": 3, "length": 60, "ifindex": 5}}"#
    )
    .replace('\n', " ")
    }

    #[test]
    fn monitor() {
        let stream =
            format!("{}\n{}\n{}\n", flow("FORWARDED", "a"), flow("DROPPED", "b"), flow("DROPPED", "c"));
        let agent = Agent::start(&[
            ("GET /v1/monitor", 200, &stream),
            ("GET /v1/monitor?verdicts=true", 200, &stream),
        ]);
        let line = |pod: &str| {
            format!(
                "00:00:00.001Z DROPPED shop/{pod}:40000 -> shop/web:80 TCP SYN (ingress, POLICY_DENIED: no rule allows it \
             (default deny), by cnp/shop/web) id=f4240\n"
            )
        };
        assert_eq!(stdout(&agent.run(&["monitor", "-n", "2"])), line("b") + &line("c"));
        assert_eq!(stdout(&agent.run(&["monitor", "-n", "1", "--from", "shop/c"])), line("c"));
        assert_eq!(
            stdout(&agent.run(&["monitor", "-n", "1", "--pod", "shop/c", "--to", "10.0.0.2"])),
            line("c")
        );
        let verdicts = stdout(&agent.run(&["monitor", "-n", "1", "--type", "policy-verdict", "-o", "json"]));
        let verdict: serde_json::Value = serde_json::from_str(&verdicts).unwrap();
        assert_eq!(verdict["verdict"], "FORWARDED");
        let ended = agent.run(&["monitor", "--from", "shop/none"]);
        assert_eq!(ended.status.code(), Some(1), "the stream ended before anything matched");
    }

    #[test]
    fn no_agent() {
        let dir = tempfile::tempdir().unwrap();
        let output = sluice(&dir.path().join("none.sock"), &["endpoint", "list"]).output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert!(output.stdout.is_empty());
        let text = stderr(&output);
        assert!(text.starts_with("error: the agent is not running: there is no socket"), "{text}");
        assert!(text.contains("sluice up DIR"), "{text}");
    }

    #[test]
    fn no_node() {
        let output = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .args(["--node", "no-such-node", "pod", "list"])
            .env_remove("SLUICE_SOCKET")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(stderr(&output).contains("sluice up DIR --name no-such-node"));
        let output = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .args(["--node", "../x", "pod", "list"])
            .env_remove("SLUICE_SOCKET")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }

    #[test]
    fn colour_only_when_asked_or_on_a_terminal() {
        let agent = Agent::start(&[("GET /v1/endpoints", 200, &endpoints())]);
        assert!(!stdout(&agent.run(&["endpoint", "list"])).contains('\x1b'));
        assert!(stdout(&agent.run(&["endpoint", "list", "--color", "always"])).contains('\x1b'));
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let many = format!(
            "[{}]",
            vec![r#"{"prefix": "10.0.0.1/32", "identity": 1, "labels": [], "endpoint": 0}"#; 20_000]
                .join(",")
        );
        let agent = Agent::start(&[("GET /v1/bpf/ipcache", 200, &many)]);
        let mut child = sluice(&agent.dir.path().join("agent.sock"), &["bpf", "ipcache", "list"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
    }

    #[test]
    fn help_and_completion() {
        let run =
            |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_sluice")).args(arguments).output().unwrap();
        for arguments in [["--help"], ["-h"]] {
            let help = stdout(&run(&arguments));
            for word in ["endpoint", "monitor", "Exit codes:", "3  the agent is not running"] {
                assert!(help.contains(word), "{arguments:?} lacks {word:?}:\n{help}");
            }
        }
        for shell in ["bash", "zsh", "fish"] {
            assert!(stdout(&run(&["completion", shell])).contains("endpoint"), "{shell}");
        }
        assert_eq!(run(&["completion", "tcsh"]).status.code(), Some(2));
        assert_eq!(run(&["endpont"]).status.code(), Some(2));
        assert_eq!(run(&[]).status.code(), Some(2));
    }
}
