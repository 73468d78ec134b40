//! What was forwarded, dropped and not reported.

use std::os::fd::OwnedFd;

use sluice_ebpf_common::{CounterKey, Counters, EventLimit, map_name};
use sluice_types::{Direction, DropReason, EndpointId};

use crate::error::LoaderError;
use crate::map::PerCpuMap;

/// The counters of all CPUs.
#[derive(Clone, Debug)]
pub struct CountersReader {
    forwarded: PerCpuMap<u32, Counters>,
    dropped: PerCpuMap<CounterKey, Counters>,
    limits: PerCpuMap<u32, EventLimit>,
}

/// Events of one drop reason that were, and were not, reported.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reported {
    /// Reported.
    pub sent: u64,
    /// Lost to the rate limit or a full buffer.
    pub lost: u64,
}

impl CountersReader {
    pub(crate) fn new(forwarded: OwnedFd, dropped: OwnedFd, limits: OwnedFd) -> Result<Self, LoaderError> {
        Ok(Self {
            forwarded: PerCpuMap::new(forwarded, map_name::FORWARD)?,
            dropped: PerCpuMap::new(dropped, map_name::COUNTER)?,
            limits: PerCpuMap::new(limits, map_name::LIMIT)?,
        })
    }

    /// What happened to an endpoint's packets: `None` for those forwarded. No endpoint: packets of nobody.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn read(
        &self,
        endpoint: Option<EndpointId>,
        direction: Direction,
        reason: Option<DropReason>,
    ) -> Result<Counters, LoaderError> {
        let (endpoint, direction) = (endpoint.map_or(0, EndpointId::as_u16), direction as u8);
        let values = match reason {
            None => self.forwarded.get(&slot(endpoint, direction))?,
            Some(reason) => self.dropped.get(&CounterKey { endpoint, reason: reason.number(), direction })?,
        };
        Ok(sum(&values))
    }

    /// All counters that count something, summed over CPUs; those of forwarded packets have no reason.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn dump(&self) -> Result<Vec<(CounterKey, Counters)>, LoaderError> {
        let mut all = Vec::new();
        for (slot, values) in self.forwarded.dump_array()? {
            let counters = sum(&values);
            if counters.packets != 0 {
                all.push((of_slot(slot), counters));
            }
        }
        all.extend(self.drops()?);
        Ok(all)
    }

    /// The counters of dropped packets, summed over CPUs.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn drops(&self) -> Result<Vec<(CounterKey, Counters)>, LoaderError> {
        self.dropped.keys()?.into_iter().map(|key| Ok((key, sum(&self.dropped.get(&key)?)))).collect()
    }

    /// Forgets the counters of an endpoint, before its id is given to another.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forget(&self, endpoint: EndpointId) -> Result<(), LoaderError> {
        for direction in Direction::ALL {
            self.forwarded.clear(&slot(endpoint.as_u16(), direction as u8))?;
        }
        for key in self.dropped.keys()? {
            if key.endpoint == endpoint.as_u16() {
                self.dropped.remove(&key)?;
            }
        }
        Ok(())
    }

    /// How many events of a drop reason were reported and lost; `None` for verdicts that allow.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn reported(&self, reason: Option<DropReason>) -> Result<Reported, LoaderError> {
        let limits = self.limits.get(&reason.map_or(0, |reason| u32::from(reason.number())))?;
        Ok(limits.iter().fold(Reported::default(), |sum, limit| Reported {
            sent: sum.sent + limit.sent_total,
            lost: sum.lost + limit.lost_total,
        }))
    }
}

/// Where forwarded packets are counted.
fn slot(endpoint: u16, direction: u8) -> u32 {
    u32::from(endpoint) * 2 + u32::from(direction)
}

/// What is counted in a slot.
fn of_slot(slot: u32) -> CounterKey {
    let endpoint = u16::try_from(slot / 2).unwrap_or(0);
    CounterKey { endpoint, reason: 0, direction: u8::from(slot % 2 == 1) }
}

fn sum(values: &[Counters]) -> Counters {
    values.iter().fold(Counters::default(), |sum, value| Counters {
        packets: sum.packets + value.packets,
        bytes: sum.bytes + value.bytes,
    })
}
