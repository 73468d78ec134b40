//! Runs one case on a node: makes what it needs, changes what a step changes, waits for the agent, asks, compares.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::agent::{Endpoint, PATIENCE, drops};
use crate::case::{Ask, Case, Step, Verdict};
use crate::clock;
use crate::echo::{Arrivals, Echo};
use crate::netns::Netns;
use crate::node::Node;
use crate::probe::{self, Conversation, Outcome, Protocol, Question};
use crate::request::{self, Request};
use crate::settle::{Wanted, refusal};
use crate::topology::{Labels, PodSpec, Subject};
use crate::verdict::{
    ALLOW_PATIENCE, Asked, Drops, EVENT_PATIENCE, Finding, denied_between, patience, questions,
};

/// After this time the agent reports again as many packets as ever.
const REPORTS_REFILLED: Duration = Duration::from_secs(1);

/// Runs a case. The node's pods are made to be those of the case's topology first.
///
/// # Errors
/// What did not hold, all of a step at once, or what could not be done.
pub fn run(node: &mut Node, case: &Case) -> Result<()> {
    let mut runner = Runner::new(node, case)?;
    let result = runner.steps();
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
    wanted: Wanted,
    servers: BTreeMap<Subject, Echo>,
    arrivals: Arrivals,
    kept: BTreeMap<String, Vec<Kept>>,
    /// Questions that nobody may hear, not even late.
    denied: BTreeMap<u64, String>,
}

impl<'a> Runner<'a> {
    fn new(node: &'a mut Node, case: &'a Case) -> Result<Self> {
        let mut runner = Self {
            node,
            case,
            wanted: Wanted::default(),
            servers: BTreeMap::new(),
            arrivals: Arrivals::default(),
            kept: BTreeMap::new(),
            denied: BTreeMap::new(),
        };
        runner.node.extend_world(&case.topology)?;
        for (name, labels) in case.topology.all_namespaces() {
            runner.write_namespace(name, &labels)?;
        }
        runner.write_pods(&case.topology.pods)?;
        runner.serve()?;
        Ok(runner)
    }

    fn steps(&mut self) -> Result<()> {
        for (nth, step) in self.case.steps.iter().enumerate() {
            self.step(step).with_context(|| format!("step {}", nth + 1))?;
        }
        let late: Vec<&str> = self
            .denied
            .iter()
            .filter(|(token, _)| self.arrivals.contains(**token))
            .map(|(_, shown)| shown.as_str())
            .collect();
        ensure!(late.is_empty(), "heard after all, though denied: {}", late.join(", "));
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        self.change(step)?;
        self.wanted.wait(&self.node.agent).context("waiting for the agent to enforce the change")?;
        let mut wrong = Vec::new();
        wrong.extend(self.check_refused(step));
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
            self.wanted.pods.remove(name);
        }
        self.node.remove_pods(&step.remove)?;
        if step.kills_agent {
            self.node.kill_agent()?;
        }
        for (name, labels) in &step.namespaces {
            self.write_namespace(name, labels)?;
        }
        for file in &step.delete {
            ensure!(self.wanted.policies.remove(file).is_some(), "{file} was not applied before");
            self.node.remove_manifest(file)?;
        }
        for (file, manifest) in &step.apply {
            self.node.write_manifest(file, &manifest.text)?;
            self.wanted.policies.insert(file.clone(), manifest.policies.clone());
        }
        self.wanted.refused.extend(step.refused.keys().cloned());
        if step.kills_agent {
            self.node.revive_agent()?;
        }
        self.write_pods(&step.pods)?;
        for (pod, options) in &step.endpoints {
            let endpoint = self.endpoint(pod)?;
            self.node.agent.patch(&format!("/v1/endpoints/{}/config", endpoint.id), &json!(options))?;
        }
        self.serve()
    }

    fn write_namespace(&mut self, name: &str, labels: &Labels) -> Result<()> {
        self.node.write_namespace(name, labels)?;
        self.wanted.namespaces.insert(name.to_owned(), labels.clone());
        Ok(())
    }

    /// Writes pods' manifests, and brings those to life that do not run.
    fn write_pods(&mut self, pods: &BTreeMap<String, PodSpec>) -> Result<()> {
        for (name, spec) in pods {
            self.node.write_pod(name, spec)?;
            self.wanted.pods.insert(name.clone(), spec.clone());
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

    fn endpoint(&self, pod: &str) -> Result<Endpoint> {
        let endpoints = self.node.agent.endpoints()?;
        let endpoint = endpoints.into_iter().find(|endpoint| endpoint.pod() == pod);
        endpoint.with_context(|| format!("no endpoint of {pod}"))
    }

    fn check_refused(&self, step: &Step) -> Vec<String> {
        let mut wrong = Vec::new();
        for (policy, wanted) in &step.refused {
            let seen = clock::wait_for("the refusal", PATIENCE, || {
                let error = refusal(&self.node.agent, policy).map_err(|error| format!("{error:#}"))?;
                error.ok_or_else(|| {
                    "neither the policy's error nor a problem of the status says so".to_owned()
                })
            });
            match seen {
                Ok(error) if error.contains(wanted.as_str()) => {}
                Ok(error) => wrong.push(format!("{policy} was refused, but not for {wanted:?}: {error}")),
                Err(error) => wrong.push(format!("{policy} was not refused: {error:#}")),
            }
        }
        wrong
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
                    is_looked_into: false,
                    seen_as: None,
                    is_counted: false,
                };
                if let Finding::Wrong(what) | Finding::Unreported(what) =
                    asked.judge(&self.node.monitor, &self.arrivals, &outcome)
                {
                    wrong.push(what);
                }
            }
        }
        Ok(wrong)
    }

    fn ask_all(&mut self, step: &Step) -> Result<Vec<String>> {
        self.node.monitor.clear();
        let before = drops(&self.node.agent.endpoints()?);
        let mut wrong = Vec::new();
        let mut counted = 0;
        let mut unreported = Vec::new();
        for (ask, finding) in self.ask_and_judge(&step.asks)? {
            match finding {
                Finding::Right => {}
                Finding::MustBeCounted => counted += 1,
                Finding::Unreported(what) => unreported.push((ask, what)),
                Finding::Wrong(what) => wrong.push(what),
            }
        }
        if counted > 0 && wrong.is_empty() {
            wrong.extend(self.check_counted(&before, counted));
        }
        if !unreported.is_empty() {
            wrong.extend(self.ask_again(unreported)?);
        }
        Ok(wrong)
    }

    /// Asks what was not reported once more: reports are limited in number, and a matrix makes many at once. A
    /// denial without a report must be among those that the agent says were lost.
    fn ask_again(&mut self, unreported: Vec<(Ask, String)>) -> Result<Vec<String>> {
        std::thread::sleep(REPORTS_REFILLED);
        let asks: Vec<Ask> = unreported.iter().map(|(ask, _)| ask.clone()).collect();
        let mut wrong = Vec::new();
        for (ask, finding) in self.ask_and_judge(&asks)? {
            match finding {
                Finding::Unreported(what) | Finding::Wrong(what) => wrong.push(what),
                Finding::Right | Finding::MustBeCounted => {
                    if ask.expect.verdict != Verdict::Allow && self.node.monitor.lost() == 0 {
                        wrong.push(format!(
                            "{ask}: reported only when asked again, though no report was lost"
                        ));
                    }
                }
            }
        }
        Ok(wrong)
    }

    /// One finding per question; its `Ask` is for that question's address family only.
    fn ask_and_judge(&mut self, asks: &[Ask]) -> Result<Vec<(Ask, Finding)>> {
        let mut findings = Vec::new();
        for (ask, question, outcome) in self.ask_at_once(asks)? {
            let finding = self.judge_ask(ask, &question, &outcome)?;
            if matches!(ask.expect.verdict, Verdict::Deny | Verdict::L7Deny) {
                self.denied.insert(outcome.token, ask.to_string());
            }
            let mut ask = ask.clone();
            ask.expect.family = Some(if question.target.is_ipv4() { 4 } else { 6 });
            findings.push((ask, finding));
        }
        Ok(findings)
    }

    /// Asks everything from everybody at the same time.
    fn ask_at_once<'s>(&self, asks: &'s [Ask]) -> Result<Vec<(&'s Ask, Question, Outcome)>> {
        let mut by_asker: BTreeMap<&Subject, Vec<(&Ask, Question)>> = BTreeMap::new();
        for ask in asks {
            for question in questions(self.node, &self.case.topology, ask)? {
                by_asker.entry(&ask.from).or_default().push((ask, question));
            }
        }
        let node = &*self.node;
        let answered: Vec<Result<Vec<Outcome>>> = std::thread::scope(|scope| {
            let ask_all = |asker: &Subject, asked: &[(&Ask, Question)]| -> Result<Vec<Outcome>> {
                ask_each(node.netns_of(asker)?, asked)
            };
            let threads: Vec<_> =
                by_asker.iter().map(|(asker, asked)| scope.spawn(move || ask_all(asker, asked))).collect();
            let joined = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|_| bail!("asking panicked"))
            };
            threads.into_iter().map(joined).collect()
        });
        let mut all = Vec::new();
        for (outcomes, asked) in answered.into_iter().zip(by_asker.into_values()) {
            let outcomes = outcomes?;
            all.extend(
                asked.into_iter().zip(outcomes).map(|((ask, question), outcome)| (ask, question, outcome)),
            );
        }
        Ok(all)
    }

    fn judge_ask(&self, ask: &Ask, question: &Question, outcome: &Outcome) -> Result<Finding> {
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
            is_looked_into: ask.is_looked_into,
            seen_as,
            is_counted: ask.is_cell,
        };
        Ok(asked.judge(&self.node.monitor, &self.arrivals, outcome))
    }

    /// Every denied question must show in the counters of an endpoint.
    fn check_counted(&self, before: &Drops, denied: u64) -> Option<String> {
        let counted = clock::wait_for("the counters", EVENT_PATIENCE, || {
            let after = drops(&self.node.agent.endpoints().map_err(|error| format!("{error:#}"))?);
            let grown = denied_between(before, &after);
            let why = || format!("{denied} questions were denied, {grown} drops counted");
            if grown >= denied { Ok(()) } else { Err(why()) }
        });
        counted.err().map(|error| format!("{error:#}"))
    }
}

/// Asks all questions of one asker: those in requests with a client of HTTP, then the others. Outcomes are in the order
/// of the questions.
fn ask_each(netns: &Netns, asked: &[(&Ask, Question)]) -> Result<Vec<Outcome>> {
    let in_requests: Vec<(&Question, &Request)> =
        asked.iter().filter_map(|(ask, question)| Some((question, ask.request.as_ref()?))).collect();
    let bare: Vec<Question> =
        asked.iter().filter(|(ask, _)| ask.request.is_none()).map(|(_, question)| question.clone()).collect();
    let mut in_requests = request::ask(netns, &in_requests)?.into_iter();
    let mut bare = probe::ask(netns, &bare)?.into_iter();
    let next = |(ask, _): &(&Ask, Question)| {
        let outcomes = if ask.request.is_some() { &mut in_requests } else { &mut bare };
        outcomes.next().context("a question without an outcome")
    };
    asked.iter().map(next).collect()
}
