//! Looks at the directories: which files there are, and which of them can be read now.
//!
//! A file that is being written is left alone: it is read once its writer closed it, or once it has not changed
//! for a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::FileId;

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// More files than these are not looked at.
const FILES_MAX: usize = 20_000;
const DEPTH_MAX: usize = 8;
/// How long a file must have been left alone.
pub(super) const SETTLE: Duration = Duration::from_millis(300);

/// What changes when a file changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Files by name.
    pub(super) files: BTreeMap<FileId, Signature>,
    /// Directories, to be watched.
    pub(super) directories: Vec<PathBuf>,
    /// What could not be looked at, with the reason: nothing below it counts as gone.
    pub(super) unreadable: Vec<(PathBuf, String)>,
}

/// Walks through the directories.
pub(super) fn scan(roots: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for (root, path) in roots.iter().enumerate() {
        walk(root, path, 0, &mut found);
    }
    found
}

fn walk(root: usize, directory: &Path, depth: usize, found: &mut Found) {
    let entries = match read_entries(directory) {
        Ok(entries) => entries,
        Err(error) => return found.unreadable.push((directory.to_owned(), error.to_string())),
    };
    found.directories.push(directory.to_owned());
    for path in entries {
        if is_ignored(&path) {
            continue;
        }
        // Follows links to files: that is how mounted configuration is laid out.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            let is_link = fs::symlink_metadata(&path).is_ok_and(|own| own.is_symlink());
            if depth < DEPTH_MAX && !is_link {
                walk(root, &path, depth + 1, found);
            }
        } else if metadata.is_file() && is_manifest(&path) {
            if found.files.len() >= FILES_MAX {
                let reason =
                    format!("there are more than {FILES_MAX} files; this and later ones are not read");
                return found.unreadable.push((path, reason));
            }
            found.files.insert(FileId { root, path }, signature(&metadata));
        }
    }
}

fn read_entries(directory: &Path) -> io::Result<BTreeSet<PathBuf>> {
    fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

/// Hidden files and what editors leave.
fn is_ignored(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || name.starts_with('#') || name.ends_with('~')
}

fn is_manifest(path: &Path) -> bool {
    matches!(path.extension().and_then(|extension| extension.to_str()), Some("yaml" | "yml" | "json"))
}

fn signature(metadata: &fs::Metadata) -> Signature {
    Signature {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}

impl Signature {
    /// Whether the file was modified longer ago than [`SETTLE`], by the wall clock.
    fn is_old(&self, wall: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(self.modified.0), u32::try_from(self.modified.1))
        else {
            return true;
        };
        let modified = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
        wall.duration_since(modified).is_ok_and(|age| age >= SETTLE)
    }
}

/// Decides which changed files are quiet enough to be read.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// What was read, in which version; none if the version is not known.
    read: BTreeMap<FileId, Option<Signature>>,
    seen: BTreeMap<FileId, (Signature, Instant)>,
    /// Files that are not there any more, and since when.
    missing: BTreeMap<FileId, Instant>,
    closed: BTreeSet<PathBuf>,
    removed: BTreeSet<PathBuf>,
}

impl Settling {
    /// A writer closed the file, or it was moved here: it is complete.
    pub(super) fn closed(&mut self, path: PathBuf) {
        self.closed.insert(path);
    }

    /// The file was removed on purpose: nothing takes its place.
    pub(super) fn removed(&mut self, path: PathBuf) {
        self.removed.insert(path);
    }

    /// The file is known from before the start.
    pub(super) fn remember(&mut self, file: FileId) {
        self.read.insert(file, None);
    }

    /// Which files must be read now, and which are gone.
    pub(super) fn sort(
        &mut self,
        found: &Found,
        now: Instant,
        wall: SystemTime,
    ) -> (Vec<FileId>, Vec<FileId>) {
        let mut ready = Vec::new();
        for (file, signature) in &found.files {
            if self.read.get(file) == Some(&Some(*signature)) {
                self.seen.remove(file);
                continue;
            }
            let since = match self.seen.get(file) {
                Some((before, since)) if before == signature => *since,
                _ => now,
            };
            let is_quiet = now.duration_since(since) >= SETTLE || signature.is_old(wall);
            if is_quiet || self.closed.contains(&file.path) {
                self.read.insert(file.clone(), Some(*signature));
                self.seen.remove(file);
                ready.push(file.clone());
            } else {
                self.seen.insert(file.clone(), (*signature, since));
            }
        }
        self.closed.clear();
        self.seen.retain(|file, _| found.files.contains_key(file));
        let is_hidden = |file: &FileId| found.unreadable.iter().any(|(path, _)| file.path.starts_with(path));
        let is_missing = |file: &FileId| !found.files.contains_key(file) && !is_hidden(file);
        self.missing.retain(|file, _| is_missing(file));
        for file in self.read.keys().filter(|file| is_missing(file)) {
            self.missing.entry(file.clone()).or_insert(now);
        }
        // One that is replaced or renamed is missing for a moment. Its objects must not be gone in between.
        let is_gone = |file: &FileId, since: Instant| {
            let was_gone_before_the_start = self.read.get(file) == Some(&None);
            let is_late = now.duration_since(since) >= SETTLE;
            was_gone_before_the_start || is_late || self.removed.contains(&file.path)
        };
        let missing = self.missing.iter().filter(|(file, since)| is_gone(file, **since));
        let gone: Vec<FileId> = missing.map(|(file, _)| file.clone()).collect();
        self.removed.clear();
        for file in &gone {
            self.read.remove(file);
            self.missing.remove(file);
        }
        (ready, gone)
    }

    /// Whether some file waits to be left alone.
    pub(super) fn is_waiting(&self) -> bool {
        !self.seen.is_empty() || !self.missing.is_empty()
    }
}

/// Reads a file as text.
pub(super) fn read_text(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {} MiB", FILE_BYTES_MAX >> 20));
    }
    String::from_utf8(bytes).map_err(|error| format!("is not UTF-8 text: {}", error.utf8_error()))
}
