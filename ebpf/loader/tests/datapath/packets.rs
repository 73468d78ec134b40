//! Packets as they should not be: cut short, contradictory, with headers in the way. What cannot be followed to its
//! transport header is dropped, and nothing is judged by a guess.

use crate::support::packet::*;
use crate::support::*;
use sluice_policy::map_state::L4Match;
use sluice_types::{Direction, DropReason, Protocol};

/// Alice may do anything but reach Bob's port 22: a packet that is taken for another one passes.
fn lab() -> Lab {
    let mut lab = Lab::open();
    let rows = [
        allow(Direction::Egress, None, L4Match::Any, 0),
        allow(Direction::Ingress, None, L4Match::Any, 0),
        deny(Direction::Egress, None, L4Match::port(Protocol::Tcp, 22), 1),
    ];
    lab.policy(&ALICE, &table(rows));
    lab
}

fn kinds(family: u8) -> Vec<(&'static str, Ip, usize)> {
    let (a, b) = ((ALICE.ip(family), 40_000), (BOB.ip(family), 80));
    vec![
        ("tcp", tcp(a, b, SYN), 20),
        ("udp", udp(a, b), 8),
        ("sctp", sctp(a, b), 12),
        ("echo", echo_request(a.0, b.0, 1), 8),
    ]
}

/// Frames end early, at every length that the harness takes.
#[test]
fn a_frame_cut_at_any_length_is_dropped() {
    let mut lab = Lab::open();
    for family in FAMILIES {
        for (name, packet, _) in kinds(family) {
            let whole = packet.sent_by(&ALICE);
            let shortest = 14 + if family == 4 { 20 } else { 40 };
            for length in shortest..whole.len() {
                println!("{name}, {length} bytes");
                lab.send(&ALICE, &whole[..length])
                    .dropped_from(&ALICE, DropReason::CtTruncatedOrInvalidHeader);
            }
            lab.send(&ALICE, &whole).delivered(&ALICE, &BOB);
        }
    }
}

/// The packet says it ends early, and the rest of the frame is padding: the receiver will not read it.
#[test]
fn a_header_in_the_padding_is_no_header() {
    let mut lab = Lab::open();
    for family in FAMILIES {
        for (name, packet, header) in kinds(family) {
            for shown in 0..header {
                println!("{name}, {shown} bytes");
                let short = Ip { payload: packet.payload[..shown].to_vec(), ..packet.clone() };
                let mut bytes = short.sent_by(&ALICE);
                bytes.extend(&packet.payload[shown..]);
                lab.send(&ALICE, &bytes).dropped_from(&ALICE, DropReason::CtTruncatedOrInvalidHeader);
            }
            // Padding after a whole packet is what Ethernet does.
            let mut bytes = packet.sent_by(&ALICE);
            bytes.extend([0; 20]);
            lab.send(&ALICE, &bytes).delivered(&ALICE, &BOB);
        }
    }
}

#[test]
fn lengths_and_versions_that_contradict() {
    let mut lab = lab();
    let invalid = DropReason::InvalidPacketDropped;
    let truncated = DropReason::CtTruncatedOrInvalidHeader;
    let packet = tcp((ALICE.ip(4), 40_000), (BOB.ip(4), 80), SYN).sent_by(&ALICE);
    for (name, at, byte, reason) in [
        ("version 5", 14, 0x55, invalid),
        ("version 6", 14, 0x65, invalid),
        ("header of 16 bytes", 14, 0x44, invalid),
        ("header of 0 bytes", 14, 0x40, invalid),
        ("header longer than the packet", 14, 0x4f, invalid),
        ("total length 19", 17, 19, invalid),
        ("total length 41 of 40", 17, 41, truncated),
        ("total length 255 more", 16, 1, truncated),
        ("TCP header of 16 bytes", 14 + 20 + 12, 0x40, invalid),
    ] {
        println!("{name}");
        let mut bytes = packet.clone();
        bytes[at] = byte;
        lab.send(&ALICE, &bytes).dropped_from(&ALICE, reason);
    }
    let packet = tcp((ALICE.ip(6), 40_000), (BOB.ip(6), 80), SYN).sent_by(&ALICE);
    for (name, at, byte, reason) in [
        ("version 4", 14, 0x40, invalid),
        ("payload length 0", 14 + 5, 0, truncated),
        ("payload length 21 of 20", 14 + 5, 21, truncated),
        ("payload length 256 more", 14 + 4, 1, truncated),
        ("TCP header of 16 bytes", 14 + 40 + 12, 0x40, invalid),
    ] {
        println!("{name}");
        let mut bytes = packet.clone();
        bytes[at] = byte;
        lab.send(&ALICE, &bytes).dropped_from(&ALICE, reason);
    }
}

#[test]
fn ipv4_options_are_followed_and_source_routes_refused() {
    let mut lab = lab();
    let packet = |port| tcp((ALICE.ip(4), 40_000), (BOB.ip(4), port), SYN);
    let router_alert: &[u8] = &[148, 4, 0, 0];
    let padding: &[u8] = &[1, 1, 1, 0];
    let timestamp: &[u8] = &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for options in [router_alert, padding, timestamp, &[0, 131, 7, 4], &[1; 8]] {
        lab.send(&ALICE, &packet(80).options(options).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        lab.send(&ALICE, &packet(22).options(options).sent_by(&ALICE))
            .dropped_from(&ALICE, DropReason::PolicyDeny);
    }
    let loose: &[u8] = &[131, 7, 4, 192, 0, 2, 9, 0];
    let strict: &[u8] = &[1, 137, 7, 4, 192, 0, 2, 9];
    let behind: &[u8] = &[148, 4, 0, 0, 131, 7, 4, 192, 0, 2, 9, 0];
    let endless: &[u8] = &[7, 0, 0, 0];
    let many: &[u8] = &[1, 1, 1, 1, 1, 1, 1, 1, 131, 7, 4, 192];
    for options in [loose, strict, behind, endless, many] {
        lab.send(&ALICE, &packet(80).options(options).sent_by(&ALICE))
            .dropped_from(&ALICE, DropReason::InvalidPacketDropped);
    }
}

#[test]
fn ipv6_extension_headers_are_followed() {
    let mut lab = lab();
    let packet = |port| tcp((ALICE.ip(6), 40_000), (BOB.ip(6), port), SYN);
    let options: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
    let long_options: &[u8] = &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let routing_done: &[u8] = &[0, 4, 0, 0, 0, 0, 0];
    // Length 4: six words of four bytes.
    let authentication: &[u8] = &[4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let chains: [&[(u8, &[u8])]; 6] = [
        &[(0, options)],
        &[(60, options)],
        &[(60, long_options)],
        &[(43, routing_done)],
        &[(51, authentication)],
        &[
            (0, options),
            (60, options),
            (43, routing_done),
            (51, authentication),
            (60, long_options),
            (60, options),
        ],
    ];
    for chain in chains {
        let with =
            |packet: Ip| chain.iter().fold(packet, |packet, (number, body)| packet.extension(*number, body));
        lab.send(&ALICE, &with(packet(80)).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        lab.send(&ALICE, &with(packet(22)).sent_by(&ALICE)).dropped_from(&ALICE, DropReason::PolicyDeny);
    }
    let refused: [&[(u8, &[u8])]; 5] = [
        // A routing header with a way still to go: type 0, and type 2.
        &[(43, &[0, 0, 1, 0, 0, 0, 0])],
        &[(43, &[0, 2, 1, 0, 0, 0, 0])],
        // Hop-by-hop options not in first place.
        &[(60, options), (0, options)],
        // More than anybody needs.
        &[(60, options); 7],
        // Two fragment headers.
        &[(44, &[0, 0, 1, 0, 0, 0, 7]), (44, &[0, 0, 0, 0, 0, 0, 8])],
    ];
    for chain in refused {
        let packet = chain.iter().fold(packet(80), |packet, (number, body)| packet.extension(*number, body));
        lab.send(&ALICE, &packet.sent_by(&ALICE))
            .dropped_from(&ALICE, DropReason::InvalidIpv6ExtensionHeader);
    }
    // A header that says it is longer than the packet.
    let packet = packet(80).extension(60, &[200, 1, 4, 0, 0, 0, 0]);
    lab.send(&ALICE, &packet.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::CtTruncatedOrInvalidHeader);
}

/// Only a rule for every protocol, or for exactly this one, allows what has no ports; and it opens no connection.
#[test]
fn other_protocols_are_judged_each_way() {
    let mut lab = Lab::open();
    for family in FAMILIES {
        for protocol in [2, 4, 41, 47, 50, 59, 112, 136, 253, if family == 4 { 58 } else { 1 }] {
            println!("family {family}, protocol {protocol}");
            let packet = Ip::new(ALICE.ip(family), BOB.ip(family), protocol, vec![0; 24]);
            let answer = packet.clone().reversed();
            lab.policy(&BOB, &closed(Direction::Egress));
            lab.policy(&ALICE, &table([]));
            lab.send(&ALICE, &packet.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::PolicyDenied);
            let ports = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp, Protocol::Icmpv6]
                .into_iter()
                .filter(|other| other.number() != protocol)
                .flat_map(|other| {
                    [L4Match::Protocol(other), L4Match::port(other, 0)]
                        .map(|l4| allow(Direction::Egress, None, l4, 3))
                });
            lab.policy(&ALICE, &table(ports));
            lab.send(&ALICE, &packet.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::PolicyDenied);
            for l4 in [L4Match::Any, L4Match::Protocol(Protocol::from_number(protocol))] {
                lab.policy(&ALICE, &table([allow(Direction::Egress, BOB.peer(), l4, 4)]));
                lab.send(&ALICE, &packet.sent_by(&ALICE)).delivered(&ALICE, &BOB);
                lab.send(&BOB, &answer.sent_by(&BOB)).dropped_from(&BOB, DropReason::PolicyDenied);
            }
        }
    }
    assert!(lab.connections().is_empty());
}

/// Every tier, in both directions: narrower and wider matches, and which of them wins.
#[test]
fn the_highest_precedence_of_all_matching_tiers_decides() {
    use sluice_policy::map_state::EntryVerdict::{Allow, Deny};
    let tcp = Protocol::Tcp;
    let block = |port, prefix| L4Match::Port { protocol: tcp, port, prefix };
    let tiers = [
        L4Match::port(tcp, 8_080),
        block(8_080 & !3, 14),
        block(8_192 - 4_096, 4),
        block(0, 1),
        L4Match::Protocol(tcp),
        L4Match::Any,
    ];
    let mut lab = Lab::open();
    let pairs = || tiers.into_iter().flat_map(|first| tiers.map(|second| (first, second)));
    for direction in Direction::ALL {
        let (subject, identity) =
            if direction == Direction::Egress { (&ALICE, BOB.peer()) } else { (&BOB, ALICE.peer()) };
        for (first, second) in pairs() {
            for (named, other_named) in [(true, false), (false, true), (true, true), (false, false)] {
                if first == second && named == other_named {
                    continue;
                }
                let rows = |deny, allow| {
                    table([
                        row(direction, identity.filter(|_| named), first, deny, Deny, 1),
                        row(direction, identity.filter(|_| other_named), second, allow, Allow, 2),
                    ])
                };
                lab.policy(subject, &rows(MIDDLE, LOW));
                let packet = |family| {
                    let (a, b) = ((ALICE.ip(family), 40_000), (BOB.ip(family), 8_080));
                    crate::support::packet::tcp(a, b, SYN).sent_by(&ALICE)
                };
                for family in FAMILIES {
                    let event = lab.send(&ALICE, &packet(family)).dropped(
                        subject.id,
                        DropReason::PolicyDeny,
                        direction as u8,
                    );
                    assert_eq!(event.rule, 1);
                }
                // The same with the ranks exchanged.
                lab.policy(subject, &rows(LOW, MIDDLE));
                for family in FAMILIES {
                    lab.send(&ALICE, &packet(family)).delivered(&ALICE, &BOB);
                    lab.datapath.conntrack.purge(&[ALICE.ip(family)]).unwrap();
                }
            }
        }
        lab.policy(subject, &allow_all());
    }
}
