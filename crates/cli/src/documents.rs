//! Objects of manifest files, with where each stands: what the offline tools work on.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use sluice_api::read_manifests;
use sluice_model::Cluster;

use crate::failure::Failure;
use crate::manifest;

/// How many mistakes are told about at once.
const SHOWN_MAX: usize = 20;

/// One object, or what is wrong with it.
#[derive(Debug)]
pub(crate) struct Document {
    /// The file as it was named, or `standard input`.
    pub(crate) file: String,
    /// The whole text of the file.
    pub(crate) text: Arc<str>,
    pub(crate) manifest: sluice_api::Manifest,
}

/// Everything that is wrong with one object, ready to be shown: `FILE:LINE:COLUMN: path: reason`.
pub(crate) type Mistake = String;

/// Reads files and directories; `-` is standard input.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Document>, Failure> {
    let files = manifest::read_all(paths)?;
    let documents = files.into_iter().flat_map(|file| {
        let text: Arc<str> = file.text.into();
        let manifests = read_manifests(&text);
        let document =
            move |manifest| Document { file: file.name.clone(), text: Arc::clone(&text), manifest };
        manifests.into_iter().map(document)
    });
    Ok(documents.collect())
}

impl Document {
    /// Tells the cluster about the object.
    pub(crate) fn apply(&self, cluster: &mut Cluster) -> Result<(), Vec<Mistake>> {
        let object = self.manifest.content.as_ref().map_err(|error| {
            let place = format!("{}:{}:{}", self.file, error.line, error.column);
            let path = if error.path.is_empty() { String::new() } else { format!("{}: ", error.path) };
            vec![format!("{place}: {path}{}", error.reason)]
        })?;
        cluster.apply(object).map_err(|errors| {
            let shown = |error: &sluice_policy::ParseError| {
                let place = self.manifest.place(&error.path);
                format!("{}:{}:{}: {error}", self.file, place.line, place.column)
            };
            errors.iter().map(shown).collect()
        })
    }
}

/// Tells the cluster about all objects.
///
/// One mistake is enough to judge nothing: without a policy that was meant, every answer could be wrong.
pub(crate) fn apply_all(documents: &[Document], cluster: &mut Cluster) -> Result<(), Failure> {
    let mut mistakes = Vec::new();
    for document in documents {
        if let Err(more) = document.apply(cluster) {
            mistakes.extend(more);
        }
    }
    if mistakes.is_empty() {
        return Ok(());
    }
    let more = mistakes.len().saturating_sub(SHOWN_MAX);
    mistakes.truncate(SHOWN_MAX);
    let mut message = mistakes.join("\n");
    if more > 0 {
        write!(message, "\nand {more} more").ok();
    }
    Err(Failure::invalid(message))
}
