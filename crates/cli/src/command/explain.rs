//! `sluice explain`: of a packet that was recorded, what `policy trace` says of a flow.
//!
//! The record says what happened; the answer is what the policies in force now say. Where the two differ it is told.

use std::io::Write;
use std::path::Path;

use sluice_client::{Client, path};
use sluice_flow::{Flow as Recorded, FlowEnd, FlowVerdict};
use sluice_model::{Cluster, Flow, FlowPort, Participant, Who};
use sluice_types::Protocol;

use super::monitor::{clock, matches_peer};
use super::policy::trace::{Answer, Stage, suggest};
use crate::args::{ExplainArgs, Format};
use crate::failure::{Failure, io};
use crate::output::Output;

/// Largest file of flows that is read.
const BYTES_MAX: u64 = 64 << 20;

pub(super) fn run(
    client: impl Fn() -> Result<Client, Failure>,
    arguments: &ExplainArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let flows = match &arguments.flow {
        Some(file) => read(file)?,
        None => {
            let client = client()?;
            let stream = client.stream::<Recorded>(path::RECENT_FLOWS)?;
            stream.collect::<Result<Vec<_>, _>>()?
        }
    };
    let recorded =
        flows.iter().rev().find(|flow| is_wanted(flow, arguments)).ok_or_else(|| missing(arguments))?;
    let mut stage = Stage::build(&arguments.scene, client)?;
    let flow = asked(recorded, &mut stage.cluster)?;
    let answers = stage.answers(&[flow])?;
    if arguments.suggest {
        return suggest(&answers, output);
    }
    if arguments.out.format == Format::Table {
        writeln!(output, "{} {recorded} id={}", clock(recorded.time_unix_ns), recorded.id())?;
        differences(recorded, &answers, output)?;
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

fn read(file: &Path) -> Result<Vec<Recorded>, Failure> {
    let name = file.display();
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::Read::take(std::io::stdin(), BYTES_MAX))
    } else {
        std::fs::File::open(file)
            .and_then(|file| std::io::read_to_string(std::io::Read::take(file, BYTES_MAX)))
    };
    let text = text.map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            Failure::not_found(format!("there is no file {name}"))
        } else {
            io(format!("reading {name}"))(error)
        }
    })?;
    let lines = (1..).zip(text.lines()).filter(|(_, line): &(usize, &str)| !line.trim().is_empty());
    let flow = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| {
            Failure::invalid(format!("{name}:{number}: no flow: {error}"))
                .hint("Flows are recorded with `sluice monitor -o json`.")
        })
    };
    lines.map(flow).collect()
}

/// The question that a record answers. A reply belongs to the connection the other way round.
fn asked(recorded: &Recorded, cluster: &mut Cluster) -> Result<Flow, Failure> {
    let (source, destination) = if recorded.is_reply {
        (&recorded.destination, &recorded.source)
    } else {
        (&recorded.source, &recorded.destination)
    };
    let protocol = match recorded.l4.protocol.as_str() {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        "ICMP" => Protocol::Icmp,
        "ICMPv6" => Protocol::Icmpv6,
        other => match other.parse() {
            Ok(number) => Protocol::from_number(number),
            Err(_) => return Err(Failure::invalid("the packet is not IP: no policy is about it")),
        },
    };
    let port = recorded.l4.icmp_type.map_or(destination.port, u16::from);
    Ok(Flow {
        from: end(source, cluster)?,
        to: end(destination, cluster)?,
        protocol,
        port: FlowPort::Number(port),
        request: None,
    })
}

/// Who an end is: the pod of that name, else whoever has the address, else somebody with the labels of the record.
fn end(end: &FlowEnd, cluster: &mut Cluster) -> Result<String, Failure> {
    let pod = format!("{}/{}", end.namespace, end.pod);
    if !end.pod.is_empty()
        && let Ok(known) = cluster.end(&pod)
    {
        return Ok(known);
    }
    let name = if end.pod.is_empty() { end.ip.clone() } else { pod };
    let is_known =
        cluster.participants().any(|own| own.addresses.iter().any(|own| own.to_string() == end.ip));
    if !is_known && !end.labels.is_empty() {
        let is_pod = end.labels.iter().any(|label| label.source == sluice_types::Source::K8s);
        let who = if is_pod { Who::Labelled(end.labels.clone()) } else { Who::Seen(end.labels.clone()) };
        let address = end.ip.parse().ok();
        cluster.add(Participant {
            addresses: address.into_iter().collect(),
            ..Participant::new(name.clone(), who)
        });
        return Ok(name);
    }
    cluster.end(&end.ip).map_err(|error| Failure::not_found(error.to_string()))
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
        FlowVerdict::Dropped | FlowVerdict::Audit | FlowVerdict::Forwarded | FlowVerdict::Redirected => {
            return Ok(());
        }
    };
    let note = output.warn(note);
    writeln!(output, "{note}")?;
    Ok(())
}
