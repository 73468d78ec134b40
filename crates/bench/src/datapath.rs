//! Our datapath on a lab: programs attached, endpoints known, a policy in force on both pods.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use sluice_ebpf_loader::common::{EndpointFlags, EndpointInfo, IpcacheEntry};
use sluice_ebpf_loader::{Datapath, Settings, Sizes, attach, bpffs};
use sluice_policy::map_state::{Entry, EntryVerdict, Key, L4Match, MapState};
use sluice_types::{Direction, EndpointId, Identity, Protocol, RuleId};

use crate::lab::{Lab, POD_IPS};

/// Keeps the datapath of a lab alive; dropping it removes the pins.
#[derive(Debug)]
pub(crate) struct Enforced {
    bpffs: PathBuf,
    // The directory that the bpffs is mounted on goes last.
    _directory: tempfile::TempDir,
    _datapath: Datapath,
}

impl Enforced {
    /// Both pods get an endpoint with an enforced policy of 20 entries each way that allows the other pod.
    pub(crate) fn new(lab: &Lab) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let bpffs = directory.path().join("bpf");
        bpffs::ensure(&bpffs)?;
        let pins = bpffs.join("pins");
        let datapath = Datapath::load_or_adopt(&pins, &Sizes::default())?;
        let enforced = Self { bpffs, _directory: directory, _datapath: datapath };
        enforced._datapath.settings.write(&Settings::default())?;
        for nth in 0..2_u16 {
            enforced.endpoint(lab, nth)?;
            let veth = format!("hv{nth}");
            lab.node.enter(|| {
                let index = attach::ifindex(&veth)?;
                attach::attach_container(&pins, &veth, index)
            })??;
        }
        Ok(enforced)
    }

    fn endpoint(&self, lab: &Lab, nth: u16) -> Result<()> {
        let id = EndpointId::new(nth + 1).context("endpoint ids start at 1")?;
        let ip = POD_IPS.get(usize::from(nth)).copied().context("two pods")?;
        let info = EndpointInfo {
            id: id.as_u16(),
            flags: EndpointFlags::READY,
            ifindex: lab.node.enter(|| attach::ifindex(&format!("hv{nth}")))??,
            identity: identity(nth),
            revision: 1,
            generation: u32::from(nth) + 1,
            mac: [2, 0, 0, 0, 2, nth.to_le_bytes()[0] + 1],
            host_mac: [2, 0, 0, 0, 1, nth.to_le_bytes()[0] + 1],
            ipv4_be: ip.octets(),
            ..EndpointInfo::default()
        };
        let datapath = &self._datapath;
        datapath.policies.install(&[id], &allow_peers(20))?;
        datapath.endpoints.insert(&info)?;
        datapath.ipcache.upsert(
            ipnet(ip),
            &IpcacheEntry { identity: identity(nth), endpoint: id.as_u16(), ..IpcacheEntry::default() },
        )?;
        datapath.settings.bump_epoch()?;
        Ok(())
    }
}

impl Drop for Enforced {
    fn drop(&mut self) {
        // The pins go with the file system.
        drop(Command::new("umount").arg("-l").arg(&self.bpffs).output());
    }
}

/// Identity of the nth pod.
pub(crate) fn identity(nth: u16) -> u32 {
    256 + u32::from(nth)
}

/// A table that allows `count` identities from 256 on, on every TCP port, in both directions.
pub(crate) fn allow_peers(count: u32) -> MapState {
    let mut state = MapState::default();
    for direction in Direction::ALL {
        for number in 0..count {
            let key = Key {
                direction,
                peer: Some(Identity::new(256 + number)),
                l4: L4Match::Protocol(Protocol::Tcp),
            };
            let entry = Entry { precedence: 1, verdict: EntryVerdict::Allow, rule: RuleId(1) };
            state.entries.insert(key, entry);
        }
    }
    state
}

pub(crate) fn ipnet(ip: Ipv4Addr) -> ipnet::IpNet {
    ipnet::IpNet::from(std::net::IpAddr::V4(ip))
}
