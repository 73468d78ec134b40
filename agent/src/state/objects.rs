//! What the sources say: pods, namespaces, policies; and what follows from a change.

use std::collections::BTreeMap;

use sluice_client::model::Problem;
use sluice_model::SecretValues;
use sluice_policy::PolicyRef;
use sluice_policy::labels::pod_labels;
use sluice_types::Labels;

use super::State;
use crate::effect::Effect;
use crate::event::{Answer, Now};
use crate::ipcache::Claim;
use crate::source::{
    NamespaceObject, Object, ObjectKey, PodObject, PolicyObject, RefusedObject, SourceChanges,
};

/// The objects in force.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(super) pods: BTreeMap<(String, String), PodObject>,
    pub(super) namespaces: BTreeMap<String, NamespaceObject>,
    pub(super) policies: BTreeMap<PolicyRef, PolicyObject>,
    /// Services, their slices and groups of prefixes as users write them; what they mean the engine knows.
    referents: BTreeMap<ObjectKey, serde_json::Value>,
    pub(super) secrets: SecretValues,
    pub(super) refused: BTreeMap<ObjectKey, RefusedObject>,
    pub(super) problems: Vec<Problem>,
}

impl Objects {
    /// What policies can be about, as users write it: pods, namespaces, Services with their slices, groups of prefixes.
    pub(super) fn manifests(&self) -> Vec<serde_json::Value> {
        let namespaces = self.namespaces.values().map(|namespace| &namespace.object);
        let pods = self.pods.values().map(|pod| &pod.object);
        namespaces.chain(pods).chain(self.referents.values()).cloned().collect()
    }

    /// The labels of a pod's identity.
    pub(super) fn labels_of(&self, pod: &PodObject, cluster: &str) -> Labels {
        let none = BTreeMap::new();
        let namespace_labels = self.namespaces.get(&pod.namespace).map_or(&none, |known| &known.labels);
        pod_labels(&pod.labels, &pod.namespace, namespace_labels, &pod.service_account, cluster)
    }
}

impl State {
    /// Takes over what changed in the sources.
    pub(super) fn source_changed(&mut self, changes: SourceChanges, now: Now) -> Vec<Effect> {
        let mut pods = Vec::new();
        for key in changes.removed {
            self.remove_object(key, &mut pods);
        }
        for object in changes.set {
            self.set_object(object, &mut pods);
        }
        self.objects.refused = changes.refused;
        self.objects.problems = changes.problems;
        self.is_source_read = true;
        pods.sort();
        pods.dedup();
        for pod in pods {
            self.pod_changed(&pod, now);
        }
        let mut effects = self.retry_waiting_for_pod(now);
        for (ticket, result) in changes.answers {
            let revision = self.repository.revision();
            let answer = result.map(|mut applied| {
                applied.revision = revision;
                Answer::Applied(applied)
            });
            effects.push(Effect::Answer(ticket, answer));
        }
        effects
    }

    fn set_object(&mut self, object: Object, pods: &mut Vec<(String, String)>) {
        let key = object.key();
        match object {
            Object::Pod(pod) => {
                let key = (pod.namespace.clone(), pod.name.clone());
                self.objects.pods.insert(key.clone(), pod);
                pods.push(key);
            }
            Object::Namespace(namespace) => {
                pods.extend(self.pods_in(&namespace.name));
                self.set_namespace_audit(&namespace.name, namespace.audit);
                self.objects.namespaces.insert(namespace.name.clone(), namespace);
            }
            Object::Policy(policy) => {
                let known = self.objects.policies.get(&policy.reference);
                // A file that was only renamed changes nothing.
                if known.is_none_or(|known| known.rules != policy.rules) {
                    let changed = self.repository.upsert(policy.reference.clone(), policy.rules.clone());
                    self.changed.merge(changed);
                    self.are_prefixes_stale = true;
                }
                self.objects.policies.insert(policy.reference.clone(), policy);
            }
            Object::Service(service) => {
                self.objects.referents.insert(key, service.object);
                self.touched.extend(self.services.set_service(service.declared));
            }
            Object::EndpointSlice(own) => {
                self.objects.referents.insert(key, own.object);
                self.touched.extend(self.services.set_slice(own.name, own.slice));
            }
            Object::CidrGroup(own) => {
                self.objects.referents.insert(key, own.object);
                let changed = self.repository.set_cidr_group(&own.name, own.group);
                self.are_prefixes_stale |= !changed.is_empty();
                self.changed.merge(changed);
            }
            Object::Secret(own) => {
                self.objects.secrets.insert(&own.secret);
                self.secrets_changed();
            }
        }
    }

    /// What the proxies were told may have other values in it now.
    fn secrets_changed(&mut self) {
        for endpoint in self.endpoints.values_mut().filter(|known| known.told.is_some()) {
            endpoint.is_dirty = true;
        }
    }

    fn remove_object(&mut self, key: ObjectKey, pods: &mut Vec<(String, String)>) {
        self.objects.referents.remove(&key);
        match key {
            // Its endpoint keeps the last labels: the containers run until the runtime deletes them.
            ObjectKey::Pod(namespace, name) => {
                self.objects.pods.remove(&(namespace, name));
            }
            ObjectKey::Namespace(name) => {
                pods.extend(self.pods_in(&name));
                self.set_namespace_audit(&name, false);
                self.objects.namespaces.remove(&name);
            }
            ObjectKey::Policy(reference) => {
                let changed = self.repository.remove(&reference);
                self.changed.merge(changed);
                self.are_prefixes_stale = true;
                self.objects.policies.remove(&reference);
            }
            ObjectKey::Service(name) => self.touched.extend(self.services.remove_service(&name)),
            ObjectKey::EndpointSlice(name) => self.touched.extend(self.services.remove_slice(&name)),
            ObjectKey::Secret((namespace, name)) => {
                self.objects.secrets.remove(&namespace, &name);
                self.secrets_changed();
            }
            ObjectKey::CidrGroup(name) => {
                let changed = self.repository.remove_cidr_group(&name);
                self.are_prefixes_stale |= !changed.is_empty();
                self.changed.merge(changed);
            }
        }
    }

    /// The pods of a namespace are in audit mode from now on, or no longer.
    fn set_namespace_audit(&mut self, name: &str, audit: bool) {
        if audit == self.objects.namespaces.get(name).is_some_and(|known| known.audit) {
            return;
        }
        for pod in self.pods_in(name) {
            for id in self.by_pod.get(&pod).into_iter().flatten() {
                if let Some(endpoint) = self.endpoints.get_mut(id) {
                    endpoint.is_dirty = true;
                }
            }
        }
    }

    fn pods_in(&self, namespace: &str) -> impl Iterator<Item = (String, String)> + use<> {
        let keys: Vec<_> = self.by_pod.keys().filter(|(own, _)| own == namespace).cloned().collect();
        keys.into_iter()
    }

    /// Gives every prefix that a policy names an identity and its place in the ipcache.
    pub(super) fn follow_prefixes(&mut self, now: Now) {
        let changes = self.prefixes.follow(&self.repository.prefixes(), now.instant);
        self.label_prefixes(changes.label);
        for (prefix, identity) in changes.map {
            self.ipcache.set(prefix, Claim::Prefix, super::executed::entry_of(identity));
        }
        let refused = changes.refused;
        let message = (!refused.is_empty()).then(|| {
            let first = refused.first().map(ToString::to_string).unwrap_or_default();
            format!(
                "no identity is left for {} prefixes, {first} among them: rules do not match them",
                refused.len()
            )
        });
        self.set_problem("prefix identities", message);
    }

    pub(super) fn label_prefixes(&mut self, labels: Vec<(sluice_types::Identity, Labels)>) {
        for (identity, labels) in labels {
            self.names.identity(identity, Some(&labels));
            let changed = self.repository.set_identity(identity, labels);
            self.changed.merge(changed);
        }
    }
}
