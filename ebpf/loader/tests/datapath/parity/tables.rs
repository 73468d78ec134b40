//! Random tables × random packets: the kernel reads a policy map as [`MapState::decide`] does.

use super::{Case, End, Random, new_seed, random_case, seen, wanted};
use crate::support::*;
use sluice_ebpf_loader::common::{ConfigFlags, IpcacheFlags};
use sluice_policy::map_state::{Entry, EntryVerdict, Key, L4Match, MapState};
use sluice_types::{Direction, Identity, Protocol, ProxyPort, RuleId};

const POLICIES: usize = 150;
const PACKETS: usize = 24;

const PREFIXES: [(&str, u32); 4] = [
    ("198.51.100.0/24", 16_777_300),
    ("198.51.100.128/25", 16_777_301),
    ("2001:db8:aa::/48", 16_777_300),
    ("2001:db8:aa:8000::/49", 16_777_301),
];

/// Who may stand on the other side.
fn peers(family: u8) -> [End; 6] {
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
    .map(|(address, identity, from)| End { address, identity: Identity::new(identity), from })
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
    let normal = random.below(24);
    let [admin, staged] = [3, 4].map(|chances| if random.in_ten(chances) { random.below(12) } else { 0 });
    state.staged_ingress = staged > 0 || random.in_ten(1);
    state.staged_egress = staged > 0;
    for rule in 0..normal + admin + staged {
        let is_admin = (normal..normal + admin).contains(&rule);
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
        let precedence = (rank * 4 + within) as u32;
        let entry = Entry { precedence, verdict, rule: RuleId(rule as u32 + 1) };
        let plane = match rule {
            rule if rule < normal => &mut state.entries,
            _ if is_admin => &mut state.admin,
            _ => &mut state.staged,
        };
        plane.insert(Key { direction, peer, l4 }, entry);
    }
    state
}

/// Removes entries as long as the two still disagree.
fn shrink(lab: &mut Lab, state: &MapState, case: &Case) -> MapState {
    let mut smallest = state.clone();
    let planes = [&state.entries, &state.admin, &state.staged];
    let keys = planes.map(|plane| plane.keys().copied().collect::<Vec<_>>());
    for (plane, key) in
        keys.iter().zip(0..3).flat_map(|(keys, plane)| keys.iter().map(move |key| (plane, key)))
    {
        let mut smaller = smallest.clone();
        [&mut smaller.entries, &mut smaller.admin, &mut smaller.staged][plane].remove(key);
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
            let family = random.one(&FAMILIES);
            let end = random.one(&peers(family));
            let case = random_case(&mut random, &mut fresh, end, &PORTS);
            let decision = state.decide(&case.query);
            let (kernel, engine) = (seen(&mut lab, &case), wanted(&decision, &case));
            if kernel != engine {
                let smallest = shrink(&mut lab, &state, &case);
                let mut text =
                    format!("seed {seed:#x}: kernel {kernel:?}, engine {engine:?}\n{:?}\n", case.query);
                for (plane, entries) in
                    [("admin", &smallest.admin), ("", &smallest.entries), ("staged", &smallest.staged)]
                {
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
    compare(new_seed());
}
