//! Runs one case on a node: makes what it needs, changes what a step changes, waits for the agent, asks, compares.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::agent::{Endpoint, Flow, PATIENCE, drops};
use crate::case::{Ask, Case, Expect, Policy, Step, Verdict};
use crate::clock;
use crate::echo::{Arrivals, Echo};
use crate::node::Node;
use crate::probe::{Answer, Conversation, Outcome, Protocol, Question, ask};
use crate::topology::{Labels, PodSpec, Subject, Topology};

/// An answer that must come may take this long on a busy machine.
const ALLOW_PATIENCE: Duration = Duration::from_secs(3);
/// One that must not come is waited for this long.
const DENY_PATIENCE: Duration = Duration::from_millis(300);
/// An event must be reported within this time after the packet.
const EVENT_PATIENCE: Duration = Duration::from_secs(1);

/// Runs a case. The node's pods are made to be those of the case's topology first.
///
/// # Errors
/// What did not hold, all of a step at once, or what could not be done.
pub fn run(node: &mut Node, case: &Case) -> Result<()> {
    let mut runner = Runner::new(node, case)?;
    let mut result = Ok(());
    for (nth, step) in case.steps.iter().enumerate() {
        result = runner.step(step).with_context(|| format!("step {}", nth + 1));
        if result.is_err() {
            break;
        }
    }
    drop(runner);
    let cleared = clear(node, case, result.is_ok());
    result.and(cleared)
}

/// Takes the case's policies away, and its pods if they are not those of the topology any more.
fn clear(node: &mut Node, case: &Case, is_clean: bool) -> Result<()> {
    for file in node.manifests()? {
        if file.starts_with("policy_") || file.starts_with("seeds_") {
            node.remove_manifest(&file)?;
        }
    }
    if !is_clean || !case.keeps_topology() {
        let pods: Vec<String> = node.pods().keys().cloned().collect();
        node.remove_pods(&pods)?;
    }
    Ok(())
}

/// Takes all pods and namespaces of the last topology away.
///
/// # Errors
/// The plugin's or the file system's.
pub fn clear_topology(node: &mut Node) -> Result<()> {
    let pods: Vec<String> = node.pods().keys().cloned().collect();
    node.remove_pods(&pods)?;
    for file in node.manifests()? {
        node.remove_manifest(&file)?;
    }
    Ok(())
}

struct Kept {
    conversation: Conversation,
    from: Subject,
    target: SocketAddr,
}

struct Runner<'a> {
    node: &'a mut Node,
    case: &'a Case,
    pods: BTreeMap<String, PodSpec>,
    namespaces: BTreeMap<String, Labels>,
    /// Policies that must be in force, by file.
    wanted: BTreeMap<String, Vec<Policy>>,
    refused: BTreeSet<String>,
    servers: BTreeMap<Subject, Echo>,
    arrivals: Arrivals,
    kept: BTreeMap<String, Vec<Kept>>,
}

impl<'a> Runner<'a> {
    fn new(node: &'a mut Node, case: &'a Case) -> Result<Self> {
        let mut runner = Self {
            node,
            case,
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            wanted: BTreeMap::new(),
            refused: BTreeSet::new(),
            servers: BTreeMap::new(),
            arrivals: Arrivals::default(),
            kept: BTreeMap::new(),
        };
        runner.node.extend_world(&case.topology)?;
        for (name, labels) in case.topology.all_namespaces() {
            runner.write_namespace(name, &labels)?;
        }
        runner.write_pods(&case.topology.pods)?;
        runner.serve()?;
        Ok(runner)
    }

    fn write_namespace(&mut self, name: &str, labels: &Labels) -> Result<()> {
        if self.namespaces.get(name) != Some(labels) {
            self.node.write_namespace(name, labels)?;
            self.namespaces.insert(name.to_owned(), labels.clone());
        }
        Ok(())
    }

    /// Writes pods' manifests, and brings those to life that do not run.
    fn write_pods(&mut self, pods: &BTreeMap<String, PodSpec>) -> Result<()> {
        for (name, spec) in pods {
            self.node.write_pod(name, spec)?;
            self.pods.insert(name.clone(), spec.clone());
        }
        let new: Vec<&str> =
            pods.keys().filter(|name| !self.node.pods().contains_key(*name)).map(String::as_str).collect();
        self.node.add_pods(new)
    }

    /// Starts the servers that are missing.
    fn serve(&mut self) -> Result<()> {
        for (subject, ports) in self.case.served() {
            let is_there = !matches!(&subject, Subject::Pod(name) if !self.node.pods().contains_key(name));
            if is_there && !self.servers.contains_key(&subject) {
                let addresses = self.node.addresses_of(&subject, &self.case.topology)?;
                let echo = Echo::start(self.node.netns_of(&subject)?, &addresses, &ports, &self.arrivals)
                    .with_context(|| format!("serving at {subject}"))?;
                self.servers.insert(subject, echo);
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        self.change(step)?;
        self.settle().context("waiting for the agent to enforce the change")?;
        let mut wrong = Vec::new();
        wrong.extend(self.check_refused(step)?);
        wrong.extend(self.check_enforcement(step)?);
        self.open(step)?;
        wrong.extend(self.ask_all(step)?);
        wrong.extend(self.speak_all(step)?);
        if let Some(broken) = self.node.monitor.broken() {
            wrong.push(format!("a line of the monitor is not a flow: {broken}"));
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }

    fn change(&mut self, step: &Step) -> Result<()> {
        for name in &step.remove {
            self.servers.remove(&Subject::Pod(name.clone()));
            self.pods.remove(name);
        }
        self.node.remove_pods(&step.remove)?;
        if step.kills_agent {
            self.node.agent.kill()?;
        }
        for (name, labels) in &step.namespaces {
            self.write_namespace(name, labels)?;
        }
        for file in &step.delete {
            ensure!(self.wanted.remove(file).is_some(), "{file} was not applied before");
            self.node.remove_manifest(file)?;
        }
        for (file, manifest) in &step.apply {
            self.node.write_manifest(file, &manifest.text)?;
            self.wanted.insert(file.clone(), manifest.policies.clone());
        }
        self.refused.extend(step.refused.keys().cloned());
        if step.kills_agent {
            self.node.agent.start_again(&self.node.netns)?;
            self.node.agent.wait_ready()?;
        }
        self.write_pods(&step.pods)?;
        for (pod, options) in &step.endpoints {
            let endpoint = self.endpoint(pod)?;
            self.node.agent.patch(&format!("/v1/endpoints/{}/config", endpoint.id), &json!(options))?;
        }
        self.serve()
    }

    fn endpoint(&self, pod: &str) -> Result<Endpoint> {
        let endpoints = self.node.agent.endpoints()?;
        endpoints
            .into_iter()
            .find(|endpoint| endpoint.pod() == pod)
            .with_context(|| format!("no endpoint of {pod}"))
    }

    /// Waits until the agent has taken in what was written, and the kernel enforces it.
    fn settle(&self) -> Result<()> {
        clock::wait_for("the agent's policies and endpoints", PATIENCE, || {
            let policies: Vec<Value> =
                self.node.agent.fetch("/v1/policies").map_err(|error| format!("{error:#}"))?;
            self.are_policies_known(&policies)?;
            let endpoints = self.node.agent.endpoints().map_err(|error| format!("{error:#}"))?;
            self.are_endpoints_ready(&endpoints)
        })
    }

    fn are_policies_known(&self, policies: &[Value]) -> Result<(), String> {
        let wanted: BTreeMap<&str, &Policy> = self
            .wanted
            .values()
            .flatten()
            .filter(|policy| !self.refused.contains(&policy.name))
            .map(|policy| (policy.name.as_str(), policy))
            .collect();
        let mut known = BTreeMap::new();
        for info in policies {
            known.insert(policy_name(info), info);
        }
        for (name, policy) in &wanted {
            let info = known.get(*name).ok_or_else(|| format!("{name} is not known: {}", self.problems()))?;
            if let Some(error) = info.get("error").filter(|error| !error.is_null()) {
                return Err(format!("{name} was refused: {error}"));
            }
            if !is_same(info.get("object").unwrap_or(&Value::Null), &policy.object) {
                return Err(format!("{name} is known in another version"));
            }
        }
        let is_refused = |name: &str| self.refused.contains(name);
        match known.keys().find(|name| !wanted.contains_key(name.as_str()) && !is_refused(name)) {
            Some(name) => Err(format!("{name} is still known")),
            None => Ok(()),
        }
    }

    fn problems(&self) -> String {
        let status: Result<Value> = self.node.agent.fetch("/v1/status");
        status.ok().and_then(|status| status.get("problems").map(ToString::to_string)).unwrap_or_default()
    }

    fn are_endpoints_ready(&self, endpoints: &[Endpoint]) -> Result<(), String> {
        for (pod, spec) in &self.pods {
            let endpoint = endpoints
                .iter()
                .find(|endpoint| endpoint.pod() == *pod)
                .ok_or_else(|| format!("{pod} has no endpoint"))?;
            if endpoint.state != "ready" || endpoint.realized_revision != endpoint.wanted_revision {
                return Err(format!(
                    "{pod} is {}, at revision {} of {}",
                    endpoint.state, endpoint.realized_revision, endpoint.wanted_revision
                ));
            }
            for label in self.labels_of(pod, spec) {
                if !endpoint.labels.contains(&label) {
                    return Err(format!("{pod} has not got the label {label}, only {:?}", endpoint.labels));
                }
            }
            let own =
                |label: &&String| is_own_label(label) && !self.labels_of(pod, spec).contains(label.as_str());
            if let Some(label) = endpoint.labels.iter().find(own) {
                return Err(format!("{pod} still has the label {label}"));
            }
        }
        Ok(())
    }

    fn labels_of(&self, pod: &str, spec: &PodSpec) -> BTreeSet<String> {
        let namespace = pod.split('/').next().unwrap_or_default();
        let of_namespace = self.namespaces.get(namespace);
        let text = |prefix: &str, (key, value): (&String, &String)| {
            if value.is_empty() { format!("k8s:{prefix}{key}") } else { format!("k8s:{prefix}{key}={value}") }
        };
        let own =
            spec.labels.iter().filter(|(key, _)| is_identity_relevant(key)).map(|label| text("", label));
        let inherited = of_namespace.into_iter().flatten();
        own.chain(inherited.map(|label| text("io.cilium.k8s.namespace.labels.", label))).collect()
    }

    fn check_refused(&self, step: &Step) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for (policy, wanted) in &step.refused {
            let seen = clock::wait_for("the refusal", PATIENCE, || {
                let error = self.refusal(policy).map_err(|error| format!("{error:#}"))?;
                error
                    .ok_or_else(|| "neither a policy's error nor a problem of the status names it".to_owned())
            });
            match seen {
                Ok(error) if error.contains(wanted.as_str()) => {}
                Ok(error) => wrong.push(format!("{policy} was refused, but not for {wanted:?}: {error}")),
                Err(error) => wrong.push(format!("{policy} was not refused: {error:#}")),
            }
        }
        Ok(wrong)
    }

    fn refusal(&self, policy: &str) -> Result<Option<String>> {
        let policies: Vec<Value> = self.node.agent.fetch("/v1/policies")?;
        if let Some(error) = policies
            .iter()
            .filter(|info| policy_name(info) == policy)
            .find_map(|info| info.get("error").and_then(Value::as_str))
        {
            return Ok(Some(error.to_owned()));
        }
        let status: Value = self.node.agent.fetch("/v1/status")?;
        let name = policy.rsplit('/').next().unwrap_or_default();
        let problems = status.get("problems").and_then(Value::as_array);
        let names_it = |problem: &&Value| problem.to_string().contains(name);
        Ok(problems.into_iter().flatten().find(names_it).map(ToString::to_string))
    }

    fn check_enforcement(&self, step: &Step) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for (pod, (ingress, egress)) in &step.enforcement {
            let endpoint = self.endpoint(pod)?;
            if (&endpoint.ingress, &endpoint.egress) != (ingress, egress) {
                wrong.push(format!(
                    "{pod} is listed as {} / {}, not {ingress} / {egress}",
                    endpoint.ingress, endpoint.egress
                ));
            }
        }
        Ok(wrong)
    }

    fn open(&mut self, step: &Step) -> Result<()> {
        for (name, ask) in &step.open {
            let mut kept = Vec::new();
            for address in self.node.addresses_of(&ask.to, &self.case.topology)? {
                let target = SocketAddr::new(address, ask.port);
                let conversation = Conversation::open(self.node.netns_of(&ask.from)?, target, ALLOW_PATIENCE)
                    .with_context(|| format!("opening {name}"))?;
                kept.push(Kept { conversation, from: ask.from.clone(), target });
            }
            self.kept.insert(name.clone(), kept);
        }
        Ok(())
    }

    fn speak_all(&mut self, step: &Step) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for (name, expect) in &step.speak {
            let kept = self.kept.get_mut(name).with_context(|| format!("no connection {name} was opened"))?;
            self.node.monitor.clear();
            for kept in kept {
                let outcome = kept.conversation.speak(patience(expect))?;
                let asked = Asked {
                    shown: format!("{name} ({} to {})", kept.from, kept.target),
                    protocol: Protocol::Tcp,
                    target: kept.target,
                    source: outcome.local,
                    expect,
                    seen_as: None,
                };
                wrong.extend(judge(self.node, &self.arrivals, &asked, &outcome));
            }
        }
        Ok(wrong)
    }

    fn ask_all(&mut self, step: &Step) -> Result<Vec<String>> {
        self.node.monitor.clear();
        let before = drops(&self.node.agent.endpoints()?);
        let mut by_asker: BTreeMap<&Subject, Vec<(&Ask, Question)>> = BTreeMap::new();
        for ask in &step.asks {
            for question in questions(self.node, &self.case.topology, ask)? {
                by_asker.entry(&ask.from).or_default().push((ask, question));
            }
        }
        let node = &*self.node;
        let answered: Vec<Result<Vec<Outcome>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = by_asker
                .iter()
                .map(|(asker, asked)| {
                    scope.spawn(move || {
                        let questions: Vec<Question> =
                            asked.iter().map(|(_, question)| question.clone()).collect();
                        ask_in(node, asker, &questions)
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| bail!("asking panicked")))
                .collect()
        });
        let mut wrong = Vec::new();
        let mut cells_denied = 0;
        for (outcomes, asked) in answered.into_iter().zip(by_asker.into_values()) {
            for (outcome, (ask, question)) in outcomes?.into_iter().zip(asked) {
                cells_denied += u64::from(ask.is_cell && ask.expect.verdict == Verdict::Deny);
                wrong.extend(self.judge_ask(ask, &question, &outcome)?);
            }
        }
        if cells_denied > 0 && wrong.is_empty() {
            wrong.extend(self.check_counted(&before, cells_denied)?);
        }
        Ok(wrong)
    }

    fn judge_ask(&self, ask: &Ask, question: &Question, outcome: &Outcome) -> Result<Option<String>> {
        let port = if ask.protocol == Protocol::Icmp { 0 } else { question.port };
        let family = if question.target.is_ipv4() { 4 } else { 6 };
        let seen_as = match &ask.expect.seen_as {
            Some(subject) => Some(self.node.addresses_of(subject, &self.case.topology)?),
            None => None,
        };
        let asked = Asked {
            shown: format!("{ask} (IPv{family})"),
            protocol: ask.protocol,
            target: SocketAddr::new(question.target, port),
            source: outcome.local,
            expect: &ask.expect,
            seen_as,
        };
        if ask.is_cell && ask.expect.verdict == Verdict::Deny && outcome.answer == Answer::Silent {
            let heard = self.arrivals.contains(outcome.token);
            return Ok(heard.then(|| format!("{}: expected deny, but the target heard it", asked.shown)));
        }
        Ok(judge(self.node, &self.arrivals, &asked, outcome))
    }

    /// Every denied question of a matrix must show in the counters of an endpoint.
    fn check_counted(
        &self,
        before: &BTreeMap<(String, String, String), u64>,
        denied: u64,
    ) -> Result<Option<String>> {
        let counted = clock::wait_for("the counters", EVENT_PATIENCE, || {
            let after = drops(&self.node.agent.endpoints().map_err(|error| format!("{error:#}"))?);
            let sum = |drops: &BTreeMap<(String, String, String), u64>| -> u64 {
                drops
                    .iter()
                    .filter(|((_, _, reason), _)| reason.starts_with("POLICY_DEN"))
                    .map(|(_, n)| *n)
                    .sum()
            };
            let grown = sum(&after).saturating_sub(sum(before));
            if grown >= denied {
                Ok(())
            } else {
                Err(format!("{denied} questions were denied, {grown} drops counted"))
            }
        });
        Ok(counted.err().map(|error| format!("{error:#}")))
    }
}

fn patience(expect: &Expect) -> Duration {
    if expect.verdict == Verdict::Deny { DENY_PATIENCE } else { ALLOW_PATIENCE }
}

fn ask_in(node: &Node, asker: &Subject, questions: &[Question]) -> Result<Vec<Outcome>> {
    ask(node.netns_of(asker)?, questions)
}

/// One question per address family that both ends have.
fn questions(node: &Node, topology: &Topology, ask: &Ask) -> Result<Vec<Question>> {
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
struct Asked<'a> {
    shown: String,
    protocol: Protocol,
    target: SocketAddr,
    source: Option<SocketAddr>,
    expect: &'a Expect,
    seen_as: Option<Vec<IpAddr>>,
}

impl Asked<'_> {
    fn is_about(&self, flow: &Flow) -> bool {
        self.source.is_some_and(|mut source| {
            if self.protocol == Protocol::Icmp {
                source.set_port(0);
            }
            flow.is_about(self.protocol.as_str(), source, self.target)
        })
    }

    fn is_reported(&self, verdict: &str, flow: &Flow) -> bool {
        self.is_about(flow)
            && flow.verdict == verdict
            && self.expect.at.as_ref().is_none_or(|side| flow.direction == *side)
            && self.expect.reason.as_ref().is_none_or(|reason| flow.drop_reason.as_ref() == Some(reason))
            && self.expect.by.iter().all(|policy| flow.policies.iter().any(|origin| origin.policy == *policy))
    }
}

/// What is wrong with an outcome, if anything.
fn judge(node: &Node, arrivals: &Arrivals, asked: &Asked<'_>, outcome: &Outcome) -> Option<String> {
    let shown = &asked.shown;
    let took = outcome.took;
    let wrong = match (asked.expect.verdict, &outcome.answer) {
        (Verdict::Allow | Verdict::Audit, Answer::Echoed(seen)) => {
            match (&asked.seen_as, seen) {
                (Some(wanted), Some(seen)) if !wanted.contains(seen) => {
                    return Some(format!("{shown}: the target saw {seen}, not {wanted:?}"));
                }
                _ => {}
            }
            None
        }
        (Verdict::Refused, Answer::Refused) => None,
        (Verdict::Deny, Answer::Silent) if arrivals.contains(outcome.token) => {
            Some("denied, but the target heard it and its answer was lost".to_owned())
        }
        (Verdict::Deny, Answer::Silent) => None,
        (_, answer) => Some(match answer {
            Answer::Echoed(_) => format!("answered after {took:?}"),
            Answer::Silent => format!("no answer within {took:?}"),
            Answer::Refused => "nobody listens".to_owned(),
            Answer::Failed(why) => why.clone(),
        }),
    };
    let seen = || {
        let flows = node.monitor.flows(|flow| asked.is_about(flow));
        let lines: Vec<String> = flows.iter().map(ToString::to_string).collect();
        if lines.is_empty() {
            "the agent reported nothing".to_owned()
        } else {
            format!("the agent reported {}", lines.join("; "))
        }
    };
    if let Some(wrong) = wrong {
        return Some(format!("{shown}: expected {:?}: {wrong}; {}", asked.expect, seen()));
    }
    let verdict = match asked.expect.verdict {
        Verdict::Deny => "DROPPED",
        Verdict::Audit => "AUDIT",
        Verdict::Allow if !asked.expect.by.is_empty() => "FORWARDED",
        Verdict::Allow | Verdict::Refused => return None,
    };
    let reported = node.monitor.wait_for(EVENT_PATIENCE, |flow| asked.is_reported(verdict, flow));
    if reported.is_some()
        || (node.monitor.lost() > 0 && node.monitor.flows(|flow| asked.is_about(flow)).is_empty())
    {
        return None;
    }
    Some(format!("{shown}: {:?} came, but was not reported so: {}", asked.expect, seen()))
}

fn policy_name(info: &Value) -> String {
    let text = |key: &str| info.get(key).and_then(Value::as_str).unwrap_or_default();
    match text("kind") {
        "CiliumClusterwideNetworkPolicy" => format!("ccnp/{}", text("name")),
        "NetworkPolicy" => format!("knp/{}/{}", text("namespace"), text("name")),
        _ => format!("cnp/{}/{}", text("namespace"), text("name")),
    }
}

/// Whether the agent's object says what ours says; what it adds, and empty values it leaves out, do not matter.
fn is_same(theirs: &Value, ours: &Value) -> bool {
    ["spec", "specs"].iter().all(|key| theirs.get(key) == ours.get(key))
}

/// Labels that come from the pod's own metadata or its namespace's.
fn is_own_label(label: &str) -> bool {
    let Some(rest) = label.strip_prefix("k8s:") else { return false };
    let given = ["io.kubernetes.", "io.cilium.k8s.policy.", "io.cilium.k8s.namespace.labels.kubernetes.io/"];
    !given.iter().any(|prefix| rest.starts_with(prefix))
}

/// Labels that make no identity are not looked for.
fn is_identity_relevant(key: &str) -> bool {
    !(key.contains("kubernetes.io")
        || key.starts_with("io.cilium")
        || key.contains(':')
        || key == "pod-template-hash")
        || key.starts_with("app.kubernetes.io")
}
