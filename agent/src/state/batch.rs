//! What is out of date becomes one batch of steps.
//!
//! Order: what must be on disk before it is used; endpoints that go; policies; ipcache; what may leave the disk only
//! now.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_client::model::EndpointState;
use sluice_ebpf_common::{EndpointFlags, EndpointInfo};
use sluice_policy::map_state::{Entry as MapEntry, Key, MapState};
use sluice_policy::{EndpointPolicy, Membership, NamedPort, Subject};
use sluice_types::{EndpointId, Identity, IdentityScope};

use super::executed::Installed;
use super::{InFlight, State};
use crate::effect::{Amendment, Batch, Installation, Record, Step};
use crate::event::Now;
use crate::observe::EndpointName;

/// A change in place that touches more entries is a new map instead.
const AMEND_MAX: usize = 512;

/// How one table becomes another.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Difference {
    /// They are the same.
    None,
    /// By adding and removing entries that no packet can ask for.
    InPlace {
        /// To add.
        add: Vec<(Key, MapEntry)>,
        /// To remove.
        remove: Vec<Key>,
    },
    /// Only as a whole.
    Whole,
}

/// What subjects that share a policy have in common; the labels follow from the identity.
type Alike = (Identity, Vec<NamedPort>, Vec<Membership>, bool);

/// What an endpoint's policy needs.
enum Work {
    Nothing,
    Amend {
        before: Arc<EndpointPolicy>,
        add: Vec<(Key, MapEntry)>,
        remove: Vec<Key>,
    },
    /// The policy stays, the entry changes.
    Entry,
    Install,
}

impl State {
    /// The steps for everything that is out of date, and the note of what they will have done.
    pub(super) fn next_batch(&mut self, now: Now) -> Batch {
        self.follow_services(now);
        self.mark_dirty();
        let mut flight = InFlight { pending: std::mem::take(&mut self.pending), ..InFlight::default() };
        let mut steps = self.removal_steps(&mut flight, now);
        steps.extend(self.policy_steps(&mut flight, now));
        steps.extend(self.ipcache_step(&mut flight, now));
        let mut all = self.records(&mut flight, now);
        all.extend(flight.rules.before());
        all.append(&mut steps);
        all.extend(flight.rules.after());
        all.extend(flight.removals.iter().flat_map(|removal| {
            [Record::RulesGone(removal.id), Record::EndpointGone(removal.id)].map(Step::Store)
        }));
        self.in_flight = Some(flight);
        Batch { steps: all }
    }

    /// Endpoints whose policy a change touches must be resolved; the others have the new revision as it is.
    fn mark_dirty(&mut self) {
        let changed = std::mem::take(&mut self.changed);
        let revision = self.repository.revision();
        let mut known: HashMap<Option<Identity>, bool> = HashMap::new();
        for endpoint in self.endpoints.values_mut() {
            let is_affected = !changed.is_empty()
                && *known.entry(endpoint.identity).or_insert_with(|| changed.affects(&endpoint.labels));
            if is_affected {
                endpoint.is_dirty = true;
                endpoint.retry_at = None;
                if endpoint.state == EndpointState::Ready {
                    endpoint.state = EndpointState::WaitingToRegenerate;
                }
            } else if !endpoint.is_dirty && endpoint.state == EndpointState::Ready {
                endpoint.realized_revision = revision;
            }
        }
    }

    fn removal_steps(&mut self, flight: &mut InFlight, now: Now) -> Vec<Step> {
        let (due, later) = std::mem::take(&mut self.removals)
            .into_iter()
            .partition(|removal| removal.retry_at.is_none_or(|at| at <= now.instant));
        self.removals = later;
        flight.removals = due;
        let strangers = std::mem::take(&mut self.strangers).into_iter().map(Step::Unbind);
        strangers.chain(flight.removals.iter().map(|removal| Step::Remove(removal.id))).collect()
    }

    fn policy_steps(&mut self, flight: &mut InFlight, now: Now) -> Vec<Step> {
        let dirty: Vec<EndpointId> = self
            .endpoints
            .values()
            .filter(|known| known.is_dirty && known.retry_at.is_none_or(|at| at <= now.instant))
            .map(|known| known.id)
            .collect();
        let mut resolved: HashMap<Alike, Arc<EndpointPolicy>> = HashMap::new();
        let mut compared: HashMap<(usize, usize), Difference> = HashMap::new();
        let mut plan = Plan::default();
        for id in dirty {
            let Some(subject) = self.subject(id) else {
                plan.entries.extend(self.close(id, flight));
                continue;
            };
            let key =
                (subject.identity, subject.named_ports.clone(), subject.services.clone(), subject.audit);
            let policy = match resolved.entry(key) {
                Entry::Occupied(known) => Arc::clone(known.get()),
                Entry::Vacant(place) => {
                    let policy = self.repository.resolve(&subject);
                    self.names.policy(&policy, &self.repository);
                    Arc::clone(place.insert(policy))
                }
            };
            let work = self.work(id, &policy, &mut compared);
            self.publish_rules(id, &policy, flight);
            self.plan_one(id, policy, work, &mut plan, flight, now);
        }
        plan.steps()
    }

    /// Who the endpoint is to the policy engine; none without identity.
    fn subject(&self, id: EndpointId) -> Option<Subject> {
        let endpoint = self.endpoints.get(&id)?;
        let identity = endpoint.identity?;
        let pod = endpoint.attachment.pod().and_then(|key| self.objects.pods.get(&key));
        let named_ports = pod.map(|pod| pod.ports.clone()).unwrap_or_default();
        let audit = self.is_audit(endpoint);
        let addresses: Vec<IpAddr> = endpoint.attachment.addresses().collect();
        let services = self.repository.memberships(&addresses);
        Some(Subject { identity, labels: endpoint.labels.clone(), named_ports, services, audit })
    }

    fn work(
        &self,
        id: EndpointId,
        policy: &Arc<EndpointPolicy>,
        compared: &mut HashMap<(usize, usize), Difference>,
    ) -> Work {
        let Some(endpoint) = self.endpoints.get(&id) else { return Work::Nothing };
        let info = &endpoint.realized.info;
        let Some(before) = endpoint.realized.policy.as_ref().filter(|_| endpoint.is_enforced()) else {
            return Work::Install;
        };
        let key = (Arc::as_ptr(&before.map_state).addr(), Arc::as_ptr(&policy.map_state).addr());
        let difference = compared
            .entry(key)
            .or_insert_with(|| compare(&before.map_state, &policy.map_state, |peer| self.is_unused(peer)));
        match difference {
            _ if endpoint.info(info.revision).as_ref() != Some(info) => match difference {
                Difference::None => Work::Entry,
                Difference::InPlace { .. } | Difference::Whole => Work::Install,
            },
            Difference::None => Work::Nothing,
            Difference::InPlace { add, remove } => {
                Work::Amend { before: Arc::clone(before), add: add.clone(), remove: remove.clone() }
            }
            Difference::Whole => Work::Install,
        }
    }

    /// Whether no packet can have this identity: nothing in the kernel maps to it.
    pub(super) fn is_unused(&self, identity: Identity) -> bool {
        let is_mapped_by_us = matches!(identity.scope(), IdentityScope::Cluster | IdentityScope::Local);
        is_mapped_by_us
            && self.ipcache.uses(identity) == 0
            && !self
                .endpoints
                .values()
                .any(|known| known.is_enforced() && known.realized.info.identity == identity.as_u32())
    }

    fn plan_one(
        &mut self,
        id: EndpointId,
        policy: Arc<EndpointPolicy>,
        work: Work,
        plan: &mut Plan,
        flight: &mut InFlight,
        now: Now,
    ) {
        let revision = match work {
            Work::Install | Work::Entry => Some(self.numbers.revision()),
            Work::Nothing | Work::Amend { .. } => None,
        };
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        endpoint.is_dirty = false;
        let Some(info) = endpoint.info(revision.unwrap_or(endpoint.realized.info.revision)) else { return };
        self.names.endpoint(id, Some(EndpointName::new(&endpoint.attachment.request, &policy)));
        match work {
            Work::Nothing => {
                endpoint.realized.policy = Some(policy);
                endpoint.realized_revision = self.repository.revision();
                if endpoint.state != EndpointState::Ready {
                    endpoint.succeeded();
                    endpoint.note(EndpointState::Ready, "its policy is the same as before", now);
                }
                return;
            }
            Work::Entry => plan.entries.push(info),
            Work::Install => plan.install(&policy, info),
            Work::Amend { before, add, remove } => plan.amend(&policy, &before, id, add, remove),
        }
        let message = format!("policy revision {}", self.repository.revision());
        endpoint.note(EndpointState::Regenerating, message, now);
        let generation = endpoint.generation;
        let repository_revision = self.repository.revision();
        flight.installs.push(Installed { id, generation, policy, info, repository_revision });
    }

    /// Takes the ready bit from an endpoint that has no identity.
    fn close(&mut self, id: EndpointId, flight: &mut InFlight) -> Option<EndpointInfo> {
        let endpoint = self.endpoints.get_mut(&id)?;
        endpoint.is_dirty = false;
        if !endpoint.is_enforced() {
            return None;
        }
        flight.closed.push(id);
        Some(EndpointInfo { flags: EndpointFlags::default(), ..endpoint.realized.info })
    }

    fn ipcache_step(&mut self, flight: &mut InFlight, now: Now) -> Option<Step> {
        if self.ipcache_retry.is_some_and(|at| at > now.instant) {
            return None;
        }
        self.ipcache_retry = None;
        flight.ipcache = self.ipcache.take_changes();
        let changes = flight.ipcache.clone();
        if changes.set.is_empty() && changes.remove.is_empty() {
            return None;
        }
        Some(Step::Ipcache { set: changes.set, remove: changes.remove })
    }

    /// What must be on disk before anything of the batch happens.
    fn records(&mut self, flight: &mut InFlight, now: Now) -> Vec<Step> {
        // Whoever waits for an answer has a try of its own: it must not be answered before the disk has it.
        let is_waited_for = !flight.pending.is_empty() || !self.creating.is_empty();
        if self.unstored.retry_at.is_some_and(|at| at > now.instant) && !is_waited_for {
            return Vec::new();
        }
        self.unstored.retry_at = None;
        let mut records = Vec::new();
        if std::mem::take(&mut self.unstored.ipam) {
            records.push(Record::Ipam(self.ipam.record()));
        }
        records.extend(self.numbers.take_unstored().map(Record::Numbers));
        if std::mem::take(&mut self.unstored.identities) {
            records.push(Record::Identities(self.identities.records()));
        }
        for endpoint in self.endpoints.values_mut().filter(|known| !known.is_stored) {
            if let Some(record) = endpoint.record() {
                endpoint.is_stored = true;
                flight.stored.push(endpoint.id);
                records.push(Record::Endpoint(Box::new(record)));
            }
        }
        records.into_iter().map(Step::Store).collect()
    }
}

/// Policies by who shares them.
#[derive(Default)]
struct Plan {
    installs: Vec<Installation>,
    amendments: Vec<Amendment>,
    /// Where in the lists a policy is, by address; for amendments with the policy before.
    places: HashMap<(usize, usize), usize>,
    entries: Vec<EndpointInfo>,
}

impl Plan {
    fn install(&mut self, policy: &Arc<EndpointPolicy>, info: EndpointInfo) {
        let key = (0, Arc::as_ptr(&policy.map_state).addr());
        let place = *self.places.entry(key).or_insert(self.installs.len());
        if let Some(installation) = self.installs.get_mut(place) {
            installation.endpoints.push(info);
        } else {
            self.installs.push(Installation { policy: Arc::clone(policy), endpoints: vec![info] });
        }
    }

    fn amend(
        &mut self,
        policy: &Arc<EndpointPolicy>,
        before: &Arc<EndpointPolicy>,
        id: EndpointId,
        add: Vec<(Key, MapEntry)>,
        remove: Vec<Key>,
    ) {
        let key = (Arc::as_ptr(&before.map_state).addr(), Arc::as_ptr(&policy.map_state).addr());
        let place = *self.places.entry(key).or_insert(self.amendments.len());
        if let Some(amendment) = self.amendments.get_mut(place) {
            amendment.endpoints.push(id);
        } else {
            self.amendments.push(Amendment { endpoints: vec![id], policy: Arc::clone(policy), add, remove });
        }
    }

    fn steps(self) -> Vec<Step> {
        let mut steps = Vec::new();
        if !self.amendments.is_empty() {
            steps.push(Step::Amend(self.amendments));
        }
        if !self.installs.is_empty() {
            steps.push(Step::Install(self.installs));
        }
        if !self.entries.is_empty() {
            steps.push(Step::Endpoint(self.entries));
        }
        steps
    }
}

/// How `before` becomes `after`. In place only by entries of peers that are `unused`. Both tables are sorted, so one
/// pass through both tells, and usually the first difference does.
pub(super) fn compare(before: &MapState, after: &MapState, unused: impl Fn(Identity) -> bool) -> Difference {
    if std::ptr::eq(before, after) {
        return Difference::None;
    }
    let modes = |own: &MapState| (own.audit_ingress, own.audit_egress, own.staged_ingress, own.staged_egress);
    if modes(before) != modes(after) || before.admin != after.admin || before.staged != after.staged {
        return Difference::Whole;
    }
    let mut peers: HashMap<Identity, bool> = HashMap::new();
    let mut is_harmless =
        |key: &Key| key.peer.is_some_and(|peer| *peers.entry(peer).or_insert_with(|| unused(peer)));
    let (mut add, mut remove) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (before.entries.iter().peekable(), after.entries.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((was, _)), Some((is, _))) => was.cmp(is),
        };
        let was = if order.is_le() { old.next() } else { None };
        let is = if order.is_ge() { new.next() } else { None };
        match (was, is) {
            (Some((_, was)), Some((_, is))) if was == is => {}
            (Some((key, _)), None) if is_harmless(key) => remove.push(*key),
            (None, Some((key, entry))) if is_harmless(key) => add.push((*key, *entry)),
            _ => return Difference::Whole,
        }
        if add.len() + remove.len() > AMEND_MAX {
            return Difference::Whole;
        }
    }
    if add.is_empty() && remove.is_empty() { Difference::None } else { Difference::InPlace { add, remove } }
}
