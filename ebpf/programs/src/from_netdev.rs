//! What comes from outside. Nobody out there has the address of a pod of this node, nor one of the node itself.
//! What belongs to a proxy's connection goes to the proxy. Everything else is the stack's to route, and the pods' own
//! hooks judge what is for them.

use aya_ebpf::bindings::__sk_buff;
use sluice_ebpf_common::ConfigFlags;
use sluice_ebpf_common::packet::{Bytes, ETHERNET_LENGTH, Ipv4, Ipv6};
use sluice_types::DropReason;

use crate::family::Family;
use crate::parse::{self, Frame};
use crate::scene::{DROP, Endpoint, PASS, Scene, config};
use crate::{event, ipcache, judge};

const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPV6: u32 = 0x86dd_u16.to_be() as u32;

#[inline(always)]
pub(crate) fn handle(skb: *mut __sk_buff) -> i32 {
    // SAFETY: a field of the context.
    match unsafe { (*skb).protocol } {
        IPV4 => judge::<Ipv4>(skb),
        IPV6 => judge::<Ipv6>(skb),
        _ => PASS,
    }
}

#[inline(always)]
fn judge<A: Header>(skb: *mut __sk_buff) -> i32 {
    let verdict = refuse_spoofed::<A>(skb);
    if verdict == PASS && config().flags.contains(ConfigFlags::REDIRECTS) {
        for_pod::<A>(skb)
    } else {
        verdict
    }
}

/// Where the source is in the header.
trait Header: Family {
    fn source(skb: *mut __sk_buff) -> Option<Self>;
}

impl Header for Ipv4 {
    #[inline(always)]
    fn source(skb: *mut __sk_buff) -> Option<Self> {
        read(skb, 12).map(Self::new)
    }
}

impl Header for Ipv6 {
    #[inline(always)]
    fn source(skb: *mut __sk_buff) -> Option<Self> {
        read(skb, 8).map(Self::new)
    }
}

/// The address at `offset` in the IP header. A packet without a whole one is dropped by the stack.
#[inline(always)]
fn read<const N: usize>(skb: *mut __sk_buff, offset: usize) -> Option<[u8; N]> {
    if let Some(address) = Frame::new(skb).load(ETHERNET_LENGTH + offset) {
        return Some(address);
    }
    parse::pull(skb);
    Frame::new(skb).load(ETHERNET_LENGTH + offset)
}

/// Not inlined, as the next: there is one stack for all that call each other.
#[inline(never)]
fn refuse_spoofed<A: Header>(skb: *mut __sk_buff) -> i32 {
    let Some(source) = A::source(skb) else { return PASS };
    let Some(owner) = ipcache::exact(&source) else { return PASS };
    if owner.endpoint == 0 && !owner.is_node_local() {
        return PASS;
    }
    let Some(scene) = Scene::<A>::begin(None, false) else { return DROP };
    scene.packet.source = source;
    // Only for the report: what cannot be read is dropped all the same.
    let _ = parse::ip(skb, &mut scene.packet);
    event::drop(skb, scene, DropReason::InvalidSourceIp, owner.identity)
}

/// What is for a pod of this node may be a proxy's.
#[inline(never)]
fn for_pod<A: Family>(skb: *mut __sk_buff) -> i32 {
    let Some(scene) = Scene::<A>::begin(None, false) else { return DROP };
    if parse::ip(skb, &mut scene.packet).is_err() {
        // Its receiver refuses it.
        return PASS;
    }
    let destination = &scene.packet.destination;
    let Some(owner) = ipcache::exact(destination) else { return PASS };
    let Some(own) = ipcache::peer_endpoint(&owner, destination) else { return PASS };
    scene.own = Endpoint::read(own);
    if scene.own.is_ready() { judge::divert(skb, scene) } else { PASS }
}
