//! What a table says about the HTTP requests of one connection, compiled: five hundred rules cost what one costs.

use std::sync::Arc;

use sluice_types::RuleId;

use super::{RequestTable, Says, Slot};
use crate::l7::{Effects, HttpRequest, HttpRuleSet, L7Rules, Secrets};
use crate::map_state::Query;

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
        let (mut places, mut last) = (Vec::new(), None);
        for Slot { rule, says, .. } in table.slots(query) {
            match says {
                Says::Requests { rules, at } => {
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
        Self { has_effects: rules.has_effects(), rules, places, last }
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

impl Place {
    fn part(&self) -> Option<String> {
        let L7Rules::Http(rules) = &*self.rules else { return None };
        let part = &rules.get(self.nth)?.part;
        Some(self.at.as_ref().map_or_else(|| part.clone(), |at| format!("{at}.{part}")))
    }
}
