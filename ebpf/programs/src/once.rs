//! Stages as global functions: the verifier looks at each once, on its own, and not again for every place it is
//! called from. Their arguments are plain numbers, the context, and pointers to memory of known size.

use aya_ebpf::bindings::__sk_buff;
use sluice_ebpf_common::packet::{Ipv4, Ipv6, Packet};
use sluice_types::DropReason;

use crate::event::{self, Report};
use crate::scene::{DROP, Scene, endpoint_of_interface};
use crate::{judge, parse, redirect};

/// Drops a frame that is no IP packet, at the hook of the endpoint behind its interface.
#[inline(always)]
pub(crate) fn refuse(skb: *mut __sk_buff, reason: DropReason, egress: bool) -> i32 {
    refuse_frame(skb, reason.number() as u32, egress as u32)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn refuse_frame(skb: *mut __sk_buff, reason: u32, egress: u32) -> i32 {
    // SAFETY: a field of the context.
    let own = endpoint_of_interface(unsafe { (*skb).ifindex });
    let Some(scene) = Scene::<Ipv4>::begin(own, egress != 0) else { return DROP };
    let not_ready = DropReason::EndpointNotReady.number() as u32;
    event::drop_for(skb, scene, if scene.own.is_ready() { reason } else { not_ready }, 0)
}

/// The stages of one family.
pub(crate) trait Once: Sized {
    /// Reads the frame's IP packet: 0, or the reason to drop it.
    fn parse(skb: *mut __sk_buff, packet: &mut Packet<Self>) -> u32;
    /// Reads the packet that an ICMP error with this transport offset quotes: 0, or why not.
    fn parse_quoted(skb: *mut __sk_buff, transport: u32, packet: &mut Packet<Self>) -> u32;
    /// Where a packet goes in whose flow a proxy takes part, as [`judge::way`] has it.
    fn follow_proxy(skb: *mut __sk_buff, scene: &mut Scene<Self>, related: bool) -> i32
    where
        Self: crate::family::Family;
    /// Asks ipcache and policy, and answers as [`judge::way`] has it.
    fn judge_slowly(skb: *mut __sk_buff, scene: &Scene<Self>) -> i32
    where
        Self: crate::family::Family;
    /// Writes an event.
    fn tell(skb: *mut __sk_buff, scene: &Scene<Self>, report: &Report)
    where
        Self: crate::family::Family;
}

macro_rules! once {
    ($family:ty, $parse:ident, $parse_quoted:ident, $follow_proxy:ident, $judge_slowly:ident, $tell:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $parse(skb: *mut __sk_buff, packet: *mut Packet<$family>) -> u32 {
            // SAFETY: the verifier lets only memory of this size, or null, be passed.
            match unsafe { packet.as_mut() } {
                Some(packet) => parse::read(skb, packet),
                None => DropReason::CtTruncatedOrInvalidHeader.number() as u32,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $parse_quoted(
            skb: *mut __sk_buff,
            transport: u32,
            packet: *mut Packet<$family>,
        ) -> u32 {
            // SAFETY: as above.
            match unsafe { packet.as_mut() } {
                Some(packet) => parse::read_quoted(skb, transport, packet),
                None => DropReason::CtTruncatedOrInvalidHeader.number() as u32,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $follow_proxy(skb: *mut __sk_buff, scene: *mut Scene<$family>, related: u32) -> i32 {
            // SAFETY: as above.
            match unsafe { scene.as_mut() } {
                Some(scene) => redirect::follow(skb, scene, related != 0),
                None => judge::way::DROPPED,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $judge_slowly(skb: *mut __sk_buff, scene: *const Scene<$family>) -> i32 {
            // SAFETY: as above.
            match unsafe { scene.as_ref() } {
                Some(scene) => judge::slow(skb, scene),
                None => judge::way::DROPPED,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $tell(skb: *mut __sk_buff, scene: *const Scene<$family>, report: *const Report) -> u32 {
            // SAFETY: as above.
            if let (Some(scene), Some(report)) = unsafe { (scene.as_ref(), report.as_ref()) } {
                event::write(skb, scene, report);
            }
            0
        }

        impl Once for $family {
            #[inline(always)]
            fn parse(skb: *mut __sk_buff, packet: &mut Packet<Self>) -> u32 {
                $parse(skb, packet)
            }

            #[inline(always)]
            fn parse_quoted(skb: *mut __sk_buff, transport: u32, packet: &mut Packet<Self>) -> u32 {
                $parse_quoted(skb, transport, packet)
            }

            #[inline(always)]
            fn follow_proxy(skb: *mut __sk_buff, scene: &mut Scene<Self>, related: bool) -> i32 {
                $follow_proxy(skb, scene, related as u32)
            }

            #[inline(always)]
            fn judge_slowly(skb: *mut __sk_buff, scene: &Scene<Self>) -> i32 {
                $judge_slowly(skb, scene)
            }

            #[inline(always)]
            fn tell(skb: *mut __sk_buff, scene: &Scene<Self>, report: &Report) {
                $tell(skb, scene, report);
            }
        }
    };
}

once!(Ipv4, parse_ipv4, parse_quoted_ipv4, follow_proxy_ipv4, judge_slowly_ipv4, tell_ipv4);
once!(Ipv6, parse_ipv6, parse_quoted_ipv6, follow_proxy_ipv6, judge_slowly_ipv6, tell_ipv6);
