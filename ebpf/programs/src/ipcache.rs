//! Stage 3: who has an address.

use sluice_ebpf_common::{EndpointFlags, EndpointInfo, IpcacheFlags};

use crate::family::Family;
use crate::scene::{Endpoint, endpoint};

/// The other party of a packet.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) identity: u32,
    /// The endpoint on this node that has the address, 0 if none.
    pub(crate) endpoint: u16,
    pub(crate) flags: IpcacheFlags,
}

impl Peer {
    #[inline(always)]
    pub(crate) fn is_node_local(&self) -> bool {
        self.flags.contains(IpcacheFlags::NODE_LOCAL)
    }
}

/// Looks an address up: exact, then by prefix, then what an unknown address is.
#[inline(always)]
pub(crate) fn lookup<A: Family>(address: &A) -> Peer {
    let packed = find(address);
    Peer {
        identity: packed as u32,
        endpoint: (packed >> 32) as u16,
        flags: IpcacheFlags((packed >> 48) as u16),
    }
}

/// Only the exact addresses: enough to know endpoints and addresses of this node.
#[inline(always)]
pub(crate) fn exact<A: Family>(address: &A) -> Option<Peer> {
    let entry = address.exact()?;
    Some(Peer { identity: entry.identity, endpoint: entry.endpoint, flags: entry.flags })
}

#[inline(never)]
fn find<A: Family>(address: &A) -> u64 {
    let Some(entry) = address.exact().or_else(|| address.prefix()) else {
        return address.unknown_identity() as u64;
    };
    entry.identity as u64 | (entry.endpoint as u64) << 32 | (entry.flags.0 as u64) << 48
}

/// Whether a packet delivered to a pod may have come from this source, by the interface it came in through.
/// 0 stands for a packet that the node itself made.
#[inline(always)]
pub(crate) fn is_plausible_source(peer: &Peer, info: Option<*const EndpointInfo>, came_in: u32) -> bool {
    if peer.endpoint != 0 {
        let Some(info) = info else { return false };
        return is_plausible_endpoint(&Endpoint::read(info), peer.endpoint, came_in);
    }
    !peer.is_node_local() || came_in == 0
}

/// The same for an endpoint of this node: its packets come in through its interface and no other. Behind another
/// plugin's bridge that may be the bridge, but never the node itself.
#[inline(always)]
pub(crate) fn is_plausible_endpoint(source: &Endpoint, id: u16, came_in: u32) -> bool {
    source.id == id
        && if source.flags.contains(EndpointFlags::CHAINED) {
            came_in != 0
        } else {
            came_in == source.ifindex
        }
}

/// The table entry of the endpoint that has the address, if it is really the one: the ipcache may be older.
#[inline(always)]
pub(crate) fn peer_endpoint<A: Family>(peer: &Peer, address: &A) -> Option<*const EndpointInfo> {
    let info = endpoint(peer.endpoint as u32)?;
    // SAFETY: a map value.
    let id = unsafe { (*info).id };
    (id == peer.endpoint && address.belongs_to(info)).then_some(info)
}
