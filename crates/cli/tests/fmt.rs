//! `sluice policy fmt` on files. Needs no agent.

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;
    use std::process::{Command, Output, Stdio};

    const UGLY: &str = "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: 'a'} # who\n";
    const PRETTY: &str =
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: # who\n  name: a\n";
    const REFUSED: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: &m {name: 'a'}\n";

    fn fmt(directory: &Path, arguments: &[&str], stdin: &str) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.current_dir(directory).args(["policy", "fmt"]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    #[test]
    fn files_are_changed_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let content = |name: &str| std::fs::read_to_string(path(name)).unwrap();
        let pod = "kind:   Pod\napiVersion: v1\n";
        for (name, text) in
            [("a.yaml", UGLY), ("b.yml", PRETTY), ("c.json", "{\"kind\": 1}"), ("d.yaml", pod)]
        {
            std::fs::write(path(name), text).unwrap();
        }
        let before = std::fs::metadata(path("b.yml")).unwrap().modified().unwrap();

        let (code, stdout, stderr) = fmt(dir.path(), &["--check", "."], "");
        assert_eq!((code, stdout.as_str()), (1, "./a.yaml\n"), "{stderr}");
        assert!(stderr.contains("1 of 3 files"), "{stderr}");
        assert_eq!(content("a.yaml"), UGLY, "--check changed a file");

        let (code, stdout, _) = fmt(dir.path(), &["--diff", "."], "");
        assert_eq!(code, 0);
        assert!(stdout.contains("+kind: NetworkPolicy\n+metadata: # who\n+  name: a\n"), "{stdout}");
        assert_eq!(content("a.yaml"), UGLY, "--diff changed a file");
        assert_eq!(fmt(dir.path(), &["--diff", "--check", "."], "").0, 1);

        let (code, stdout, stderr) = fmt(dir.path(), &["."], "");
        assert_eq!((code, stdout.as_str()), (0, "./a.yaml formatted\n"), "{stderr}");
        assert_eq!([content("a.yaml"), content("b.yml"), content("d.yaml")], [PRETTY, PRETTY, pod]);
        assert_eq!(std::fs::metadata(path("b.yml")).unwrap().modified().unwrap(), before);
        assert_eq!(fmt(dir.path(), &["--check", "."], ""), (0, String::new(), String::new()));
    }

    #[test]
    fn a_refused_file_stays_and_holds_up_no_other() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("a.yaml", REFUSED), ("b.yaml", UGLY), ("c.yaml", "a: [\n"), ("d.json", "{}")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let (code, stdout, stderr) = fmt(dir.path(), &["a.yaml", "b.yaml", "c.yaml", "d.json"], "");
        assert_eq!((code, stdout.as_str()), (4, "b.yaml formatted\n"), "{stderr}");
        for words in ["a.yaml:3:14: anchors are not formatted", "c.yaml:1:4: ", "d.json is JSON"] {
            assert!(stderr.contains(words), "{stderr}");
        }
        assert_eq!(std::fs::read_to_string(dir.path().join("a.yaml")).unwrap(), REFUSED);
        assert_eq!(fmt(dir.path(), &["none.yaml"], "").0, 4 + 1);
        assert_eq!(fmt(dir.path(), &[], "").0, 2);
    }

    #[test]
    fn standard_input_goes_to_standard_output() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(fmt(dir.path(), &["-"], UGLY), (0, PRETTY.to_owned(), String::new()));
        let (code, stdout, _) = fmt(dir.path(), &["--check", "-"], UGLY);
        assert_eq!((code, stdout.as_str()), (1, "standard input\n"));
        let (code, stdout, stderr) = fmt(dir.path(), &["-"], REFUSED);
        assert_eq!((code, stdout.as_str()), (4, ""), "{stderr}");
    }
}
