//! `sluice policy trace`: what happens to a flow, at both ends, by which rule, and what would allow it.
//!
//! Builds a cluster on paper from manifests and asks it; decides nothing and needs no agent.

mod question;
mod report;
mod source;
mod text;

use std::io::Write;

use sluice_model::{Cluster, Step};
use sluice_policy::{Config, Enforcement};

use crate::args::{Format, Scene, TraceArgs};
use crate::documents::{self, Document};
use crate::failure::{Exit, Failure};
use crate::output::Output;

use question::Question;
use report::{Answer, Report};
use source::Sources;

/// Answers. What does not pass is exit code 1, after everything is said.
pub(super) fn run(arguments: &TraceArgs, output: &mut Output) -> Result<(), Failure> {
    let (documents, mut cluster) = build(&arguments.scene)?;
    let question = Question::new(arguments, &mut cluster)?;
    let sources = Sources::new(&documents, cluster.config());
    let mut answers = Vec::new();
    for flow in &question.flows {
        answers.push(Answer::new(flow, &mut cluster)?);
    }
    let report = Report::new(question.service.clone(), &answers, &sources);
    if arguments.suggest {
        return suggest(&answers, output);
    }
    if arguments.out.format == Format::Table {
        text::print(&report, &answers, &sources, output)?;
    } else {
        report.print(arguments.out.format, output)?;
    }
    output.flush()?;
    if answers.iter().all(|answer| answer.trace.word().passes()) {
        return Ok(());
    }
    Err(Failure::new(Exit::Error, ""))
}

/// The cluster that the manifests describe, and where everything of it stands.
fn build(scene: &Scene) -> Result<(Vec<Document>, Cluster), Failure> {
    let enforcement = match scene.enforcement.as_str() {
        "always" => Enforcement::Always,
        "never" => Enforcement::Never,
        _ => Enforcement::Default,
    };
    let config = Config { enforcement, audit: scene.audit, ..Config::complete() };
    let documents = documents::read(&scene.files)?;
    let mut cluster = Cluster::new(config);
    documents::apply_all(&documents, &mut cluster)?;
    Ok((documents, cluster))
}

/// Prints the policies that would allow the flows; exit code 1 if there is something that no policy of its own allows.
fn suggest(answers: &[Answer], output: &mut Output) -> Result<(), Failure> {
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
