use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const REST: Duration = Duration::from_secs(60);

fn owner(nth: usize) -> Owner {
    Owner { container_id: format!("c{nth}"), ifname: "eth0".into() }
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn ip4(text: &str) -> Addresses {
    Addresses { ipv4: Some(text.parse().unwrap()), ipv6: None }
}

fn start() -> Instant {
    std::time::UNIX_EPOCH.elapsed().unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    Instant::now()
}

#[test]
fn both_families_and_idempotent() {
    let now = start();
    let mut ipam = Ipam::new(&nets(&["10.0.0.0/29", "fd00::/125"]), REST);
    let lease = ipam.lease(&owner(1), now).unwrap();
    assert_eq!(lease.ipv4, Some("10.0.0.2".parse().unwrap()), "network and router stay out");
    assert_eq!(lease.ipv6, Some("fd00::2".parse().unwrap()));
    assert_eq!(ipam.lease(&owner(1), now).unwrap(), lease);
    assert!(ipam.release(&owner(1), now));
    assert!(!ipam.release(&owner(1), now));
}

#[test]
fn exhaustion_takes_nothing_and_rest_is_respected() {
    let now = start();
    let mut ipam = Ipam::new(&nets(&["fd00::/112", "10.0.0.0/29"]), REST);
    for nth in 0..5 {
        ipam.lease(&owner(nth), now).unwrap();
    }
    let error = ipam.lease(&owner(9), now).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no address is left in 10.0.0.0/29: 5 leased, 0 resting after their release"
    );
    assert_eq!(ipam.status(now)[0].used, 5, "the IPv6 address went back");
    ipam.release(&owner(3), now);
    assert!(ipam.lease(&owner(9), now + REST - Duration::from_secs(1)).is_err());
    assert_eq!(
        ipam.lease(&owner(9), now + REST).unwrap().ipv4,
        Some("10.0.0.5".parse().unwrap()),
        "the released one, after its rest"
    );
}

#[test]
fn no_pool() {
    assert_eq!(Ipam::new(&[], REST).lease(&owner(1), start()), Err(IpamError::NoPool));
}

#[test]
fn an_edited_file_is_corrected_by_what_endpoints_use() {
    let now = start();
    let pools = nets(&["10.0.0.0/24"]);
    let lease = |nth, text: &str| LeaseRecord { owner: owner(nth), addresses: ip4(text) };
    let record = IpamRecord {
        leases: vec![
            lease(1, "10.0.0.9"),    // its endpoint uses 10.0.0.2
            lease(2, "10.0.0.2"),    // used by owner 1's endpoint
            lease(3, "10.0.0.3"),    // fine
            lease(4, "10.0.0.3"),    // twice
            lease(5, "192.168.0.1"), // outside
            lease(6, "10.0.0.1"),    // the router
            lease(7, "10.0.0.255"),  // broadcast
        ],
        resting: vec!["10.0.0.4".parse().unwrap(), "10.0.0.3".parse().unwrap(), "8.8.8.8".parse().unwrap()],
        cursors: vec!["10.0.0.3".parse().unwrap()],
    };
    let (mut ipam, problems) = Ipam::restore(&pools, REST, &record, &[(owner(1), ip4("10.0.0.2"))], now);
    assert_eq!(problems.len(), 6, "{problems:#?}");
    assert_eq!(ipam.addresses_of(&owner(1)), Some(ip4("10.0.0.2")));
    assert_eq!(ipam.addresses_of(&owner(3)), Some(ip4("10.0.0.3")));
    for nth in [2, 4, 5, 6, 7] {
        assert_eq!(ipam.addresses_of(&owner(nth)), None, "{nth}");
    }
    assert_eq!(ipam.lease(&owner(8), now).unwrap(), ip4("10.0.0.5"), ".3 is leased, .4 rests");
    assert_eq!(ipam.abandoned(now + REST, REST), [owner(3), owner(8)], "owner 1 has an endpoint");
}

#[test]
fn withheld_addresses_are_not_leased() {
    let now = start();
    let mut ipam = Ipam::new(&nets(&["10.0.0.0/29"]), Duration::ZERO);
    ipam.withhold("10.0.0.2".parse().unwrap());
    assert_eq!(ipam.lease(&owner(1), now).unwrap(), ip4("10.0.0.3"));
    ipam.unwithhold("10.0.0.2".parse().unwrap(), now);
    for _ in 0..3 {
        ipam.release(&owner(1), now);
        ipam.lease(&owner(1), now).unwrap();
    }
    assert_eq!(ipam.lease(&owner(2), now).unwrap(), ip4("10.0.0.2"), "in turn");
}

#[derive(Clone, Debug)]
enum Step {
    Lease(usize),
    Release(usize),
    Wait(u64),
    Restart { lose_file: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12_usize).prop_map(Step::Lease),
        4 => (0..12_usize).prop_map(Step::Release),
        2 => (1..50_u64).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(|lose_file| Step::Restart { lose_file }),
    ]
}

proptest! {
    #[test]
    fn never_twice_rested_and_idempotent(steps in proptest::collection::vec(step(), 1..120)) {
        let pools = nets(&["10.0.0.0/28", "fd00::/124"]);
        let mut now = start();
        let mut ipam = Ipam::new(&pools, REST);
        let mut held: BTreeMap<Owner, Addresses> = BTreeMap::new();
        let mut released: BTreeMap<IpAddr, Instant> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Lease(nth) => {
                    let owner = owner(nth);
                    let Ok(lease) = ipam.lease(&owner, now) else { continue };
                    if let Some(before) = held.get(&owner) {
                        prop_assert_eq!(*before, lease);
                        continue;
                    }
                    for address in lease.iter() {
                        prop_assert!(pools.iter().any(|pool| pool.contains(&address)));
                        if let Some(at) = released.get(&address) {
                            prop_assert!(now.duration_since(*at) >= REST, "{} has not rested", address);
                        }
                    }
                    held.insert(owner, lease);
                }
                Step::Release(nth) => {
                    let owner = owner(nth);
                    prop_assert_eq!(ipam.release(&owner, now), held.contains_key(&owner));
                    for address in held.remove(&owner).iter().flat_map(Addresses::iter) {
                        released.insert(address, now);
                    }
                }
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
                Step::Restart { lose_file } => {
                    let live: Vec<_> = held.iter().map(|(owner, lease)| (owner.clone(), *lease)).collect();
                    let record = if lose_file { IpamRecord::default() } else { ipam.record() };
                    if lose_file { released.clear(); }
                    let (restored, problems) = Ipam::restore(&pools, REST, &record, &live, now);
                    prop_assert!(problems.is_empty(), "{:?}", problems);
                    ipam = restored;
                }
            }
            let all: Vec<IpAddr> = held.values().flat_map(Addresses::iter).collect();
            prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        }
    }
}
