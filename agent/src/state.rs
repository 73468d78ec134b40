//! Everything the agent knows, with one owner and one way to change it.
//!
//! [`State::apply`] takes one event and says what the outside world must now do; it never waits, reads a clock or
//! touches the kernel. Work comes out as one batch at a time (see [`crate::effect`]): while it is carried out,
//! further changes only mark what is out of date, and the next batch answers all of them at once. The order inside
//! a batch keeps traffic judged: policies know an identity before the ipcache maps an address to it, and forget it
//! only after nothing maps to it any more.

mod batch;
mod endpoints;
mod executed;
mod names;
mod objects;
mod requests;
mod restore;
mod rules;
mod services;
mod timers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use sluice_client::model::{CniGcResult, IpamLease, Problem};
use sluice_policy::labels::reserved_labels;
use sluice_policy::{Changed, Repository, ServiceName, ServiceTable};
use sluice_types::{EndpointId, Identity};

use crate::effect::{Effect, Report};
use crate::endpoint::ids::{EndpointIds, Numbers};
use crate::endpoint::{Attachment, Endpoint};
use crate::event::{Event, Now, Ticket};
use crate::identity::{ClusterIdentities, PrefixIdentities};
use crate::ipam::{Ipam, Owner};
use crate::ipcache::Ipcache;

pub(crate) use names::NamesCache;
pub(crate) use objects::Objects;
pub(crate) use requests::kind_of;
pub(crate) use restore::Restored;

/// How long identities stay known after their last use.
const IDENTITY_GRACE: Duration = Duration::from_secs(5);
/// How long an endpoint's creation waits for its pod's manifest.
const POD_WAIT: Duration = Duration::from_secs(2);
/// How long an endpoint stays without its interface.
const MISSING_GRACE: Duration = Duration::from_secs(10);
/// How long a lease stays without an endpoint.
const LEASE_OPEN_MAX: Duration = Duration::from_secs(600);
/// How long the ipcache and removals wait after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The policy engine's options. Audit mode is set per endpoint, so it is off here.
    pub policy: sluice_policy::Config,
    /// Audit mode of endpoints that do not say.
    pub audit: bool,
    /// The word for `status`.
    pub enforcement: &'static str,
    /// Where objects come from, for `status`.
    pub source: String,
    /// Address pools.
    pub pools: Vec<IpNet>,
    /// How long a released address rests.
    pub release_rest: Duration,
    /// MTU of pods.
    pub mtu: u32,
}

/// The agent's state.
#[derive(Debug)]
pub(crate) struct State {
    settings: Settings,
    started: Instant,
    repository: Repository,
    objects: Objects,
    services: ServiceTable,
    identities: ClusterIdentities,
    prefixes: PrefixIdentities,
    ipcache: Ipcache,
    ipam: Ipam,
    numbers: Numbers,
    ids: EndpointIds,
    endpoints: BTreeMap<EndpointId, Endpoint>,
    by_owner: HashMap<Owner, EndpointId>,
    by_pod: HashMap<(String, String), BTreeSet<EndpointId>>,
    by_address: HashMap<IpAddr, EndpointId>,
    node_addresses: BTreeSet<IpAddr>,
    devices: Vec<String>,

    is_source_read: bool,
    are_addresses_known: bool,
    is_settled: bool,
    /// Whose policies are out of date.
    changed: Changed,
    /// Services that the policy engine must be told about.
    touched: BTreeSet<ServiceName>,
    /// Whether rules may name other prefixes than those with an identity.
    are_prefixes_stale: bool,
    /// What is not on disk yet.
    unstored: Unstored,
    removals: Vec<Removal>,
    /// Interfaces that lead to an endpoint that is not theirs.
    strangers: Vec<u32>,
    ipcache_retry: Option<Instant>,
    waiting_for_pod: Vec<WaitingForPod>,
    creating: HashMap<EndpointId, Vec<Ticket>>,
    /// Answers for the end of the next batch.
    pending: Vec<(Ticket, Pending)>,
    in_flight: Option<InFlight>,
    names: NamesCache,
    last_tick: Option<Instant>,
    /// What is wrong for as long as it is wrong, by object.
    problems: BTreeMap<String, String>,
    node_problems: Vec<Problem>,
    restore_problems: Vec<Problem>,
}

/// Tables that differ from their files.
#[derive(Debug, Default)]
struct Unstored {
    ipam: bool,
    identities: bool,
    retry_at: Option<Instant>,
}

/// An endpoint that must go from the kernel.
#[derive(Clone, Debug)]
struct Removal {
    id: EndpointId,
    addresses: Vec<IpAddr>,
    retry_at: Option<Instant>,
}

/// An endpoint that cannot be made before its pod is known.
#[derive(Debug)]
struct WaitingForPod {
    attachment: Attachment,
    ticket: Ticket,
    deadline: Instant,
}

/// An answer that needs a batch to be carried out.
#[derive(Debug)]
enum Pending {
    Lease(Owner, IpamLease),
    Removed(Option<EndpointId>),
    View(EndpointId),
    Gc(CniGcResult),
}

/// What the batch on its way will have done.
#[derive(Debug, Default)]
struct InFlight {
    installs: Vec<executed::Installed>,
    stored: Vec<EndpointId>,
    rules: rules::Publication,
    told: Vec<EndpointId>,
    closed: Vec<EndpointId>,
    ipcache: crate::ipcache::IpcacheChanges,
    removals: Vec<Removal>,
    pending: Vec<(Ticket, Pending)>,
}

impl State {
    /// A state that knows nothing but the reserved identities. Nothing is written to the kernel before the sources
    /// and the node's addresses are known.
    #[must_use]
    pub(crate) fn new(settings: Settings, now: Now) -> Self {
        let mut repository = Repository::new(settings.policy.clone());
        let mut names = NamesCache::default();
        for (identity, _) in Identity::reserved() {
            let labels = reserved_labels(identity);
            names.identity(identity, Some(&labels));
            // Nobody has a policy yet that could change.
            drop(repository.set_identity(identity, labels));
        }
        let ipam = Ipam::new(&settings.pools, settings.release_rest);
        Self {
            started: now.instant,
            repository,
            objects: Objects::default(),
            services: ServiceTable::default(),
            identities: ClusterIdentities::new(),
            prefixes: PrefixIdentities::new(),
            ipcache: Ipcache::default(),
            ipam,
            numbers: Numbers::restore(Default::default(), Default::default()),
            ids: EndpointIds::default(),
            endpoints: BTreeMap::new(),
            by_owner: HashMap::new(),
            by_pod: HashMap::new(),
            by_address: HashMap::new(),
            node_addresses: BTreeSet::new(),
            devices: Vec::new(),
            is_source_read: false,
            are_addresses_known: false,
            is_settled: false,
            changed: Changed::default(),
            touched: BTreeSet::new(),
            are_prefixes_stale: false,
            unstored: Unstored::default(),
            removals: Vec::new(),
            strangers: Vec::new(),
            ipcache_retry: None,
            waiting_for_pod: Vec::new(),
            creating: HashMap::new(),
            pending: Vec::new(),
            in_flight: None,
            names,
            last_tick: None,
            problems: BTreeMap::new(),
            node_problems: Vec::new(),
            restore_problems: Vec::new(),
            settings,
        }
    }

    /// Takes one event and says what must now be done, in this order.
    pub(crate) fn apply(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut effects = match event {
            Event::Source(changes) => self.source_changed(*changes, now),
            Event::NodeAddresses(addresses) => self.node_addresses_changed(addresses),
            Event::Links(links) => self.links_seen(&links, now),
            Event::Node { devices, problems } => {
                self.devices = devices;
                self.node_problems = problems;
                Vec::new()
            }
            Event::Request(request, ticket) => self.request(request, ticket, now),
            Event::Executed(report) => self.executed(&report, now),
            Event::Tick => self.tick(now),
        };
        self.go_on(&mut effects, now);
        self.is_settled |= self.is_ready() && self.in_flight.is_none();
        effects
    }

    /// Starts the next batch if there is something to do and nothing on its way.
    fn go_on(&mut self, effects: &mut Vec<Effect>, now: Now) {
        while self.in_flight.is_none() && self.is_ready() {
            let batch = self.next_batch(now);
            if let Some(names) = self.names.publish() {
                effects.push(Effect::Publish(names));
            }
            if !batch.steps.is_empty() {
                effects.push(Effect::Execute(batch));
                return;
            }
            // Nothing to write: what waits for the end of a batch need not wait.
            effects.extend(self.executed(&Report::default(), now));
            if self.changed.is_empty() && self.pending.is_empty() {
                return;
            }
        }
    }

    /// Whether enough is known to compute policies.
    #[must_use]
    pub(crate) const fn is_ready(&self) -> bool {
        self.is_source_read && self.are_addresses_known
    }

    /// Whether the kernel has had everything that was known at some moment since the start.
    #[must_use]
    pub(crate) const fn is_settled(&self) -> bool {
        self.is_settled
    }

    fn node_addresses_changed(&mut self, addresses: BTreeSet<IpAddr>) -> Vec<Effect> {
        use crate::ipcache::Claim;
        use sluice_ebpf_common::{IpcacheEntry, IpcacheFlags};
        let host = IpcacheEntry {
            identity: Identity::HOST.as_u32(),
            flags: IpcacheFlags::NODE_LOCAL,
            ..IpcacheEntry::default()
        };
        for gone in self.node_addresses.difference(&addresses) {
            self.ipcache.clear(IpNet::from(*gone), Claim::Node);
        }
        for address in &addresses {
            self.ipcache.set(IpNet::from(*address), Claim::Node, host);
        }
        self.node_addresses = addresses;
        self.are_addresses_known = true;
        Vec::new()
    }

    /// Notes that something is wrong with `object`, or right again.
    fn set_problem(&mut self, object: impl Into<String>, message: Option<String>) {
        match message {
            Some(message) => self.problems.insert(object.into(), message),
            None => self.problems.remove(&object.into()),
        };
    }
}

#[cfg(test)]
mod tests;
