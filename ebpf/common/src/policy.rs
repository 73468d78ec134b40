//! The policy map: one inner hash per endpoint, looked up tier by tier.
//!
//! A packet's question is (peer identity, protocol, destination port or ICMP type, direction). The tiers are
//! {that identity, any identity} × {protocol and port prefix of 16, …, 1 bits, protocol with any port, any
//! protocol}. Over all tiers that match, the entry with the highest precedence decides. The header says which
//! tiers have entries at all, so that a packet pays only for those.
//!
//! There may be a second set of entries with a header of its own, the admin plane, which is asked first: what it
//! neither decides nor mentions, the normal entries decide. A third set, the staged plane, is asked about what the
//! normal entries let pass: what it denies passes and is reported.

use core::mem::size_of;

/// Key of the inner hash.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct PolicyKey {
    /// The peer's identity, or 0 for any.
    pub identity: u32,
    /// Destination port masked to the prefix; an ICMP type stands in the low byte with a 16-bit prefix.
    pub port_be: [u8; 2],
    /// IANA number, or 0 for any protocol (then the prefix is 0 too).
    pub protocol: u8,
    /// Bit 7: direction (1 egress). Bit 6: admin plane. Bit 5: staged plane. Bits 0 to 4: length of the port prefix, 0 to 16.
    pub direction_and_prefix: u8,
}

const _: () = assert!(size_of::<PolicyKey>() == 8);

impl PolicyKey {
    /// The bit of `direction_and_prefix` that says egress.
    pub const EGRESS: u8 = 0x80;

    /// The bit of `direction_and_prefix` that says admin plane.
    pub const ADMIN: u8 = 0x40;

    /// The bit of `direction_and_prefix` that says staged plane.
    pub const STAGED: u8 = 0x20;

    /// The key under which the [`PolicyHeader`] of an inner map is stored. No identity has this number.
    pub const HEADER: Self =
        Self { identity: u32::MAX, port_be: [0; 2], protocol: 0, direction_and_prefix: 0 };

    /// The key under which the admin plane's [`PolicyHeader`] is stored, if there is an admin plane.
    pub const ADMIN_HEADER: Self = Self::HEADER.in_admin_plane();

    /// The key under which the staged plane's [`PolicyHeader`] is stored, if a direction has a staged plane.
    pub const STAGED_HEADER: Self = Self::HEADER.in_staged_plane();

    /// The same key in the staged plane.
    #[inline(always)]
    #[must_use]
    pub const fn in_staged_plane(self) -> Self {
        Self { direction_and_prefix: self.direction_and_prefix | Self::STAGED, ..self }
    }

    /// The same key in the admin plane.
    #[inline(always)]
    #[must_use]
    pub const fn in_admin_plane(self) -> Self {
        Self { direction_and_prefix: self.direction_and_prefix | Self::ADMIN, ..self }
    }

    /// The key for a tier. `prefix` is 0 to 16 and the port is masked to it here.
    #[inline(always)]
    #[must_use]
    pub const fn new(identity: u32, protocol: u8, port: u16, prefix: u8, egress: bool) -> Self {
        let mask = if prefix == 0 { 0 } else { u16::MAX << (16 - prefix as u32) };
        Self {
            identity,
            port_be: (port & mask).to_be_bytes(),
            protocol,
            direction_and_prefix: prefix | if egress { Self::EGRESS } else { 0 },
        }
    }
}

crate::bit_set! {
    /// What an entry says.
    EntryFlags: u8 {
        /// Drop. Without this bit the entry allows.
        DENY = 1;
        /// Hand the flow to the proxy on `proxy_port_be`.
        REDIRECT = 4;
        /// Only in the admin plane: the normal entries decide.
        PASS = 8;
    }
}

/// Value of the inner hash.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PolicyEntry {
    /// Over all entries that match a packet, the highest precedence decides. The policy engine numbers them so
    /// that the order is total: tier, priority, then deny over redirect over allow.
    pub precedence: u32,
    /// The rule that made the entry, for reports. 0: none (for example a direction without enforcement).
    pub rule: u32,
    /// The proxy's listener, with [`EntryFlags::REDIRECT`].
    pub proxy_port_be: [u8; 2],
    /// What the entry says.
    pub flags: EntryFlags,
    /// Unused, zero.
    pub reserved: [u8; 5],
}

const _: () = assert!(size_of::<PolicyEntry>() == 16);

/// Which tiers of an inner map have entries, for one direction and kind of identity.
///
/// Bit `n` (0 to 16): entries with a port prefix of `n` bits and a protocol. Bit 17: an entry for any protocol.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TierMask(pub u32);

impl TierMask {
    /// The bit for "any protocol".
    pub const ANY_PROTOCOL: u32 = 1 << 17;
    /// Only in `ingress_any` and `egress_any`: what this direction denies is reported and passes (audit mode).
    pub const AUDIT: u32 = 1 << 31;
    /// Only in `ingress_any` and `egress_any` of [`PolicyKey::HEADER`]: this direction has an admin plane.
    pub const ADMIN: u32 = 1 << 30;
    /// Only in `ingress_any` and `egress_any` of [`PolicyKey::HEADER`]: this direction has a staged plane.
    pub const STAGED: u32 = 1 << 29;
}

/// Stored under [`PolicyKey::HEADER`], [`PolicyKey::ADMIN_HEADER`] and [`PolicyKey::STAGED_HEADER`] in place of a
/// [`PolicyEntry`] (same size), so that it changes in the same instant as the entries when the inner map is swapped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PolicyHeader {
    /// Ingress, entries that name an identity.
    pub ingress_identity: TierMask,
    /// Ingress, entries for any identity; also carries the audit, the admin and the staged bit.
    pub ingress_any: TierMask,
    /// Egress, entries that name an identity.
    pub egress_identity: TierMask,
    /// Egress, entries for any identity; also carries the audit, the admin and the staged bit.
    pub egress_any: TierMask,
}

const _: () = assert!(size_of::<PolicyHeader>() == size_of::<PolicyEntry>());
