//! Who is behind which MAC address: ARP and IPv6 neighbour discovery. A pod speaks only for itself, and never as a
//! router. What is passed here goes to the stack without policy, so it must be of no use beyond the link.

use aya_ebpf::bindings::__sk_buff;
use sluice_ebpf_common::EndpointInfo;
use sluice_ebpf_common::packet::{Bytes, ETHERNET_LENGTH, Fragment, Ipv6};
use sluice_types::DropReason;

use crate::family::{Family, Scope};
use crate::ipcache;
use crate::parse::{self, Frame};
use crate::scene::Scene;

/// ICMPv6 types.
mod kind {
    pub(super) const LISTENER_QUERY: u8 = 130;
    pub(super) const LISTENER_REPORT: u8 = 131;
    pub(super) const LISTENER_DONE: u8 = 132;
    pub(super) const ROUTER_SOLICITATION: u8 = 133;
    pub(super) const ROUTER_ADVERTISEMENT: u8 = 134;
    pub(super) const SOLICITATION: u8 = 135;
    pub(super) const ADVERTISEMENT: u8 = 136;
    pub(super) const REDIRECT: u8 = 137;
    pub(super) const LISTENER_REPORT_V2: u8 = 143;
}

/// How many options of a neighbour discovery message are read before it is refused.
const OPTIONS_MAX: usize = 4;

/// What to do with a packet of the link.
#[derive(Clone, Copy, Eq, PartialEq)]
#[repr(u32)]
pub(crate) enum Link {
    /// An ordinary packet: policy decides.
    Ordinary = 0,
    /// It may pass to the stack.
    Pass = 1,
    /// It is forbidden.
    Forbidden = 2,
    /// Its source is not the pod's.
    Spoofed = 3,
    /// It is cut short.
    Truncated = 4,
}

impl Link {
    /// The reason to drop it, if any.
    #[inline(always)]
    pub(crate) fn reason(self) -> Option<DropReason> {
        match self {
            Self::Ordinary | Self::Pass => None,
            Self::Forbidden => Some(DropReason::ForbiddenIcmpv6Message),
            Self::Spoofed => Some(DropReason::InvalidSourceIp),
            Self::Truncated => Some(DropReason::CtTruncatedOrInvalidHeader),
        }
    }
}

/// Why an ARP message of a pod is refused, if it is. Sender MAC and IP must be the pod's; 0.0.0.0 is a probe.
#[inline(always)]
pub(crate) fn arp(skb: *mut __sk_buff, own: *const EndpointInfo) -> Option<DropReason> {
    parse::pull(skb);
    let Some(body) = Frame::new(skb).load::<28>(ETHERNET_LENGTH) else {
        return Some(DropReason::CtTruncatedOrInvalidHeader);
    };
    // Ethernet, IPv4, 6 and 4 bytes of address.
    if body[..6] != [0, 1, 8, 0, 6, 4] {
        return Some(DropReason::InvalidPacketDropped);
    }
    // SAFETY: a map value.
    let (mac, ip) = unsafe { ((*own).mac, (*own).ipv4_be) };
    if body[8..14] != mac {
        return Some(DropReason::InvalidSourceMac);
    }
    let sender = [body[14], body[15], body[16], body[17]];
    if sender != ip && sender != [0; 4] { Some(DropReason::InvalidSourceIp) } else { None }
}

/// Looks at an ICMPv6 message that a pod sends.
#[inline(never)]
pub(crate) fn from_pod(skb: *mut __sk_buff, scene: &Scene<Ipv6>, own: *const EndpointInfo) -> Link {
    let packet = &scene.packet;
    let message = packet.tcp_flags_or_icmp_type;
    // SAFETY: a map value.
    let mac = unsafe { (*own).mac };
    let link_local = packet.source.is_link_local_of(mac);
    let own_source = link_local || packet.source.belongs_to(own);
    match message {
        kind::ROUTER_ADVERTISEMENT | kind::REDIRECT => Link::Forbidden,
        kind::LISTENER_QUERY | kind::LISTENER_REPORT | kind::LISTENER_DONE | kind::LISTENER_REPORT_V2 => {
            if !own_source && !packet.source.is_unspecified() {
                Link::Spoofed
            } else if packet.destination.is_link_multicast() {
                Link::Pass
            } else {
                ordinary(scene, own)
            }
        }
        kind::ROUTER_SOLICITATION | kind::SOLICITATION | kind::ADVERTISEMENT => {
            let probe = message == kind::SOLICITATION && packet.source.is_unspecified();
            if !own_source && !probe {
                Link::Spoofed
            } else if packet.hop_limit != 255 || !stays_on_link(&packet.destination) {
                // Routers would forward it: no message of the link.
                ordinary(scene, own)
            } else {
                discovery(skb, scene, own, probe)
            }
        }
        _ => ordinary(scene, own),
    }
}

/// For policy, only the pod's own address counts as a source.
#[inline(always)]
fn ordinary(scene: &Scene<Ipv6>, own: *const EndpointInfo) -> Link {
    if scene.packet.source.belongs_to(own) { Link::Ordinary } else { Link::Spoofed }
}

/// Whether a message for this address ends on the pod's link.
#[inline(always)]
fn stays_on_link(destination: &Ipv6) -> bool {
    if destination.is_link_local() || destination.is_link_multicast() {
        return true;
    }
    match ipcache::exact(destination) {
        Some(peer) => peer.is_node_local() || peer.endpoint != 0,
        None => false,
    }
}

/// Checks what a solicitation or advertisement claims.
#[inline(always)]
fn discovery(skb: *mut __sk_buff, scene: &Scene<Ipv6>, own: *const EndpointInfo, probe: bool) -> Link {
    let packet = &scene.packet;
    let message = packet.tcp_flags_or_icmp_type;
    if packet.fragment as u8 != Fragment::Whole as u8 {
        return Link::Forbidden;
    }
    parse::pull(skb);
    let frame = Frame::new(skb);
    let transport = packet.transport as usize;
    // SAFETY: a map value.
    let mac = unsafe { (*own).mac };
    let mut at = transport + 8;
    if message != kind::ROUTER_SOLICITATION {
        let Some(target) = frame.load::<16>(at) else { return Link::Truncated };
        let target = Ipv6::new(target);
        let own_target = target.belongs_to(own) || target.is_link_local_of(mac);
        if (message == kind::ADVERTISEMENT || probe) && !own_target {
            return Link::Forbidden;
        }
        at += 16;
    }
    let end = packet.end as usize;
    for _ in 0..OPTIONS_MAX {
        if at >= end {
            return if at == end { Link::Pass } else { Link::Truncated };
        }
        let Some([option, length, a, b, c, d, e, f]) = frame.load::<8>(at) else { return Link::Truncated };
        if length == 0 {
            return Link::Forbidden;
        }
        // Source and target link-layer address: either tells who is behind the pod's addresses.
        if matches!(option, 1 | 2) && [a, b, c, d, e, f] != mac {
            return Link::Forbidden;
        }
        at += length as usize * 8;
    }
    if at == end { Link::Pass } else { Link::Forbidden }
}

/// Looks at an ICMPv6 message for a pod. What has hop limit 255 was not forwarded: it comes from the link.
#[inline(always)]
pub(crate) fn to_pod(scene: &Scene<Ipv6>) -> Link {
    let packet = &scene.packet;
    match packet.tcp_flags_or_icmp_type {
        kind::ROUTER_ADVERTISEMENT | kind::REDIRECT => Link::Forbidden,
        kind::SOLICITATION | kind::ADVERTISEMENT if packet.hop_limit == 255 => Link::Pass,
        kind::LISTENER_QUERY if packet.source.is_link_local() && packet.destination.is_link_multicast() => {
            Link::Pass
        }
        _ => Link::Ordinary,
    }
}
