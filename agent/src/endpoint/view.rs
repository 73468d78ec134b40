//! An endpoint as the API shows it.

use std::collections::BTreeMap;

use sluice_client::model::{Endpoint as EndpointView, EndpointOptions, EnforcementState, Toggle};
use sluice_policy::{DirectionState, EndpointPolicy, PolicyRef};
use sluice_types::{Direction, Identity};

use super::Endpoint;

impl Endpoint {
    /// What the API shows of an endpoint that is in audit mode or not, while the repository is at `wanted_revision`.
    /// Counters are not known here.
    #[must_use]
    pub(crate) fn view(&self, is_audit: bool, wanted_revision: u64) -> EndpointView {
        let policy = self.realized.policy.as_deref();
        let toggle = if is_audit { Toggle::Enabled } else { Toggle::Disabled };
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
            isolated_by: policy.map(|own| by_direction(own, |own| &own.isolated_by)).unwrap_or_default(),
            audited_by: policy.map(|own| by_direction(own, |own| &own.staged_by)).unwrap_or_default(),
            counters: Vec::new(),
        }
    }
}

fn enforcement(direction: Option<&DirectionState>) -> EnforcementState {
    match direction {
        Some(direction) if direction.enforced && direction.audit => EnforcementState::Audit,
        // Nothing is closed, and what a policy in audit mode would close is reported.
        Some(direction) if !direction.enforced && !direction.staged_by.is_empty() => EnforcementState::Audit,
        Some(direction) if !direction.enforced => EnforcementState::Disabled,
        // Before its first policy an endpoint is closed.
        _ => EnforcementState::Enabled,
    }
}

/// Some of the policies of each direction that has any.
fn by_direction(
    policy: &EndpointPolicy,
    which: impl Fn(&DirectionState) -> &[PolicyRef],
) -> BTreeMap<String, Vec<String>> {
    let both = Direction::ALL.map(|direction| (direction, which(policy.direction(direction))));
    let names = |policies: &[PolicyRef]| policies.iter().map(ToString::to_string).collect();
    both.into_iter()
        .filter(|(_, policies)| !policies.is_empty())
        .map(|(direction, policies)| (direction.to_string(), names(policies)))
        .collect()
}
