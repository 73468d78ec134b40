//! What the demo prints: what is tried, what happened, and which rule decided.

use std::io::Write;
use std::time::{Duration, Instant};

use sluice_flow::Flow;

use super::attempt::{Attempt, DENIED, Try, Want, Who};
use super::stage::Stage;
use crate::failure::Failure;
use crate::node::record::PodRecord;
use crate::node::signal::Interrupt;
use crate::output::Output;
use crate::table::visible_width;
use crate::traffic::{Outcome, milliseconds};

/// Width of "who → whom".
const ROUTE_WIDTH: usize = 46;

/// Prints the story and counts what went wrong.
pub(super) struct Narrator<'a> {
    output: &'a mut Output,
    interrupt: Interrupt,
    pause: Duration,
    begun: Instant,
    scenes: usize,
    tries: usize,
    dropped: usize,
    denied: usize,
    failures: usize,
}

impl<'a> Narrator<'a> {
    pub(super) fn new(output: &'a mut Output, interrupt: Interrupt, pause: Duration) -> Self {
        Self {
            output,
            interrupt,
            pause,
            begun: now(),
            scenes: 0,
            tries: 0,
            dropped: 0,
            denied: 0,
            failures: 0,
        }
    }

    /// Now, for durations that people read.
    pub(super) fn clock(&self) -> Instant {
        now()
    }

    pub(super) fn opening(&mut self) -> Result<(), Failure> {
        let title = self.output.bold("sluice: network policy, decided in the kernel");
        writeln!(self.output, "\n{title}")?;
        self.text("A node, six pods and an outside world, each a network namespace of its own.")?;
        self.text("This machine's own network is not touched.")?;
        writeln!(self.output)?;
        Ok(self.output.flush()?)
    }

    pub(super) fn node_is_up(&mut self, name: &str, start: Instant) -> Result<(), Failure> {
        let took = self.output.dim(&format!("{:.1} s", start.elapsed().as_secs_f64()));
        writeln!(self.output, "  node {name:<15} agent ready, programs in the kernel   {took}")?;
        Ok(self.output.flush()?)
    }

    pub(super) fn pod_is_up(&mut self, pod: &PodRecord, labels: &str, start: Instant) -> Result<(), Failure> {
        let took = self.output.dim(&format!("{} ms", start.elapsed().as_millis()));
        let v4 = pod.ipv4.map(|ip| ip.to_string()).unwrap_or_default();
        let v6 = pod.ipv6.map(|ip| ip.to_string()).unwrap_or_default();
        writeln!(self.output, "  pod  {:<16} {labels:<13} {v4:<12} {v6:<18} {took}", pod.pod().to_string())?;
        Ok(self.output.flush()?)
    }

    /// Begins a scene.
    pub(super) fn scene(&mut self, title: &str, text: &[&str]) -> Result<(), Failure> {
        self.output.flush()?;
        self.interrupt.sleep(self.pause)?;
        self.scenes += 1;
        let title = self.output.bold(&format!("{}. {title}", self.scenes));
        writeln!(self.output, "\n{title}")?;
        for line in text {
            self.text(line)?;
        }
        Ok(())
    }

    /// A sentence.
    pub(super) fn text(&mut self, line: &str) -> Result<(), Failure> {
        Ok(writeln!(self.output, "  {line}")?)
    }

    /// An empty line.
    pub(super) fn gap(&mut self) -> Result<(), Failure> {
        Ok(writeln!(self.output)?)
    }

    /// A command that a person would type for what happens next.
    pub(super) fn command(&mut self, line: &str) -> Result<(), Failure> {
        let line = self.output.dim(&format!("$ sluice {line}"));
        Ok(writeln!(self.output, "  {line}")?)
    }

    /// A command that a person would type, and what it answered.
    pub(super) fn answer(&mut self, arguments: &[&str], answer: &str) -> Result<(), Failure> {
        let quoted = |word: &&str| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() };
        self.command(&arguments.iter().map(quoted).collect::<Vec<_>>().join(" "))?;
        if answer.trim().is_empty() {
            self.failures += 1;
            let complaint = self.output.bad("it said nothing");
            writeln!(self.output, "      {complaint}")?;
        }
        for line in answer.lines() {
            writeln!(self.output, "  {line}")?;
        }
        self.output.flush()?;
        self.interrupt.sleep(self.pause)
    }

    /// A policy, without the lines that say nothing about traffic.
    pub(super) fn policy(&mut self, yaml: &str) -> Result<(), Failure> {
        writeln!(self.output)?;
        for line in yaml.lines().filter(|line| !line.starts_with("apiVersion:")) {
            let bar = self.output.dim("│");
            writeln!(self.output, "  {bar} {line}")?;
        }
        writeln!(self.output)?;
        self.output.flush()?;
        self.interrupt.sleep(self.pause)
    }

    /// One attempt and its end.
    pub(super) fn attempt(&mut self, attempt: &Attempt, tries: &[Try]) -> Result<(), Failure> {
        self.interrupt.check()?;
        let who = match attempt.who {
            Who::Pod(name) => name,
            Who::Node => "the node",
        };
        let route = format!("{who} → {}:{}", attempt.target.name(), attempt.port);
        let route = attempt.request.map_or(route.clone(), |request| format!("{route} {request}"));
        self.line(&route, attempt.want, tries)
    }

    /// The same for an attempt that has no other end than words.
    pub(super) fn line(&mut self, route: &str, want: Want, tries: &[Try]) -> Result<(), Failure> {
        let passed = tries.iter().any(|one| match one.outcome {
            Outcome::Answered { .. } => true,
            Outcome::Status { status, .. } => status != DENIED,
            Outcome::Silence | Outcome::Refused | Outcome::Failed(_) => false,
        });
        let mark = if passed { self.output.good("✓") } else { self.output.bad("✗") };
        let ends: Vec<String> = tries.iter().map(end).collect();
        let room = " ".repeat(ROUTE_WIDTH.saturating_sub(visible_width(route)));
        writeln!(self.output, "  {mark} {route}{room} {}", ends.join(", "))?;
        if let Some(flow) = tries.iter().find_map(|one| one.flow.as_ref())
            && let Some(word) = explanation(flow, want)
        {
            let word = self.output.dim(&word);
            writeln!(self.output, "      {word}")?;
        }
        self.tries += tries.len();
        self.dropped += tries.iter().filter(|one| one.outcome == Outcome::Silence).count();
        let is_denied = |one: &&Try| matches!(one.outcome, Outcome::Status { status: DENIED, .. });
        self.denied += tries.iter().filter(is_denied).count();
        let missing = tries.is_empty().then(|| "there was no address to try".to_owned());
        for complaint in tries.iter().filter_map(|one| one.complaint(want)).chain(missing) {
            self.failures += 1;
            let complaint = self.output.bad(&format!("not as the policy says: {complaint}"));
            writeln!(self.output, "      {complaint}")?;
        }
        Ok(self.output.flush()?)
    }

    /// Says how it went; answers the number of failures.
    pub(super) fn summary(&mut self, reports: usize) -> Result<usize, Failure> {
        let Self { tries, dropped, denied, failures, .. } = *self;
        let seconds = self.begun.elapsed().as_secs_f64();
        let title = if failures == 0 {
            self.output.good("Everything ended as the policies say.")
        } else {
            self.output.bad("Not everything ended as the policies say.")
        };
        writeln!(self.output, "\n{title}")?;
        self.text(&format!(
            "{tries} connections over IPv4 and IPv6, {} answered, {dropped} dropped and {denied} refused with 403, each \
             with its reason;",
            tries - (dropped + denied).min(tries)
        ))?;
        self.text(&format!("{reports} reports from the kernel; {seconds:.1} s."))?;
        Ok(failures)
    }

    /// What to play with while the node stays.
    pub(super) fn invite(&mut self, stage: &Stage) -> Result<(), Failure> {
        let program = std::env::current_exe().unwrap_or_default();
        let dir = program.parent().map(|dir| dir.display().to_string()).unwrap_or_default();
        let backend = stage.address_of("shop/backend").first().map(ToString::to_string).unwrap_or_default();
        let title = self.output.bold("The node stays.");
        writeln!(self.output, "\n{title} In another terminal:")?;
        for line in [
            format!("export PATH={dir}:$PATH SLUICE_NODE={}", stage.layout().name()),
            "sluice status".to_owned(),
            "sluice endpoint list".to_owned(),
            "sluice policy get".to_owned(),
            "sluice bpf policy get shop/backend".to_owned(),
            "sluice monitor --type policy-verdict &".to_owned(),
            format!("sluice pod exec shop/frontend -- sluice probe {backend}:8080"),
            format!("sluice pod exec shop/other -- sluice probe {backend}:8080"),
            "sluice pod run shop/mine --labels app=frontend -- sluice serve --name mine 8080".to_owned(),
        ] {
            writeln!(self.output, "  {line}")?;
        }
        writeln!(self.output, "Ctrl-C ends it and removes everything.")?;
        Ok(self.output.flush()?)
    }

    /// The end.
    pub(super) fn curtain(&mut self, kept: bool) -> Result<(), Failure> {
        self.text("Everything the demo made was removed.")?;
        if !kept {
            writeln!(self.output, "\nTry next:")?;
            writeln!(self.output, "  sluice demo --keep        the same, and the node stays to play with")?;
            writeln!(
                self.output,
                "  sluice up ./manifests     a node of your own, on a directory of manifests"
            )?;
            writeln!(self.output, "  sluice --help             everything else")?;
        }
        Ok(self.output.flush()?)
    }
}

#[expect(clippy::disallowed_methods, reason = "an edge: how long things took is for people")]
fn now() -> Instant {
    Instant::now()
}

fn end(one: &Try) -> String {
    let family = one.family();
    match &one.outcome {
        Outcome::Answered { took, .. } => format!("{family} {}", milliseconds(*took)),
        Outcome::Status { status, took } => format!("{family} {status} in {}", milliseconds(*took)),
        Outcome::Silence => format!("{family} silence"),
        Outcome::Refused => format!("{family} refused"),
        Outcome::Failed(reason) => format!("{family} {reason}"),
    }
}

/// Which rule decided, in words.
fn explanation(flow: &Flow, want: Want) -> Option<String> {
    let rules: Vec<String> = flow.policies.iter().map(ToString::to_string).collect();
    let rules = rules.join(" and ");
    let side = flow.direction;
    let reason =
        flow.drop_reason.map(|reason| format!("{reason}, {}", reason.description())).unwrap_or_default();
    match want {
        Want::Answer { .. } if rules.is_empty() => None,
        Want::Answer { .. } => Some(format!("allowed on {side} by {rules}")),
        Want::Status { status, .. } if status == DENIED => {
            Some(format!("refused by the proxy on {side}: {reason} [{rules}]"))
        }
        Want::Status { .. } => Some(format!("allowed on {side} by {rules}")),
        Want::Audit { .. } => Some(format!("passes, but would be dropped on {side}: {reason} [{rules}]")),
        Want::Drop { .. } => Some(format!("dropped on {side}: {reason} [{rules}]")),
    }
}
