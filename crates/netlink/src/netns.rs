//! Network namespaces: opening a path that somebody else chose, entering, making and removing.
//!
//! Entering happens in a thread of its own, so the caller never changes namespace.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, PROC_SUPER_MAGIC};
use rustix::io::Errno;
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};
use rustix::mount::UnmountFlags;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::Error;

/// Type of the file system that namespaces live in (`linux/magic.h`).
const NSFS_MAGIC: u64 = 0x6e73_6673;
/// What `NS_GET_NSTYPE` answers for a network namespace (`linux/sched.h`).
const CLONE_NEWNET: i32 = 0x4000_0000;

/// An open network namespace. It lives at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    path: PathBuf,
    id: NetnsId,
}

/// What tells one network namespace from another, on one machine and as long as both live.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct NetnsId {
    /// Device of the namespace's file.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
}

/// A network namespace could not be used.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Nothing is at the path.
    #[error("the network namespace {0} does not exist")]
    Missing(PathBuf),
    /// The path leads to something else.
    #[error("{path} is not a network namespace but {what}")]
    NotNetns {
        /// The path.
        path: PathBuf,
        /// What it is, `a FIFO`.
        what: &'static str,
    },
    /// A step failed.
    #[error("cannot {operation} the network namespace {path}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Netlink inside the namespace failed.
    #[error(transparent)]
    Netlink(Error),
}

impl Netns {
    /// Opens the namespace at `path`: a file that a namespace is mounted on (`/run/netns/blue`) or a link of
    /// procfs (`/proc/42/ns/net`). The path is not trusted: ordinary symbolic links, FIFOs, devices and files
    /// are refused, without opening them for reading, which could block or have effects.
    ///
    /// # Errors
    /// [`NetnsError`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NetnsError> {
        let path = path.as_ref();
        let failed = |operation| move |errno: Errno| failure(operation, path, errno);
        let place = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed("open"))?;
        let mut what = FileType::from_raw_mode(rustix::fs::fstat(&place).map_err(failed("examine"))?.st_mode);
        let mut file_system = rustix::fs::fstatfs(&place).map_err(failed("examine"))?.f_type;
        let mut handle = place;
        if what == FileType::Symlink && file_system == PROC_SUPER_MAGIC {
            handle = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .map_err(failed("open"))?;
            what = FileType::from_raw_mode(rustix::fs::fstat(&handle).map_err(failed("examine"))?.st_mode);
            file_system = rustix::fs::fstatfs(&handle).map_err(failed("examine"))?.f_type;
        }
        if u64::try_from(file_system) != Ok(NSFS_MAGIC) {
            return Err(NetnsError::NotNetns { path: path.to_owned(), what: describe(what) });
        }
        // It is a namespace, so reading has no effect. The handle, not the path, is opened again: the path may
        // lead elsewhere by now.
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handle));
        let fd = rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed("open"))?;
        if namespace_kind(fd.as_fd()).map_err(failed("examine"))? != CLONE_NEWNET {
            let what = "a namespace of another kind";
            return Err(NetnsError::NotNetns { path: path.to_owned(), what });
        }
        let id = id(&fd).map_err(failed("examine"))?;
        Ok(Self { fd, path: path.to_owned(), id })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetnsError`], for example when procfs is not mounted.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// Makes a new namespace and mounts it on `path`, a file that is created for it. Its loopback device is
    /// down. [`remove`] is the opposite.
    ///
    /// # Errors
    /// [`NetnsError`]; the file exists already, its directory does not, or the caller may not.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, NetnsError> {
        let path = path.as_ref();
        let failed = |operation| move |errno: Errno| failure(operation, path, errno);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::RUSR).map_err(failed("create"))?;
        let made = in_thread(|| {
            // SAFETY: only the network namespace of this thread changes; no descriptor table or memory is
            // unshared, so nothing that other threads rely on moves.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
            rustix::mount::mount_bind("/proc/thread-self/ns/net", path)
        });
        if let Err(errno) = made {
            std::fs::remove_file(path).ok();
            return Err(failure("create", path, errno));
        }
        Self::open(path)
    }

    /// Runs `work` in a thread that has entered this namespace. Sockets opened there stay in it.
    ///
    /// # Errors
    /// [`NetnsError::Io`]: entering failed. A panic of `work` goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        in_thread(|| {
            rustix::thread::move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
                .map(|()| work())
        })
        .map_err(|errno| failure("enter", &self.path, errno))
    }

    /// What tells it from others.
    #[must_use]
    pub const fn id(&self) -> NetnsId {
        self.id
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Takes the namespace mounted on `path` away and deletes the file. Whoever still is in the namespace keeps it.
///
/// # Errors
/// [`NetnsError`]; nothing is at the path.
pub fn remove(path: impl AsRef<Path>) -> Result<(), NetnsError> {
    let path = path.as_ref();
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // EINVAL: nothing is mounted there, only the file is left.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(failure("unmount", path, errno)),
    }
    rustix::fs::unlink(path).map_err(|errno| failure("remove", path, errno))
}

fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn failure(operation: &'static str, path: &Path, errno: Errno) -> NetnsError {
    if errno == Errno::NOENT || errno == Errno::NOTDIR {
        return NetnsError::Missing(path.to_owned());
    }
    NetnsError::Io { operation, path: path.to_owned(), source: errno.into() }
}

fn describe(what: FileType) -> &'static str {
    match what {
        FileType::RegularFile => "an ordinary file (a namespace that was unmounted?)",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "something else",
    }
}

fn id(fd: &OwnedFd) -> Result<NetnsId, Errno> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(NetnsId { device: stat.st_dev, inode: stat.st_ino })
}

fn namespace_kind(fd: BorrowedFd<'_>) -> Result<i32, Errno> {
    // SAFETY: NS_GET_NSTYPE (ioctl_ns(2)) takes no argument and answers by its return value only.
    unsafe { ioctl::ioctl(fd, NamespaceKind) }
}

struct NamespaceKind;

// SAFETY: the request takes no pointer, and the kernel answers by the return value, which is what
// `output_from_ptr` reads.
unsafe impl Ioctl for NamespaceKind {
    type Output = i32;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        ioctl::opcode::none(0xb7, 0x3)
    }

    fn as_ptr(&mut self) -> *mut core::ffi::c_void {
        core::ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut core::ffi::c_void) -> Result<i32, Errno> {
        Ok(out)
    }
}
