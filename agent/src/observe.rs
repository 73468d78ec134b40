//! What the kernel saw, told to whoever listens.
//!
//! A thread of its own takes events from the ring buffer, joins them with names and hands them out as flows
//! ([`sluice_flow::Flow`]). It shares nothing with the state but a snapshot of names, so that neither a slow
//! listener nor a busy agent holds up the other.

mod decode;
mod hub;
pub(crate) mod requests;

pub(crate) use hub::{Hub, start};

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_client::model::EndpointRequest;
use sluice_flow::PolicyOrigin;
use sluice_policy::{DirectionState, EndpointPolicy, PolicyRef};
use sluice_types::{Direction, Identity, Labels, RuleId};

/// Who is who.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// Endpoints of this node by number.
    pub endpoints: Arc<HashMap<u16, Arc<EndpointName>>>,
    /// Labels of identities.
    pub identities: Arc<HashMap<Identity, Arc<Labels>>>,
    /// Where rules come from.
    pub rules: Arc<HashMap<RuleId, PolicyOrigin>>,
}

/// What an endpoint is called, and which policies isolate it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct EndpointName {
    /// The pod's namespace, or empty.
    pub namespace: String,
    /// The pod's name, or empty.
    pub pod: String,
    /// Its addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Its host-side interface.
    pub(crate) host_ifname: String,
    /// The interface's index.
    pub(crate) host_ifindex: u32,
    ingress: Origins,
    egress: Origins,
}

/// The policies that stand for a direction where no rule does.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Origins {
    /// Of what is denied.
    denied: Vec<PolicyOrigin>,
    /// Of what passes and is reported.
    audited: Vec<PolicyOrigin>,
}

impl EndpointName {
    /// The name of an endpoint under `policy`.
    #[must_use]
    pub(crate) fn new(attachment: &EndpointRequest, policy: &EndpointPolicy) -> Self {
        let (namespace, pod) = match (&attachment.pod_namespace, &attachment.pod_name) {
            (Some(namespace), Some(pod)) => (namespace.clone(), pod.clone()),
            _ => (String::new(), String::new()),
        };
        Self {
            namespace,
            pod,
            addresses: [attachment.ipv4.map(IpAddr::V4), attachment.ipv6.map(IpAddr::V6)]
                .into_iter()
                .flatten()
                .collect(),
            host_ifname: attachment.host_ifname.clone(),
            host_ifindex: attachment.host_ifindex,
            ingress: Origins::new(&policy.ingress),
            egress: Origins::new(&policy.egress),
        }
    }

    /// The policies because of which what no rule allows is denied, or passes and is reported.
    #[must_use]
    pub(crate) fn closed_by(&self, direction: Direction, is_audited: bool) -> &[PolicyOrigin] {
        let origins = match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        };
        if is_audited { &origins.audited } else { &origins.denied }
    }
}

impl Origins {
    fn new(direction: &DirectionState) -> Self {
        let origin = |policy: &PolicyRef| PolicyOrigin { policy: policy.to_string(), rule: String::new() };
        Self {
            denied: direction.isolated_by.iter().map(origin).collect(),
            audited: direction.reported_by().iter().map(origin).collect(),
        }
    }
}
