//! Stage 5: straight into the other pod of this node, past the stack.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::{bpf_redirect_peer, bpf_skb_store_bytes};
use sluice_ebpf_common::EndpointInfo;
use sluice_types::{Direction, DropReason};

use crate::event;
use crate::family::{Aligned, Family};
use crate::scene::Scene;

/// Hands the packet to the pod's end of the veth.
#[inline(always)]
pub(crate) fn deliver<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, to: *const EndpointInfo) -> i32 {
    // SAFETY: a map value.
    let (id, ifindex, mac, host_mac) = unsafe { ((*to).id, (*to).ifindex, (*to).mac, (*to).host_mac) };
    let [a, b, c, d, e, f] = mac;
    let [g, h, i, j, k, l] = host_mac;
    let addresses = Aligned([a, b, c, d, e, f, g, h, i, j, k, l]);
    // SAFETY: a helper on the context that copies 12 bytes from the stack.
    let stored = unsafe { bpf_skb_store_bytes(skb.cast(), 0, addresses.0.as_ptr().cast(), 12, 0) };
    if stored != 0 {
        return event::drop(skb, scene, DropReason::ErrorWritingToPacket, 0);
    }
    event::count_forwarded(skb, id, Direction::Ingress);
    // SAFETY: a helper; the interface is looked up when the program has returned.
    unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
}
