//! The datapath's run-time settings.

use std::os::fd::OwnedFd;

use sluice_ebpf_common::{Config, ConfigFlags, map_name};

use crate::error::LoaderError;
use crate::map::Map;

/// What an operator may choose. The ipcache epoch is not among it: it only ever rises.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Switches.
    pub flags: ConfigFlags,
    /// How many live connections one endpoint may have opened; 0 for no limit.
    pub conntrack_quota: u32,
    /// How many events per second, drop reason and CPU are reported.
    pub events_per_second: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            flags: ConfigFlags::ALLOW_FRAG_NEEDED
                .with(ConfigFlags::TRACK_FRAGMENTS)
                .with(ConfigFlags::REDIRECTS),
            conntrack_quota: 32_768,
            events_per_second: 1_000,
        }
    }
}

/// The settings in the kernel. One writer at a time: the agent.
#[derive(Clone, Debug)]
pub struct SettingsMap {
    map: Map<u32, Config>,
}

impl SettingsMap {
    pub(crate) fn new(map: OwnedFd) -> Self {
        Self { map: Map::new(map, map_name::CONFIG) }
    }

    /// What is in force; all zero before anything was written.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn read(&self) -> Result<Config, LoaderError> {
        Ok(self.map.get(&0)?.unwrap_or_default())
    }

    /// Puts settings in force and keeps the epoch.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn write(&self, settings: &Settings) -> Result<(), LoaderError> {
        let Settings { flags, conntrack_quota, events_per_second } = *settings;
        let ipcache_epoch = self.read()?.ipcache_epoch;
        self.map.set(&0, &Config { ipcache_epoch, flags, conntrack_quota, events_per_second })
    }

    /// Makes all remembered verdicts stale, after an address changed its identity. Returns the new epoch.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn bump_epoch(&self) -> Result<u32, LoaderError> {
        let mut config = self.read()?;
        config.ipcache_epoch = config.ipcache_epoch.wrapping_add(1);
        self.map.set(&0, &config)?;
        Ok(config.ipcache_epoch)
    }
}
