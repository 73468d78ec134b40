//! Which object is in force: of each file the last good version of its objects, of files the first by path.
//!
//! Pure; the worker feeds it texts and hands its differences to the state.

use std::collections::BTreeMap;
use std::path::Path;

use sluice_client::model::Problem;

use super::FileId;
use crate::source::document::{self, Document, Good};
use crate::source::{Object, ObjectKey, RefusedObject, SourceChanges};

/// What is known of one file.
#[derive(Debug, Default)]
struct FileObjects {
    good: BTreeMap<ObjectKey, Good>,
    refused: Vec<Refused>,
}

#[derive(Debug)]
struct Refused {
    /// 0: the file as a whole.
    line: u32,
    key: Option<ObjectKey>,
    reason: String,
}

/// All files.
#[derive(Debug)]
pub(super) struct Catalog {
    config: sluice_policy::Config,
    files: BTreeMap<FileId, FileObjects>,
    emitted: BTreeMap<ObjectKey, Object>,
}

/// The version of an object that is in force.
pub(super) struct InForce<'a> {
    pub(super) file: &'a FileId,
    pub(super) good: &'a Good,
}

impl Catalog {
    pub(super) const fn new(config: sluice_policy::Config) -> Self {
        Self { config, files: BTreeMap::new(), emitted: BTreeMap::new() }
    }

    pub(super) const fn config(&self) -> &sluice_policy::Config {
        &self.config
    }

    /// Takes over objects that were good when the last agent stopped.
    pub(super) fn remember(&mut self, file: &FileId, objects: &[(u32, serde_json::Value)]) {
        let origin = file.path.display().to_string();
        let good = objects.iter().filter_map(|(line, json)| {
            let document = document::read(&json.to_string(), &origin, &self.config).pop()?;
            let mut good = document.content.ok()?;
            good.line = *line;
            if let Object::Policy(policy) = &mut good.object {
                policy.origin = place(&file.path, *line);
            }
            Some((good.object.key(), good))
        });
        let good = good.collect();
        self.files.insert(file.clone(), FileObjects { good, refused: Vec::new() });
    }

    /// The file has this content now, or cannot be read.
    pub(super) fn update(&mut self, file: &FileId, text: Result<&str, String>) {
        let before = self.files.remove(file).unwrap_or_default();
        let after = match text {
            Ok(text) => {
                let documents = document::read(text, &file.path.display().to_string(), &self.config);
                merge(before, documents)
            }
            Err(reason) => {
                let refused = vec![Refused { line: 0, key: None, reason: format!("the file {reason}") }];
                FileObjects { refused, ..before }
            }
        };
        self.files.insert(file.clone(), after);
    }

    /// The file is gone.
    pub(super) fn remove(&mut self, file: &FileId) {
        self.files.remove(file);
    }

    /// The good objects of a file with their lines, to be remembered across restarts.
    pub(super) fn objects_of(&self, file: &FileId) -> Vec<(u32, serde_json::Value)> {
        self.files
            .get(file)
            .map(|objects| objects.good.values().map(|good| (good.line, good.json.clone())).collect())
            .unwrap_or_default()
    }

    /// Which version of an object is in force.
    pub(super) fn lookup(&self, key: &ObjectKey) -> Option<InForce<'_>> {
        self.files.iter().find_map(|(file, objects)| objects.good.get(key).map(|good| InForce { file, good }))
    }

    /// What changed since the last call, and everything that is wrong.
    pub(super) fn changes(&mut self) -> SourceChanges {
        let mut changes = SourceChanges::default();
        let mut winners: BTreeMap<&ObjectKey, (&FileId, &Good)> = BTreeMap::new();
        for (file, objects) in &self.files {
            for (key, good) in &objects.good {
                if let Some((first, _)) = winners.get(key) {
                    let first = first.path.display();
                    let message = format!("{key} is in {first} too, which comes first and is in force");
                    changes.problems.push(problem(&file.path, good.line, message));
                } else {
                    winners.insert(key, (file, good));
                }
            }
            for bad in &objects.refused {
                changes.problems.push(problem(&file.path, bad.line, bad.reason.clone()));
                if let Some(key) = &bad.key {
                    let origin = place(&file.path, bad.line);
                    let refused = RefusedObject { origin, reason: bad.reason.clone() };
                    changes.refused.entry(key.clone()).or_insert(refused);
                }
            }
        }
        let is_new = |key: &ObjectKey, good: &Good| self.emitted.get(key) != Some(&good.object);
        changes.set = winners
            .iter()
            .filter(|(key, (_, good))| is_new(key, good))
            .map(|(_, (_, good))| good.object.clone())
            .collect();
        changes.removed = self.emitted.keys().filter(|key| !winners.contains_key(key)).cloned().collect();
        for key in &changes.removed {
            self.emitted.remove(key);
        }
        self.emitted.extend(changes.set.iter().map(|object| (object.key(), object.clone())));
        changes
    }
}

/// The new version of a file: what is refused keeps its last good version; what is not there any more is gone,
/// unless a document is so broken that it could be anything.
fn merge(mut before: FileObjects, documents: Vec<Document>) -> FileObjects {
    let mut after = FileObjects::default();
    let mut is_unclear = false;
    for document in documents {
        let line = document.line;
        match (document.content, document.key) {
            (Ok(_), Some(key)) if after.good.contains_key(&key) => {
                let reason = format!("{key} is in this file twice; the first is in force");
                after.refused.push(Refused { line, key: None, reason });
            }
            (Ok(good), Some(key)) => {
                after.good.insert(key, good);
            }
            (Err(reason), key) => {
                is_unclear |= key.is_none();
                if let Some((key, last)) = key.as_ref().and_then(|key| before.good.remove_entry(key)) {
                    after.good.entry(key).or_insert(last);
                }
                after.refused.push(Refused { line, key, reason });
            }
            (Ok(_), None) => {}
        }
    }
    if is_unclear {
        for (key, last) in before.good {
            after.good.entry(key).or_insert(last);
        }
    }
    after
}

fn place(path: &Path, line: u32) -> String {
    if line == 0 { path.display().to_string() } else { format!("{}:{line}", path.display()) }
}

fn problem(path: &Path, line: u32, message: String) -> Problem {
    Problem { object: place(path, line), message }
}
