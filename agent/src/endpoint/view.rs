//! An endpoint as the API shows it.

use std::collections::BTreeMap;

use sluice_client::model::{Endpoint as EndpointView, EndpointOptions, EnforcementState, Toggle};
use sluice_policy::{DirectionState, EndpointPolicy};
use sluice_types::{Direction, Identity};

use super::Endpoint;

impl Endpoint {
    /// What the API shows, while the repository is at `wanted_revision`. Counters are not known here.
    #[must_use]
    pub(crate) fn view(&self, audit_of_agent: bool, wanted_revision: u64) -> EndpointView {
        let policy = self.realized.policy.as_deref();
        let toggle = if self.is_audit(audit_of_agent) { Toggle::Enabled } else { Toggle::Disabled };
        EndpointView {
            id: self.id,
            state: self.state,
            ingress: enforcement(policy.map(|policy| &policy.ingress)),
            egress: enforcement(policy.map(|policy| &policy.egress)),
            identity: self.identity.unwrap_or(Identity::UNKNOWN),
            labels: self.labels.clone(),
            attachment: self.attachment.request.clone(),
            realized_revision: self.realized_revision,
            wanted_revision,
            policy_entries: policy.map_or(0, |policy| policy.map_state.entries.len()),
            options: EndpointOptions { policy_audit_mode: Some(toggle) },
            problem: self.problem.clone(),
            isolated_by: policy.map(isolated_by).unwrap_or_default(),
            counters: Vec::new(),
        }
    }
}

fn enforcement(direction: Option<&DirectionState>) -> EnforcementState {
    match direction {
        Some(direction) if direction.enforced && direction.audit => EnforcementState::Audit,
        Some(direction) if !direction.enforced => EnforcementState::Disabled,
        // Before its first policy an endpoint is closed.
        _ => EnforcementState::Enabled,
    }
}

fn isolated_by(policy: &EndpointPolicy) -> BTreeMap<String, Vec<String>> {
    [(Direction::Ingress, &policy.ingress), (Direction::Egress, &policy.egress)]
        .into_iter()
        .filter(|(_, direction)| !direction.isolated_by.is_empty())
        .map(|(name, direction)| {
            (name.to_string(), direction.isolated_by.iter().map(ToString::to_string).collect())
        })
        .collect()
}
