//! `sluice status`: how the agent is, and what needs a look.

use std::io::Write;
use std::time::Duration;

use sluice_client::model::{Problem, Status};
use sluice_client::{Client, ClientError, path};

use crate::args::{Format, StatusArgs};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::table::Table;

const WAIT_STEP: Duration = Duration::from_millis(100);

pub(super) fn run(client: &Client, arguments: &StatusArgs, output: &mut Output) -> Result<(), Failure> {
    let status = fetch(client, arguments.wait.unwrap_or(0))?;
    if arguments.brief {
        writeln!(output, "{}", status.state)?;
        return if status.state == "ok" { Ok(()) } else { Err(Failure::new(Exit::Error, "")) };
    }
    if arguments.out.format != Format::Table {
        return output.print_value(arguments.out.format, &status);
    }
    let table = overview(&status, output);
    write!(output, "{table}")?;
    problems(&status.problems, output)
}

/// The status; while nobody listens, asks again for `wait_s` seconds.
fn fetch(client: &Client, wait_s: u64) -> Result<Status, Failure> {
    let tries = Duration::from_secs(wait_s).as_millis() / WAIT_STEP.as_millis();
    for _ in 0..tries {
        match client.fetch::<Status>(path::STATUS) {
            Ok(status) if status.state != "starting" => return Ok(status),
            Ok(_) | Err(ClientError::Connect { .. } | ClientError::Io { .. }) => {
                std::thread::sleep(WAIT_STEP)
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(client.fetch(path::STATUS)?)
}

fn overview(status: &Status, output: &Output) -> Table {
    let mut table = Table::pairs();
    let mut row = |title: &str, value: String| table.row([output.dim(title), value]);
    let state = match status.state.as_str() {
        "ok" => output.good("ok"),
        other => output.warn(other),
    };
    row("Agent", format!("{state}, version {}, up {}", status.version, duration(status.uptime_s)));
    row("Source", status.source.clone());
    let audit = if status.audit { ", audit mode: nothing is dropped by policy" } else { "" };
    row("Enforcement", format!("{}{audit}", status.enforcement));
    row("Policies", format!("{} (revision {})", status.policies, status.revision));
    row("Endpoints", endpoints(status));
    row("Identities", status.identities.to_string());
    for (nth, pool) in status.ipam.iter().enumerate() {
        let resting = if pool.resting > 0 { format!(", {} resting", pool.resting) } else { String::new() };
        let title = if nth == 0 { "Addresses" } else { "" };
        row(title, format!("{}: {} of {} in use{resting}", pool.pool, pool.used, pool.capacity));
    }
    let devices = if status.devices.is_empty() { "none".to_owned() } else { status.devices.join(", ") };
    row("Devices", devices);
    for (nth, map) in status.maps.iter().enumerate() {
        let used = map.used.map_or_else(|| "?".to_owned(), |used| used.to_string());
        row(if nth == 0 { "Maps" } else { "" }, format!("{}: {used} of {}", map.name, map.capacity));
    }
    table
}

fn endpoints(status: &Status) -> String {
    let all: usize = status.endpoints.values().sum();
    if all == 0 {
        return "0".to_owned();
    }
    let by_state: Vec<String> = status
        .endpoints
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    format!("{all} ({})", by_state.join(", "))
}

fn problems(problems: &[Problem], output: &mut Output) -> Result<(), Failure> {
    if problems.is_empty() {
        return Ok(());
    }
    let title = output.warn("What needs a look:");
    writeln!(output, "\n{title}")?;
    for Problem { object, message } in problems {
        writeln!(output, "  {object}: {message}")?;
    }
    Ok(())
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3_700, "1 h 1 min"), (90_000, "1 d 1 h")];
        for (seconds, want) in cases {
            assert_eq!(duration(seconds), want);
        }
    }
}
