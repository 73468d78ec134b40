//! The policy map of each endpoint: made whole, put in place in one step, changed in place where that is safe.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use sluice_ebpf_common::{PolicyEntry, PolicyHeader, PolicyKey, TierMask, map_name};
use sluice_policy::map_state::{Entry, Key, MapState};
use sluice_types::EndpointId;

use crate::error::LoaderError;
use crate::map::Map;
use crate::sys;
use crate::translate;

/// The name of inner maps in the kernel.
const INNER_NAME: &str = "sluice_rules";

/// How often an update is looked for.
const POLL_INTERVAL: Duration = Duration::from_micros(50);

/// Policy maps by endpoint.
#[derive(Clone, Debug)]
pub struct Policies {
    outer: Map<u32, u32>,
}

/// One policy map in the kernel. Several endpoints may use it; it lives as long as one does or this handle is kept.
#[derive(Debug)]
pub struct PolicyMap {
    map: Map<PolicyKey, PolicyEntry>,
    header: PolicyHeader,
    entries: usize,
    capacity: usize,
}

/// Whether a change could be made in place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum InPlace {
    /// It is in force.
    Done,
    /// It needs a kind of entry that the map's header does not announce, or more room: install the whole table.
    Rebuild,
}

impl Policies {
    pub(crate) fn new(outer: OwnedFd) -> Self {
        Self { outer: Map::new(outer, map_name::POLICY) }
    }

    /// Makes a policy map with everything in `state`, not yet used by any endpoint. It is made to fit, with some
    /// room to grow: no table is too large, only memory ends.
    ///
    /// # Errors
    /// The kernel refuses, for example for want of memory.
    pub fn prepare(&self, state: &MapState) -> Result<PolicyMap, LoaderError> {
        let (keys, values): (Vec<_>, Vec<_>) = translate::all(state).into_iter().unzip();
        let entries = keys.len();
        let capacity = entries + entries / 4 + 16;
        let fd = sys::create_hash::<PolicyKey, PolicyEntry>(
            INNER_NAME,
            u32::try_from(capacity).unwrap_or(u32::MAX),
        )
        .map_err(self.outer.failed("make a table for"))?;
        let header = translate::header(state);
        let map = Map::new(fd, INNER_NAME);
        map.set_many(&keys, &values)?;
        Ok(PolicyMap { map, header, entries, capacity })
    }

    /// Puts prepared maps in force, each in one step. The call returns as soon as every packet that comes is judged
    /// by the new ones; a packet that was already being judged remembers the old revision, so its verdict is looked
    /// up again.
    ///
    /// # Errors
    /// The kernel refuses; some endpoints may have their new map.
    pub fn put_in_force(&self, maps: &[(EndpointId, &PolicyMap)]) -> Result<(), LoaderError> {
        let Some((last, last_map)) = maps.last() else { return Ok(()) };
        let wanted = sys::map_id(last_map.map.fd()).map_err(self.outer.failed("look at a table of"))?;
        let ids: Vec<u32> = maps.iter().map(|(endpoint, _)| u32::from(endpoint.as_u16())).collect();
        // Handles of their own: the call may outlive this one.
        let tables: Vec<_> = maps.iter().map(|(_, map)| map.map.clone()).collect();
        let outer = self.outer.clone();
        let update = move || {
            #[expect(clippy::cast_sign_loss, reason = "an open descriptor is not negative")]
            let fds: Vec<u32> = tables.iter().map(|table| table.fd().as_raw_fd() as u32).collect();
            outer.set_many(&ids, &fds)
        };
        // The tables are written in order, so the last one tells.
        let last = u32::from(last.as_u16());
        self.until_in_force(update, || Ok(self.outer.get(&last)? == Some(wanted)))
    }

    /// Runs an update of the outer map until its effect is there. The kernel goes on waiting for programs that still
    /// run on the earlier map, ten milliseconds and more, for which nobody here has to wait.
    fn until_in_force(
        &self,
        update: impl FnOnce() -> Result<(), LoaderError> + Send + 'static,
        is_in_force: impl Fn() -> Result<bool, LoaderError>,
    ) -> Result<(), LoaderError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let work = move || drop(sender.send(update()));
        let thread = std::thread::Builder::new().name("sluice-swap".to_owned()).spawn(work);
        thread.map_err(self.outer.failed("start a thread to write to"))?;
        loop {
            match receiver.recv_timeout(POLL_INTERVAL) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) if is_in_force()? => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let error = std::io::Error::other("the writing thread has stopped");
                    return Err(self.outer.failed("write to")(error));
                }
            }
        }
    }

    /// Makes a policy map and puts it in force for these endpoints. The caller then writes the new revision to each
    /// ([`crate::endpoints::Endpoints::insert`]), so that remembered verdicts are looked up again.
    ///
    /// # Errors
    /// The kernel refuses. If the map could not be made, the earlier one stays in force.
    pub fn install(&self, endpoints: &[EndpointId], state: &MapState) -> Result<PolicyMap, LoaderError> {
        let map = self.prepare(state)?;
        let places: Vec<_> = endpoints.iter().map(|endpoint| (*endpoint, &map)).collect();
        self.put_in_force(&places)?;
        Ok(map)
    }

    /// Takes an endpoint's policy away: from now on everything is dropped. None there is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove(&self, endpoint: EndpointId) -> Result<(), LoaderError> {
        let key = u32::from(endpoint.as_u16());
        let outer = self.outer.clone();
        self.until_in_force(move || outer.remove(&key).map(drop), || Ok(self.outer.get(&key)?.is_none()))
    }

    /// The map that is in force for an endpoint, for example one that an earlier run installed.
    ///
    /// # Errors
    /// [`LoaderError::NoPolicy`] if there is none; or the kernel refuses.
    pub fn open(&self, endpoint: EndpointId) -> Result<PolicyMap, LoaderError> {
        let id = self.outer.get(&u32::from(endpoint.as_u16()))?.ok_or(LoaderError::NoPolicy(endpoint))?;
        let fd = sys::map_by_id(id).map_err(self.outer.failed("open a table of"))?;
        let capacity = sys::map_capacity(fd.as_fd()).map_err(self.outer.failed("open a table of"))? as usize;
        let map = Map::<PolicyKey, PolicyEntry>::new(fd, INNER_NAME);
        let entries = map.dump()?;
        let header = map.get(&PolicyKey::HEADER)?.ok_or(LoaderError::NoPolicy(endpoint))?;
        Ok(PolicyMap { map, header: translate::read_header(header), entries: entries.len(), capacity })
    }

    /// The decision table that is in force for an endpoint.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn dump(&self, endpoint: EndpointId) -> Result<MapState, LoaderError> {
        self.open(endpoint)?.dump()
    }
}

impl PolicyMap {
    /// Adds entries of the normal plane, or changes what is there under their keys, without making a new map. Each entry is in force as
    /// soon as it is written, the one of highest precedence first, so that no packet meets an allow whose deny is
    /// still on its way. Remembered verdicts need a new revision to be looked up again.
    ///
    /// # Errors
    /// The kernel refuses; some entries may be in force.
    pub fn add_entries(&mut self, entries: &[(Key, Entry)]) -> Result<InPlace, LoaderError> {
        let covered = entries.iter().all(|(key, _)| translate::is_covered(&self.header, key));
        if !covered || self.entries + entries.len() > self.capacity {
            return Ok(InPlace::Rebuild);
        }
        let mut sorted: Vec<_> = entries.iter().collect();
        sorted.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.precedence));
        for (key, entry) in sorted {
            let (key, value) = (translate::key(key), translate::entry(entry));
            if self.map.set_new(&key, &value)? {
                self.entries += 1;
            } else {
                self.map.set(&key, &value)?;
            }
        }
        Ok(InPlace::Done)
    }

    /// Removes entries of the normal plane; those of lowest precedence first. Keys that are not there are no error.
    ///
    /// # Errors
    /// The kernel refuses; some entries may be gone.
    pub fn remove_entries(&mut self, keys: &[Key]) -> Result<(), LoaderError> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let key = translate::key(key);
            found.extend(self.map.get(&key)?.map(|entry| (entry.precedence, key)));
        }
        found.sort_by_key(|(precedence, _)| *precedence);
        for (_, key) in found {
            if self.map.remove(&key)? {
                self.entries -= 1;
            }
        }
        Ok(())
    }

    /// The decision table in this map.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn dump(&self) -> Result<MapState, LoaderError> {
        Ok(translate::read(&self.map.dump()?))
    }

    /// How many entries there are, without the headers.
    #[must_use]
    pub const fn len(&self) -> usize {
        let planes =
            (self.header.ingress_any.0 | self.header.egress_any.0) & (TierMask::ADMIN | TierMask::STAGED);
        self.entries.saturating_sub(1 + planes.count_ones() as usize)
    }

    /// Whether there is no entry: everything is denied.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
