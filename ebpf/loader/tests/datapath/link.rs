//! IPv6 neighbour discovery: a pod claims only its own addresses, is no router, and cannot use what passes without
//! policy to reach beyond its link.

use std::net::Ipv6Addr;

use crate::support::packet::*;
use crate::support::*;
use sluice_policy::map_state::L4Match;
use sluice_types::{Direction, DropReason, Protocol};

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_OPTION: u8 = 1;
const TARGET_OPTION: u8 = 2;

fn gateway() -> Ipv6Addr {
    "fe80::1".parse().unwrap()
}

fn all_nodes() -> Ipv6Addr {
    "ff02::1".parse().unwrap()
}

/// The group that hears solicitations for an address.
fn solicited(target: Ipv6Addr) -> Ipv6Addr {
    let [.., x, y, z] = target.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z])
}

/// A pod whose policy lets nothing out, so that what passes did so without it.
fn lab() -> Lab {
    let mut lab = Lab::open();
    lab.policy(&ALICE, &table([]));
    lab
}

#[test]
fn a_pod_finds_its_gateway_and_answers_for_itself() {
    let mut lab = lab();
    let own = Some((SOURCE_OPTION, ALICE.mac));
    let answer = Some((TARGET_OPTION, ALICE.mac));
    for (name, packet) in [
        ("from its address", neighbour(ALICE.ipv6, solicited(gateway()), SOLICITATION, gateway(), own)),
        ("from its link-local", neighbour(ALICE.link_local(), gateway(), SOLICITATION, gateway(), own)),
        ("probe", neighbour(Ipv6Addr::UNSPECIFIED, solicited(ALICE.ipv6), SOLICITATION, ALICE.ipv6, None)),
        (
            "probe for its link-local",
            neighbour(
                Ipv6Addr::UNSPECIFIED,
                solicited(ALICE.link_local()),
                SOLICITATION,
                ALICE.link_local(),
                None,
            ),
        ),
        ("answer", neighbour(ALICE.ipv6, gateway(), ADVERTISEMENT, ALICE.ipv6, answer)),
        ("answer without option", neighbour(ALICE.ipv6, gateway(), ADVERTISEMENT, ALICE.ipv6, None)),
        (
            "answer to all",
            neighbour(ALICE.link_local(), all_nodes(), ADVERTISEMENT, ALICE.link_local(), answer),
        ),
        ("answer to the node", {
            let std::net::IpAddr::V6(node) = node(6) else { unreachable!() };
            neighbour(ALICE.ipv6, node, ADVERTISEMENT, ALICE.ipv6, answer)
        }),
    ] {
        println!("{name}");
        lab.send(&ALICE, &packet.sent_by(&ALICE)).passes_from(&ALICE);
    }
}

#[test]
fn what_it_claims_for_others_is_dropped() {
    let mut lab = lab();
    let forbidden = DropReason::ForbiddenIcmpv6Message;
    let spoofed = DropReason::InvalidSourceIp;
    let own = Some((TARGET_OPTION, ALICE.mac));
    let other = Some((TARGET_OPTION, BOB.mac));
    let unspecified = Ipv6Addr::UNSPECIFIED;
    for (name, packet, reason) in [
        ("another's address", neighbour(ALICE.ipv6, all_nodes(), ADVERTISEMENT, BOB.ipv6, own), forbidden),
        ("the gateway", neighbour(ALICE.ipv6, all_nodes(), ADVERTISEMENT, gateway(), own), forbidden),
        (
            "own address, other MAC",
            neighbour(ALICE.ipv6, all_nodes(), ADVERTISEMENT, ALICE.ipv6, other),
            forbidden,
        ),
        (
            "solicitation with another MAC",
            neighbour(ALICE.ipv6, gateway(), SOLICITATION, gateway(), Some((SOURCE_OPTION, BOB.mac))),
            forbidden,
        ),
        (
            "probe for another's address",
            neighbour(unspecified, solicited(BOB.ipv6), SOLICITATION, BOB.ipv6, None),
            forbidden,
        ),
        ("as another pod", neighbour(BOB.ipv6, gateway(), SOLICITATION, gateway(), None), spoofed),
        ("as the gateway", neighbour(gateway(), all_nodes(), ADVERTISEMENT, ALICE.ipv6, own), spoofed),
        ("answer as nobody", neighbour(unspecified, all_nodes(), ADVERTISEMENT, ALICE.ipv6, own), spoofed),
    ] {
        println!("{name}");
        lab.send(&ALICE, &packet.sent_by(&ALICE)).dropped_from(&ALICE, reason);
    }
    // A fragmented message, an option of no length, more options than anybody needs, a cut one.
    let good = neighbour(ALICE.ipv6, gateway(), SOLICITATION, gateway(), Some((SOURCE_OPTION, ALICE.mac)));
    let fragmented = Ip { fragment: Some((0, true)), ..good.clone() };
    lab.send(&ALICE, &fragmented.sent_by(&ALICE)).dropped_from(&ALICE, forbidden);
    let mut endless = good.clone();
    endless.payload[25] = 0;
    lab.send(&ALICE, &endless.sent_by(&ALICE)).dropped_from(&ALICE, forbidden);
    let mut many = good.clone();
    let option = many.payload[24..].to_vec();
    for _ in 0..8 {
        many.payload.extend(&option);
    }
    lab.send(&ALICE, &many.sent_by(&ALICE)).dropped_from(&ALICE, forbidden);
    let mut cut = good;
    cut.payload.truncate(20);
    lab.send(&ALICE, &cut.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::CtTruncatedOrInvalidHeader);
}

#[test]
fn a_pod_is_no_router() {
    let mut lab = Lab::open();
    for kind in [134, 137] {
        let packet = Ip::new(
            ALICE.link_local().into(),
            all_nodes().into(),
            58,
            icmp_message(kind, 0, [64, 0, 7, 8], &[0; 24]),
        )
        .hop_limit(255);
        lab.send(&ALICE, &packet.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::ForbiddenIcmpv6Message);
        let from_outside = Ip { source: gateway().into(), destination: all_nodes().into(), ..packet };
        lab.receive(&ALICE, &from_outside.brought_to(&ALICE), From::Node)
            .dropped_to(&ALICE, DropReason::ForbiddenIcmpv6Message);
    }
}

#[test]
fn router_solicitations_and_group_reports_stay_on_the_link() {
    let mut lab = lab();
    let routers: Ipv6Addr = "ff02::2".parse().unwrap();
    let reports: Ipv6Addr = "ff02::16".parse().unwrap();
    let message = |kind| icmp_message(kind, 0, [0; 4], &[0; 16]);
    let solicitation =
        Ip::new(ALICE.link_local().into(), routers.into(), 58, icmp_message(133, 0, [0; 4], &[]));
    lab.send(&ALICE, &solicitation.clone().hop_limit(255).sent_by(&ALICE)).passes_from(&ALICE);
    // Hop-by-hop options with a router alert, as real reports have.
    for (kind, source) in
        [(143, ALICE.link_local()), (131, ALICE.ipv6), (132, ALICE.ipv6), (143, Ipv6Addr::UNSPECIFIED)]
    {
        let report = Ip::new(source.into(), reports.into(), 58, message(kind))
            .extension(0, &[0, 5, 2, 0, 0, 1, 0])
            .hop_limit(1);
        lab.send(&ALICE, &report.sent_by(&ALICE)).passes_from(&ALICE);
    }
    let foreign = Ip::new(BOB.link_local().into(), reports.into(), 58, message(143));
    lab.send(&ALICE, &foreign.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::InvalidSourceIp);
}

/// A message of the link that a router would forward is a packet like any other.
#[test]
fn discovery_is_no_way_out() {
    let mut lab = lab();
    let std::net::IpAddr::V6(far) = outside(6) else { unreachable!() };
    let std::net::IpAddr::V6(node) = node(6) else { unreachable!() };
    for packet in [
        neighbour(ALICE.ipv6, far, SOLICITATION, far, None),
        neighbour(ALICE.ipv6, far, ADVERTISEMENT, ALICE.ipv6, None),
        neighbour(ALICE.ipv6, node, SOLICITATION, node, None).hop_limit(254),
        Ip::new(ALICE.ip(6), far.into(), 58, icmp_message(143, 0, [0; 4], &[0; 16])),
    ] {
        lab.send(&ALICE, &packet.sent_by(&ALICE)).dropped_from(&ALICE, DropReason::PolicyDenied);
    }
    let rule = allow(Direction::Egress, None, L4Match::port(Protocol::Icmpv6, u16::from(SOLICITATION)), 3);
    lab.policy(&ALICE, &table([rule]));
    let packet = neighbour(ALICE.ipv6, far, SOLICITATION, far, None);
    lab.send(&ALICE, &packet.sent_by(&ALICE)).passes_from(&ALICE);
}

#[test]
fn a_pod_hears_its_neighbours_but_not_routed_ones() {
    let mut lab = lab();
    let std::net::IpAddr::V6(far) = outside(6) else { unreachable!() };
    for kind in [SOLICITATION, ADVERTISEMENT] {
        let near = neighbour(gateway(), ALICE.ipv6, kind, ALICE.ipv6, None);
        lab.receive(&ALICE, &near.brought_to(&ALICE), From::Node).passes_to(&ALICE);
        let routed = neighbour(far, ALICE.ipv6, kind, ALICE.ipv6, None).hop_limit(254);
        lab.receive(&ALICE, &routed.brought_to(&ALICE), From::Device)
            .dropped_to(&ALICE, DropReason::PolicyDenied);
    }
}
