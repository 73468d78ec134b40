//! The programs for measurements: the datapath's lookups on random keys, and what they are compared with.
//!
//! Used by the measurements only. The object is read from disk, not embedded: no product carries it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use aya::EbpfLoader;
use ipnet::Ipv4Net;
use sluice_ebpf_common::{IpcacheEntry, PolicyEntry, PolicyKey, map_name};
use sluice_policy::map_state::MapState;
use sluice_types::EndpointId;

use crate::error::LoaderError;
use crate::ipcache::Ipcache;
use crate::map::Map;
use crate::object::{self, LoadedProgram};
use crate::plain::PrefixKey;
use crate::policy::Policies;
use crate::{sys, translate};

const PROGRAMS: [&str; 5] = ["bench_nothing", "bench_identity", "bench_trie", "bench_policy", "bench_hash"];

/// The measurement programs with their own, unpinned maps.
#[derive(Debug)]
pub struct Lookups {
    ipcache: Ipcache,
    policies: Policies,
    range: Map<u32, u32>,
    hash: Map<PolicyKey, PolicyEntry>,
    trie: Map<PrefixKey<[u8; 4]>, IpcacheEntry>,
    programs: Vec<LoadedProgram>,
}

impl Lookups {
    /// Loads the object at `path` (`target/ebpf/bench.bpf.o`).
    ///
    /// # Errors
    /// The file is missing, or the kernel refuses it.
    pub fn load(path: &Path) -> Result<Self, LoaderError> {
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        let mut object = loader.load_file(path).map_err(|error| LoaderError::Load(Box::new(error)))?;
        let programs =
            PROGRAMS.into_iter().map(|name| object::program(&mut object, name)).collect::<Result<_, _>>()?;
        let mut map = |name: &'static str| -> Result<OwnedFd, LoaderError> { object::map(&mut object, name) };
        Ok(Self {
            ipcache: Ipcache::new(
                map(map_name::IPCACHE4)?,
                map(map_name::IPCACHE6)?,
                map(map_name::CIDR4)?,
                map(map_name::CIDR6)?,
            ),
            policies: Policies::new(map(map_name::POLICY)?),
            range: Map::new(map("bench_range")?, "bench_range"),
            hash: Map::new(map("bench_plain")?, "bench_plain"),
            trie: Map::new(map("bench_prefix")?, "bench_prefix"),
            programs,
        })
    }

    /// From how many keys the programs draw.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_range(&self, keys: u32) -> Result<(), LoaderError> {
        self.range.set(&0, &keys)
    }

    /// Fills the ipcache and the trie with the same prefixes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn fill_addresses(&self, prefixes: &[(Ipv4Net, IpcacheEntry)]) -> Result<(), LoaderError> {
        let all: Vec<_> = prefixes.iter().map(|(prefix, entry)| ((*prefix).into(), *entry)).collect();
        self.ipcache.upsert_many(&all)?;
        for (prefix, entry) in prefixes {
            let length = u32::from(prefix.prefix_len());
            self.trie.set(&PrefixKey { length, address: prefix.network().octets() }, entry)?;
        }
        Ok(())
    }

    /// Installs a table for endpoint 1 and fills the bare hash with its entries.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn fill_policy(&self, state: &MapState) -> Result<(), LoaderError> {
        if let Some(endpoint) = EndpointId::new(1) {
            self.policies.install(&[endpoint], state)?;
        }
        self.fill_hash(state)
    }

    /// Fills the bare hash with the entries of a table.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn fill_hash(&self, state: &MapState) -> Result<(), LoaderError> {
        let keys: Vec<_> = state.entries.keys().map(translate::key).collect();
        let values: Vec<_> = state.entries.values().map(translate::entry).collect();
        self.hash.set_many(&keys, &values)
    }

    /// Nanoseconds of one run of a program, the mean over `repeat` runs, harness included.
    ///
    /// # Errors
    /// There is no such program, or the kernel refuses.
    pub fn nanoseconds(&self, name: &'static str, repeat: u32) -> Result<u32, LoaderError> {
        let program = self.programs.iter().find(|program| program.name == name);
        let program = program.ok_or(LoaderError::Missing { kind: "program", name })?;
        let mut packet = [0_u8; 64].to_vec();
        let (_, duration) = sys::run_program(program.fd.as_fd(), &mut packet, &[0; 48], repeat)
            .map_err(|source| LoaderError::Attach { operation: "run", program: name, ifindex: 0, source })?;
        Ok(duration)
    }
}
