//! The smallest change of policy that lets a denied flow pass.
//!
//! A proposal is tried out on the cluster before it is named: the side that denied must allow afterwards, and what
//! else opens is known. A rule that almost allows the flow is extended if that opens nothing else; otherwise a policy
//! of its own allows just this. Only the engine judges; nothing here knows what a rule means.

mod extend;
mod policy;
mod words;

use std::{collections::BTreeSet, fmt};

use serde_json::Value;
use sluice_api::read_manifests;
use sluice_policy::{Outcome, PolicyKind, PolicyRef, RuleOrigin, explain::Explanation, rule::Tier};
use sluice_types::{Direction, Protocol};

use crate::{
    cluster::Cluster,
    flow::{Flow, FlowPort, FlowRequest, HttpCall},
    trace::{Side, Trace, TraceError, Word},
};

/// With how many others a proposal is tried.
const TRIED_MAX: usize = 256;
/// How many ports are tried with each of them.
const PORTS_MAX: usize = 16;
/// A port that no rule is likely to name: stands for all others.
const OTHER_PORT: u16 = 64_999;

/// What has to change on one side so that a flow passes there.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The side that denies.
    pub direction: Direction,
    /// Whose policy it is.
    pub subject: String,
    /// What to do.
    pub step: Step,
    /// Whether a proxy judges each request of the connection afterwards, by rules that stand there.
    pub is_filtered: bool,
    /// What else it opens between those that are known; at most a few hundred are tried.
    pub opens: Vec<Opened>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Put one more element at the end of a list of a policy.
    Extend {
        /// The policy.
        policy: PolicyRef,
        /// Where the list stands in the object, `spec.ingress[0].toPorts[0].rules.http`.
        list: String,
        /// The element.
        element: Value,
    },
    /// Create a policy.
    Create {
        /// Its name.
        policy: PolicyRef,
        /// The whole object.
        object: Value,
    },
    /// A rule denies, and no other can allow what it denies: it must go, or leave this out.
    Except(RuleOrigin),
    /// No policy that could be tried allows it.
    Nothing,
}

/// A connection that a change opens beside the one that was asked about.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Opened {
    /// Who sends.
    pub from: String,
    /// Who receives.
    pub to: String,
    /// The port, or the type of ICMP.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} {}/{}", self.from, self.to, self.port, self.protocol)
    }
}

/// A proposal before it is tried.
struct Proposal {
    step: Step,
    policy: PolicyRef,
    object: Value,
}

/// How far a flow passes: a connection whose requests a proxy judges is less than one that simply passes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Openness {
    Closed,
    Filtered,
    Open,
}

/// What a trial showed.
struct Trial {
    reaches: Openness,
    opens: Vec<Opened>,
    closes: bool,
}

impl Trial {
    const FAILED: Self = Self { reaches: Openness::Closed, opens: Vec::new(), closes: false };

    /// Whether the flow passes and nobody lost anything.
    fn passes(&self) -> bool {
        self.reaches > Openness::Closed && !self.closes
    }
}

impl Cluster {
    /// What has to change on each side that denies a flow, or would without audit mode. Empty if it passes.
    ///
    /// Proposals are tried on this cluster and taken back.
    ///
    /// # Errors
    /// As for [`Cluster::trace`].
    pub fn changes(&mut self, flow: &Flow) -> Result<Vec<Change>, TraceError> {
        self.changes_by(flow, true)
    }

    /// The same with policies of their own alone: what exists stays as it is.
    ///
    /// # Errors
    /// As for [`Cluster::trace`].
    pub fn new_policies(&mut self, flow: &Flow) -> Result<Vec<Change>, TraceError> {
        self.changes_by(flow, false)
    }

    fn changes_by(&mut self, flow: &Flow, may_extend: bool) -> Result<Vec<Change>, TraceError> {
        let trace = self.trace(flow)?;
        let flow = Flow { port: FlowPort::Number(trace.port), ..flow.clone() };
        let denying: Vec<Side> = trace.sides().filter(|side| side.word != Word::Allow).cloned().collect();
        Ok(denying.iter().map(|side| self.change(&flow, trace.port, side, may_extend)).collect())
    }

    fn change(&mut self, flow: &Flow, port: u16, side: &Side, may_extend: bool) -> Change {
        let direction = side.explanation.direction;
        let with = |step, trial: Trial| Change {
            direction,
            subject: side.subject.clone(),
            step,
            is_filtered: trial.reaches == Openness::Filtered,
            opens: trial.opens,
        };
        if let Some(rule) = blocking(&side.explanation) {
            return with(Step::Except(rule.clone()), Trial::FAILED);
        }
        let extensions = if may_extend { self.extensions(flow, port, side) } else { Vec::new() };
        for proposal in extensions {
            let trial = self.attempt(flow, port, direction, &proposal);
            if trial.passes() && trial.opens.is_empty() {
                return with(proposal.step, trial);
            }
        }
        for proposal in self.policies_for(flow, port, side) {
            let trial = self.attempt(flow, port, direction, &proposal);
            if trial.passes() {
                return with(proposal.step, trial);
            }
        }
        with(Step::Nothing, Trial::FAILED)
    }

    /// Puts a proposal in force, looks, and takes it back.
    fn attempt(&mut self, flow: &Flow, port: u16, direction: Direction, proposal: &Proposal) -> Trial {
        let probes = self.probes(flow, port, direction, &proposal.object);
        let before: Vec<Option<Openness>> = probes.iter().map(|probe| self.open(probe, direction)).collect();
        let Some(object) =
            read_manifests(&proposal.object.to_string()).pop().and_then(|read| read.content.ok())
        else {
            return Trial::FAILED;
        };
        let original = self.policies.get(&proposal.policy).cloned();
        if self.apply(&object).is_err() {
            return Trial::FAILED;
        }
        let reaches = self.open(flow, direction).unwrap_or(Openness::Closed);
        let after: Vec<Option<Openness>> = probes.iter().map(|probe| self.open(probe, direction)).collect();
        match original {
            // It was in force a moment ago, so nothing is wrong with it.
            Some(original) => drop(self.apply(&original)),
            None => self.remove_policy(&proposal.policy),
        }
        let mut opens = BTreeSet::new();
        let mut closes = false;
        for (probe, (before, after)) in probes.into_iter().zip(before.into_iter().zip(after)) {
            closes |= after < before;
            if after > before
                && let FlowPort::Number(port) = probe.port
            {
                opens.insert(Opened { from: probe.from, to: probe.to, port, protocol: probe.protocol });
            }
        }
        Trial { reaches, opens: opens.into_iter().collect(), closes }
    }

    /// How far one side lets a flow pass; none if it is not judged there.
    fn open(&mut self, flow: &Flow, direction: Direction) -> Option<Openness> {
        match self.outcome(flow, direction)? {
            Outcome::Allow => Some(Openness::Open),
            Outcome::Deny(_) | Outcome::Refuse | Outcome::Audit => Some(Openness::Closed),
            Outcome::Depends => {
                let unlikely = HttpCall { method: "-".into(), path: "/-".into(), ..HttpCall::default() };
                let flow = Flow { request: Some(FlowRequest::Http(unlikely)), ..flow.clone() };
                let is_open = self.outcome(&flow, direction)? == Outcome::Allow;
                Some(if is_open { Openness::Open } else { Openness::Filtered })
            }
        }
    }

    fn outcome(&mut self, flow: &Flow, direction: Direction) -> Option<Outcome> {
        let trace = self.trace(flow).ok()?;
        side(&trace, direction).map(|side| side.explanation.outcome)
    }

    /// Flows that a proposal should leave as they are: of other senders and receivers, and on other ports.
    fn probes(&mut self, flow: &Flow, port: u16, direction: Direction, object: &Value) -> Vec<Flow> {
        let Ok(trace) = self.trace(flow) else { return Vec::new() };
        let mut ports = BTreeSet::from([OTHER_PORT]);
        words::ports(object, &mut ports);
        ports.remove(&port);
        let ports: Vec<u16> = [port].into_iter().chain(ports.into_iter().take(PORTS_MAX)).collect();
        let others: Vec<(String, sluice_types::Identity)> =
            self.known.iter().map(|(name, known)| (name.clone(), known.identity)).take(TRIED_MAX).collect();
        let mut ends: Vec<(String, String)> = Vec::new();
        for (name, identity) in others {
            if identity != trace.identities.0 && name != flow.to {
                ends.push((name.clone(), flow.to.clone()));
            }
            if identity != trace.identities.1 && name != flow.from {
                ends.push((flow.from.clone(), name));
            }
        }
        let plain = |from: &str, to: &str, port| Flow {
            from: from.to_owned(),
            to: to.to_owned(),
            port: FlowPort::Number(port),
            protocol: flow.protocol,
            request: None,
        };
        let of_others =
            ends.iter().flat_map(|(from, to)| ports.iter().map(move |port| plain(from, to, *port)));
        let own = ports.iter().skip(1).map(|port| plain(&flow.from, &flow.to, *port));
        let asked = flow.request.as_ref().map(|_| {
            ends.iter().map(|(from, to)| Flow { request: flow.request.clone(), ..plain(from, to, port) })
        });
        let mut all: Vec<Flow> = of_others.chain(own).collect();
        all.extend(asked.into_iter().flatten());
        all.retain(|probe| {
            self.known
                .get(match direction {
                    Direction::Egress => &probe.from,
                    Direction::Ingress => &probe.to,
                })
                .is_some_and(|known| known.subject.is_some())
        });
        all
    }
}

/// The rule that denies so that nothing can allow it: one of the normal tier or before.
fn blocking(explanation: &Explanation) -> Option<&RuleOrigin> {
    let rule = explanation.rule.as_ref()?;
    match explanation.tier {
        Some(Tier::Admin | Tier::Normal) => Some(rule),
        Some(Tier::Baseline | Tier::Default) | None => None,
    }
}

/// One side of a trace.
fn side(trace: &Trace, direction: Direction) -> Option<&Side> {
    match direction {
        Direction::Egress => trace.egress.as_ref(),
        Direction::Ingress => trace.ingress.as_ref(),
    }
}

/// The name at the other side of a flow.
fn peer_of(flow: &Flow, direction: Direction) -> &str {
    match direction {
        Direction::Egress => &flow.to,
        Direction::Ingress => &flow.from,
    }
}

/// Whether a policy of this kind speaks Cilium's language.
const fn is_cilium(kind: PolicyKind) -> bool {
    matches!(kind, PolicyKind::Cnp | PolicyKind::Ccnp)
}

#[cfg(test)]
mod tests;
