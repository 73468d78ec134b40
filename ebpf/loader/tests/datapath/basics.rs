//! The way of ordinary packets: new connection, answer, denial, delivery.

use crate::support::packet::*;
use crate::support::*;
use sluice_policy::map_state::L4Match;
use sluice_types::{Direction, DropReason, Protocol};

#[test]
fn a_connection_between_two_pods_goes_straight_both_ways() {
    let mut lab = Lab::open();
    for family in FAMILIES {
        let (a, b) = ((ALICE.ip(family), 40_000), (BOB.ip(family), 80));
        for (flags, forward) in [(SYN, true), (SYN | ACK, false), (ACK, true), (ACK, true), (ACK, false)] {
            if forward {
                lab.send(&ALICE, &tcp(a, b, flags).sent_by(&ALICE)).delivered(&ALICE, &BOB);
            } else {
                lab.send(&BOB, &tcp(b, a, flags).sent_by(&BOB)).delivered(&BOB, &ALICE);
            }
        }
    }
    assert_eq!(lab.connections().len(), 2);
}

#[test]
fn default_deny_of_the_target_and_of_the_source() {
    let mut lab = Lab::open();
    for family in FAMILIES {
        let (a, b) = ((ALICE.ip(family), 40_000), (BOB.ip(family), 80));
        lab.policy(&BOB, &closed(Direction::Ingress));
        let event =
            lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE)).dropped_to(&BOB, DropReason::PolicyDenied);
        assert_eq!((event.source_identity, event.destination_identity), (ALICE.identity, BOB.identity));
        assert_eq!(event.peer_endpoint, ALICE.id);
        lab.policy(&BOB, &allow_all());
        lab.policy(&ALICE, &closed(Direction::Egress));
        lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE)).dropped_from(&ALICE, DropReason::PolicyDenied);
        lab.policy(&ALICE, &allow_all());
    }
    assert_eq!(lab.connections().len(), 0, "a denied packet opens nothing");
}

#[test]
fn the_event_of_a_denial_says_everything() {
    let mut lab = Lab::open();
    let rows = [
        allow(Direction::Egress, None, L4Match::Any, 0),
        deny(Direction::Egress, BOB.peer(), L4Match::port(Protocol::Tcp, 80), 42),
    ];
    lab.policy(&ALICE, &table(rows));
    for family in FAMILIES {
        let (a, b) = ((ALICE.ip(family), 40_000), (BOB.ip(family), 80));
        let event =
            lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE)).dropped_from(&ALICE, DropReason::PolicyDeny);
        assert_eq!(event.rule, 42);
        assert_eq!((event.family, event.protocol, event.tcp_flags_or_icmp_type), (family, TCP, SYN));
        assert_eq!((event.source_identity, event.destination_identity), (ALICE.identity, BOB.identity));
        assert_eq!(u16::from_be_bytes(event.source_port_be), 40_000);
        assert_eq!(u16::from_be_bytes(event.destination_port_be), 80);
        let octets = |address: std::net::IpAddr| match address {
            std::net::IpAddr::V4(address) => address.octets().to_vec(),
            std::net::IpAddr::V6(address) => address.octets().to_vec(),
        };
        assert!(event.source_be.starts_with(&octets(a.0)));
        assert!(event.destination_be.starts_with(&octets(b.0)));
        assert_eq!((event.endpoint, event.peer_endpoint, event.is_reply), (ALICE.id, BOB.id, 0));
        assert_ne!(event.revision, 0);
    }
}
