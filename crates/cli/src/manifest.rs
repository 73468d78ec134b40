//! Manifest files on the command line: finding them, and reading the little that the command itself must know.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::failure::{Failure, io};
use crate::policy_name::{PolicyName, kind_in_full};

/// Largest manifest that is read.
const BYTES_MAX: u64 = 16 << 20;

/// One manifest: its text and what errors call it.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Reads what `-f` names: files, directories (their `.yaml`, `.yml` and `.json` files in order), `-`.
pub(crate) fn read_all(paths: &[PathBuf]) -> Result<Vec<Manifest>, Failure> {
    let mut manifests = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            manifests.push(read_stdin()?);
        } else if path.is_dir() {
            let files = files_of(path)?;
            if files.is_empty() {
                return Err(Failure::not_found(format!(
                    "{} holds no .yaml, .yml or .json file",
                    path.display()
                )));
            }
            for file in files {
                manifests.push(read_file(&file)?);
            }
        } else {
            manifests.push(read_file(path)?);
        }
    }
    Ok(manifests)
}

/// The manifest files of a directory, in order of their names.
pub(crate) fn files_of(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let doing = || format!("reading the directory {}", directory.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io(doing()))? {
        let path = entry.map_err(io(doing()))?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let known = path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        if known && !hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The directories in a directory, in order of their names; hidden ones and links are left out.
pub(crate) fn directories_of(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let doing = || format!("reading the directory {}", directory.display());
    let mut directories = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io(doing()))? {
        let entry = entry.map_err(io(doing()))?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && entry.file_type().map_err(io(doing()))?.is_dir() {
            directories.push(entry.path());
        }
    }
    directories.sort();
    Ok(directories)
}

/// Reads standard input.
pub(crate) fn read_stdin() -> Result<Manifest, Failure> {
    read("standard input", std::io::stdin().lock())
}

/// Reads one file.
pub(crate) fn read_file(path: &Path) -> Result<Manifest, Failure> {
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            Failure::not_found(format!("there is no file {name}"))
        } else {
            Failure::error(format!("opening {name} failed: {error}"))
        }
    })?;
    read(&name, file)
}

fn read(name: &str, reader: impl Read) -> Result<Manifest, Failure> {
    let mut bytes = Vec::new();
    reader.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io(format!("reading {name}")))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(Failure::invalid(format!("{name} is larger than {} MiB", BYTES_MAX >> 20)));
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| Failure::invalid(format!("{name} is not UTF-8: {}", error.utf8_error())))?;
    Ok(Manifest { name: name.to_owned(), text })
}

impl Manifest {
    /// Its documents as plain values; empty ones are skipped.
    pub(crate) fn documents(&self) -> Result<Vec<Value>, Failure> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&self.text)
            .map_err(|error| Failure::invalid(format!("{}: {error}", self.name)))?;
        Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
    }

    /// The policies it holds, by name.
    pub(crate) fn policy_names(&self) -> Result<Vec<PolicyName>, Failure> {
        let text = |document: &Value, pointer: &str| {
            document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let mut names = Vec::new();
        for document in self.documents()? {
            let kind = text(&document, "/kind");
            if kind_in_full(&kind).is_none() {
                return Err(Failure::invalid(format!("{}: {kind:?} is no kind of policy", self.name)));
            }
            let mut namespace = text(&document, "/metadata/namespace");
            if namespace.is_empty() && kind != "CiliumClusterwideNetworkPolicy" {
                "default".clone_into(&mut namespace);
            }
            let name = PolicyName::new(&kind, &namespace, &text(&document, "/metadata/name"))
                .map_err(|reason| Failure::invalid(format!("{}: {reason}", self.name)))?;
            names.push(name);
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_policies_of_a_file() {
        let manifest = Manifest {
            name: "a.yaml".to_owned(),
            text: "kind: NetworkPolicy\nmetadata: {name: a, namespace: shop}\n---\n---\n\
                   kind: CiliumClusterwideNetworkPolicy\nmetadata: {name: b}\n---\n\
                   kind: CiliumNetworkPolicy\nmetadata: {name: c}\n"
                .to_owned(),
        };
        let names: Vec<String> = manifest.policy_names().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["knp/shop/a", "ccnp/b", "cnp/default/c"]);

        let pod = Manifest { name: "p.yaml".to_owned(), text: "kind: Pod".to_owned() };
        assert_eq!(pod.policy_names().unwrap_err().exit.code(), 4);
    }

    #[test]
    fn reads_directories_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.json", ".hidden.yaml", "c.txt"] {
            std::fs::write(dir.path().join(name), "x: 1").unwrap();
        }
        let names: Vec<String> = read_all(&[dir.path().to_owned()])
            .unwrap()
            .iter()
            .map(|manifest| manifest.name.rsplit('/').next().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["a.json", "b.yaml"]);
        assert_eq!(read_all(&[dir.path().join("none.yaml")]).unwrap_err().exit.code(), 5);
    }
}
