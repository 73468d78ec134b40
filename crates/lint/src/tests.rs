//! What is found in whole documents, and what is not. The pages of the rules are tests as well (`tests/pages.rs`).

mod cluster;
mod documents;
mod names;
mod policies;
mod requests;
mod seeds;

use sluice_api::read_manifests;

use crate::{Document, Finding, Options, lint};

pub(crate) fn documents(file: &str, text: &str) -> Vec<Document> {
    let manifests = read_manifests(text).into_iter();
    manifests.map(|manifest| Document { file: file.to_owned(), manifest }).collect()
}

/// Everything found in a text, one line each.
pub(crate) fn found(text: &str, options: &Options) -> Vec<String> {
    lint(&documents("a.yaml", text), options).iter().map(line).collect()
}

/// `LINE:COLUMN SEVERITY CODE message`.
fn line(finding: &Finding) -> String {
    let Finding { line, column, severity, code, message, .. } = finding;
    format!("{line}:{column} {severity} {code} {message}")
}

/// A `CiliumNetworkPolicy` of namespace `shop`.
fn cnp(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {spec}\n"
    )
}

fn ccnp(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: {name}}}\n\
         spec: {spec}\n"
    )
}

fn knp(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {spec}\n"
    )
}

fn pod(name: &str, labels: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {labels}}}\n\
         spec: {spec}\n"
    )
}

/// Checks which findings of one code there are: the messages, separated by `|`.
fn check(code: &str, cases: &[(&str, String, &str)]) {
    check_with(code, &Options::default(), cases);
}

fn check_with(code: &str, options: &Options, cases: &[(&str, String, &str)]) {
    for (name, text, want) in cases {
        let findings = lint(&documents("a.yaml", text), options);
        let invalid = |finding: &&Finding| ["SL070", "SL071"].contains(&finding.code) && code != finding.code;
        assert_eq!(findings.iter().find(invalid), None, "{name}");
        let messages: Vec<&str> = findings
            .iter()
            .filter(|finding| finding.code == code)
            .map(|finding| finding.message.as_str())
            .collect();
        assert_eq!(messages.join("|"), *want, "{code}: {name}");
    }
}

/// Checks the advice of the only finding of a code.
fn check_help(code: &str, cases: &[(&str, String, &str)]) {
    for (name, text, want) in cases {
        let findings = lint(&documents("a.yaml", text), &Options::default());
        let helps: Vec<&str> = findings
            .iter()
            .filter(|finding| finding.code == code)
            .map(|finding| finding.help.as_str())
            .collect();
        let [help] = helps.as_slice() else { panic!("{name}: {findings:#?}") };
        assert!(help.contains(want), "{name}: {help}");
    }
}
