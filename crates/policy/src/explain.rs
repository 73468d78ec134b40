//! Why a packet passes or not, in the words of the policies.

use std::fmt;

use sluice_types::{Direction, Verdict};

use crate::{
    map_state::{Decision, Query},
    repository::{EndpointPolicy, Repository},
    rule::{PolicyRef, RuleOrigin},
};

/// A decision with what it rests on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Explanation {
    /// The direction that was asked about.
    pub direction: Direction,
    /// The decision.
    pub decision: Decision,
    /// The rule that decided, if one did.
    pub rule: Option<RuleOrigin>,
    /// The policies because of which everything that no rule allows is denied.
    pub isolated_by: Vec<PolicyRef>,
}

impl Repository {
    /// Decides about a packet under an endpoint's policy, and says why.
    #[must_use]
    pub fn explain(&self, policy: &EndpointPolicy, query: &Query) -> Explanation {
        let decision = policy.map_state.decide(query);
        let state = match query.direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        Explanation {
            direction: query.direction,
            decision,
            rule: self.rule(decision.rule).cloned(),
            isolated_by: state.isolated_by.clone(),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decision.verdict {
            Verdict::Allow => f.write_str("allowed")?,
            Verdict::Deny(reason) => write!(f, "denied: {}", reason.description())?,
            Verdict::Audit(reason) => write!(f, "would be denied: {}", reason.description())?,
            Verdict::Redirect(port) => write!(f, "handed to the proxy on port {}", port.0)?,
        }
        if let Some(rule) = &self.rule {
            return write!(f, " by {rule}");
        }
        let denied = matches!(self.decision.verdict, Verdict::Deny(_) | Verdict::Audit(_));
        if denied && !self.isolated_by.is_empty() {
            let policies: Vec<String> = self.isolated_by.iter().map(PolicyRef::to_string).collect();
            write!(f, "; {} is closed by {}", self.direction, policies.join(", "))?;
        }
        Ok(())
    }
}
