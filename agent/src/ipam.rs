//! Who has which pod address: leases of primary mode.
//!
//! One lease per owner (container and interface) with an address of each pool. A released address rests before it
//! is handed out again; after a restart it rests anew, so no clock is kept on disk. What the kernel's endpoints
//! use is the truth: [`Ipam::restore`] reports where the file says otherwise. Pure: the caller stores
//! [`Ipam::record`] before it answers. Used by `state` alone.

mod pool;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sluice_client::model::{PoolStatus, Problem};

use pool::Pool;

/// Who leases: one interface of one container.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) struct Owner {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.container_id, self.ifname)
    }
}

/// The addresses of one owner; one per pool.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Addresses {
    /// From the IPv4 pool.
    pub ipv4: Option<Ipv4Addr>,
    /// From the IPv6 pool.
    pub ipv6: Option<Ipv6Addr>,
}

impl Addresses {
    /// Both, those that are there.
    pub(crate) fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }

    fn put(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.ipv4 = Some(address),
            IpAddr::V6(address) => self.ipv6 = Some(address),
        }
    }
}

/// Why there is no lease.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum IpamError {
    /// No address is left.
    #[error("no address is left in {pool}: {used} leased, {resting} resting after their release")]
    Exhausted {
        /// The pool.
        pool: IpNet,
        /// Leased addresses.
        used: u64,
        /// Addresses that rest.
        resting: u64,
    },
    /// The agent was started without pools.
    #[error("the agent has no address pool; give it --pool4 or --pool6, or delegate address management")]
    NoPool,
}

/// The leases as they are stored.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct IpamRecord {
    /// Who has what.
    pub leases: Vec<LeaseRecord>,
    /// Released addresses that rested when this was stored.
    pub resting: Vec<IpAddr>,
    /// Where the next search starts, one address per pool.
    pub cursors: Vec<IpAddr>,
}

/// One lease as it is stored.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct LeaseRecord {
    /// Whose.
    pub owner: Owner,
    /// What.
    pub addresses: Addresses,
}

#[derive(Clone, Debug)]
struct Lease {
    addresses: Addresses,
    /// When it was given, as long as no endpoint stands on it.
    open_since: Option<Instant>,
}

/// All leases.
#[derive(Debug)]
pub(crate) struct Ipam {
    pools: Vec<Pool>,
    leases: BTreeMap<Owner, Lease>,
    rest: Duration,
}

impl Ipam {
    /// Empty pools. A released address rests for `rest`.
    #[must_use]
    pub(crate) fn new(pools: &[IpNet], rest: Duration) -> Self {
        Self { pools: pools.iter().copied().map(Pool::new).collect(), leases: BTreeMap::new(), rest }
    }

    /// The leases of `record`, corrected by `live`, the addresses that endpoints really use. Says what was wrong.
    #[must_use]
    pub(crate) fn restore(
        pools: &[IpNet],
        rest: Duration,
        record: &IpamRecord,
        live: &[(Owner, Addresses)],
        now: Instant,
    ) -> (Self, Vec<Problem>) {
        let mut ipam = Self::new(pools, rest);
        let mut problems = Vec::new();
        for (owner, addresses) in live {
            ipam.adopt(owner, *addresses, None, &mut problems);
        }
        for lease in &record.leases {
            if ipam.leases.get(&lease.owner).is_none_or(|known| known.addresses != lease.addresses) {
                ipam.adopt(&lease.owner, lease.addresses, Some(now), &mut problems);
            }
        }
        for address in &record.resting {
            if let Some(pool) = ipam.pool_of(*address) {
                pool.rest(*address, now + rest);
            }
        }
        for cursor in &record.cursors {
            if let Some(pool) = ipam.pool_of(*cursor) {
                pool.search_from(*cursor);
            }
        }
        (ipam, problems)
    }

    fn adopt(&mut self, owner: &Owner, addresses: Addresses, since: Option<Instant>, out: &mut Vec<Problem>) {
        let mut kept = self.leases.get(owner).map(|lease| lease.addresses).unwrap_or_default();
        for address in addresses.iter() {
            let already = kept.iter().any(|own| own.is_ipv4() == address.is_ipv4());
            match self.pool_of(address) {
                _ if already => out.push(problem(owner, address, "has another address by its endpoint")),
                None => out.push(problem(owner, address, "is outside the pools; it is not leased again")),
                Some(pool) => match pool.take(address) {
                    Ok(()) => kept.put(address),
                    Err(reason) => out.push(problem(owner, address, reason)),
                },
            }
        }
        if kept != Addresses::default() {
            self.leases
                .entry(owner.clone())
                .or_insert(Lease { addresses: kept, open_since: since })
                .addresses = kept;
        }
    }

    /// The addresses of `owner`: those it already has, or new ones from every pool.
    ///
    /// # Errors
    /// A pool has none left (then nothing is taken from the others either), or there is no pool.
    pub(crate) fn lease(&mut self, owner: &Owner, now: Instant) -> Result<Addresses, IpamError> {
        let mut addresses = self.addresses_of(owner).unwrap_or_default();
        if self.pools.is_empty() {
            return Err(IpamError::NoPool);
        }
        let mut taken = Vec::new();
        for pool in &mut self.pools {
            pool.wake(now);
            if addresses.iter().any(|address| pool.contains(address)) {
                continue;
            }
            match pool.next() {
                Some(address) => taken.push(address),
                None => {
                    let error =
                        IpamError::Exhausted { pool: pool.net(), used: pool.used(), resting: pool.resting() };
                    self.give_back(&taken);
                    return Err(error);
                }
            }
        }
        for address in taken {
            addresses.put(address);
        }
        self.leases.entry(owner.clone()).or_insert(Lease { addresses, open_since: Some(now) }).addresses =
            addresses;
        Ok(addresses)
    }

    fn give_back(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            if let Some(pool) = self.pool_of(*address) {
                pool.free(*address);
            }
        }
    }

    /// Ends the lease of `owner`; its addresses rest. Says whether there was one.
    pub(crate) fn release(&mut self, owner: &Owner, now: Instant) -> bool {
        let Some(lease) = self.leases.remove(owner) else { return false };
        let until = now + self.rest;
        for address in lease.addresses.iter() {
            if let Some(pool) = self.pool_of(address) {
                pool.free(address);
                pool.rest(address, until);
            }
        }
        true
    }

    /// The addresses `owner` has.
    #[must_use]
    pub(crate) fn addresses_of(&self, owner: &Owner) -> Option<Addresses> {
        self.leases.get(owner).map(|lease| lease.addresses)
    }

    /// Notes that an endpoint stands on the lease, so that it does not expire.
    pub(crate) fn complete(&mut self, owner: &Owner) {
        if let Some(lease) = self.leases.get_mut(owner) {
            lease.open_since = None;
        }
    }

    /// Keeps an address of a pool that somebody else gave to an endpoint (delegated or chained) from being leased.
    pub(crate) fn withhold(&mut self, address: IpAddr) {
        if let Some(pool) = self.pool_of(address) {
            pool.withhold(address);
        }
    }

    /// Ends [`Ipam::withhold`]; the address rests.
    pub(crate) fn unwithhold(&mut self, address: IpAddr, now: Instant) {
        let until = now + self.rest;
        if let Some(pool) = self.pool_of(address)
            && pool.unwithhold(address)
        {
            pool.rest(address, until);
        }
    }

    /// Owners whose lease is older than `age` and was never completed by an endpoint.
    #[must_use]
    pub(crate) fn abandoned(&self, now: Instant, age: Duration) -> Vec<Owner> {
        let old = |lease: &Lease| lease.open_since.is_some_and(|since| now.duration_since(since) >= age);
        self.leases.iter().filter(|(_, lease)| old(lease)).map(|(owner, _)| owner.clone()).collect()
    }

    /// When the next lease will be older than `age` without an endpoint.
    #[must_use]
    pub(crate) fn next_abandoned(&self, age: Duration) -> Option<Instant> {
        self.leases.values().filter_map(|lease| lease.open_since).map(|since| since + age).min()
    }

    /// All owners, in order.
    pub(crate) fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.leases.keys()
    }

    /// What must be stored.
    #[must_use]
    pub(crate) fn record(&self) -> IpamRecord {
        IpamRecord {
            leases: self
                .leases
                .iter()
                .map(|(owner, lease)| LeaseRecord { owner: owner.clone(), addresses: lease.addresses })
                .collect(),
            resting: self.pools.iter().flat_map(Pool::resting_addresses).collect(),
            cursors: self.pools.iter().map(Pool::cursor).collect(),
        }
    }

    /// The pools' levels.
    pub(crate) fn status(&mut self, now: Instant) -> Vec<PoolStatus> {
        self.pools
            .iter_mut()
            .map(|pool| {
                pool.wake(now);
                PoolStatus {
                    pool: pool.net().to_string(),
                    used: pool.used(),
                    resting: pool.resting(),
                    capacity: pool.capacity(),
                }
            })
            .collect()
    }

    fn pool_of(&mut self, address: IpAddr) -> Option<&mut Pool> {
        self.pools.iter_mut().find(|pool| pool.contains(address))
    }
}

fn problem(owner: &Owner, address: IpAddr, reason: &str) -> Problem {
    Problem {
        object: format!("ipam {address}"),
        message: format!("the lease of {owner}: {address} {reason}"),
    }
}

#[cfg(test)]
mod tests;
