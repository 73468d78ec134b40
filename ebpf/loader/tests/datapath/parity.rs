//! The kernel's verdict is the engine's: the same outcome, reason and rule for every packet.

mod clusters;
mod tables;

use std::net::IpAddr;

use crate::support::packet::*;
use crate::support::*;
use sluice_ebpf_loader::common::{EventAction, EventKind};
use sluice_policy::map_state::{Decision, Query};
use sluice_types::{Direction, DropReason, Identity, Protocol, ProxyPort, Verdict};

/// A small generator (xorshift64*): a failure is reproduced by its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn in_ten(&mut self, chances: usize) -> bool {
        self.below(10) < chances
    }
}

/// One packet of or for Alice, and the question it puts to her policy.
#[derive(Clone, Debug)]
struct Case {
    query: Query,
    packet: Ip,
    from: From<'static>,
    /// Whether a connection would be opened, which is told.
    tracked: bool,
}

/// The other side: address, identity, and how its packets come to the subject's hook.
#[derive(Clone, Copy, Debug)]
struct End {
    address: IpAddr,
    identity: Identity,
    from: From<'static>,
}

/// Any kind of packet between Alice and the other end.
fn random_case(random: &mut Random, fresh: &mut u16, end: End, ports: &[u16]) -> Case {
    let End { address, identity, from } = end;
    let family = if address.is_ipv4() { 4 } else { 6 };
    let direction = random.one(&Direction::ALL);
    // A port of its own for each packet, so that none belongs to a connection.
    *fresh = if *fresh == u16::MAX { 1_024 } else { *fresh + 1 };
    let (source, destination) = if direction == Direction::Egress {
        (ALICE.ip(family), address)
    } else {
        (address, ALICE.ip(family))
    };
    let (a, b) = ((source, *fresh), (destination, random.one(ports)));
    let icmp_protocol = Protocol::from_number(icmp_number(family));
    let (packet, protocol, port, tracked) = match random.below(12) {
        0..=3 => (tcp(a, b, SYN), Protocol::Tcp, Some(b.1), true),
        4..=5 => (udp(a, b), Protocol::Udp, Some(b.1), true),
        6 => (sctp(a, b), Protocol::Sctp, Some(b.1), true),
        7 => {
            let kind = u16::from(echo_request_type(family));
            (echo_request(source, destination, *fresh), icmp_protocol, Some(kind), true)
        }
        8 => {
            let kind = u16::from(echo_reply_type(family));
            (echo_reply(source, destination, *fresh), icmp_protocol, Some(kind), false)
        }
        9 => {
            let kind = if family == 4 { random.one(&[3, 13, 11]) } else { random.one(&[1, 200, 3]) };
            let quoted = udp((destination, *fresh), (source, 9));
            (icmp_error(source, destination, kind, 0, &quoted), icmp_protocol, Some(kind.into()), false)
        }
        10 => {
            let number = random.one(&[47, 50, 253]);
            let packet = Ip::new(source, destination, number, vec![1; 32]);
            (packet, Protocol::from_number(number), Some(0), false)
        }
        _ => {
            let protocol = random.one(&[Protocol::Tcp, Protocol::Udp, Protocol::Sctp, icmp_protocol]);
            let mut packet = Ip::new(source, destination, protocol.number(), vec![1; 64]);
            packet.fragment = Some((64, random.in_ten(5)));
            packet.id = (*fresh).into();
            (packet, protocol, None, false)
        }
    };
    let query = Query { direction, peer: identity, protocol, port };
    Case { query, packet, from, tracked }
}

/// What the kernel did: passes or not, and what it told about Alice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Seen {
    passes: bool,
    /// Reason, action, rule.
    told: Option<(u8, u8, u32)>,
    /// To which listener, if it is redirected.
    redirected: Option<ProxyPort>,
}

fn wanted(decision: &Decision, case: &Case) -> Seen {
    let (rule, tracked) = (decision.rule.0, case.tracked);
    let seen = |passes: bool, reason: u8, action: EventAction| Seen {
        passes,
        told: Some((reason, action as u8, rule)),
        redirected: None,
    };
    match decision.verdict {
        // Only what opens a connection is told when it passes.
        Verdict::Allow if tracked => seen(true, 0, EventAction::Allow),
        Verdict::Allow => Seen { passes: true, told: None, redirected: None },
        Verdict::Deny(reason) => seen(false, reason.number(), EventAction::Deny),
        Verdict::Audit(reason) => seen(true, reason.number(), EventAction::Audit),
        // There is no proxy here, and a test run gives no packet to a socket: what a pod sends is told to be redirected
        // and is dropped, what comes to it is sent back to where a socket could be given.
        Verdict::Redirect(port)
            if tracked && matches!(case.query.protocol, Protocol::Tcp | Protocol::Udp) =>
        {
            let passes = case.query.direction == Direction::Ingress;
            Seen { redirected: Some(port), ..seen(passes, 0, EventAction::Redirect) }
        }
        Verdict::Redirect(_) => {
            let is_udp = case.query.protocol == Protocol::Udp;
            let reason = if is_udp {
                DropReason::FragmentationNotSupported
            } else {
                DropReason::ProxyRedirectionNotSupportedForProtocol
            };
            seen(false, reason.number(), EventAction::Deny)
        }
    }
}

fn seen(lab: &mut Lab, case: &Case) -> Seen {
    let outcome = match case.query.direction {
        Direction::Egress => lab.send(&ALICE, &case.packet.sent_by(&ALICE)),
        Direction::Ingress => lab.receive(&ALICE, &case.packet.brought_to(&ALICE), case.from),
    };
    let passes = match outcome.run.verdict {
        0 | 7 => true,
        2 => false,
        other => panic!("verdict {other}"),
    };
    let (mut told, mut redirected) = (None, None);
    let lost = DropReason::SocketLookupFailed.number();
    for event in outcome.events.iter().filter(|event| event.endpoint == ALICE.id) {
        assert_eq!(event.direction, case.query.direction as u8, "{event:?}");
        if event.reason == lost {
            // After it was told that it goes to the proxy.
            assert!(!passes && matches!(told, Some((0, action, _)) if action == EventAction::Redirect as u8));
            continue;
        }
        if event.action == EventAction::Redirect as u8 {
            redirected = Some(ProxyPort(u16::from_be_bytes(event.proxy_port_be)));
            told = Some((event.reason, event.action, event.rule));
            continue;
        }
        assert_eq!(event.kind == EventKind::Drop as u8, !passes, "{event:?}");
        assert!(told.is_none(), "told twice: {outcome:?}");
        told = Some((event.reason, event.action, event.rule));
    }
    Seen { passes, told, redirected }
}

/// A seed that no run had before.
fn new_seed() -> u64 {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    time.as_nanos() as u64
}
