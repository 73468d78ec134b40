//! Sees to it that every pod's interface carries our programs, that maps and programs stay pinned, and that no link
//! pin outlives its interface.
//!
//! Nobody but root can take a program away; what root took is put back and reported, because until then the pod's
//! packets were not judged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use sluice_client::model::Problem;
use sluice_ebpf_loader::{Datapath, attach, bpffs};
use sluice_netlink::Netlink;
use tokio::sync::watch;

use super::NodeSettings;
use crate::observe::Names;
use crate::report::chain;

/// How many interfaces are looked at each time: a look costs a dozen system calls.
const LOOKED_AT_MAX: usize = 256;
/// For how many looks a repair is shown.
const SHOWN: u32 = 60;

/// What the last looks found.
#[derive(Debug)]
pub(super) struct Guard {
    bpffs: PathBuf,
    pins: PathBuf,
    datapath: Arc<Datapath>,
    names: watch::Receiver<Arc<Names>>,
    /// Where the next look starts.
    cursor: String,
    /// Interfaces without programs at the last look. A pod that is just being deleted is such a one for a moment.
    suspects: BTreeSet<String>,
    /// Pins without interface at the last look.
    orphans: BTreeSet<String>,
    /// What was repaired, and for how long it is still shown.
    repaired: BTreeMap<String, u32>,
}

impl Guard {
    pub(super) fn new(
        settings: &NodeSettings,
        datapath: Arc<Datapath>,
        names: watch::Receiver<Arc<Names>>,
    ) -> Self {
        let (cursor, suspects, orphans, repaired) = Default::default();
        let (bpffs, pins) = (settings.bpffs.clone(), settings.pins.clone());
        Self { bpffs, pins, datapath, names, cursor, suspects, orphans, repaired }
    }

    /// Repairs what is wrong. Says what was, and what still is.
    pub(super) fn look(&mut self, netlink: &mut Netlink) -> Vec<Problem> {
        let mut problems = self.restore_pins();
        problems.extend(self.remove_orphans(netlink));
        let mut suspects = BTreeSet::new();
        for (name, ifindex) in self.next_interfaces() {
            match attach::is_attached(&self.pins, &name, ifindex) {
                Ok(true) => {}
                Ok(false) if !self.suspects.contains(&name) => {
                    suspects.insert(name);
                }
                // An interface that is gone is not ours to repair.
                Ok(false) if !matches!(netlink.find_link(&name), Ok(Some(link)) if link.index == ifindex) => {
                }
                Ok(false) => match attach::attach_container(&self.pins, &name, ifindex) {
                    Ok(()) => {
                        tracing::warn!(interface = name, "programs were taken away; they are attached again");
                        self.repaired.insert(name, SHOWN);
                    }
                    Err(error) => {
                        suspects.insert(name.clone());
                        let message = format!("the pod's packets are not judged: {}", chain(&error));
                        problems.push(Problem { object: format!("interface {name}"), message });
                    }
                },
                Err(error) => problems.push(Problem {
                    message: format!("it is not known whether it carries the programs: {}", chain(&error)),
                    object: format!("interface {name}"),
                }),
            }
        }
        self.suspects = suspects;
        problems.extend(self.repairs());
        problems
    }

    /// Pins again what somebody unpinned, on a bpffs of its own if even that is gone.
    fn restore_pins(&mut self) -> Vec<Problem> {
        let result = bpffs::ensure(&self.bpffs).and_then(|()| self.datapath.pin_again());
        match result {
            Ok(0) => Vec::new(),
            Ok(missing) => {
                tracing::warn!(missing, pins = %self.pins.display(), "pins were taken away; they are made again");
                Vec::new()
            }
            Err(error) => {
                let message =
                    format!("pins cannot be made again, a restart would lose everything: {}", chain(&error));
                vec![Problem { object: self.pins.display().to_string(), message }]
            }
        }
    }

    /// The interfaces to look at now: suspects, and the next ones in turn.
    fn next_interfaces(&mut self) -> Vec<(String, u32)> {
        let names = Arc::clone(&self.names.borrow());
        let all: BTreeMap<&str, u32> = names
            .endpoints
            .values()
            .filter(|endpoint| endpoint.host_ifindex != 0)
            .map(|endpoint| (endpoint.host_ifname.as_str(), endpoint.host_ifindex))
            .collect();
        let (before, after): (Vec<_>, Vec<_>) =
            all.iter().partition(|(name, _)| **name <= self.cursor.as_str());
        let mut chosen: Vec<(String, u32)> = after
            .into_iter()
            .chain(before)
            .take(LOOKED_AT_MAX)
            .map(|(name, ifindex)| ((*name).to_owned(), *ifindex))
            .collect();
        self.cursor = chosen.last().map(|(name, _)| name.clone()).unwrap_or_default();
        for suspect in &self.suspects {
            if let Some(ifindex) = all.get(suspect.as_str())
                && !chosen.iter().any(|(name, _)| name == suspect)
            {
                chosen.push((suspect.clone(), *ifindex));
            }
        }
        chosen
    }

    fn repairs(&mut self) -> Vec<Problem> {
        self.repaired.retain(|_, left| {
            *left -= 1;
            *left > 0
        });
        let message = "somebody took our programs away from it; they are attached again, but what passed in between \
                       was not judged";
        let problem =
            |name: &String| Problem { object: format!("interface {name}"), message: message.to_owned() };
        self.repaired.keys().map(problem).collect()
    }

    /// Removes link pins whose interface was gone twice in a row.
    fn remove_orphans(&mut self, netlink: &mut Netlink) -> Vec<Problem> {
        let pinned = match attach::pinned_interfaces(&self.pins) {
            Ok(pinned) => pinned,
            Err(error) => {
                let message = format!("pins cannot be read, new pods cannot be attached: {}", chain(&error));
                return vec![Problem { object: self.pins.display().to_string(), message }];
            }
        };
        let mut orphans = BTreeSet::new();
        let mut problems = Vec::new();
        for name in pinned.into_iter().filter(|name| matches!(netlink.find_link(name), Ok(None))) {
            if !self.orphans.contains(&name) {
                orphans.insert(name);
            } else if let Err(error) = attach::detach(&self.pins, &name) {
                let message = format!("the pin of an interface that is gone stays: {}", chain(&error));
                problems.push(Problem { object: format!("interface {name}"), message });
            }
        }
        self.orphans = orphans;
        problems
    }
}
