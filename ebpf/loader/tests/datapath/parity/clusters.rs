//! Random clusters × random packets: policies and labels go in as manifests, and what the kernel does with a packet is
//! what the engine says of the two ends.
//!
//! The same policies hold the engine against its oracle in `crates/policy`, so all three agree. Here the way to the
//! kernel is part of it: identities, the prefixes of the ipcache, the policy map, rule ids.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::test_runner::{Config as RunnerConfig, TestCaseError, TestCaseResult, TestRng, TestRunner};
use sluice_api::{Object, read_manifests};
use sluice_arbitrary::{ADDRESSES, NAMES, NODES, PODS, Pod, Policy, RESERVED, manifests, policies};
use sluice_ebpf_loader::common::{ConfigFlags, IpcacheFlags};
use sluice_model::{Cluster, Participant, Who};
use sluice_policy::Config;
use sluice_types::{Identity, Verdict};

use super::{End, Random, new_seed, random_case, seen, wanted};
use crate::support::*;

const CLUSTERS: u32 = 300;
const PACKETS: usize = 150;
/// Those more often that rules about requests name.
const PORTS: [u16; 12] = [1, 53, 53, 80, 80, 80, 81, 100, 8_080, 9_092, 40_000, 65_535];

/// The name of the node that judges.
const NODE: &str = "host";

/// A pod's or node's address, which lies inside of prefixes that policies name.
fn own_address(nth: usize, family: u8) -> IpAddr {
    let last = 100 + nth as u8;
    if family == 4 {
        IpAddr::V4(Ipv4Addr::new(10, 1, 1, last))
    } else {
        IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last.into()))
    }
}

fn address_of(pod: &Pod) -> IpAddr {
    own_address(inside().position(|name| name == pod.name).unwrap(), 4)
}

/// The cluster under these policies.
fn cluster(policies: &[Policy]) -> Cluster {
    let mut cluster = Cluster::new(Config::complete());
    for manifest in manifests(address_of) {
        let object = read_manifests(&manifest.to_string()).remove(0).content.unwrap();
        cluster.apply(&object).unwrap();
    }
    for name in RESERVED {
        let (identity, _) = Identity::reserved().find(|(_, own)| *own == name).unwrap();
        cluster.add(Participant::new(name, Who::Reserved { identity, labels: [].into() }));
    }
    for address in ADDRESSES {
        let names = NAMES.iter().find(|(own, _)| *own == address).map_or(&[][..], |(_, names)| *names);
        cluster.add(Participant {
            addresses: vec![address.parse().unwrap()],
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Participant::new(address, Who::Outside)
        });
    }
    for policy in policies {
        cluster.apply(&Object::from(policy.clone())).unwrap();
    }
    cluster
}

/// Everybody with an address of their own in the cluster but the node: those of each in this order.
fn inside() -> impl Iterator<Item = &'static str> {
    let (pods, nodes) = (PODS.iter().map(|pod| pod.name), NODES.iter().map(|(name, _)| *name));
    pods.chain(nodes).chain(RESERVED).filter(|name| *name != NODE)
}

/// Everybody but the subject, by name.
fn others(subject: &str) -> Vec<&'static str> {
    inside().chain([NODE]).chain(ADDRESSES).filter(|name| *name != subject).collect()
}

/// The node's ipcache as the agent fills it, and what of it is to be taken out again.
fn fill_ipcache(lab: &Lab, cluster: &mut Cluster) -> Vec<IpNet> {
    let mut filled: Vec<(IpNet, Identity)> = cluster.prefixes().collect();
    for (address, _) in NAMES {
        filled.push((IpNet::from(address.parse::<IpAddr>().unwrap()), cluster.identity(address).unwrap()));
    }
    for (nth, name) in inside().enumerate() {
        let identity = cluster.identity(name).unwrap();
        filled.extend(FAMILIES.map(|family| (IpNet::from(own_address(nth, family)), identity)));
    }
    for (prefix, identity) in &filled {
        lab.prefix(*prefix, identity.as_u32(), 0, IpcacheFlags::default());
    }
    filled.into_iter().map(|(prefix, _)| prefix).collect()
}

/// Somebody at an address of theirs.
fn end(cluster: &mut Cluster, name: &str, family: u8) -> End {
    let identity = cluster.identity(name).unwrap();
    let (address, from) = match inside().position(|own| own == name) {
        Some(nth) => (own_address(nth, family), From::Device),
        None if name == NODE => (node(family), From::Node),
        None => (name.parse().unwrap(), From::Device),
    };
    End { address, identity, from }
}

/// Sends packets of one pod of the cluster, who is Alice, and asserts that each becomes what the engine says.
fn judge(lab: &mut Lab, policies: &[Policy], seed: u64, told: &Told) -> TestCaseResult {
    let (mut random, mut fresh) = (Random(seed | 1), 1_024);
    let mut cluster = cluster(policies);
    let filled = fill_ipcache(lab, &mut cluster);
    let subject = random.one(&PODS.iter().map(|pod| pod.name).collect::<Vec<_>>());
    let policy = {
        let subject = cluster.subject(subject).unwrap().clone();
        cluster.repository().resolve(&subject)
    };
    lab.policy(&ALICE, &policy.map_state);
    lab.datapath.conntrack.purge(&FAMILIES.map(|family| ALICE.ip(family))).unwrap();
    let everybody = others(subject);
    let mut result = Ok(());
    for _ in 0..PACKETS {
        let (name, family) = (random.one(&everybody), random.one(&FAMILIES));
        let case = random_case(&mut random, &mut fresh, end(&mut cluster, name, family), &PORTS);
        let decision = policy.map_state.decide(&case.query);
        let (kernel, engine) = (seen(lab, &case), wanted(&decision, &case));
        told.count(decision.verdict);
        if kernel != engine {
            let rule = cluster.repository().rule(decision.rule).map(ToString::to_string);
            result = Err(TestCaseError::fail(format!(
                "seed {seed:#x}, {subject} with {name}: kernel {kernel:?}, engine {engine:?} by {rule:?}\n{:?}",
                case.query
            )));
            break;
        }
    }
    for prefix in filled {
        lab.datapath.ipcache.remove(prefix).unwrap();
    }
    result
}

/// How often each outcome was seen.
#[derive(Debug, Default)]
struct Told {
    allowed: Cell<usize>,
    denied: Cell<usize>,
    redirected: Cell<usize>,
}

impl Told {
    fn count(&self, verdict: Verdict) {
        let cell = match verdict {
            Verdict::Allow | Verdict::Audit(_) => &self.allowed,
            Verdict::Deny(_) => &self.denied,
            Verdict::Redirect(_) => &self.redirected,
        };
        cell.set(cell.get() + 1);
    }
}

fn compare(seed: u64) {
    println!("seed {seed:#x}");
    let lab = Lab::open();
    lab.flag(ConfigFlags::VERDICT_EVENTS, true);
    lab.flag(ConfigFlags::ALLOW_FRAG_NEEDED, false);
    let (lab, told) = (RefCell::new(lab), Told::default());
    let config = RunnerConfig { cases: CLUSTERS, failure_persistence: None, ..RunnerConfig::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(config.rng_algorithm, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let cases = (policies(), proptest::num::u64::ANY);
    runner
        .run(&cases, |(policies, packets)| judge(&mut lab.borrow_mut(), &policies, packets, &told))
        .unwrap_or_else(|error| panic!("{error}"));
    println!("{told:?}");
    let all = CLUSTERS as usize * PACKETS;
    assert!(told.allowed.get() * 5 > all && told.denied.get() * 5 > all, "a lopsided sample: {told:?}");
    assert!(told.redirected.get() > 0, "a lopsided sample: {told:?}");
}

#[test]
fn kernel_and_engine_agree_on_the_fixed_clusters() {
    compare(0x5eed_0002);
}

#[test]
fn kernel_and_engine_agree_on_new_clusters() {
    compare(new_seed());
}
