//! Gives a file new content: whole or not at all, and with the owner and the mode that it has.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use crate::failure::{Failure, io};

/// Puts new content in the place of a file. A link stays; what it leads to is replaced.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let doing = || format!("writing {}", path.display());
    let path = path.canonicalize().map_err(io(doing()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let next = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let written = write(&path, &next, text).and_then(|()| std::fs::rename(&next, &path));
    if written.is_err() {
        // Nobody needs it; the failure that is told is the one before.
        std::fs::remove_file(&next).ok();
    }
    written.map_err(io(doing()))
}

fn write(path: &Path, next: &Path, text: &str) -> std::io::Result<()> {
    let old = std::fs::metadata(path)?;
    // A directory may be writable where a file of it is not meant to be.
    OpenOptions::new().append(true).open(path)?;
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(next)?;
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
    }
    file.set_permissions(old.permissions())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn mode_and_links_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("a.yaml"), dir.path().join("link.yaml"));
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("a.yaml", &link).unwrap();
        replace(&link, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "something is left over");
        assert!(replace(&dir.path().join("none.yaml"), "new").is_err());
    }
}
