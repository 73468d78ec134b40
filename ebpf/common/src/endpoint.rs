//! Endpoints as the datapath knows them, and their counters.

use core::mem::size_of;

crate::bit_set! {
    /// State and mode of an endpoint.
    EndpointFlags: u16 {
        /// Policy is in the kernel; without this bit everything from and to the endpoint is dropped.
        READY = 1;
        /// Another plugin forwards for this endpoint (chained mode): judge, but leave delivery to the stack.
        CHAINED = 2;
    }
}

/// One endpoint, by id in `sluice_endpoint`. All zero means "no such endpoint".
///
/// An update replaces the value word by word (8 bytes), so what must change together shares a word: `identity`
/// with `revision`, `flags` with `ifindex`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct EndpointInfo {
    /// The endpoint's own id, as in the map's index.
    pub id: u16,
    /// State and mode.
    pub flags: EndpointFlags,
    /// The host-side veth.
    pub ifindex: u32,
    /// The security identity of the workload.
    pub identity: u32,
    /// Number of the policy revision in force: cached verdicts of another revision are judged again.
    /// Unique over all endpoints and restarts, never 0.
    pub revision: u32,
    /// Unique for each life of an endpoint, never 0. A connection entry of another life of the same address is
    /// as good as absent.
    pub generation: u32,
    /// Unused, zero.
    pub reserved: u32,
    /// The pod's MAC address.
    pub mac: [u8; 6],
    /// Unused, zero.
    pub reserved_mac: [u8; 2],
    /// The MAC address of the host-side veth.
    pub host_mac: [u8; 6],
    /// Unused, zero.
    pub reserved_host_mac: [u8; 2],
    /// The pod's IPv4 address, zero if it has none.
    pub ipv4_be: [u8; 4],
    /// Unused, zero.
    pub reserved_ipv4: [u8; 4],
    /// The pod's IPv6 address, zero if it has none.
    pub ipv6_be: [u8; 16],
}

const _: () = assert!(size_of::<EndpointInfo>() == 64);

/// What is counted: packets of one endpoint, in one direction, with one outcome. In the kernel forwarded packets
/// have an array of their own, because they are counted most.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct CounterKey {
    /// The endpoint; 0 for packets that belong to none.
    pub endpoint: u16,
    /// The drop reason's number, or 0 for forwarded.
    pub reason: u8,
    /// 0 ingress, 1 egress, as seen from the endpoint.
    pub direction: u8,
}

const _: () = assert!(size_of::<CounterKey>() == 4);

/// How many.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Packets (a GSO packet counts once).
    pub packets: u64,
    /// Bytes including the Ethernet header.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Counters>() == 16);
