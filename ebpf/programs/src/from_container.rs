//! What the pod sends. Nothing leaves here under a name that is not the pod's own.

use aya_ebpf::bindings::__sk_buff;
use sluice_ebpf_common::packet::{Bytes, Ipv4, Ipv6, protocol};
use sluice_ebpf_common::{EndpointInfo, Mark};
use sluice_types::{Direction, DropReason};

use crate::family::Family;
use crate::neighbour::{self, Link};
use crate::parse::Frame;
use crate::scene::{DROP, Endpoint, PASS, Scene, endpoint_of_interface};
use crate::{event, judge, once, parse, redirect};

/// EtherTypes, as `skb->protocol` holds them.
mod ethertype {
    pub(super) const IPV4: u32 = 0x0800_u16.to_be() as u32;
    pub(super) const IPV6: u32 = 0x86dd_u16.to_be() as u32;
    pub(super) const ARP: u32 = 0x0806_u16.to_be() as u32;
    pub(super) const VLAN: u32 = 0x8100_u16.to_be() as u32;
    pub(super) const SERVICE_VLAN: u32 = 0x88a8_u16.to_be() as u32;
}

#[inline(always)]
pub(crate) fn handle(skb: *mut __sk_buff) -> i32 {
    // SAFETY: fields of the context.
    let (ifindex, ethertype, tagged) = unsafe { ((*skb).ifindex, (*skb).protocol, (*skb).vlan_present != 0) };
    let own = endpoint_of_interface(ifindex);
    match ethertype {
        _ if tagged => once::refuse(skb, DropReason::VlanFiltered, true),
        ethertype::IPV4 => ip::<Ipv4>(skb, own),
        ethertype::IPV6 => ip::<Ipv6>(skb, own),
        ethertype::ARP => arp(skb, own),
        ethertype::VLAN | ethertype::SERVICE_VLAN => once::refuse(skb, DropReason::VlanFiltered, true),
        _ => once::refuse(skb, DropReason::UnsupportedL2Protocol, true),
    }
}

#[inline(always)]
fn source_mac(skb: *mut __sk_buff) -> Option<[u8; 6]> {
    Frame::new(skb).load(6)
}

#[inline(always)]
fn arp(skb: *mut __sk_buff, own: Option<*const EndpointInfo>) -> i32 {
    let Some(info) = own else { return once::refuse(skb, DropReason::EndpointNotReady, true) };
    let endpoint = Endpoint::read(info);
    if !endpoint.is_ready() {
        return once::refuse(skb, DropReason::EndpointNotReady, true);
    }
    // SAFETY: a map value.
    if source_mac(skb) != Some(unsafe { (*info).mac }) {
        return once::refuse(skb, DropReason::InvalidSourceMac, true);
    }
    match neighbour::arp(skb, info) {
        Some(reason) => once::refuse(skb, reason, true),
        None => {
            event::count_forwarded(skb, endpoint.id, Direction::Egress);
            PASS
        }
    }
}

#[inline(always)]
fn ip<A: Family + Source>(skb: *mut __sk_buff, own: Option<*const EndpointInfo>) -> i32 {
    let Some(scene) = Scene::<A>::begin(own, true) else { return DROP };
    // Read first, so that a refusal can say what it was about.
    let read = parse::ip(skb, &mut scene.packet);
    let Some(own) = own else { return event::drop(skb, scene, DropReason::EndpointNotReady, 0) };
    if !scene.own.is_ready() {
        return event::drop(skb, scene, DropReason::EndpointNotReady, 0);
    }
    // SAFETY: a map value.
    let is_pods_own = source_mac(skb) == Some(unsafe { (*own).mac });
    let mark = redirect::mark(skb);
    if mark.is(Mark::RETURN) && !is_pods_own && read.is_ok() {
        return redirect::returned(skb, scene, mark);
    }
    redirect::forget_mark(skb, mark);
    if !is_pods_own {
        return event::drop(skb, scene, DropReason::InvalidSourceMac, 0);
    }
    if let Err(reason) = read {
        return event::drop_for(skb, scene, reason, 0);
    }
    match A::link(skb, scene, own) {
        Link::Ordinary => {}
        Link::Pass => {
            event::count_forwarded(skb, scene.own.id, Direction::Egress);
            return PASS;
        }
        refused => {
            let reason = refused.reason().unwrap_or(DropReason::ForbiddenIcmpv6Message);
            return event::drop(skb, scene, reason, 0);
        }
    }
    if judge::is_dhcp_server(scene) {
        // Nobody asked this pod to hand out addresses.
        return event::drop(skb, scene, DropReason::UnknownSender, 0);
    }
    if scene.packet.destination.is_loopback() {
        // On the wire it could only mean the node's own loopback.
        return event::drop(skb, scene, DropReason::InvalidPacketDropped, 0);
    }
    judge::handle(skb, scene)
}

/// Whether a packet's source may be.
trait Source: Family {
    fn link(skb: *mut __sk_buff, scene: &Scene<Self>, own: *const EndpointInfo) -> Link;
}

impl Source for Ipv4 {
    #[inline(always)]
    fn link(_: *mut __sk_buff, scene: &Scene<Self>, own: *const EndpointInfo) -> Link {
        if scene.packet.source.belongs_to(own) { Link::Ordinary } else { Link::Spoofed }
    }
}

impl Source for Ipv6 {
    #[inline(always)]
    fn link(skb: *mut __sk_buff, scene: &Scene<Self>, own: *const EndpointInfo) -> Link {
        if scene.packet.protocol == protocol::ICMPV6 {
            return neighbour::from_pod(skb, scene, own);
        }
        if scene.packet.source.belongs_to(own) { Link::Ordinary } else { Link::Spoofed }
    }
}
