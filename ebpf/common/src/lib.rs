//! Layouts that the kernel programs and user space agree on, and the packet parser they share.
//!
//! Everything here is `#[repr(C)]` without holes (asserted at compile time), because padding would reach the
//! kernel unset. Numbers in network byte order are byte arrays named `*_be`, so nobody can forget to swap.
//! Never does I/O; knows what a field is, never what a policy means.
#![no_std]

mod config;
mod conntrack;
mod endpoint;
mod event;
mod ipcache;
mod mark;
pub mod packet;
mod policy;

pub use config::{Config, ConfigFlags};
pub use conntrack::{
    ConntrackEntry, ConntrackFlags, ConntrackKey4, ConntrackKey6, FragmentKey, FragmentPorts, IcmpSide,
};
pub use endpoint::{CounterKey, Counters, EndpointFlags, EndpointInfo};
pub use event::{Event, EventAction, EventKind, EventLimit};
pub use ipcache::{IpcacheEntry, IpcacheFlags};
pub use mark::{Mark, redirect_route};
pub use policy::{EntryFlags, PolicyEntry, PolicyHeader, PolicyKey, TierMask};

/// The version of these layouts. It is part of the pin directory's name, so that programs of another layout
/// never meet these maps.
pub const LAYOUT_VERSION: u32 = 1;

/// Where programs, maps and links are pinned, below a bpffs mount: `<bpffs>/sluice/v1`.
pub const PIN_SUBDIR: &str = "sluice/v1";

/// How many slots [`map_name::IFSLOT`] has, a power of two.
pub const INTERFACE_SLOTS: u32 = 16_384;

/// Names of the pinned maps (kernel names have 15 bytes).
pub mod map_name {
    /// Interface index of a pod's host-side veth → endpoint id. Hash, `u32` → `u32`.
    pub const IFINDEX: &str = "sluice_ifindex";
    /// The lowest bits of an interface index → endpoint id: the short way to what [`IFINDEX`] says, where no other
    /// interface has taken the slot. Array of [`crate::INTERFACE_SLOTS`], `u32`.
    pub const IFSLOT: &str = "sluice_ifslot";
    /// Endpoint id → [`crate::EndpointInfo`]. Array.
    pub const ENDPOINT: &str = "sluice_endpoint";
    /// Exact IPv4 address → [`crate::IpcacheEntry`]. Hash, `[u8; 4]`.
    pub const IPCACHE4: &str = "sluice_ipc4";
    /// Exact IPv6 address → [`crate::IpcacheEntry`]. Hash, `[u8; 16]`.
    pub const IPCACHE6: &str = "sluice_ipc6";
    /// IPv4 prefix → [`crate::IpcacheEntry`]. LPM trie.
    pub const CIDR4: &str = "sluice_cidr4";
    /// IPv6 prefix → [`crate::IpcacheEntry`]. LPM trie.
    pub const CIDR6: &str = "sluice_cidr6";
    /// Endpoint id → its policy map. Array of maps; inner hash: [`crate::PolicyKey`] → [`crate::PolicyEntry`].
    pub const POLICY: &str = "sluice_policy";
    /// IPv4 connections. LRU hash, [`crate::ConntrackKey4`] → [`crate::ConntrackEntry`].
    pub const CONNTRACK4: &str = "sluice_ct4";
    /// IPv6 connections. LRU hash, [`crate::ConntrackKey6`] → [`crate::ConntrackEntry`].
    pub const CONNTRACK6: &str = "sluice_ct6";
    /// First fragments seen and allowed. LRU hash, [`crate::FragmentKey`] → [`crate::FragmentPorts`].
    pub const FRAGMENT: &str = "sluice_frag";
    /// Forwarded packets. Per-CPU array of [`crate::Counters`], by endpoint id × 2 + direction.
    pub const FORWARD: &str = "sluice_forward";
    /// Dropped packets. Per-CPU hash, [`crate::CounterKey`] → [`crate::Counters`].
    pub const COUNTER: &str = "sluice_counter";
    /// How many live connections an endpoint has opened. Array by endpoint id, `u64`; the programs count up, the
    /// agent's recount overwrites.
    pub const QUOTA: &str = "sluice_quota";
    /// Event rate limits and loss counters. Per-CPU array of [`crate::EventLimit`] by drop reason, 0 for verdicts.
    pub const LIMIT: &str = "sluice_limit";
    /// Events. Ring buffer of [`crate::Event`].
    pub const EVENTS: &str = "sluice_events";
    /// The datapath's run-time settings. Array of one [`crate::Config`].
    pub const CONFIG: &str = "sluice_config";
}

/// Names of the pinned programs, which are also their function names.
pub mod program_name {
    /// TCX ingress of a pod's host-side veth: what the pod sends.
    pub const FROM_CONTAINER: &str = "from_container";
    /// TCX egress of a pod's host-side veth: what is delivered to the pod by the stack.
    pub const TO_CONTAINER: &str = "to_container";
    /// TCX ingress of the node's own devices: what comes from outside.
    pub const FROM_NETDEV: &str = "from_netdev";
}

/// Declares a set of bits as a transparent integer with named constants.
#[macro_export]
macro_rules! bit_set {
    ($(#[$meta:meta])* $name:ident: $int:ty { $($(#[$doc:meta])* $bit:ident = $value:expr;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
        #[repr(transparent)]
        pub struct $name(pub $int);

        impl $name {
            $($(#[$doc])* pub const $bit: Self = Self($value);)*

            /// Whether all bits of `other` are set.
            #[inline(always)]
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// The bits of both.
            #[inline(always)]
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }
    };
}
