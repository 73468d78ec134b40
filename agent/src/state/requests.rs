//! Requests of the API: leases, endpoints, and questions about the state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use sluice_client::model::{
    CniGcResult, Endpoint as EndpointView, EndpointOptions, IdentityInfo, IpamLease, PolicyInfo, Problem,
    Status, Toggle,
};
use sluice_policy::{PolicyKind, PolicyRef};
use sluice_types::{EndpointId, Identity};

use super::{Pending, State};
use crate::effect::Effect;
use crate::endpoint::{Attachment, Endpoint};
use crate::event::{Answer, Now, Refusal, RefusalCode, Request, Ticket};
use crate::ipam::{IpamError, Owner};
use crate::source::{ObjectKey, RefusedObject};

/// What pods' default routes name. The host-side veth answers for it, so it is the same in every pod.
const GATEWAY4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The same for IPv6.
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// How many problems `status` shows.
const PROBLEMS_SHOWN_MAX: usize = 200;

impl State {
    pub(super) fn request(&mut self, request: Request, ticket: Ticket, now: Now) -> Vec<Effect> {
        let result = match request {
            Request::Lease(owner) => return self.lease(owner, ticket, now),
            Request::Release(owner) => return self.release(&owner, ticket, now),
            Request::CreateEndpoint(request) => match Attachment::parse(*request) {
                Ok(attachment) => return self.create(attachment, ticket, now),
                Err(refusal) => Err(refusal),
            },
            Request::DeleteAttachment(owner) => return self.delete(&owner, ticket, now),
            Request::Gc(valid) => return self.gc(&valid, ticket, now),
            Request::Configure(id, options) => return self.configure(id, &options, ticket, now),
            Request::Status => Ok(Answer::Status(Box::new(self.status(now)))),
            Request::Endpoints => Ok(Answer::Endpoints(
                self.endpoints.values().map(|endpoint| self.view_of(endpoint)).collect(),
            )),
            Request::Endpoint(id) => {
                self.known(id).map(|endpoint| Answer::Endpoint(Box::new(self.view_of(endpoint))))
            }
            Request::EndpointLog(id) => self.known(id).map(|endpoint| Answer::EndpointLog(endpoint.log())),
            Request::Identities => Ok(Answer::Identities(self.identity_infos())),
            Request::Objects => Ok(Answer::Objects(self.objects.manifests())),
            Request::Policies => Ok(Answer::Policies(self.policy_infos())),
            Request::MapLevels => Ok(self.ipcache.levels()),
        };
        vec![Effect::Answer(ticket, result)]
    }

    fn known(&self, id: EndpointId) -> Result<&Endpoint, Refusal> {
        self.endpoints
            .get(&id)
            .ok_or_else(|| Refusal::new(RefusalCode::NotFound, format!("there is no endpoint {id}")))
    }

    pub(super) fn view_of(&self, endpoint: &Endpoint) -> EndpointView {
        endpoint.view(self.is_audit(endpoint), self.repository.revision())
    }

    /// Whether an endpoint is in audit mode: by its own option, or else because its namespace or the whole agent is.
    pub(super) fn is_audit(&self, endpoint: &Endpoint) -> bool {
        let namespace = endpoint.attachment.pod().and_then(|(own, _)| self.objects.namespaces.get(&own));
        let of_others = self.settings.audit || namespace.is_some_and(|namespace| namespace.audit);
        endpoint.options.policy_audit_mode.map_or(of_others, |toggle| toggle == Toggle::Enabled)
    }

    fn lease(&mut self, owner: Owner, ticket: Ticket, now: Now) -> Vec<Effect> {
        let is_known = self.ipam.addresses_of(&owner).is_some();
        let addresses = match self.ipam.lease(&owner, now.instant) {
            Ok(addresses) => addresses,
            Err(error) => {
                let code = match error {
                    IpamError::Exhausted { .. } => RefusalCode::Exhausted,
                    IpamError::NoPool => RefusalCode::Invalid,
                };
                return vec![Effect::Answer(ticket, Err(Refusal::new(code, error.to_string())))];
            }
        };
        let lease = IpamLease {
            ipv4: addresses.ipv4,
            ipv6: addresses.ipv6,
            gateway4: addresses.ipv4.map(|_| GATEWAY4),
            gateway6: addresses.ipv6.map(|_| GATEWAY6),
            mtu: self.settings.mtu,
        };
        self.unstored.ipam |= !is_known;
        self.pending.push((ticket, Pending::Lease(owner, lease)));
        Vec::new()
    }

    fn release(&mut self, owner: &Owner, ticket: Ticket, now: Now) -> Vec<Effect> {
        if self.by_owner.contains_key(owner) {
            let message = format!("{owner} has an endpoint; delete the attachment");
            return vec![Effect::Answer(ticket, Err(Refusal::new(RefusalCode::Conflict, message)))];
        }
        self.unstored.ipam |= self.ipam.release(owner, now.instant);
        self.pending.push((ticket, Pending::Removed(None)));
        Vec::new()
    }

    fn delete(&mut self, owner: &Owner, ticket: Ticket, now: Now) -> Vec<Effect> {
        let mut effects = self.refuse_waiting(|waiting| waiting == owner);
        let id = self.by_owner.get(owner).copied();
        if let Some(id) = id {
            self.remove_endpoint(id, "the runtime deleted it", now);
        }
        self.unstored.ipam |= self.ipam.release(owner, now.instant);
        self.pending.push((ticket, Pending::Removed(id)));
        effects.extend(self.retry_waiting_for_pod(now));
        effects
    }

    /// Whoever waits for a pod on an attachment that is deleted waits in vain.
    fn refuse_waiting(&mut self, is_deleted: impl Fn(&Owner) -> bool) -> Vec<Effect> {
        let (gone, stay) = std::mem::take(&mut self.waiting_for_pod)
            .into_iter()
            .partition(|waiting| is_deleted(&waiting.attachment.owner()));
        self.waiting_for_pod = stay;
        let gone: Vec<super::WaitingForPod> = gone;
        gone.into_iter()
            .map(|waiting| {
                let message = format!("{} was deleted meanwhile", waiting.attachment.owner());
                Effect::Answer(waiting.ticket, Err(Refusal::new(RefusalCode::Conflict, message)))
            })
            .collect()
    }

    fn gc(&mut self, valid: &BTreeSet<Owner>, ticket: Ticket, now: Now) -> Vec<Effect> {
        let effects = self.refuse_waiting(|waiting| !valid.contains(waiting));
        let stale: Vec<(EndpointId, Owner)> = self
            .by_owner
            .iter()
            .filter(|(owner, _)| !valid.contains(owner))
            .map(|(owner, id)| (*id, owner.clone()))
            .collect();
        let mut result = CniGcResult::default();
        for (id, owner) in &stale {
            if let Some(endpoint) = self.endpoints.get(id) {
                result.host_ifnames.push(endpoint.attachment.request.host_ifname.clone());
            }
            result.removed.push(owner.to_string());
        }
        self.forget_all(&stale, "the runtime does not know it any more", now);
        let leases: Vec<Owner> = self.ipam.owners().filter(|owner| !valid.contains(owner)).cloned().collect();
        for owner in leases {
            result.removed.push(owner.to_string());
            self.unstored.ipam |= self.ipam.release(&owner, now.instant);
        }
        result.removed.sort();
        self.pending.push((ticket, Pending::Gc(result)));
        effects
    }

    fn configure(
        &mut self,
        id: EndpointId,
        options: &EndpointOptions,
        ticket: Ticket,
        now: Now,
    ) -> Vec<Effect> {
        let Some(endpoint) = self.endpoints.get_mut(&id) else {
            let refusal = Refusal::new(RefusalCode::NotFound, format!("there is no endpoint {id}"));
            return vec![Effect::Answer(ticket, Err(refusal))];
        };
        if let Some(toggle) = options.policy_audit_mode
            && endpoint.options.policy_audit_mode != Some(toggle)
        {
            endpoint.options.policy_audit_mode = Some(toggle);
            endpoint.is_dirty = true;
            endpoint.is_stored = false;
            let state = endpoint.state;
            endpoint.note(state, format!("PolicyAuditMode={toggle:?}"), now);
        }
        self.pending.push((ticket, Pending::View(id)));
        Vec::new()
    }

    fn status(&mut self, now: Now) -> Status {
        let mut endpoints: BTreeMap<String, usize> = BTreeMap::new();
        for endpoint in self.endpoints.values() {
            *endpoints.entry(endpoint.state.to_string()).or_default() += 1;
        }
        let problems = self.all_problems();
        let state = match (self.is_settled, problems.is_empty()) {
            (false, _) => "starting",
            (true, true) => "ok",
            (true, false) => "degraded",
        };
        Status {
            state: state.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: now.instant.duration_since(self.started).as_secs(),
            source: self.settings.source.clone(),
            enforcement: self.settings.enforcement.to_owned(),
            audit: self.settings.audit,
            revision: self.repository.revision(),
            policies: self.objects.policies.len(),
            identities: self.identity_infos().len(),
            endpoints,
            ipam: self.ipam.status(now.instant),
            maps: Vec::new(),
            devices: self.devices.clone(),
            problems,
        }
    }

    fn all_problems(&self) -> Vec<Problem> {
        let standing = self
            .problems
            .iter()
            .map(|(object, message)| Problem { object: object.clone(), message: message.clone() });
        let mut all: Vec<Problem> = standing
            .chain(self.node_problems.iter().cloned())
            .chain(self.restore_problems.iter().cloned())
            .chain(self.objects.problems.iter().cloned())
            .collect();
        if all.len() > PROBLEMS_SHOWN_MAX {
            let more = all.len() - PROBLEMS_SHOWN_MAX;
            all.truncate(PROBLEMS_SHOWN_MAX);
            all.push(Problem {
                object: "status".to_owned(),
                message: format!("{more} more problems are not shown"),
            });
        }
        all
    }

    fn identity_infos(&self) -> Vec<IdentityInfo> {
        let of_init = self.endpoints.values().filter(|known| known.identity == Some(Identity::INIT)).count();
        let reserved = Identity::reserved().map(|(id, _)| IdentityInfo {
            id,
            labels: sluice_policy::labels::reserved_labels(id),
            references: if id == Identity::INIT { of_init } else { self.ipcache.uses(id) },
        });
        let pods = self.identities.active().map(|(id, labels, references)| IdentityInfo {
            id,
            labels: labels.clone(),
            references,
        });
        let prefixes = self.prefixes.iter().map(|(_, id, labels)| IdentityInfo {
            id,
            labels: labels.clone(),
            references: self.ipcache.uses(id),
        });
        reserved.chain(pods).chain(prefixes).collect()
    }

    fn policy_infos(&self) -> Vec<PolicyInfo> {
        let mut warnings = self.policy_warnings();
        let in_force = self.objects.policies.values().map(|policy| {
            let key = ObjectKey::Policy(policy.reference.clone());
            let refused = self.objects.refused.get(&key);
            PolicyInfo {
                kind: kind_of(policy.reference.kind).to_owned(),
                namespace: policy.reference.namespace.clone(),
                name: policy.reference.name.clone(),
                origin: policy.origin.clone(),
                rules: policy.rules.len(),
                endpoints: self.selected_by(policy),
                error: refused.map(RefusedObject::to_string),
                warnings: warnings.remove(&policy.reference).unwrap_or_default(),
                object: policy.object.clone(),
            }
        });
        let never_good = self.objects.refused.iter().filter_map(|(key, refused)| match key {
            ObjectKey::Policy(reference) if !self.objects.policies.contains_key(reference) => {
                Some(PolicyInfo {
                    kind: kind_of(reference.kind).to_owned(),
                    namespace: reference.namespace.clone(),
                    name: reference.name.clone(),
                    origin: refused.origin.clone(),
                    rules: 0,
                    endpoints: Vec::new(),
                    error: Some(refused.to_string()),
                    warnings: Vec::new(),
                    object: serde_json::Value::Null,
                })
            }
            ObjectKey::Policy(_)
            | ObjectKey::Pod(..)
            | ObjectKey::Namespace(_)
            | ObjectKey::Service(_)
            | ObjectKey::EndpointSlice(_)
            | ObjectKey::CidrGroup(_)
            | ObjectKey::Secret(_) => None,
        });
        in_force.chain(never_good).collect()
    }

    /// What of policies in force has no effect as it stands.
    fn policy_warnings(&self) -> BTreeMap<PolicyRef, Vec<String>> {
        let mut warnings: BTreeMap<PolicyRef, BTreeSet<String>> = BTreeMap::new();
        for (id, missing) in self.repository.unresolved() {
            if let Some(rule) = self.repository.rule(id) {
                let warning = format!("{}: {missing}, so nothing is matched there", rule.path);
                warnings.entry(rule.policy.clone()).or_default().insert(warning);
            }
        }
        let realized = self.endpoints.values().filter_map(|endpoint| endpoint.realized.policy.as_deref());
        for conflict in realized.flat_map(|policy| &policy.conflicts) {
            let rules = (self.repository.rule(conflict.one), self.repository.rule(conflict.other));
            let (Some(one), Some(other)) = rules else { continue };
            let (reads, other_reads) = (conflict.reads.as_str(), conflict.other_reads.as_str());
            for (own, its, reads, other_reads) in
                [(one, other, reads, other_reads), (other, one, other_reads, reads)]
            {
                let warning = format!(
                    "{}: its port is read as {reads} here and as {other_reads} by {its}; what both name is closed",
                    own.path
                );
                warnings.entry(own.policy.clone()).or_default().insert(warning);
            }
        }
        warnings.into_iter().map(|(policy, texts)| (policy, texts.into_iter().collect())).collect()
    }

    fn selected_by(&self, policy: &crate::source::PolicyObject) -> Vec<EndpointId> {
        self.endpoints
            .values()
            .filter(|known| policy.rules.iter().any(|rule| rule.subject.matches(&known.labels)))
            .map(|known| known.id)
            .collect()
    }
}

/// The kind as users write it.
pub(crate) const fn kind_of(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::Cnp => "CiliumNetworkPolicy",
        PolicyKind::Ccnp => "CiliumClusterwideNetworkPolicy",
        PolicyKind::Knp => "NetworkPolicy",
        PolicyKind::Kcnp => "ClusterNetworkPolicy",
    }
}
