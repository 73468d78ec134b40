//! A pod speaks only for itself: whatever claims otherwise is dropped at its own hook, or at the target's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::support::packet::*;
use crate::support::*;
use sluice_ebpf_loader::common::{EndpointFlags, IpcacheFlags};
use sluice_types::{DropReason, Identity};

fn hello(family: u8) -> Ip {
    tcp((ALICE.ip(family), 40_000), (BOB.ip(family), 80), SYN)
}

#[test]
fn source_mac_must_be_the_pods() {
    let mut lab = Lab::open();
    for family in FAMILIES {
        let mut bytes = hello(family).sent_by(&ALICE);
        bytes[6..12].copy_from_slice(&BOB.mac);
        let event = lab.send(&ALICE, &bytes).dropped_from(&ALICE, DropReason::InvalidSourceMac);
        assert_eq!(event.family, family);
        assert_eq!(event.source_identity, ALICE.identity);
    }
}

#[test]
fn source_address_must_be_the_pods() {
    let mut lab = Lab::open();
    for family in FAMILIES {
        let zero: IpAddr =
            if family == 4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let loopback: IpAddr =
            if family == 4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        for source in [BOB.ip(family), outside(family), node(family), zero, loopback] {
            let packet = Ip { source, ..hello(family) };
            lab.send(&ALICE, &packet.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::InvalidSourceIp);
        }
    }
    let source = IpAddr::V6(ALICE.link_local());
    let packet = Ip { source, ..hello(6) };
    lab.send(&ALICE, &packet.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::InvalidSourceIp);
}

#[test]
fn an_endpoint_without_an_address_of_a_family_may_not_use_it() {
    let mut lab = Lab::open();
    lab.change_pod(&ALICE, |info| (info.ipv4_be, info.ipv6_be) = ([0; 4], [0; 16]));
    for family in FAMILIES {
        lab.send(&ALICE, &hello(family).sent_by(&ALICE)).dropped_from(&ALICE, DropReason::InvalidSourceIp);
        let zero: IpAddr =
            if family == 4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let packet = Ip { source: zero, ..hello(family) };
        lab.send(&ALICE, &packet.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::InvalidSourceIp);
    }
}

#[test]
fn only_arp_and_ip_without_tags() {
    let mut lab = Lab::open();
    let body = hello(4).bytes();
    let cases = [
        (0x8100, DropReason::VlanFiltered),
        (0x88a8, DropReason::VlanFiltered),
        (0x8847, DropReason::UnsupportedL2Protocol),
        (0x88cc, DropReason::UnsupportedL2Protocol),
        (0x0040, DropReason::UnsupportedL2Protocol),
    ];
    for (ethertype, reason) in cases {
        let bytes = frame(ALICE.mac, ALICE.host_mac, ethertype, &body);
        let event = lab.send(&ALICE, &bytes).dropped_from(&ALICE, reason);
        assert_eq!((event.family, event.protocol), (0, 0), "{ethertype:#x}");
    }
    let bytes = frame(ALICE.host_mac, ALICE.mac, 0x88cc, &body);
    lab.receive(&ALICE, &bytes, From::Node).dropped_to(&ALICE, DropReason::UnsupportedL2Protocol);
}

#[test]
fn arp_speaks_for_the_pod_alone() {
    let mut lab = Lab::open();
    let gateway = Ipv4Addr::new(169, 254, 1, 1);
    let send = |mac: [u8; 6], body: &[u8]| frame(mac, ALICE.host_mac, ARP, body);
    for operation in [1, 2] {
        let good = arp(ALICE.mac, ALICE.ipv4, gateway, operation);
        lab.send(&ALICE, &send(ALICE.mac, &good)).passes_from(&ALICE);
        let probe = arp(ALICE.mac, Ipv4Addr::UNSPECIFIED, ALICE.ipv4, operation);
        lab.send(&ALICE, &send(ALICE.mac, &probe)).passes_from(&ALICE);
        let other_mac = arp(BOB.mac, ALICE.ipv4, gateway, operation);
        lab.send(&ALICE, &send(ALICE.mac, &other_mac)).dropped_from(&ALICE, DropReason::InvalidSourceMac);
        let other_frame = arp(ALICE.mac, ALICE.ipv4, gateway, operation);
        lab.send(&ALICE, &send(BOB.mac, &other_frame)).dropped_from(&ALICE, DropReason::InvalidSourceMac);
        for sender in [BOB.ipv4, gateway] {
            let other = arp(ALICE.mac, sender, sender, operation);
            lab.send(&ALICE, &send(ALICE.mac, &other)).dropped_from(&ALICE, DropReason::InvalidSourceIp);
        }
    }
    let short = &arp(ALICE.mac, ALICE.ipv4, gateway, 1)[..27];
    lab.send(&ALICE, &send(ALICE.mac, short)).dropped_from(&ALICE, DropReason::CtTruncatedOrInvalidHeader);
    let mut strange = arp(ALICE.mac, ALICE.ipv4, gateway, 1);
    strange[4] = 8;
    lab.send(&ALICE, &send(ALICE.mac, &strange)).dropped_from(&ALICE, DropReason::InvalidPacketDropped);
    let answer = arp(ALICE.host_mac, gateway, ALICE.ipv4, 2);
    lab.receive(&ALICE, &frame(ALICE.host_mac, ALICE.mac, ARP, &answer), From::Node).passes_to(&ALICE);
}

#[test]
fn a_pod_is_no_dhcp_server() {
    let mut lab = Lab::open();
    for (family, server, client) in [(4, 67, 68), (6, 547, 546)] {
        let offer = udp((ALICE.ip(family), server), (BOB.ip(family), client));
        lab.send(&ALICE, &offer.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::UnknownSender);
        let request = udp((ALICE.ip(family), client), (outside(family), server));
        lab.send(&ALICE, &request.sent_by(&ALICE)).passes_from(&ALICE);
        let other = tcp((ALICE.ip(family), server), (BOB.ip(family), 80), SYN);
        lab.send(&ALICE, &other.sent_by(&ALICE)).delivered(&ALICE, &BOB);
    }
}

#[test]
fn no_way_to_the_nodes_loopback() {
    let mut lab = Lab::open();
    for (family, address) in [
        (4, IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1))),
        (4, IpAddr::V4(Ipv4Addr::new(127, 8, 0, 1))),
        (6, IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ] {
        let packet = tcp((ALICE.ip(family), 40_000), (address, 6443), SYN);
        lab.send(&ALICE, &packet.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::InvalidPacketDropped);
    }
}

/// At the target: each source only by the way it can really come.
#[test]
fn a_source_comes_by_its_own_interface() {
    let mut lab = Lab::open();
    for family in FAMILIES {
        let packet = |source| tcp((source, 40_000), (BOB.ip(family), 80), SYN).brought_to(&BOB);
        // (source, by which way, passes)
        let cases = [
            (node(family), From::Node, true),
            (node(family), From::Device, false),
            (node(family), From::Pod(&ALICE), false),
            (ALICE.ip(family), From::Pod(&ALICE), true),
            (ALICE.ip(family), From::Pod(&CAROL), false),
            (ALICE.ip(family), From::Device, false),
            (ALICE.ip(family), From::Node, false),
            (outside(family), From::Device, true),
        ];
        for (source, from, passes) in cases {
            let outcome = lab.receive(&BOB, &packet(source), from);
            if passes {
                outcome.passes_to(&BOB);
            } else {
                let event = outcome.dropped_to(&BOB, DropReason::InvalidSourceIp);
                assert_eq!(event.destination_identity, BOB.identity);
            }
        }
    }
}

/// The same once the connection is known: the entry must not make the check go away.
#[test]
fn a_known_connection_still_comes_by_its_own_interface() {
    let mut lab = Lab::open();
    for family in FAMILIES {
        for (source, right, wrong) in [
            (node(family), From::Node, From::Device),
            (ALICE.ip(family), From::Pod(&ALICE), From::Pod(&CAROL)),
        ] {
            let packet = |flags| tcp((source, 40_001), (BOB.ip(family), 80), flags).brought_to(&BOB);
            lab.receive(&BOB, &packet(SYN), right).passes_to(&BOB);
            lab.receive(&BOB, &packet(ACK), right).passes_to(&BOB);
            lab.receive(&BOB, &packet(ACK), wrong).dropped_to(&BOB, DropReason::InvalidSourceIp);
            lab.receive(&BOB, &packet(ACK), right).passes_to(&BOB);
        }
    }
}

#[test]
fn a_chained_pod_comes_by_the_bridge_but_never_from_the_node() {
    let mut lab = Lab::open();
    lab.pod(&ALICE, EndpointFlags::READY.with(EndpointFlags::CHAINED));
    for family in FAMILIES {
        let packet = tcp((ALICE.ip(family), 40_000), (BOB.ip(family), 80), SYN).brought_to(&BOB);
        lab.receive(&BOB, &packet, From::Device).passes_to(&BOB);
        lab.receive(&BOB, &packet, From::Node).dropped_to(&BOB, DropReason::InvalidSourceIp);
    }
}

#[test]
fn only_packets_for_the_pod_itself_are_delivered() {
    let mut lab = Lab::open();
    for family in FAMILIES {
        let packet = tcp((node(family), 40_000), (BOB.ip(family), 80), SYN).brought_to(&ALICE);
        lab.receive(&ALICE, &packet, From::Node).dropped_to(&ALICE, DropReason::InvalidIdentity);
        let group: IpAddr = if family == 4 {
            Ipv4Addr::new(224, 0, 0, 251).into()
        } else {
            "ff02::fb".parse::<Ipv6Addr>().unwrap().into()
        };
        let packet = udp((node(family), 5353), (group, 5353)).brought_to(&ALICE);
        lab.receive(&ALICE, &packet, From::Node).passes_to(&ALICE);
    }
    let packet = udp((node(4), 5353), (Ipv4Addr::BROADCAST.into(), 5353)).brought_to(&ALICE);
    lab.receive(&ALICE, &packet, From::Node).passes_to(&ALICE);
}

/// What stays on the link can only reach the node: it is judged as traffic with the node, whatever the world may.
#[test]
fn the_link_is_the_nodes() {
    use sluice_policy::map_state::L4Match;
    use sluice_types::Direction;
    let mut lab = Lab::open();
    let worlds = [Identity::WORLD_IPV4, Identity::WORLD_IPV6];
    lab.policy(&ALICE, &table(worlds.map(|world| allow(Direction::Egress, Some(world), L4Match::Any, 1))));
    for family in FAMILIES {
        let packet = udp((ALICE.ip(family), 40_000), (outside(family), 53));
        lab.send(&ALICE, &packet.sent_by(&ALICE)).passes_from(&ALICE);
    }
    for address in ["255.255.255.255", "224.0.0.1", "fe80::1", "ff02::1", "ff01::1"] {
        let address: IpAddr = address.parse().unwrap();
        let source = ALICE.ip(if address.is_ipv4() { 4 } else { 6 });
        let packet = udp((source, 40_000), (address, 53));
        let event = lab.send(&ALICE, &packet.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::PolicyDenied);
        assert_eq!(event.destination_identity, Identity::HOST.as_u32(), "{address}");
    }
}

#[test]
fn nobody_outside_has_an_address_of_this_node() {
    let mut lab = Lab::open();
    lab.prefix("198.51.100.0/24".parse().unwrap(), 9_000, 0, IpcacheFlags::default());
    for family in FAMILIES {
        let packet = |source| tcp((source, 40_000), (BOB.ip(family), 80), SYN).brought_to(&BOB);
        for (source, identity) in
            [(ALICE.ip(family), ALICE.identity), (node(family), Identity::HOST.as_u32())]
        {
            let event = lab.arrive(&packet(source)).dropped(0, DropReason::InvalidSourceIp, 0);
            assert_eq!(event.source_identity, identity);
            assert_eq!(event.family, family);
        }
        lab.arrive(&packet(outside(family))).passes_by();
    }
    lab.arrive(&tcp(("198.51.100.7".parse().unwrap(), 1), (BOB.ip(4), 80), SYN).brought_to(&BOB)).passes_by();
    lab.arrive(&frame([1; 6], [2; 6], 0x88cc, &[0; 40])).passes_by();
}
