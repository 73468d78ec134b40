//! Who has an address.

use core::mem::size_of;

crate::bit_set! {
    /// What kind of address it is.
    IpcacheFlags: u16 {
        /// An address of this node. A forwarded packet that claims it as source is spoofed.
        NODE_LOCAL = 1;
    }
}

/// The identity behind an address or prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct IpcacheEntry {
    /// The security identity.
    pub identity: u32,
    /// The endpoint on this node that has the address, or 0.
    pub endpoint: u16,
    /// Kind of address.
    pub flags: IpcacheFlags,
    /// The other node's IPv4 address when the destination is reached by tunnel, else zero.
    pub tunnel_be: [u8; 4],
}

const _: () = assert!(size_of::<IpcacheEntry>() == 12);
