//! The plain way: every selector is compared with every identity.

use std::collections::{BTreeMap, HashMap, btree_map::Entry};

use ipnet::IpNet;
use sluice_policy::{
    EntryVerdict, Key, L4Match, Rule, Subject,
    rule::{Action, Peers, Ports, PrefixSource, Traffic},
    selector::{CidrSelector, LabelSelector, most_specific_prefixes},
};
use sluice_types::{Direction, Identity, Labels, Protocol};

use super::cluster::Cluster;

/// A table as the engine's: the verdict, and how much it counts.
pub(crate) type Table = BTreeMap<Key, (EntryVerdict, u8)>;

/// All rules and identities, without any index.
pub(crate) struct Plain {
    rules: Vec<Rule>,
    identities: HashMap<Identity, (Labels, Vec<IpNet>)>,
}

impl Plain {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        let all = cluster.identities.iter().chain(&cluster.fixed);
        let known = |(identity, labels): &(Identity, Labels)| {
            (*identity, (labels.clone(), most_specific_prefixes(labels)))
        };
        Self {
            rules: cluster.policies.iter().flat_map(|(_, rules)| rules.iter().cloned()).collect(),
            identities: all.map(known).collect(),
        }
    }

    /// The table of an endpoint.
    pub(crate) fn resolve(&self, subject: &Subject) -> Table {
        let mut table = Table::new();
        let rules: Vec<&Rule> =
            self.rules.iter().filter(|rule| rule.subject.matches(&subject.labels)).collect();
        for rule in &rules {
            let peers = self.peers(rule);
            for l4 in blocks(rule) {
                for peer in &peers {
                    let verdict = match rule.action {
                        Action::Allow => (EntryVerdict::Allow, 1),
                        Action::Deny | Action::Pass => (EntryVerdict::Deny, 2),
                    };
                    put(&mut table, Key { direction: rule.direction, peer: *peer, l4 }, verdict);
                }
            }
        }
        for direction in Direction::ALL {
            let own = || rules.iter().filter(|rule| rule.direction == direction);
            let key = |peer| Key { direction, peer, l4: L4Match::Any };
            if !own().any(|rule| rule.default_deny) {
                put(&mut table, key(None), (EntryVerdict::Allow, 0));
            } else if direction == Direction::Ingress {
                put(&mut table, key(Some(Identity::HOST)), (EntryVerdict::Allow, 0));
            }
        }
        table
    }

    /// How many selectors match one more identity.
    pub(crate) fn add(&self, labels: &Labels) -> usize {
        let prefixes = most_specific_prefixes(labels);
        self.rules.iter().filter(|rule| selects(rule, labels, &prefixes)).count()
    }

    fn peers(&self, rule: &Rule) -> Vec<Option<Identity>> {
        if rule.peers == Peers::Any {
            return vec![None];
        }
        let meant = self.identities.iter().filter(|(_, (labels, prefixes))| selects(rule, labels, prefixes));
        meant.map(|(identity, _)| Some(*identity)).collect()
    }
}

fn put(table: &mut Table, key: Key, verdict: (EntryVerdict, u8)) {
    match table.entry(key) {
        Entry::Vacant(place) => {
            place.insert(verdict);
        }
        Entry::Occupied(mut place) => {
            if place.get().1 < verdict.1 {
                place.insert(verdict);
            }
        }
    }
}

fn selects(rule: &Rule, labels: &Labels, prefixes: &[IpNet]) -> bool {
    let by_prefix = |selector: &CidrSelector| prefixes.iter().any(|prefix| selector.covers(prefix));
    let by_labels = |selector: &LabelSelector| selector.matches(labels);
    match &rule.peers {
        Peers::Any => true,
        Peers::Select(selectors) => selectors.iter().any(|selector| match selector {
            sluice_policy::selector::Selector::Labels(selector) => by_labels(selector),
            sluice_policy::selector::Selector::Cidr(selector) => by_prefix(selector),
        }),
        Peers::Endpoints(selectors) => selectors.iter().any(by_labels),
        Peers::Prefixes(peers) => peers.iter().any(|peer| match peer.source {
            PrefixSource::Prefix(prefix) => by_prefix(&CidrSelector { prefix, except: peer.except.clone() }),
            PrefixSource::Group(_) | PrefixSource::Groups(_) => false,
        }),
        Peers::Services(_) => false,
    }
}

fn blocks(rule: &Rule) -> Vec<L4Match> {
    match &rule.ports {
        Ports::Any => vec![L4Match::Any],
        Ports::Select(rules) => rules.iter().flat_map(|rule| &rule.traffic).flat_map(traffic).collect(),
    }
}

fn traffic(traffic: &Traffic) -> Vec<L4Match> {
    let block = |protocol: Protocol, (port, prefix)| match prefix {
        0 => L4Match::Protocol(protocol),
        _ => L4Match::Port { protocol, port, prefix },
    };
    match traffic {
        Traffic::Protocol(protocol) => vec![L4Match::Protocol(*protocol)],
        Traffic::Ports(protocol, range) => range.blocks().map(|found| block(*protocol, found)).collect(),
        Traffic::Icmp(protocol, kind) => vec![L4Match::port(*protocol, u16::from(*kind))],
        // The policies here have none.
        Traffic::NamedPort(..) => Vec::new(),
    }
}
