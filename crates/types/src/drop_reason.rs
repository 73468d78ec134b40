//! Why a packet was dropped. The same enum is counter, log field and test expectation.
//!
//! Numbers and names are those of the flow API (`api/v1/flow/flow.proto`), so that existing dashboards read them.

use core::fmt;

macro_rules! reasons {
    ($($name:ident = $number:literal, $word:literal, $text:literal;)*) => {
        /// The reason for a drop; the number is what the kernel reports.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $text] $name = $number,)*
        }

        impl DropReason {
            /// Every reason, in numeric order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The upper-case name of the flow API, `POLICY_DENIED`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// One sentence for people, without a full stop.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    InvalidSourceMac = 130, "INVALID_SOURCE_MAC", "the source MAC address is not the endpoint's";
    InvalidDestinationMac = 131, "INVALID_DESTINATION_MAC", "the destination MAC address is not ours";
    InvalidSourceIp = 132, "INVALID_SOURCE_IP", "the source address is not the endpoint's, or belongs to somebody else";
    PolicyDenied = 133, "POLICY_DENIED", "no rule allows it (default deny)";
    InvalidPacketDropped = 134, "INVALID_PACKET_DROPPED", "the packet is malformed";
    CtTruncatedOrInvalidHeader = 135, "CT_TRUNCATED_OR_INVALID_HEADER", "a header is truncated or invalid";
    CtUnknownL4Protocol = 137, "CT_UNKNOWN_L4_PROTOCOL", "connection tracking does not know this layer 4 protocol";
    UnsupportedL3Protocol = 139, "UNSUPPORTED_L3_PROTOCOL", "the layer 3 protocol is not supported";
    MissedTailCall = 140, "MISSED_TAIL_CALL", "a tail call was missed";
    ErrorWritingToPacket = 141, "ERROR_WRITING_TO_PACKET", "writing to the packet failed";
    UnknownL4Protocol = 142, "UNKNOWN_L4_PROTOCOL", "the layer 4 protocol is not supported";
    CtMapInsertionFailed = 155, "CT_MAP_INSERTION_FAILED", "a connection entry could not be created";
    InvalidIpv6ExtensionHeader = 156, "INVALID_IPV6_EXTENSION_HEADER", "an IPv6 extension header is invalid or there are too many";
    FragmentationNotSupported = 157, "IP_FRAGMENTATION_NOT_SUPPORTED", "fragments are not supported here";
    NoTunnelOrEncapsulationEndpoint = 160, "NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT", "no tunnel endpoint";
    UnknownConnectionTrackingState = 163, "UNKNOWN_CONNECTION_TRACKING_STATE", "the packet fits no state of its connection, or a policy change put the connection behind a proxy or took it from there";
    NoPolicy = 165, "NO_CONFIGURATION_AVAILABLE_TO_PERFORM_POLICY_DECISION", "there is no policy to decide by";
    UnsupportedL2Protocol = 166, "UNSUPPORTED_L2_PROTOCOL", "the layer 2 protocol is not supported";
    FibLookupFailed = 169, "FIB_LOOKUP_FAILED", "the route lookup failed";
    EncapsulationTrafficIsProhibited = 170, "ENCAPSULATION_TRAFFIC_IS_PROHIBITED", "encapsulated traffic is not allowed";
    InvalidIdentity = 171, "INVALID_IDENTITY", "the identity is invalid";
    UnknownSender = 172, "UNKNOWN_SENDER", "the sender is unknown";
    FirstFragmentNotFound = 175, "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND", "the first fragment was not seen or not allowed";
    ForbiddenIcmpv6Message = 176, "FORBIDDEN_ICMPV6_MESSAGE", "this ICMPv6 message may not be sent by a pod";
    SocketLookupFailed = 178, "SOCKET_LOOKUP_FAILED", "the proxy's socket was not found";
    SocketAssignFailed = 179, "SOCKET_ASSIGN_FAILED", "the packet could not be handed to the proxy's socket";
    ProxyRedirectionNotSupportedForProtocol = 180, "PROXY_REDIRECTION_NOT_SUPPORTED_FOR_PROTOCOL", "the protocol cannot be redirected to a proxy";
    PolicyDeny = 181, "POLICY_DENY", "a deny rule matches";
    VlanFiltered = 182, "VLAN_FILTERED", "VLAN tags are not allowed";
    AuthRequired = 189, "AUTH_REQUIRED", "authentication is required";
    TtlExceeded = 196, "TTL_EXCEEDED", "TTL exceeded";
    RateLimited = 198, "DROP_RATE_LIMITED", "the endpoint has used up its share of connections";
    HostNotReady = 202, "DROP_HOST_NOT_READY", "the host's policy is not in place yet";
    EndpointNotReady = 203, "DROP_EP_NOT_READY", "the endpoint's policy is not in place yet";
}

impl DropReason {
    /// The number the kernel reports.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distinct_and_read_back() {
        for pair in DropReason::ALL.windows(2) {
            assert!(pair[0] < pair[1]);
        }
        for reason in DropReason::ALL {
            assert_eq!(DropReason::from_number(reason.number()), Some(*reason));
        }
    }
}

#[cfg(feature = "serde")]
mod as_word {
    use super::DropReason;
    use alloc::string::String;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    impl Serialize for DropReason {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(self.as_str())
        }
    }

    impl<'de> Deserialize<'de> for DropReason {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let word = String::deserialize(deserializer)?;
            Self::ALL
                .iter()
                .copied()
                .find(|reason| reason.as_str() == word)
                .ok_or_else(|| D::Error::custom("unknown drop reason"))
        }
    }
}
