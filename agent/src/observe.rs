//! What the kernel saw, told to whoever listens.
//!
//! A thread of its own takes events from the ring buffer, joins them with names and hands them out as flows
//! ([`sluice_flow::Flow`]). It shares nothing with the state but a snapshot of names, so that neither a slow
//! listener nor a busy agent holds up the other.

mod decode;
mod hub;

pub(crate) use hub::{Hub, start};

use std::collections::HashMap;
use std::sync::Arc;

use sluice_flow::PolicyOrigin;
use sluice_policy::{DirectionState, EndpointPolicy};
use sluice_types::{Direction, Identity, Labels, RuleId};

/// Who is who.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// Endpoints of this node by number.
    pub endpoints: Arc<HashMap<u16, EndpointName>>,
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
    ingress: Vec<PolicyOrigin>,
    egress: Vec<PolicyOrigin>,
}

impl EndpointName {
    /// The name of the endpoint of `pod` under `policy`.
    #[must_use]
    pub(crate) fn new(pod: Option<(String, String)>, policy: &EndpointPolicy) -> Self {
        let (namespace, pod) = pod.unwrap_or_default();
        let ingress = isolation(&policy.ingress);
        Self { namespace, pod, ingress, egress: isolation(&policy.egress) }
    }

    /// The policies that close a direction except for what rules allow.
    #[must_use]
    pub(crate) fn isolated_by(&self, direction: Direction) -> &[PolicyOrigin] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

fn isolation(direction: &DirectionState) -> Vec<PolicyOrigin> {
    let origin =
        |policy: &sluice_policy::PolicyRef| PolicyOrigin { policy: policy.to_string(), rule: String::new() };
    direction.isolated_by.iter().map(origin).collect()
}
