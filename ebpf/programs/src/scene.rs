//! Everything that is known while one packet is handled. It lives in a map of one entry per CPU and is passed by
//! pointer: a BPF function takes five plain arguments, and the stack of a whole call chain has 512 bytes.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use sluice_ebpf_common::packet::{Ipv4, Ipv6, Packet};
use sluice_ebpf_common::{Config, EndpointFlags, EndpointInfo, INTERFACE_SLOTS, Mark};
use sluice_types::EndpointId;

use crate::family::Family;
use crate::maps::{CONFIG, ENDPOINT, IFINDEX, IFSLOT, SCRATCH};

/// Let the packet go on.
pub(crate) const PASS: i32 = aya_ebpf::bindings::TC_ACT_OK as i32;
/// Drop the packet.
pub(crate) const DROP: i32 = aya_ebpf::bindings::TC_ACT_SHOT as i32;

/// A copy of what is needed of an endpoint, read once: a change in between must not mix two revisions.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Endpoint {
    /// 0 for "none".
    pub(crate) id: u16,
    pub(crate) flags: EndpointFlags,
    pub(crate) ifindex: u32,
    pub(crate) identity: u32,
    pub(crate) revision: u32,
    pub(crate) generation: u32,
}

impl Endpoint {
    pub(crate) const NONE: Self =
        Self { id: 0, flags: EndpointFlags(0), ifindex: 0, identity: 0, revision: 0, generation: 0 };

    /// Reads `info` word by word, as it is written.
    #[inline(always)]
    pub(crate) fn read(info: *const EndpointInfo) -> Self {
        // SAFETY: `info` is a map value. Volatile, so that each word is read exactly once and before the policy
        // lookups that follow.
        unsafe {
            let head = read_volatile(info.cast::<u64>());
            let mode = read_volatile(info.cast::<u64>().add(1));
            Self {
                id: head as u16,
                flags: EndpointFlags((head >> 16) as u16),
                ifindex: (head >> 32) as u32,
                identity: mode as u32,
                revision: (mode >> 32) as u32,
                generation: read_volatile(addr_of!((*info).generation)),
            }
        }
    }

    #[inline(always)]
    pub(crate) fn is_ready(&self) -> bool {
        self.flags.contains(EndpointFlags::READY)
    }

    #[inline(always)]
    pub(crate) fn is_chained(&self) -> bool {
        self.flags.contains(EndpointFlags::CHAINED)
    }
}

/// The table entry of an endpoint, if the id is one.
#[inline(always)]
pub(crate) fn endpoint(id: u32) -> Option<*const EndpointInfo> {
    if id == 0 || id >= EndpointId::TABLE_LEN as u32 {
        return None;
    }
    ENDPOINT.get_ptr(id)
}

/// The endpoint behind an interface.
#[inline(always)]
pub(crate) fn endpoint_of_interface(ifindex: u32) -> Option<*const EndpointInfo> {
    if let Some(id) = IFSLOT.get(ifindex % INTERFACE_SLOTS)
        && let Some(info) = endpoint(*id)
        // SAFETY: a map value.
        && unsafe { (*info).ifindex } == ifindex
    {
        return Some(info);
    }
    // SAFETY: the value is a plain number, read at once.
    let id = unsafe { IFINDEX.get(&ifindex) }?;
    endpoint(*id)
}

/// The settings; all zero if there are none.
#[inline(always)]
pub(crate) fn config() -> Config {
    match CONFIG.get_ptr(0) {
        // SAFETY: a map value. The epoch must be read before ipcache and policy are.
        Some(config) => unsafe { read_volatile(config) },
        None => Config::default(),
    }
}

/// The coarse monotonic clock in the units of conntrack entries, looked at once per tick: jiffies are a mere load.
#[inline(always)]
fn now(clock: &mut Clock) -> u32 {
    // SAFETY: helpers without arguments.
    unsafe {
        let jiffies = bpf_jiffies64();
        if clock.jiffies != jiffies {
            clock.jiffies = jiffies;
            clock.now = (bpf_ktime_get_coarse_ns() >> 30) as u32;
        }
    }
    clock.now
}

/// What is known of the packet and of the endpoint at whose hook it is.
#[repr(C)]
pub(crate) struct Scene<A: Family> {
    pub(crate) packet: Packet<A>,
    /// The canonical tuple, if `tracked`.
    pub(crate) key: A::Key,
    pub(crate) own: Endpoint,
    pub(crate) config: Config,
    pub(crate) now: u32,
    /// Whether the packet's source is side A of `key`.
    pub(crate) source_is_a: bool,
    /// Whether the packet belongs to a connection that has, or will have, an entry under `key`.
    pub(crate) tracked: bool,
    /// Whether this is a later fragment whose ports are not known.
    pub(crate) ports_unknown: bool,
    /// Whether the pod sends (`from_container`), as opposed to receives.
    pub(crate) egress: bool,
    /// The mark of a proxy's leg, if the packet is on one; else zero.
    pub(crate) mark: Mark,
}

/// What the clock said at this tick.
#[repr(C)]
pub(crate) struct Clock {
    jiffies: u64,
    now: u32,
    reserved: u32,
}

/// Room for one scene. Programs on one CPU do not interrupt each other: traffic control runs with softirqs off.
#[repr(C)]
pub(crate) struct Scratch {
    clock: Clock,
    ipv4: Scene<Ipv4>,
    ipv6: Scene<Ipv6>,
}

impl Scratch {
    #[inline(always)]
    pub(crate) fn ipv4(&mut self) -> &mut Scene<Ipv4> {
        &mut self.ipv4
    }

    #[inline(always)]
    pub(crate) fn ipv6(&mut self) -> &mut Scene<Ipv6> {
        &mut self.ipv6
    }
}

impl<A: Family> Scene<A> {
    /// The beginning: nothing is known of the packet yet.
    #[inline(always)]
    pub(crate) fn begin(own: Option<*const EndpointInfo>, egress: bool) -> Option<&'static mut Self> {
        // SAFETY: this CPU's own value, and this is the one place where it is taken.
        let scratch = unsafe { &mut *SCRATCH.get_ptr_mut(0)? };
        let now = now(&mut scratch.clock);
        let scene = A::scene(scratch);
        scene.packet = Packet::default();
        scene.own = own.map_or(Endpoint::NONE, Endpoint::read);
        scene.config = config();
        scene.now = now;
        scene.source_is_a = false;
        scene.tracked = false;
        scene.ports_unknown = false;
        scene.egress = egress;
        scene.mark = Mark(0);
        Some(scene)
    }
}

/// The length of the frame.
#[inline(always)]
pub(crate) fn length(skb: *mut __sk_buff) -> u32 {
    // SAFETY: a field of the context.
    unsafe { (*skb).len }
}
