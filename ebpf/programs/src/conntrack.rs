//! Stage 2: connections, with the verdicts of both ends.
//!
//! An entry counts only while it has not expired and while both of its local ends are still in the life in which it
//! was made: an address that changed hands has no connections.

use aya_ebpf::bindings::__sk_buff;
use sluice_ebpf_common::packet::{Packet, protocol, tcp_flag};
use sluice_ebpf_common::{ConntrackEntry, ConntrackFlags, EndpointInfo};

use crate::family::Family;
use crate::scene::{Endpoint, Scene, endpoint, length};

/// Lifetimes in units of 2^30 ns.
mod lifetime {
    /// 8,000 s: TCP after the first reply.
    pub(super) const ESTABLISHED: u32 = 7_451;
    /// 60 s: everything else.
    pub(super) const DEFAULT: u32 = 56;
    /// 10 s: TCP after both FINs, or RST.
    pub(super) const CLOSING: u32 = 10;
}

/// A valid entry, seen from the endpoint at whose hook the packet is.
pub(crate) struct Known {
    pub(crate) entry: *mut ConntrackEntry,
    /// Whether the packet goes from the opener to the target.
    pub(crate) forward: bool,
    /// Whether the endpoint at the hook opened the connection.
    pub(crate) own_opened: bool,
    /// The other end, if it is an endpoint of this node.
    pub(crate) peer: Option<*const EndpointInfo>,
    pub(crate) peer_id: u16,
}

/// Finds the packet's connection, if the entry is valid and the packet can belong to it.
#[inline(always)]
pub(crate) fn find<A: Family>(scene: &Scene<A>) -> Option<Known> {
    let known = current(scene)?;
    // A bare SYN opens a connection: it is no answer, and after a close it opens the next one.
    // SAFETY: a map value; see `current`.
    if scene.packet.is_bare_syn() && (!known.forward || is_closing(unsafe { (*known.entry).flags })) {
        return None;
    }
    // An echo request never answers anything, and a reply never asks.
    if scene.tracked && scene.packet.protocol == A::ICMP && scene.packet.is_echo_request() != known.forward {
        return None;
    }
    Some(known)
}

/// The entry under the packet's key, if it is valid.
#[inline(always)]
fn current<A: Family>(scene: &Scene<A>) -> Option<Known> {
    let pointer = A::entry(&scene.key)?;
    // SAFETY: a map value. Other CPUs may write to it: fields are plain numbers, each used once.
    let entry = unsafe { &*pointer };
    if entry.expires <= scene.now {
        return None;
    }
    let forward = entry.flags.contains(ConntrackFlags::OPENED_BY_A) == scene.source_is_a;
    let own_opened = forward == scene.egress;
    let (own_id, own_generation, peer_id, peer_generation) = if own_opened {
        (
            entry.source_endpoint,
            entry.source_generation,
            entry.destination_endpoint,
            entry.destination_generation,
        )
    } else {
        (
            entry.destination_endpoint,
            entry.destination_generation,
            entry.source_endpoint,
            entry.source_generation,
        )
    };
    if own_id != scene.own.id || own_generation != scene.own.generation {
        return None;
    }
    let mut peer = None;
    if peer_id != 0 {
        let info = endpoint(peer_id as u32)?;
        // SAFETY: a map value.
        if unsafe { (*info).generation } != peer_generation {
            return None;
        }
        peer = Some(info);
    }
    Some(Known { entry: pointer, forward, own_opened, peer, peer_id })
}

/// Whether the packet would open a connection in place of one in which its sender is, or is played by a proxy as, the
/// target: it would take the opener's packets away from the proxy.
#[inline(always)]
pub(crate) fn is_taken<A: Family>(scene: &Scene<A>) -> bool {
    let Some(known) = current(scene) else { return false };
    // SAFETY: a map value; see `current`.
    let flags = unsafe { (*known.entry).flags };
    !known.forward && flags.is_proxied() && !is_closing(flags)
}

#[inline(always)]
fn is_closing(flags: ConntrackFlags) -> bool {
    flags.contains(ConntrackFlags::RESET)
        || flags.contains(ConntrackFlags::FIN_FROM_A.with(ConntrackFlags::FIN_FROM_B))
}

/// Which of a connection's verdicts a packet needs at this hook.
#[inline(always)]
pub(crate) fn own_flag(own_opened: bool) -> ConntrackFlags {
    if own_opened { ConntrackFlags::EGRESS_JUDGED } else { ConntrackFlags::INGRESS_JUDGED }
}

/// Whether the endpoint at the hook has judged the connection under its present policy.
#[inline(always)]
pub(crate) fn is_fresh_for_own<A: Family>(
    entry: &ConntrackEntry,
    scene: &Scene<A>,
    own_opened: bool,
) -> bool {
    let revision = if own_opened { entry.egress_revision } else { entry.ingress_revision };
    revision == scene.own.revision && entry.ipcache_epoch == scene.config.ipcache_epoch
}

/// Whether the other end, an endpoint of this node, has judged the connection under its present policy.
#[inline(always)]
pub(crate) fn is_fresh_for_peer(entry: &ConntrackEntry, peer: &Endpoint, own_opened: bool) -> bool {
    let revision = if own_opened { entry.ingress_revision } else { entry.egress_revision };
    revision == peer.revision
}

/// Writes down that a packet of the connection passed.
#[inline(always)]
pub(crate) fn advance<A: Family>(
    skb: *mut __sk_buff,
    scene: &Scene<A>,
    entry: *mut ConntrackEntry,
    forward: bool,
) {
    // SAFETY: a map value. Two CPUs may lose each other's flag or count; the next packet corrects it.
    let entry = unsafe { &mut *entry };
    let mut flags = next_flags(entry.flags, &scene.packet, scene.source_is_a);
    if !forward {
        flags = flags.with(ConntrackFlags::REPLIED);
    }
    if entry.flags != flags {
        entry.flags = flags;
    }
    let expires = scene.now + lifetime(&scene.packet, flags);
    if entry.expires != expires {
        entry.expires = expires;
    }
    let side = if forward { 0 } else { 1 };
    entry.packets[side] = entry.packets[side].wrapping_add(1);
    entry.bytes[side] = entry.bytes[side].wrapping_add(length(skb) as u64);
}

/// The flags and expiry of an entry whose first packet this is.
#[inline(always)]
pub(crate) fn first<A: Family>(scene: &Scene<A>) -> (ConntrackFlags, u32) {
    let opener = if scene.source_is_a { ConntrackFlags::OPENED_BY_A } else { ConntrackFlags(0) };
    let flags = next_flags(opener, &scene.packet, scene.source_is_a);
    (flags, scene.now + lifetime(&scene.packet, flags))
}

#[inline(always)]
fn next_flags<A>(flags: ConntrackFlags, packet: &Packet<A>, source_is_a: bool) -> ConntrackFlags {
    let mut flags = flags;
    if packet.protocol == protocol::TCP {
        if packet.tcp_flags_or_icmp_type & tcp_flag::FIN != 0 {
            flags =
                flags.with(if source_is_a { ConntrackFlags::FIN_FROM_A } else { ConntrackFlags::FIN_FROM_B });
        }
        if packet.tcp_flags_or_icmp_type & tcp_flag::RST != 0 {
            flags = flags.with(ConntrackFlags::RESET);
        }
    }
    flags
}

#[inline(always)]
fn lifetime<A>(packet: &Packet<A>, flags: ConntrackFlags) -> u32 {
    if packet.protocol != protocol::TCP {
        lifetime::DEFAULT
    } else if is_closing(flags) {
        lifetime::CLOSING
    } else if flags.contains(ConntrackFlags::REPLIED) {
        lifetime::ESTABLISHED
    } else {
        lifetime::DEFAULT
    }
}

/// Reads the packet that an ICMP error quotes and fills in the key of its connection. The error counts as a packet
/// of that connection in the opposite direction: it comes from the side that received the quoted packet.
#[inline(never)]
pub(crate) fn quote<A: Family>(skb: *mut __sk_buff, scene: &mut Scene<A>) -> bool {
    let mut quoted = Packet::<A>::default();
    if A::parse_quoted(skb, scene.packet.transport as u32, &mut quoted) != 0 {
        return false;
    }
    let trackable = quoted.has_ports() || quoted.is_echo_request() || quoted.is_echo_reply();
    if !trackable || crate::fragment::is_later(&quoted) {
        return false;
    }
    // What a pod reports as lost must have been sent to it, and by the receiver of the report; what is reported to
    // a pod it must have sent.
    if quoted.source != scene.packet.destination || scene.egress && quoted.destination != scene.packet.source
    {
        return false;
    }
    let (key, quoted_source_is_a) = A::key(&quoted);
    scene.key = key;
    scene.source_is_a = !quoted_source_is_a;
    true
}
