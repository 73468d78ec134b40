//! ICMP types by number and by name (names of `pkg/policy/api/icmp.go`, numbers of IANA).

use sluice_api::{IntOrString, cilium::IcmpField};
use sluice_types::Protocol;

use super::{Reason, reason::Words};
use crate::rule::Traffic;

const FAMILIES: Words = Words(&["IPv4", "IPv6"]);

const IPV4: &[(&str, u8)] = &[
    ("EchoReply", 0),
    ("DestinationUnreachable", 3),
    ("Redirect", 5),
    ("Echo", 8),
    ("EchoRequest", 8),
    ("RouterAdvertisement", 9),
    ("RouterSelection", 10),
    ("TimeExceeded", 11),
    ("ParameterProblem", 12),
    ("Timestamp", 13),
    ("TimestampReply", 14),
    ("Photuris", 40),
    ("ExtendedEchoRequest", 42),
    ("ExtendedEchoReply", 43),
];

const IPV6: &[(&str, u8)] = &[
    ("DestinationUnreachable", 1),
    ("PacketTooBig", 2),
    ("TimeExceeded", 3),
    ("ParameterProblem", 4),
    ("EchoRequest", 128),
    ("EchoReply", 129),
    ("MulticastListenerQuery", 130),
    ("MulticastListenerReport", 131),
    ("MulticastListenerDone", 132),
    ("RouterSolicitation", 133),
    ("RouterAdvertisement", 134),
    ("NeighborSolicitation", 135),
    ("NeighborAdvertisement", 136),
    ("RedirectMessage", 137),
    ("RouterRenumbering", 138),
    ("ICMPNodeInformationQuery", 139),
    ("ICMPNodeInformationResponse", 140),
    ("InverseNeighborDiscoverySolicitation", 141),
    ("InverseNeighborDiscoveryAdvertisement", 142),
    ("HomeAgentAddressDiscoveryRequest", 144),
    ("HomeAgentAddressDiscoveryReply", 145),
    ("MobilePrefixSolicitation", 146),
    ("MobilePrefixAdvertisement", 147),
    ("DuplicateAddressRequestCodeSuffix", 157),
    ("DuplicateAddressConfirmationCodeSuffix", 158),
    ("ExtendedEchoRequest", 160),
    ("ExtendedEchoReply", 161),
];

/// Reads one ICMP type.
pub(super) fn field(field: &IcmpField) -> Result<Traffic, Reason> {
    let (family, protocol, names) = match field.family.as_deref().unwrap_or("IPv4") {
        "IPv4" => ("IPv4", Protocol::Icmp, IPV4),
        "IPv6" => ("IPv6", Protocol::Icmpv6, IPV6),
        other => return Err(Reason::NoneOf { found: other.to_owned(), known: FAMILIES }),
    };
    let number = match &field.kind {
        IntOrString::Int(number) => u8::try_from(*number).ok(),
        IntOrString::String(text) => {
            let named = names.iter().find(|(name, _)| name == text).map(|(_, number)| *number);
            named.or_else(|| decimal(text))
        }
    };
    let unknown = || Reason::UnknownIcmpType { name: field.kind.to_string(), family };
    number.map(|number| Traffic::Icmp(protocol, number)).ok_or_else(unknown)
}

fn decimal(text: &str) -> Option<u8> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}
