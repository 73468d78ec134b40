//! `sluice policy matrix`: who can reach whom.
//!
//! Asks the cluster on paper about every pair and every port; decides nothing.

mod cell;
mod dot;
mod svg;

use std::io::Write;

use serde_json::{Value, json};
use sluice_client::Client;
use sluice_model::{Matrix, Reach};
use sluice_types::Protocol;

use super::trace::{Stage, with_ports};
use crate::args::{Format, MatrixArgs, MatrixFormat};
use crate::failure::Failure;
use crate::output::Output;
use crate::table::Table;

use cell::Cell;
pub(super) use cell::{pieces, spans_json};

/// How many columns may carry names; more are numbered.
const NAMED_COLUMNS_MAX: usize = 6;

/// A port and its protocol.
pub(super) type Port = (u16, Protocol);

pub(super) fn run(
    client: impl FnOnce() -> Result<Client, Failure>,
    arguments: &MatrixArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let port = arguments.port.as_deref().map(read_port).transpose()?;
    let mut stage = Stage::build(&arguments.scene, client)?;
    let wanted = ends(&mut stage, arguments)?;
    let unknown = |error: sluice_model::UnknownEnd| Failure::not_found(error.to_string());
    let matrix = stage.cluster.judges().matrix(&wanted).map_err(unknown)?;
    match arguments.format {
        MatrixFormat::Table => table(&matrix, port, output),
        MatrixFormat::Md => markdown(&matrix, port, output),
        MatrixFormat::Dot => Ok(write!(output, "{}", dot::graph(&matrix, port))?),
        MatrixFormat::Svg => Ok(write!(output, "{}", svg::picture(&matrix, port))?),
        MatrixFormat::Json => output.print_value(Format::Json, &as_json(&matrix, port)),
    }
}

/// The pods that were asked for by name, and whoever else.
fn ends(stage: &mut Stage, arguments: &MatrixArgs) -> Result<Vec<String>, Failure> {
    let is_wanted = |name: &str| {
        let namespace = name.split_once('/').map_or("", |(namespace, _)| namespace);
        arguments.namespace.is_empty() || arguments.namespace.iter().any(|own| own == namespace)
    };
    let pods = stage.cluster.participants().filter(|own| own.who.is_pod() && is_wanted(&own.name));
    let mut wanted: Vec<String> = pods.map(|own| own.name.clone()).collect();
    if wanted.is_empty() {
        let place = if arguments.namespace.is_empty() { "" } else { " in that namespace" };
        return Err(Failure::not_found(format!("there are no pods{place}"))
            .hint("Manifests of pods are read from the same files and directories as policies (-f)."));
    }
    for end in arguments.with.iter().filter(|end| !end.is_empty()) {
        let name = stage.cluster.end(end).map_err(|error| Failure::not_found(error.to_string()))?;
        if !wanted.contains(&name) {
            wanted.push(name);
        }
    }
    Ok(wanted)
}

/// Reads `8080`, `53/UDP`.
fn read_port(text: &str) -> Result<Port, Failure> {
    let (number, word) = text.split_once('/').unwrap_or((text, "TCP"));
    let protocol = with_ports(word)
        .ok_or_else(|| Failure::invalid(format!("{word:?} is no protocol with ports: TCP, UDP or SCTP")))?;
    let number = number.parse().ok().filter(|number| *number != 0);
    let port = number.ok_or_else(|| Failure::invalid(format!("{text:?} is no port: 1 to 65535")))?;
    Ok((port, protocol))
}

fn table(matrix: &Matrix, port: Option<Port>, output: &mut Output) -> Result<(), Failure> {
    let numbered = matrix.groups.len() > NAMED_COLUMNS_MAX;
    let names: Vec<String> = matrix.groups.iter().map(sluice_model::Group::label).collect();
    let columns: Vec<String> = match numbered {
        true => (1..=names.len()).map(|number| number.to_string()).collect(),
        false => names.clone(),
    };
    let corner = "FROM \\ TO".to_owned();
    let header: Vec<&str> = std::iter::once(&corner).chain(&columns).map(String::as_str).collect();
    let mut table = Table::new(&header);
    for (nth, (name, cells)) in names.iter().zip(&matrix.cells).enumerate() {
        let name = if numbered { format!("{:>2} {name}", nth + 1) } else { name.clone() };
        let cells = cells.iter().map(|reach| Cell::new(reach, port).painted(output));
        table.row(std::iter::once(name).chain(cells));
    }
    write!(output, "{table}")?;
    members(matrix, output)?;
    writeln!(output)?;
    for line in legend(port).lines() {
        writeln!(output, "{}", output.dim(line))?;
    }
    writeln!(output, "{}", output.dim("why: sluice policy trace --src FROM --dst TO --dport PORT"))?;
    Ok(())
}

fn legend(port: Option<Port>) -> String {
    let cells = match port {
        Some((port, protocol)) => format!("{port}/{protocol}: yes it is reached, - it is not"),
        None => {
            "all: everything passes, - nothing does; else the TCP ports that do, or PORT/PROTOCOL".to_owned()
        }
    };
    format!("{cells}\n* each request is judged, ! passes only because of audit mode")
}

/// Who else is in a row.
fn members(matrix: &Matrix, output: &mut Output) -> Result<(), Failure> {
    let several: Vec<_> = matrix.groups.iter().filter(|group| group.members.len() > 1).collect();
    if several.is_empty() {
        return Ok(());
    }
    writeln!(output)?;
    for group in several {
        writeln!(output, "{}: {}", group.label(), group.members.join(", "))?;
    }
    Ok(())
}

fn markdown(matrix: &Matrix, port: Option<Port>, output: &mut Output) -> Result<(), Failure> {
    let names: Vec<String> = matrix.groups.iter().map(|group| group.label().replace('|', "\\|")).collect();
    writeln!(output, "| from \\ to | {} |", names.join(" | "))?;
    writeln!(output, "|---|{}", "---|".repeat(names.len()))?;
    for (name, cells) in names.iter().zip(&matrix.cells) {
        let cells: Vec<String> = cells.iter().map(|reach| Cell::new(reach, port).text).collect();
        writeln!(output, "| **{name}** | {} |", cells.join(" | "))?;
    }
    writeln!(output, "\n{}", legend(port))?;
    Ok(())
}

fn as_json(matrix: &Matrix, port: Option<Port>) -> Value {
    let cells = matrix.groups.iter().zip(&matrix.cells).flat_map(|(from, cells)| {
        matrix.groups.iter().zip(cells).map(move |(to, reach)| {
            json!({"from": from.label(), "to": to.label(), "passes": cell_json(reach, port)})
        })
    });
    let groups: Vec<Value> =
        matrix.groups.iter().map(|group| json!({"name": group.label(), "members": group.members})).collect();
    json!({"groups": groups, "cells": cells.collect::<Vec<Value>>()})
}

fn cell_json(reach: &Reach, port: Option<Port>) -> Value {
    match port {
        None => spans_json(reach.passing()),
        Some((port, protocol)) => {
            let has = |span: &&sluice_model::Span| {
                span.protocol == protocol && (span.first..=span.last).contains(&port)
            };
            spans_json(reach.passing().filter(has))
        }
    }
}
