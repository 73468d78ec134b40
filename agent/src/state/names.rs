//! Who is who, for reports of packets: kept beside the state and published when it changed.

use std::sync::Arc;

use sluice_flow::PolicyOrigin;
use sluice_policy::{EndpointPolicy, Repository};
use sluice_types::{EndpointId, Identity, Labels, RuleId};

use crate::observe::{EndpointName, Names};

/// Rules that are remembered after they are gone, so that late reports name them. Beyond this all are forgotten
/// and learnt anew.
const RULES_MAX: usize = 200_000;

/// The names as they are, and whether somebody must be told.
#[derive(Debug, Default)]
pub(crate) struct NamesCache {
    names: Names,
    is_changed: bool,
}

impl NamesCache {
    /// `identity` stands for `labels`, or for nothing any more.
    pub(super) fn identity(&mut self, identity: Identity, labels: Option<&Labels>) {
        self.is_changed = true;
        let identities = Arc::make_mut(&mut self.names.identities);
        match labels {
            Some(labels) => identities.insert(identity, Arc::new(labels.clone())),
            None => identities.remove(&identity),
        };
    }

    /// The endpoint `id` is called `name`, or there is none any more.
    pub(super) fn endpoint(&mut self, id: EndpointId, name: Option<EndpointName>) {
        let endpoints = Arc::make_mut(&mut self.names.endpoints);
        match name {
            Some(name) if endpoints.get(&id.as_u16()).is_some_and(|known| **known == name) => return,
            Some(name) => endpoints.insert(id.as_u16(), Arc::new(name)),
            None => endpoints.remove(&id.as_u16()),
        };
        self.is_changed = true;
    }

    /// The rules of a policy can be reported from now on.
    pub(super) fn policy(&mut self, policy: &EndpointPolicy, repository: &Repository) {
        let mut last = RuleId::NONE;
        let packets = policy.map_state.iter().map(|(_, _, entry)| entry.rule);
        let requests = [&policy.requests, &policy.staged_requests];
        let requests = requests.into_iter().flat_map(|table| table.iter().map(|(_, slot)| slot.rule));
        for rule in packets.chain(requests) {
            if rule == last || rule == RuleId::NONE || self.names.rules.contains_key(&rule) {
                continue;
            }
            last = rule;
            if let Some(origin) = repository.rule(rule) {
                let origin = PolicyOrigin { policy: origin.policy.to_string(), rule: origin.path.clone() };
                let rules = Arc::make_mut(&mut self.names.rules);
                if rules.len() >= RULES_MAX {
                    rules.clear();
                }
                rules.insert(rule, origin);
                self.is_changed = true;
            }
        }
    }

    /// The names, if they changed since the last call.
    pub(super) fn publish(&mut self) -> Option<Arc<Names>> {
        std::mem::take(&mut self.is_changed).then(|| Arc::new(self.names.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sluice_policy::{Config, Subject, labels::pod_labels, parse};

    use super::*;

    #[test]
    fn rules_of_all_planes_have_names() {
        let config = Config { admin_tiers: true, ..Config::default() };
        let mut repository = Repository::new(config.clone());
        for text in [
            "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: a}, spec: \
             {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}",
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: n}, spec: {podSelector: {}, \
             ingress: [{from: [{podSelector: {}}]}]}}",
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: tried, annotations: \
             {sluice.dev/audit: 'true'}}, spec: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}}",
        ] {
            let object = sluice_api::read_manifests(text).remove(0).content.unwrap();
            let (policy, rules) = parse::object(&object, &config).unwrap();
            drop(repository.upsert(policy, rules.unwrap()));
        }
        let own = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let labels = pod_labels(&own, "default", &BTreeMap::new(), "default", "default");
        let identity = Identity::new(300);
        drop(repository.set_identity(identity, labels.clone()));
        let subject =
            Subject { identity, labels, named_ports: Vec::new(), services: Vec::new(), audit: false };
        let mut names = NamesCache::default();
        names.policy(&repository.resolve(&subject), &repository);
        let names = names.publish().unwrap();
        let mut policies: Vec<&str> = names.rules.values().map(|origin| origin.policy.as_str()).collect();
        policies.sort_unstable();
        assert_eq!(policies, ["kcnp/a", "knp/default/n", "knp/default/tried"]);
    }
}
