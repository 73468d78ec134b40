//! Nanoseconds per packet inside the kernel, by `BPF_PROG_TEST_RUN`: no network, no scheduler.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;
use sluice_ebpf_loader::bench::Lookups;
use sluice_ebpf_loader::common::{EndpointFlags, EndpointInfo, IpcacheEntry};
use sluice_ebpf_loader::{Datapath, Settings, Sizes};
use sluice_policy::map_state::{Entry, EntryVerdict, Key, L4Match, MapState};
use sluice_types::{Direction, EndpointId, Identity, Protocol, RuleId};

use crate::report::{Aim, Row};
use crate::rounds::{Scores, interleave};

const ROUNDS: usize = 11;
const REPEAT: u32 = 200_000;
const SIZES: [u32; 4] = [10, 1_000, 10_000, 100_000];
/// The loopback of whatever namespace this runs in: the programs only compare its number.
const INTERFACE: u32 = 1;

/// Every row of the group.
pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut rows = established()?;
    rows.extend(new_flow()?);
    rows.push(identity()?);
    Ok(rows)
}

/// A known connection costs the same whatever the policy's size.
fn established() -> Result<Vec<Row>> {
    let datapaths: Vec<Datapath> = SIZES.iter().map(|size| datapath_with(*size)).collect::<Result<_>>()?;
    let packet = packet();
    for datapath in &datapaths {
        let first = datapath.run("from_container", &packet, INTERFACE, 0, 1)?;
        ensure!(first.verdict == 0, "the packet is dropped: the measurement would measure that");
    }
    let scores = interleave(SIZES.len(), ROUNDS, |nth| {
        let datapath = datapaths.get(nth).context("one datapath per size")?;
        Ok(f64::from(datapath.run("from_container", &packet, INTERFACE, 0, REPEAT)?.duration_ns))
    })?;
    let mut rows = Vec::new();
    for (nth, size) in SIZES.iter().enumerate().skip(1) {
        let (ratio, spread) = scores.ratio(nth, 0);
        rows.push(Row {
            id: format!("established-{size}"),
            what: format!("established packet, {size} entries"),
            against: "the same, 10 entries".to_owned(),
            ratio,
            spread,
            aim: Aim::AtMost(1.02),
            note: format!("{:.0} to {:.0} ns, harness included", scores.median(nth), scores.median(0)),
        });
    }
    Ok(rows)
}

/// A policy lookup on random identities, less its fixed cost (what it costs more than a hash at 10 entries).
fn new_flow() -> Result<Vec<Row>> {
    let lookups: Vec<Lookups> = SIZES.iter().map(|_| load()).collect::<Result<_>>()?;
    for (size, lookups) in SIZES.iter().zip(&lookups) {
        lookups.fill_policy(&table(*size))?;
        lookups.set_range(*size)?;
    }
    // Subjects: for each size the harness, the hash and the policy lookup.
    let names = ["bench_nothing", "bench_hash", "bench_policy"];
    let scores = interleave(SIZES.len() * names.len(), ROUNDS, |nth| {
        let lookups = lookups.get(nth / names.len()).context("one object per size")?;
        let name = names.get(nth % names.len()).context("three programs")?;
        Ok(f64::from(lookups.nanoseconds(name, REPEAT)?))
    })?;
    let net = |size: usize, program: usize| {
        scores.median(size * names.len() + program) - scores.median(size * names.len())
    };
    let fixed = net(0, 2) - net(0, 1);
    Ok((0..SIZES.len()).map(|size| policy_row(size, net(size, 1), net(size, 2), fixed, &scores)).collect())
}

fn policy_row(size: usize, hash: f64, policy: f64, fixed: f64, scores: &Scores) -> Row {
    let entries = SIZES.get(size).copied().unwrap_or_default();
    let ratio = (policy - fixed) / hash;
    let spread = scores.ratio(size * 3 + 2, size * 3 + 1).1;
    Row {
        id: format!("policy-lookup-{entries}"),
        what: format!("policy lookup, {entries} entries"),
        against: "bare hash of the same size".to_owned(),
        ratio,
        spread,
        aim: if entries == 100_000 { Aim::AtMost(1.10) } else { Aim::None },
        note: format!("{policy:.0} to {hash:.0} ns, fixed cost {fixed:.0} ns (spread is of the raw ratio)"),
    }
}

/// Who has an address: exact hash and trie of prefixes, against one trie with everything.
fn identity() -> Result<Row> {
    const ADDRESSES: u32 = 500_000;
    const PREFIXES: u32 = 10_000;
    let lookups = load()?;
    let mut entries = Vec::new();
    for number in 0..ADDRESSES {
        entries.push((Ipv4Net::new(address(number), 32)?, entry(number)));
    }
    // Prefixes of 24 bits outside the addresses' range, of which a lookup has to walk past none or one.
    for number in 0..PREFIXES {
        let network = Ipv4Addr::from(0x0b00_0000 | number << 8);
        entries.push((Ipv4Net::new(network, 24)?, entry(number)));
    }
    lookups.fill_addresses(&entries)?;
    lookups.set_range(ADDRESSES)?;
    let names = ["bench_nothing", "bench_identity", "bench_trie"];
    let scores = interleave(names.len(), ROUNDS, |nth| {
        let name = names.get(nth).context("three programs")?;
        Ok(f64::from(lookups.nanoseconds(name, REPEAT)?))
    })?;
    let net = |program: usize| scores.median(program) - scores.median(0);
    Ok(Row {
        id: "identity-lookup".to_owned(),
        what: "identity of a random address, 500k + 10k prefixes".to_owned(),
        against: "one LPM trie".to_owned(),
        ratio: net(1) / net(2),
        spread: scores.ratio(1, 2).1,
        aim: Aim::AtMost(0.45),
        note: format!("{:.0} to {:.0} ns (spread is with the harness)", net(1), net(2)),
    })
}

fn load() -> Result<Lookups> {
    Lookups::load(&object()).with_context(|| object().display().to_string())
}

/// Where the build leaves the measurement programs.
pub(crate) fn object() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/ebpf/bench.bpf.o")
}

/// The address that the kernel program draws under this number.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 | (number.wrapping_mul(0x9e_3779) & 0x00ff_ffff))
}

fn entry(number: u32) -> IpcacheEntry {
    IpcacheEntry { identity: 256 + number % 60_000, ..IpcacheEntry::default() }
}

/// Egress to `count` identities on TCP port 80.
fn table(count: u32) -> MapState {
    let mut state = MapState::default();
    for number in 0..count {
        let l4 = L4Match::port(Protocol::Tcp, 80);
        let key = Key { direction: Direction::Egress, peer: Some(Identity::new(256 + number)), l4 };
        let entry = Entry { precedence: 1, verdict: EntryVerdict::Allow, rule: RuleId(number + 1) };
        state.entries.insert(key, entry);
    }
    state
}

fn datapath_with(entries: u32) -> Result<Datapath> {
    let datapath = Datapath::load_unpinned(&Sizes { addresses: 1024, prefixes: 64, ..Sizes::default() })?;
    datapath.settings.write(&Settings::default())?;
    let id = EndpointId::new(1).context("endpoint ids start at 1")?;
    datapath.policies.install(&[id], &table(entries))?;
    datapath.endpoints.insert(&EndpointInfo {
        id: 1,
        flags: EndpointFlags::READY,
        ifindex: INTERFACE,
        identity: 1_000,
        revision: 1,
        generation: 1,
        mac: [2, 0, 0, 0, 0, 1],
        host_mac: [2, 0, 0, 0, 0, 2],
        ipv4_be: [10, 1, 0, 1],
        ..EndpointInfo::default()
    })?;
    let peer = Ipv4Net::new(Ipv4Addr::new(10, 9, 0, 1), 32)?;
    datapath.ipcache.upsert(peer.into(), &entry(0))?;
    Ok(datapath)
}

/// A TCP segment of a connection in progress, from the endpoint to its peer.
fn packet() -> Vec<u8> {
    let mut packet = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    packet.extend([0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, 1, 10, 9, 0, 1]);
    packet.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    packet.extend([0; 20]);
    packet
}
