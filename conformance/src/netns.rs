//! Network namespaces as nodes, pods and the world, in a mount namespace of our own.
//!
//! Everything that is mounted (the namespaces' files, bpffs) is mounted where nobody else sees it, so that even a
//! killed run leaves nothing behind but a temporary directory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Moves the calling thread, and all that it starts, into a mount namespace whose mounts nobody else sees.
///
/// # Errors
/// The caller is not root.
pub fn hide_mounts() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "conformance makes network namespaces and loads programs into the kernel: run it as root"
    );
    // SAFETY: no descriptor table or memory is unshared; only the mount namespace (and with it the working
    // directory's own copy) of this thread changes.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
        .context("unsharing the mount namespace")?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("making mounts private")
}

/// A network namespace, taken away when dropped.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    path: PathBuf,
}

impl Netns {
    /// Makes a namespace, mounted on a new file at `path`, with its loopback device up.
    ///
    /// # Errors
    /// The file exists, or the caller is not root.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let shown = path.display().to_string();
        std::fs::File::create_new(&path).with_context(|| format!("creating {shown}"))?;
        let made = in_thread(|| {
            // SAFETY: only this short-lived thread's network namespace changes.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
            rustix::mount::mount_bind("/proc/thread-self/ns/net", &path)?;
            loopback_up()
        });
        if let Err(errno) = made {
            let _gone = std::fs::remove_file(&path);
            return Err(errno).with_context(|| format!("making the network namespace {shown}"));
        }
        let fd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("opening {shown}"))?;
        Ok(Self { fd, path })
    }

    /// Something that a thread can take along to enter this namespace for good.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn handle(&self) -> Result<NetnsHandle> {
        Ok(NetnsHandle(self.fd.try_clone().context("copying a descriptor")?))
    }

    /// Runs `work` in a thread that is in this namespace. Sockets made there stay in it.
    ///
    /// # Errors
    /// Entering fails, or `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_thread(|| {
            rustix::thread::move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("entering {}", self.path.display()))?;
            work()
        })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Enters a namespace for good.
#[derive(Debug)]
pub struct NetnsHandle(OwnedFd);

impl NetnsHandle {
    /// The calling thread is in the namespace from now on.
    ///
    /// # Errors
    /// Not root.
    pub fn enter(&self) -> Result<()> {
        rustix::thread::move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .context("entering a network namespace")
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _hidden = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
        let _gone = std::fs::remove_file(&self.path);
    }
}

/// Runs `work` in a thread of its own and passes a panic on.
fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Sets the loopback device (always index 1) of the calling thread's namespace up.
fn loopback_up() -> Result<(), Errno> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_ACK: u16 = 1 | 4;
    const IFF_UP: u32 = 1;
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // protocol 0 is NETLINK_ROUTE
    )?;
    let mut request = Vec::with_capacity(32);
    request.extend(32_u32.to_ne_bytes());
    request.extend(RTM_NEWLINK.to_ne_bytes());
    request.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    request.extend([0; 8]); // sequence, port
    request.extend([0; 4]); // family, padding, type
    request.extend(1_i32.to_ne_bytes());
    request.extend(IFF_UP.to_ne_bytes()); // flags
    request.extend(IFF_UP.to_ne_bytes()); // which flags
    rustix::net::sendto(&socket, &request, SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0_u8; 64];
    rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    // nlmsgerr: the error stands after the header.
    match answer.get(16..20).and_then(|code| code.first_chunk()).map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        Some(code) => Err(Errno::from_raw_os_error(code.saturating_neg())),
        None => Err(Errno::BADMSG),
    }
}
