//! The names that pods give to their ports, by identity.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sluice_types::{Identity, Protocol};

use crate::rule::NamedPort;

/// Port numbers by name and protocol.
type Numbers = BTreeMap<(String, Protocol), u16>;
/// Port numbers by name and protocol, each with how many pods have it.
type CountedNumbers = BTreeMap<(String, Protocol), BTreeMap<u16, usize>>;

/// The names of all pods that are known.
#[derive(Debug, Default)]
pub(crate) struct NamedPorts {
    owners: HashMap<String, (Identity, Numbers)>,
    identities: HashMap<Identity, CountedNumbers>,
}

impl NamedPorts {
    /// Says which names the pod `owner` gives. Returns the identities for which a name now means something else.
    pub(crate) fn set(&mut self, owner: &str, identity: Identity, ports: &[NamedPort]) -> BTreeSet<Identity> {
        let numbers = unambiguous(ports);
        if self.owners.get(owner).is_some_and(|(own, known)| *own == identity && *known == numbers) {
            return BTreeSet::new();
        }
        let mut changed = self.remove(owner);
        for (name, number) in &numbers {
            let users = self.identities.entry(identity).or_default().entry(name.clone()).or_default();
            let count = users.entry(*number).or_default();
            *count += 1;
            if *count == 1 {
                changed.insert(identity);
            }
        }
        self.owners.insert(owner.to_owned(), (identity, numbers));
        changed
    }

    /// Forgets a pod. Returns the identities for which a name now means something else.
    pub(crate) fn remove(&mut self, owner: &str) -> BTreeSet<Identity> {
        let Some((identity, numbers)) = self.owners.remove(owner) else { return BTreeSet::new() };
        let mut changed = BTreeSet::new();
        let Some(names) = self.identities.get_mut(&identity) else { return changed };
        for (name, number) in numbers {
            let Some(users) = names.get_mut(&name) else { continue };
            let Some(count) = users.get_mut(&number) else { continue };
            *count -= 1;
            if *count == 0 {
                users.remove(&number);
                changed.insert(identity);
            }
            if users.is_empty() {
                names.remove(&name);
            }
        }
        if names.is_empty() {
            self.identities.remove(&identity);
        }
        changed
    }

    /// The numbers that pods of this identity give this name.
    pub(crate) fn numbers(
        &self,
        identity: Identity,
        name: &str,
        protocol: Protocol,
    ) -> impl Iterator<Item = u16> {
        let names = self.identities.get(&identity);
        let numbers = names.and_then(|names| names.get(&(name.to_owned(), protocol)));
        numbers.into_iter().flat_map(|numbers| numbers.keys().copied())
    }

    /// The identities of pods that give names to ports.
    pub(crate) fn identities(&self) -> impl Iterator<Item = Identity> {
        self.identities.keys().copied()
    }
}

/// Port numbers by name. A name that one pod gives to two ports of a protocol means neither.
pub(crate) fn unambiguous(ports: &[NamedPort]) -> Numbers {
    let mut numbers: BTreeMap<(String, Protocol), BTreeSet<u16>> = BTreeMap::new();
    for port in ports {
        numbers.entry((port.name.to_ascii_lowercase(), port.protocol)).or_default().insert(port.port);
    }
    let single = |(name, set): (_, BTreeSet<u16>)| match (set.len(), set.first()) {
        (1, Some(number)) => Some((name, *number)),
        _ => None,
    };
    numbers.into_iter().filter_map(single).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, protocol: Protocol, port: u16) -> NamedPort {
        NamedPort { name: name.to_owned(), protocol, port }
    }

    fn tcp(ports: &NamedPorts, identity: u32, name: &str) -> Vec<u16> {
        ports.numbers(Identity::new(identity), name, Protocol::Tcp).collect()
    }

    #[test]
    fn pods_of_one_identity_may_differ() {
        let mut ports = NamedPorts::default();
        let one = Identity::new(300);
        assert_eq!(ports.set("n/a", one, &[port("http", Protocol::Tcp, 80)]), BTreeSet::from([one]));
        assert_eq!(ports.set("n/b", one, &[port("http", Protocol::Tcp, 8080)]), BTreeSet::from([one]));
        assert_eq!(ports.set("n/c", one, &[port("http", Protocol::Tcp, 80)]), BTreeSet::new());
        assert_eq!(tcp(&ports, 300, "http"), [80, 8080]);
        assert!(tcp(&ports, 300, "https").is_empty());
        assert!(tcp(&ports, 301, "http").is_empty());
        assert_eq!(ports.remove("n/a"), BTreeSet::new());
        assert_eq!(ports.remove("n/c"), BTreeSet::from([one]));
        assert_eq!(tcp(&ports, 300, "http"), [8080]);
        ports.remove("n/b");
        assert_eq!(ports.identities().count(), 0);
    }

    #[test]
    fn a_name_with_two_numbers_means_neither() {
        let numbers = unambiguous(&[
            port("web", Protocol::Tcp, 80),
            port("web", Protocol::Tcp, 81),
            port("dns", Protocol::Tcp, 53),
            port("DNS", Protocol::Udp, 5353),
            port("same", Protocol::Tcp, 9),
            port("same", Protocol::Tcp, 9),
        ]);
        let want = [
            (("dns".to_owned(), Protocol::Tcp), 53),
            (("dns".to_owned(), Protocol::Udp), 5353),
            (("same".to_owned(), Protocol::Tcp), 9),
        ];
        assert_eq!(numbers, BTreeMap::from(want));
    }
}
