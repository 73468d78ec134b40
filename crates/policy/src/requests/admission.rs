//! What a table says about the HTTP requests of one connection, compiled: five hundred rules cost what one costs.

use std::sync::Arc;

use sluice_types::RuleId;

use super::{RequestTable, Says, Slot};
use crate::Outcome;
use crate::l7::{Effects, HttpRequest, HttpRuleSet, L7Rules, Secrets};
use crate::map_state::Query;
use crate::precedence::is_admin;

/// The decision of [`RequestTable::decide`] about HTTP requests of one direction, peer and port.
#[derive(Clone, Debug)]
pub struct Admission {
    rules: HttpRuleSet,
    /// Where each of `rules` stands, in their order.
    places: Vec<(RuleId, Place)>,
    /// What decides where no rule names the request.
    last: Option<(RuleId, bool)>,
    /// Whether all matching rules count and not only the first.
    has_effects: bool,
    /// Whether a rule looks at requests at all, be it those of another protocol.
    looks: bool,
    /// Whether an administrator decides before everybody else.
    by_admin: bool,
}

/// Where a rule about requests stands: the port rule and the part of it, `toPorts[0]` and `http[1]`.
#[derive(Clone, Debug)]
struct Place {
    rules: Arc<L7Rules>,
    nth: usize,
    at: Option<String>,
}

/// What was decided about a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Admitted {
    /// Whether it passes.
    pub allowed: bool,
    /// The rule that decided, [`RuleId::NONE`] when none did.
    pub rule: RuleId,
    /// Where in it the first part stands that names the request, `toPorts[0].http[1]`.
    pub part: Option<String>,
    /// What is done to the request before it goes on.
    pub effects: Effects,
}

impl Admission {
    /// Compiles what `table` says about connections like `query`, whose port must be known.
    #[must_use]
    pub fn new(table: &RequestTable, query: &Query) -> Self {
        let (mut places, mut last, mut looks) = (Vec::new(), None, false);
        let slots = table.slots(query);
        let by_admin = slots.first().is_some_and(|slot| is_admin(slot.precedence));
        for Slot { rule, says, .. } in slots {
            match says {
                Says::Requests { rules, at } => {
                    looks = true;
                    let count = if let L7Rules::Http(own) = &**rules { own.len() } else { 0 };
                    let place = |nth| (*rule, Place { rules: Arc::clone(rules), nth, at: at.clone() });
                    places.extend((0..count).map(place));
                }
                Says::Allow | Says::Deny => {
                    last = Some((*rule, *says == Says::Allow));
                    break;
                }
                Says::Pass => {}
            }
        }
        let rules = places.iter().enumerate().filter_map(|(index, (_, place))| match &*place.rules {
            L7Rules::Http(rules) => rules.get(place.nth).map(|rule| (rule, index)),
            L7Rules::Kafka(_) | L7Rules::Dns(_) | L7Rules::Tls(_) => None,
        });
        let rules = HttpRuleSet::new(rules);
        Self { has_effects: rules.has_effects(), rules, places, last, looks, by_admin }
    }

    /// Decides about one request.
    #[must_use]
    pub fn decide(&self, request: &HttpRequest<'_>, secrets: &dyn Secrets) -> Admitted {
        let mut matches = self.rules.matches(request, secrets);
        let Some((first, mut effects)) = matches.next() else {
            let (rule, allowed) = self.last.unwrap_or((RuleId::NONE, false));
            return Admitted { allowed, rule, part: None, effects: Effects::new() };
        };
        if self.has_effects {
            effects.extend(matches.flat_map(|(_, effects)| effects));
        }
        let place = self.places.get(first);
        Admitted {
            allowed: true,
            rule: place.map_or(RuleId::NONE, |(rule, _)| *rule),
            part: place.and_then(|(_, place)| place.part()),
            effects,
        }
    }
}

/// All that is decided about the HTTP requests of one connection that was handed to a proxy: as
/// [`crate::EndpointPolicy::judge`] does, without the table for packets.
#[derive(Clone, Debug)]
pub struct RequestJudge {
    /// `None`: no rule in force looks at requests of the direction, only one in audit mode does.
    enforced: Option<Admission>,
    staged: Option<Admission>,
    audit: bool,
}

impl RequestJudge {
    /// `staged` is the table with the policies in audit mode, if there are some that are about the direction; `audit`
    /// says that denials are only reported.
    #[must_use]
    pub fn new(enforced: &RequestTable, staged: Option<&RequestTable>, audit: bool, query: &Query) -> Self {
        let is_judged = enforced.iter().any(|(key, _)| key.direction == query.direction);
        let enforced = is_judged.then(|| Admission::new(enforced, query));
        // Where nobody looks at requests the packets were reported as they came. Of those that the rules in force have
        // looked into, the table for packets did not ask what the others would do.
        let looks = enforced.as_ref().is_some_and(|own| own.looks);
        let staged = staged.map(|table| Admission::new(table, query)).filter(|own| own.looks || looks);
        let is_final = enforced.as_ref().is_some_and(|own| own.by_admin);
        Self { staged: staged.filter(|_| !is_final), enforced, audit }
    }

    /// Decides about one request: [`Outcome::Allow`], [`Outcome::Audit`] or [`Outcome::Refuse`].
    #[must_use]
    pub fn judge(&self, request: &HttpRequest<'_>, secrets: &dyn Secrets) -> (Outcome, Admitted) {
        let admitted = match &self.enforced {
            Some(enforced) => enforced.decide(request, secrets),
            None => Admitted { allowed: true, rule: RuleId::NONE, part: None, effects: Effects::new() },
        };
        if !admitted.allowed {
            return (if self.audit { Outcome::Audit } else { Outcome::Refuse }, admitted);
        }
        match self.staged.as_ref().map(|staged| staged.decide(request, secrets)) {
            // What is done to the request is what the rules in force say.
            Some(told) if !told.allowed => (Outcome::Audit, Admitted { effects: admitted.effects, ..told }),
            Some(_) | None => (Outcome::Allow, admitted),
        }
    }
}

impl Place {
    fn part(&self) -> Option<String> {
        let L7Rules::Http(rules) = &*self.rules else { return None };
        let part = &rules.get(self.nth)?.part;
        Some(self.at.as_ref().map_or_else(|| part.clone(), |at| format!("{at}.{part}")))
    }
}
