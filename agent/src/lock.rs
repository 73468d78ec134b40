//! One agent for one state directory and one set of pins.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Held for as long as the process lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// The lock cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Somebody else has it.
    #[error("another agent is running on {0}; only one can")]
    Taken(String),
    /// The file system refuses.
    #[error("cannot lock {path}")]
    Io {
        /// What.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Lock {
    /// Locks a directory, or a file in it that is made.
    ///
    /// # Errors
    /// Somebody else has it, or the file system refuses.
    pub(crate) fn take(directory: &Path, file: Option<&str>) -> Result<Self, LockError> {
        let path = file.map_or_else(|| directory.to_owned(), |file| directory.join(file));
        let shown = path.display().to_string();
        let opened = if file.is_some() { File::create(&path) } else { File::open(&path) };
        let opened = opened.map_err(|source| LockError::Io { path: shown.clone(), source })?;
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: opened }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Taken(directory.display().to_string())),
            Err(error) => Err(LockError::Io { path: shown, source: error.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path(), Some("agent.lock")).unwrap();
        let refused = Lock::take(dir.path(), Some("agent.lock")).unwrap_err();
        assert!(refused.to_string().starts_with("another agent is running"), "{refused}");
        let whole = Lock::take(dir.path(), None).unwrap();
        drop((first, whole));
        Lock::take(dir.path(), Some("agent.lock")).unwrap();
    }
}
