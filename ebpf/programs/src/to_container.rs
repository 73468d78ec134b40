//! What the stack delivers to the pod: from the node, from outside, or from a pod whose packets another plugin
//! forwards. The pod's own policy has the last word.

use aya_ebpf::bindings::__sk_buff;
use sluice_ebpf_common::packet::{Ipv4, Ipv6, protocol};
use sluice_ebpf_common::{EndpointInfo, Mark};
use sluice_types::{Direction, DropReason};

use crate::family::{Family, Scope};
use crate::neighbour::{self, Link};
use crate::scene::{DROP, Endpoint, PASS, Scene, endpoint_of_interface};
use crate::{event, judge, once, parse, redirect};

const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPV6: u32 = 0x86dd_u16.to_be() as u32;
const ARP: u32 = 0x0806_u16.to_be() as u32;

#[inline(always)]
pub(crate) fn handle(skb: *mut __sk_buff) -> i32 {
    // SAFETY: fields of the context.
    let (ifindex, ethertype, tagged) = unsafe { ((*skb).ifindex, (*skb).protocol, (*skb).vlan_present != 0) };
    let own = endpoint_of_interface(ifindex);
    match ethertype {
        _ if tagged => once::refuse(skb, DropReason::VlanFiltered, false),
        IPV4 => ip::<Ipv4>(skb, own),
        IPV6 => ip::<Ipv6>(skb, own),
        ARP => arp(skb, own),
        _ => once::refuse(skb, DropReason::UnsupportedL2Protocol, false),
    }
}

#[inline(always)]
fn arp(skb: *mut __sk_buff, own: Option<*const EndpointInfo>) -> i32 {
    let endpoint = own.map_or(Endpoint::NONE, Endpoint::read);
    if !endpoint.is_ready() {
        return once::refuse(skb, DropReason::EndpointNotReady, false);
    }
    event::count_forwarded(skb, endpoint.id, Direction::Ingress);
    PASS
}

#[inline(always)]
fn ip<A: Family + Destination>(skb: *mut __sk_buff, own: Option<*const EndpointInfo>) -> i32 {
    let Some(scene) = Scene::<A>::begin(own, false) else { return DROP };
    let read = parse::ip(skb, &mut scene.packet);
    let Some(own) = own else { return event::drop(skb, scene, DropReason::EndpointNotReady, 0) };
    if !scene.own.is_ready() {
        return event::drop(skb, scene, DropReason::EndpointNotReady, 0);
    }
    if let Err(reason) = read {
        return event::drop_for(skb, scene, reason, 0);
    }
    let mark = redirect::mark(skb);
    if mark.is(Mark::TO_PROXY) {
        // The rule that leads such packets to the proxy is missing.
        return event::drop(skb, scene, DropReason::FibLookupFailed, 0);
    }
    if mark.is_leg() && judge::came_in(skb) == 0 {
        scene.mark = mark;
    }
    match A::link(scene) {
        Link::Ordinary => {}
        Link::Pass => {
            event::count_forwarded(skb, scene.own.id, Direction::Ingress);
            return PASS;
        }
        refused => {
            let reason = refused.reason().unwrap_or(DropReason::ForbiddenIcmpv6Message);
            return event::drop(skb, scene, reason, 0);
        }
    }
    if !scene.packet.destination.is_of(own) && !scene.packet.destination.is_multicast_or_broadcast() {
        // Routed to the wrong pod: whoever it was meant for, this one's policy says nothing about it.
        return event::drop(skb, scene, DropReason::InvalidIdentity, 0);
    }
    judge::handle(skb, scene)
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
