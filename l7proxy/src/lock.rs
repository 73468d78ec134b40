//! Who the proxy is: a lock that goes from one generation to the next, and is never free meanwhile.
//!
//! It belongs to the open file, not to the process: whoever is given the descriptor has it too, and it ends when the last
//! one is closed.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// Held for as long as this is not dropped, here or where it was handed over to.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// `None` if somebody else has it.
    ///
    /// # Errors
    /// The file system refuses.
    pub(crate) fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// One that was handed over.
    ///
    /// # Errors
    /// It is not that of the file at `path`, or who handed it over did not have it.
    pub(crate) fn given(descriptor: OwnedFd, path: &Path) -> io::Result<Self> {
        let file = File::from(descriptor);
        let (given, wanted) = (file.metadata()?, fs::metadata(path)?);
        if (given.dev(), given.ino()) != (wanted.dev(), wanted.ino()) {
            return Err(io::Error::other(format!("what was handed over is not {}", path.display())));
        }
        // Who has a lock may take it again; nobody else may.
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self(file))
    }

    /// Writes down which process has it, in one piece: a reader sees the old number or the new one.
    ///
    /// # Errors
    /// The file system refuses.
    pub(crate) fn name_owner(&self) -> io::Result<()> {
        self.0.write_all_at(format!("{:>10}\n", std::process::id()).as_bytes(), 0)
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_until_the_last_descriptor_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = Lock::take(&path).unwrap().unwrap();
        assert!(Lock::take(&path).unwrap().is_none());
        let next = Lock::given(first.as_fd().try_clone_to_owned().unwrap(), &path).unwrap();
        drop(first);
        assert!(Lock::take(&path).unwrap().is_none());
        fs::write(&path, "12345\n").unwrap();
        next.name_owner().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim().parse(), Ok(std::process::id()));
        drop(next);
        assert!(Lock::take(&path).unwrap().is_some());
    }

    #[test]
    fn what_is_no_lock_is_not_taken_for_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let _held = Lock::take(&path).unwrap().unwrap();
        let not_held = File::open(&path).unwrap();
        assert!(Lock::given(not_held.into(), &path).is_err());
        let other = Lock::take(&directory.path().join("other")).unwrap().unwrap();
        let error = Lock::given(other.0.into(), &path).unwrap_err();
        assert!(error.to_string().starts_with("what was handed over is not"), "{error}");
    }
}
