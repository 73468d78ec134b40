//! The console examples of the documentation are what the command prints. Needs no agent.

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Command, Output};

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

    fn sluice(arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.current_dir(ROOT).args(arguments).env("SLUICE_SOCKET", "/nowhere/agent.sock");
        command.output().unwrap()
    }

    fn text(output: &Output) -> String {
        String::from_utf8(output.stdout.clone()).unwrap() + &String::from_utf8(output.stderr.clone()).unwrap()
    }

    /// The words of a command line as a shell reads them, as far as the examples go: quotes, no variables.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for character in line.chars() {
            match character {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                _ => words.last_mut().unwrap().push(character),
            }
        }
        words
    }

    #[test]
    fn examples_are_what_is_printed() {
        let pages = [
            ("docs/audit.md", 2),
            ("docs/convert.md", 2),
            ("docs/diff.md", 1),
            ("docs/fmt.md", 3),
            ("docs/matrix.md", 3),
            ("docs/policy-test.md", 4),
            ("docs/trace.md", 5),
        ];
        for (file, wanted) in pages {
            let document = std::fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
            let blocks: Vec<&str> = document
                .split("```console\n")
                .skip(1)
                .map(|rest| rest.split("```").next().unwrap())
                .collect();
            assert_eq!(blocks.len(), wanted, "{file} has lost its examples");
            for block in blocks {
                let (command, wanted) = block.split_once('\n').unwrap();
                let words = words(command.strip_prefix("$ sluice ").unwrap());
                let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
                let printed = text(&sluice(&arguments));
                assert_eq!(printed, wanted, "{command}\n{printed}");
            }
        }
    }

    #[test]
    fn diff_ends_like_diff() {
        let (old, new) = ("docs/examples/trace/policies.yaml", "docs/examples/diff/new.yaml");
        let cases: &[(&[&str], i32, &str)] = &[
            (&[old, old], 0, "Nothing is different"),
            (&[old, new], 1, "What passes"),
            (&[old, new, "-f", "docs/examples/trace/shop.yaml"], 1, "shop/frontend"),
            (&[old], 2, "OLD and NEW are needed"),
            (&["--live", old, new], 2, "only NEW"),
            (&["--live", new], 2, "agent"),
            (&[old, "nowhere.yaml"], 2, "nowhere.yaml"),
            (&[old, "docs/diff.md"], 2, "docs/diff.md"),
            (&[old, old, "--against", "docs/diff.md"], 2, "no flow"),
        ];
        for (arguments, code, words) in cases {
            let output = sluice(&[&["policy", "diff"], *arguments].concat());
            assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {}", text(&output));
            assert!(text(&output).contains(words), "{arguments:?}: {}", text(&output));
        }
    }

    /// Whatever the languages cannot say is an error, and whatever is no policy is named.
    #[test]
    fn convert_loses_nothing() {
        let files = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = files.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let cnp = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: c, namespace: n}, spec: {endpointSelector: {}, ingress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.0.0.0/8]}]}]}}\n---\n";
        let ccnp = "{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {name: w}, spec: {endpointSelector: {}, ingress: [{}]}}\n---\n";
        let knp = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: k, namespace: n}, spec: {podSelector: {}}}\n---\n";
        let tier = "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: t}, spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}\n---\n";
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: n}}\n---\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}\n";
        let all = write("all.yaml", &format!("{cnp}{knp}{pod}"));
        let (wide, tiers) = (write("ccnp.yaml", &format!("{ccnp}{knp}")), write("tier.yaml", tier));
        let pods = write("pods.yaml", pod);
        let cases: &[(&[&str], i32, &str)] = &[
            (&[&all], 0, "note: only policies are printed, and not the Deployment, Pod beside them"),
            (&["--to", "cilium", &wide], 0, "kind: CiliumClusterwideNetworkPolicy"),
            (&["--to", "cilium", &all], 0, "  - 10.0.0.0/8"),
            (&["--to", "kubernetes", &all], 0, "  ingress: []"),
            (
                &["--to", "kubernetes", &wide],
                4,
                "CiliumClusterwideNetworkPolicy w: kind: a NetworkPolicy belongs",
            ),
            (&[&wide], 4, "Nothing was converted"),
            (&["--to", "cilium", &tiers], 4, "tier.yaml:1:55: ClusterNetworkPolicy t: kind: no other policy"),
            (&["--to", "kubernetes", &tiers], 4, "no other policy"),
            (&[&pods], 5, "there is no policy to convert"),
        ];
        for (arguments, code, words) in cases {
            let output = sluice(&[&["policy", "convert"], *arguments].concat());
            assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {}", text(&output));
            assert!(text(&output).contains(words), "{arguments:?}: {}", text(&output));
        }
    }

    #[test]
    fn diff_as_json() {
        let files = ["docs/examples/trace/policies.yaml", "docs/examples/diff/new.yaml"];
        let more = ["-f", "docs/examples/trace/shop.yaml", "--against", "docs/examples/diff/flows.jsonl"];
        let output = sluice(&[&["policy", "diff", "-o", "json"], files.as_slice(), &more].concat());
        let difference: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(difference["different"], true);
        assert_eq!(difference["isolation"][0]["endpoints"][0], "batch/report");
        assert_eq!(difference["flows"]["breaking"][0]["to"], "203.0.113.7");
        assert_eq!(difference["flows"]["opening"][0]["times"], 2);
        let requests = difference["reachability"].as_array().unwrap();
        let requests = requests.iter().find(|change| change["change"] == "requests").unwrap();
        assert_eq!(requests["after"]["requests"], serde_json::json!(["GET /orders/.*", "POST /orders"]));
    }

    #[test]
    fn a_matrix_in_every_form() {
        let matrix = |format: &str| {
            let output = sluice(&["policy", "matrix", "-f", "docs/examples/trace", "-o", format]);
            assert!(output.status.success(), "{}", text(&output));
            text(&output)
        };
        assert!(matrix("md").contains("| **shop/frontend** | all | all | 8080* | all |"));
        assert!(
            matrix("dot").contains("\"shop/frontend\" -> \"shop/orders\" [label=\"8080*\", style=dashed];")
        );
        let svg = matrix("svg");
        assert!(svg.contains("<title>shop/frontend → shop/orders: 8080*</title>"), "{svg}");
        assert_eq!(svg.matches("<g>").count(), 16);
        let json: serde_json::Value = serde_json::from_str(&matrix("json")).unwrap();
        assert_eq!(json["cells"].as_array().unwrap().len(), 16);
        let nobody = sluice(&["policy", "matrix", "-f", "docs/examples/trace", "--namespace", "shop2"]);
        assert_eq!(nobody.status.code(), Some(5));
        let port = sluice(&["policy", "matrix", "-f", "docs/examples/trace", "--port", "0"]);
        assert_eq!(port.status.code(), Some(4));
    }
}
