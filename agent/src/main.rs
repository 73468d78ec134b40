//! `sluice-agent`: enforces network policy on one node.
//!
//! The composition root: reads sources, owns the state, programs the datapath, serves the local API. It decides no
//! verdict (`sluice-policy` does) and touches no map itself (`sluice-ebpf-loader` does). It can stop at any moment:
//! the kernel goes on with the last good policy.

mod app;
mod cleanup;
mod clock;
mod config;
mod conflist;
mod datapath;
mod effect;
mod endpoint;
mod event;
mod identity;
mod ipam;
mod ipcache;
mod lock;
mod node;
mod observe;
mod proxy;
mod report;
mod server;
mod source;
mod state;
mod store;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::config::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Everything the agent writes is root's business; what others may read gets its mode by name.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if let Err(error) = start_log(&cli.config.log) {
        complain(&error);
        return ExitCode::from(2);
    }
    die_with_threads();
    let result = match cli.command {
        None => app::run(cli.config),
        Some(Command::Cleanup) => cleanup::run(&cli.config),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// A thread of ours that panics takes the process along: half an agent would look like a whole one. The kernel goes
/// on enforcing, and whoever started the agent starts it again.
fn die_with_threads() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        if std::thread::current().name().is_some_and(|name| name.starts_with("sluice-")) {
            std::process::exit(70);
        }
    }));
}

#[expect(clippy::print_stderr, reason = "the last words of a program that cannot go on")]
fn complain(error: &anyhow::Error) {
    eprintln!("sluice-agent: {error:#}");
}

fn start_log(filter: &str) -> anyhow::Result<()> {
    let filter = if filter.contains(['=', ',']) {
        EnvFilter::try_new(filter)?
    } else {
        EnvFilter::try_new(format!("warn,sluice_agent={filter},sluice_ebpf_loader={filter}"))?
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}
