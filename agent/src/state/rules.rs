//! What the proxies are told about endpoints' requests: written before the kernel redirects by it, and removed after.

use std::sync::Arc;

use sluice_policy::EndpointPolicy;
use sluice_proxy_rules::EndpointRules;
use sluice_types::EndpointId;

use super::{InFlight, State};
use crate::effect::{Failed, Record, Step};
use crate::event::Now;

/// Rules on their way to the proxies.
#[derive(Debug, Default)]
pub(super) struct Publication {
    /// Those to be written.
    write: Vec<EndpointRules>,
    /// Those of endpoints that have none any more.
    remove: Vec<EndpointId>,
}

impl Publication {
    /// What comes before the kernel is changed.
    pub(super) fn before(&mut self) -> Vec<Step> {
        let rules = std::mem::take(&mut self.write);
        rules.into_iter().map(|rules| Step::Store(Record::Rules(Box::new(rules)))).collect()
    }

    /// What comes after.
    pub(super) fn after(&self) -> impl Iterator<Item = Step> {
        self.remove.iter().map(|id| Step::Store(Record::RulesGone(*id)))
    }
}

impl State {
    /// Has the rules of an endpoint under `policy` written, if they are others than before.
    pub(super) fn publish_rules(
        &mut self,
        id: EndpointId,
        policy: &Arc<EndpointPolicy>,
        flight: &mut InFlight,
    ) {
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        let Some(identity) = endpoint.identity else { return };
        let has_rules = !policy.requests.is_empty() || !policy.staged_requests.is_empty();
        if !has_rules {
            if endpoint.told.take().is_some() {
                flight.rules.remove.push(id);
            }
            return;
        }
        let rules = EndpointRules::new(
            id,
            endpoint.generation,
            identity,
            endpoint.name(),
            policy,
            &self.objects.secrets,
        );
        if endpoint.told.as_ref() != Some(&rules) {
            endpoint.told = Some(rules.clone());
            flight.rules.write.push(rules);
            flight.told.push(id);
        }
    }

    /// What was written, and what was not: that is tried again.
    pub(super) fn rules_written(
        &mut self,
        told: &[EndpointId],
        failures: &super::executed::Failures<'_>,
        now: Now,
    ) {
        for id in told {
            let object = format!("rules of endpoint {id}");
            let Some(reason) = failures.get(&Failed::StoreRules(*id)) else {
                self.set_problem(object, None);
                continue;
            };
            if let Some(endpoint) = self.endpoints.get_mut(id) {
                endpoint.told = None;
                endpoint.is_dirty = true;
                endpoint.failed(reason, now);
            }
            let message = format!("the proxy has not got them, it judges by those before: {reason}");
            self.set_problem(object, Some(message));
        }
    }
}
