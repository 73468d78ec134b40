//! The commands, one module each, and how they find the agent.

mod bpf;
mod completion;
mod endpoint;
mod explain;
mod identity;
mod monitor;
mod pod;
mod policy;
mod recorded;
mod schema;
mod status;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice_client::{Client, path};

use crate::args::{Cli, Command, Global};
use crate::failure::Failure;
use crate::node::layout::Layout;
use crate::output::Output;
use crate::traffic;

/// Runs the command.
pub(crate) fn run(cli: &Cli, output: &mut Output) -> Result<(), Failure> {
    let client = || client(&cli.global);
    match &cli.command {
        Command::Status(arguments) => status::run(&client()?, arguments, output),
        Command::Endpoint(command) => endpoint::run(&client()?, command, output),
        Command::Identity(command) => identity::run(&client()?, command, output),
        Command::Policy(command) => policy::run(client, command, output),
        Command::Bpf(command) => bpf::run(&client()?, command, output),
        Command::Monitor(arguments) => monitor::run(&client()?, arguments, output),
        Command::Metrics => Ok(write!(output, "{}", client()?.text(path::METRICS)?)?),
        Command::Explain(arguments) => explain::run(client, arguments, output),
        Command::Up(arguments) => crate::node::up::run(arguments, output),
        Command::Pod(command) => pod::run(&cli.global, command, output),
        Command::Demo(arguments) => crate::demo::run(arguments, output),
        Command::Schema(arguments) => schema::run(arguments, output),
        Command::Completion(arguments) => completion::run(arguments, output),
        Command::Serve(arguments) => traffic::serve(arguments),
        Command::Probe(arguments) => traffic::run(arguments, output),
    }
}

fn client(global: &Global) -> Result<Client, Failure> {
    Ok(Client::new(socket(global)?, Duration::from_secs(global.timeout)))
}

/// Where the agent listens: as told, else the usual place, else the only node that runs here.
fn socket(global: &Global) -> Result<PathBuf, Failure> {
    if let Some(socket) = &global.socket {
        return Ok(socket.clone());
    }
    if let Some(name) = &global.node {
        return Ok(Layout::of(name)?.socket());
    }
    let usual = Path::new(path::DEFAULT_SOCKET);
    if !usual.exists()
        && let [only] = Layout::running().as_slice()
    {
        return Ok(only.socket());
    }
    Ok(usual.to_owned())
}
