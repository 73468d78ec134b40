//! Sets of traffic at layer 4.

use std::collections::{BTreeMap, BTreeSet};

use sluice_policy::rule::{PortRule, Ports, Traffic};
use sluice_types::Protocol;

/// Some traffic.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct PortSet {
    /// All of it, ICMP included.
    all: bool,
    /// Ports by protocol, as ranges with both ends.
    ranges: BTreeMap<Protocol, Vec<(u16, u16)>>,
    icmp: BTreeSet<(Protocol, u8)>,
    named: BTreeSet<(Protocol, String)>,
}

impl PortSet {
    /// All traffic that a rule is about, whatever else it asks for.
    pub(crate) fn of(ports: &Ports) -> Self {
        Self::of_rules(ports, |_| true)
    }

    /// The traffic of those elements that are wanted. A rule without elements is about everything.
    pub(crate) fn of_rules(ports: &Ports, wanted: impl Fn(&PortRule) -> bool) -> Self {
        let mut set = Self { all: *ports == Ports::Any, ..Self::default() };
        ports.rules().filter(|rule| wanted(rule)).for_each(|rule| set.extend(&rule.traffic));
        set
    }

    /// Some traffic.
    pub(crate) fn of_traffic(traffic: &[Traffic]) -> Self {
        let mut set = Self::default();
        set.extend(traffic);
        set
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.all |= other.all;
        for (protocol, ranges) in other.ranges {
            self.ranges.entry(protocol).or_default().extend(ranges);
        }
        self.icmp.extend(other.icmp);
        self.named.extend(other.named);
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it is all traffic.
    pub(crate) const fn is_all(&self) -> bool {
        self.all
    }

    /// Whether it is every port of this protocol.
    pub(crate) fn is_all_of(&self, protocol: Protocol) -> bool {
        self.covers(&Self::of_traffic(&[Traffic::Protocol(protocol)]))
    }

    pub(crate) fn has_port(&self, protocol: Protocol, port: u16) -> bool {
        self.all || self.ranges_of(protocol).any(|(first, last)| (first..=last).contains(&port))
    }

    /// Whether all of `narrow` is in it. A name is a port of its protocol, and nobody knows which.
    pub(crate) fn covers(&self, narrow: &Self) -> bool {
        let ranges = |(protocol, ranges): (&Protocol, &Vec<(u16, u16)>)| {
            ranges.iter().all(|range| self.covers_range(*protocol, *range))
        };
        self.all
            || (!narrow.all
                && narrow.ranges.iter().all(ranges)
                && narrow.icmp.is_subset(&self.icmp)
                && narrow.named.iter().all(|named| self.covers_name(named)))
    }

    /// Whether some traffic is in both for certain.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        if self.is_empty() || other.is_empty() {
            return false;
        }
        let ranges = |(protocol, ranges): (&Protocol, &Vec<(u16, u16)>)| {
            ranges.iter().any(|(first, last)| {
                other.ranges_of(*protocol).any(|(start, end)| *first <= end && start <= *last)
            })
        };
        self.all
            || other.all
            || self.ranges.iter().any(ranges)
            || !self.icmp.is_disjoint(&other.icmp)
            || self.named.iter().any(|named| other.covers_name(named))
            || other.named.iter().any(|named| self.covers_name(named))
    }

    fn extend(&mut self, traffic: &[Traffic]) {
        for traffic in traffic {
            match traffic {
                Traffic::Protocol(protocol) => {
                    self.ranges.entry(*protocol).or_default().push((0, u16::MAX));
                }
                Traffic::Ports(protocol, range) => {
                    let (first, last) = range.bounds().into_inner();
                    self.ranges.entry(*protocol).or_default().push((first, last));
                }
                Traffic::NamedPort(protocol, name) => {
                    self.named.insert((*protocol, name.clone()));
                }
                Traffic::Icmp(protocol, kind) => {
                    self.icmp.insert((*protocol, *kind));
                }
            }
        }
    }

    fn ranges_of(&self, protocol: Protocol) -> impl Iterator<Item = (u16, u16)> {
        self.ranges.get(&protocol).into_iter().flatten().copied()
    }

    fn covers_name(&self, named: &(Protocol, String)) -> bool {
        self.named.contains(named) || self.covers_range(named.0, (1, u16::MAX))
    }

    /// Whether the ranges of a protocol together hold all of another one.
    fn covers_range(&self, protocol: Protocol, (first, last): (u16, u16)) -> bool {
        if self.all {
            return true;
        }
        let mut ranges: Vec<(u16, u16)> = self.ranges_of(protocol).collect();
        ranges.sort_unstable();
        // Port 0 is no port that anybody uses; `1-65535` and every port are the same.
        let mut next = u32::from(first.max(1));
        for (start, end) in ranges {
            if u32::from(start) <= next {
                next = next.max(u32::from(end) + 1);
            }
        }
        next > u32::from(last)
    }
}
