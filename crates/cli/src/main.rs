//! The command `sluice`: a person's view of a node, and a node to try things on.
//!
//! Asks the agent over its socket and prints; never opens maps and never decides. `up`, `pod` and `demo` play the
//! container runtime: they make namespaces and run the CNI plugin in them. Started by people and scripts.

mod args;
mod command;
mod demo;
mod documents;
mod failure;
mod manifest;
mod node;
mod output;
mod pod_name;
mod policy_name;
mod table;
mod traffic;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::failure::Failure;
use crate::output::Output;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut output = Output::stdout(cli.global.color);
    let result = command::run(&cli, &mut output).and_then(|()| Ok(output.flush()?));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => report(&failure, cli.global.color),
    }
}

/// Tells people what failed and what to do next.
fn report(failure: &Failure, color: args::Color) -> ExitCode {
    let mut stderr = Output::stderr(color);
    // Nothing is left to be done when even the error cannot be printed; the exit code says it.
    if !failure.message.is_empty() {
        let error = stderr.bad("error:");
        let _unprinted = writeln!(stderr, "{error} {}", failure.message);
    }
    if let Some(hint) = &failure.hint {
        let _unprinted = writeln!(stderr, "{hint}");
    }
    let _unprinted = stderr.flush();
    ExitCode::from(failure.exit.code())
}
