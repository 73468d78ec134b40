//! All rules and identities of the node, and the policy of each endpoint that follows from them.
//!
//! Every change says whose policy it touches; nothing is resolved before it is asked for. The agent owns the one
//! repository and is its only writer.

mod changed;
mod installed;
mod objects;
mod resolved;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use sluice_types::{Identity, Labels, Protocol, RuleId, Source};

pub use changed::Changed;
pub(crate) use installed::{InstalledRule, PeerSet};
use resolved::ResolvedPolicies;

use crate::{
    config::Config,
    labels::NAMESPACE,
    map_state::MapState,
    named_ports::NamedPorts,
    referents::Referents,
    requests::RequestTable,
    resolve::{Conflict, Knowledge, Resolver},
    rule::{NamedPort, PolicyRef, Rule, RuleOrigin, Subject, Tier},
    selector::Selector,
    selector_cache::{IdentitySet, SelectorCache, SelectorId},
};

/// How one direction of an endpoint is judged, for reports.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DirectionState {
    /// Whether anything decides about this direction; without, everything passes.
    pub enforced: bool,
    /// Whether denials are only reported.
    pub audit: bool,
    /// The policies that close the direction except for what rules allow, in their order.
    pub isolated_by: Vec<PolicyRef>,
    /// The policies in audit mode that are about the direction, in their order.
    pub staged_by: Vec<PolicyRef>,
}

impl DirectionState {
    /// The policies because of which traffic is reported that no rule allows and that passes all the same.
    #[must_use]
    pub fn reported_by(&self) -> &[PolicyRef] {
        if self.enforced && self.audit { &self.isolated_by } else { &self.staged_by }
    }
}

/// The policy of one endpoint.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EndpointPolicy {
    /// What the kernel's policy map must hold. Shared between revisions that do not change it.
    pub map_state: Arc<MapState>,
    /// What the proxies must know.
    pub requests: Arc<RequestTable>,
    /// The same with the policies in audit mode: what `requests` lets pass and this refuses passes and is reported.
    pub staged_requests: Arc<RequestTable>,
    /// The revision of the repository it holds for.
    pub revision: u64,
    /// How ingress is judged.
    pub ingress: DirectionState,
    /// How egress is judged.
    pub egress: DirectionState,
    /// Rules that contradict each other about what a connection carries; its traffic is closed.
    pub conflicts: Vec<Conflict>,
}

/// A policy that is in force, for reports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PolicyView<'a> {
    /// Its name.
    pub policy: &'a PolicyRef,
    /// How many rules it has.
    pub rules: usize,
    /// The revision that brought it in its present form.
    pub revision: u64,
}

/// A selector and whom it matches, for reports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SelectorView<'a> {
    /// The selector.
    pub selector: &'a Selector,
    /// How many times rules use it.
    pub users: usize,
    /// Whom it matches.
    pub identities: &'a IdentitySet,
}

/// All rules and identities of the node.
#[derive(Debug, Default)]
pub struct Repository {
    config: Config,
    revision: u64,
    cache: SelectorCache,
    named_ports: NamedPorts,
    referents: Referents,
    policies: BTreeMap<PolicyRef, Policy>,
    /// Rules by the one namespace whose endpoints they select; `None` for all namespaces.
    by_home: HashMap<Option<Arc<str>>, HashMap<RuleId, Arc<InstalledRule>>>,
    rules: HashMap<RuleId, Arc<InstalledRule>>,
    last_rule: u32,
    /// The rules that look at a selector.
    users: HashMap<SelectorId, BTreeSet<RuleId>>,
    /// The rules that look at the port names of peers.
    named_port_users: BTreeSet<RuleId>,
    /// The rules that refer to Services or groups by name.
    referent_users: BTreeSet<RuleId>,
    resolved: Mutex<ResolvedPolicies>,
}

#[derive(Debug)]
struct Policy {
    rules: Vec<Arc<InstalledRule>>,
    revision: u64,
}

impl Repository {
    /// A repository without rules or identities, at revision 1.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { cache: SelectorCache::new(&config), config, revision: 1, ..Self::default() }
    }

    /// The options it was made with.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Puts the rules of a policy in the place of those it had. A rule that was there before at the same place keeps
    /// its number; a policy that does not change at all keeps its revision.
    pub fn upsert(&mut self, policy: PolicyRef, rules: Vec<Rule>) -> Changed {
        let mut old: HashMap<String, Arc<InstalledRule>> = HashMap::new();
        if let Some(before) = self.policies.get(&policy) {
            if before.rules.iter().map(|installed| &installed.rule).eq(&rules) {
                return Changed::default();
            }
            old = before.rules.iter().map(|rule| (rule.rule.path.clone(), Arc::clone(rule))).collect();
        }
        self.revision += 1;
        let mut changed = Changed::default();
        let mut installed = Vec::with_capacity(rules.len());
        for (place, rule) in rules.into_iter().enumerate() {
            match old.remove(&rule.path) {
                Some(before) if before.rule == rule && before.place == place => installed.push(before),
                Some(before) => {
                    changed.add(&before);
                    // The new rule takes its selectors before the old one lets go of them.
                    let now = self.install(&policy, rule, place, before.id);
                    self.release(&before);
                    self.index(&now);
                    changed.add(&now);
                    installed.push(now);
                }
                None => {
                    let id = self.next_rule_id();
                    let now = self.install(&policy, rule, place, id);
                    changed.add(&now);
                    installed.push(now);
                }
            }
        }
        for gone in old.values() {
            changed.add(gone);
            self.uninstall(gone);
        }
        self.policies.insert(policy, Policy { rules: installed, revision: self.revision });
        self.resolved().forget(&changed);
        changed
    }

    /// Takes a policy out.
    pub fn remove(&mut self, policy: &PolicyRef) -> Changed {
        let Some(gone) = self.policies.remove(policy) else { return Changed::default() };
        self.revision += 1;
        let changed: Changed = gone.rules.iter().map(Arc::as_ref).collect();
        gone.rules.iter().for_each(|rule| self.uninstall(rule));
        self.resolved().forget(&changed);
        changed
    }

    /// Counts the changes of rules.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Makes an identity known, or gives it other labels.
    pub fn set_identity(&mut self, identity: Identity, labels: Labels) -> Changed {
        let selectors = self.cache.set_identity(identity, labels);
        self.peer_changed(identity, &selectors)
    }

    /// Forgets an identity.
    pub fn remove_identity(&mut self, identity: Identity) -> Changed {
        let selectors = self.cache.remove_identity(identity);
        self.peer_changed(identity, &selectors)
    }

    /// Says which names the pod `owner` (`namespace/name`) gives to its ports.
    pub fn set_named_ports(&mut self, owner: &str, identity: Identity, ports: Vec<NamedPort>) -> Changed {
        let identities = self.named_ports.set(owner, identity, &ports);
        self.names_changed(&identities)
    }

    /// Forgets the port names of a pod.
    pub fn remove_named_ports(&mut self, owner: &str) -> Changed {
        let identities = self.named_ports.remove(owner);
        self.names_changed(&identities)
    }

    /// Every prefix and hole that a rule names, except the whole of a family. Each needs an identity of its own and
    /// its place in the ipcache, or the rule cannot tell its addresses from others.
    #[must_use]
    pub fn prefixes(&self) -> BTreeSet<IpNet> {
        self.cache.prefixes()
    }

    /// The policy of an endpoint. Endpoints that are equal as subjects share one.
    #[must_use]
    pub fn resolve(&self, subject: &Subject) -> Arc<EndpointPolicy> {
        let mut resolved = self.resolved();
        match resolved.get(subject) {
            Some((policy, stale)) if stale.is_empty() => {
                if policy.revision == self.revision {
                    return policy;
                }
                let policy = Arc::new(EndpointPolicy { revision: self.revision, ..(*policy).clone() });
                resolved.renew(subject, &policy);
                policy
            }
            known => {
                let rules = self.matching_rules(&subject.labels);
                let ids = rules.iter().map(|rule| rule.id).collect();
                let resolver = self.resolver(subject, rules);
                let policy = Arc::new(match known {
                    Some((before, stale)) => resolver.patch(&before, stale),
                    None => resolver.policy(),
                });
                resolved.put(subject, &policy, ids);
                policy
            }
        }
    }

    /// Where the rule with this number comes from.
    #[must_use]
    pub fn rule(&self, id: RuleId) -> Option<&RuleOrigin> {
        self.rules.get(&id).map(|rule| &rule.origin)
    }

    /// The policies in force, in their order.
    pub fn policies(&self) -> impl Iterator<Item = PolicyView<'_>> {
        self.policies.iter().map(|(policy, known)| PolicyView {
            policy,
            rules: known.rules.len(),
            revision: known.revision,
        })
    }

    /// The policies that select the endpoint with these labels in some direction, in their order.
    pub fn policies_of(&self, labels: &Labels) -> impl Iterator<Item = &PolicyRef> {
        let rules = self.matching_rules(labels);
        let policies: BTreeSet<&PolicyRef> = rules.iter().map(|rule| &rule.origin.policy).collect();
        policies.into_iter().filter_map(|policy| self.policies.get_key_value(policy).map(|(key, _)| key))
    }

    /// The labels of an identity, if it is known.
    #[must_use]
    pub fn labels(&self, identity: Identity) -> Option<&Labels> {
        self.cache.labels(identity)
    }

    /// Every selector that a rule looks at, in no particular order.
    pub fn selectors(&self) -> impl Iterator<Item = SelectorView<'_>> {
        self.cache.iter().map(|(selector, users, identities)| SelectorView { selector, users, identities })
    }

    /// The tier of the rule with this number.
    pub(crate) fn tier(&self, id: RuleId) -> Option<Tier> {
        self.rules.get(&id).map(|rule| rule.rule.tier)
    }

    pub(crate) fn is_selected(&self, selector: SelectorId, identity: Identity) -> bool {
        self.cache.matches(selector).is_some_and(|matches| matches.contains(identity))
    }

    pub(crate) fn selector(&self, id: SelectorId) -> Option<&Selector> {
        self.cache.selector(id)
    }

    /// Whether pods of this identity give the port this name.
    pub(crate) fn has_port(&self, identity: Identity, name: &str, protocol: Protocol, port: u16) -> bool {
        self.named_ports.numbers(identity, name, protocol).any(|number| number == port)
    }

    fn resolver<'a>(&'a self, subject: &'a Subject, rules: Vec<&'a InstalledRule>) -> Resolver<'a> {
        let known = Knowledge {
            config: &self.config,
            revision: self.revision,
            cache: &self.cache,
            peer_names: &self.named_ports,
            referents: &self.referents,
        };
        Resolver::new(known, subject, rules)
    }

    fn resolved(&self) -> MutexGuard<'_, ResolvedPolicies> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rules that select an endpoint, ordered by policy and place.
    pub(crate) fn matching_rules(&self, labels: &Labels) -> Vec<&InstalledRule> {
        let home = labels.value(&Source::K8s, NAMESPACE).map(|namespace| Some(namespace.into()));
        let listed = home.and_then(|home| self.by_home.get(&home));
        let candidates = listed.into_iter().chain(self.by_home.get(&None)).flat_map(HashMap::values);
        let mut rules: Vec<&InstalledRule> =
            candidates.map(Arc::as_ref).filter(|rule| rule.subject.matches(labels)).collect();
        rules.sort_unstable_by(|one, other| {
            (&one.origin.policy, one.place).cmp(&(&other.origin.policy, other.place))
        });
        rules
    }

    /// Numbers are not given again before all others were used, so that a report does not name the wrong rule.
    fn next_rule_id(&mut self) -> RuleId {
        loop {
            self.last_rule = self.last_rule.wrapping_add(1);
            let id = RuleId(self.last_rule);
            if id != RuleId::NONE && !self.rules.contains_key(&id) {
                return id;
            }
        }
    }

    fn install(&mut self, policy: &PolicyRef, rule: Rule, place: usize, id: RuleId) -> Arc<InstalledRule> {
        let (cache, cluster) = (&mut self.cache, &self.config.cluster_name);
        let rule = Arc::new(InstalledRule::new(policy, rule, place, id, cache, &self.referents, cluster));
        self.index(&rule);
        self.rules.insert(id, Arc::clone(&rule));
        rule
    }

    fn index(&mut self, rule: &Arc<InstalledRule>) {
        for selector in rule.selectors() {
            self.users.entry(selector).or_default().insert(rule.id);
        }
        if rule.looks_at_peer_names() {
            self.named_port_users.insert(rule.id);
        }
        if rule.has_referents() {
            self.referent_users.insert(rule.id);
        }
        self.by_home.entry(rule.home.clone()).or_default().insert(rule.id, Arc::clone(rule));
    }

    fn uninstall(&mut self, rule: &InstalledRule) {
        self.release(rule);
        self.rules.remove(&rule.id);
    }

    /// Takes a rule out of every list.
    fn release(&mut self, rule: &InstalledRule) {
        self.named_port_users.remove(&rule.id);
        self.referent_users.remove(&rule.id);
        if let Some(listed) = self.by_home.get_mut(&rule.home) {
            listed.remove(&rule.id);
            if listed.is_empty() {
                self.by_home.remove(&rule.home);
            }
        }
        for selector in rule.selectors() {
            if let Some(users) = self.users.get_mut(&selector) {
                users.remove(&rule.id);
                if users.is_empty() {
                    self.users.remove(&selector);
                }
            }
            self.cache.release(selector);
        }
    }

    /// An identity joined or left these selectors.
    fn peer_changed(&self, identity: Identity, selectors: &BTreeSet<SelectorId>) -> Changed {
        let users = || selectors.iter().filter_map(|selector| self.users.get(selector)).flatten().copied();
        self.resolved().mark(users(), identity);
        users().filter_map(|id| self.rules.get(&id)).map(Arc::as_ref).collect()
    }

    /// The port names of pods of these identities changed.
    fn names_changed(&self, identities: &BTreeSet<Identity>) -> Changed {
        let mut all = Changed::default();
        for identity in identities {
            let rules = self.named_port_users.iter().filter_map(|id| self.rules.get(id));
            let touched: Vec<&InstalledRule> =
                rules.map(Arc::as_ref).filter(|rule| rule.may_select(*identity, &self.cache)).collect();
            self.resolved().mark(touched.iter().map(|rule| rule.id), *identity);
            all.merge(touched.into_iter().collect());
        }
        all
    }
}

#[cfg(test)]
mod tests;
