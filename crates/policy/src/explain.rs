//! Why a packet or request passes or not, in the words of the policies.
//!
//! The verdict is the one of the endpoint's tables; what is added here is where it comes from, and, for a denial,
//! which rules came nearest and on what they failed. Nothing is decided here.

mod near;

use std::fmt;

use sluice_types::{Direction, DropReason, RuleId, Verdict};

pub use near::{NearMiss, Obstacle};

use crate::{
    l7::{Request, Secrets},
    map_state::{Decision, Query},
    repository::{DirectionState, EndpointPolicy, Repository},
    requests::RequestDecision,
    rule::{PolicyRef, RuleOrigin, Subject, Tier},
};

/// A request that is asked about, with the secrets that rules compare headers with.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The request.
    pub request: &'a Request<'a>,
    /// What secrets hold.
    pub secrets: &'a dyn Secrets,
}

impl fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("request", self.request).finish_non_exhaustive()
    }
}

/// What happens in the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It passes.
    Allow,
    /// The packet is dropped.
    Deny(DropReason),
    /// The request is refused by a proxy.
    Refuse,
    /// It passes, and is reported, because the endpoint or a policy is in audit mode. Without, it would be dropped or
    /// refused.
    Audit,
    /// A proxy decides, and no request was asked about.
    Depends,
}

/// A decision with what it rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The direction that was asked about.
    pub direction: Direction,
    /// What happens.
    pub outcome: Outcome,
    /// The decision about the packet.
    pub decision: Decision,
    /// The decision about the request, if there is one to take.
    pub request: Option<RequestDecision>,
    /// The rule that decided, if one did.
    pub rule: Option<RuleOrigin>,
    /// The tier of that rule.
    pub tier: Option<Tier>,
    /// Whether any policy decides about this direction.
    pub enforced: bool,
    /// The policies because of which everything that no rule allows is denied, or reported.
    pub isolated_by: Vec<PolicyRef>,
    /// It would be denied by policies in audit mode alone, and passes for that.
    pub is_staged: bool,
    /// For a denial: the rules that would have allowed it but for few obstacles, the nearest first.
    pub nearest: Vec<NearMiss>,
}

impl EndpointPolicy {
    /// How a direction is judged.
    #[must_use]
    pub const fn direction(&self, direction: Direction) -> &DirectionState {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// Decides about a packet and, where a proxy sees it, the request in it.
    #[must_use]
    pub fn judge(
        &self,
        query: &Query,
        asked: Option<Asked<'_>>,
    ) -> (Outcome, Decision, Option<RequestDecision>) {
        let (decision, is_final) = self.map_state.enforced(query);
        let (outcome, request) = self.outcome(query, &decision, asked);
        if is_final || outcome != Outcome::Allow {
            return (outcome, decision, request);
        }
        // It passes. What would be with the policies in audit mode?
        match (self.map_state.staged(query), asked) {
            (Some(staged), Some(asked)) if matches!(staged.verdict, Verdict::Redirect(_)) => {
                let told = self.staged_requests.decide(query, asked.request, asked.secrets);
                if told.allowed { (outcome, decision, request) } else { (Outcome::Audit, staged, Some(told)) }
            }
            (Some(staged), _) if matches!(staged.verdict, Verdict::Audit(_)) => {
                (Outcome::Audit, staged, None)
            }
            (Some(_) | None, _) => (outcome, decision, request),
        }
    }

    /// What becomes of traffic about whose packets was decided, without the policies in audit mode.
    fn outcome(
        &self,
        query: &Query,
        decision: &Decision,
        asked: Option<Asked<'_>>,
    ) -> (Outcome, Option<RequestDecision>) {
        let request = match (decision.verdict, asked) {
            (Verdict::Redirect(_), Some(asked)) => {
                Some(self.requests.decide(query, asked.request, asked.secrets))
            }
            (Verdict::Allow | Verdict::Deny(_) | Verdict::Audit(_) | Verdict::Redirect(_), _) => None,
        };
        let audit = self.map_state.audit(query.direction);
        let outcome = match (decision.verdict, &request) {
            (Verdict::Allow, _) => Outcome::Allow,
            (Verdict::Deny(reason), _) => Outcome::Deny(reason),
            (Verdict::Audit(_), _) => Outcome::Audit,
            (Verdict::Redirect(_), None) => Outcome::Depends,
            (Verdict::Redirect(_), Some(request)) if request.allowed => Outcome::Allow,
            (Verdict::Redirect(_), Some(_)) if audit => Outcome::Audit,
            (Verdict::Redirect(_), Some(_)) => Outcome::Refuse,
        };
        (outcome, request)
    }
}

impl Repository {
    /// Decides about traffic of `subject` under its policy, and says why.
    #[must_use]
    pub fn explain(
        &self,
        subject: &Subject,
        policy: &EndpointPolicy,
        query: &Query,
        asked: Option<Asked<'_>>,
    ) -> Explanation {
        let (outcome, decision, request) = policy.judge(query, asked);
        let id = request.as_ref().map_or(decision.rule, |request| request.rule);
        let state = policy.direction(query.direction);
        let is_denied = match outcome {
            Outcome::Deny(_) | Outcome::Refuse | Outcome::Audit => true,
            Outcome::Allow | Outcome::Depends => false,
        };
        let nearest = if is_denied && id == RuleId::NONE {
            self.near_misses(subject, query, request.as_ref())
        } else {
            Vec::new()
        };
        Explanation {
            direction: query.direction,
            outcome,
            decision,
            request,
            rule: self.rule(id).cloned(),
            tier: self.tier(id),
            enforced: state.enforced,
            isolated_by: match outcome {
                Outcome::Audit => state.reported_by().to_vec(),
                Outcome::Allow | Outcome::Deny(_) | Outcome::Refuse | Outcome::Depends => {
                    state.isolated_by.clone()
                }
            },
            is_staged: outcome == Outcome::Audit && !policy.map_state.audit(query.direction),
            nearest,
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decision.verdict {
            Verdict::Allow => f.write_str("allowed")?,
            Verdict::Deny(reason) => write!(f, "denied: {}", reason.description())?,
            Verdict::Audit(reason) => write!(f, "would be denied: {}", reason.description())?,
            Verdict::Redirect(_) => f.write_str(match self.outcome {
                Outcome::Allow => "allowed by a proxy",
                Outcome::Audit => "would be refused by a proxy",
                Outcome::Refuse | Outcome::Deny(_) => "refused by a proxy",
                Outcome::Depends => "handed to a proxy",
            })?,
        }
        if let Some(rule) = &self.rule {
            return write!(f, " by {rule}");
        }
        let open = matches!(self.outcome, Outcome::Allow | Outcome::Depends);
        if !open && !self.isolated_by.is_empty() {
            let policies: Vec<String> = self.isolated_by.iter().map(PolicyRef::to_string).collect();
            write!(f, "; {} is closed by {}", self.direction, policies.join(", "))?;
        }
        Ok(())
    }
}
