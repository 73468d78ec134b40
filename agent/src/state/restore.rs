//! After a restart: takes over what the kernel enforces and what the disk remembers.
//!
//! The kernel's entries are the truth about what is enforced, the files about why. Nothing is flushed: each
//! endpoint keeps its policy until the newly computed one replaces it.

use std::collections::BTreeMap;

use ipnet::IpNet;
use sluice_client::model::{EndpointRequest, EndpointState, Problem};
use sluice_ebpf_common::{EndpointInfo, IpcacheEntry};
use sluice_netlink::MacAddr;
use sluice_policy::labels::reserved_labels;
use sluice_types::{EndpointId, Identity, IdentityScope, Labels};

use super::{Removal, Settings, State};
use crate::effect::{EndpointRecord, NumbersRecord};
use crate::endpoint::ids::Numbers;
use crate::endpoint::{Attachment, Endpoint, Realized};
use crate::event::Now;
use crate::identity::IdentityRecord;
use crate::ipam::{Addresses, Ipam, IpamRecord, Owner};

/// What was found at the start.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// Endpoints on disk.
    pub endpoints: Vec<EndpointRecord>,
    /// The table of identities on disk.
    pub identities: Vec<IdentityRecord>,
    /// How far numbers are used up, on disk.
    pub numbers: NumbersRecord,
    /// Leases on disk.
    pub ipam: IpamRecord,
    /// The kernel's endpoint entries that are not zero.
    pub kernel: Vec<EndpointInfo>,
    /// The kernel's interfaces: index and endpoint.
    pub bound: BTreeMap<u32, u16>,
    /// The kernel's ipcache.
    pub ipcache: Vec<(IpNet, IpcacheEntry)>,
    /// The node's links: index and name.
    pub links: BTreeMap<u32, String>,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

impl State {
    /// A state that goes on where the last agent stopped.
    #[must_use]
    pub(crate) fn restore(settings: Settings, restored: Restored, now: Now) -> Self {
        let mut state = Self::new(settings, now);
        state.restore_problems = restored.problems;
        state.numbers = Numbers::restore(restored.numbers, seen(&restored.kernel));
        for record in &restored.identities {
            if !state.identities.restore(record) {
                state.restored_with(
                    format!("identity {}", record.id),
                    "contradicts another row; it is ignored",
                );
            }
        }
        let mut kernel: BTreeMap<EndpointId, EndpointInfo> = restored
            .kernel
            .iter()
            .filter_map(|info| EndpointId::new(info.id).map(|id| (id, *info)))
            .collect();
        for record in restored.endpoints {
            let info = kernel.remove(&record.id).filter(|info| info.generation == record.generation);
            state.restore_endpoint(record, info.unwrap_or_default(), now);
        }
        for info in kernel.into_values() {
            state.restore_without_record(info, &restored.links, &restored.ipam, now);
        }
        state.unbind_strangers(&restored.bound);
        state.restore_ipam(&restored.ipam, now);
        state.restore_ipcache(restored.ipcache, now);
        state
    }

    fn restored_with(&mut self, object: String, message: &str) {
        self.restore_problems.push(Problem { object, message: message.to_owned() });
    }

    fn restore_endpoint(&mut self, record: EndpointRecord, info: EndpointInfo, now: Now) {
        let object = format!("endpoint {}", record.id);
        if self.endpoints.contains_key(&record.id) {
            return self.restored_with(object, "is stored twice; the second is ignored");
        }
        let attachment = match Attachment::parse(record.attachment) {
            Ok(attachment) => attachment,
            Err(refusal) => return self.restored_with(object, &format!("cannot be restored: {refusal}")),
        };
        if self.by_owner.contains_key(&attachment.owner())
            || attachment.addresses().any(|address| self.by_address.contains_key(&address))
        {
            return self.restored_with(object, "has the container or address of another one; it is removed");
        }
        if record.identity.scope() == IdentityScope::Cluster {
            let row = IdentityRecord { id: record.identity, labels: record.labels.clone() };
            if !self.identities.restore(&row) {
                self.restored_with(object.clone(), "had an identity of other labels; it gets a new one");
            }
        }
        let mut endpoint = Endpoint::new(record.id, record.generation, attachment);
        endpoint.options = record.options;
        endpoint.labels = record.labels;
        endpoint.realized = Realized { policy: None, info };
        endpoint.was_ready = endpoint.is_enforced();
        self.adopt_identity(&mut endpoint);
        endpoint.is_stored = endpoint.identity == Some(record.identity);
        endpoint.note(EndpointState::Restoring, "the agent was restarted", now);
        self.ids.adopt(record.id);
        self.insert(endpoint);
    }

    fn adopt_identity(&mut self, endpoint: &mut Endpoint) {
        match self.acquire(&endpoint.labels) {
            Ok(identity) => endpoint.identity = Some(identity),
            Err(message) => endpoint.problem = Some(message),
        }
    }

    /// The kernel enforces an endpoint that no file explains: it is kept if its interface is there.
    fn restore_without_record(
        &mut self,
        info: EndpointInfo,
        links: &BTreeMap<u32, String>,
        ipam: &IpamRecord,
        now: Now,
    ) {
        let Some(id) = EndpointId::new(info.id) else { return };
        self.ids.adopt(id);
        let Some(ifname) = links.get(&info.ifindex) else {
            self.removals.push(Removal { id, addresses: Vec::new(), retry_at: None });
            return;
        };
        let identity = Identity::new(info.identity);
        let (identity, labels, so) = match self.identities.labels_of(identity).cloned() {
            Some(labels) => (identity, labels, "its labels are those of its identity"),
            None => {
                self.identities.block(identity);
                (Identity::INIT, reserved_labels(Identity::INIT), "its labels are unknown: it is closed")
            }
        };
        let message = format!("its state was lost, only the kernel knows it; {so}");
        let record = record_of(id, &info, ifname, (identity, labels), ipam);
        self.restored_with(format!("endpoint {id}"), &message);
        self.restore_endpoint(record, info, now);
        if let Some(endpoint) = self.endpoints.get_mut(&id) {
            endpoint.is_stored = false;
        }
    }

    fn unbind_strangers(&mut self, bound: &BTreeMap<u32, u16>) {
        for (ifindex, raw) in bound {
            let is_ours = EndpointId::new(*raw)
                .and_then(|id| self.endpoints.get(&id))
                .is_some_and(|endpoint| endpoint.attachment.request.host_ifindex == *ifindex);
            if !is_ours {
                self.strangers.push(*ifindex);
            }
        }
    }

    fn restore_ipam(&mut self, record: &IpamRecord, now: Now) {
        let live: Vec<(Owner, Addresses)> = self
            .endpoints
            .values()
            .filter(|endpoint| endpoint.attachment.request.own_ipam)
            .map(|endpoint| {
                let request = &endpoint.attachment.request;
                (endpoint.attachment.owner(), Addresses { ipv4: request.ipv4, ipv6: request.ipv6 })
            })
            .collect();
        let (pools, rest) = (self.settings.pools.clone(), self.settings.release_rest);
        let (ipam, problems) = Ipam::restore(&pools, rest, record, &live, now.instant);
        self.ipam = ipam;
        self.unstored.ipam = !problems.is_empty();
        self.restore_problems.extend(problems);
        for endpoint in self.endpoints.values().filter(|known| !known.attachment.request.own_ipam) {
            for address in endpoint.attachment.addresses() {
                self.ipam.withhold(address);
            }
        }
    }

    fn restore_ipcache(&mut self, entries: Vec<(IpNet, IpcacheEntry)>, now: Now) {
        for (prefix, entry) in &entries {
            let identity = Identity::new(entry.identity);
            match identity.scope() {
                IdentityScope::Local => {
                    if self.prefixes.restore(*prefix, identity, now.instant) {
                        self.ipcache.set(*prefix, crate::ipcache::Claim::Prefix, *entry);
                    }
                }
                IdentityScope::Cluster if self.identities.labels_of(identity).is_none() => {
                    self.identities.block(identity);
                }
                IdentityScope::Cluster
                | IdentityScope::Reserved
                | IdentityScope::RemoteNode
                | IdentityScope::Unknown
                | IdentityScope::Invalid => {}
            }
        }
        self.ipcache.restore(entries);
    }
}

fn seen(kernel: &[EndpointInfo]) -> NumbersRecord {
    NumbersRecord {
        revision: kernel.iter().map(|info| info.revision).max().unwrap_or_default(),
        generation: kernel.iter().map(|info| info.generation).max().unwrap_or_default(),
    }
}

/// A record made from the kernel's entry. Who the container is, only a lease may still know.
fn record_of(
    id: EndpointId,
    info: &EndpointInfo,
    ifname: &str,
    (identity, labels): (Identity, Labels),
    ipam: &IpamRecord,
) -> EndpointRecord {
    let ipv4 = (info.ipv4_be != [0; 4]).then(|| info.ipv4_be.into());
    let ipv6 = (info.ipv6_be != [0; 16]).then(|| info.ipv6_be.into());
    let lease = ipam.leases.iter().find(|lease| (lease.addresses.ipv4, lease.addresses.ipv6) == (ipv4, ipv6));
    let owner = lease.map_or_else(
        || Owner { container_id: format!("unknown-{}", info.generation), ifname: ifname.to_owned() },
        |lease| lease.owner.clone(),
    );
    EndpointRecord {
        id,
        generation: info.generation,
        identity,
        labels,
        attachment: EndpointRequest {
            container_id: owner.container_id,
            ifname: owner.ifname,
            netns: String::new(),
            pod_namespace: None,
            pod_name: None,
            pod_uid: None,
            host_ifname: ifname.to_owned(),
            host_ifindex: info.ifindex,
            mac: MacAddr(info.mac).to_string(),
            host_mac: MacAddr(info.host_mac).to_string(),
            ipv4,
            ipv6,
            chained: info.flags.contains(sluice_ebpf_common::EndpointFlags::CHAINED),
            own_ipam: lease.is_some(),
        },
        options: sluice_client::model::EndpointOptions::default(),
    }
}
