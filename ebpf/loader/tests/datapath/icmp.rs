//! ICMP: echo by who asked, errors by the connection they are about, everything else by its type.

use crate::support::packet::*;
use crate::support::*;
use sluice_ebpf_loader::common::{ConfigFlags, EndpointFlags};
use sluice_policy::map_state::L4Match;
use sluice_types::{Direction, DropReason, Protocol};

/// Alice may speak to Bob, and nobody else to anybody; size errors are not excused.
fn one_way() -> Lab {
    let mut lab = Lab::open();
    lab.policy(&ALICE, &closed(Direction::Ingress));
    lab.policy(&BOB, &closed(Direction::Egress));
    lab.flag(ConfigFlags::ALLOW_FRAG_NEEDED, false);
    lab
}

/// An echo request with the tuple of somebody's reply is a request all the same (GHSA-c66w-hq56-4q97), and only the
/// reply to a request that was allowed passes, with the same identifier, from the one who was asked.
#[test]
fn echo_matrix() {
    let mut lab = one_way();
    let ids = [0, 1, 7, 65_535];
    for (family, asked) in FAMILIES.into_iter().flat_map(|family| [(family, false), (family, true)]) {
        for (id, other) in ids.into_iter().flat_map(|id| ids.map(|other| (id, other))) {
            let (a, b) = (ALICE.ip(family), BOB.ip(family));
            for family in FAMILIES {
                lab.datapath.conntrack.purge(&[ALICE.ip(family)]).unwrap();
            }
            if asked {
                lab.send(&ALICE, &echo_request(a, b, id).sent_by(&ALICE)).delivered(&ALICE, &BOB);
            }
            // Bob asks: never.
            lab.send(&BOB, &echo_request(b, a, other).sent_by(&BOB))
                .dropped_from(&BOB, DropReason::PolicyDenied);
            // Bob answers.
            let outcome = lab.send(&BOB, &echo_reply(b, a, other).sent_by(&BOB));
            if asked && id == other {
                outcome.delivered(&BOB, &ALICE);
            } else {
                outcome.dropped_from(&BOB, DropReason::PolicyDenied);
            }
            // Alice answers what nobody asked: her egress allows it, and it opens nothing.
            lab.send(&ALICE, &echo_reply(a, b, other).sent_by(&ALICE)).delivered(&ALICE, &BOB);
            lab.send(&BOB, &echo_request(b, a, other).sent_by(&BOB))
                .dropped_from(&BOB, DropReason::PolicyDenied);
            assert_eq!(lab.connections().len(), usize::from(asked));
        }
    }
}

#[test]
fn other_types_are_no_part_of_a_connection() {
    for family in FAMILIES {
        let mut lab = one_way();
        let (a, b) = (ALICE.ip(family), BOB.ip(family));
        lab.send(&ALICE, &echo_request(a, b, 0).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        let types: &[u8] = if family == 4 { &[5, 9, 13, 14, 17, 18, 30] } else { &[138, 139, 140, 141, 200] };
        for kind in types {
            lab.send(&ALICE, &icmp(a, b, *kind, 0).sent_by(&ALICE)).delivered(&ALICE, &BOB);
            lab.send(&BOB, &icmp(b, a, *kind, 0).sent_by(&BOB)).dropped_from(&BOB, DropReason::PolicyDenied);
        }
        assert_eq!(lab.connections().len(), 1);
    }
}

#[test]
fn types_are_judged_like_ports() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        let protocol = Protocol::from_number(icmp_number(family));
        let request = echo_request_type(family);
        lab.policy(
            &ALICE,
            &table([allow(Direction::Egress, BOB.peer(), L4Match::port(protocol, request.into()), 1)]),
        );
        let (a, b) = (ALICE.ip(family), BOB.ip(family));
        lab.send(&ALICE, &echo_request(a, b, 1).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        let reply = echo_reply(a, b, 1);
        let event = lab.send(&ALICE, &reply.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::PolicyDenied);
        assert_eq!(event.tcp_flags_or_icmp_type, echo_reply_type(family));
        // A TCP port of the same number is something else.
        lab.send(&ALICE, &tcp((a, 1), (b, request.into()), SYN).sent_by(&ALICE))
            .dropped_from(&ALICE, DropReason::PolicyDenied);
        // The answer passes without a rule of its own, and a ping that is no longer allowed does not.
        lab.policy(
            &BOB,
            &table([allow(Direction::Ingress, ALICE.peer(), L4Match::port(protocol, request.into()), 2)]),
        );
        lab.send(&BOB, &echo_reply(b, a, 1).sent_by(&BOB)).delivered(&BOB, &ALICE);
        lab.policy(&BOB, &table([]));
        lab.send(&BOB, &echo_reply(b, a, 1).sent_by(&BOB)).delivered(&BOB, &ALICE);
        lab.send(&ALICE, &echo_request(a, b, 1).sent_by(&ALICE)).dropped_to(&BOB, DropReason::PolicyDenied);
    }
}

type End = (std::net::IpAddr, u16);

fn connections(a: End, b: End) -> Vec<(&'static str, Ip)> {
    vec![
        ("tcp", tcp(a, b, SYN)),
        ("udp", udp(a, b)),
        ("sctp", sctp(a, b)),
        ("echo", echo_request(a.0, b.0, 9)),
    ]
}

/// Errors about a connection pass between its ends, both ways, and only about it.
#[test]
fn errors_about_an_allowed_connection_pass() {
    for family in FAMILIES {
        let (a, b) = ((ALICE.ip(family), 40_000), (BOB.ip(family), 53));
        for (name, request) in connections(a, b) {
            println!("{name}");
            let mut lab = one_way();
            let error = unreachable(b.0, a.0, &request);
            lab.send(&BOB, &error.sent_by(&BOB)).dropped_from(&BOB, DropReason::PolicyDenied);
            lab.send(&ALICE, &request.sent_by(&ALICE)).delivered(&ALICE, &BOB);
            let before = lab.connections();
            lab.send(&BOB, &error.sent_by(&BOB)).delivered(&BOB, &ALICE);
            lab.send(&BOB, &too_big(b.0, a.0, &request).sent_by(&BOB)).delivered(&BOB, &ALICE);
            assert_eq!(lab.connections(), before, "an error is no packet of the connection");
            // About another connection, or one that Bob did not receive.
            for quoted in [
                tcp((a.0, 40_001), b, SYN),
                udp(a, (b.0, 54)),
                echo_request(a.0, b.0, 8),
                udp(a, (CAROL.ip(family), 53)),
                udp((CAROL.ip(family), 40_000), b),
                request.clone().reversed(),
            ] {
                let error = unreachable(b.0, a.0, &quoted);
                lab.send(&BOB, &error.sent_by(&BOB)).dropped_from(&BOB, DropReason::PolicyDenied);
            }
            // To somebody else than the sender of what is quoted.
            let error = unreachable(b.0, CAROL.ip(family), &request);
            lab.send(&BOB, &error.sent_by(&BOB)).dropped_from(&BOB, DropReason::PolicyDenied);
            // Alice about Bob's answer.
            if name != "echo" {
                let answer = Ip {
                    payload: request.payload.clone(),
                    ..Ip::new(b.0, a.0, request.protocol, Vec::new())
                };
                let mut answer = answer;
                answer.payload[..4].rotate_left(2);
                lab.policy(
                    &ALICE,
                    &table([allow(Direction::Egress, None, L4Match::port(Protocol::Udp, 53), 1)]),
                );
                lab.policy(&ALICE, &closed(Direction::Ingress));
                lab.send(&ALICE, &request.sent_by(&ALICE)).delivered(&ALICE, &BOB);
                lab.send(&ALICE, &unreachable(a.0, b.0, &answer).sent_by(&ALICE)).delivered(&ALICE, &BOB);
            }
        }
    }
}

/// From a router on the way, or from the node: the source is nobody's end, but the quoted packet is the pod's own.
#[test]
fn errors_from_the_way() {
    for family in FAMILIES {
        let mut lab = one_way();
        let (a, far) = ((ALICE.ip(family), 40_000), (outside(family), 443));
        let request = tcp(a, far, SYN);
        let router = if family == 4 { "198.51.100.1" } else { "2001:db8:ff::1" }.parse().unwrap();
        let about = |quoted: &Ip| unreachable(router, a.0, quoted).brought_to(&ALICE);
        lab.receive(&ALICE, &about(&request), From::Device).dropped_to(&ALICE, DropReason::PolicyDenied);
        lab.send(&ALICE, &request.sent_by(&ALICE)).passes_from(&ALICE);
        lab.receive(&ALICE, &about(&request), From::Device).passes_to(&ALICE);
        let by_node = unreachable(node(family), a.0, &request).brought_to(&ALICE);
        lab.receive(&ALICE, &by_node, From::Node).passes_to(&ALICE);
        lab.receive(&ALICE, &by_node, From::Device).dropped_to(&ALICE, DropReason::InvalidSourceIp);
        let by_bob = unreachable(BOB.ip(family), a.0, &request).brought_to(&ALICE);
        lab.receive(&ALICE, &by_bob, From::Device).dropped_to(&ALICE, DropReason::InvalidSourceIp);
        // What Alice did not send herself.
        for quoted in [
            tcp((a.0, 40_001), far, SYN),
            tcp((BOB.ip(family), 40_000), far, SYN),
            request.clone().reversed(),
        ] {
            lab.receive(&ALICE, &about(&quoted), From::Device).dropped_to(&ALICE, DropReason::PolicyDenied);
        }
        // A later fragment, or a packet cut before its ports.
        let mut later = request.clone();
        later.fragment = Some((64, true));
        lab.receive(&ALICE, &about(&later), From::Device).dropped_to(&ALICE, DropReason::PolicyDenied);
        let mut error = unreachable(router, a.0, &request);
        error.payload.truncate(error.payload.len() - 5);
        lab.receive(&ALICE, &error.brought_to(&ALICE), From::Device)
            .dropped_to(&ALICE, DropReason::PolicyDenied);
        // The address is somebody else's by now.
        lab.change_pod(&ALICE, |info| info.generation = next_revision());
        lab.receive(&ALICE, &about(&request), From::Device).dropped_to(&ALICE, DropReason::PolicyDenied);
    }
}

#[test]
fn an_error_about_a_connection_that_is_over_is_none() {
    for family in FAMILIES {
        let mut lab = one_way();
        let (a, far) = ((ALICE.ip(family), 40_000), (outside(family), 443));
        let request = udp(a, far);
        lab.send(&ALICE, &request.sent_by(&ALICE)).passes_from(&ALICE);
        lab.datapath.conntrack.age(1_000).unwrap();
        let error = unreachable(far.0, a.0, &request).brought_to(&ALICE);
        lab.receive(&ALICE, &error, From::Device).dropped_to(&ALICE, DropReason::PolicyDenied);
    }
}

#[test]
fn errors_between_chained_pods() {
    for family in FAMILIES {
        let mut lab = one_way();
        lab.pod(&ALICE, EndpointFlags::READY.with(EndpointFlags::CHAINED));
        lab.policy(&ALICE, &closed(Direction::Ingress));
        let (a, b) = ((ALICE.ip(family), 40_000), (BOB.ip(family), 53));
        let request = udp(a, b);
        lab.send(&ALICE, &request.sent_by(&ALICE)).passes_from(&ALICE);
        let error = unreachable(b.0, a.0, &request);
        // Bob's own hook has not seen the request.
        lab.send(&BOB, &error.sent_by(&BOB)).dropped_from(&BOB, DropReason::PolicyDenied);
        lab.receive(&BOB, &request.brought_to(&BOB), From::Pod(&ALICE)).passes_to(&BOB);
        lab.send(&BOB, &error.sent_by(&BOB)).passes_from(&BOB);
        lab.receive(&ALICE, &error.brought_to(&ALICE), From::Pod(&BOB)).passes_to(&ALICE);
    }
}

#[test]
fn size_errors_pass_unasked_if_so_configured() {
    for family in FAMILIES {
        let mut lab = one_way();
        let (a, far) = ((ALICE.ip(family), 40_000), (outside(family), 443));
        let error = too_big(far.0, a.0, &tcp(a, far, SYN)).brought_to(&ALICE);
        let other = unreachable(far.0, a.0, &tcp(a, far, SYN)).brought_to(&ALICE);
        lab.receive(&ALICE, &error, From::Device).dropped_to(&ALICE, DropReason::PolicyDenied);
        lab.flag(ConfigFlags::ALLOW_FRAG_NEEDED, true);
        lab.receive(&ALICE, &error, From::Device).passes_to(&ALICE);
        lab.receive(&ALICE, &other, From::Device).dropped_to(&ALICE, DropReason::PolicyDenied);
        // Excused from policy, not from the truth about its source.
        let spoofed = too_big(node(family), a.0, &tcp(a, far, SYN)).brought_to(&ALICE);
        lab.receive(&ALICE, &spoofed, From::Device).dropped_to(&ALICE, DropReason::InvalidSourceIp);
    }
}
