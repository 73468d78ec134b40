//! What is found in whole documents.

use sluice_api::read_manifests;

use crate::{Document, Finding, Options, lint};

pub(crate) fn documents(file: &str, text: &str) -> Vec<Document> {
    let manifests = read_manifests(text).into_iter();
    manifests.map(|manifest| Document { file: file.to_owned(), manifest }).collect()
}

/// Everything found in a text, one line each: `LINE:COLUMN CODE message`.
pub(crate) fn found(text: &str, options: &Options) -> Vec<String> {
    lint(&documents("a.yaml", text), options).iter().map(line).collect()
}

pub(crate) fn line(finding: &Finding) -> String {
    format!("{}:{} {} {} {}", finding.line, finding.column, finding.severity, finding.code, finding.message)
}

/// The examples of the founding documents: what they teach, and where they fall into the traps they warn of.
#[test]
fn seeds() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/seeds");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        for finding in lint(&documents(&name, &text), &Options::default()) {
            all.push(format!("{name}:{}", line(&finding)));
        }
    }
    println!("{}", all.join("\n"));
}
