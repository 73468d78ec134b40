//! Looks at the node again and again: its addresses, its links, its devices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use sluice_client::model::Problem;
use sluice_ebpf_loader::Datapath;
use sluice_netlink::{Error, Netlink};
use tokio::sync::watch;

use super::guard::Guard;
use super::{devices, masquerade, redirect, routers};
use crate::event::Event;
use crate::observe::Names;
use crate::report::chain;

const INTERVAL: Duration = Duration::from_secs(1);
/// How many looks lie between two looks at what rarely changes.
const RARELY: u32 = 30;

/// What the node's set-up follows.
#[derive(Clone, Debug)]
pub(crate) struct NodeSettings {
    /// Where bpffs is to be.
    pub(crate) bpffs: PathBuf,
    /// Pins of the datapath.
    pub(crate) pins: PathBuf,
    /// Devices by name; empty for those of the default routes.
    pub devices: Vec<String>,
    /// Router addresses.
    pub routers: Vec<IpAddr>,
    /// Pools of which what leaves is masqueraded.
    pub masqueraded: Vec<IpNet>,
    /// Whether there is a proxy to hand flows to.
    pub redirects: bool,
}

/// The watching thread's knowledge.
#[derive(Debug)]
pub(crate) struct NodeWatch {
    netlink: Netlink,
    settings: NodeSettings,
    is_masqueraded: bool,
    last_addresses: Option<BTreeSet<IpAddr>>,
    last_node: Option<(Vec<String>, Vec<Problem>)>,
    guard: Guard,
    looks: u32,
}

impl NodeWatch {
    /// Watches the namespace of the calling thread.
    ///
    /// # Errors
    /// There is no netlink socket.
    pub(crate) fn new(
        settings: NodeSettings,
        datapath: Arc<Datapath>,
        names: watch::Receiver<Arc<Names>>,
    ) -> Result<Self, Error> {
        let netlink = Netlink::open()?;
        let guard = Guard::new(&settings, datapath, names);
        Ok(Self {
            netlink,
            settings,
            is_masqueraded: false,
            last_addresses: None,
            last_node: None,
            guard,
            looks: 0,
        })
    }

    /// Sets up what is missing and says what changed.
    pub(crate) fn look(&mut self) -> Vec<Event> {
        let mut problems = Vec::new();
        if let Err(error) = routers::set_up_routers(&mut self.netlink, &self.settings.routers) {
            problems.push(problem("router addresses", "pods cannot name the node by them", &error));
        }
        if self.settings.redirects {
            problems.extend(redirect::set_up(&mut self.netlink));
        }
        self.masquerade(&mut problems);
        let (devices, more) =
            devices::attach_all(&mut self.netlink, &self.settings.pins, &self.settings.devices);
        problems.extend(more);
        problems.extend(self.guard.look(&mut self.netlink));
        let mut events = Vec::new();
        match addresses(&mut self.netlink) {
            Ok(addresses) => {
                if self.last_addresses.as_ref() != Some(&addresses) {
                    self.last_addresses = Some(addresses.clone());
                    events.push(Event::NodeAddresses(addresses));
                }
            }
            Err(error) => {
                problems.push(problem("node addresses", "the last known ones stay in force", &error))
            }
        }
        match links(&mut self.netlink) {
            Ok(links) => events.push(Event::Links(links)),
            Err(error) => problems.push(problem("links", "pods without interface are not noticed", &error)),
        }
        let node = (devices, problems);
        if self.last_node.as_ref() != Some(&node) {
            let (devices, problems) = node.clone();
            self.last_node = Some(node);
            events.push(Event::Node { devices, problems });
        }
        events
    }

    fn masquerade(&mut self, problems: &mut Vec<Problem>) {
        self.looks = self.looks.wrapping_add(1);
        if self.settings.masqueraded.is_empty() {
            return;
        }
        // Others may flush all tables, ours too.
        if self.is_masqueraded && self.looks.is_multiple_of(RARELY) {
            self.is_masqueraded = masquerade::is_installed();
        }
        if self.is_masqueraded {
            return;
        }
        match masquerade::install(&self.settings.masqueraded) {
            Ok(()) => self.is_masqueraded = true,
            Err(error) => problems.push(problem("masquerade", "pods have no way to the outside", &error)),
        }
    }

    /// Looks every second until nobody listens.
    pub(crate) fn run(mut self, send: impl Fn(Event) -> bool) {
        loop {
            std::thread::sleep(INTERVAL);
            for event in self.look() {
                if !send(event) {
                    return;
                }
            }
        }
    }
}

/// All addresses of the namespace.
///
/// # Errors
/// The kernel refuses.
pub(super) fn addresses(netlink: &mut Netlink) -> Result<BTreeSet<IpAddr>, Error> {
    Ok(netlink.addresses(None)?.into_iter().map(|address| address.net.addr()).collect())
}

/// All links of the namespace.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn links(netlink: &mut Netlink) -> Result<BTreeMap<u32, String>, Error> {
    Ok(netlink.links()?.into_iter().map(|link| (link.index, link.name)).collect())
}

fn problem(object: &str, meaning: &str, error: &(dyn std::error::Error + 'static)) -> Problem {
    Problem { object: object.to_owned(), message: format!("{meaning}: {}", chain(error)) }
}
