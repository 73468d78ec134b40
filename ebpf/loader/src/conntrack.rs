//! Connections: what they are, and clearing away those that are over.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use sluice_ebpf_common::{ConntrackEntry, ConntrackFlags, ConntrackKey4, ConntrackKey6, map_name};
use sluice_types::EndpointId;

use crate::error::LoaderError;
use crate::map::Map;
use crate::plain::Plain;

/// The connection tables of both families.
#[derive(Clone, Debug)]
pub struct Conntrack {
    table4: Map<ConntrackKey4, ConntrackEntry>,
    table6: Map<ConntrackKey6, ConntrackEntry>,
    quota: Map<u32, u64>,
}

/// One connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Connection {
    /// Who opened it; the port is the identifier for ICMP echo.
    pub source: SocketAddr,
    /// With whom.
    pub destination: SocketAddr,
    /// IANA number.
    pub protocol: u8,
    /// Verdicts, state and counts.
    pub entry: ConntrackEntry,
}

/// What a round of clearing away did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Collected {
    /// Connections that are left.
    pub live: usize,
    /// Connections that were over and are gone.
    pub removed: usize,
}

/// The present time in the units of conntrack entries, from the same clock as the kernel's.
#[must_use]
pub fn now() -> u32 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "uptime is not negative")]
    let now = ((time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64) >> 30) as u32;
    now
}

impl Conntrack {
    pub(crate) fn new(table4: OwnedFd, table6: OwnedFd, quota: OwnedFd) -> Self {
        Self {
            table4: Map::new(table4, map_name::CONNTRACK4),
            table6: Map::new(table6, map_name::CONNTRACK6),
            quota: Map::new(quota, map_name::QUOTA),
        }
    }

    /// All connections, also those that are over but not cleared away.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn dump(&self) -> Result<Vec<Connection>, LoaderError> {
        let mut all: Vec<_> = self.table4.dump()?.iter().map(|(key, entry)| connection(key, entry)).collect();
        all.extend(self.table6.dump()?.iter().map(|(key, entry)| connection(key, entry)));
        Ok(all)
    }

    /// Removes connections that are over at `now` (see [`now`]), and sets each endpoint's count of open ones to the
    /// truth.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn collect(&self, now: u32) -> Result<Collected, LoaderError> {
        let mut counts = HashMap::new();
        let mut collected = collect(&self.table4, now, &mut counts)?;
        let more = collect(&self.table6, now, &mut counts)?;
        collected.live += more.live;
        collected.removed += more.removed;
        for id in 1..EndpointId::TABLE_LEN {
            let id = u32::from(id);
            let count = counts.get(&id).copied().unwrap_or(0);
            if self.quota.get(&id)? != Some(count) {
                self.quota.set(&id, &count)?;
            }
        }
        Ok(collected)
    }

    /// Removes every connection of these addresses, in one pass. Returns how many.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn purge(&self, addresses: &[IpAddr]) -> Result<usize, LoaderError> {
        let (mut v4, mut v6) = (HashSet::new(), HashSet::new());
        for address in addresses {
            match address {
                IpAddr::V4(address) => drop(v4.insert(address.octets())),
                IpAddr::V6(address) => drop(v6.insert(address.octets())),
            }
        }
        let mut removed = 0;
        if !v4.is_empty() {
            removed += purge(&self.table4, |key| v4.contains(&key.a_be) || v4.contains(&key.b_be))?;
        }
        if !v6.is_empty() {
            removed += purge(&self.table6, |key| v6.contains(&key.a_be) || v6.contains(&key.b_be))?;
        }
        Ok(removed)
    }

    /// Brings the end of every connection `units` nearer (see [`now`]), as if so much time had passed in silence: for
    /// drills and tests.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn age(&self, units: u32) -> Result<(), LoaderError> {
        age(&self.table4, units)?;
        age(&self.table6, units)
    }

    /// How many connections the kernel counts as opened by an endpoint.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn opened_by(&self, endpoint: EndpointId) -> Result<u64, LoaderError> {
        Ok(self.quota.get(&u32::from(endpoint.as_u16()))?.unwrap_or(0))
    }
}

fn collect<K: Plain>(
    table: &Map<K, ConntrackEntry>,
    now: u32,
    counts: &mut HashMap<u32, u64>,
) -> Result<Collected, LoaderError> {
    let mut collected = Collected::default();
    for (key, entry) in table.dump()? {
        if entry.expires > now {
            collected.live += 1;
            *counts.entry(u32::from(entry.source_endpoint)).or_default() += 1;
            continue;
        }
        match table.take(&key)? {
            // A packet renewed it since it was read: put it back, unless the kernel made another one.
            Some(taken) if taken.expires > now => {
                table.set_new(&key, &taken)?;
                collected.live += 1;
                *counts.entry(u32::from(taken.source_endpoint)).or_default() += 1;
            }
            Some(_) => collected.removed += 1,
            None => {}
        }
    }
    Ok(collected)
}

fn age<K: Plain>(table: &Map<K, ConntrackEntry>, units: u32) -> Result<(), LoaderError> {
    for (key, mut entry) in table.dump()? {
        entry.expires = entry.expires.saturating_sub(units);
        table.set(&key, &entry)?;
    }
    Ok(())
}

fn purge<K: Plain>(
    table: &Map<K, ConntrackEntry>,
    matches: impl Fn(&K) -> bool,
) -> Result<usize, LoaderError> {
    let mut removed = 0;
    for (key, _) in table.dump()? {
        if matches(&key) && table.remove(&key)? {
            removed += 1;
        }
    }
    Ok(removed)
}

/// What the two keys have in common.
trait Tuple {
    fn ends(&self) -> [SocketAddr; 2];
    fn protocol(&self) -> u8;
}

macro_rules! tuple {
    ($key:ty) => {
        impl Tuple for $key {
            fn ends(&self) -> [SocketAddr; 2] {
                [
                    SocketAddr::new(IpAddr::from(self.a_be), u16::from_be_bytes(self.a_port_be)),
                    SocketAddr::new(IpAddr::from(self.b_be), u16::from_be_bytes(self.b_port_be)),
                ]
            }

            fn protocol(&self) -> u8 {
                self.protocol
            }
        }
    };
}

tuple!(ConntrackKey4);
tuple!(ConntrackKey6);

fn connection(key: &impl Tuple, entry: &ConntrackEntry) -> Connection {
    let [a, b] = key.ends();
    let opened_by_a = entry.flags.contains(ConntrackFlags::OPENED_BY_A);
    let (source, destination) = if opened_by_a { (a, b) } else { (b, a) };
    Connection { source, destination, protocol: key.protocol(), entry: *entry }
}
