//! Differences as people read them.

use std::io::Write;

use sluice_model::{Felt, Group, IsolationChange};
use sluice_types::Direction;

use super::Difference;
use super::flows::FlowChanges;
use super::rows::{Row, rows};
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{self, Table};

/// How many names a cell lists.
const LISTED_MAX: usize = 3;
/// How many flows are listed.
const FLOWS_MAX: usize = 20;

pub(super) fn print(difference: &Difference, output: &mut Output) -> Result<(), Failure> {
    notes(difference, output)?;
    let comparison = &difference.comparison;
    if !comparison.isolation.is_empty() {
        isolation(&comparison.isolation, output)?;
    }
    let rows = rows(comparison);
    if !rows.is_empty() {
        reachability(&rows, output)?;
    }
    if let Some(flows) = &difference.flows {
        recorded(flows, output)?;
    }
    if difference.is_empty() {
        writeln!(output, "Nothing is different: both do the same to every connection.")?;
        return Ok(());
    }
    let next = "why: sluice policy trace -f NEW --src FROM --dst TO --dport PORT";
    writeln!(output, "{}", output.dim(next))?;
    Ok(())
}

fn notes(difference: &Difference, output: &mut Output) -> Result<(), Failure> {
    let met = &difference.met;
    if met.made_up {
        let note = "There are no pods: some were made up that the selectors mean. -f adds manifests of pods.";
        writeln!(output, "{}\n", output.dim(note))?;
    }
    for (names, whose) in [(&met.only_old, "the old side"), (&met.only_new, "the new side")] {
        if !names.is_empty() {
            let note = format!("Only {whose} has {}; they are not compared.", listed(names));
            writeln!(output, "{}\n", output.warn(&note))?;
        }
    }
    Ok(())
}

fn isolation(changes: &[IsolationChange], output: &mut Output) -> Result<(), Failure> {
    writeln!(output, "{}", output.bold("Default deny"))?;
    let mut table = Table::new(&["", "ENDPOINT", "DIRECTION", "NOW", "BY"]);
    for change in changes {
        let (mark, now) = match change.isolated {
            true => (output.bad("-"), "closed except for what rules allow"),
            false => (output.good("+"), "open unless a rule denies"),
        };
        let direction = match change.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        let by: Vec<String> = change.by.iter().map(ToString::to_string).collect();
        table.row([mark, Group::label(&change.subject), direction.to_owned(), now.to_owned(), listed(&by)]);
    }
    writeln!(output, "{table}")?;
    Ok(())
}

fn reachability(rows: &[Row], output: &mut Output) -> Result<(), Failure> {
    writeln!(output, "{}", output.bold("What passes"))?;
    let mut table = Table::new(&["", "FROM", "TO", "PORTS", "LAYER", "REQUESTS"]);
    for row in rows {
        let mark = match row.felt {
            Felt::Opened => output.good("+"),
            Felt::Closed => output.bad("-"),
            Felt::Requests | Felt::Audit => output.warn("~"),
        };
        let cells = [listed(&row.from), listed(&row.to), row.ports.clone(), row.layer.to_owned()];
        table.row([mark].into_iter().chain(cells).chain([row.detail.clone()]));
    }
    writeln!(output, "{table}")?;
    Ok(())
}

fn recorded(flows: &FlowChanges, output: &mut Output) -> Result<(), Failure> {
    let title = format!("Recorded flows ({} judged)", flows.judged);
    writeln!(output, "{}", output.bold(&title))?;
    if flows.is_empty() {
        writeln!(output, "None of them would break, and none newly pass.\n")?;
        return Ok(());
    }
    let mut table = Table::new(&["", "FROM", "TO", "PORT", "TIMES", "BY"]);
    for (seen, (times, by)) in flows.breaking.iter().take(FLOWS_MAX) {
        let mark = output.bad("-");
        table.row([
            mark,
            seen.from.clone(),
            seen.to.clone(),
            seen.port.clone(),
            times.to_string(),
            listed(by),
        ]);
    }
    for (seen, times) in flows.opening.iter().take(FLOWS_MAX) {
        let mark = output.good("+");
        table.row([mark, seen.from.clone(), seen.to.clone(), seen.port.clone(), times.to_string()]);
    }
    write!(output, "{table}")?;
    let hidden =
        flows.breaking.len().saturating_sub(FLOWS_MAX) + flows.opening.len().saturating_sub(FLOWS_MAX);
    if hidden > 0 {
        writeln!(output, "and {hidden} more; -o json has all")?;
    }
    writeln!(output, "{} would break, {} would newly pass\n", flows.breaking.len(), flows.opening.len())?;
    Ok(())
}

fn listed(names: &[String]) -> String {
    table::listed(names, LISTED_MAX)
}
