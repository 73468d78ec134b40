//! Connections and fragments.
//!
//! One entry per connection under a canonical tuple: the smaller (address, port) is side A. The entry holds the
//! verdicts of both ends and what they were decided under, so that a packet of a known connection needs neither
//! ipcache nor policy.

use core::mem::size_of;

/// Distinguishes ICMP echo by who asked, in [`ConntrackKey4::icmp_side`]: an echo request never matches the
/// entry of the request it would be the answer to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum IcmpSide {
    /// Not ICMP.
    None = 0,
    /// Side A sent the echo request.
    RequestFromA = 1,
    /// Side B sent the echo request.
    RequestFromB = 2,
}

/// Canonical tuple, IPv4. For ICMP echo both ports are the identifier.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct ConntrackKey4 {
    /// Address of side A.
    pub a_be: [u8; 4],
    /// Address of side B.
    pub b_be: [u8; 4],
    /// Port of side A.
    pub a_port_be: [u8; 2],
    /// Port of side B.
    pub b_port_be: [u8; 2],
    /// IANA number.
    pub protocol: u8,
    /// An [`IcmpSide`].
    pub icmp_side: u8,
    /// 1 for a proxy's connection to the server, which may have the addresses and ports of the client's own.
    pub leg: u8,
    /// Unused, zero.
    pub reserved: u8,
}

const _: () = assert!(size_of::<ConntrackKey4>() == 16);

/// Canonical tuple, IPv6. For ICMP echo both ports are the identifier.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct ConntrackKey6 {
    /// Address of side A.
    pub a_be: [u8; 16],
    /// Address of side B.
    pub b_be: [u8; 16],
    /// Port of side A.
    pub a_port_be: [u8; 2],
    /// Port of side B.
    pub b_port_be: [u8; 2],
    /// IANA number.
    pub protocol: u8,
    /// An [`IcmpSide`].
    pub icmp_side: u8,
    /// 1 for a proxy's connection to the server, which may have the addresses and ports of the client's own.
    pub leg: u8,
    /// Unused, zero.
    pub reserved: u8,
}

const _: () = assert!(size_of::<ConntrackKey6>() == 40);

crate::bit_set! {
    /// What is known of a connection.
    ConntrackFlags: u16 {
        /// Side A opened it.
        OPENED_BY_A = 1;
        /// The opener's egress was judged and allowed on this node; replies may be delivered to it.
        EGRESS_JUDGED = 2;
        /// The target's ingress was judged and allowed on this node; the target may answer.
        INGRESS_JUDGED = 4;
        /// A reply was seen.
        REPLIED = 8;
        /// TCP: side A sent FIN.
        FIN_FROM_A = 16;
        /// TCP: side B sent FIN.
        FIN_FROM_B = 32;
        /// TCP: RST seen.
        RESET = 64;
        /// The cached verdict passed only because of audit mode.
        AUDITED = 128;
        /// The end that is no endpoint is an address of this node.
        NODE_LOCAL = 256;
        /// The opener's egress policy hands the flow to the proxy; the target sees nothing of it. What the proxy
        /// sends on is a connection of its own.
        EGRESS_REDIRECT = 512;
        /// The target's ingress policy hands the flow to the proxy.
        INGRESS_REDIRECT = 1024;
        /// A proxy's connection to the server: answers are the proxy's.
        LEG = 2048;
    }
}

impl ConntrackFlags {
    /// The flow is redirected to a proxy, by either side.
    pub const REDIRECT: u16 = Self::EGRESS_REDIRECT.0 | Self::INGRESS_REDIRECT.0;

    /// Whether a proxy takes part: as target of the flow, or as the opener of this connection.
    #[inline(always)]
    #[must_use]
    pub const fn is_proxied(self) -> bool {
        self.0 & (Self::REDIRECT | Self::LEG.0) != 0
    }
}

/// One connection. Times are units of 2^30 ns (about 1.07 s) of the coarse monotonic clock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConntrackEntry {
    /// When the entry is no longer valid.
    pub expires: u32,
    /// State.
    pub flags: ConntrackFlags,
    /// The listener the flow is redirected to, or 0.
    pub proxy_port_be: [u8; 2],
    /// Identity of the opener.
    pub source_identity: u32,
    /// Identity of the target.
    pub destination_identity: u32,
    /// Revision of the opener's policy that its egress was judged by, 0 if not judged here.
    pub egress_revision: u32,
    /// Revision of the target's policy that its ingress was judged by, 0 if not judged here.
    pub ingress_revision: u32,
    /// The ipcache epoch both were judged under.
    pub ipcache_epoch: u32,
    /// Generation of the opener's endpoint, 0 if it is not on this node.
    pub source_generation: u32,
    /// Generation of the target's endpoint, 0 if it is not on this node.
    pub destination_generation: u32,
    /// The opener's endpoint id, or 0.
    pub source_endpoint: u16,
    /// The target's endpoint id, or 0.
    pub destination_endpoint: u16,
    /// The rule that allowed egress, or 0.
    pub egress_rule: u32,
    /// The rule that allowed ingress, or 0.
    pub ingress_rule: u32,
    /// Packets from the opener and from the target. Not exact under concurrency.
    pub packets: [u32; 2],
    /// Bytes from the opener and from the target. Not exact under concurrency.
    pub bytes: [u64; 2],
}

const _: () = assert!(size_of::<ConntrackEntry>() == 72);

/// One fragmented datagram, either family (IPv4 addresses stand in the first four bytes).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct FragmentKey {
    /// Source address.
    pub source_be: [u8; 16],
    /// Destination address.
    pub destination_be: [u8; 16],
    /// Identification field (IPv4: 16 bits).
    pub id: u32,
    /// IANA number of the payload.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// Unused, zero.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<FragmentKey>() == 40);

/// What the first fragment's transport header said, remembered once it was allowed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FragmentPorts {
    /// Source port; for ICMP the identifier of an echo, else zero.
    pub source_port_be: [u8; 2],
    /// Destination port; for ICMP code and type.
    pub destination_port_be: [u8; 2],
}

const _: () = assert!(size_of::<FragmentPorts>() == 4);
