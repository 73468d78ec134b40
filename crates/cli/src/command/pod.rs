//! `sluice pod`: pods on a node made by `sluice up`.

use std::io::Write;

use serde_json::json;

use crate::args::{Global, Out, PodCommand, PodRunArgs};
use crate::failure::{Exit, Failure};
use crate::node::layout::Layout;
use crate::node::pod::{self, PodSpec};
use crate::node::record::{NodeRecord, PodRecord};
use crate::output::Output;
use crate::pod_name::PodName;
use crate::table::Table;

pub(super) fn run(global: &Global, command: &PodCommand, output: &mut Output) -> Result<(), Failure> {
    let (layout, node) = node(global)?;
    match command {
        PodCommand::Run(arguments) => start(&layout, &node, arguments, output),
        PodCommand::List(out) => list(&layout, *out, output),
        PodCommand::Exec { pod, command } => Err(pod::exec(&layout, pod, command)),
        PodCommand::Rm { pods, all } => {
            let pods = if *all {
                PodRecord::load_all(&layout).iter().map(PodRecord::pod).collect()
            } else {
                pods.clone()
            };
            remove(&layout, &node, &pods, output)
        }
    }
}

/// The node that is meant: by name, by its socket, or the only one that runs.
fn node(global: &Global) -> Result<(Layout, NodeRecord), Failure> {
    let layout = if let Some(name) = &global.node {
        Layout::of(name)?
    } else if let Some(socket) = &global.socket {
        let found = Layout::all().into_iter().find(|layout| layout.socket() == *socket);
        found.ok_or_else(|| {
            Failure::not_found(format!("no node made by `sluice up` listens at {}", socket.display()))
        })?
    } else {
        only(Layout::running())?
    };
    let record = NodeRecord::load(&layout).ok().filter(|record| record.owner.is_alive());
    let record = record.ok_or_else(|| {
        Failure::new(Exit::NotRunning, format!("the node {} is not running", layout.name()))
            .hint(format!("`sluice up DIR --name {}` starts it.", layout.name()))
    })?;
    Ok((layout, record))
}

fn only(mut running: Vec<Layout>) -> Result<Layout, Failure> {
    match (running.pop(), running.as_slice()) {
        (Some(layout), []) => Ok(layout),
        (Some(last), others) => {
            let names: Vec<&str> = others.iter().chain([&last]).map(Layout::name).collect();
            Err(Failure::usage("several nodes run here")
                .hint(format!("Say which: --node {}.", names.join(" or --node "))))
        }
        (None, _) => Err(Failure::new(Exit::NotRunning, "no node made by `sluice up` is running")
            .hint("`sluice up DIR` starts one.")),
    }
}

fn start(
    layout: &Layout,
    node: &NodeRecord,
    arguments: &PodRunArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut spec = PodSpec::parse(&arguments.labels, &arguments.ports)?;
    spec.service_account.clone_from(&arguments.service_account);
    spec.command.clone_from(&arguments.command);
    if arguments.interactive {
        if spec.command.is_empty() {
            return Err(Failure::usage("-i needs a command").hint("For example: -- bash"));
        }
        return match pod::run_in_foreground(layout, node, &arguments.pod, &spec)? {
            0 => Ok(()),
            code => Err(Failure::new(Exit::Command(code), "")),
        };
    }
    let record = pod::run(layout, node, &arguments.pod, &spec)?;
    let addresses: Vec<String> = record
        .ipv4
        .iter()
        .map(ToString::to_string)
        .chain(record.ipv6.iter().map(ToString::to_string))
        .collect();
    writeln!(output, "{} {}", arguments.pod, addresses.join(" "))?;
    Ok(())
}

fn list(layout: &Layout, out: Out, output: &mut Output) -> Result<(), Failure> {
    let records = PodRecord::load_all(layout);
    let state = |record: &PodRecord| match record.process {
        None => "empty",
        Some(process) if process.is_alive() => "running",
        Some(_) => "ended",
    };
    let values: Vec<_> = records
        .iter()
        .map(|record| {
            json!({
                "namespace": record.namespace, "name": record.name, "state": state(record),
                "ipv4": record.ipv4, "ipv6": record.ipv6, "netns": record.netns,
                "containerID": record.container_id, "pid": record.process.map(|process| process.pid),
                "command": record.command, "log": record.log,
            })
        })
        .collect();
    output.print(out.format, &values, |_| {
        let mut table = Table::new(&["POD", "STATE", "IPv4", "IPv6", "PID", "COMMAND"]);
        for record in &records {
            table.row([
                record.pod().to_string(),
                state(record).to_owned(),
                record.ipv4.map(|ip| ip.to_string()).unwrap_or_default(),
                record.ipv6.map(|ip| ip.to_string()).unwrap_or_default(),
                record.process.map(|process| process.pid.to_string()).unwrap_or_default(),
                record.command.join(" "),
            ]);
        }
        table
    })
}

fn remove(layout: &Layout, node: &NodeRecord, pods: &[PodName], output: &mut Output) -> Result<(), Failure> {
    for pod in pods {
        pod::remove(layout, node, pod)?;
        writeln!(output, "{pod} removed")?;
    }
    Ok(())
}
