//! The documents that are looked at, with their text.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sluice_api::read_manifests;
use sluice_lint::Document;

use crate::failure::{Exit, Failure};
use crate::manifest;

/// Everything that was read.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) documents: Vec<Document>,
    /// The text of each file.
    texts: BTreeMap<String, String>,
}

impl Input {
    /// One line of a file, counted from 1.
    pub(super) fn line(&self, file: &str, number: u32) -> Option<&str> {
        let number = usize::try_from(number).ok()?.checked_sub(1)?;
        self.texts.get(file)?.lines().nth(number)
    }

    /// How many files there are.
    pub(super) fn files(&self) -> usize {
        self.texts.len()
    }
}

/// Reads files and directories; `-` is standard input. A file that cannot be read is the end: what is in it might be
/// what makes the rest wrong.
pub(super) fn read(paths: &[PathBuf]) -> Result<Input, Failure> {
    let unreadable = |mut failure: Failure| {
        failure.exit = Exit::Invalid;
        failure
    };
    let mut input = Input { documents: Vec::new(), texts: BTreeMap::new() };
    for file in manifest::read_all(paths).map_err(unreadable)? {
        let name = file.name.strip_prefix("./").unwrap_or(&file.name).to_owned();
        let documents = read_manifests(&file.text).into_iter();
        input.documents.extend(documents.map(|manifest| Document { file: name.clone(), manifest }));
        input.texts.insert(name, file.text);
    }
    Ok(input)
}
