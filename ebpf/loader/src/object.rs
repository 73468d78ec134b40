//! The embedded object, and how it becomes maps and programs in the kernel.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use aya::maps::{Map, MapData};
use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfLoader};
use sluice_ebpf_common::{map_name, program_name};

use crate::error::LoaderError;
use crate::sys;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("SLUICE_EBPF_OBJECT_PATH"));

/// How many entries the maps take. Maps that are pinned already keep the size they were made with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sizes {
    /// Connections, each family.
    pub conntrack: u32,
    /// Single addresses in the ipcache, each family.
    pub addresses: u32,
    /// Prefixes in the ipcache, each family.
    pub prefixes: u32,
    /// Fragmented datagrams in flight.
    pub fragments: u32,
    /// Counters: endpoints × directions × reasons that occur.
    pub counters: u32,
    /// The event buffer in bytes, a power of two.
    pub event_bytes: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            conntrack: 262_144,
            addresses: 524_288,
            prefixes: 65_536,
            fragments: 8_192,
            counters: 65_536,
            event_bytes: 1 << 20,
        }
    }
}

impl Sizes {
    fn of(&self, map: &str) -> Option<u32> {
        match map {
            map_name::CONNTRACK4 | map_name::CONNTRACK6 => Some(self.conntrack),
            map_name::IPCACHE4 | map_name::IPCACHE6 => Some(self.addresses),
            map_name::CIDR4 | map_name::CIDR6 => Some(self.prefixes),
            map_name::FRAGMENT => Some(self.fragments),
            map_name::COUNTER => Some(self.counters),
            map_name::EVENTS => Some(self.event_bytes),
            _ => None,
        }
    }
}

/// Every map of the object.
pub(crate) const MAPS: [&str; 17] = [
    map_name::IFINDEX,
    map_name::IFSLOT,
    map_name::ENDPOINT,
    map_name::IPCACHE4,
    map_name::IPCACHE6,
    map_name::CIDR4,
    map_name::CIDR6,
    map_name::POLICY,
    map_name::CONNTRACK4,
    map_name::CONNTRACK6,
    map_name::FRAGMENT,
    map_name::FORWARD,
    map_name::COUNTER,
    map_name::QUOTA,
    map_name::LIMIT,
    map_name::EVENTS,
    map_name::CONFIG,
];

/// Every program of the object.
pub(crate) const PROGRAMS: [&str; 3] =
    [program_name::FROM_CONTAINER, program_name::TO_CONTAINER, program_name::FROM_NETDEV];

/// A program in the kernel.
#[derive(Debug)]
pub(crate) struct LoadedProgram {
    pub(crate) name: &'static str,
    pub(crate) fd: OwnedFd,
    /// How many instructions the verifier walked through.
    pub(crate) verified_instructions: u32,
}

/// What the object became.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) maps: HashMap<&'static str, OwnedFd>,
    pub(crate) programs: Vec<LoadedProgram>,
}

/// Loads maps and programs. With `pins`, maps pinned there are used again, and new ones are pinned there.
pub(crate) fn load(pins: Option<&Path>, sizes: &Sizes) -> Result<Loaded, LoaderError> {
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    for map in MAPS {
        if let Some(entries) = sizes.of(map) {
            loader.map_max_entries(map, entries);
        }
        if let Some(pins) = pins {
            loader.map_pin_path(map, pins.join(map));
        }
    }
    let mut object = loader.load(OBJECT).map_err(|error| LoaderError::Load(Box::new(error)))?;
    let programs = PROGRAMS.into_iter().map(|name| program(&mut object, name)).collect::<Result<_, _>>()?;
    let maps = MAPS.into_iter().map(|name| Ok((name, map(&mut object, name)?))).collect::<Result<_, _>>()?;
    Ok(Loaded { maps, programs })
}

pub(crate) fn program(object: &mut Ebpf, name: &'static str) -> Result<LoadedProgram, LoaderError> {
    let failed = |error| LoaderError::Program { program: name, source: Box::new(error) };
    let program = object.program_mut(name).ok_or(LoaderError::Missing { kind: "program", name })?;
    let program: &mut SchedClassifier = program.try_into().map_err(failed)?;
    load_uninterrupted(program).map_err(failed)?;
    let info = program.info().map_err(failed)?;
    let fd = sys::duplicate(&program.fd().map_err(failed)?.as_fd()).map_err(|source| LoaderError::Map {
        operation: "keep",
        map: name,
        source,
    })?;
    Ok(LoadedProgram { name, fd, verified_instructions: info.verified_instruction_count().unwrap_or(0) })
}

/// How long a program waits in all for signals that come in between. They have been seen pending for more than a fifth
/// of a second on end.
const INTERRUPTED_MAX: Duration = Duration::from_secs(10);

/// The longest rest between two attempts: whatever makes the signals gets time to end.
const INTERRUPTED_REST_MAX: Duration = Duration::from_millis(100);

/// Loads a program. The verifier gives up with `EAGAIN` as soon as a signal is pending, which says nothing about the
/// program.
fn load_uninterrupted(program: &mut SchedClassifier) -> Result<(), ProgramError> {
    let mut rest = Duration::from_micros(100);
    let mut rested = Duration::ZERO;
    loop {
        match program.load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.kind() == ErrorKind::WouldBlock && rested < INTERRUPTED_MAX => {}
            result => return result,
        }
        std::thread::sleep(rest);
        rested += rest;
        rest = (rest * 2).min(INTERRUPTED_REST_MAX);
    }
}

pub(crate) fn map(object: &mut Ebpf, name: &'static str) -> Result<OwnedFd, LoaderError> {
    let map = object.map(name).ok_or(LoaderError::Missing { kind: "map", name })?;
    let data = data(map).ok_or(LoaderError::Missing { kind: "map", name })?;
    sys::duplicate(&data.fd().as_fd()).map_err(|source| LoaderError::Map {
        operation: "keep",
        map: name,
        source,
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other kinds are not ours")]
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}
