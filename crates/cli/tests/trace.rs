//! `sluice policy trace` as people and scripts meet it. Needs no agent.

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    const EXAMPLES: &str = "docs/examples/trace";

    fn sluice(arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.current_dir(ROOT).args(arguments).env("SLUICE_SOCKET", "/nowhere/agent.sock");
        command.output().unwrap()
    }

    fn trace(arguments: &[&str]) -> Output {
        sluice(&[&["policy", "trace", "-f", EXAMPLES], arguments].concat())
    }

    fn text(output: &Output) -> String {
        String::from_utf8(output.stdout.clone()).unwrap() + &String::from_utf8(output.stderr.clone()).unwrap()
    }

    #[test]
    fn exit_codes() {
        let to_orders = ["--src", "shop/frontend", "--dst", "shop/orders", "--dport", "8080"];
        let with = |more: &[&'static str]| [to_orders.as_slice(), more].concat();
        let cases: &[(Vec<&str>, i32, &str)] = &[
            (with(&["--http", "GET /orders/1"]), 0, "allow"),
            (with(&["--http", "GET /admin"]), 1, "l7-deny"),
            (with(&["--http", "GET /admin", "--audit"]), 0, "audit"),
            (with(&["--http", "GET /admin", "--enforcement", "never"]), 0, "allow"),
            (with(&["--http", "GET"]), 4, "'METHOD /PATH'"),
            (with(&["--kafka", "shout:orders"]), 4, "no kind of request"),
            (with(&["--header", "A: b"]), 2, "--http"),
            (with(&["-f", "docs/trace.md"]), 4, "docs/trace.md"),
            (with(&["-f", "nowhere.yaml"]), 5, "nowhere.yaml"),
            (vec!["--src", "shop/frontent", "--dst", "shop/orders", "--dport", "1"], 5, "shop/frontend"),
            (vec!["--src", "shop/frontend", "--dst", "shop/orders", "--dport", "0"], 4, "1 to 65535"),
            (vec!["--src", "shop/frontend", "--dst", "shop/orders", "--dport", "web"], 5, "it has http"),
            (
                vec!["--src", "shop/frontend", "--dst", "shop/orders", "--dport", "1/QUIC"],
                4,
                "TCP, UDP or SCTP",
            ),
            (vec!["--src", "shop/frontend", "--dst", "shop/orders"], 2, "--dport"),
            (
                vec!["--src", "shop/frontend", "--dst", "svc:shop/none", "--dport", "80"],
                5,
                "no Service shop/none",
            ),
            (vec!["--src", "shop/frontend", "--dst", "svc:none", "--dport", "80"], 4, "svc:NAMESPACE/NAME"),
            (vec!["--src", "batch/report", "--dst", "2001:db8::1", "--icmp", "128"], 1, "ICMPv6 type 128"),
            (
                vec!["--src", "batch/report", "--dst", "world", "--dns", "a.example"],
                1,
                "53/UDP   DNS a.example",
            ),
        ];
        for (arguments, code, wanted) in cases {
            let output = trace(arguments);
            let printed = text(&output);
            assert_eq!(output.status.code(), Some(*code), "{arguments:?}\n{printed}");
            assert!(printed.contains(wanted), "{arguments:?}\n{printed}");
        }
    }

    /// What `--suggest` prints is a manifest, and with it the flow passes.
    #[test]
    fn a_suggestion_can_be_applied() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("allow.yaml");
        let cases: &[&[&str]] = &[
            &["--src", "batch/report", "--dst", "shop/orders", "--dport", "http"],
            &["--src", "batch/report", "--dst", "svc:shop/orders", "--dport", "80"],
            &[
                "--src",
                "shop/frontend",
                "--dst",
                "shop/orders",
                "--dport",
                "8080",
                "--http",
                "DELETE /a.b?c=(d",
            ],
            &[
                "--src",
                "batch/report",
                "--dst",
                "api.example.com",
                "--dport",
                "443",
                "--sni",
                "api.example.com",
            ],
            &["--src", "batch/report", "--dst", "192.0.2.7", "--icmp", "8"],
            &[
                "--src",
                "app=web,io.kubernetes.pod.namespace=other",
                "--dst",
                "shop/orders",
                "--dport",
                "9092",
                "--kafka",
                "produce:a",
            ],
            &["--src", "batch/report", "--dst", "world", "--dns", "a.example"],
        ];
        for arguments in cases {
            assert_eq!(trace(arguments).status.code(), Some(1), "{arguments:?}");
            let suggested = trace(&[arguments, ["--suggest"].as_slice()].concat());
            assert_eq!(suggested.status.code(), Some(0), "{}", text(&suggested));
            std::fs::write(&file, &suggested.stdout).unwrap();
            let with = trace(&[arguments, ["-f", file.to_str().unwrap()].as_slice()].concat());
            assert_eq!(with.status.code(), Some(0), "{}\n{}", text(&suggested), text(&with));
        }
        let denied = trace(&["--src", "shop/frontend", "--dst", "shop/orders", "--dport", "22", "--suggest"]);
        assert_eq!(denied.status.code(), Some(1));
        assert!(text(&denied).contains("cnp/shop/orders ingressDeny[0] denies it"), "{}", text(&denied));
    }

    #[test]
    fn programs_read_the_same() {
        let output =
            trace(&["--src", "batch/report", "--dst", "shop/orders", "--dport", "8080", "-o", "json"]);
        assert_eq!(output.status.code(), Some(1));
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        for (pointer, wanted) in [
            ("/flow/port", serde_json::json!(8080)),
            ("/verdict", "deny".into()),
            ("/at", "egress".into()),
            ("/by", serde_json::json!(["cnp/batch/batch"])),
            ("/egress/isolatedBy", serde_json::json!(["cnp/batch/batch"])),
            ("/egress/nearest/0/rule/line", 24.into()),
            ("/ingress/verdict", "deny".into()),
            ("/ingress/nearest/0/rule/file", "docs/examples/trace/policies.yaml".into()),
            ("/change/0/kind", "create".into()),
            ("/change/0/create/metadata/namespace", "batch".into()),
            ("/change/1/kind", "extend".into()),
            ("/change/1/rule/path", "ingress[0].fromEndpoints".into()),
            ("/change/1/filtered", true.into()),
        ] {
            assert_eq!(value.pointer(pointer), Some(&wanted), "{pointer} of {value:#}");
        }
        let service =
            trace(&["--src", "shop/frontend", "--dst", "svc:shop/orders", "--dport", "80", "-o", "yaml"]);
        assert!(
            text(&service).starts_with("service: shop/orders\nverdict: allow\nbackends:\n"),
            "{}",
            text(&service)
        );
    }

    #[test]
    fn colour_is_for_terminals() {
        let plain = trace(&["--src", "shop/frontend", "--dst", "shop/orders", "--dport", "22"]);
        assert!(!text(&plain).contains('\x1b'));
        let coloured =
            trace(&["--src", "shop/frontend", "--dst", "shop/orders", "--dport", "22", "--color", "always"]);
        assert!(text(&coloured).contains("\x1b[31mdeny\x1b[0m"));
    }
}
