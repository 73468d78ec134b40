//! Security identities: the number the datapath compares instead of labels.
//!
//! Allocation is the agent's work; this module only knows what a number means. Never does I/O.
//! Numbers and ranges are upstream's (`pkg/identity/numericidentity.go`).

use core::fmt;

/// The number that stands for one set of security labels.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
#[repr(transparent)]
pub struct Identity(u32);

/// Where a number comes from, which says who may allocate it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IdentityScope {
    /// 0: nobody's.
    Unknown,
    /// 1 to 255: fixed meaning.
    Reserved,
    /// 256 to 65,535: label sets, the same number on every node.
    Cluster,
    /// Bit 24: CIDR and DNS-name identities, this node only.
    Local,
    /// Bit 25: identities of other nodes, this node only.
    RemoteNode,
    /// Anything else.
    Invalid,
}

macro_rules! reserved {
    ($($name:ident = $number:literal, $label:literal, $doc:literal;)*) => {
        impl Identity {
            $(#[doc = $doc] pub const $name: Self = Self($number);)*
        }

        /// Reserved numbers with the value of their `reserved:` label.
        const RESERVED: &[(Identity, &str)] = &[$((Identity::$name, $label),)*];
    };
}

reserved! {
    HOST = 1, "host", "The node itself and its host-network pods.";
    WORLD = 2, "world", "Everything outside the cluster, either family.";
    UNMANAGED = 3, "unmanaged", "A pod that is not ours to enforce.";
    HEALTH = 4, "health", "Health-check endpoints.";
    INIT = 5, "init", "A pod whose labels are not known yet.";
    REMOTE_NODE = 6, "remote-node", "Any other node.";
    KUBE_APISERVER = 7, "kube-apiserver", "The API server's addresses.";
    INGRESS = 8, "ingress", "The ingress proxy's source address.";
    WORLD_IPV4 = 9, "world-ipv4", "Outside the cluster, IPv4.";
    WORLD_IPV6 = 10, "world-ipv6", "Outside the cluster, IPv6.";
}

impl Identity {
    /// Nobody: also "any identity" in a policy map key.
    pub const UNKNOWN: Self = Self(0);
    /// The lowest identity of the cluster scope.
    pub const CLUSTER_MIN: Self = Self(256);
    /// The highest identity of the cluster scope.
    pub const CLUSTER_MAX: Self = Self(65_535);
    /// The lowest node-local identity (CIDR and DNS names).
    pub const LOCAL_MIN: Self = Self(0x0100_0001);
    /// The highest node-local identity.
    pub const LOCAL_MAX: Self = Self(0x01FF_FFFF);

    /// The identity with this number. Every number is accepted; [`Identity::scope`] says what it is.
    #[must_use]
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The plain number.
    #[must_use]
    pub const fn as_u32(self) -> u32 {
        self.0
    }

    /// Which range the number lies in.
    #[must_use]
    pub const fn scope(self) -> IdentityScope {
        match self.0 {
            0 => IdentityScope::Unknown,
            1..=255 => IdentityScope::Reserved,
            256..=65_535 => IdentityScope::Cluster,
            0x0100_0001..=0x01FF_FFFF => IdentityScope::Local,
            0x0200_0001..=0x02FF_FFFF => IdentityScope::RemoteNode,
            _ => IdentityScope::Invalid,
        }
    }

    /// The value of its `reserved:` label, for the identities with a fixed meaning.
    #[must_use]
    pub fn reserved_name(self) -> Option<&'static str> {
        RESERVED.iter().find(|(identity, _)| *identity == self).map(|(_, name)| *name)
    }

    /// The reserved identities this build knows, in numeric order.
    pub fn reserved() -> impl Iterator<Item = (Self, &'static str)> {
        RESERVED.iter().copied()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes() {
        let cases = [
            (0, IdentityScope::Unknown),
            (1, IdentityScope::Reserved),
            (255, IdentityScope::Reserved),
            (256, IdentityScope::Cluster),
            (65_535, IdentityScope::Cluster),
            (65_536, IdentityScope::Invalid),
            (0x0100_0000, IdentityScope::Invalid),
            (0x0100_0001, IdentityScope::Local),
            (0x0200_0001, IdentityScope::RemoteNode),
            (u32::MAX, IdentityScope::Invalid),
        ];
        for (raw, want) in cases {
            assert_eq!(Identity::new(raw).scope(), want, "{raw:#x}");
        }
    }
}
