//! Services and groups of prefixes in the repository: rules that name them follow every change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use sluice_types::RuleId;

use super::{Changed, InstalledRule, Repository};
use crate::{
    referents::{CidrGroup, Membership, Service, ServiceName, ServicePort},
    rule::{Peers, PolicyRef},
    selector::Selector,
};

impl Repository {
    /// Makes a Service known, or says what it stands for now.
    pub fn set_service(&mut self, name: ServiceName, service: Service) -> Changed {
        if self.referents.services.get(&name) == Some(&service) {
            return Changed::default();
        }
        let before = self.referents.services.insert(name.clone(), service);
        self.service_changed(&name, before.as_ref())
    }

    /// Forgets a Service.
    pub fn remove_service(&mut self, name: &ServiceName) -> Changed {
        let Some(before) = self.referents.services.remove(name) else { return Changed::default() };
        self.service_changed(name, Some(&before))
    }

    /// Makes a group of prefixes known, or gives it other prefixes or labels.
    pub fn set_cidr_group(&mut self, name: &str, group: CidrGroup) -> Changed {
        if self.referents.groups.get(name) == Some(&group) {
            return Changed::default();
        }
        let before = self.referents.groups.insert(name.to_owned(), group);
        self.group_changed(name, before.as_ref())
    }

    /// Forgets a group of prefixes.
    pub fn remove_cidr_group(&mut self, name: &str) -> Changed {
        let Some(before) = self.referents.groups.remove(name) else { return Changed::default() };
        self.group_changed(name, Some(&before))
    }

    /// The Services that lead to one of these addresses, as far as a rule asks for them. They belong to the
    /// [`crate::Subject`] of the endpoint that has the addresses.
    #[must_use]
    pub fn memberships(&self, addresses: &[IpAddr]) -> Vec<Membership> {
        let rules = self.referent_users.iter().filter_map(|id| self.rules.get(id));
        let ports = rules.flat_map(|rule| rule.rule.ports.rules());
        let asked: BTreeSet<&ServiceName> = ports.filter_map(|ports| ports.service.as_ref()).collect();
        let mut found: BTreeMap<&ServiceName, BTreeSet<&ServicePort>> = BTreeMap::new();
        for name in asked {
            let backends = self.referents.services.get(name).map(|service| service.backends.as_slice());
            let own = backends.unwrap_or_default().iter().filter(|own| addresses.contains(&own.address));
            for backend in own {
                found.entry(name).or_default().extend(&backend.ports);
            }
        }
        let membership = |(service, ports): (&ServiceName, BTreeSet<&ServicePort>)| Membership {
            service: service.clone(),
            ports: ports.into_iter().cloned().collect(),
        };
        found.into_iter().map(membership).collect()
    }

    /// The names of rules that stand for nothing now, with the rules that use them: such a rule matches nothing there.
    pub fn unresolved(&self) -> impl Iterator<Item = (RuleId, String)> {
        let rules = self.referent_users.iter().filter_map(|id| self.rules.get(id));
        rules.flat_map(|rule| rule.unresolved(&self.referents).into_iter().map(move |name| (rule.id, name)))
    }

    /// The selectors that peers given by name come to now; none if they are given otherwise.
    #[must_use]
    pub fn expand(&self, peers: &Peers) -> Option<Vec<Selector>> {
        self.referents.expand(peers, &self.config.cluster_name)
    }

    /// A Service, if it is known.
    pub(crate) fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.referents.services.get(name)
    }

    fn service_changed(&mut self, name: &ServiceName, before: Option<&Service>) -> Changed {
        let now = self.referents.services.get(name).cloned();
        self.referents_changed(|rule| rule.mentions_service(name, [before, now.as_ref()]))
    }

    fn group_changed(&mut self, name: &str, before: Option<&CidrGroup>) -> Changed {
        let now = self.referents.groups.get(name).cloned();
        self.referents_changed(|rule| rule.mentions_group(name, [before, now.as_ref()]))
    }

    /// Reads the rules that are touched once more. They keep their numbers, and the repository its revision: no
    /// policy changed.
    fn referents_changed(&mut self, is_touched: impl Fn(&InstalledRule) -> bool) -> Changed {
        let users = self.referent_users.iter().filter_map(|id| self.rules.get(id));
        let touched: Vec<Arc<InstalledRule>> = users.filter(|rule| is_touched(rule)).cloned().collect();
        let mut changed = Changed::default();
        for rule in touched {
            changed.add(&rule);
            self.reinstall(&rule);
        }
        self.resolved().forget(&changed);
        changed
    }

    fn reinstall(&mut self, before: &Arc<InstalledRule>) {
        let name: PolicyRef = before.origin.policy.clone();
        // The new form takes its selectors before the old one lets go of them.
        let rule = self.install(&name, before.rule.clone(), before.place, before.id);
        self.release(before);
        self.index(&rule);
        if let Some(policy) = self.policies.get_mut(&name) {
            for place in policy.rules.iter_mut().filter(|place| place.id == rule.id) {
                *place = Arc::clone(&rule);
            }
        }
    }
}
