//! `sluice completion`: scripts for shells.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::aot;

use crate::args::{Cli, CompletionArgs, Shell};
use crate::failure::Failure;
use crate::output::Output;

pub(super) fn run(arguments: &CompletionArgs, output: &mut Output) -> Result<(), Failure> {
    let shell = match arguments.shell {
        Shell::Bash => aot::Shell::Bash,
        Shell::Zsh => aot::Shell::Zsh,
        Shell::Fish => aot::Shell::Fish,
    };
    // Into memory first: the generator gives up with a panic when the reader goes away.
    let mut script = Vec::new();
    aot::generate(shell, &mut Cli::command(), "sluice", &mut script);
    Ok(output.write_all(&script)?)
}
