//! What became of a batch: notes what the kernel and the disk now have, and answers those who waited.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_client::model::EndpointState;
use sluice_ebpf_common::{EndpointFlags, EndpointInfo, IpcacheEntry};
use sluice_policy::EndpointPolicy;
use sluice_types::{EndpointId, Identity};

use super::{InFlight, Pending, RETRY, State};
use crate::datapath::Forget;
use crate::effect::{Effect, Failed, Report};
use crate::event::{Answer, Now, Refusal, RefusalCode, Ticket};
use crate::ipcache::Claim;

/// How long storing waits after a failure.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// A policy on its way into the kernel.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) id: EndpointId,
    pub(super) generation: u32,
    pub(super) policy: Arc<EndpointPolicy>,
    pub(super) info: EndpointInfo,
    pub(super) repository_revision: u64,
}

/// The ipcache entry of a prefix.
pub(super) fn entry_of(identity: Identity) -> IpcacheEntry {
    IpcacheEntry { identity: identity.as_u32(), ..IpcacheEntry::default() }
}

pub(super) type Failures<'a> = BTreeMap<Failed, &'a str>;

impl State {
    /// Takes in the report of the batch on its way.
    pub(super) fn executed(&mut self, report: &Report, now: Now) -> Vec<Effect> {
        let Some(flight) = self.in_flight.take() else { return Vec::new() };
        let failures: Failures<'_> =
            report.failures.iter().map(|failure| (failure.what, failure.reason.as_str())).collect();
        self.stored(&flight, &failures, now);
        self.policies_installed(&flight, &failures, now);
        self.rules_written(&flight.told, &failures, now);
        self.ipcache_written(&flight, &failures, now);
        self.strangers.extend(failures.keys().filter_map(Failed::unbound));
        let mut effects = self.removed(&flight, &failures, now);
        self.forget_left_prefixes();
        self.unblock_identities();
        effects.extend(self.answer_creations(&failures, now));
        for (ticket, pending) in flight.pending {
            effects.push(Effect::Answer(ticket, self.settle(pending, &failures, now)));
        }
        effects
    }

    fn stored(&mut self, flight: &InFlight, failures: &Failures<'_>, now: Now) {
        let mut reason = None;
        for (failed, why) in failures {
            match failed {
                Failed::StoreIpam => self.unstored.ipam = true,
                Failed::StoreTables => {
                    self.unstored.identities = true;
                    self.numbers.not_stored();
                }
                Failed::StoreEndpoint(id) => {
                    if let Some(endpoint) = self.endpoints.get_mut(id).filter(|_| flight.stored.contains(id))
                    {
                        endpoint.is_stored = false;
                    }
                }
                Failed::Install(_)
                | Failed::StoreRules(_)
                | Failed::Unbind(_)
                | Failed::Ipcache(_)
                | Failed::Epoch
                | Failed::Remove(_) => {
                    continue;
                }
            }
            reason = Some(*why);
        }
        if let Some(why) = reason {
            self.unstored.retry_at = Some(now.instant + STORE_RETRY);
            let message = format!("state cannot be stored, enforcement goes on, new pods are refused: {why}");
            self.set_problem("state directory", Some(message));
        } else if self.unstored.retry_at.is_none() {
            self.set_problem("state directory", None);
        }
    }

    fn policies_installed(&mut self, flight: &InFlight, failures: &Failures<'_>, now: Now) {
        for install in &flight.installs {
            let Some(endpoint) =
                self.endpoints.get_mut(&install.id).filter(|known| known.generation == install.generation)
            else {
                continue;
            };
            let object = format!("endpoint {}", install.id);
            if let Some(reason) = failures.get(&Failed::Install(install.id)) {
                // The entry that the kernel has now is not ready, and its policy is nobody's.
                endpoint.realized.policy = None;
                endpoint.realized.info = EndpointInfo { flags: EndpointFlags::default(), ..install.info };
                endpoint.is_dirty = true;
                endpoint.failed(reason, now);
                let message = format!("its policy cannot be installed, all its traffic is dropped: {reason}");
                self.set_problem(object, Some(message));
                continue;
            }
            endpoint.realized.policy = Some(Arc::clone(&install.policy));
            endpoint.realized.info = install.info;
            endpoint.realized_revision = install.repository_revision;
            endpoint.was_ready = true;
            endpoint.succeeded();
            let state =
                if endpoint.is_dirty { EndpointState::WaitingToRegenerate } else { EndpointState::Ready };
            endpoint.note(state, format!("realized policy revision {}", install.repository_revision), now);
            self.set_problem(object, None);
        }
        for id in &flight.closed {
            if let Some(endpoint) = self.endpoints.get_mut(id) {
                endpoint.realized.info.flags = EndpointFlags::default();
                if let Some(reason) = failures.get(&Failed::Install(*id)) {
                    endpoint.realized.info.flags = EndpointFlags::READY;
                    endpoint.is_dirty = true;
                    endpoint.failed(reason, now);
                }
            }
        }
    }

    fn ipcache_written(&mut self, flight: &InFlight, failures: &Failures<'_>, now: Now) {
        let mut reason = failures.get(&Failed::Epoch).copied();
        let written = flight.ipcache.set.iter().map(|(prefix, entry)| (*prefix, Some(*entry)));
        for (prefix, entry) in written.chain(flight.ipcache.remove.iter().map(|prefix| (*prefix, None))) {
            match failures.get(&Failed::Ipcache(prefix)) {
                None => self.ipcache.note(prefix, entry),
                Some(why) => {
                    reason = Some(why);
                    self.ipcache.failed(prefix);
                }
            }
        }
        if let Some(why) = reason {
            self.ipcache_retry = Some(now.instant + RETRY);
            let message = format!("addresses without entry count as unknown: {why}");
            self.set_problem("ipcache", Some(message));
        } else if self.ipcache_retry.is_none() {
            self.set_problem("ipcache", None);
        }
    }

    fn removed(&mut self, flight: &InFlight, failures: &Failures<'_>, now: Now) -> Vec<Effect> {
        let mut forget = Forget::default();
        for removal in &flight.removals {
            let Some(reason) = failures.get(&Failed::Remove(removal.id)) else {
                self.ids.free(removal.id);
                // Another endpoint may have the address by now; its connections are of another generation.
                forget.endpoints.push(removal.id);
                forget.addresses.extend(
                    removal.addresses.iter().filter(|address| !self.by_address.contains_key(address)),
                );
                self.set_problem(format!("removal of endpoint {}", removal.id), None);
                continue;
            };
            self.set_problem(format!("removal of endpoint {}", removal.id), Some((*reason).to_owned()));
            let mut again = removal.clone();
            again.retry_at = Some(now.instant + RETRY);
            self.removals.push(again);
        }
        if forget == Forget::default() { Vec::new() } else { vec![Effect::Forget(forget)] }
    }

    /// Prefixes that left the ipcache leave the engine too.
    fn forget_left_prefixes(&mut self) {
        for (prefix, identity) in self.prefixes.leaving() {
            if self.ipcache.uses(identity) > 0 {
                continue;
            }
            let changes = self.prefixes.forget(&prefix);
            self.names.identity(identity, None);
            let changed = self.repository.remove_identity(identity);
            self.changed.merge(changed);
            self.label_prefixes(changes.label);
        }
    }

    /// Answers those who wait for an endpoint. What could not be made completely is undone.
    fn answer_creations(&mut self, failures: &Failures<'_>, now: Now) -> Vec<Effect> {
        let waited_for: Vec<EndpointId> = self.creating.keys().copied().collect();
        let mut effects = Vec::new();
        for id in waited_for {
            let Some(tickets) = self.creating.remove(&id) else { continue };
            match self.creation(id, failures) {
                Creation::Complete(view) => {
                    effects.extend(answers(&tickets, &Ok(Answer::Endpoint(view))));
                }
                Creation::Underway => {
                    self.creating.insert(id, tickets);
                }
                Creation::Failed(refusal) => {
                    let is_new = self.endpoints.get(&id).is_some_and(|endpoint| !endpoint.was_ready);
                    let is_incomplete = is_new || failures.contains_key(&Failed::StoreEndpoint(id));
                    if is_incomplete {
                        self.remove_endpoint(id, &refusal.message, now);
                    }
                    effects.extend(answers(&tickets, &Err(refusal)));
                }
            }
        }
        effects
    }

    fn creation(&self, id: EndpointId, failures: &Failures<'_>) -> Creation {
        let Some(endpoint) = self.endpoints.get(&id) else {
            return Creation::Failed(Refusal::new(
                RefusalCode::NotFound,
                format!("endpoint {id} was removed"),
            ));
        };
        let own = [Failed::Install(id), Failed::StoreEndpoint(id), Failed::StoreTables];
        let addresses = endpoint.attachment.prefixes().map(Failed::Ipcache);
        let reason = own.into_iter().chain(addresses).find_map(|what| failures.get(&what));
        if let Some(reason) = reason {
            let message = format!("the endpoint cannot be made: {reason}");
            return Creation::Failed(Refusal::new(RefusalCode::Internal, message));
        }
        if endpoint.state == EndpointState::Ready && self.are_addresses_written(endpoint) {
            return Creation::Complete(Box::new(self.view_of(endpoint)));
        }
        Creation::Underway
    }

    fn settle(&mut self, pending: Pending, failures: &Failures<'_>, now: Now) -> Result<Answer, Refusal> {
        let internal = |message: String| Err(Refusal::new(RefusalCode::Internal, message));
        match pending {
            Pending::Lease(owner, lease) => match failures.get(&Failed::StoreIpam) {
                None => Ok(Answer::Lease(lease)),
                Some(reason) => {
                    self.ipam.release(&owner, now.instant);
                    internal(format!("the lease cannot be stored: {reason}"))
                }
            },
            Pending::Removed(None) => Ok(Answer::Done),
            Pending::Removed(Some(id)) => match failures.get(&Failed::Remove(id)) {
                None => Ok(Answer::Done),
                Some(reason) => internal(format!("endpoint {id} cannot be removed yet: {reason}")),
            },
            Pending::View(id) => match self.endpoints.get(&id) {
                Some(endpoint) => Ok(Answer::Endpoint(Box::new(self.view_of(endpoint)))),
                None => Err(Refusal::new(RefusalCode::NotFound, format!("there is no endpoint {id}"))),
            },
            Pending::Gc(result) => Ok(Answer::Gc(result)),
        }
    }

    /// Takes idle prefixes out of the ipcache; they are forgotten once that is done.
    pub(super) fn expire_prefixes(&mut self, now: Now) {
        for (prefix, _) in self.prefixes.expire(now.instant, super::IDENTITY_GRACE) {
            self.ipcache.clear(prefix, Claim::Prefix);
        }
        // One that was never written needs no batch to be forgotten.
        if self.in_flight.is_none() {
            self.forget_left_prefixes();
        }
    }
}

enum Creation {
    Complete(Box<sluice_client::model::Endpoint>),
    Underway,
    Failed(Refusal),
}

fn answers(tickets: &[Ticket], answer: &Result<Answer, Refusal>) -> Vec<Effect> {
    tickets.iter().map(|ticket| Effect::Answer(*ticket, answer.clone())).collect()
}
