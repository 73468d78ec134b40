//! What the stack delivers to the pod: from the node, from outside, or from a pod whose packets another plugin
//! forwards. The pod's own policy has the last word.

use aya_ebpf::bindings::__sk_buff;
use sluice_ebpf_common::EndpointInfo;
use sluice_ebpf_common::packet::{Ipv4, Ipv6, Packet, protocol};
use sluice_types::{Direction, DropReason};

use crate::family::{Family, Scope};
use crate::neighbour::{self, Link};
use crate::scene::{Endpoint, PASS, Scene, config, endpoint_of_interface, now};
use crate::{event, judge, parse};

const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPV6: u32 = 0x86dd_u16.to_be() as u32;
const ARP: u32 = 0x0806_u16.to_be() as u32;

#[inline(always)]
pub(crate) fn handle(skb: *mut __sk_buff) -> i32 {
    // SAFETY: fields of the context.
    let (ifindex, ethertype, tagged) = unsafe { ((*skb).ifindex, (*skb).protocol, (*skb).vlan_present != 0) };
    let own = endpoint_of_interface(ifindex);
    match ethertype {
        _ if tagged => refuse(skb, own, DropReason::VlanFiltered),
        IPV4 => ip::<Ipv4>(skb, own),
        IPV6 => ip::<Ipv6>(skb, own),
        ARP => arp(skb, own),
        _ => refuse(skb, own, DropReason::UnsupportedL2Protocol),
    }
}

/// The scene of a packet for the endpoint behind `own`.
#[inline(always)]
fn scene<A: Family>(own: Option<*const EndpointInfo>) -> Scene<A> {
    Scene {
        packet: Packet::default(),
        key: A::key(&Packet::default()).0,
        own: own.map_or(Endpoint::NONE, Endpoint::read),
        config: config(),
        now: now(),
        source_is_a: false,
        tracked: false,
        ports_unknown: false,
        egress: false,
    }
}

/// Drops what is no IP packet.
#[inline(never)]
fn refuse(skb: *mut __sk_buff, own: Option<*const EndpointInfo>, reason: DropReason) -> i32 {
    let scene = scene::<Ipv4>(own);
    let reason = if scene.own.is_ready() { reason } else { DropReason::EndpointNotReady };
    event::drop(skb, &scene, reason, 0)
}

#[inline(always)]
fn arp(skb: *mut __sk_buff, own: Option<*const EndpointInfo>) -> i32 {
    let endpoint = own.map_or(Endpoint::NONE, Endpoint::read);
    if !endpoint.is_ready() {
        return refuse(skb, own, DropReason::EndpointNotReady);
    }
    event::count(skb, endpoint.id, 0, Direction::Ingress as u8);
    PASS
}

#[inline(always)]
fn ip<A: Family + Destination>(skb: *mut __sk_buff, own: Option<*const EndpointInfo>) -> i32 {
    let mut scene = scene::<A>(own);
    let read = parse::ip(skb, &mut scene.packet);
    let Some(own) = own else { return event::drop(skb, &scene, DropReason::EndpointNotReady, 0) };
    if !scene.own.is_ready() {
        return event::drop(skb, &scene, DropReason::EndpointNotReady, 0);
    }
    if let Err(error) = read {
        return event::drop(skb, &scene, error.reason(), 0);
    }
    match A::link(&scene) {
        Link::Ordinary => {}
        Link::Pass => {
            event::count(skb, scene.own.id, 0, Direction::Ingress as u8);
            return PASS;
        }
        refused => {
            let reason = refused.reason().unwrap_or(DropReason::ForbiddenIcmpv6Message);
            return event::drop(skb, &scene, reason, 0);
        }
    }
    if !scene.packet.destination.is_of(own) && !scene.packet.destination.is_multicast_or_broadcast() {
        // Routed to the wrong pod: whoever it was meant for, this one's policy says nothing about it.
        return event::drop(skb, &scene, DropReason::InvalidIdentity, 0);
    }
    judge::handle(skb, &mut scene)
}

/// Whether a packet may be for the pod.
trait Destination: Family {
    fn link(scene: &Scene<Self>) -> Link;
    fn is_of(&self, own: *const EndpointInfo) -> bool;
}

impl Destination for Ipv4 {
    #[inline(always)]
    fn link(_: &Scene<Self>) -> Link {
        Link::Ordinary
    }

    #[inline(always)]
    fn is_of(&self, own: *const EndpointInfo) -> bool {
        self.belongs_to(own)
    }
}

impl Destination for Ipv6 {
    #[inline(always)]
    fn link(scene: &Scene<Self>) -> Link {
        if scene.packet.protocol == protocol::ICMPV6 { neighbour::to_pod(scene) } else { Link::Ordinary }
    }

    #[inline(always)]
    fn is_of(&self, own: *const EndpointInfo) -> bool {
        // SAFETY: a map value.
        self.belongs_to(own) || self.is_link_local_of(unsafe { (*own).mac })
    }
}
