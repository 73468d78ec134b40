//! One attempt of the demo: who, where to, and how it must end.

use std::net::{IpAddr, SocketAddr};

use sluice_flow::{Flow, FlowVerdict};
use sluice_types::{Direction, DropReason};

use crate::traffic::Outcome;

/// Who tries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Who {
    /// A pod, `NAMESPACE/NAME`.
    Pod(&'static str),
    /// The node itself, as a kubelet's probe would.
    Node,
}

/// Whom it tries to reach.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// A pod, `NAMESPACE/NAME`.
    Pod(&'static str),
    /// Somebody outside: a name for people, and addresses.
    World(&'static str, &'static [&'static str]),
}

impl Target {
    /// What people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pod(name) | Self::World(name, _) => name,
        }
    }
}

/// How it must end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Want {
    /// The answer comes. If a policy is named, the kernel must name it too.
    Answer { by: Option<&'static str> },
    /// It is dropped: where, why, and by which policy.
    Drop { at: Direction, reason: DropReason, by: &'static str },
    /// The request is answered with this status, and the proxy names the policy.
    Status { status: u16, by: &'static str },
    /// The answer comes, and the kernel reports what would have been dropped.
    Audit { at: Direction, by: &'static str },
}

/// The status of a request that a policy denies.
pub(super) const DENIED: u16 = 403;

/// One line of the story.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) who: Who,
    pub(super) target: Target,
    pub(super) port: u16,
    /// An HTTP request, `GET /path`, instead of a plain question.
    pub(super) request: Option<&'static str>,
    pub(super) want: Want,
}

/// Over one address family: what the client saw, and what the kernel said.
#[derive(Clone, Debug)]
pub(super) struct Try {
    pub(super) target: SocketAddr,
    pub(super) outcome: Outcome,
    pub(super) flow: Option<Flow>,
}

impl Try {
    /// `IPv4` or `IPv6`.
    pub(super) fn family(&self) -> &'static str {
        if self.target.is_ipv4() { "IPv4" } else { "IPv6" }
    }

    /// What is wrong, if it did not end as wanted.
    pub(super) fn complaint(&self, want: Want) -> Option<String> {
        let answered = matches!(self.outcome, Outcome::Answered { .. });
        let family = self.family();
        match want {
            Want::Answer { .. } | Want::Audit { .. } if !answered => {
                return Some(format!("{family}: an answer was expected, but {}", shown(&self.outcome)));
            }
            Want::Drop { .. } if self.outcome != Outcome::Silence => {
                return Some(format!("{family}: silence was expected, but {}", shown(&self.outcome)));
            }
            Want::Status { status, .. } if !matches!(self.outcome, Outcome::Status { status: got, .. } if got == status) =>
            {
                return Some(format!("{family}: HTTP {status} was expected, but {}", shown(&self.outcome)));
            }
            Want::Answer { .. } | Want::Drop { .. } | Want::Audit { .. } | Want::Status { .. } => {}
        }
        let Some(flow) = &self.flow else {
            let needs_word = !matches!(want, Want::Answer { by: None });
            return needs_word.then(|| format!("{family}: the kernel reported nothing about it"));
        };
        self.wrong_word(flow, want)
    }

    fn wrong_word(&self, flow: &Flow, want: Want) -> Option<String> {
        let names = |by: &str| flow.policies.iter().any(|origin| origin.policy == by);
        let right = match want {
            Want::Answer { by } => by.is_none_or(names),
            Want::Drop { at, reason, by } => {
                flow.direction == at && flow.drop_reason == Some(reason) && names(by)
            }
            Want::Audit { at, by } => flow.direction == at && names(by),
            Want::Status { status, by } => {
                names(by) && flow.http.as_ref().is_some_and(|http| http.status == Some(status))
            }
        };
        (!right).then(|| format!("{}: the kernel says otherwise: {flow}", self.family()))
    }
}

impl Want {
    /// The verdict that the kernel must report.
    pub(super) fn verdict(self) -> FlowVerdict {
        match self {
            Self::Answer { .. } => FlowVerdict::Forwarded,
            Self::Drop { .. } => FlowVerdict::Dropped,
            Self::Audit { .. } => FlowVerdict::Audit,
            Self::Status { status, .. } if status == DENIED => FlowVerdict::Dropped,
            Self::Status { .. } => FlowVerdict::Forwarded,
        }
    }

    /// Whether a report is about this: the right verdict, and the policy that is asked for, if one is.
    pub(super) fn is_told_by(self, flow: &Flow, target: SocketAddr) -> bool {
        let named = |by: &str| flow.policies.iter().any(|origin| origin.policy == by);
        flow.verdict == self.verdict()
            && !flow.is_reply
            && flow.destination.port == target.port()
            && flow.destination.ip.parse::<IpAddr>().is_ok_and(|ip| ip == target.ip())
            && match self {
                Self::Answer { by } => by.is_none_or(named),
                Self::Drop { .. } | Self::Audit { .. } => true,
                Self::Status { .. } => flow.http.is_some(),
            }
    }
}

fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Answered { name, .. } => format!("{name} answered"),
        Outcome::Status { status, .. } => format!("the answer was HTTP {status}"),
        Outcome::Silence => "there was silence".to_owned(),
        Outcome::Refused => "the port was refused".to_owned(),
        Outcome::Failed(reason) => format!("it failed: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_flow::PolicyOrigin;
    use std::time::Duration;

    fn flow(verdict: FlowVerdict, reason: Option<DropReason>, policy: &str) -> Flow {
        Flow {
            time_unix_ns: 0,
            verdict,
            drop_reason: reason,
            direction: Direction::Ingress,
            endpoint: 1,
            source: sluice_flow::FlowEnd::default(),
            destination: sluice_flow::FlowEnd { ip: "10.0.0.1".into(), port: 80, ..Default::default() },
            l4: sluice_flow::L4::default(),
            is_reply: false,
            policies: vec![PolicyOrigin { policy: policy.into(), rule: String::new() }],
            revision: 1,
            length: 60,
            lost: 0,
            ifindex: 1,
            http: None,
        }
    }

    #[test]
    fn only_what_was_expected_passes() {
        let deny = Want::Drop { at: Direction::Ingress, reason: DropReason::PolicyDenied, by: "cnp/a/b" };
        let allow = Want::Answer { by: Some("cnp/a/b") };
        let answered = Outcome::Answered { name: "x".into(), took: Duration::ZERO };
        let dropped = |reason, policy| Some(flow(FlowVerdict::Dropped, Some(reason), policy));
        let passed = |policy| Some(flow(FlowVerdict::Forwarded, None, policy));
        let refused = Want::Status { status: DENIED, by: "cnp/a/b" };
        let status = |status| Outcome::Status { status, took: Duration::ZERO };
        let told = |status, policy| {
            let http = sluice_flow::HttpRecord {
                flow: "1-1".into(),
                method: "GET".into(),
                path: "/".into(),
                authority: "a".into(),
                status: Some(status),
                latency_ns: 1,
            };
            Some(Flow { http: Some(http), ..flow(FlowVerdict::Dropped, None, policy) })
        };
        let cases = [
            ("dropped as wanted", deny, Outcome::Silence, dropped(DropReason::PolicyDenied, "cnp/a/b"), true),
            ("leaked", deny, answered.clone(), dropped(DropReason::PolicyDenied, "cnp/a/b"), false),
            ("refused, so it arrived", deny, Outcome::Refused, None, false),
            ("silent without a word", deny, Outcome::Silence, None, false),
            ("another reason", deny, Outcome::Silence, dropped(DropReason::PolicyDeny, "cnp/a/b"), false),
            ("another policy", deny, Outcome::Silence, dropped(DropReason::PolicyDenied, "cnp/a/c"), false),
            ("answered as wanted", allow, answered.clone(), passed("cnp/a/b"), true),
            ("answered by another rule", allow, answered.clone(), passed("cnp/a/c"), false),
            ("silence", allow, Outcome::Silence, passed("cnp/a/b"), false),
            ("no rule needed", Want::Answer { by: None }, answered.clone(), None, true),
            ("refused as wanted", refused, status(403), told(403, "cnp/a/b"), true),
            ("not refused", refused, status(200), told(403, "cnp/a/b"), false),
            ("refused by another policy", refused, status(403), told(403, "cnp/a/c"), false),
            ("refused, and reported otherwise", refused, status(403), told(200, "cnp/a/b"), false),
            ("refused, and only packets reported", refused, status(403), passed("cnp/a/b"), false),
            ("no request at all", refused, answered, told(403, "cnp/a/b"), false),
        ];
        for (name, want, outcome, flow, good) in cases {
            let attempt = Try { target: "10.0.0.1:80".parse().unwrap(), outcome, flow };
            assert_eq!(attempt.complaint(want).is_none(), good, "{name}");
        }
    }
}
