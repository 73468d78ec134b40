//! Reads what the datapath reports.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use aya::maps::{Map, MapData, RingBuf};
use sluice_ebpf_common::{Event, map_name};

use crate::error::LoaderError;
use crate::sys;

/// The reading end of the event buffer. Poll its descriptor for input, then take events until there is none.
pub struct EventReader {
    ring: RingBuf<MapData>,
}

impl fmt::Debug for EventReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReader").field("fd", &self.as_raw_fd()).finish()
    }
}

impl EventReader {
    pub(crate) fn new(fd: &OwnedFd) -> Result<Self, LoaderError> {
        let fd = sys::duplicate(fd).map_err(|source| LoaderError::Map {
            operation: "open",
            map: map_name::EVENTS,
            source,
        })?;
        let failed = |error| LoaderError::Events(Box::new(error));
        let data = MapData::from_fd(fd).map_err(failed)?;
        Ok(Self { ring: RingBuf::try_from(Map::RingBuf(data)).map_err(failed)? })
    }

    /// The next event, if there is one. Never waits.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let item = self.ring.next()?;
            if item.len() >= size_of::<Event>() {
                // SAFETY: there are enough bytes, every bit pattern is an event, and the read needs no alignment.
                return Some(unsafe { item.as_ptr().cast::<Event>().read_unaligned() });
            }
            // Too short to be one of ours: skip it.
        }
    }
}

impl Iterator for EventReader {
    type Item = Event;

    /// Ends when the buffer is empty; there may be more later.
    fn next(&mut self) -> Option<Event> {
        self.next_event()
    }
}

impl AsFd for EventReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for EventReader {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
