//! What must have come of a question, compared with what did: at both ends of the wire and in the agent's reports.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::agent::{Flow, Monitor};
use crate::case::{Ask, Expect, Verdict};
use crate::echo::Arrivals;
use crate::node::Node;
use crate::probe::{Answer, Outcome, Protocol, Question};
use crate::topology::{Subject, Topology};

/// An answer that must come may take this long on a busy machine.
pub(crate) const ALLOW_PATIENCE: Duration = Duration::from_secs(3);
/// One that must not come is waited for this long.
const DENY_PATIENCE: Duration = Duration::from_millis(300);
/// An event must be reported within this time after the packet.
pub(crate) const EVENT_PATIENCE: Duration = Duration::from_secs(1);

/// How long to wait for an answer.
pub(crate) fn patience(expect: &Expect) -> Duration {
    if expect.verdict == Verdict::Deny { DENY_PATIENCE } else { ALLOW_PATIENCE }
}

/// One question per address family that both ends have.
pub(crate) fn questions(node: &Node, topology: &Topology, ask: &Ask) -> Result<Vec<Question>> {
    let own: Vec<IpAddr> = node.addresses_of(&ask.from, topology)?;
    let mut questions = Vec::new();
    for target in node.addresses_of(&ask.to, topology)? {
        let family = if target.is_ipv4() { 4 } else { 6 };
        let source = own.iter().copied().find(|own| own.is_ipv4() == target.is_ipv4());
        if source.is_none() || ask.expect.family.is_some_and(|wanted| wanted != family) {
            continue;
        }
        // The node's kernel chooses as it does for its own programs; the world has many addresses.
        let source = source.filter(|_| matches!(ask.from, Subject::World(_)));
        questions.push(Question {
            protocol: ask.protocol,
            source,
            target,
            port: ask.port,
            len: ask.len,
            patience: patience(&ask.expect),
        });
    }
    ensure!(!questions.is_empty(), "{ask}: the two share no address family");
    Ok(questions)
}

/// A question that was asked.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// What messages call it.
    pub(crate) shown: String,
    /// Over what.
    pub(crate) protocol: Protocol,
    /// To whom; without a port for ICMP.
    pub(crate) target: SocketAddr,
    /// From where, if that is known.
    pub(crate) source: Option<SocketAddr>,
    /// What must come of it.
    pub(crate) expect: &'a Expect,
    /// Whether somebody may look for a request in it.
    pub(crate) is_looked_into: bool,
    /// Whom the target must see.
    pub(crate) seen_as: Option<Vec<IpAddr>>,
    /// Whether its denial is only counted, as that of one of many.
    pub(crate) is_counted: bool,
}

/// What came of comparing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Finding {
    /// As it must be, with the report that belongs to it.
    Right,
    /// As it must be; a drop must show in the counters.
    MustBeCounted,
    /// As it must be at both ends, but the agent reported nothing about it.
    Unreported(String),
    /// Not as it must be.
    Wrong(String),
}

impl Asked<'_> {
    /// Compares.
    pub(crate) fn judge(&self, monitor: &Monitor, arrivals: &Arrivals, outcome: &Outcome) -> Finding {
        if let Some(wrong) = self.wrong_at_the_ends(arrivals, outcome) {
            let Self { shown, expect, .. } = self;
            return Finding::Wrong(format!("{shown}: expected {expect}: {wrong}; {}", self.reports(monitor)));
        }
        let verdict = match self.expect.verdict {
            Verdict::Deny if self.is_counted => return Finding::MustBeCounted,
            Verdict::Deny | Verdict::L7Deny => "DROPPED",
            Verdict::Audit => "AUDIT",
            Verdict::Allow if !self.expect.by.is_empty() => "FORWARDED",
            Verdict::Allow | Verdict::Refused => return Finding::Right,
        };
        if monitor.wait_for(EVENT_PATIENCE, |flow| self.is_reported(verdict, flow)).is_some() {
            return Finding::Right;
        }
        let text = format!(
            "{}: {} came, but was not reported so: {}",
            self.shown,
            self.expect,
            self.reports(monitor)
        );
        if monitor.flows(|flow| self.is_about(flow)).is_empty() {
            Finding::Unreported(text)
        } else {
            Finding::Wrong(text)
        }
    }

    /// What is wrong with what asker and target saw.
    fn wrong_at_the_ends(&self, arrivals: &Arrivals, outcome: &Outcome) -> Option<String> {
        match (self.expect.verdict, &outcome.answer) {
            (Verdict::Allow | Verdict::Audit, Answer::Echoed(seen)) => match (&self.seen_as, seen) {
                (Some(wanted), Some(seen)) if !wanted.contains(seen) => {
                    Some(format!("the target saw {seen}, not {wanted:?}"))
                }
                _ => None,
            },
            (Verdict::Allow | Verdict::Audit, Answer::NoRequest) if self.is_looked_into => None,
            (Verdict::Refused, Answer::Refused) => None,
            (Verdict::Deny, Answer::Silent) | (Verdict::L7Deny, Answer::Forbidden) => {
                let heard = "the target did not answer, but heard the question";
                arrivals.contains(outcome.token).then(|| heard.to_owned())
            }
            (_, Answer::Forbidden) => Some("the request was refused".to_owned()),
            (_, Answer::NoRequest) => Some("somebody looked for a request".to_owned()),
            (_, Answer::Echoed(_)) => Some(format!("answered after {:?}", outcome.took)),
            (_, Answer::Silent) => Some(format!("no answer within {:?}", outcome.took)),
            (_, Answer::Refused) => Some("the target says that nobody listens".to_owned()),
            (_, Answer::Failed(why)) => Some(why.clone()),
        }
    }

    fn is_about(&self, flow: &Flow) -> bool {
        self.source.is_some_and(|mut source| {
            if self.protocol == Protocol::Icmp {
                source.set_port(0);
            }
            flow.is_about(self.protocol.as_str(), source, self.target)
        })
    }

    fn is_reported(&self, verdict: &str, flow: &Flow) -> bool {
        let Expect { at, reason, by, .. } = self.expect;
        self.is_about(flow)
            && flow.verdict == verdict
            && (self.expect.verdict != Verdict::L7Deny || flow.http.is_some())
            && at.as_ref().is_none_or(|side| flow.direction == *side)
            && reason.as_ref().is_none_or(|reason| flow.drop_reason.as_ref() == Some(reason))
            && by.iter().all(|policy| flow.policies.iter().any(|origin| origin.policy == *policy))
    }

    fn reports(&self, monitor: &Monitor) -> String {
        let flows = monitor.flows(|flow| self.is_about(flow));
        let lines: Vec<String> = flows.iter().map(ToString::to_string).collect();
        if lines.is_empty() {
            "the agent reported nothing".to_owned()
        } else {
            format!("the agent reported {}", lines.join("; "))
        }
    }
}

/// Drops by pod, direction and reason.
pub(crate) type Drops = BTreeMap<(String, String, String), u64>;

/// How many packets policy denied between the two.
pub(crate) fn denied_between(before: &Drops, after: &Drops) -> u64 {
    let sum = |drops: &Drops| -> u64 {
        drops.iter().filter(|((_, _, reason), _)| reason.starts_with("POLICY_DEN")).map(|(_, n)| *n).sum()
    };
    sum(after).saturating_sub(sum(before))
}
