//! Unix sockets of this process, which stand at a fixed place and change hands there.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// A socket that is not at its place yet.
#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
    beside: PathBuf,
    place: PathBuf,
}

impl Door {
    /// Makes it, beside its place: whoever is there stays.
    ///
    /// # Errors
    /// The file system refuses.
    pub(crate) fn make(place: &Path) -> io::Result<Self> {
        let beside = place.with_extension(format!("{}.sock", std::process::id()));
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&beside)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, beside, place: place.to_owned() })
    }

    /// Puts it where others look for it, in the place of what was there: another process's, or what a dead one left.
    ///
    /// # Errors
    /// The file system refuses.
    pub(crate) fn open(self) -> io::Result<UnixListener> {
        fs::rename(&self.beside, &self.place)?;
        self.listener.try_clone()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // It is not there if it was opened. Elsewhere it is in nobody's way.
        drop(fs::remove_file(&self.beside));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_a_dead_process_left_is_not_in_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("a.sock");
        drop(UnixListener::bind(&place).unwrap());
        assert!(UnixStream::connect(&place).is_err());
        drop(Door::make(&place).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "one that was not opened is gone");
        let listener = Door::make(&place).unwrap().open().unwrap();
        let client = UnixStream::connect(&place).unwrap();
        listener.accept().unwrap();
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
        drop(client);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
