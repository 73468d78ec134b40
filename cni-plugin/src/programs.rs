//! The datapath's programs at an interface: the agent has pinned them, this plugin attaches and detaches.

use std::path::{Path, PathBuf};

use sluice_client::path::DEFAULT_BPFFS;
use sluice_ebpf_loader::{LoaderError, attach, common};

use crate::error::Error;

/// Where programs and links are pinned unless the configuration says otherwise.
pub(crate) fn default_pin_dir() -> PathBuf {
    Path::new(DEFAULT_BPFFS).join(common::PIN_SUBDIR)
}

/// Whether the programs are there to be attached.
pub(crate) fn are_pinned(pin_dir: &Path) -> bool {
    attach::is_ready(pin_dir)
}

/// Attaches both programs. If they are attached already, nothing changes for a single packet.
pub(crate) fn attach(pin_dir: &Path, ifname: &str, ifindex: u32) -> Result<(), Error> {
    attach::attach_container(pin_dir, ifname, ifindex).map_err(failed(ifname))
}

/// Detaches whatever is attached. Nothing there is no error.
pub(crate) fn detach(pin_dir: &Path, ifname: &str) -> Result<(), Error> {
    attach::detach(pin_dir, ifname).map_err(failed(ifname))
}

/// Whether both programs are attached, in the version that is pinned now.
pub(crate) fn is_attached(pin_dir: &Path, ifname: &str, ifindex: u32) -> Result<bool, Error> {
    attach::is_attached(pin_dir, ifname, ifindex).map_err(failed(ifname))
}

fn failed(ifname: &str) -> impl Fn(LoaderError) -> Error {
    let ifname = ifname.to_owned();
    move |source| Error::Programs { ifname: ifname.clone(), source }
}
