//! The file system in which pins live.

use std::io;
use std::path::Path;

use crate::error::LoaderError;

/// `BPF_FS_MAGIC`.
const MAGIC: i128 = 0xcafe_4a11;

/// Makes `directory` and, unless it lies on a bpffs already, mounts one there (in this mount namespace).
///
/// # Errors
/// The directory cannot be made or the file system not be mounted.
pub fn ensure(directory: &Path) -> Result<(), LoaderError> {
    let failed = |operation| {
        move |source: io::Error| LoaderError::Pin { operation, path: directory.to_owned(), source }
    };
    std::fs::create_dir_all(directory).map_err(failed("make the directory"))?;
    if is_bpffs(directory).map_err(failed("look at"))? {
        return Ok(());
    }
    let flags = rustix::mount::MountFlags::NOSUID
        | rustix::mount::MountFlags::NODEV
        | rustix::mount::MountFlags::NOEXEC;
    rustix::mount::mount("bpffs", directory, "bpf", flags, c"mode=0700")
        .map_err(|error| failed("mount a bpffs at")(error.into()))
}

/// Whether a path lies on a bpffs.
///
/// # Errors
/// There is no such path.
pub fn is_bpffs(path: &Path) -> io::Result<bool> {
    let status = rustix::fs::statfs(path)?;
    Ok(i128::from(status.f_type) == MAGIC)
}
