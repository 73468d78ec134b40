//! The datapath as one value: programs in the kernel and handles to all maps.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use sluice_ebpf_common::map_name;

use crate::attach;
use crate::conntrack::Conntrack;
use crate::counters::CountersReader;
use crate::endpoints::Endpoints;
use crate::error::LoaderError;
use crate::events::EventReader;
use crate::ipcache::Ipcache;
use crate::object::{self, Loaded, LoadedProgram, Sizes};
use crate::policy::Policies;
use crate::settings::SettingsMap;
use crate::sys;

/// Programs and maps. Dropping it detaches nothing: pins keep everything alive.
#[derive(Debug)]
pub struct Datapath {
    /// Endpoints and the interfaces they are behind.
    pub endpoints: Endpoints,
    /// Who has an address.
    pub ipcache: Ipcache,
    /// The policy map of each endpoint.
    pub policies: Policies,
    /// Connections.
    pub conntrack: Conntrack,
    /// Forwarded, dropped and lost.
    pub counters: CountersReader,
    /// Run-time settings.
    pub settings: SettingsMap,
    events: OwnedFd,
    programs: Vec<LoadedProgram>,
    /// Every map, to be pinned again if somebody takes the pins away.
    maps: Vec<(&'static str, OwnedFd)>,
    pins: Option<PathBuf>,
}

/// What one run of a program on a given packet did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TestRun {
    /// What the program returned: 0 pass, 2 drop, 7 redirect.
    pub verdict: u32,
    /// Mean duration of one run in nanoseconds, with the harness.
    pub duration_ns: u32,
    /// The frame as the program left it.
    pub packet: Vec<u8>,
}

impl Datapath {
    /// Loads the programs, with maps and links pinned below `pins` (which must lie on a bpffs and is made if
    /// missing). What an earlier run pinned is taken over: maps with their content and their sizes, and every
    /// link, whose program is replaced in place, so that no packet passes unjudged.
    ///
    /// # Errors
    /// The kernel refuses a map or program, or a pin cannot be made. Programs that were attached before stay.
    pub fn load_or_adopt(pins: &Path, sizes: &Sizes) -> Result<Self, LoaderError> {
        std::fs::create_dir_all(pins).map_err(|source| LoaderError::Pin {
            operation: "make the directory",
            path: pins.to_owned(),
            source,
        })?;
        let loaded = object::load(Some(pins), sizes)?;
        for program in &loaded.programs {
            attach::replace_program_pin(pins, program.name, program.fd.as_fd())?;
        }
        attach::update_links(pins, |name| {
            loaded.programs.iter().find(|program| program.name == name).map(|program| program.fd.as_fd())
        })?;
        Self::new(loaded, Some(pins.to_owned()))
    }

    /// Loads programs and maps without pinning anything: for tests and measurements. All is gone when dropped.
    ///
    /// # Errors
    /// The kernel refuses a map or program.
    pub fn load_unpinned(sizes: &Sizes) -> Result<Self, LoaderError> {
        Self::new(object::load(None, sizes)?, None)
    }

    fn new(loaded: Loaded, pins: Option<PathBuf>) -> Result<Self, LoaderError> {
        let Loaded { maps, programs } = loaded;
        let kept = maps.iter().map(|(name, fd)| Ok((*name, sys::duplicate(fd)?))).collect::<io::Result<_>>();
        let kept = kept.map_err(|source| LoaderError::Map { operation: "keep", map: "all", source })?;
        let mut maps = Maps(maps);
        Ok(Self {
            endpoints: Endpoints::new(
                maps.take(map_name::ENDPOINT)?,
                maps.take(map_name::IFINDEX)?,
                maps.take(map_name::IFSLOT)?,
                maps.copy(map_name::QUOTA)?,
            ),
            ipcache: Ipcache::new(
                maps.take(map_name::IPCACHE4)?,
                maps.take(map_name::IPCACHE6)?,
                maps.take(map_name::CIDR4)?,
                maps.take(map_name::CIDR6)?,
            ),
            policies: Policies::new(maps.take(map_name::POLICY)?),
            conntrack: Conntrack::new(
                maps.take(map_name::CONNTRACK4)?,
                maps.take(map_name::CONNTRACK6)?,
                maps.take(map_name::QUOTA)?,
            ),
            counters: CountersReader::new(
                maps.take(map_name::FORWARD)?,
                maps.take(map_name::COUNTER)?,
                maps.take(map_name::LIMIT)?,
            )?,
            settings: SettingsMap::new(maps.take(map_name::CONFIG)?),
            events: maps.take(map_name::EVENTS)?,
            programs,
            maps: kept,
            pins,
        })
    }

    /// Pins again what is not pinned any more: maps and programs. Returns how many pins were missing. Links are not
    /// held here; without their pins they are gone, and [`attach::attach_container`] makes new ones.
    ///
    /// # Errors
    /// The directory cannot be made, or a pin not be made.
    pub fn pin_again(&self) -> Result<usize, LoaderError> {
        let Some(pins) = &self.pins else { return Ok(0) };
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| LoaderError::Pin { operation, path, source }
        };
        std::fs::create_dir_all(pins).map_err(failed("make the directory", pins))?;
        let mut missing = 0;
        for (name, fd) in &self.maps {
            let path = pins.join(name);
            if !path.exists() {
                missing += 1;
                sys::pin(fd.as_fd(), &path).map_err(failed("pin", &path))?;
            }
        }
        for program in &self.programs {
            if !attach::has_program_pin(pins, program.name) {
                missing += 1;
                attach::replace_program_pin(pins, program.name, program.fd.as_fd())?;
            }
        }
        Ok(missing)
    }

    /// Where everything is pinned, if it is.
    #[must_use]
    pub fn pins(&self) -> Option<&Path> {
        self.pins.as_deref()
    }

    /// Opens the event buffer. There should be one reader: each event is read once.
    ///
    /// # Errors
    /// The buffer cannot be mapped.
    pub fn events(&self) -> Result<EventReader, LoaderError> {
        EventReader::new(&self.events)
    }

    /// How many instructions the verifier walked through for each program.
    pub fn verified_instructions(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.programs.iter().map(|program| (program.name, program.verified_instructions))
    }

    /// Runs the program `name` on a frame, as if it had come by the interface `ifindex` of this network namespace;
    /// `came_in` is the interface by which it reached the node, 0 for none. Redirects are only reported.
    ///
    /// # Errors
    /// There is no such program, or the kernel refuses the packet.
    pub fn run(
        &self,
        name: &'static str,
        packet: &[u8],
        ifindex: u32,
        came_in: u32,
        repeat: u32,
    ) -> Result<TestRun, LoaderError> {
        let program = self.programs.iter().find(|program| program.name == name);
        let program = program.ok_or(LoaderError::Missing { kind: "program", name })?;
        // `struct __sk_buff`: `ingress_ifindex` and `ifindex` are its 10th and 11th words.
        let mut context = [0_u32; 48];
        let [_, _, _, _, _, _, _, _, _, ingress, own, ..] = &mut context;
        (*ingress, *own) = (came_in, ifindex);
        let mut packet = packet.to_vec();
        let (verdict, duration_ns) = sys::run_program(program.fd.as_fd(), &mut packet, &context, repeat)
            .map_err(|source| LoaderError::Attach { operation: "run", program: name, ifindex, source })?;
        Ok(TestRun { verdict, duration_ns, packet })
    }
}

/// Descriptors by name, each to be taken once.
struct Maps(HashMap<&'static str, OwnedFd>);

impl Maps {
    fn take(&mut self, name: &'static str) -> Result<OwnedFd, LoaderError> {
        self.0.remove(name).ok_or(LoaderError::Missing { kind: "map", name })
    }

    fn copy(&self, name: &'static str) -> Result<OwnedFd, LoaderError> {
        let fd = self.0.get(name).ok_or(LoaderError::Missing { kind: "map", name })?;
        sys::duplicate(fd).map_err(|source: io::Error| LoaderError::Map {
            operation: "keep",
            map: name,
            source,
        })
    }
}
