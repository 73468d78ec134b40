//! `sluice policy lint` as people and scripts meet it.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::process::{Command, Output, Stdio};

    use serde_json::Value;

    const WEB: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: web
  namespace: shop
spec:
  endpointSelector:
    matchLabels:
      app: fronted
  ingress:
  - fromEndpoints:
    - matchLabels:
        app: gateway
    toPorts:
    - ports:
      - port: \"8080\"
        protocol: TCP
      rules:
        http:
        - method: GET
          path: /v1.0/.*
  - fromEntities:
    - cluster
  egress:
  - toEndpoints: []
---
apiVersion: v1
kind: Pod
metadata:
  name: web-1
  namespace: shop
  labels:
    app: frontend
spec: {}
";
    const NAMES: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: stripe, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: frontend}}
  ingress: [{fromEndpoints: []}]
  egress:
  - toFQDNs: [{matchName: api.stripe.com}]
    toPorts: [{ports: [{port: \"443\", protocol: TCP}]}]
";
    const CLEAN: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: closed, namespace: shop}
spec:
  endpointSelector: {}
  ingress: [{fromEndpoints: []}]
  egress: [{toEndpoints: []}]
";

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn with(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in files {
                fs::write(folder.path().join(name), text).unwrap();
            }
            Self(folder)
        }

        fn lint(&self, arguments: &[&str]) -> Output {
            self.command(arguments).stdin(Stdio::null()).output().unwrap()
        }

        fn command(&self, arguments: &[&str]) -> Command {
            let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
            command.args(["policy", "lint"]).args(arguments).current_dir(self.0.path());
            command.env_remove("SLUICE_SOCKET").env_remove("SLUICE_NODE");
            command
        }
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn printed(output: &Output, code: i32) -> String {
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        text(&output.stdout)
    }

    #[test]
    fn people_see_the_line_and_what_to_do() {
        let folder = Folder::with(&[("web.yaml", WEB), ("names.yaml", NAMES)]);
        let output = folder.lint(&[]);
        assert_eq!(text(&output.stderr), "");
        insta::assert_snapshot!(printed(&output, 1), @r"
    names.yaml:8:14: error SL001 no DNS rule lets these pods ask for names, so no address is ever learnt and nothing matches
        8 |   - toFQDNs: [{matchName: api.stripe.com}]
          |              ^
        help: Allow port 53 to the name servers with `rules.dns`, in this policy or another one for the same pods:
              addresses are learnt from the answers that the proxy sees.

    web.yaml:9:12: warning SL010 no pod of shop has app=fronted
        9 |       app: fronted
          |            ^
        help: Did you mean `app: frontend`?

    web.yaml:13:14: warning SL011 no pod of shop has app=gateway
        13 |         app: gateway
           |              ^
        help: The values of app are `frontend`.

    web.yaml:19:9: warning SL031 requests of app=gateway of shop all pass: another rule allows the port without naming requests
        19 |         http:
           |         ^
        help: Rules add up, so one without requests allows them all. Give it the same `rules`, other peers or
              other ports, or remove it.
        note: web.yaml:22:5: cnp/shop/web ingress[1] allows them

    web.yaml:21:17: warning SL033 a dot is any character: /v1.0/.* also matches /v1-0/.*
        21 |           path: /v1.0/.*
           |                 ^
        help: Write '/v1\.0/.*', in single quotes or none.

    1 error, 4 warnings in 3 documents of 2 files
    Why, and how to mend it: sluice policy lint --explain SL001
    ");
    }

    #[test]
    fn nothing_is_found() {
        let folder = Folder::with(&[("a.yaml", CLEAN)]);
        insta::assert_snapshot!(printed(&folder.lint(&["a.yaml"]), 0), @r"Nothing found in 1 document of 1 file");
    }

    #[test]
    fn the_limit_can_be_moved() {
        let hint = CLEAN.replace("ingress: [{fromEndpoints: []}]", "ingress: [{}]");
        let warning =
            CLEAN.replace("ingress: [{fromEndpoints: []}]", "ingress: [{fromEntities: [all], toPorts: []}]");
        let folder = Folder::with(&[("hint.yaml", &hint), ("warning.yaml", &warning), ("error.yaml", NAMES)]);
        for (file, denied, code) in [
            ("hint.yaml", "hints", 1),
            ("hint.yaml", "warnings", 0),
            ("hint.yaml", "errors", 0),
            ("warning.yaml", "warnings", 1),
            ("warning.yaml", "errors", 0),
            ("error.yaml", "errors", 1),
        ] {
            let output = folder.lint(&[file, "--deny", denied]);
            assert_eq!(output.status.code(), Some(code), "{file} {denied}: {output:?}");
        }
        assert_eq!(folder.lint(&["hint.yaml"]).status.code(), Some(0));
        assert_eq!(folder.lint(&["warning.yaml"]).status.code(), Some(1));
    }

    #[test]
    fn what_cannot_be_read_ends_with_its_own_code() {
        let folder = Folder::with(&[("binary.yaml", "")]);
        fs::write(folder.0.path().join("binary.yaml"), [0xff, 0xfe]).unwrap();
        fs::create_dir(folder.0.path().join("empty")).unwrap();
        for (path, want) in [
            ("none.yaml", "there is no file none.yaml"),
            ("binary.yaml", "binary.yaml is not UTF-8"),
            ("empty", "empty holds no .yaml, .yml or .json file"),
        ] {
            let output = folder.lint(&[path]);
            assert_eq!(output.status.code(), Some(4), "{output:?}");
            assert!(text(&output.stderr).contains(want), "{output:?}");
        }
    }

    #[test]
    fn standard_input() {
        let folder = Folder::with(&[]);
        let mut child = folder
            .command(&["-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(NAMES.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(printed(&output, 1).starts_with("standard input:8:14: error SL001 "), "{output:?}");
    }

    #[test]
    fn programs_get_everything() {
        let folder = Folder::with(&[("web.yaml", WEB)]);
        let report: Value =
            serde_json::from_str(&printed(&folder.lint(&["web.yaml", "-o", "json"]), 1)).unwrap();
        assert_eq!(
            (&report["errors"], &report["warnings"], &report["hints"]),
            (&0.into(), &4.into(), &0.into())
        );
        assert_eq!(report["documents"], 2);
        insta::assert_snapshot!(serde_json::to_string_pretty(&report["findings"][1]).unwrap(), @r#"
    {
      "code": "SL011",
      "name": "peer-selects-nothing",
      "severity": "warning",
      "file": "web.yaml",
      "line": 13,
      "column": 14,
      "object": "cnp/shop/web",
      "path": "spec.ingress[0].fromEndpoints[0].matchLabels[app]",
      "message": "no pod of shop has app=gateway",
      "help": "The values of app are `frontend`.",
      "related": []
    }
    "#);
    }

    #[test]
    fn review_tools_get_sarif() {
        let folder = Folder::with(&[("web 1.yaml", WEB)]);
        let report: Value =
            serde_json::from_str(&printed(&folder.lint(&["web 1.yaml", "-o", "sarif"]), 1)).unwrap();
        assert_eq!(report["version"], "2.1.0");
        let run = &report["runs"][0];
        let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
        for result in run["results"].as_array().unwrap() {
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[index]["id"], result["ruleId"]);
        }
        let known: Vec<&str> = rules.iter().map(|rule| rule["id"].as_str().unwrap()).collect();
        assert_eq!(known, sluice_lint::RULES.iter().map(|rule| rule.code).collect::<Vec<_>>());
        insta::assert_snapshot!(serde_json::to_string_pretty(&run["results"][1]).unwrap(), @r#"
    {
      "ruleId": "SL011",
      "ruleIndex": 7,
      "level": "warning",
      "message": {
        "text": "no pod of shop has app=gateway. The values of app are `frontend`."
      },
      "locations": [
        {
          "physicalLocation": {
            "artifactLocation": {
              "uri": "web%201.yaml"
            },
            "region": {
              "startLine": 13,
              "startColumn": 14
            }
          }
        }
      ],
      "relatedLocations": []
    }
    "#);
    }

    #[test]
    fn portable() {
        let text = CLEAN.replace("{fromEndpoints: []}", "{fromEntities: [world-ipv4]}");
        let folder = Folder::with(&[("a.yaml", &text)]);
        assert!(printed(&folder.lint(&["a.yaml"]), 0).contains("a.yaml:6:29: hint SL080 "));
        assert!(printed(&folder.lint(&["a.yaml", "--portable"]), 1).contains("a.yaml:6:29: warning SL080 "));
    }

    #[test]
    fn codes_are_explained() {
        let folder = Folder::with(&[]);
        for word in ["SL041", "sl041", "rule-is-void"] {
            let page = printed(&folder.lint(&["--explain", word]), 0);
            assert!(page.starts_with("# SL041: rule-is-void\n\nSeverity: warning."), "{page}");
        }
        let output = folder.lint(&["--explain", "SL0041"]);
        assert_eq!(output.status.code(), Some(5), "{output:?}");
        assert_eq!(text(&output.stderr), "error: there is no code SL0041\nDid you mean SL001?\n");
    }

    #[test]
    fn colour_only_when_asked_for() {
        let folder = Folder::with(&[("web.yaml", WEB)]);
        assert!(!printed(&folder.lint(&[]), 1).contains('\x1b'));
        let coloured = printed(&folder.lint(&["--color", "always"]), 1);
        assert!(coloured.contains("\x1b[33mwarning\x1b[0m SL010"), "{coloured}");
    }

    #[test]
    fn a_reader_that_goes_away_is_no_error() {
        let folder = Folder::with(&[("web.yaml", WEB)]);
        let mut child = folder.command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(text(&output.stderr), "");
    }
}
