//! `sluice-l7proxy`: judges the requests of flows that the datapath redirects.
//!
//! One per node, beside the agent and not below it: it reads its rules from files and the datapath's maps, and goes on
//! when the agent is gone. Without rules nothing passes.

mod args;
mod door;
mod flow;
mod handover;
mod life;
mod lock;
mod metrics;
mod records;
mod rules;
mod serve;
mod watch;

use std::collections::HashMap;
use std::fs;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use sluice_ebpf_loader::proxy::{ProxyView, TimeWaits};
use sluice_l7proxy::relay::Signals;
use sluice_types::ProxyPort;
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use crate::args::{Args, DenyBody};
use crate::door::Door;
use crate::flow::Shared;
use crate::life::{Begin, Generation, Places};
use crate::metrics::Metrics;
use crate::records::Records;
use crate::rules::RulesDirectory;
use crate::serve::Server;

/// How long connections that are cut may take to notice.
const SHUTDOWN: Duration = Duration::from_millis(100);

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
    let places = Places::below(&args.state_dir);
    let begin = Begin::find(&places)?;
    let changes = watch::start(&rules).with_context(|| format!("watch {}", rules.display()))?;
    let view = ProxyView::open(&args.pins).context("open the datapath's maps; has the agent run?")?;
    let metrics = Arc::new(Metrics::new());
    let (records, rest) = Records::start(args.socket.clone(), args.records_per_second, Arc::clone(&metrics))?;
    let shared = Shared {
        view,
        rules: RulesDirectory::new(rules),
        records,
        metrics: Arc::clone(&metrics),
        pod_networks: args.pod_networks.clone(),
        names_policies: args.deny_body == DenyBody::Json,
    };
    let door = Door::make(&places.handover).context("make the socket for the next proxy")?;
    let metrics_door = Door::make(&places.metrics).context("make the socket for metrics")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let claim = begin.claim(args.port)?;
    let door = door.open().context("put the socket for the next proxy into its place")?;
    metrics.began_after(claim.account.handovers);
    metrics::serve(metrics_door.open().context("put the socket for metrics into its place")?, metrics)?;
    let (leaving, carried) = (tokio::sync::watch::Sender::new(()), mpsc::channel(1));
    let server = Server {
        shared: Arc::new(shared),
        port: ProxyPort(args.port),
        settings: args.settings(),
        connections_max: args.connections_per_endpoint,
        signals: Signals { changes, leaving: leaving.subscribe() },
        time_waits: TimeWaits::open().context("reach the kernel's table of sockets")?,
        numbers: AtomicU64::new(claim.account.numbers),
        open: Mutex::new(HashMap::new()),
        carried: carried.0,
    };
    let drain_time = Duration::from_secs(args.drain_time);
    runtime.block_on(async {
        let reins = (leaving, carried.1);
        let generation = Generation::new(Arc::new(server), claim, door, reins, drain_time)?;
        tracing::info!(port = args.port, "ready");
        generation.run().await;
        anyhow::Ok(())
    })?;
    runtime.shutdown_timeout(SHUTDOWN);
    rest.wait();
    Ok(())
}

/// Each connection is two files.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files stays low");
    }
}
