//! Endpoints come, change their identity, and go.

use std::collections::BTreeMap;
use std::time::Instant;

use ipnet::IpNet;
use sluice_client::model::EndpointState;
use sluice_ebpf_common::IpcacheEntry;
use sluice_policy::EndpointPolicy;
use sluice_policy::labels::reserved_labels;
use sluice_types::{EndpointId, Identity, IdentityScope, Labels};

use super::{MISSING_GRACE, POD_WAIT, Removal, State, WaitingForPod};
use crate::effect::Effect;
use crate::endpoint::{Attachment, Endpoint};
use crate::event::{Answer, Now, Refusal, RefusalCode, Ticket};
use crate::ipam::Owner;
use crate::ipcache::Claim;
use crate::observe::EndpointName;
use crate::source::PodObject;

/// What is known about the pod an attachment names.
pub(super) enum PodMatch {
    /// It names none.
    None,
    /// This one.
    Known(Box<PodObject>),
    /// No manifest has it.
    Unknown,
    /// A manifest has a pod of that name with this other uid.
    OtherUid(String),
}

impl State {
    /// An endpoint is wanted. Answered at the end of the batch that puts its policy into the kernel.
    pub(super) fn create(&mut self, attachment: Attachment, ticket: Ticket, now: Now) -> Vec<Effect> {
        if let Some(id) = self.by_owner.get(&attachment.owner()).copied() {
            if self.endpoints.get(&id).is_some_and(|known| known.attachment.request == attachment.request) {
                return self.await_ready(id, ticket);
            }
            self.remove_endpoint(id, "its container was attached anew", now);
        }
        if let Err(refusal) = self.check_addresses(&attachment) {
            return vec![Effect::Answer(ticket, Err(refusal))];
        }
        match self.pod_of(&attachment) {
            PodMatch::None => self.admit(attachment, None, ticket, now),
            PodMatch::Known(pod) => self.admit(attachment, Some(&pod), ticket, now),
            PodMatch::Unknown | PodMatch::OtherUid(_) => {
                let deadline = now.instant + POD_WAIT;
                self.waiting_for_pod.push(WaitingForPod { attachment, ticket, deadline });
                vec![Effect::Rescan]
            }
        }
    }

    fn await_ready(&mut self, id: EndpointId, ticket: Ticket) -> Vec<Effect> {
        match self.endpoints.get(&id) {
            Some(endpoint) if endpoint.state == EndpointState::Ready => {
                let view = self.view_of(endpoint);
                vec![Effect::Answer(ticket, Ok(Answer::Endpoint(Box::new(view))))]
            }
            _ => {
                self.creating.entry(id).or_default().push(ticket);
                Vec::new()
            }
        }
    }

    fn check_addresses(&self, attachment: &Attachment) -> Result<(), Refusal> {
        let conflict = |message| Err(Refusal::new(RefusalCode::Conflict, message));
        if attachment.request.own_ipam {
            let leased = self.ipam.addresses_of(&attachment.owner()).unwrap_or_default();
            if leased.ipv4 != attachment.request.ipv4 || leased.ipv6 != attachment.request.ipv6 {
                return conflict(format!("{} has no lease for these addresses", attachment.owner()));
            }
        }
        for address in attachment.addresses() {
            if self.node_addresses.contains(&address) {
                return conflict(format!("{address} is an address of the node"));
            }
            if let Some(other) = self.by_address.get(&address).and_then(|id| self.endpoints.get(id)) {
                return conflict(format!("{address} belongs to endpoint {} ({})", other.id, other.name()));
            }
        }
        Ok(())
    }

    pub(super) fn pod_of(&self, attachment: &Attachment) -> PodMatch {
        let Some(key) = attachment.pod() else { return PodMatch::None };
        let Some(pod) = self.objects.pods.get(&key) else { return PodMatch::Unknown };
        match (&attachment.request.pod_uid, &pod.uid) {
            (Some(named), Some(known)) if named != known && !named.is_empty() => {
                PodMatch::OtherUid(known.clone())
            }
            _ => PodMatch::Known(Box::new(pod.clone())),
        }
    }

    /// Looks again at those that wait for their pod; the deadline decides about the rest.
    pub(super) fn retry_waiting_for_pod(&mut self, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        for waiting in std::mem::take(&mut self.waiting_for_pod) {
            let is_late = waiting.deadline <= now.instant;
            let (attachment, ticket) = (waiting.attachment, waiting.ticket);
            match self.pod_of(&attachment) {
                PodMatch::Known(pod) => effects.extend(self.admit(attachment, Some(&pod), ticket, now)),
                PodMatch::OtherUid(known) if is_late => {
                    let named = attachment.request.pod_uid.clone().unwrap_or_default();
                    let name = attachment.pod().map(|(namespace, name)| format!("{namespace}/{name}"));
                    let message = format!(
                        "the pod {} has uid {known}, the runtime says {named}: it is another pod of that name",
                        name.unwrap_or_default()
                    );
                    effects.push(Effect::Answer(ticket, Err(Refusal::new(RefusalCode::Conflict, message))));
                }
                PodMatch::None | PodMatch::Unknown if is_late => {
                    effects.extend(self.admit(attachment, None, ticket, now));
                }
                PodMatch::None | PodMatch::Unknown | PodMatch::OtherUid(_) => {
                    let deadline = waiting.deadline;
                    self.waiting_for_pod.push(WaitingForPod { attachment, ticket, deadline });
                }
            }
        }
        effects
    }

    /// Makes the endpoint, with the identity of `pod`, or `init` if that is not known.
    fn admit(
        &mut self,
        attachment: Attachment,
        pod: Option<&PodObject>,
        ticket: Ticket,
        now: Now,
    ) -> Vec<Effect> {
        let refuse = |code, message: String| vec![Effect::Answer(ticket, Err(Refusal::new(code, message)))];
        // Time has passed if it waited for its pod.
        if let Err(refusal) = self.check_addresses(&attachment) {
            return vec![Effect::Answer(ticket, Err(refusal))];
        }
        self.drop_owner_of(attachment.request.host_ifindex, now);
        let labels = self.wanted_labels(pod);
        let identity = match self.acquire(&labels) {
            Ok(identity) => identity,
            Err(message) => return refuse(RefusalCode::Exhausted, message),
        };
        let Some(id) = self.ids.take() else {
            self.release_identity(identity, now.instant);
            return refuse(RefusalCode::Exhausted, "the node has no endpoint number left (4095)".to_owned());
        };
        let mut endpoint = Endpoint::new(id, self.numbers.generation(), attachment);
        endpoint.identity = Some(identity);
        endpoint.labels = labels;
        let known = if pod.is_some() { "" } else { ", because its pod is not known" };
        endpoint.note(
            EndpointState::WaitingToRegenerate,
            format!("created with identity {identity}{known}"),
            now,
        );
        tracing::info!(endpoint.id = %id, endpoint = endpoint.name(), %identity, "endpoint created");
        self.insert(endpoint);
        self.set_named_ports(id);
        self.creating.entry(id).or_default().push(ticket);
        Vec::new()
    }

    /// An interface index belongs to one endpoint: who had it before has lost its interface.
    fn drop_owner_of(&mut self, ifindex: u32, now: Now) {
        let before = self.endpoints.values().find(|known| known.attachment.request.host_ifindex == ifindex);
        if let Some(id) = before.map(|endpoint| endpoint.id) {
            self.remove_endpoint(id, "its interface is gone", now);
        }
    }

    /// Takes an endpoint into all tables.
    pub(super) fn insert(&mut self, endpoint: Endpoint) {
        let (id, owner) = (endpoint.id, endpoint.attachment.owner());
        if endpoint.attachment.request.own_ipam {
            self.ipam.complete(&owner);
        }
        for address in endpoint.attachment.addresses() {
            self.by_address.insert(address, id);
            if !endpoint.attachment.request.own_ipam {
                self.ipam.withhold(address);
            }
        }
        if let Some(pod) = endpoint.attachment.pod() {
            self.by_pod.entry(pod).or_default().insert(id);
        }
        self.by_owner.insert(owner, id);
        let closed = EndpointPolicy::default();
        self.names.endpoint(id, Some(EndpointName::new(&endpoint.attachment.request, &closed)));
        self.endpoints.insert(id, endpoint);
        self.claim_addresses(id);
        self.backend_changed(id);
    }

    fn claim_addresses(&mut self, id: EndpointId) {
        let Some(endpoint) = self.endpoints.get(&id) else { return };
        for prefix in endpoint.attachment.prefixes() {
            match endpoint.identity {
                Some(identity) => {
                    let entry = IpcacheEntry {
                        identity: identity.as_u32(),
                        endpoint: id.as_u16(),
                        ..IpcacheEntry::default()
                    };
                    self.ipcache.set(prefix, Claim::Endpoint, entry);
                }
                None => self.ipcache.clear(prefix, Claim::Endpoint),
            }
        }
    }

    /// Takes an endpoint out of all tables. Its lease ends unless the container is attached anew.
    pub(super) fn remove_endpoint(&mut self, id: EndpointId, why: &str, now: Now) {
        let Some(mut endpoint) = self.endpoints.remove(&id) else { return };
        endpoint.note(EndpointState::Disconnecting, why, now);
        tracing::info!(endpoint.id = %id, endpoint = endpoint.name(), why, "endpoint removed");
        self.by_owner.remove(&endpoint.attachment.owner());
        self.backend_gone(&endpoint);
        for address in endpoint.attachment.addresses() {
            self.by_address.remove(&address);
            if !endpoint.attachment.request.own_ipam {
                self.ipam.unwithhold(address, now.instant);
            }
        }
        for prefix in endpoint.attachment.prefixes() {
            self.ipcache.clear(prefix, Claim::Endpoint);
        }
        if let Some(pod) = endpoint.attachment.pod() {
            self.forget_pod_of(&pod, id);
        }
        if let Some(identity) = endpoint.identity {
            self.release_identity(identity, now.instant);
        }
        for ticket in self.creating.remove(&id).unwrap_or_default() {
            self.pending.push((ticket, super::Pending::View(id)));
        }
        let addresses = endpoint.attachment.addresses().collect();
        self.removals.push(Removal { id, addresses, retry_at: None });
        let object = format!("endpoint {id}");
        self.restore_problems.retain(|problem| problem.object != object);
        self.set_problem(object, None);
        self.names.endpoint(id, None);
    }

    fn forget_pod_of(&mut self, pod: &(String, String), id: EndpointId) {
        let Some(ids) = self.by_pod.get_mut(pod) else { return };
        ids.remove(&id);
        if ids.is_empty() {
            self.by_pod.remove(pod);
            let changed = self.repository.remove_named_ports(&format!("{}/{}", pod.0, pod.1));
            self.changed.merge(changed);
        }
    }

    /// A pod's manifest or its namespace changed: its endpoints may need another identity.
    pub(super) fn pod_changed(&mut self, key: &(String, String), now: Now) {
        let ids: Vec<EndpointId> = self.by_pod.get(key).into_iter().flatten().copied().collect();
        for id in ids {
            self.refresh_identity(id, now);
            self.set_named_ports(id);
            self.backend_changed(id);
        }
    }

    /// Compares an endpoint's identity with what its pod's labels ask for.
    pub(super) fn refresh_identity(&mut self, id: EndpointId, now: Now) {
        let Some(endpoint) = self.endpoints.get(&id) else { return };
        let PodMatch::Known(pod) = self.pod_of(&endpoint.attachment) else { return };
        let labels = self.wanted_labels(Some(&pod));
        if endpoint.labels == labels && endpoint.identity.is_some() {
            return;
        }
        let before = endpoint.identity;
        let acquired = self.acquire(&labels);
        if let Some(before) = before {
            self.release_identity(before, now.instant);
        }
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        endpoint.labels = labels;
        endpoint.is_dirty = true;
        endpoint.is_stored = false;
        let shown = before.map_or_else(|| "none".to_owned(), |identity| identity.to_string());
        match acquired {
            Ok(identity) => {
                endpoint.identity = Some(identity);
                let message = format!("identity changed from {shown} to {identity}");
                endpoint.note(EndpointState::WaitingToRegenerate, message, now);
                self.set_problem(format!("endpoint {id}"), None);
            }
            Err(message) => {
                endpoint.identity = None;
                endpoint.problem = Some(message.clone());
                endpoint.note(EndpointState::WaitingForIdentity, &message, now);
                self.set_problem(
                    format!("endpoint {id}"),
                    Some(format!("{message}; all its traffic is dropped")),
                );
            }
        }
        self.claim_addresses(id);
        self.backend_changed(id);
    }

    fn set_named_ports(&mut self, id: EndpointId) {
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        let (Some(key), Some(identity)) = (endpoint.attachment.pod(), endpoint.identity) else { return };
        let ports = self.objects.pods.get(&key).map(|pod| pod.ports.clone()).unwrap_or_default();
        endpoint.is_dirty = true;
        let changed = self.repository.set_named_ports(&format!("{}/{}", key.0, key.1), identity, ports);
        self.changed.merge(changed);
    }

    fn wanted_labels(&self, pod: Option<&PodObject>) -> Labels {
        match pod {
            Some(pod) => self.objects.labels_of(pod, &self.settings.policy.cluster_name),
            None => reserved_labels(Identity::INIT),
        }
    }

    /// The identity of `labels`, known to the engine from now on.
    pub(super) fn acquire(&mut self, labels: &Labels) -> Result<Identity, String> {
        if *labels == reserved_labels(Identity::INIT) {
            return Ok(Identity::INIT);
        }
        let acquired = self.identities.acquire(labels).map_err(|error| error.to_string())?;
        if acquired.is_new {
            self.unstored.identities = true;
            self.names.identity(acquired.identity, Some(labels));
            let changed = self.repository.set_identity(acquired.identity, labels.clone());
            self.changed.merge(changed);
        }
        Ok(acquired.identity)
    }

    fn release_identity(&mut self, identity: Identity, now: Instant) {
        if identity.scope() == IdentityScope::Cluster {
            self.identities.release(identity, now);
        }
    }

    /// Endpoints whose interface is gone for a while are garbage.
    pub(super) fn links_seen(&mut self, links: &BTreeMap<u32, String>, now: Now) -> Vec<Effect> {
        let mut gone = Vec::new();
        for endpoint in self.endpoints.values_mut() {
            let request = &endpoint.attachment.request;
            if links.get(&request.host_ifindex) == Some(&request.host_ifname) {
                endpoint.missing_since = None;
            } else if now.instant.duration_since(*endpoint.missing_since.get_or_insert(now.instant))
                >= MISSING_GRACE
            {
                gone.push((endpoint.id, endpoint.attachment.owner()));
            }
        }
        self.forget_all(&gone, "its interface is gone", now);
        Vec::new()
    }

    /// Removes endpoints with their leases.
    pub(super) fn forget_all(&mut self, gone: &[(EndpointId, Owner)], why: &str, now: Now) {
        for (id, owner) in gone {
            self.remove_endpoint(*id, why, now);
            self.unstored.ipam |= self.ipam.release(owner, now.instant);
        }
    }

    /// Whether the ipcache in the kernel maps all addresses of the endpoint to it.
    pub(super) fn are_addresses_written(&self, endpoint: &Endpoint) -> bool {
        endpoint.attachment.prefixes().all(|prefix: IpNet| {
            self.ipcache.written(&prefix).is_some_and(|entry| {
                Some(Identity::new(entry.identity)) == endpoint.identity
                    && entry.endpoint == endpoint.id.as_u16()
            })
        })
    }
}
