//! What the datapath reports through the ring buffer.

use core::mem::size_of;

/// Kind of an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum EventKind {
    /// A packet was dropped; `reason` says why.
    Drop = 1,
    /// Policy judged a packet (new connection, or a denial).
    PolicyVerdict = 2,
}

/// What policy said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum EventAction {
    /// It passes.
    Allow = 0,
    /// It is dropped.
    Deny = 1,
    /// It would be dropped, but audit mode lets it pass.
    Audit = 2,
    /// It goes to the proxy.
    Redirect = 3,
}

/// One event. Unused fields are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Event {
    /// Coarse monotonic clock, nanoseconds.
    pub time_ns: u64,
    /// An [`EventKind`].
    pub kind: u8,
    /// The drop reason's number: for drops, denials and audited packets.
    pub reason: u8,
    /// An [`EventAction`].
    pub action: u8,
    /// 0 ingress, 1 egress, as seen from `endpoint`.
    pub direction: u8,
    /// IANA number.
    pub protocol: u8,
    /// TCP flags, or the ICMP type.
    pub tcp_flags_or_icmp_type: u8,
    /// 4 or 6; 0 when the packet is not IP.
    pub family: u8,
    /// 1 if the packet is a reply.
    pub is_reply: u8,
    /// The endpoint whose policy (or whose hook) decided.
    pub endpoint: u16,
    /// The other local endpoint, or 0.
    pub peer_endpoint: u16,
    /// Identity of the packet's sender.
    pub source_identity: u32,
    /// Identity of the packet's receiver.
    pub destination_identity: u32,
    /// The rule that decided, or 0.
    pub rule: u32,
    /// Revision of the endpoint's policy.
    pub revision: u32,
    /// Length of the packet in bytes.
    pub length: u32,
    /// The interface of the hook.
    pub ifindex: u32,
    /// Events not reported on this CPU since the last one, for the rate limit or a full buffer.
    pub lost: u32,
    /// Source address; IPv4 in the first four bytes.
    pub source_be: [u8; 16],
    /// Destination address; IPv4 in the first four bytes.
    pub destination_be: [u8; 16],
    /// Source port.
    pub source_port_be: [u8; 2],
    /// Destination port.
    pub destination_port_be: [u8; 2],
    /// The listener the flow goes to, with [`EventAction::Redirect`].
    pub proxy_port_be: [u8; 2],
    /// Unused, zero.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<Event>() == 88);

/// The state of one rate limit on one CPU: a bucket that holds a second's worth of events.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct EventLimit {
    /// When the bucket was last filled, coarse monotonic nanoseconds.
    pub filled_ns: u64,
    /// Events that may still be reported.
    pub tokens: u32,
    /// Events lost since the last one that was reported.
    pub lost: u32,
    /// Events lost since the map was made.
    pub lost_total: u64,
    /// Events reported since the map was made.
    pub sent_total: u64,
}

const _: () = assert!(size_of::<EventLimit>() == 32);
