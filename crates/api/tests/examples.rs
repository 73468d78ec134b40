//! Every example of the documentation is read as written.

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use sluice_api::{Object, read_manifests};

    fn yaml_files(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                yaml_files(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(path);
            }
        }
    }

    #[test]
    fn examples_parse() {
        let mut files = Vec::new();
        yaml_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples"), &mut files);
        let mut policies = 0;
        for file in &files {
            let manifests = read_manifests(&fs::read_to_string(file).unwrap());
            assert!(!manifests.is_empty(), "{}", file.display());
            for manifest in manifests {
                match manifest.content {
                    Ok(Object::Ignored) => {}
                    Ok(_) => policies += 1,
                    Err(error) => panic!("{}: {error}", file.display()),
                }
            }
        }
        assert!(policies >= 20, "only {policies} objects in {} files", files.len());
    }

    #[test]
    fn l7_rules_keep_their_content() {
        let read = |name: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/seeds").join(name);
            let manifest = read_manifests(&fs::read_to_string(path).unwrap()).pop().unwrap();
            let Ok(Object::CiliumNetworkPolicy(policy)) = manifest.content else { panic!("{manifest:?}") };
            policy.spec.unwrap()
        };
        let http = read("api-http-filter.yaml").ingress.unwrap().remove(0).to_ports.unwrap().remove(0);
        let rules = http.rules.unwrap().http.unwrap();
        assert_eq!(rules[1].headers.as_deref(), Some(["X-App-Token: .*".to_owned()].as_slice()));
        let kafka = read("kafka-topic-policy.yaml").ingress.unwrap().remove(1).to_ports.unwrap().remove(0);
        assert_eq!(kafka.rules.unwrap().kafka.unwrap()[0].role.as_deref(), Some("consume"));
        let dns = read("allow-s3-egress.yaml").egress.unwrap();
        assert_eq!(dns[1].to_fqdns.as_ref().unwrap()[0].match_pattern.as_deref(), Some("*.amazonaws.com"));
        let service = read("frontend-to-api.yaml").ingress.unwrap().remove(0).to_ports.unwrap().remove(0);
        assert_eq!(service.service.as_deref(), Some("api"));
    }
}
