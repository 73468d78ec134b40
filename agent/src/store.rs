//! Files that must survive a restart, and be noticed when they did not.
//!
//! Each file is one line with format, version and checksum, then JSON. Writing goes to a temporary file that is
//! renamed, so a reader meets the old or the new content. A file that is cut off, altered or of a
//! newer version is set aside under `.bad` and reported; the caller rebuilds what it held. Used by the datapath
//! thread (writing) and at start (reading).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The version of the formats in this directory.
const VERSION: u32 = 1;
/// No state file is larger; what is, was not written by us.
const FILE_BYTES_MAX: u64 = 256 << 20;
const FORMAT: &str = "sluice-state";

/// A directory of state files.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

/// A state file cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The file system refuses.
    #[error("{operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The content is not what was written.
    #[error("{path} is damaged ({reason}); it is ignored and kept as {path}.bad")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it was noticed.
        reason: String,
    },
    /// A newer agent wrote it.
    #[error("{path} has version {version}, this agent knows {VERSION}; it is ignored and kept as {path}.bad")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

#[derive(Deserialize, Serialize)]
struct Head {
    format: String,
    version: u32,
    checksum: String,
}

impl Store {
    /// The store in `dir`, which is made (mode 0700) if it does not exist.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub(crate) fn open(dir: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let dir = dir.into();
        make_dir(&dir)?;
        Ok(Self { dir })
    }

    /// Replaces the file `name` (which may be in one subdirectory) with `value`.
    ///
    /// It is not synced: state is about pods and maps, which live no longer than the kernel that holds the written
    /// pages. What a power failure damages is noticed by its checksum, and by then there is nothing it is about.
    ///
    /// # Errors
    /// The file system refuses; then the old content is still there.
    pub(crate) fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StoreError> {
        let (path, bytes) = self.encode(name, value)?;
        replace(&path, &bytes, 0o600, |_| Ok(()))
    }

    /// Like [`Store::write`], for others to read: JSON alone, whose form is the value's own business.
    ///
    /// # Errors
    /// The file system refuses; then the old content is still there.
    pub(crate) fn publish<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StoreError> {
        let path = self.dir.join(name);
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        let bytes = serde_json::to_vec(value)
            .map_err(|error| io_error("encode", &path, io::Error::new(io::ErrorKind::InvalidData, error)))?;
        replace(&path, &bytes, 0o600, |_| Ok(()))
    }

    fn encode<T: Serialize>(&self, name: &str, value: &T) -> Result<(PathBuf, Vec<u8>), StoreError> {
        let path = self.dir.join(name);
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        let body = serde_json::to_vec(value)
            .map_err(|error| io_error("encode", &path, io::Error::new(io::ErrorKind::InvalidData, error)))?;
        let head = Head { format: FORMAT.to_owned(), version: VERSION, checksum: checksum(&body) };
        let mut bytes = serde_json::to_vec(&head)
            .map_err(|error| io_error("encode", &path, io::Error::new(io::ErrorKind::InvalidData, error)))?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&body);
        Ok((path, bytes))
    }

    /// What was last written under `name`; `None` if there is no such file.
    ///
    /// # Errors
    /// It cannot be read, is damaged or newer. In the last two cases it has been set aside.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let path = self.dir.join(name);
        let bytes = match read_bounded(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error("read", &path, source)),
        };
        let decoded = decode(&path, &bytes);
        if decoded.is_err() {
            let aside = PathBuf::from(format!("{}.bad", path.display()));
            fs::rename(&path, &aside).map_err(|source| io_error("set aside", &path, source))?;
        }
        decoded.map(Some)
    }

    /// Removes the file `name`; it is no error if there is none.
    ///
    /// # Errors
    /// The file system refuses.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StoreError> {
        remove_file(&self.dir.join(name))
    }

    /// Names of the files in the subdirectory `dir`, sorted, without temporary and damaged ones.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn list(&self, dir: &str) -> Result<Vec<String>, StoreError> {
        let path = self.dir.join(dir);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(io_error("list", &path, source)),
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".json"))
            .map(|name| format!("{dir}/{name}"))
            .collect();
        names.sort();
        Ok(names)
    }
}

fn decode<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, StoreError> {
    let damaged = |reason: &str| StoreError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged("no first line"))?;
    let (head, body) = bytes.split_at(end);
    let body = body.get(1..).unwrap_or_default();
    let head: Head =
        serde_json::from_slice(head).map_err(|_ignored| damaged("the first line is not ours"))?;
    if head.format != FORMAT {
        return Err(damaged("the first line is not ours"));
    }
    if head.version > VERSION {
        return Err(StoreError::Newer { path: path.to_owned(), version: head.version });
    }
    if head.checksum != checksum(body) {
        return Err(damaged("the checksum does not match"));
    }
    serde_json::from_slice(body).map_err(|error| damaged(&error.to_string()))
}

/// FNV-1a, 64 bits: it is to notice accidents, not attacks; the directory is root's.
#[must_use]
pub(crate) fn checksum(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}-{}", bytes.len())
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes `bytes` beside `path`, syncs them, and renames.
///
/// # Errors
/// The file system refuses; then `path` is unchanged.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    replace(path, bytes, mode, File::sync_data)
}

fn replace(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    sync: impl FnOnce(&File) -> io::Result<()>,
) -> Result<(), StoreError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let result = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| sync(&file)))
        .and_then(|()| fs::rename(&temporary, path));
    result.map_err(|source| {
        // The temporary file may not exist; what matters is reported.
        drop(fs::remove_file(&temporary));
        io_error("write", path, source)
    })
}

/// Removes a file; it is no error if there is none.
///
/// # Errors
/// The file system refuses.
pub(crate) fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path, error)),
        _ => Ok(()),
    }
}

/// Makes a directory and its parents, mode 0700.
///
/// # Errors
/// The file system refuses.
pub(crate) fn make_dir(dir: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| io_error("make directory", dir, source))
}

fn io_error(operation: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("a/b")).unwrap();
        (dir, store)
    }

    #[test]
    fn reads_what_was_written() {
        let (_dir, store) = store();
        assert_eq!(store.read::<Vec<u32>>("x.json").unwrap(), None);
        store.write("x.json", &vec![1, 2, 3]).unwrap();
        store.write("sub/y.json", &vec![4]).unwrap();
        assert_eq!(store.read::<Vec<u32>>("x.json").unwrap(), Some(vec![1, 2, 3]));
        assert_eq!(store.list("sub").unwrap(), ["sub/y.json"]);
        assert_eq!(store.list("none").unwrap(), Vec::<String>::new());
        store.remove("x.json").unwrap();
        store.remove("x.json").unwrap();
        assert_eq!(store.read::<Vec<u32>>("x.json").unwrap(), None);
    }

    #[test]
    fn a_newer_version_is_set_aside() {
        let (_dir, store) = store();
        let path = store.dir.join("x.json");
        fs::write(&path, b"{\"format\":\"sluice-state\",\"version\":99,\"checksum\":\"\"}\n[]").unwrap();
        assert!(matches!(store.read::<Vec<u32>>("x.json"), Err(StoreError::Newer { version: 99, .. })));
        assert!(store.dir.join("x.json.bad").exists());
        assert_eq!(store.read::<Vec<u32>>("x.json").unwrap(), None, "the next start is quiet");
    }

    proptest! {
        #[test]
        fn any_damage_is_noticed(at in 0_usize..200, bit in 0_u8..8, cut in any::<bool>()) {
            let (_dir, store) = store();
            let wanted: Vec<u32> = (0..20).collect();
            store.write("x.json", &wanted).unwrap();
            let path = store.dir.join("x.json");
            let mut bytes = fs::read(&path).unwrap();
            let at = at % bytes.len();
            if cut { bytes.truncate(at); } else { bytes[at] ^= 1 << bit; }
            fs::write(&path, &bytes).unwrap();
            // A flipped bit may fall on the head's version and lower it, or change nothing that is read.
            match store.read::<Vec<u32>>("x.json") {
                Ok(Some(read)) => prop_assert_eq!(read, wanted),
                Ok(None) => prop_assert!(false, "the file is there"),
                Err(error) => prop_assert!(!matches!(error, StoreError::Io { .. }), "{}", error),
            }
        }
    }
}
