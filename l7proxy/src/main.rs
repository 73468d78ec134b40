//! `sluice-l7proxy`: judges the requests of flows that the datapath redirects.
//!
//! One per node, beside the agent and not below it: it reads its rules from files and the datapath's maps, and goes on
//! when the agent is gone. Without rules nothing passes.

mod args;
mod flow;
mod records;
mod rules;
mod serve;
mod watch;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use clap::Parser;
use rustix::fs::FlockOperation;
use sluice_ebpf_loader::proxy::ProxyView;
use sluice_types::ProxyPort;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::args::{Args, DenyBody};
use crate::flow::Shared;
use crate::records::Records;
use crate::rules::RulesDirectory;
use crate::serve::Server;

fn main() -> ExitCode {
    let args = Args::parse();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    match start_log(&args.log).and_then(|()| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the proxy ends");
            ExitCode::FAILURE
        }
    }
}

fn start_log(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter}"))?;
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .try_init()
        .map_err(|error| anyhow::anyhow!(error))
}

fn run(args: &Args) -> anyhow::Result<()> {
    raise_file_limit();
    let rules = args.state_dir.join(sluice_proxy_rules::DIRECTORY);
    fs::create_dir_all(&rules).with_context(|| format!("make {}", rules.display()))?;
    let _lock = lock(args)?;
    let changes = watch::start(&rules).with_context(|| format!("watch {}", rules.display()))?;
    let view = ProxyView::open(&args.pins).context("open the datapath's maps; has the agent run?")?;
    let shared = Shared {
        view,
        rules: RulesDirectory::new(rules),
        records: Records::start(args.socket.clone())?,
        pod_networks: args.pod_networks.clone(),
        names_policies: args.deny_body == DenyBody::Json,
    };
    let server = Arc::new(Server {
        shared: Arc::new(shared),
        port: ProxyPort(args.port),
        settings: args.settings(),
        connections_max: args.connections_per_endpoint,
        changes,
        numbers: AtomicU64::new(first_number()),
        open: Mutex::new(HashMap::new()),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listeners = serve::listen(args.port).with_context(|| format!("listen on port {}", args.port))?;
        for listener in listeners {
            tokio::spawn(Arc::clone(&server).accept(listener));
        }
        tracing::info!(port = args.port, "ready");
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        Ok(())
    })
}

/// One proxy at a time: the lock ends with the process.
fn lock(args: &Args) -> anyhow::Result<File> {
    let path = args.state_dir.join(sluice_client::path::L7_PROXY_LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another proxy has {}", path.display()))?;
    file.set_len(0)?;
    std::io::Write::write_all(&mut &file, format!("{}\n", std::process::id()).as_bytes())?;
    Ok(file)
}

/// Flows of several lives of the proxy must not share ids.
fn first_number() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs() << 24
}

/// Each connection is two files.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files stays low");
    }
}
