//! What the policy of one endpoint says about requests, beside the table for packets.
//!
//! A packet that meets a rule about requests is handed to a proxy, and the proxy asks here. Rules about requests are a
//! union: a request passes if one of the rules for its peer and port names it, or if a rule of their priority or a
//! later one lets everything pass. The first denial or pass on the way ends the search
//! (`policy-semantics`, "Union with L3/L4"; upstream `pkg/envoy/model.go`).

mod admission;
mod check;

use std::{collections::BTreeMap, sync::Arc};

use sluice_types::{Identity, RuleId};

use crate::{
    l7::{Effects, L7Rules, Mismatch, Parser, Request, Secrets},
    map_state::{Key, Query, candidates},
    precedence::same_tier,
    resolve::remove_peer,
};

pub use admission::{Admission, Admitted, RequestJudge};

/// What one rule says about the requests under one key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Slot {
    /// The order of rules, as in the table for packets.
    pub precedence: u32,
    /// The rule, [`RuleId::NONE`] for what holds without one.
    pub rule: RuleId,
    /// Whether the rule names exactly this port. Beside rules about DNS queries only such rules count.
    pub exact: bool,
    /// What it says.
    pub says: Says,
}

/// What a rule says about requests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Says {
    /// All of them pass.
    Allow,
    /// None of them does.
    Deny,
    /// The next tier decides.
    Pass,
    /// Those that match pass; about others it says nothing.
    Requests {
        /// Which they are.
        rules: Arc<L7Rules>,
        /// Where they stand in the rule, `toPorts[0]`.
        at: Option<String>,
    },
}

/// The decision about one request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestDecision {
    /// Whether it passes.
    pub allowed: bool,
    /// The rule that decided, [`RuleId::NONE`] when none did.
    pub rule: RuleId,
    /// The parts of rules that name the request: the rule, and where in it, `toPorts[0].http[1]`.
    pub parts: Vec<(RuleId, String)>,
    /// What is done to the request before it goes on.
    pub effects: Effects,
    /// Where no rule names it: the parts that come into question, and what each of them wanted.
    pub mismatches: Vec<(RuleId, String, Mismatch)>,
}

/// All slots of one endpoint. Empty for directions in which no rule looks at requests.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RequestTable {
    slots: BTreeMap<Key, Vec<Slot>>,
}

/// A table from its slots, as another process was told them.
impl FromIterator<(Key, Slot)> for RequestTable {
    fn from_iter<T: IntoIterator<Item = (Key, Slot)>>(slots: T) -> Self {
        let mut table = Self::default();
        slots.into_iter().for_each(|(key, slot)| table.put(key, slot));
        table
    }
}

impl RequestTable {
    /// Whether nothing is said about requests at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Every slot with its key.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Slot)> {
        self.slots.iter().flat_map(|(key, slots)| slots.iter().map(move |slot| (key, slot)))
    }

    /// The slots for requests of one connection, the strongest first. Where a tier passes on, the rest of it is
    /// left out. `query.port` must be known: a connection has one.
    #[must_use]
    pub fn slots(&self, query: &Query) -> Vec<&Slot> {
        let keys = candidates(query.direction, query.peer, query.protocol, query.port.unwrap_or_default());
        let mut found: Vec<&Slot> = keys.filter_map(|key| self.slots.get(&key)).flatten().collect();
        found.sort_by_key(|slot| std::cmp::Reverse(slot.precedence));
        let mut passed: Option<u32> = None;
        found.retain(|slot| {
            let skipped = passed.is_some_and(|precedence| same_tier(precedence, slot.precedence));
            if !skipped && slot.says == Says::Pass {
                passed = Some(slot.precedence);
            }
            !skipped && slot.says != Says::Pass
        });
        found
    }

    /// Decides about one request of a connection that was handed to a proxy.
    #[must_use]
    pub fn decide(&self, query: &Query, request: &Request<'_>, secrets: &dyn Secrets) -> RequestDecision {
        let mut slots = self.slots(query);
        if request.parser() == Parser::Dns {
            leave_out_wide(&mut slots);
        }
        let end = slots.iter().position(|slot| !matches!(slot.says, Says::Requests { .. }));
        let (asked, last) = slots.split_at(end.unwrap_or(slots.len()));
        let rules = asked.iter().filter_map(|slot| match &slot.says {
            Says::Requests { rules, at } => Some((slot.rule, at.as_deref(), &**rules)),
            Says::Allow | Says::Deny | Says::Pass => None,
        });
        let finding = check::check(&rules.collect::<Vec<_>>(), request, secrets);
        let last = last.first().map(|slot| (slot.rule, slot.says == Says::Allow));
        let by_request = finding.parts.first().map(|(rule, _)| (*rule, true));
        let (rule, allowed) = by_request.or(last).unwrap_or((RuleId::NONE, false));
        RequestDecision {
            allowed,
            rule,
            parts: finding.parts,
            effects: finding.effects,
            mismatches: if allowed { Vec::new() } else { finding.mismatches },
        }
    }

    pub(crate) fn put(&mut self, key: Key, slot: Slot) {
        let slots = self.slots.entry(key).or_default();
        if !slots.contains(&slot) {
            slots.push(slot);
        }
    }

    pub(crate) fn remove_peer(&mut self, peer: Identity) {
        remove_peer(&mut self.slots, peer);
    }
}

/// Leaves out what lets DNS queries pass without naming their port, in tiers where rules name queries: whoever names
/// queries means that others do not pass, although the server may be reached on all ports.
fn leave_out_wide(slots: &mut Vec<&Slot>) {
    let asks = |slot: &&&Slot| matches!(slot.says, Says::Requests { .. });
    let asking: Vec<u32> = slots.iter().filter(asks).map(|slot| slot.precedence).collect();
    slots.retain(|slot| {
        let names = asking.iter().any(|precedence| same_tier(*precedence, slot.precedence));
        slot.exact || slot.says != Says::Allow || !names
    });
}
