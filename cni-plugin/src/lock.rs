//! One call per attachment at a time: a runtime that gave up on ADD may send DEL while ADD still runs.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use crate::attachment::Attachment;
use crate::error::Error;

/// How long a call waits for the one before it.
const WAIT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The right to change an attachment: an abstract socket name, which the kernel takes back however the process
/// ends and which leaves no file behind.
#[derive(Debug)]
pub(crate) struct Lock {
    _name: UnixListener,
}

impl Lock {
    /// Waits for the right to change `attachment`.
    pub(crate) fn take(attachment: &Attachment) -> Result<Self, Error> {
        let failed = |source| Error::Io { operation: "lock", object: attachment.to_string(), source };
        let name = format!("sluice-cni/{}", attachment.host_ifname());
        let address = SocketAddr::from_abstract_name(name).map_err(failed)?;
        for _ in 0..WAIT.as_millis() / POLL_INTERVAL.as_millis() {
            match UnixListener::bind_addr(&address) {
                Ok(listener) => return Ok(Self { _name: listener }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => std::thread::sleep(POLL_INTERVAL),
                Err(error) => return Err(failed(error)),
            }
        }
        let Attachment { container_id, ifname, .. } = attachment.clone();
        Err(Error::Busy { container_id, ifname })
    }
}
