//! Fragments: later ones carry no ports, so they pass only after a first one that was allowed, or where policy does
//! not look at ports.

use crate::support::packet::*;
use crate::support::*;
use sluice_ebpf_loader::common::ConfigFlags;
use sluice_policy::map_state::L4Match;
use sluice_types::{Direction, DropReason, Protocol};

/// A datagram of 200 bytes for a port, in one piece.
fn datagram(family: u8, port: u16, id: u32) -> Ip {
    let payload = udp_header(40_000, port, &[7; 200]);
    Ip { id, ..Ip::new(ALICE.ip(family), BOB.ip(family), UDP, payload) }
}

/// Alice may speak to Bob's port 53 by UDP, and that is all she may.
fn lab() -> Lab {
    let mut lab = Lab::open();
    let rule = allow(Direction::Egress, BOB.peer(), L4Match::port(Protocol::Udp, 53), 1);
    lab.policy(&ALICE, &table([rule]));
    lab
}

#[test]
fn later_fragments_follow_a_first_one_that_was_allowed() {
    for family in FAMILIES {
        let mut lab = lab();
        let good = datagram(family, 53, 1);
        let later = good.part(104, 104);
        lab.send(&ALICE, &later.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::FirstFragmentNotFound);
        lab.send(&ALICE, &good.part(0, 104).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        lab.send(&ALICE, &later.sent_by(&ALICE)).delivered(&ALICE, &BOB);
        lab.send(&ALICE, &later.sent_by(&ALICE)).delivered(&ALICE, &BOB);
        // Another datagram, another protocol, another target: not covered by that first one.
        for other in [
            Ip { id: 2, ..later.clone() },
            Ip { protocol: TCP, ..later.clone() },
            Ip { destination: CAROL.ip(family), ..later.clone() },
        ] {
            lab.send(&ALICE, &other.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::FirstFragmentNotFound);
        }
        // A denied first fragment is not remembered.
        let bad = datagram(family, 54, 3);
        lab.send(&ALICE, &bad.part(0, 104).sent_by(&ALICE)).dropped_from(&ALICE, DropReason::PolicyDenied);
        lab.send(&ALICE, &bad.part(104, 104).sent_by(&ALICE))
            .dropped_from(&ALICE, DropReason::FirstFragmentNotFound);
    }
}

#[test]
fn fragments_of_an_answer_follow_it() {
    for family in FAMILIES {
        let mut lab = lab();
        lab.policy(&BOB, &closed(Direction::Egress));
        lab.send(&ALICE, &datagram(family, 53, 1).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        let answer = Ip::new(BOB.ip(family), ALICE.ip(family), UDP, udp_header(53, 40_000, &[1; 300]));
        lab.send(&BOB, &answer.part(152, 152).sent_by(&BOB)).dropped_from(&BOB, DropReason::PolicyDenied);
        lab.send(&BOB, &answer.part(0, 152).sent_by(&BOB)).delivered(&BOB, &ALICE);
        lab.send(&BOB, &answer.part(152, 152).sent_by(&BOB)).delivered(&BOB, &ALICE);
        // At the receiving hook, from outside.
        let far = Ip { source: outside(family), ..answer };
        lab.policy(
            &ALICE,
            &table([allow(Direction::Ingress, None, L4Match::port(Protocol::Udp, 40_000), 2)]),
        );
        lab.receive(&ALICE, &far.part(152, 152).brought_to(&ALICE), From::Device)
            .dropped_to(&ALICE, DropReason::FirstFragmentNotFound);
        lab.receive(&ALICE, &far.part(0, 152).brought_to(&ALICE), From::Device).passes_to(&ALICE);
        lab.receive(&ALICE, &far.part(152, 152).brought_to(&ALICE), From::Device).passes_to(&ALICE);
    }
}

#[test]
fn a_fragmented_ping() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        let kind = u16::from(echo_request_type(family));
        let protocol = Protocol::from_number(icmp_number(family));
        lab.policy(&ALICE, &table([allow(Direction::Egress, None, L4Match::port(protocol, kind), 1)]));
        lab.policy(&BOB, &closed(Direction::Egress));
        let message = icmp_message(echo_request_type(family), 0, [0, 9, 0, 1], &[5; 200]);
        let ping = Ip::new(ALICE.ip(family), BOB.ip(family), icmp_number(family), message);
        lab.send(&ALICE, &ping.part(96, 200).sent_by(&ALICE))
            .dropped_from(&ALICE, DropReason::FirstFragmentNotFound);
        lab.send(&ALICE, &ping.part(0, 96).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        lab.send(&ALICE, &ping.part(96, 200).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        let message = icmp_message(echo_reply_type(family), 0, [0, 9, 0, 1], &[5; 200]);
        let reply = Ip { payload: message, ..ping.reversed() };
        lab.send(&BOB, &reply.part(0, 96).sent_by(&BOB)).delivered(&BOB, &ALICE);
        lab.send(&BOB, &reply.part(96, 200).sent_by(&BOB)).delivered(&BOB, &ALICE);
    }
}

/// The first fragment must hold the transport header, and no later one may touch it.
#[test]
fn tiny_and_overlapping_fragments() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        let (a, b) = ((ALICE.ip(family), 40_000), (BOB.ip(family), 53));
        let mut whole = tcp(a, b, SYN);
        whole.payload.extend([0; 64]);
        let mut sctp = sctp(a, b);
        sctp.payload.extend([0; 64]);
        for (packet, header) in [(&whole, 20), (&sctp, 12), (&datagram(family, 53, 1), 8)] {
            for shown in (0..header).step_by(if family == 6 { 8 } else { 4 }) {
                println!("protocol {}, first fragment of {shown} bytes", packet.protocol);
                let mut first = packet.part(0, shown);
                first.fragment = Some((0, true));
                lab.send(&ALICE, &first.sent_by(&ALICE))
                    .dropped_from(&ALICE, DropReason::InvalidPacketDropped);
            }
            lab.send(&ALICE, &packet.part(0, 24).sent_by(&ALICE)).delivered(&ALICE, &BOB);
            for offset in (8..header).step_by(8) {
                println!("protocol {}, later fragment at {offset}", packet.protocol);
                lab.send(&ALICE, &packet.part(offset, 16).sent_by(&ALICE))
                    .dropped_from(&ALICE, DropReason::InvalidPacketDropped);
            }
            let behind = header.next_multiple_of(8);
            lab.send(&ALICE, &packet.part(behind, 16).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        }
    }
}

/// A second first fragment does not change what the later ones are taken for, unless it is allowed itself.
#[test]
fn a_second_first_fragment_is_judged_like_the_first() {
    for family in FAMILIES {
        let mut lab = lab();
        let good = datagram(family, 53, 1);
        let bad = datagram(family, 54, 1);
        lab.send(&ALICE, &good.part(0, 104).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        lab.send(&ALICE, &bad.part(0, 104).sent_by(&ALICE)).dropped_from(&ALICE, DropReason::PolicyDenied);
        lab.send(&ALICE, &good.part(104, 104).sent_by(&ALICE)).delivered(&ALICE, &BOB);
    }
}

#[test]
fn a_policy_that_does_not_look_at_ports_needs_none() {
    for family in FAMILIES {
        let later = datagram(family, 53, 9).part(104, 104);
        for tracking in [true, false] {
            let mut lab = Lab::open();
            lab.flag(ConfigFlags::TRACK_FRAGMENTS, tracking);
            let reason = if tracking {
                DropReason::FirstFragmentNotFound
            } else {
                DropReason::FragmentationNotSupported
            };
            for l4 in [L4Match::Any, L4Match::Protocol(Protocol::Udp)] {
                lab.policy(&ALICE, &table([allow(Direction::Egress, BOB.peer(), l4, 1)]));
                lab.send(&ALICE, &later.sent_by(&ALICE)).delivered(&ALICE, &BOB);
            }
            lab.policy(
                &ALICE,
                &table([allow(Direction::Egress, BOB.peer(), L4Match::Protocol(Protocol::Tcp), 1)]),
            );
            lab.send(&ALICE, &later.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::PolicyDenied);
            // One rule with a port, whoever it is for, and the fragment can no longer be told.
            let rows = [
                allow(Direction::Egress, BOB.peer(), L4Match::Any, 1),
                deny(Direction::Egress, CAROL.peer(), L4Match::port(Protocol::Tcp, 22), 2),
            ];
            lab.policy(&ALICE, &table(rows));
            lab.send(&ALICE, &later.sent_by(&ALICE)).dropped_from(&ALICE, reason);
            // The target's policy looks at ports.
            lab.policy(&ALICE, &allow_all());
            lab.policy(&BOB, &table([allow(Direction::Ingress, None, L4Match::port(Protocol::Udp, 53), 3)]));
            lab.send(&ALICE, &later.sent_by(&ALICE)).dropped_to(&BOB, reason);
            let first = datagram(family, 53, 9).part(0, 104);
            lab.send(&ALICE, &first.sent_by(&ALICE)).delivered(&ALICE, &BOB);
            let outcome = lab.send(&ALICE, &later.sent_by(&ALICE));
            if tracking {
                outcome.delivered(&ALICE, &BOB);
            } else {
                outcome.dropped_to(&BOB, reason);
            }
        }
    }
}

/// More datagrams in flight than the table takes: what is forgotten is dropped.
#[test]
fn a_full_fragment_table_never_permits() {
    for family in FAMILIES {
        let mut lab = lab();
        for id in 0..1_000 {
            lab.send(&ALICE, &datagram(family, 53, id).part(0, 104).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        }
        lab.send(&ALICE, &datagram(family, 53, 0).part(104, 104).sent_by(&ALICE))
            .dropped_from(&ALICE, DropReason::FirstFragmentNotFound);
        lab.send(&ALICE, &datagram(family, 53, 999).part(104, 104).sent_by(&ALICE)).delivered(&ALICE, &BOB);
    }
}

/// A fragment header that says "all of it": an ordinary packet.
#[test]
fn an_atomic_fragment_is_no_fragment() {
    let mut lab = lab();
    let mut whole = datagram(6, 53, 1);
    whole.fragment = Some((0, false));
    lab.send(&ALICE, &whole.sent_by(&ALICE)).delivered(&ALICE, &BOB);
    lab.send(&ALICE, &datagram(6, 53, 1).part(104, 104).sent_by(&ALICE))
        .dropped_from(&ALICE, DropReason::FirstFragmentNotFound);
}

/// Later fragments whose header chain continues in the first one cannot be told apart.
#[test]
fn a_header_chain_that_crosses_fragments_is_refused() {
    let mut lab = Lab::open();
    let mut later = datagram(6, 53, 1).part(104, 104);
    later.protocol = 60;
    lab.send(&ALICE, &later.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::InvalidIpv6ExtensionHeader);
}
