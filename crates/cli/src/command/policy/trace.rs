//! `sluice policy trace`: what happens to a flow, at both ends, by which rule, and what would allow it.
//!
//! Builds a cluster on paper, from manifests or from what a running agent tells, and asks it. Decides nothing.

mod live;
mod question;
mod report;
mod source;
mod text;

use std::io::Write;

use sluice_client::Client;
use sluice_model::{Cluster, Flow, Step};
use sluice_policy::{Config, Enforcement};

use crate::args::{Format, Scene, TraceArgs};
use crate::documents::{self, Document};
use crate::failure::{Exit, Failure};
use crate::output::Output;

pub(in crate::command) use report::Answer;

pub(super) use question::with_ports;

use question::Question;
use report::Report;
use source::Sources;

/// Answers. What does not pass is exit code 1, after everything is said.
pub(super) fn run(
    client: impl FnOnce() -> Result<Client, Failure>,
    arguments: &TraceArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut stage = Stage::build(&arguments.scene, client)?;
    let question = Question::new(arguments, &mut stage.cluster)?;
    let answers = stage.answers(&question.flows)?;
    if arguments.suggest {
        return suggest(&answers, output);
    }
    stage.print(question.service, &answers, arguments.out.format, output)
}

/// The cluster that is asked, and where everything of it stands.
#[derive(Debug)]
pub(in crate::command) struct Stage {
    documents: Vec<Document>,
    pub(in crate::command) cluster: Cluster,
}

impl Stage {
    /// From manifests if there are any, else from what the agent tells.
    pub(in crate::command) fn build(
        scene: &Scene,
        client: impl FnOnce() -> Result<Client, Failure>,
    ) -> Result<Self, Failure> {
        if scene.files.is_empty() {
            return live::build(scene, &client()?);
        }
        let config = config(scene.enforcement.as_deref().unwrap_or_default(), scene.audit);
        let mut stage = Self { documents: documents::read(&scene.files)?, cluster: Cluster::new(config) };
        documents::apply_all(&stage.documents, &mut stage.cluster)?;
        Ok(stage)
    }

    /// Asks about each flow.
    pub(in crate::command) fn answers(&mut self, flows: &[Flow]) -> Result<Vec<Answer>, Failure> {
        flows.iter().map(|flow| Answer::new(flow, &mut self.cluster)).collect()
    }

    /// Prints the answers; a failure without words if not everything passes.
    pub(in crate::command) fn print(
        &self,
        service: Option<String>,
        answers: &[Answer],
        format: Format,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let sources = Sources::new(&self.documents, self.cluster.config());
        let report = Report::new(service, answers, &sources);
        if format == Format::Table {
            text::print(&report, answers, &sources, output)?;
        } else {
            report.print(format, output)?;
        }
        output.flush()?;
        if answers.iter().all(|answer| answer.trace.word().passes()) {
            return Ok(());
        }
        Err(Failure::new(Exit::Error, ""))
    }
}

/// Everything that policies can say, judged in this mode.
fn config(enforcement: &str, audit: bool) -> Config {
    let enforcement = match enforcement {
        "always" => Enforcement::Always,
        "never" => Enforcement::Never,
        _ => Enforcement::Default,
    };
    Config { enforcement, audit, ..Config::complete() }
}

/// Prints the policies that would allow the flows; exit code 1 if there is something that no policy of its own allows.
pub(in crate::command) fn suggest(answers: &[Answer], output: &mut Output) -> Result<(), Failure> {
    let mut printed: Vec<&serde_json::Value> = Vec::new();
    for change in answers.iter().flat_map(|answer| &answer.policies) {
        match &change.step {
            Step::Create { object, .. } if printed.contains(&object) => {}
            Step::Create { object, .. } => {
                if !printed.is_empty() {
                    writeln!(output, "---")?;
                }
                output.print_value(Format::Yaml, object)?;
                printed.push(object);
            }
            Step::Except(rule) => {
                output.flush()?;
                return Err(Failure::error(format!("{rule} denies it, and no other policy can allow it"))
                    .hint("Take that rule out, or let it leave this flow out."));
            }
            Step::Extend { .. } | Step::Nothing => {
                output.flush()?;
                return Err(Failure::error(format!(
                    "no policy was found that allows it at {}",
                    change.subject
                )));
            }
        }
    }
    if printed.is_empty() {
        return Err(
            Failure::error("it passes already").hint("Without --suggest you see which rules allow it.")
        );
    }
    Ok(())
}
