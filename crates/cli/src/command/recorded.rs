//! Flows that were recorded with `sluice monitor -o json`, and the questions that they answer.

use std::path::Path;

use sluice_flow::{Flow as Recorded, FlowEnd};
use sluice_model::{Cluster, Flow, FlowPort, Participant, Who};
use sluice_types::Protocol;

use crate::failure::{Failure, io};

/// Largest file of flows that is read.
const BYTES_MAX: u64 = 64 << 20;

/// Reads a file, a flow on each line; `-` is standard input.
pub(super) fn read(file: &Path) -> Result<Vec<Recorded>, Failure> {
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
pub(super) fn asked(recorded: &Recorded, cluster: &mut Cluster) -> Result<Flow, Failure> {
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
