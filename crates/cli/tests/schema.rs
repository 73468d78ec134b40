//! `sluice schema` as editors meet it: the files it writes, held against documents that are right and wrong.

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output};

    use serde_json::{Value, json};

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

    fn sluice(arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.current_dir(ROOT).args(arguments).output().unwrap()
    }

    fn text(output: &Output) -> String {
        String::from_utf8(output.stdout.clone()).unwrap() + &String::from_utf8(output.stderr.clone()).unwrap()
    }

    /// What `--dir` writes: `all.json` as an editor uses it, with the files that it refers to.
    fn validator() -> jsonschema::Validator {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("schema");
        let output = sluice(&["schema", "--dir", path.to_str().unwrap()]);
        assert!(output.status.success(), "{}", text(&output));
        let read =
            |path: &Path| -> Value { serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap() };
        let base = "file:///schema/";
        let files = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
        let mut registry = jsonschema::Registry::new();
        for file in files {
            let uri = format!("{base}{}", file.file_name().unwrap().to_str().unwrap());
            registry = registry.add(uri, jsonschema::Resource::from_contents(read(&file))).unwrap();
        }
        let registry = registry.prepare().unwrap();
        let mut all = read(&path.join("all.json"));
        all["$id"] = format!("{base}all.json").into();
        jsonschema::options().with_registry(&registry).build(&all).unwrap()
    }

    fn yaml_files(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                yaml_files(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(path);
            }
        }
    }

    #[test]
    fn what_the_project_ships_is_valid() {
        let validator = validator();
        let mut files = Vec::new();
        for directory in ["docs/examples", "conformance/policy-tests"] {
            yaml_files(&Path::new(ROOT).join(directory), &mut files);
        }
        let mut judged = 0;
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for document in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
                let errors: Vec<String> = validator.iter_errors(&document).map(|e| e.to_string()).collect();
                assert!(errors.is_empty(), "{}: {errors:#?}", file.display());
                judged += 1;
            }
        }
        assert!(judged > 80, "only {judged} documents were found");
    }

    #[test]
    fn mistakes_are_seen() {
        let validator = validator();
        let policy = |spec: Value| json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "a"}, "spec": spec});
        let cases = [
            (policy(json!({"endpointSelector": {}, "ingress": [{}]})), true),
            (policy(json!({"endpointSelector": {}, "ingres": [{}]})), false),
            (policy(json!({"endpointSelector": {}, "ingress": {}})), false),
            (policy(json!({"endpointSelector": {}, "ingress": [{"fromEntities": ["wrold"]}]})), false),
            (
                json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "a"}, "spec": {"podSelector": {}, "policyTypes": ["Inwards"]}}),
                false,
            ),
            (json!({"apiVersion": "sluice.dev/v1", "kind": "PolicyTest", "test": []}), false),
            // Somebody else's business.
            (json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"whatever": 1}}), true),
            (json!({"kind": "Pod"}), false),
        ];
        for (document, valid) in cases {
            assert_eq!(validator.is_valid(&document), valid, "{document}");
        }
    }

    #[test]
    fn the_documentation_shows_what_is_printed() {
        let document = std::fs::read_to_string(Path::new(ROOT).join("docs/editor.md")).unwrap();
        let example = document.split("```console\n").nth(1).unwrap().split("```").next().unwrap();
        let (command, wanted) = example.split_once('\n').unwrap();
        assert_eq!(command, "$ sluice schema --dir .schema");
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        let output = command.current_dir(&directory).args(["schema", "--dir", ".schema"]).output().unwrap();
        assert_eq!(text(&output), wanted);
    }

    #[test]
    fn kinds_are_listed_and_printed() {
        let list = text(&sluice(&["schema"]));
        for kind in [
            "CiliumNetworkPolicy",
            "CiliumClusterwideNetworkPolicy",
            "NetworkPolicy",
            "ClusterNetworkPolicy",
            "PolicyTest",
        ] {
            assert!(list.lines().any(|line| line.starts_with(kind)), "{list}");
            let output = sluice(&["schema", kind]);
            let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(schema["properties"]["kind"]["const"], kind);
        }
        assert_eq!(sluice(&["schema", "cnp"]).stdout, sluice(&["schema", "ciliumnetworkpolicy"]).stdout);
        let unknown = sluice(&["schema", "NetworkPolcy"]);
        assert_eq!(unknown.status.code(), Some(5));
        assert!(text(&unknown).contains("Did you mean NetworkPolicy?"), "{}", text(&unknown));
        assert_eq!(sluice(&["schema", "cnp", "--dir", "x"]).status.code(), Some(2));
    }
}
