//! The addresses of one prefix. An address is free, leased, withheld, or resting.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use ipnet::IpNet;

#[derive(Debug)]
pub(super) struct Pool {
    net: IpNet,
    /// First and last number that may be leased.
    first: u128,
    last: u128,
    /// Where the next search starts: addresses are handed out in turn, so that a released one comes late.
    cursor: u128,
    leased: BTreeSet<u128>,
    withheld: BTreeSet<u128>,
    resting: BTreeMap<u128, Instant>,
    /// In the order in which they were released; entries may be stale.
    waking: VecDeque<(Instant, u128)>,
}

impl Pool {
    /// Network, router and (IPv4) broadcast address are never leased.
    pub(super) fn new(net: IpNet) -> Self {
        let (network, end) = (number(net.network()), number(net.broadcast()));
        let first = network.saturating_add(2);
        let last = if matches!(net, IpNet::V4(_)) { end.saturating_sub(1) } else { end };
        Self {
            net,
            first,
            last,
            cursor: first,
            leased: BTreeSet::new(),
            withheld: BTreeSet::new(),
            resting: BTreeMap::new(),
            waking: VecDeque::new(),
        }
    }

    pub(super) const fn net(&self) -> IpNet {
        self.net
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.net.contains(&address)
    }

    pub(super) fn used(&self) -> u64 {
        (self.leased.len() + self.withheld.len()) as u64
    }

    pub(super) fn resting(&self) -> u64 {
        self.resting.len() as u64
    }

    pub(super) fn capacity(&self) -> u64 {
        u64::try_from(self.last - self.first + 1).unwrap_or(u64::MAX)
    }

    pub(super) fn cursor(&self) -> IpAddr {
        self.address(self.cursor)
    }

    pub(super) fn resting_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.resting.keys().map(|number| self.address(*number))
    }

    pub(super) fn search_from(&mut self, address: IpAddr) {
        let number = number(address);
        if (self.first..=self.last).contains(&number) {
            self.cursor = number;
        }
    }

    /// Ends the rest of those whose time has come.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some((until, number)) = self.waking.front().copied().filter(|(until, _)| *until <= now) {
            self.waking.pop_front();
            if self.resting.get(&number) == Some(&until) {
                self.resting.remove(&number);
            }
        }
    }

    /// Leases the next free address.
    pub(super) fn next(&mut self) -> Option<IpAddr> {
        let number =
            self.free_in(self.cursor, self.last).or_else(|| self.free_in(self.first, self.cursor))?;
        self.leased.insert(number);
        self.cursor = if number >= self.last { self.first } else { number + 1 };
        Some(self.address(number))
    }

    /// The lowest free number in `from..=to`. Looks at no more numbers than are taken, plus one.
    fn free_in(&self, from: u128, to: u128) -> Option<u128> {
        let taken = |number: &u128| {
            self.leased.contains(number)
                || self.resting.contains_key(number)
                || self.withheld.contains(number)
        };
        let mut number = from;
        while number <= to {
            if !taken(&number) {
                return Some(number);
            }
            number = number.checked_add(1)?;
        }
        None
    }

    /// Leases this address.
    pub(super) fn take(&mut self, address: IpAddr) -> Result<(), &'static str> {
        let number = number(address);
        if !(self.first..=self.last).contains(&number) {
            return Err("is the network's, the router's or the broadcast address; it is not leased");
        }
        if !self.leased.insert(number) {
            return Err("is leased to another owner already; that one keeps it");
        }
        self.resting.remove(&number);
        Ok(())
    }

    /// Ends a lease; the address can be leased again at once unless it is put to rest.
    pub(super) fn free(&mut self, address: IpAddr) {
        self.leased.remove(&number(address));
    }

    pub(super) fn rest(&mut self, address: IpAddr, until: Instant) {
        let number = number(address);
        if (self.first..=self.last).contains(&number) && !self.leased.contains(&number) {
            self.resting.insert(number, until);
            self.waking.push_back((until, number));
        }
    }

    pub(super) fn withhold(&mut self, address: IpAddr) {
        self.withheld.insert(number(address));
    }

    pub(super) fn unwithhold(&mut self, address: IpAddr) -> bool {
        self.withheld.remove(&number(address))
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.net {
            // A number of an IPv4 pool came from an IPv4 address.
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}
