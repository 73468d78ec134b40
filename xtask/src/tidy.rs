//! The structure of the workspace, checked: who may depend on whom, and the invariants of the documents.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Which of our crates each crate may depend on (dev-dependencies included). The drawing in
/// `docs/ARCHITECTURE.md` shows the same.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("sluice-types", &[]),
    ("sluice-api", &[]),
    ("sluice-netlink", &[]),
    ("sluice-flow", &["sluice-types"]),
    ("sluice-ebpf-common", &["sluice-types"]),
    ("sluice-ebpf-programs", &["sluice-ebpf-common", "sluice-types"]),
    ("sluice-arbitrary", &["sluice-api", "sluice-types"]),
    ("sluice-policy", &["sluice-api", "sluice-arbitrary", "sluice-types"]),
    ("sluice-model", &["sluice-api", "sluice-policy", "sluice-types"]),
    ("sluice-lint", &["sluice-api", "sluice-policy", "sluice-types"]),
    ("sluice-format", &["sluice-api"]),
    ("sluice-policytest", &["sluice-api", "sluice-model", "sluice-policy", "sluice-types"]),
    ("sluice-client", &["sluice-flow", "sluice-types"]),
    (
        "sluice-ebpf-loader",
        &[
            "sluice-api",
            "sluice-arbitrary",
            "sluice-ebpf-common",
            "sluice-model",
            "sluice-policy",
            "sluice-types",
        ],
    ),
    ("sluice-cni", &["sluice-client", "sluice-ebpf-loader", "sluice-netlink", "sluice-types"]),
    (
        "sluice-cli",
        &[
            "sluice-api",
            "sluice-client",
            "sluice-flow",
            "sluice-format",
            "sluice-lint",
            "sluice-model",
            "sluice-netlink",
            "sluice-policy",
            "sluice-policytest",
            "sluice-types",
        ],
    ),
    (
        "sluice-agent",
        &[
            "sluice-api",
            "sluice-client",
            "sluice-ebpf-common",
            "sluice-ebpf-loader",
            "sluice-flow",
            "sluice-model",
            "sluice-netlink",
            "sluice-policy",
            "sluice-proxy-rules",
            "sluice-types",
        ],
    ),
    (
        "sluice-bench",
        &[
            "sluice-ebpf-common",
            "sluice-ebpf-loader",
            "sluice-flow",
            "sluice-l7proxy",
            "sluice-netlink",
            "sluice-policy",
            "sluice-api",
            "sluice-types",
        ],
    ),
    (
        "sluice-proxy-rules",
        &["sluice-policy", "sluice-types", "sluice-api", "sluice-arbitrary", "sluice-model"],
    ),
    (
        "sluice-l7proxy",
        &[
            "sluice-client",
            "sluice-ebpf-loader",
            "sluice-flow",
            "sluice-policy",
            "sluice-proxy-rules",
            "sluice-types",
        ],
    ),
    ("sluice-conformance", &[]),
    ("xtask", &[]),
];

/// Crates from outside that only these of ours may use.
const ONLY_USED_BY: &[(&str, &[&str])] = &[
    ("aya", &["sluice-ebpf-loader"]),
    ("aya-ebpf", &["sluice-ebpf-programs"]),
    (
        "anyhow",
        &["sluice-agent", "sluice-bench", "sluice-cli", "sluice-conformance", "sluice-l7proxy", "xtask"],
    ),
    ("tokio", &["sluice-agent", "sluice-bench", "sluice-l7proxy"]),
];

/// Words that name no thing.
const MODULE_NAMES_BANNED: &[&str] = &["utils", "util", "helpers", "misc", "common_utils"];

/// Checks everything and reports all findings at once.
pub(crate) fn check() -> Result<()> {
    let root = workspace_root();
    let mut findings = dependency_findings(&metadata(&root)?);
    findings.extend(source_findings(&root)?);
    findings.extend(document_findings(&root)?);
    if findings.is_empty() {
        return Ok(());
    }
    bail!("the structure is not as decided:\n  {}", findings.join("\n  "))
}

fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

fn metadata(root: &Path) -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("cannot start cargo metadata")?;
    serde_json::from_slice(&output.stdout).context("cannot read cargo metadata")
}

fn dependency_findings(metadata: &Value) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = MAY_DEPEND_ON.iter().copied().collect();
    let mut findings = Vec::new();
    for package in metadata.get("packages").and_then(Value::as_array).into_iter().flatten() {
        let name = text(package, "name");
        let Some(allowed) = allowed.get(name) else {
            findings.push(format!("{name}: a new crate; say in xtask/src/tidy.rs what it may depend on"));
            continue;
        };
        for dependency in package.get("dependencies").and_then(Value::as_array).into_iter().flatten() {
            let dependency = text(dependency, "name");
            let ours = MAY_DEPEND_ON.iter().any(|(crate_name, _)| *crate_name == dependency);
            // A crate may ask for features of itself in its own tests.
            if ours && dependency != name && !allowed.contains(&dependency) {
                findings.push(format!("{name} depends on {dependency}, which points the wrong way"));
            }
            if let Some((_, users)) = ONLY_USED_BY.iter().find(|(outside, _)| *outside == dependency)
                && !users.contains(&name)
            {
                findings.push(format!("{name} uses {dependency}, which only {} may", users.join(", ")));
            }
        }
    }
    findings
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn source_findings(root: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in files_below(root, "rs")? {
        let name = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let shown = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        if MODULE_NAMES_BANNED.contains(&name) {
            findings.push(format!("{shown}: name the thing it is about"));
        }
        let source = std::fs::read_to_string(&file)?;
        if !source.starts_with("//!") && !source.starts_with("#!") && !shown.contains("/tests") {
            findings.push(format!("{shown}: a module opens with what it is for"));
        }
        if shown.starts_with("crates/policy/src")
            && let Some(word) = ["std::fs", "std::net::Tcp", "std::time::SystemTime", "std::env"]
                .iter()
                .find(|word| source.contains(**word))
        {
            findings.push(format!("{shown}: policy is pure and may not use {word}"));
        }
        let unsafe_room = ["ebpf/", "crates/netlink/", "conformance/", "crates/bench/"];
        if source.contains(concat!("unsafe", " {")) && !unsafe_room.iter().any(|room| shown.starts_with(room))
        {
            findings.push(format!("{shown}: unsafe code stands only where the kernel is called"));
        }
    }
    Ok(findings)
}

/// Every crate's folder is named in the map of the house, and every relative link of a document leads somewhere.
fn document_findings(root: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let architecture =
        std::fs::read_to_string(root.join("docs/ARCHITECTURE.md")).context("docs/ARCHITECTURE.md")?;
    for (name, _) in MAY_DEPEND_ON {
        if !architecture.contains(name) {
            findings.push(format!("docs/ARCHITECTURE.md does not mention {name}"));
        }
    }
    for document in files_below(root, "md")? {
        let shown = document.strip_prefix(root).unwrap_or(&document).display().to_string();
        let body = std::fs::read_to_string(&document)?;
        for target in body.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            if !document.parent().unwrap_or(root).join(path).exists() {
                findings.push(format!("{shown}: the link to {target} leads nowhere"));
            }
        }
    }
    Ok(findings)
}

fn files_below(root: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name == "target" || name.starts_with('.') {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|own| own == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        check().unwrap();
    }

    #[test]
    fn a_wrong_dependency_is_found() {
        let metadata = serde_json::json!({"packages": [
            {"name": "sluice-policy", "dependencies": [{"name": "sluice-agent"}, {"name": "tokio"}]},
            {"name": "sluice-new", "dependencies": []},
        ]});
        let findings = dependency_findings(&metadata);
        assert_eq!(findings.len(), 3, "{findings:?}");
    }
}
