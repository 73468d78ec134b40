//! `sluice policy test` as people and scripts meet it, and the conformance tests that are written in its format.

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::path::Path;
    use std::process::{Command, Output, Stdio};

    use serde_json::Value;

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    const CONFORMANCE: &str = "conformance/policy-tests";

    fn command(arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        // No agent is asked: a socket that is not there does not matter.
        command
            .current_dir(ROOT)
            .arg("policy")
            .arg("test")
            .args(arguments)
            .env("SLUICE_SOCKET", "/nowhere/s");
        command
    }

    fn test(arguments: &[&str]) -> Output {
        command(arguments).output().unwrap()
    }

    fn text(output: &Output) -> String {
        String::from_utf8(output.stdout.clone()).unwrap() + &String::from_utf8(output.stderr.clone()).unwrap()
    }

    fn json(arguments: &[&str]) -> Value {
        serde_json::from_slice(&test(&[arguments, &["-o", "json"]].concat()).stdout).unwrap()
    }

    #[test]
    fn exit_codes() {
        let cases: &[(&[&str], i32)] = &[
            (&["docs/examples/policy-test"], 0),
            (&["docs/examples/policy-test-failing/shop.yaml"], 1),
            (&["docs/examples/policy-test-failing/typo.yaml"], 4),
            (&["docs/examples/policy-test-failing"], 4),
            (&["docs/examples/policy-test", "--filter", "DELETE"], 0),
            (&["docs/examples/policy-test", "--filter", "no such name"], 4),
            (&["docs/examples/policy-test", "--filter", "("], 2),
            (&["docs/examples/policy-test", "--watch", "-o", "json"], 2),
            (&["docs/examples/policy-test/policies"], 4),
            (&["docs/examples/policy-test/policies/orders.yaml"], 4),
            (&["/nowhere"], 4),
            (&[], 2),
        ];
        for (arguments, want) in cases {
            let output = test(arguments);
            assert_eq!(output.status.code(), Some(*want), "{arguments:?}\n{}", text(&output));
        }
    }

    #[test]
    fn json_as_documented() {
        let report = json(&["docs/examples/policy-test", "--filter", "DELETE"]);
        insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
        let mistakes = json(&["docs/examples/policy-test-failing/typo.yaml"]);
        assert_eq!((&mistakes["errors"], &mistakes["results"][0]["outcome"]), (&1.into(), &"error".into()));
    }

    #[test]
    fn other_formats_say_the_same() {
        let path = "docs/examples/policy-test-failing";
        let print = |format| text(&test(&[path, "-o", format]));
        let junit = print("junit");
        assert!(junit.contains("tests=\"2\" failures=\"1\" errors=\"1\""), "{junit}");
        let tap = print("tap");
        assert!(tap.starts_with("TAP version 14\n1..2\nnot ok 1"), "{tap}");
        let sarif: Value = serde_json::from_str(&print("sarif")).unwrap();
        let lines: Vec<&Value> = sarif["runs"][0]["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| &result["locations"][0]["physicalLocation"]["region"]["startLine"])
            .collect();
        assert_eq!(lines, [9, 9]);
    }

    /// What watching prints until a line that begins so, without colour.
    fn until(lines: &mut impl Iterator<Item = std::io::Result<String>>, start: &str) -> Vec<String> {
        let mut seen = Vec::new();
        for line in lines {
            seen.push(line.unwrap());
            if seen.last().unwrap().starts_with(start) {
                return seen;
            }
        }
        panic!("it ended with {seen:?}");
    }

    #[test]
    fn watching_runs_again_when_a_policy_changes() {
        let dir = tempfile::tempdir().unwrap();
        let examples = Path::new(ROOT).join("docs/examples/policy-test");
        for part in ["policies/orders.yaml", "tests/shop.yaml"] {
            let to = dir.path().join(part);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(examples.join(part), to).unwrap();
        }
        let tests = dir.path().join("tests");
        let mut child =
            command(&[tests.to_str().unwrap(), "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = until(&mut lines, "waiting");
        assert!(first.contains(&"12 passed in 1 file".to_owned()), "{first:?}");
        let policy = dir.path().join("policies/orders.yaml");
        let changed = std::fs::read_to_string(&policy).unwrap().replace("method: GET", "method: DELETE");
        std::fs::write(dir.path().join("new"), changed).unwrap();
        std::fs::rename(dir.path().join("new"), &policy).unwrap();
        let second = until(&mut lines, "waiting");
        assert!(second.contains(&"10 passed, 2 failed in 1 file".to_owned()), "{second:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Rules of the seeds that select nobody, and so cannot be met: an explicit default deny, and fields shown empty.
    const SELECT_NOBODY: &[(&str, &str)] = &[
        ("payments/default-deny", "ingress[0]"),
        ("payments/default-deny", "egress[0]"),
        ("production/every-field", "ingress[0]"),
        ("production/every-field", "ingressDeny[0]"),
        ("production/every-field", "egress[0]"),
        ("production/every-field", "egressDeny[0]"),
        // Its test is that it does not hold: a deny of the world comes first.
        ("shop/names", "egress[0]"),
    ];

    #[test]
    fn every_conformance_test_passes_and_the_seeds_are_covered() {
        let report = json(&[CONFORMANCE]);
        let results = report["results"].as_array().unwrap();
        let bad: Vec<&Value> = results.iter().filter(|result| result["outcome"] != "passed").collect();
        assert!(bad.is_empty(), "{}", serde_json::to_string_pretty(&bad).unwrap());
        let of_seeds = |result: &&Value| result["file"].as_str().unwrap().contains("/seeds/");
        // A matrix is one idea in many cells; it is not counted here.
        let cell = |result: &&Value| result["name"].as_str().unwrap().contains(" -> ");
        let seeds = results.iter().filter(of_seeds).count();
        let own = results.iter().filter(|result| !of_seeds(result) && !cell(result)).count();
        assert!(seeds >= 200, "{seeds} tests of the seeds");
        assert!(own >= 280, "{own} tests of our own");

        let report = json(&["conformance/policy-tests/seeds"]);
        let unmet: Vec<(&str, &str)> = report["coverage"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|row| row["hits"] == 0)
            .map(|row| (row["policy"].as_str().unwrap(), row["rule"].as_str().unwrap()))
            .filter(|row| !SELECT_NOBODY.contains(row))
            .collect();
        assert!(unmet.is_empty(), "no test meets {unmet:?}");
    }

    #[test]
    fn every_seed_has_a_test() {
        let seeds = Path::new(ROOT).join("docs/examples/seeds");
        let tests = Path::new(ROOT).join(CONFORMANCE).join("seeds");
        let texts: Vec<String> = std::fs::read_dir(tests)
            .unwrap()
            .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
            .collect();
        for seed in std::fs::read_dir(seeds).unwrap() {
            let name = seed.unwrap().file_name().into_string().unwrap();
            assert!(texts.iter().any(|text| text.contains(&format!("/{name}]"))), "{name} has no test");
        }
    }
}
