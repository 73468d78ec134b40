//! Random policy × random packet: the kernel's verdict is [`MapState::decide`]'s, with the same reason and rule.

use std::net::IpAddr;

use crate::support::packet::*;
use crate::support::*;
use sluice_ebpf_loader::common::{ConfigFlags, EventAction, EventKind, IpcacheFlags};
use sluice_policy::map_state::{Decision, Entry, EntryVerdict, Key, L4Match, MapState, Query};
use sluice_types::{Direction, DropReason, Identity, Protocol, ProxyPort, RuleId, Verdict};

const POLICIES: usize = 150;
const PACKETS: usize = 24;

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

const PREFIXES: [(&str, u32); 4] = [
    ("198.51.100.0/24", 16_777_300),
    ("198.51.100.128/25", 16_777_301),
    ("2001:db8:aa::/48", 16_777_300),
    ("2001:db8:aa:8000::/49", 16_777_301),
];

/// The other side: address, identity, and how its packets come to the subject's hook.
fn peers(family: u8) -> [(IpAddr, u32, From<'static>); 6] {
    let (wide, narrow) = if family == 4 {
        ("198.51.100.7", "198.51.100.200")
    } else {
        ("2001:db8:aa::7", "2001:db8:aa:9000::7")
    };
    [
        (BOB.ip(family), BOB.identity, From::Pod(&BOB)),
        (CAROL.ip(family), CAROL.identity, From::Pod(&CAROL)),
        (outside(family), world(family), From::Device),
        (node(family), Identity::HOST.as_u32(), From::Node),
        (wide.parse().unwrap(), 16_777_300, From::Device),
        (narrow.parse().unwrap(), 16_777_301, From::Device),
    ]
}

const PORTS: [u16; 10] = [0, 1, 22, 53, 80, 443, 8_080, 8_081, 40_000, 65_535];
const ICMP_TYPES: [u8; 6] = [0, 3, 8, 13, 128, 129];

fn random_l4(random: &mut Random) -> L4Match {
    let ported = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    match random.below(10) {
        0 => L4Match::Any,
        1 => L4Match::Protocol(random.one(&ported)),
        2 => L4Match::Protocol(random.one(&[Protocol::Icmp, Protocol::Icmpv6, Protocol::Other(47)])),
        3 => L4Match::port(random.one(&[Protocol::Icmp, Protocol::Icmpv6]), random.one(&ICMP_TYPES).into()),
        _ => {
            let prefix = random.one(&[16, 16, 16, 15, 14, 12, 10, 8, 4, 2, 1]);
            let port = random.one(&PORTS) & (u32::from(u16::MAX) << (16 - prefix)) as u16;
            L4Match::Port { protocol: random.one(&ported), port, prefix }
        }
    }
}

fn random_state(random: &mut Random) -> MapState {
    let identities =
        [BOB.identity, CAROL.identity, 1, 9, 10, 16_777_300, 16_777_301, 4_242].map(Identity::new);
    let mut state =
        MapState { audit_ingress: random.in_ten(1), audit_egress: random.in_ten(1), ..MapState::default() };
    // A direction is often without ports altogether, so that fragments can pass.
    let portless = Direction::ALL.map(|_| random.in_ten(3));
    let (normal, admin) = (random.below(24), if random.in_ten(3) { random.below(12) } else { 0 });
    for rule in 0..normal + admin {
        let is_admin = rule >= normal;
        let direction = random.one(&Direction::ALL);
        let mut l4 = random_l4(random);
        while portless[direction as usize] && matches!(l4, L4Match::Port { .. }) {
            l4 = random_l4(random);
        }
        let peer = (!random.in_ten(4)).then(|| random.one(&identities));
        let verdict = match random.below(12) {
            0..=3 => EntryVerdict::Deny,
            4 => EntryVerdict::Redirect(ProxyPort(10_000)),
            5..=7 if is_admin => EntryVerdict::Pass,
            _ => EntryVerdict::Allow,
        };
        // As the engine numbers them: within a rank deny over redirect over allow over pass, so that equals agree.
        let within = match verdict {
            EntryVerdict::Pass => 0,
            EntryVerdict::Allow => 1,
            EntryVerdict::Redirect(_) => 2,
            EntryVerdict::Deny => 3,
        };
        // Entries of equal precedence agree in everything but their rule.
        let rank = random.below(3);
        let audit = verdict == EntryVerdict::Deny && rank == 0 && state.audit_ingress;
        let precedence = (rank * 4 + within) as u32;
        let entry = Entry { precedence, verdict, audit, rule: RuleId(rule as u32 + 1) };
        let plane = if is_admin { &mut state.admin } else { &mut state.entries };
        plane.insert(Key { direction, peer, l4 }, entry);
    }
    state
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

fn random_case(random: &mut Random, fresh: &mut u16) -> Case {
    let family = random.one(&FAMILIES);
    let direction = random.one(&Direction::ALL);
    let (address, identity, from) = random.one(&peers(family));
    // A port of its own for each packet, so that none belongs to a connection.
    *fresh = if *fresh == u16::MAX { 1_024 } else { *fresh + 1 };
    let (source, destination) = if direction == Direction::Egress {
        (ALICE.ip(family), address)
    } else {
        (address, ALICE.ip(family))
    };
    let (a, b) = ((source, *fresh), (destination, random.one(&PORTS)));
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
    let query = Query { direction, peer: Identity::new(identity), protocol, port };
    Case { query, packet, from, tracked }
}

/// What the kernel did: passes or not, and what it told about Alice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Seen {
    passes: bool,
    /// Reason, action, rule.
    told: Option<(u8, u8, u32)>,
}

fn wanted(decision: &Decision, case: &Case) -> Seen {
    let (rule, tracked) = (decision.rule.0, case.tracked);
    let told = |reason: u8, action: EventAction| Some((reason, action as u8, rule));
    match decision.verdict {
        // Only what opens a connection is told when it passes.
        Verdict::Allow => Seen { passes: true, told: told(0, EventAction::Allow).filter(|_| tracked) },
        Verdict::Deny(reason) => Seen { passes: false, told: told(reason.number(), EventAction::Deny) },
        Verdict::Audit(reason) => Seen { passes: true, told: told(reason.number(), EventAction::Audit) },
        // There is no proxy here, and a test run gives no packet to a socket: what a pod sends is told to be redirected
        // and is dropped, what comes to it is sent back to where a socket could be given.
        Verdict::Redirect(_) if tracked && matches!(case.query.protocol, Protocol::Tcp | Protocol::Udp) => {
            let passes = case.query.direction == Direction::Ingress;
            Seen { passes, told: told(0, EventAction::Redirect) }
        }
        Verdict::Redirect(_) => {
            let is_udp = case.query.protocol == Protocol::Udp;
            let reason = if is_udp {
                DropReason::FragmentationNotSupported
            } else {
                DropReason::ProxyRedirectionNotSupportedForProtocol
            };
            Seen { passes: false, told: told(reason.number(), EventAction::Deny) }
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
    let mut told = None;
    let lost = DropReason::SocketLookupFailed.number();
    for event in outcome.events.iter().filter(|event| event.endpoint == ALICE.id) {
        assert_eq!(event.direction, case.query.direction as u8, "{event:?}");
        if event.reason == lost {
            // After it was told that it goes to the proxy.
            assert!(!passes && matches!(told, Some((0, action, _)) if action == EventAction::Redirect as u8));
            continue;
        }
        if event.action == EventAction::Redirect as u8 {
            assert_eq!(u16::from_be_bytes(event.proxy_port_be), 10_000, "{event:?}");
            told = Some((event.reason, event.action, event.rule));
            continue;
        }
        assert_eq!(event.kind == EventKind::Drop as u8, !passes, "{event:?}");
        assert!(told.is_none(), "told twice: {outcome:?}");
        told = Some((event.reason, event.action, event.rule));
    }
    Seen { passes, told }
}

/// Removes entries as long as the two still disagree.
fn shrink(lab: &mut Lab, state: &MapState, case: &Case) -> MapState {
    let mut smallest = state.clone();
    let keys = [&state.entries, &state.admin].map(|plane| plane.keys().copied().collect::<Vec<_>>());
    for (is_admin, key) in
        keys.iter().zip([false, true]).flat_map(|(keys, admin)| keys.iter().map(move |key| (admin, key)))
    {
        let mut smaller = smallest.clone();
        if is_admin { &mut smaller.admin } else { &mut smaller.entries }.remove(key);
        lab.policy(&ALICE, &smaller);
        lab.datapath.conntrack.purge(&[case.packet.source]).unwrap();
        if seen(lab, case) != wanted(&smaller.decide(&case.query), case) {
            smallest = smaller;
        }
    }
    smallest
}

fn compare(seed: u64) {
    println!("seed {seed:#x}");
    let mut random = Random(seed | 1);
    let mut lab = Lab::open();
    lab.flag(ConfigFlags::VERDICT_EVENTS, true);
    lab.flag(ConfigFlags::ALLOW_FRAG_NEEDED, false);
    for (prefix, identity) in PREFIXES {
        lab.prefix(prefix.parse().unwrap(), identity, 0, IpcacheFlags::default());
    }
    let (mut fresh, mut cases, mut passed) = (1_024, 0, 0);
    for _ in 0..POLICIES {
        let state = random_state(&mut random);
        lab.policy(&ALICE, &state);
        for _ in 0..PACKETS {
            let case = random_case(&mut random, &mut fresh);
            let decision = state.decide(&case.query);
            let (kernel, engine) = (seen(&mut lab, &case), wanted(&decision, &case));
            if kernel != engine {
                let smallest = shrink(&mut lab, &state, &case);
                let mut text =
                    format!("seed {seed:#x}: kernel {kernel:?}, engine {engine:?}\n{:?}\n", case.query);
                for (plane, entries) in [("admin", &smallest.admin), ("", &smallest.entries)] {
                    for (key, entry) in entries {
                        text.push_str(&format!("  {plane} {key:?} {entry:?}\n"));
                    }
                }
                panic!("{text}audit {} {}", smallest.audit_ingress, smallest.audit_egress);
            }
            cases += 1;
            passed += usize::from(kernel.passes);
        }
    }
    println!("{cases} cases, {passed} passed");
    assert!(passed > cases / 10 && passed < cases * 9 / 10, "a lopsided sample: {passed} of {cases} pass");
}

#[test]
fn kernel_and_engine_agree_on_the_fixed_sample() {
    compare(0x5eed_0001);
}

#[test]
fn kernel_and_engine_agree_on_a_new_sample() {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    compare(time.as_nanos() as u64);
}
