//! What runs in the kernel: three programs, one per hook, that enforce policy on pods' packets.
//!
//! One packet: parse → conntrack → (new, or cached verdict stale: peer identity → policy → verdict) → pass,
//! deliver, hand to a proxy, or drop with a reason. The programs never know what a rule means: they look the verdict up.
//! Loaded and attached by `ebpf/loader`.
#![no_std]
#![no_main]

mod conntrack;
mod deliver;
mod event;
mod family;
mod fragment;
mod from_container;
mod from_netdev;
mod ipcache;
mod judge;
mod maps;
mod neighbour;
mod once;
mod parse;
mod policy;
mod redirect;
mod scene;
mod to_container;

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

/// TCX ingress of a pod's host-side veth: what the pod sends.
#[classifier]
pub(crate) fn from_container(ctx: TcContext) -> i32 {
    from_container::handle(ctx.skb.skb)
}

/// TCX egress of a pod's host-side veth: what the stack delivers to the pod.
#[classifier]
pub(crate) fn to_container(ctx: TcContext) -> i32 {
    to_container::handle(ctx.skb.skb)
}

/// TCX ingress of the node's own devices: what comes from outside.
#[classifier]
pub(crate) fn from_netdev(ctx: TcContext) -> i32 {
    from_netdev::handle(ctx.skb.skb)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: the verifier accepts no program in which this remains.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
