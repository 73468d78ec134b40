//! Reports and counters: every drop is counted, and told as often as the rate limit lets it.

use core::ptr::addr_of_mut;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use sluice_ebpf_common::{CounterKey, Counters, EventAction, EventKind, EventLimit};
use sluice_types::{Direction, DropReason};

use crate::family::{Aligned, Family};
use crate::maps::{COUNTER, EVENTS, FORWARD, LIMIT};
use crate::scene::{DROP, Scene, length};

/// What an event says beyond the packet itself.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Report {
    pub(crate) kind: u8,
    pub(crate) reason: u8,
    pub(crate) action: u8,
    pub(crate) direction: u8,
    pub(crate) endpoint: u16,
    pub(crate) peer_endpoint: u16,
    pub(crate) source_identity: u32,
    pub(crate) destination_identity: u32,
    pub(crate) rule: u32,
    pub(crate) revision: u32,
    /// The listener's port, for what is redirected.
    pub(crate) proxy_port: u16,
    pub(crate) is_reply: u8,
    pub(crate) reserved: u8,
}

/// Drops a packet at the endpoint whose hook it is at, for a reason that is not policy.
#[inline(always)]
pub(crate) fn drop<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, reason: DropReason, peer: u32) -> i32 {
    drop_for(skb, scene, reason.number() as u32, peer)
}

/// The same for a reason's number.
#[inline(never)]
pub(crate) fn drop_for<A: Family>(
    skb: *mut __sk_buff,
    scene: &Scene<A>,
    reason: u32,
    peer_identity: u32,
) -> i32 {
    let (source_identity, destination_identity) =
        if scene.egress { (scene.own.identity, peer_identity) } else { (peer_identity, scene.own.identity) };
    let report = Report {
        kind: EventKind::Drop as u8,
        reason: reason as u8,
        action: EventAction::Deny as u8,
        direction: if scene.egress { Direction::Egress as u8 } else { Direction::Ingress as u8 },
        endpoint: scene.own.id,
        peer_endpoint: 0,
        source_identity,
        destination_identity,
        rule: 0,
        revision: scene.own.revision,
        proxy_port: 0,
        is_reply: 0,
        reserved: 0,
    };
    refuse(skb, scene, &report)
}

/// Counts and reports a drop.
#[inline(always)]
pub(crate) fn refuse<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, report: &Report) -> i32 {
    count(skb, report.endpoint, report.reason, report.direction);
    A::tell(skb, scene, report);
    DROP
}

/// Counts a packet that passes.
#[inline(always)]
pub(crate) fn count_forwarded(skb: *mut __sk_buff, endpoint: u16, direction: Direction) {
    if let Some(counters) = FORWARD.get_ptr_mut(endpoint as u32 * 2 + direction as u32) {
        // SAFETY: as below.
        unsafe {
            (*counters).packets += 1;
            (*counters).bytes += length(skb) as u64;
        }
    }
}

/// Counts a packet that does not.
#[inline(always)]
fn count(skb: *mut __sk_buff, endpoint: u16, reason: u8, direction: u8) {
    let key = CounterKey { endpoint, reason, direction };
    let bytes = length(skb) as u64;
    if let Some(counters) = COUNTER.get_ptr_mut(&key) {
        // SAFETY: this CPU's own value; programs on one CPU do not interrupt each other here.
        unsafe {
            (*counters).packets += 1;
            (*counters).bytes += bytes;
        }
    } else {
        // A full map loses the count, never the verdict.
        let _ = COUNTER.insert(&key, &Counters { packets: 1, bytes }, 0);
    }
}

/// Writes an event if the limit of its reason allows.
#[inline(always)]
pub(crate) fn write<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, report: &Report) {
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    let Some(limit) = LIMIT.get_ptr_mut(report.reason as u32) else { return };
    // SAFETY: this CPU's own value.
    let limit = unsafe { &mut *limit };
    if !take_token(limit, now_ns, scene.config.events_per_second) {
        lose(limit);
        return;
    }
    let Some(mut slot) = EVENTS.reserve(0) else {
        lose(limit);
        return;
    };
    let packet = &scene.packet;
    // Field by field: a whole event does not fit on the stack beside everything else.
    let event = slot.as_mut_ptr();
    // SAFETY: reserved memory of an event's size; every field is written. `ifindex` is a field of the context.
    unsafe {
        addr_of_mut!((*event).time_ns).write(now_ns);
        addr_of_mut!((*event).kind).write(report.kind);
        addr_of_mut!((*event).reason).write(report.reason);
        addr_of_mut!((*event).action).write(report.action);
        addr_of_mut!((*event).direction).write(report.direction);
        addr_of_mut!((*event).protocol).write(packet.protocol);
        addr_of_mut!((*event).tcp_flags_or_icmp_type).write(packet.tcp_flags_or_icmp_type);
        // A frame whose IP header could not be read has no protocol, addresses or end.
        addr_of_mut!((*event).family).write(if packet.end == 0 { 0 } else { A::FAMILY });
        addr_of_mut!((*event).is_reply).write(report.is_reply);
        addr_of_mut!((*event).endpoint).write(report.endpoint);
        addr_of_mut!((*event).peer_endpoint).write(report.peer_endpoint);
        addr_of_mut!((*event).source_identity).write(report.source_identity);
        addr_of_mut!((*event).destination_identity).write(report.destination_identity);
        addr_of_mut!((*event).rule).write(report.rule);
        addr_of_mut!((*event).revision).write(report.revision);
        addr_of_mut!((*event).length).write(length(skb));
        addr_of_mut!((*event).ifindex).write((*skb).ifindex);
        addr_of_mut!((*event).lost).write(limit.lost);
        addr_of_mut!((*event).source_be).cast::<Aligned<[u8; 16]>>().write(Aligned(packet.source.to_bytes()));
        addr_of_mut!((*event).destination_be)
            .cast::<Aligned<[u8; 16]>>()
            .write(Aligned(packet.destination.to_bytes()));
        addr_of_mut!((*event).source_port_be).write(packet.source_port.to_be_bytes());
        addr_of_mut!((*event).destination_port_be).write(packet.destination_port.to_be_bytes());
        addr_of_mut!((*event).proxy_port_be).write(report.proxy_port.to_be_bytes());
        addr_of_mut!((*event).reserved).write([0; 2]);
    }
    slot.submit(0);
    limit.lost = 0;
    limit.sent_total += 1;
}

#[inline(always)]
fn lose(limit: &mut EventLimit) {
    limit.lost = limit.lost.wrapping_add(1);
    limit.lost_total += 1;
}

#[inline(always)]
fn take_token(limit: &mut EventLimit, now_ns: u64, per_second: u32) -> bool {
    const SECOND_NS: u64 = 1_000_000_000;
    let elapsed = now_ns - limit.filled_ns;
    let elapsed = if elapsed > SECOND_NS { SECOND_NS } else { elapsed };
    let earned = elapsed * per_second as u64 / SECOND_NS;
    if earned != 0 {
        let tokens = limit.tokens as u64 + earned;
        limit.tokens = if tokens > per_second as u64 { per_second } else { tokens as u32 };
        limit.filled_ns = now_ns;
    }
    if limit.tokens == 0 {
        return false;
    }
    limit.tokens -= 1;
    true
}
