//! `sluice explain`: of a packet that was recorded, what `policy trace` says of a flow.
//!
//! The record says what happened; the answer is what the policies in force now say. Where the two differ it is told.

use std::io::Write;

use sluice_client::{Client, path};
use sluice_flow::{Flow as Recorded, FlowVerdict};

use super::monitor::{clock, matches_peer};
use super::policy::trace::{Answer, Stage, suggest};
use super::recorded;
use crate::args::{ExplainArgs, Format};
use crate::failure::Failure;
use crate::output::Output;

pub(super) fn run(
    client: impl Fn() -> Result<Client, Failure>,
    arguments: &ExplainArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let flows = match &arguments.flow {
        Some(file) => recorded::read(file)?,
        None => {
            let client = client()?;
            let stream = client.stream::<Recorded>(path::RECENT_FLOWS)?;
            stream.collect::<Result<Vec<_>, _>>()?
        }
    };
    let seen =
        flows.iter().rev().find(|flow| is_wanted(flow, arguments)).ok_or_else(|| missing(arguments))?;
    let mut stage = Stage::build(&arguments.scene, client)?;
    let flow = recorded::asked(seen, &mut stage.cluster)?;
    let answers = stage.answers(&[flow])?;
    if arguments.suggest {
        return suggest(&answers, output);
    }
    if arguments.out.format == Format::Table {
        writeln!(output, "{} {seen} id={}", clock(seen.time_unix_ns), seen.id())?;
        differences(seen, &answers, output)?;
        writeln!(output)?;
    }
    stage.print(None, &answers, arguments.out.format, output)
}

fn is_wanted(flow: &Recorded, arguments: &ExplainArgs) -> bool {
    let is_drop = matches!(flow.verdict, FlowVerdict::Dropped | FlowVerdict::Audit);
    let is_peer = arguments
        .pod
        .as_ref()
        .is_none_or(|pod| matches_peer(&flow.source, pod) || matches_peer(&flow.destination, pod));
    match &arguments.id {
        Some(id) => flow.id() == id.trim_start_matches("id=") && is_peer,
        // A file may be of one flow, whatever became of it.
        None => is_peer && (is_drop || (arguments.flow.is_some() && !arguments.last_drop)),
    }
}

fn missing(arguments: &ExplainArgs) -> Failure {
    let what = match (&arguments.id, &arguments.pod) {
        (Some(id), _) => format!("no flow {id} is kept"),
        (None, Some(pod)) => format!("no drop of {pod} is kept"),
        (None, None) => "no drop is kept".to_owned(),
    };
    Failure::not_found(what)
        .hint("The agent keeps the last few thousand flows; `sluice monitor` shows new ones with their ids.")
}

/// Says where the policies of now say something else than what was recorded.
fn differences(recorded: &Recorded, answers: &[Answer], output: &mut Output) -> Result<(), Failure> {
    let passes = answers.iter().all(|answer| answer.trace.word().passes());
    let note = match recorded.verdict {
        FlowVerdict::Dropped if passes => {
            "It was dropped then, but the policies here let it pass: they changed since, or the reason is none of policy."
        }
        FlowVerdict::Forwarded | FlowVerdict::Redirected if !passes => {
            "It passed then, but the policies here deny it: they changed since."
        }
        FlowVerdict::Dropped
        | FlowVerdict::Audit
        | FlowVerdict::Forwarded
        | FlowVerdict::Redirected
        | FlowVerdict::Error => {
            return Ok(());
        }
    };
    let note = output.warn(note);
    writeln!(output, "{note}")?;
    Ok(())
}
