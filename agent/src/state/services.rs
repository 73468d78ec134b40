//! Which Services lead where: endpoints as backends, and what the policy engine must be told about it.
//!
//! Changes only note which Services they touch; each of these is put together once, when the next batch is made.

use std::collections::BTreeMap;

use sluice_policy::BackendPod;
use sluice_policy::services::ObjectName;
use sluice_types::{EndpointId, Source};

use super::State;
use super::endpoints::PodMatch;
use crate::endpoint::Endpoint;
use crate::event::Now;

impl State {
    /// An endpoint is new, or its pod or identity changed.
    pub(super) fn backend_changed(&mut self, id: EndpointId) {
        let Some(endpoint) = self.endpoints.get(&id) else { return };
        let name = name_of(endpoint);
        let (labels, named_ports) = match self.pod_of(&endpoint.attachment) {
            PodMatch::Known(pod) => (pod.labels, pod.ports),
            // The manifest is gone or not there yet: what it said last, or what the identity says.
            PodMatch::None | PodMatch::Unknown | PodMatch::OtherUid(_) => match self.services.pod(&name) {
                Some(known) => (known.labels.clone(), known.named_ports.clone()),
                None => (labels_of(endpoint), Vec::new()),
            },
        };
        let addresses = endpoint.attachment.addresses().collect();
        let pod = BackendPod { labels, addresses, identity: endpoint.identity, named_ports };
        self.touched.extend(self.services.set_pod(name, pod));
    }

    /// An endpoint is gone.
    pub(super) fn backend_gone(&mut self, endpoint: &Endpoint) {
        self.touched.extend(self.services.remove_pod(&name_of(endpoint)));
    }

    /// Tells the policy engine what the touched Services stand for now, and gives addresses that rules name since
    /// the last call their identities.
    pub(super) fn follow_services(&mut self, now: Now) {
        for name in std::mem::take(&mut self.touched) {
            let changed = match self.services.service(&name) {
                Some(service) => self.repository.set_service(name, service),
                None => self.repository.remove_service(&name),
            };
            self.are_prefixes_stale |= !changed.is_empty();
            self.changed.merge(changed);
        }
        if std::mem::take(&mut self.are_prefixes_stale) {
            self.follow_prefixes(now);
        }
    }
}

/// Unique among endpoints, in the namespace of the pod.
fn name_of(endpoint: &Endpoint) -> ObjectName {
    let namespace = endpoint.attachment.pod().map(|(namespace, _)| namespace).unwrap_or_default();
    (namespace, endpoint.id.to_string())
}

fn labels_of(endpoint: &Endpoint) -> BTreeMap<String, String> {
    let own = endpoint.labels.iter().filter(|label| label.source == Source::K8s);
    own.map(|label| (label.key.clone(), label.value.clone())).collect()
}
