//! What was resolved and is still held by somebody, with what has changed for it since.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Weak},
};

use sluice_types::{Identity, RuleId};

use super::{Changed, EndpointPolicy};
use crate::rule::Subject;

/// How many policies may lie there before those that nobody holds are looked for.
const SWEEP_MIN: usize = 64;

/// Resolved policies by their subjects.
#[derive(Debug, Default)]
pub(super) struct ResolvedPolicies {
    ids: HashMap<Arc<Subject>, u32>,
    policies: HashMap<u32, Resolved>,
    /// The policies that each rule is part of.
    watchers: HashMap<RuleId, Vec<u32>>,
    last_id: u32,
    /// How many there may be before the next sweep.
    sweep_at: usize,
}

#[derive(Debug)]
struct Resolved {
    subject: Arc<Subject>,
    policy: Weak<EndpointPolicy>,
    stale_peers: BTreeSet<Identity>,
    rules: Vec<RuleId>,
}

impl ResolvedPolicies {
    /// The policy of a subject, and the peers that have changed for it.
    pub(super) fn get(&self, subject: &Subject) -> Option<(Arc<EndpointPolicy>, &BTreeSet<Identity>)> {
        let known = self.policies.get(self.ids.get(subject)?)?;
        Some((known.policy.upgrade()?, &known.stale_peers))
    }

    /// Keeps a policy, made of these rules, as long as somebody holds it.
    pub(super) fn put(&mut self, subject: &Subject, policy: &Arc<EndpointPolicy>, rules: Vec<RuleId>) {
        self.remove(subject);
        self.sweep();
        self.last_id = self.last_id.wrapping_add(1);
        while self.policies.contains_key(&self.last_id) {
            self.last_id = self.last_id.wrapping_add(1);
        }
        for rule in &rules {
            self.watchers.entry(*rule).or_default().push(self.last_id);
        }
        let subject = Arc::new(subject.clone());
        self.ids.insert(Arc::clone(&subject), self.last_id);
        let resolved =
            Resolved { subject, policy: Arc::downgrade(policy), stale_peers: BTreeSet::new(), rules };
        self.policies.insert(self.last_id, resolved);
    }

    /// The same policy under another revision.
    pub(super) fn renew(&mut self, subject: &Subject, policy: &Arc<EndpointPolicy>) {
        if let Some(known) = self.ids.get(subject).and_then(|id| self.policies.get_mut(id)) {
            known.policy = Arc::downgrade(policy);
        }
    }

    /// Notes that an identity has changed for these rules.
    pub(super) fn mark(&mut self, rules: impl Iterator<Item = RuleId>, identity: Identity) {
        for id in rules.filter_map(|rule| self.watchers.get(&rule)).flatten() {
            if let Some(known) = self.policies.get_mut(id) {
                known.stale_peers.insert(identity);
            }
        }
    }

    /// Forgets the policies that other rules make now.
    pub(super) fn forget(&mut self, changed: &Changed) {
        let is_gone =
            |known: &&Resolved| known.policy.strong_count() == 0 || changed.affects(&known.subject.labels);
        let gone: Vec<Arc<Subject>> =
            self.policies.values().filter(is_gone).map(|known| Arc::clone(&known.subject)).collect();
        gone.iter().for_each(|subject| self.remove(subject));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whatever nobody holds any more makes room for what comes; looked for so seldom that it costs nothing.
    fn sweep(&mut self) {
        if self.policies.len() < self.sweep_at.max(SWEEP_MIN) {
            return;
        }
        self.forget(&Changed::default());
        self.sweep_at = self.policies.len() * 2;
    }

    fn remove(&mut self, subject: &Subject) {
        let Some(id) = self.ids.remove(subject) else { return };
        let Some(gone) = self.policies.remove(&id) else { return };
        for rule in &gone.rules {
            if let Some(watchers) = self.watchers.get_mut(rule) {
                watchers.retain(|watcher| *watcher != id);
                if watchers.is_empty() {
                    self.watchers.remove(rule);
                }
            }
        }
    }
}
