//! What comes from outside. Nobody out there has the address of a pod of this node, nor one of the node itself.
//! Everything else is the stack's to route, and the pods' own hooks judge what is for them.

use aya_ebpf::bindings::__sk_buff;
use sluice_ebpf_common::packet::{Bytes, ETHERNET_LENGTH, Ipv4, Ipv6};
use sluice_types::DropReason;

use crate::family::Family;
use crate::parse::{self, Frame};
use crate::scene::{DROP, PASS, Scene};
use crate::{event, ipcache};

const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPV6: u32 = 0x86dd_u16.to_be() as u32;

#[inline(always)]
pub(crate) fn handle(skb: *mut __sk_buff) -> i32 {
    // SAFETY: a field of the context.
    match unsafe { (*skb).protocol } {
        IPV4 => match read(skb, 12) {
            Some(source) => judge(skb, Ipv4::new(source)),
            None => PASS,
        },
        IPV6 => match read(skb, 8) {
            Some(source) => judge(skb, Ipv6::new(source)),
            None => PASS,
        },
        _ => PASS,
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

#[inline(always)]
fn judge<A: Family>(skb: *mut __sk_buff, source: A) -> i32 {
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
