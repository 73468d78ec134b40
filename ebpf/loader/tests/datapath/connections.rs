//! Connections: what an entry permits, for how long, and what makes it worthless.

use crate::support::packet::*;
use crate::support::*;
use sluice_ebpf_loader::Settings;
use sluice_ebpf_loader::common::{
    ConfigFlags, ConntrackFlags, EndpointFlags, EventAction, EventKind, IpcacheFlags,
};
use sluice_ebpf_loader::conntrack;
use sluice_policy::map_state::{L4Match, MapState};
use sluice_types::{Direction, DropReason, Identity, Protocol};

/// Lifetimes in units of about 1.07 s.
const ESTABLISHED: u32 = 7_451;
const DEFAULT: u32 = 56;
const CLOSING: u32 = 10;

type End = (std::net::IpAddr, u16);

fn ends(family: u8) -> (End, End) {
    ((ALICE.ip(family), 40_000), (BOB.ip(family), 80))
}

/// Alice may speak to Bob, and nobody else to anybody.
fn one_way(lab: &mut Lab) {
    lab.policy(&ALICE, &closed(Direction::Ingress));
    lab.policy(&BOB, &closed(Direction::Egress));
}

fn expires_in(lab: &Lab) -> u32 {
    let [connection] = lab.connections()[..] else { panic!("{:?}", lab.connections()) };
    connection.entry.expires - conntrack::now()
}

#[track_caller]
fn assert_expires_in(lab: &Lab, want: u32) {
    let left = expires_in(lab);
    assert!(left == want || left + 1 == want, "expires in {left}, not {want}");
}

#[test]
fn answers_need_no_rule_but_a_connection() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        one_way(&mut lab);
        let (a, b) = ends(family);
        for (request, answer) in [
            (tcp(a, b, SYN), tcp(b, a, SYN | ACK)),
            (udp(a, b), udp(b, a)),
            (sctp(a, b), sctp(b, a)),
            (echo_request(a.0, b.0, 7), echo_reply(b.0, a.0, 7)),
        ] {
            lab.send(&BOB, &answer.sent_by(&BOB)).dropped_from(&BOB, DropReason::PolicyDenied);
            lab.send(&ALICE, &request.sent_by(&ALICE)).delivered(&ALICE, &BOB);
            lab.send(&BOB, &answer.sent_by(&BOB)).delivered(&BOB, &ALICE);
        }
        // Same ports, other protocol; same protocol, other port.
        lab.send(&BOB, &tcp(b, (a.0, 40_001), ACK).sent_by(&BOB))
            .dropped_from(&BOB, DropReason::PolicyDenied);
        lab.send(&BOB, &tcp((b.0, 81), a, ACK).sent_by(&BOB)).dropped_from(&BOB, DropReason::PolicyDenied);
        lab.send(&BOB, &echo_reply(b.0, a.0, 8).sent_by(&BOB)).dropped_from(&BOB, DropReason::PolicyDenied);
    }
}

#[test]
fn the_answer_to_a_denied_packet_is_denied() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        one_way(&mut lab);
        lab.policy(&ALICE, &table([]));
        let (a, b) = ends(family);
        lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE)).dropped_from(&ALICE, DropReason::PolicyDenied);
        for flags in [SYN | ACK, ACK, RST, FIN | ACK, SYN] {
            lab.send(&BOB, &tcp(b, a, flags).sent_by(&BOB)).dropped_from(&BOB, DropReason::PolicyDenied);
            // As if another way than Bob's hook had brought it.
            lab.receive(&ALICE, &tcp(b, a, flags).brought_to(&ALICE), From::Pod(&BOB))
                .dropped_to(&ALICE, DropReason::PolicyDenied);
        }
        assert!(lab.connections().is_empty());
    }
}

/// With outside: each hook has its own half.
#[test]
fn connections_with_outside_and_with_the_node() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        let a = (ALICE.ip(family), 40_000);
        for (far, from) in [((outside(family), 443), From::Device), ((node(family), 6443), From::Node)] {
            lab.policy(&ALICE, &closed(Direction::Ingress));
            lab.receive(&ALICE, &tcp(far, a, SYN | ACK).brought_to(&ALICE), from)
                .dropped_to(&ALICE, DropReason::PolicyDenied);
            lab.send(&ALICE, &tcp(a, far, SYN).sent_by(&ALICE)).passes_from(&ALICE);
            lab.receive(&ALICE, &tcp(far, a, SYN | ACK).brought_to(&ALICE), from).passes_to(&ALICE);
            lab.send(&ALICE, &tcp(a, far, ACK).sent_by(&ALICE)).passes_from(&ALICE);
            // The other way round: what comes in may be answered.
            lab.policy(&ALICE, &closed(Direction::Egress));
            let (server, client) = ((ALICE.ip(family), 80), (far.0, 50_000));
            lab.send(&ALICE, &tcp(server, client, SYN | ACK).sent_by(&ALICE))
                .dropped_from(&ALICE, DropReason::PolicyDenied);
            lab.receive(&ALICE, &tcp(client, server, SYN).brought_to(&ALICE), from).passes_to(&ALICE);
            lab.send(&ALICE, &tcp(server, client, SYN | ACK).sent_by(&ALICE)).passes_from(&ALICE);
        }
    }
}

#[test]
fn identities_of_unknown_addresses_and_of_prefixes() {
    let mut lab = Lab::open();
    lab.prefix("203.0.113.0/24".parse().unwrap(), 16_777_300, 0, IpcacheFlags::default());
    lab.prefix("203.0.113.128/25".parse().unwrap(), 16_777_301, 0, IpcacheFlags::default());
    lab.prefix("203.0.113.200/32".parse().unwrap(), 16_777_302, 0, IpcacheFlags::default());
    lab.prefix("2001:db8:1::/48".parse().unwrap(), 16_777_303, 0, IpcacheFlags::default());
    lab.policy(&ALICE, &table([]));
    for (address, identity) in [
        ("192.0.2.1", Identity::WORLD_IPV4.as_u32()),
        ("203.0.113.1", 16_777_300),
        ("203.0.113.129", 16_777_301),
        ("203.0.113.200", 16_777_302),
        ("2001:db8:1::7", 16_777_303),
        ("2001:db8:2::7", Identity::WORLD_IPV6.as_u32()),
        ("10.200.255.1", Identity::HOST.as_u32()),
        ("10.200.0.2", BOB.identity),
    ] {
        let address: std::net::IpAddr = address.parse().unwrap();
        let source = ALICE.ip(if address.is_ipv4() { 4 } else { 6 });
        let packet = udp((source, 1), (address, 2)).sent_by(&ALICE);
        let event = lab.send(&ALICE, &packet).dropped_from(&ALICE, DropReason::PolicyDenied);
        assert_eq!(event.destination_identity, identity, "{address}");
    }
}

/// What was allowed and no longer is stops at the next packet from its opener. Answers alone still pass, as users of
/// the policy language know it; the connection starves by what it can no longer say.
#[test]
fn a_new_policy_cuts_live_connections_at_the_openers_next_packet() {
    for family in FAMILIES {
        let (a, b) = ends(family);
        for pod in [&ALICE, &BOB] {
            let mut lab = Lab::open();
            one_way(&mut lab);
            lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE)).delivered(&ALICE, &BOB);
            lab.send(&BOB, &tcp(b, a, SYN | ACK).sent_by(&BOB)).delivered(&BOB, &ALICE);
            // A revision that changes nothing changes nothing.
            one_way(&mut lab);
            lab.send(&BOB, &tcp(b, a, ACK).sent_by(&BOB)).delivered(&BOB, &ALICE);
            lab.send(&ALICE, &tcp(a, b, ACK).sent_by(&ALICE)).delivered(&ALICE, &BOB);
            lab.policy(pod, &table([]));
            lab.send(&BOB, &tcp(b, a, ACK).sent_by(&BOB)).delivered(&BOB, &ALICE);
            for _ in 0..2 {
                let outcome = lab.send(&ALICE, &tcp(a, b, ACK).sent_by(&ALICE));
                if pod.id == ALICE.id {
                    outcome.dropped_from(&ALICE, DropReason::PolicyDenied);
                } else {
                    outcome.dropped_to(&BOB, DropReason::PolicyDenied);
                }
            }
            lab.send(&BOB, &tcp(b, a, ACK).sent_by(&BOB)).delivered(&BOB, &ALICE);
            // The target may not turn the connection round.
            lab.send(&BOB, &tcp(b, a, SYN).sent_by(&BOB)).dropped_from(&BOB, DropReason::PolicyDenied);
            // The entry is still there, and serves again once the policy allows.
            assert_eq!(lab.connections().len(), 1);
            one_way(&mut lab);
            lab.send(&ALICE, &tcp(a, b, ACK).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        }
    }
}

#[test]
fn a_changed_identity_cuts_live_connections() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        let (a, far) = ((ALICE.ip(family), 40_000), (outside(family), 443));
        let known = Some(Identity::new(5_000));
        // Alice opens; then the other side opens.
        for (direction, opener, target) in [(Direction::Egress, a, far), (Direction::Ingress, far, a)] {
            lab.policy(&ALICE, &table([allow(direction, known, L4Match::Any, 1)]));
            let forward = |lab: &mut Lab, flags| match direction {
                Direction::Egress => lab.send(&ALICE, &tcp(opener, target, flags).sent_by(&ALICE)),
                Direction::Ingress => {
                    let frame = tcp(opener, target, flags).brought_to(&ALICE);
                    lab.receive(&ALICE, &frame, From::Device)
                }
            };
            lab.address(far.0, 5_000, 0, IpcacheFlags::default());
            assert_eq!(forward(&mut lab, SYN).run.verdict, 0);
            lab.address(far.0, 5_001, 0, IpcacheFlags::default());
            forward(&mut lab, ACK).dropped(ALICE.id, DropReason::PolicyDenied, direction as u8);
            lab.address(far.0, 5_000, 0, IpcacheFlags::default());
            assert_eq!(forward(&mut lab, ACK).run.verdict, 0);
            lab.datapath.conntrack.purge(&[a.0]).unwrap();
        }
    }
}

/// A chained pod's egress is judged at one hook, its target's ingress at another: a change of epoch that one hook
/// has seen must not count as seen by the other.
#[test]
fn each_hook_sees_a_new_epoch_for_itself() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        lab.pod(&ALICE, EndpointFlags::READY.with(EndpointFlags::CHAINED));
        lab.policy(&ALICE, &allow_all());
        lab.policy(&BOB, &table([allow(Direction::Ingress, ALICE.peer(), L4Match::Any, 1)]));
        let (a, b) = ends(family);
        lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE)).passes_from(&ALICE);
        lab.receive(&BOB, &tcp(a, b, SYN).brought_to(&BOB), From::Pod(&ALICE)).passes_to(&BOB);
        lab.address(a.0, 9_999, ALICE.id, IpcacheFlags::default());
        lab.send(&ALICE, &tcp(a, b, ACK).sent_by(&ALICE)).passes_from(&ALICE);
        lab.receive(&BOB, &tcp(a, b, ACK).brought_to(&BOB), From::Pod(&ALICE))
            .dropped_to(&BOB, DropReason::PolicyDenied);
    }
}

/// The address goes to another pod: what was allowed to the old one is nothing to the new one, in any role.
#[test]
fn an_address_in_new_hands_has_no_connections() {
    for family in FAMILIES {
        let (a, b) = ends(family);
        for who in [&ALICE, &BOB] {
            let mut lab = Lab::open();
            lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE)).delivered(&ALICE, &BOB);
            lab.send(&BOB, &tcp(b, a, SYN | ACK).sent_by(&BOB)).delivered(&BOB, &ALICE);
            // Nobody purged, the revisions are even the same; only the life is another.
            lab.change_pod(who, |info| info.generation = next_revision());
            for pod in [&ALICE, &BOB] {
                drop(lab.datapath.policies.install(&[pod.endpoint()], &table([])).unwrap());
            }
            lab.send(&ALICE, &tcp(a, b, ACK).sent_by(&ALICE)).dropped_from(&ALICE, DropReason::PolicyDenied);
            lab.send(&BOB, &tcp(b, a, ACK).sent_by(&BOB)).dropped_from(&BOB, DropReason::PolicyDenied);
        }
    }
}

#[test]
fn purging_an_address_forgets_its_connections_alone() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        let (a, b) = ends(family);
        let carol = (CAROL.ip(family), 80);
        lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        lab.send(&ALICE, &tcp(a, carol, SYN).sent_by(&ALICE)).delivered(&ALICE, &CAROL);
        assert_eq!(lab.datapath.conntrack.purge(&[b.0]).unwrap(), 1);
        let [left] = lab.connections()[..] else { panic!() };
        assert_eq!(left.destination.ip(), carol.0);
        assert_eq!(left.source, a.into());
    }
}

#[test]
fn tcp_lives_as_long_as_it_should() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        let (a, b) = ends(family);
        let mut packet = |forward: bool, flags: u8| {
            if forward {
                lab.send(&ALICE, &tcp(a, b, flags).sent_by(&ALICE)).delivered(&ALICE, &BOB);
            } else {
                lab.send(&BOB, &tcp(b, a, flags).sent_by(&BOB)).delivered(&BOB, &ALICE);
            }
            expires_in(&lab)
        };
        let near = |left: u32, want: u32| assert!(left == want || left + 1 == want, "{left}, not {want}");
        near(packet(true, SYN), DEFAULT);
        near(packet(true, SYN), DEFAULT);
        near(packet(false, SYN | ACK), ESTABLISHED);
        near(packet(true, ACK), ESTABLISHED);
        // Half closed for as long as it takes.
        near(packet(true, FIN | ACK), ESTABLISHED);
        near(packet(false, ACK), ESTABLISHED);
        near(packet(false, FIN | ACK), CLOSING);
        near(packet(true, ACK), CLOSING);
        // The next connection with the same ports.
        near(packet(true, SYN), DEFAULT);
        near(packet(false, SYN | ACK), ESTABLISHED);
        near(packet(false, RST), CLOSING);
    }
    for family in FAMILIES {
        let mut lab = Lab::open();
        let (a, b) = ends(family);
        lab.send(&ALICE, &udp(a, b).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        assert_expires_in(&lab, DEFAULT);
        lab.send(&BOB, &udp(b, a).sent_by(&BOB)).delivered(&BOB, &ALICE);
        assert_expires_in(&lab, DEFAULT);
    }
}

#[test]
fn after_its_end_an_entry_permits_nothing() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        one_way(&mut lab);
        let (a, b) = ends(family);
        lab.send(&ALICE, &udp(a, b).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        lab.send(&BOB, &udp(b, a).sent_by(&BOB)).delivered(&BOB, &ALICE);
        lab.datapath.conntrack.age(DEFAULT).unwrap();
        lab.send(&BOB, &udp(b, a).sent_by(&BOB)).dropped_from(&BOB, DropReason::PolicyDenied);
        // The opener may begin again, in the same entry.
        lab.send(&ALICE, &udp(a, b).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        lab.send(&BOB, &udp(b, a).sent_by(&BOB)).delivered(&BOB, &ALICE);
        assert_eq!(lab.datapath.conntrack.opened_by(ALICE.endpoint()).unwrap(), 1);
    }
}

/// A closed connection's ports may be used again, but the new connection is judged, in either direction.
#[test]
fn a_closed_connection_gives_no_right_to_a_new_one() {
    for family in FAMILIES {
        for close in [RST, FIN] {
            let mut lab = Lab::open();
            one_way(&mut lab);
            let (a, b) = ends(family);
            lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE)).delivered(&ALICE, &BOB);
            lab.send(&BOB, &tcp(b, a, SYN | ACK).sent_by(&BOB)).delivered(&BOB, &ALICE);
            lab.send(&BOB, &tcp(b, a, close | ACK).sent_by(&BOB)).delivered(&BOB, &ALICE);
            lab.send(&ALICE, &tcp(a, b, close | ACK).sent_by(&ALICE)).delivered(&ALICE, &BOB);
            // From the target: never, closed or not.
            lab.send(&BOB, &tcp(b, a, SYN).sent_by(&BOB)).dropped_from(&BOB, DropReason::PolicyDenied);
            // From the opener: judged as new. The revision is old, the verdict not.
            drop(lab.datapath.policies.install(&[ALICE.endpoint()], &table([])).unwrap());
            lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE)).dropped_from(&ALICE, DropReason::PolicyDenied);
            // What belongs to the end of the old one still passes.
            lab.send(&ALICE, &tcp(a, b, ACK).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        }
    }
}

#[test]
fn a_bare_syn_is_no_answer() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        one_way(&mut lab);
        let (a, b) = ends(family);
        lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        lab.send(&BOB, &tcp(b, a, SYN).sent_by(&BOB)).dropped_from(&BOB, DropReason::PolicyDenied);
        lab.send(&BOB, &tcp(b, a, SYN | ACK).sent_by(&BOB)).delivered(&BOB, &ALICE);
        // Where both may connect, opening at the same moment works.
        let mut lab = Lab::open();
        lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        lab.send(&BOB, &tcp(b, a, SYN).sent_by(&BOB)).delivered(&BOB, &ALICE);
        lab.send(&ALICE, &tcp(a, b, SYN | ACK).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        lab.send(&BOB, &tcp(b, a, SYN | ACK).sent_by(&BOB)).delivered(&BOB, &ALICE);
    }
}

#[test]
fn a_connection_found_in_the_middle_is_judged_as_new() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        let (a, b) = ends(family);
        lab.send(&ALICE, &tcp(a, b, ACK).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        lab.policy(&ALICE, &table([]));
        lab.datapath.conntrack.purge(&[a.0]).unwrap();
        lab.send(&ALICE, &tcp(a, b, ACK).sent_by(&ALICE)).dropped_from(&ALICE, DropReason::PolicyDenied);
    }
}

#[test]
fn each_endpoint_has_its_share_of_connections() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        lab.change_settings(|settings| *settings = Settings { conntrack_quota: 5, ..*settings });
        let b = (BOB.ip(family), 80);
        for port in 1..=5 {
            let packet = tcp((ALICE.ip(family), port), b, SYN).sent_by(&ALICE);
            lab.send(&ALICE, &packet).delivered(&ALICE, &BOB);
        }
        let more = tcp((ALICE.ip(family), 6), b, SYN).sent_by(&ALICE);
        let event = lab.send(&ALICE, &more).dropped_from(&ALICE, DropReason::RateLimited);
        assert_eq!(event.destination_identity, BOB.identity);
        // What is open goes on, also with the ports used again; others have their own share; answers are free.
        let known = (ALICE.ip(family), 1);
        lab.send(&ALICE, &tcp(known, b, RST).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        lab.send(&ALICE, &tcp(known, b, SYN).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        lab.send(&BOB, &tcp(b, known, SYN | ACK).sent_by(&BOB)).delivered(&BOB, &ALICE);
        lab.send(&BOB, &tcp((BOB.ip(family), 9), known, SYN).sent_by(&BOB)).delivered(&BOB, &ALICE);
        assert_eq!(lab.datapath.conntrack.opened_by(ALICE.endpoint()).unwrap(), 5);
        // What comes from outside is nobody's share.
        let incoming = tcp((outside(family), 7), (ALICE.ip(family), 80), SYN).brought_to(&ALICE);
        lab.receive(&ALICE, &incoming, From::Device).passes_to(&ALICE);
        // Clearing away sets the count to the truth.
        let collected = lab.datapath.conntrack.collect(conntrack::now() + DEFAULT + 1).unwrap();
        assert_eq!(collected.live + collected.removed, 7);
        let left = lab.datapath.conntrack.opened_by(ALICE.endpoint()).unwrap();
        assert!(left <= 1, "{left} (the one that was answered lives on)");
        lab.send(&ALICE, &more).delivered(&ALICE, &BOB);
    }
}

/// A full table forgets the connection that was silent longest, and a forgotten one is judged as new: it never
/// becomes permission.
#[test]
fn a_full_table_never_permits() {
    for family in FAMILIES {
        let mut lab = Lab::with(&sluice_ebpf_loader::Sizes { conntrack: 64, ..small() });
        for pod in [&ALICE, &BOB] {
            lab.pod(pod, EndpointFlags::READY);
            lab.policy(pod, &allow_all());
        }
        one_way(&mut lab);
        let b = (BOB.ip(family), 80);
        for port in 1_000..2_000 {
            let packet = udp((ALICE.ip(family), port), b).sent_by(&ALICE);
            lab.send(&ALICE, &packet).delivered(&ALICE, &BOB);
        }
        assert!(lab.connections().len() <= 64 + 256, "{}", lab.connections().len());
        lab.send(&BOB, &udp(b, (ALICE.ip(family), 1_000)).sent_by(&BOB))
            .dropped_from(&BOB, DropReason::PolicyDenied);
    }
}

#[test]
fn collecting_removes_only_what_is_over() {
    let mut lab = Lab::open();
    for family in FAMILIES {
        let (a, b) = ends(family);
        lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        lab.send(&BOB, &tcp(b, a, SYN | ACK).sent_by(&BOB)).delivered(&BOB, &ALICE);
        lab.send(&ALICE, &udp(a, b).sent_by(&ALICE)).delivered(&ALICE, &BOB);
    }
    let collected = lab.datapath.conntrack.collect(conntrack::now()).unwrap();
    assert_eq!((collected.live, collected.removed), (4, 0));
    let collected = lab.datapath.conntrack.collect(conntrack::now() + DEFAULT + 1).unwrap();
    assert_eq!((collected.live, collected.removed), (2, 2));
    assert_eq!(lab.datapath.conntrack.opened_by(ALICE.endpoint()).unwrap(), 2);
}

#[test]
fn an_entry_tells_what_it_stands_for() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        let rules = [
            allow(Direction::Egress, BOB.peer(), L4Match::port(Protocol::Tcp, 80), 11),
            allow(Direction::Ingress, None, L4Match::Any, 0),
        ];
        lab.policy(&ALICE, &table(rules));
        lab.policy(&BOB, &table([allow(Direction::Ingress, ALICE.peer(), L4Match::Any, 22)]));
        let (a, b) = ends(family);
        let request = tcp(a, b, SYN).sent_by(&ALICE);
        lab.send(&ALICE, &request).delivered(&ALICE, &BOB);
        let answer = tcp(b, a, SYN | ACK).sent_by(&BOB);
        lab.send(&BOB, &answer).delivered(&BOB, &ALICE);
        let [connection] = lab.connections()[..] else { panic!() };
        assert_eq!((connection.source, connection.destination), (a.into(), b.into()));
        assert_eq!(connection.protocol, TCP);
        let entry = connection.entry;
        assert_eq!((entry.egress_rule, entry.ingress_rule), (11, 22));
        assert_eq!((entry.source_identity, entry.destination_identity), (ALICE.identity, BOB.identity));
        assert_eq!((entry.source_endpoint, entry.destination_endpoint), (ALICE.id, BOB.id));
        assert_eq!(entry.packets, [1, 1]);
        assert_eq!(entry.bytes, [request.len() as u64, answer.len() as u64]);
        let judged = ConntrackFlags::EGRESS_JUDGED.with(ConntrackFlags::INGRESS_JUDGED);
        assert!(entry.flags.contains(judged.with(ConntrackFlags::REPLIED)));
    }
}

/// Behind another plugin: each end is judged at its own hook, and the stack delivers.
#[test]
fn chained_pods() {
    for family in FAMILIES {
        for (alice, bob) in [(true, true), (true, false), (false, true)] {
            let mut lab = Lab::open();
            let flags = |chained| {
                if chained { EndpointFlags::READY.with(EndpointFlags::CHAINED) } else { EndpointFlags::READY }
            };
            lab.pod(&ALICE, flags(alice));
            lab.pod(&BOB, flags(bob));
            one_way(&mut lab);
            let (a, b) = ends(family);
            let request = tcp(a, b, SYN);
            let answer = tcp(b, a, SYN | ACK);
            let from_alice = From::Pod(&ALICE);
            let from_bob = From::Pod(&BOB);
            lab.send(&BOB, &answer.sent_by(&BOB)).dropped_from(&BOB, DropReason::PolicyDenied);
            lab.send(&ALICE, &request.sent_by(&ALICE)).passes_from(&ALICE);
            // Alice's word alone does not let Bob answer.
            lab.send(&BOB, &answer.sent_by(&BOB)).dropped_from(&BOB, DropReason::PolicyDenied);
            lab.receive(&BOB, &request.brought_to(&BOB), from_alice).passes_to(&BOB);
            lab.send(&BOB, &answer.sent_by(&BOB)).passes_from(&BOB);
            lab.receive(&ALICE, &answer.brought_to(&ALICE), from_bob).passes_to(&ALICE);
            lab.send(&ALICE, &tcp(a, b, ACK).sent_by(&ALICE)).passes_from(&ALICE);
            lab.receive(&BOB, &tcp(a, b, ACK).brought_to(&BOB), from_alice).passes_to(&BOB);
            // A target that closes, at its own hook.
            lab.policy(&BOB, &table([]));
            lab.send(&ALICE, &tcp(a, b, ACK).sent_by(&ALICE)).passes_from(&ALICE);
            lab.receive(&BOB, &tcp(a, b, ACK).brought_to(&BOB), from_alice)
                .dropped_to(&BOB, DropReason::PolicyDenied);
        }
    }
}

/// An answer whose opener was not judged under this tuple (its destination was translated on the way) goes back
/// through the stack, and the opener's hook judges what it sees.
#[test]
fn an_answer_to_a_translated_connection_takes_the_way_back() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        one_way(&mut lab);
        let (a, b) = ends(family);
        let service = (outside(family), 80);
        lab.send(&ALICE, &tcp(a, service, SYN).sent_by(&ALICE)).passes_from(&ALICE);
        lab.receive(&BOB, &tcp(a, b, SYN).brought_to(&BOB), From::Pod(&ALICE)).passes_to(&BOB);
        lab.send(&BOB, &tcp(b, a, SYN | ACK).sent_by(&BOB)).passes_from(&BOB);
        lab.receive(&ALICE, &tcp(service, a, SYN | ACK).brought_to(&ALICE), From::Pod(&BOB))
            .passes_to(&ALICE);
        // Without the translation back it is no answer to anything Alice said.
        lab.receive(&ALICE, &tcp(b, a, SYN | ACK).brought_to(&ALICE), From::Pod(&BOB))
            .dropped_to(&ALICE, DropReason::PolicyDenied);
        // And after a new policy that still allows.
        lab.policy(&BOB, &closed(Direction::Egress));
        lab.send(&BOB, &tcp(b, a, ACK).sent_by(&BOB)).passes_from(&BOB);
    }
}

#[test]
fn nothing_passes_before_there_is_policy() {
    for family in FAMILIES {
        let (a, b) = ends(family);
        let packet = tcp(a, b, SYN);
        // Unknown interface.
        let mut lab = Lab::empty();
        lab.send(&ALICE, &packet.sent_by(&ALICE)).dropped(0, DropReason::EndpointNotReady, 1);
        lab.receive(&BOB, &packet.brought_to(&BOB), From::Node).dropped(0, DropReason::EndpointNotReady, 0);
        // Known, but not ready.
        lab.pod(&ALICE, EndpointFlags::default());
        lab.pod(&BOB, EndpointFlags::default());
        let event =
            lab.send(&ALICE, &packet.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::EndpointNotReady);
        assert_eq!(event.family, family);
        lab.receive(&BOB, &packet.brought_to(&BOB), From::Node)
            .dropped_to(&BOB, DropReason::EndpointNotReady);
        let arp = frame(ALICE.mac, ALICE.host_mac, ARP, &arp(ALICE.mac, ALICE.ipv4, BOB.ipv4, 1));
        lab.send(&ALICE, &arp).dropped_from(&ALICE, DropReason::EndpointNotReady);
        // Ready, but without a policy map.
        lab.pod(&ALICE, EndpointFlags::READY);
        let event =
            lab.send(&ALICE, &packet.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::EndpointNotReady);
        assert_eq!(event.destination_identity, BOB.identity);
        lab.pod(&BOB, EndpointFlags::READY);
        lab.send(&ALICE, &packet.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::NoPolicy);
        lab.policy(&ALICE, &allow_all());
        lab.send(&ALICE, &packet.sent_by(&ALICE)).dropped_to(&BOB, DropReason::NoPolicy);
        lab.policy(&BOB, &allow_all());
        lab.send(&ALICE, &packet.sent_by(&ALICE)).delivered(&ALICE, &BOB);
        // And taken away again.
        lab.datapath.policies.remove(BOB.endpoint()).unwrap();
        lab.change_pod(&BOB, |info| info.revision = next_revision());
        lab.send(&ALICE, &packet.sent_by(&ALICE)).dropped_to(&BOB, DropReason::NoPolicy);
        lab.datapath.endpoints.remove(BOB.endpoint()).unwrap();
        lab.send(&ALICE, &packet.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::EndpointNotReady);
    }
}

/// The address leads to an endpoint that has another one by now: neither delivered to it, nor taken for it.
#[test]
fn an_ipcache_that_is_older_than_its_endpoint() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        let (a, b) = ends(family);
        lab.address(b.0, BOB.identity, CAROL.id, IpcacheFlags::default());
        lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE)).dropped_from(&ALICE, DropReason::EndpointNotReady);
        let packet = tcp(b, a, SYN).brought_to(&ALICE);
        lab.receive(&ALICE, &packet, From::Pod(&CAROL)).dropped_to(&ALICE, DropReason::InvalidSourceIp);
    }
}

#[test]
fn a_known_connection_stops_when_an_end_is_not_ready() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        let (a, b) = ends(family);
        lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE)).delivered(&ALICE, &BOB);
        lab.change_pod(&BOB, |info| info.flags = EndpointFlags::default());
        lab.send(&ALICE, &tcp(a, b, ACK).sent_by(&ALICE)).dropped_from(&ALICE, DropReason::EndpointNotReady);
        lab.change_pod(&BOB, |info| info.flags = EndpointFlags::READY);
        lab.send(&ALICE, &tcp(a, b, ACK).sent_by(&ALICE)).delivered(&ALICE, &BOB);
    }
}

#[test]
fn a_redirect_without_a_proxy_is_closed() {
    use sluice_policy::map_state::EntryVerdict;
    use sluice_types::ProxyPort;
    for family in FAMILIES {
        let mut lab = Lab::open();
        let l4 = L4Match::port(Protocol::Tcp, 80);
        let redirect =
            row(Direction::Ingress, ALICE.peer(), l4, LOW, EntryVerdict::Redirect(ProxyPort(10_000)), 5);
        let mut state = table([redirect]);
        for audit in [false, true] {
            state.audit_ingress = audit;
            lab.policy(&BOB, &state);
            let (a, b) = ends(family);
            let event = lab
                .send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE))
                .dropped_to(&BOB, DropReason::SocketLookupFailed);
            assert_eq!(event.rule, 5);
        }
    }
}

#[test]
fn audit_lets_pass_and_tells() {
    for family in FAMILIES {
        let (a, b) = ends(family);
        let denies = table([deny(Direction::Ingress, None, L4Match::Any, 9)]).entries;
        let staged = |staged| MapState { staged, staged_ingress: true, ..allow_all() };
        // What is audited, the reason that is told, and the rule.
        for (state, reason, rule) in [
            (MapState { audit_ingress: true, ..table([]) }, DropReason::PolicyDenied, 0),
            (staged(denies), DropReason::PolicyDeny, 9),
            (staged([].into()), DropReason::PolicyDenied, 0),
        ] {
            let mut lab = Lab::open();
            lab.policy(&BOB, &state);
            let outcome = lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE));
            outcome.delivered_with_events(&ALICE, &BOB);
            let [event] = outcome.events[..] else { panic!("{outcome:?}") };
            assert_eq!(event.kind, EventKind::PolicyVerdict as u8);
            assert_eq!(event.action, EventAction::Audit as u8);
            assert_eq!((event.reason, event.rule), (reason.number(), rule));
            assert_eq!((event.endpoint, event.direction), (BOB.id, 0));
            let [connection] = lab.connections()[..] else { panic!() };
            assert!(connection.entry.flags.contains(ConntrackFlags::AUDITED));
            // Told once for a connection, not for each packet.
            lab.send(&ALICE, &tcp(a, b, ACK).sent_by(&ALICE)).delivered(&ALICE, &BOB);
            lab.send(&BOB, &tcp(b, a, ACK).sent_by(&BOB)).delivered(&BOB, &ALICE);
            // Enforced again, it is cut.
            lab.policy(&BOB, &table([]));
            lab.send(&ALICE, &tcp(a, b, ACK).sent_by(&ALICE)).dropped_to(&BOB, DropReason::PolicyDenied);
        }
    }
}

/// Audit of one direction or of one side is not audit of the other.
#[test]
fn audit_is_for_its_own_direction() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        let (a, b) = ends(family);
        let mut state = table([]);
        state.audit_egress = true;
        lab.policy(&BOB, &state);
        lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE)).dropped_to(&BOB, DropReason::PolicyDenied);
        lab.policy(&ALICE, &state);
        // Alice's egress would be refused and is told; Bob's ingress is refused.
        let outcome = lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE));
        assert_eq!(outcome.run.verdict, 2);
        assert_eq!(outcome.counted.keys().copied().collect::<Vec<_>>(), [(BOB.id, 133, 0)]);
    }
}

#[test]
fn verdicts_of_new_connections_are_told_if_wanted() {
    for family in FAMILIES {
        let mut lab = Lab::open();
        lab.flag(ConfigFlags::VERDICT_EVENTS, true);
        let (a, b) = ends(family);
        let outcome = lab.send(&ALICE, &tcp(a, b, SYN).sent_by(&ALICE));
        outcome.delivered_with_events(&ALICE, &BOB);
        let told: Vec<_> = outcome
            .events
            .iter()
            .map(|event| (event.kind, event.action, event.endpoint, event.direction))
            .collect();
        let verdict = EventKind::PolicyVerdict as u8;
        assert_eq!(told, [(verdict, 0, ALICE.id, 1), (verdict, 0, BOB.id, 0)]);
        lab.send(&ALICE, &tcp(a, b, ACK).sent_by(&ALICE)).delivered(&ALICE, &BOB);
    }
}

#[test]
fn reports_are_limited_and_the_loss_is_known() {
    // Limits are per CPU.
    stay_on_this_cpu();
    let mut lab = Lab::open();
    lab.policy(&ALICE, &table([]));
    lab.change_settings(|settings| settings.events_per_second = 3);
    let packet = udp((ALICE.ip(4), 1), (BOB.ip(4), 2)).sent_by(&ALICE);
    let mut told = 0;
    for _ in 0..50 {
        told += lab.send(&ALICE, &packet).events.len();
    }
    assert!((3..50).contains(&told), "{told}");
    let reported = lab.datapath.counters.reported(Some(DropReason::PolicyDenied)).unwrap();
    assert_eq!(reported.sent, told as u64);
    assert_eq!(reported.lost, 50 - told as u64);
    // Every packet is counted all the same, and another reason has a limit of its own.
    let counted = lab
        .datapath
        .counters
        .read(Some(ALICE.endpoint()), Direction::Egress, Some(DropReason::PolicyDenied))
        .unwrap();
    assert_eq!(counted.packets, 50);
    assert_eq!(counted.bytes, 50 * packet.len() as u64);
    let mut other = packet.clone();
    other[6..12].copy_from_slice(&BOB.mac);
    lab.send(&ALICE, &other).dropped_from(&ALICE, DropReason::InvalidSourceMac);
    // The next event says how many were lost before it.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let lost: u32 = (0..8).flat_map(|_| lab.send(&ALICE, &packet).events).map(|event| event.lost).sum();
    assert!(lost > 0);
}
