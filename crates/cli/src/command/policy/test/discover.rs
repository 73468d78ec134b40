//! Finding test files and the policies they name.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use sluice_policytest::{Mistake, Source, Suite, is_policy_test};

use super::Run;
use crate::failure::Failure;
use crate::manifest::{self, Manifest};

/// The test files that are named, and those anywhere below the directories that are named, in order. What cannot be
/// read is part of the report.
pub(super) fn files(paths: &[PathBuf], run: &mut Run) -> Vec<Manifest> {
    let mut found = Vec::new();
    for path in paths {
        let before = found.len();
        let result = if path.is_dir() { below(path, run, &mut found) } else { named(path, run, &mut found) };
        let shown = path.display().to_string();
        if let Err(failure) = result {
            run.report.mistake(&Mistake::of_file(&shown, failure.message));
        } else if found.len() == before {
            run.report.mistake(&Mistake::of_file(&shown, "there is no policy test in it"));
        }
    }
    found
}

fn named(path: &Path, run: &mut Run, found: &mut Vec<Manifest>) -> Result<(), Failure> {
    run.read.push(path.to_owned());
    // A file that was named is one, whatever is in it: the reader says what it is not.
    found.push(manifest::read_file(path)?);
    Ok(())
}

fn below(directory: &Path, run: &mut Run, found: &mut Vec<Manifest>) -> Result<(), Failure> {
    run.read.push(directory.to_owned());
    for file in manifest::files_of(directory)? {
        let text = manifest::read_file(&file)?;
        if is_policy_test(&text.text) {
            run.read.push(file);
            found.push(text);
        }
    }
    for directory in manifest::directories_of(directory)? {
        below(&directory, run, found)?;
    }
    Ok(())
}

/// The files of policies that were read, so that each is read once.
#[derive(Default)]
pub(super) struct Sources {
    read: BTreeMap<PathBuf, Source>,
}

impl Sources {
    /// What a test file's `policies` name.
    pub(super) fn of(&mut self, suite: &Suite, read: &mut Vec<PathBuf>) -> Result<Vec<Source>, Vec<Mistake>> {
        let (mut sources, mut mistakes) = (Vec::new(), Vec::new());
        for (nth, text) in suite.policies().enumerate() {
            match self.at(&beside(suite.file(), text), read) {
                Ok(more) => sources.extend(more),
                Err(failure) => {
                    mistakes.push(suite.mistake(&format!("policies[{nth}]"), &failure.message));
                }
            }
        }
        if mistakes.is_empty() { Ok(sources) } else { Err(mistakes) }
    }

    fn at(&mut self, path: &Path, read: &mut Vec<PathBuf>) -> Result<Vec<Source>, Failure> {
        read.push(path.to_owned());
        let files = if path.is_dir() { manifest::files_of(path)? } else { vec![path.to_owned()] };
        if files.is_empty() {
            let path = path.display();
            return Err(Failure::not_found(format!("{path} holds no .yaml, .yml or .json file")));
        }
        files.into_iter().map(|file| self.file(file)).collect()
    }

    fn file(&mut self, file: PathBuf) -> Result<Source, Failure> {
        // The same file has one name, however it was reached: coverage adds up what tests met of it.
        let place = file.canonicalize().unwrap_or_else(|_unresolved| file.clone());
        if let Some(known) = self.read.get(&place) {
            return Ok(known.clone());
        }
        let text = manifest::read_file(&file)?;
        let source = Source::new(text.name, &text.text);
        self.read.insert(place, source.clone());
        Ok(source)
    }
}

/// A path that a file names: relative to the file's own directory, without steps back where they can be taken.
fn beside(file: &str, path: &str) -> PathBuf {
    let mut joined = Path::new(file).parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if has_name(&joined) => {
                joined.pop();
            }
            other @ (Component::Prefix(_)
            | Component::RootDir
            | Component::ParentDir
            | Component::Normal(_)) => joined.push(other),
        }
    }
    if joined.as_os_str().is_empty() { PathBuf::from(".") } else { joined }
}

/// Whether the last part of a path is a plain name of a directory that is no link.
fn has_name(path: &Path) -> bool {
    path.file_name().is_some() && !path.is_symlink()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_file() {
        let cases = [
            ("tests/shop.yaml", "../policies/", "policies"),
            ("tests/shop.yaml", "extra.yaml", "tests/extra.yaml"),
            ("shop.yaml", ".", "."),
            ("shop.yaml", "../policies", "../policies"),
            ("../a/shop.yaml", "../../p", "../../p"),
            ("shop.yaml", "/etc/p", "/etc/p"),
        ];
        for (file, path, want) in cases {
            assert_eq!(beside(file, path), Path::new(want), "{file} {path}");
        }
    }
}
