//! Everything that is written about policies in this repository means the same after it is formatted.

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use sluice_api::{Manifest, read_manifests};

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

    fn files_below(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files_below(&path, files);
            } else if path.extension().is_some_and(|end| end == "yaml" || end == "md") {
                files.push(path);
            }
        }
    }

    /// The texts of policies in a file: the file, the fenced blocks of a page, and what stands in a case as text.
    fn policies_of(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        if path.extension().is_some_and(|end| end == "md") {
            let blocks = text.split("```yaml\n").skip(1);
            return blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect();
        }
        let mut texts = Vec::new();
        for tree in sluice_api::read_trees(&text).into_iter().flatten() {
            texts_in(&tree.to_json(), &mut texts);
        }
        texts.push(text);
        texts
    }

    fn texts_in(value: &serde_json::Value, texts: &mut Vec<String>) {
        match value {
            serde_json::Value::String(text) if text.contains("apiVersion:") => texts.push(text.clone()),
            serde_json::Value::Array(items) => items.iter().for_each(|item| texts_in(item, texts)),
            serde_json::Value::Object(fields) => {
                // A policy that stands in a test as an object is one that can be formatted, too.
                if fields.contains_key("apiVersion") {
                    texts.push(value.to_string());
                }
                fields.values().for_each(|value| texts_in(value, texts));
            }
            serde_json::Value::String(_)
            | serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_) => {}
        }
    }

    fn meaning(manifest: &Manifest) -> impl PartialEq + std::fmt::Debug {
        let reason = |error: &sluice_api::DocumentError| (error.path.clone(), error.reason.clone());
        (manifest.kind.clone(), manifest.name.clone(), manifest.content.as_ref().map_err(reason).cloned())
    }

    #[test]
    fn every_policy_means_the_same() {
        let mut files = Vec::new();
        for directory in ["docs", "conformance"] {
            files_below(&Path::new(ROOT).join(directory), &mut files);
        }
        let (mut policies, mut comments) = (0, 0);
        for file in &files {
            for text in policies_of(file) {
                let readable = sluice_api::read_trees(&text).iter().all(Result::is_ok);
                let formatted = match sluice_format::format(&text) {
                    Ok(formatted) => formatted,
                    Err(error) if !readable => {
                        assert!(!error.reason.is_empty());
                        continue;
                    }
                    Err(error) => panic!("{}: {error}\n{text}", file.display()),
                };
                let (before, after) = (read_manifests(&text), read_manifests(&formatted));
                assert_eq!(before.len(), after.len(), "{}", file.display());
                for (before, after) in before.iter().zip(&after) {
                    assert_eq!(meaning(before), meaning(after), "{}: {formatted}", file.display());
                    policies += usize::from(before.kind.ends_with("Policy"));
                }
                assert_eq!(sluice_format::format(&formatted).as_ref(), Ok(&formatted), "{}", file.display());
                assert_eq!(text.matches('#').count(), formatted.matches('#').count(), "{formatted}");
                comments += text.matches("# ").count();
            }
        }
        assert!(policies > 200 && comments > 20, "{policies} policies with {comments} comments");
    }
}
