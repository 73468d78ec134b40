//! What was forwarded, dropped and not reported.

use std::os::fd::OwnedFd;

use sluice_ebpf_common::{CounterKey, Counters, EventLimit, map_name};
use sluice_types::{Direction, DropReason, EndpointId};

use crate::error::LoaderError;
use crate::map::PerCpuMap;

/// The counters of all CPUs.
#[derive(Clone, Debug)]
pub struct CountersReader {
    counters: PerCpuMap<CounterKey, Counters>,
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
    pub(crate) fn new(counters: OwnedFd, limits: OwnedFd) -> Result<Self, LoaderError> {
        Ok(Self {
            counters: PerCpuMap::new(counters, map_name::COUNTER)?,
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
        let key = CounterKey {
            endpoint: endpoint.map_or(0, EndpointId::as_u16),
            reason: reason.map_or(0, DropReason::number),
            direction: direction as u8,
        };
        Ok(sum(&self.counters.get(&key)?))
    }

    /// All counters, summed over CPUs.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn dump(&self) -> Result<Vec<(CounterKey, Counters)>, LoaderError> {
        self.counters.keys()?.into_iter().map(|key| Ok((key, sum(&self.counters.get(&key)?)))).collect()
    }

    /// Forgets the counters of an endpoint, before its id is given to another.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forget(&self, endpoint: EndpointId) -> Result<(), LoaderError> {
        for key in self.counters.keys()? {
            if key.endpoint == endpoint.as_u16() {
                self.counters.remove(&key)?;
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

fn sum(values: &[Counters]) -> Counters {
    values.iter().fold(Counters::default(), |sum, value| Counters {
        packets: sum.packets + value.packets,
        bytes: sum.bytes + value.bytes,
    })
}
