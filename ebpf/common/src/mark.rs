//! Packet marks: how the hooks, the routing rules and the proxies tell each other about redirected flows.
//!
//! A mark counts only where a pod cannot have set it: packets lose theirs when they leave a network namespace, so
//! on this node it was set by our programs or by a process that may administer the network. Bits 8 to 11 say what
//! is meant and are the only ones that rules look at. The bits that Kubernetes uses (`0x4000`, `0x8000`) stay free.

use sluice_types::{Direction, EndpointId};

/// A packet's or socket's mark, as far as it is ours.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(transparent)]
pub struct Mark(pub u32);

impl Mark {
    /// The bits that say what is meant.
    pub const KIND: u32 = 0x0f00;

    /// On a packet: it is for a socket of this node, whatever its destination. The routing rule
    /// `fwmark 0x200/0xf00` leads to the table with a local default route.
    pub const TO_PROXY: Self = Self(0x0200);

    /// On a packet between the egress and the ingress hook of one veth: it goes to the proxy. The upper 16 bits hold
    /// the port of the listener it opens a connection with; 0 if it belongs to one.
    pub const RETURN: Self = Self(0x0300);

    /// On the listeners of a proxy, from which accepted connections inherit it. A listener without it takes no flow,
    /// so that a port that somebody else took first redirects nothing to them.
    pub const LISTENER: Self = Self(0x0400);

    /// On a proxy's connection to the server, with an endpoint in bits 16 to 27: the flow was judged for that
    /// endpoint's egress, and the connection speaks with its identity.
    pub const EGRESS_LEG: Self = Self(0x0a00);

    /// As [`Self::EGRESS_LEG`], for what was judged for that endpoint's ingress: it may be delivered there.
    pub const INGRESS_LEG: Self = Self(0x0b00);

    const ENDPOINT_SHIFT: u32 = 16;
    const ENDPOINT: u32 = 0x0fff;

    /// The mark of a proxy's connection to the server, for a flow that was judged for this endpoint.
    #[must_use]
    pub const fn leg(direction: Direction, endpoint: EndpointId) -> Self {
        let kind = match direction {
            Direction::Egress => Self::EGRESS_LEG,
            Direction::Ingress => Self::INGRESS_LEG,
        };
        Self(kind.0 | (endpoint.as_u16() as u32) << Self::ENDPOINT_SHIFT)
    }

    /// The mark with which a packet returns to its veth, to be taken by the listener on `port`; 0 for none.
    #[inline(always)]
    #[must_use]
    pub const fn returning(port: u16) -> Self {
        Self(Self::RETURN.0 | (port as u32) << 16)
    }

    /// The port of [`Self::returning`].
    #[inline(always)]
    #[must_use]
    pub const fn port(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The endpoint of [`Self::leg`].
    #[inline(always)]
    #[must_use]
    pub const fn endpoint(self) -> u32 {
        self.0 >> Self::ENDPOINT_SHIFT & Self::ENDPOINT
    }

    /// Whether this is a mark of the same kind.
    #[inline(always)]
    #[must_use]
    pub const fn is(self, kind: Self) -> bool {
        self.0 & Self::KIND == kind.0
    }

    /// Whether it is on a proxy's connection to the server.
    #[inline(always)]
    #[must_use]
    pub const fn is_leg(self) -> bool {
        self.is(Self::EGRESS_LEG) || self.is(Self::INGRESS_LEG)
    }
}

/// The routing that brings marked packets to the proxy's sockets: for each family one rule, before the main table,
/// and one table with nothing but a local default route by `lo`.
pub mod redirect_route {
    /// The rule's preference.
    pub const RULE_PRIORITY: u32 = 90;
    /// The table's number.
    pub const TABLE: u32 = 7_740;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_distinct_and_keep_what_they_carry() {
        let endpoint = EndpointId::new(4_095).unwrap();
        let marks = [
            Mark::TO_PROXY,
            Mark::returning(u16::MAX),
            Mark::LISTENER,
            Mark::leg(Direction::Egress, endpoint),
            Mark::leg(Direction::Ingress, endpoint),
        ];
        let kinds = [Mark::TO_PROXY, Mark::RETURN, Mark::LISTENER, Mark::EGRESS_LEG, Mark::INGRESS_LEG];
        for (mark, own) in marks.into_iter().zip(kinds) {
            for kind in kinds {
                assert_eq!(mark.is(kind), kind == own, "{mark:?} {kind:?}");
            }
            assert!(!Mark(0).is(own));
        }
        assert_eq!(Mark::returning(15_001).port(), 15_001);
        assert_eq!(Mark::leg(Direction::Egress, endpoint).endpoint(), 4_095);
    }

    #[test]
    fn a_leg_leaves_the_bits_of_kubernetes_alone() {
        let endpoint = EndpointId::new(4_095).unwrap();
        for direction in Direction::ALL {
            assert_eq!(Mark::leg(direction, endpoint).0 & 0xf000_c0ff, 0);
        }
    }
}
