//! Attaches pinned programs to interfaces, by links that are pinned too.
//!
//! Usable alone: it opens pins and makes a few system calls, parses no object and opens no map, so that the CNI
//! plugin starts in milliseconds. Everything happens in the calling thread's network namespace. Links are TCX
//! (kernel 6.6 or newer): nobody can silently replace them, and a program is exchanged without a gap.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use sluice_ebpf_common::program_name;

use crate::error::LoaderError;
use crate::sys::{self, TcxHook};

/// Which of the three programs, and where it belongs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    FromContainer,
    ToContainer,
    FromNetdev,
}

impl Place {
    const CONTAINER: [Self; 2] = [Self::ToContainer, Self::FromContainer];

    const fn program(self) -> &'static str {
        match self {
            Self::FromContainer => program_name::FROM_CONTAINER,
            Self::ToContainer => program_name::TO_CONTAINER,
            Self::FromNetdev => program_name::FROM_NETDEV,
        }
    }

    const fn hook(self) -> TcxHook {
        match self {
            Self::FromContainer | Self::FromNetdev => TcxHook::Ingress,
            Self::ToContainer => TcxHook::Egress,
        }
    }

    fn pin(self, pins: &Path, ifname: &str) -> PathBuf {
        link_pin(pins, ifname, self.hook())
    }
}

/// Attaches `from_container` and `to_container` to the host side of a pod's veth. `ifindex` must be that of
/// `ifname` here. Doing it again is no error; a pin that is left of an earlier interface of that name is replaced.
///
/// # Errors
/// The programs are not pinned (no agent has run), or the kernel refuses.
pub fn attach_container(pins: &Path, ifname: &str, ifindex: u32) -> Result<(), LoaderError> {
    Place::CONTAINER.into_iter().try_for_each(|place| attach(pins, ifname, ifindex, place))
}

/// Attaches `from_netdev` to one of the node's own devices.
///
/// # Errors
/// As [`attach_container`].
pub fn attach_netdev(pins: &Path, ifname: &str, ifindex: u32) -> Result<(), LoaderError> {
    attach(pins, ifname, ifindex, Place::FromNetdev)
}

/// Detaches whatever is attached to `ifname` under `pins`; when this returns, it no longer runs. Nothing there is
/// no error.
///
/// # Errors
/// The kernel refuses, or a pin cannot be removed.
pub fn detach(pins: &Path, ifname: &str) -> Result<(), LoaderError> {
    for hook in [TcxHook::Ingress, TcxHook::Egress] {
        let pin = link_pin(pins, ifname, hook);
        let Some(link) = open_link(&pin)? else { continue };
        match sys::detach_link(link.as_fd()) {
            // Its interface is gone, and with it everything it could do.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
            result => result.map_err(pin_failed("detach", &pin))?,
        }
        remove_pin(&pin)?;
    }
    Ok(())
}

/// Whether both programs of a pod run on this interface, by our pinned links, and are the ones pinned now.
///
/// # Errors
/// The kernel cannot be asked.
pub fn is_attached(pins: &Path, ifname: &str, ifindex: u32) -> Result<bool, LoaderError> {
    for place in Place::CONTAINER {
        if !is_attached_at(pins, ifname, ifindex, place)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether `from_netdev` runs on this device, as [`is_attached`].
///
/// # Errors
/// The kernel cannot be asked.
pub fn is_netdev_attached(pins: &Path, ifname: &str, ifindex: u32) -> Result<bool, LoaderError> {
    is_attached_at(pins, ifname, ifindex, Place::FromNetdev)
}

/// Whether the pod's programs are pinned here, so that attaching can work.
#[must_use]
pub fn is_ready(pins: &Path) -> bool {
    Place::CONTAINER.iter().all(|place| program_pin(pins, place.program()).exists())
}

/// The names of the interfaces that have link pins, in no order. An interface may be gone.
///
/// # Errors
/// The directory cannot be read.
pub fn pinned_interfaces(pins: &Path) -> Result<Vec<String>, LoaderError> {
    let mut names: Vec<String> = link_pins(pins)?.into_iter().map(|(_, name)| name).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// The index of an interface of this network namespace.
///
/// # Errors
/// There is none of that name.
pub fn ifindex(name: &str) -> Result<u32, LoaderError> {
    sys::ifindex(name).map_err(|source| LoaderError::NoInterface { name: name.to_owned(), source })
}

fn attach(pins: &Path, ifname: &str, ifindex: u32, place: Place) -> Result<(), LoaderError> {
    let path = program_pin(pins, place.program());
    let program = sys::open_pin(&path).map_err(pin_failed("open", &path))?;
    let failed = |operation| {
        move |source| LoaderError::Attach { operation, program: place.program(), ifindex, source }
    };
    let pin = place.pin(pins, ifname);
    if let Some(link) = open_link(&pin)? {
        if is_link_at(link.as_fd(), ifindex, place.hook()).map_err(failed("look for"))? {
            return sys::update_link(link.as_fd(), program.as_fd()).map_err(failed("replace"));
        }
        // Left of an interface that is gone, or of another program at this place.
        remove_pin(&pin)?;
    }
    let link = match sys::create_tcx_link(program.as_fd(), ifindex, place.hook()) {
        // The program runs there by a link that somebody still holds but whose pin is gone: that one is pinned again.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            lost_link(program.as_fd(), ifindex, place.hook()).map_err(failed("look for"))?.ok_or(error)
        }
        result => result,
    };
    let link = link.map_err(failed("attach"))?;
    sys::pin(link.as_fd(), &pin).map_err(pin_failed("pin", &pin))
}

/// The link by which a program runs at a hook.
fn lost_link(program: BorrowedFd<'_>, ifindex: u32, hook: TcxHook) -> io::Result<Option<OwnedFd>> {
    let (wanted, _) = sys::program_info(program)?;
    let attached = sys::query_tcx(ifindex, hook)?;
    let link = attached.into_iter().find(|(program, link)| *program == wanted && *link != 0);
    link.map(|(_, link)| sys::link_by_id(link)).transpose()
}

/// Whether the link is attached to this interface of this namespace: the index alone could be another namespace's.
fn is_link_at(link: BorrowedFd<'_>, ifindex: u32, hook: TcxHook) -> io::Result<bool> {
    let info = sys::link_info(link)?;
    if info.ifindex != ifindex || info.hook != hook as u32 {
        return Ok(false);
    }
    Ok(sys::query_tcx(ifindex, hook)?.into_iter().any(|(_, link)| link == info.id))
}

fn is_attached_at(pins: &Path, ifname: &str, ifindex: u32, place: Place) -> Result<bool, LoaderError> {
    let failed =
        |source| LoaderError::Attach { operation: "look for", program: place.program(), ifindex, source };
    let Some(link) = open_link(&place.pin(pins, ifname))? else { return Ok(false) };
    if !is_link_at(link.as_fd(), ifindex, place.hook()).map_err(failed)? {
        return Ok(false);
    }
    let path = program_pin(pins, place.program());
    let program = match sys::open_pin(&path) {
        Ok(program) => program,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(pin_failed("open", &path)(error)),
    };
    let (wanted, _) = sys::program_info(program.as_fd()).map_err(failed)?;
    Ok(sys::link_info(link.as_fd()).map_err(failed)?.program_id == wanted)
}

/// Puts a program's pin in the place of the one before, in one step.
pub(crate) fn replace_program_pin(
    pins: &Path,
    name: &str,
    program: BorrowedFd<'_>,
) -> Result<(), LoaderError> {
    let path = program_pin(pins, name);
    let next = pins.join(format!("next_{name}"));
    remove_pin(&next)?;
    sys::pin(program, &next).map_err(pin_failed("pin", &next))?;
    std::fs::rename(&next, &path).map_err(pin_failed("replace", &path))
}

/// Gives every pinned link the program that `wanted` has under the name of the link's present one.
pub(crate) fn update_links<'a>(
    pins: &Path,
    wanted: impl Fn(&str) -> Option<BorrowedFd<'a>>,
) -> Result<(), LoaderError> {
    for (path, _) in link_pins(pins)? {
        let Some(link) = open_link(&path)? else { continue };
        let info = sys::link_info(link.as_fd()).map_err(pin_failed("look at", &path))?;
        if info.ifindex == 0 {
            // Its interface is gone, and with it everything it could do.
            remove_pin(&path)?;
            continue;
        }
        let program = sys::program_by_id(info.program_id).map_err(pin_failed("look at", &path))?;
        let (_, name) = sys::program_info(program.as_fd()).map_err(pin_failed("look at", &path))?;
        if let Some(next) = wanted(&name) {
            match sys::update_link(link.as_fd(), next) {
                // The interface went away just now.
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => remove_pin(&path)?,
                result => result.map_err(pin_failed("update", &path))?,
            }
        }
    }
    Ok(())
}

/// Whether a program is pinned.
pub(crate) fn has_program_pin(pins: &Path, name: &str) -> bool {
    program_pin(pins, name).exists()
}

fn program_pin(pins: &Path, name: &str) -> PathBuf {
    pins.join(format!("prog_{name}"))
}

const LINK_PREFIX: &str = "link_";

fn link_pin(pins: &Path, ifname: &str, hook: TcxHook) -> PathBuf {
    let hook = match hook {
        TcxHook::Ingress => "ingress",
        TcxHook::Egress => "egress",
    };
    pins.join(format!("{LINK_PREFIX}{}_{hook}", escaped(ifname)))
}

/// bpffs takes no dots in names, and an interface's name may have some.
fn escaped(ifname: &str) -> String {
    ifname.replace('%', "%25").replace('.', "%2e")
}

fn unescaped(name: &str) -> String {
    name.replace("%2e", ".").replace("%25", "%")
}

/// The pinned links with the names of their interfaces.
fn link_pins(pins: &Path) -> Result<Vec<(PathBuf, String)>, LoaderError> {
    let failed = pin_failed("read the directory", pins);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(pins).map_err(&failed)? {
        let entry = entry.map_err(&failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let interface = name.strip_prefix(LINK_PREFIX).and_then(|rest| rest.rsplit_once('_'));
        if let Some((interface, _)) = interface {
            found.push((entry.path(), unescaped(interface)));
        }
    }
    Ok(found)
}

fn open_link(path: &Path) -> Result<Option<OwnedFd>, LoaderError> {
    match sys::open_pin(path) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(pin_failed("open", path)(error)),
    }
}

fn remove_pin(path: &Path) -> Result<(), LoaderError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(pin_failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn pin_failed(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> LoaderError + use<> {
    let path = path.to_owned();
    move |source| LoaderError::Pin { operation, path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interfaces_survive_the_way_into_a_pin() {
        for name in ["slu0123456789ab", "eth0.100", "a%2eb", "a_b_ingress", "100%"] {
            assert_eq!(unescaped(&escaped(name)), name);
            assert!(!escaped(name).contains('.'), "{name}");
        }
    }
}
