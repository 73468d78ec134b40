//! The answer as programs read it: the shape that `docs/trace.md` describes.

use serde::Serialize;
use serde_json::Value;

use sluice_model::{Change, Cluster, Flow, FlowRequest, Side, Step, Trace};
use sluice_policy::{Outcome, PolicyRef};
use sluice_types::Direction;

use super::source::Sources;
use crate::args::Format;
use crate::failure::Failure;
use crate::output::Output;

/// One flow with what happens to it.
#[derive(Debug)]
pub(in crate::command) struct Answer {
    pub(in crate::command) flow: Flow,
    pub(in crate::command) trace: Trace,
    /// What would allow it: the smallest change of each side that denies.
    pub(super) changes: Vec<Change>,
    /// The same with policies of their own.
    pub(super) policies: Vec<Change>,
}

impl Answer {
    /// Asks the cluster.
    pub(in crate::command) fn new(flow: &Flow, cluster: &mut Cluster) -> Result<Self, Failure> {
        let refused = |error: sluice_model::TraceError| Failure::not_found(error.to_string());
        let trace = cluster.trace(flow).map_err(refused)?;
        let changes = cluster.changes(flow).map_err(refused)?;
        let policies = cluster.new_policies(flow).map_err(refused)?;
        Ok(Self { flow: flow.clone(), trace, changes, policies })
    }
}

/// Everything that is printed.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Report {
    One(Box<Traced>),
    Service(Behind),
}

/// A Service with what happens at each end it leads to.
#[derive(Debug, Serialize)]
pub(super) struct Behind {
    pub(super) service: String,
    pub(super) verdict: &'static str,
    pub(super) backends: Vec<Traced>,
}

/// What happens to one flow.
#[derive(Debug, Serialize)]
pub(super) struct Traced {
    flow: FlowShown,
    pub(super) verdict: &'static str,
    at: Option<&'static str>,
    by: Vec<String>,
    egress: Option<SideShown>,
    ingress: Option<SideShown>,
    change: Vec<ChangeShown>,
}

#[derive(Debug, Serialize)]
struct FlowShown {
    from: String,
    to: String,
    port: u16,
    protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SideShown {
    subject: String,
    identity: u32,
    peer_identity: u32,
    enforced: bool,
    isolated_by: Vec<String>,
    verdict: &'static str,
    reason: String,
    rule: Option<RuleShown>,
    parts: Vec<String>,
    nearest: Vec<NearShown>,
}

#[derive(Debug, Serialize)]
struct RuleShown {
    policy: String,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

#[derive(Debug, Serialize)]
struct NearShown {
    rule: RuleShown,
    obstacles: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ChangeShown {
    side: &'static str,
    subject: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<RuleShown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    add: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    create: Option<Value>,
    filtered: bool,
    opens: Vec<String>,
}

impl Report {
    /// `service` is the Service that was named as receiver.
    pub(super) fn new(service: Option<String>, answers: &[Answer], sources: &Sources<'_>) -> Self {
        let mut traced: Vec<Traced> = answers.iter().map(|answer| Traced::new(answer, sources)).collect();
        match (service, traced.pop()) {
            (None, Some(only)) if traced.is_empty() => Self::One(Box::new(only)),
            (service, last) => {
                traced.extend(last);
                let denied = answers.iter().map(|answer| answer.trace.word()).find(|word| !word.passes());
                let verdict = denied.map_or("allow", |word| word.as_str());
                Self::Service(Behind { service: service.unwrap_or_default(), verdict, backends: traced })
            }
        }
    }

    pub(super) fn print(&self, format: Format, output: &mut Output) -> Result<(), Failure> {
        output.print_value(format, self)
    }
}

impl Traced {
    fn new(answer: &Answer, sources: &Sources<'_>) -> Self {
        let Answer { flow, trace, changes, .. } = answer;
        let (from, to) = (trace.identities.0.as_u32(), trace.identities.1.as_u32());
        Self {
            flow: FlowShown {
                from: flow.from.clone(),
                to: flow.to.clone(),
                port: trace.port,
                protocol: flow.protocol.to_string(),
                request: flow.request.as_ref().map(request_text),
            },
            verdict: trace.word().as_str(),
            at: trace.at().map(Direction::as_str),
            by: names(&trace.by()),
            egress: trace.egress.as_ref().map(|side| SideShown::new(side, (from, to), sources)),
            ingress: trace.ingress.as_ref().map(|side| SideShown::new(side, (to, from), sources)),
            change: changes.iter().map(|change| ChangeShown::new(change, sources)).collect(),
        }
    }
}

impl SideShown {
    fn new(side: &Side, (identity, peer_identity): (u32, u32), sources: &Sources<'_>) -> Self {
        let explanation = &side.explanation;
        let parts = explanation.request.iter().flat_map(|request| &request.parts);
        let near = explanation.nearest.iter().map(|miss| NearShown {
            rule: RuleShown::new(&miss.rule.policy, &miss.rule.path, sources),
            obstacles: miss.obstacles.iter().map(ToString::to_string).collect(),
        });
        Self {
            subject: side.subject.clone(),
            identity,
            peer_identity,
            enforced: explanation.enforced,
            isolated_by: names(&explanation.isolated_by),
            verdict: side.word.as_str(),
            reason: reason(side),
            rule: explanation.rule.as_ref().map(|rule| RuleShown::new(&rule.policy, &rule.path, sources)),
            parts: parts.map(|(_, part)| part.clone()).collect(),
            nearest: near.collect(),
        }
    }
}

impl RuleShown {
    fn new(policy: &PolicyRef, path: &str, sources: &Sources<'_>) -> Self {
        let spot = sources.rule(policy, path);
        Self {
            policy: policy.to_string(),
            path: path.to_owned(),
            file: spot.as_ref().map(|spot| spot.file.to_owned()),
            line: spot.map(|spot| spot.line),
        }
    }
}

impl ChangeShown {
    fn new(change: &Change, sources: &Sources<'_>) -> Self {
        let (kind, rule, add, create) = match &change.step {
            Step::Extend { policy, list, element } => {
                let path = list.strip_prefix("spec.").unwrap_or(list);
                ("extend", Some(RuleShown::new(policy, path, sources)), Some(element.clone()), None)
            }
            Step::Create { object, .. } => ("create", None, None, Some(object.clone())),
            Step::Except(rule) => {
                ("except", Some(RuleShown::new(&rule.policy, &rule.path, sources)), None, None)
            }
            Step::Nothing => ("none", None, None, None),
        };
        Self {
            side: change.direction.as_str(),
            subject: change.subject.clone(),
            kind,
            rule,
            add,
            create,
            filtered: change.is_filtered,
            opens: change.opens.iter().map(ToString::to_string).collect(),
        }
    }
}

fn names(policies: &[PolicyRef]) -> Vec<String> {
    policies.iter().map(ToString::to_string).collect()
}

/// Why a side does what it does, in one sentence.
pub(super) fn reason(side: &Side) -> String {
    let explanation = &side.explanation;
    let closed = || match explanation.isolated_by.as_slice() {
        [] => "enforcement is always".to_owned(),
        policies => format!("closed by {}", names(policies).join(", ")),
    };
    match (&explanation.outcome, &explanation.rule) {
        (Outcome::Allow | Outcome::Depends, None) if !explanation.enforced => {
            "no policy closes this direction".to_owned()
        }
        (Outcome::Allow, Some(rule)) => format!("allowed by {rule}"),
        (Outcome::Allow, None) => "allowed without a rule".to_owned(),
        (Outcome::Depends, Some(rule)) => format!("a proxy reads its requests: {rule}"),
        (Outcome::Depends, None) => "a proxy reads its requests".to_owned(),
        (Outcome::Deny(_) | Outcome::Refuse | Outcome::Audit, Some(rule)) => format!("denied by {rule}"),
        (Outcome::Refuse, None) => format!("{}; no rule names the request", closed()),
        (Outcome::Audit, None) => format!("{}; no rule allows it, audit mode lets it pass", closed()),
        (Outcome::Deny(_), None) => format!("{}; no rule allows it", closed()),
    }
}

/// The request in one line.
pub(super) fn request_text(request: &FlowRequest) -> String {
    match request {
        FlowRequest::Http(call) => format!("{} {}", call.method, call.path),
        FlowRequest::Kafka(call) => {
            let kind = sluice_policy::l7::kafka::api_name(call.api_key).unwrap_or("request");
            format!("Kafka {kind} {}", call.topics.join(",")).trim_end().to_owned()
        }
        FlowRequest::Dns(name) => format!("DNS {name}"),
        FlowRequest::Tls(name) => format!("TLS {}", name.as_deref().unwrap_or("without a name")),
    }
}
