//! Wiring: starts the parts and connects them. Has no opinion of its own.
//!
//! Threads: the state with its event queue; the datapath and the disk; the sources; the node's set-up; the event
//! reader; the collector; and the API's runtime. They share channels and read-only snapshots, no locks.

mod agent;
mod replay;
mod restore;
mod run;

pub(crate) use agent::{Agent, Readers};

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sluice_client::path;
use sluice_ebpf_loader::common::PIN_SUBDIR;
use sluice_ebpf_loader::{Datapath, Sizes, bpffs};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::datapath::{Collector, Kernel, Totals, Work, file};
use crate::event::Event;
use crate::lock::Lock;
use crate::node::{self, NodeSettings, NodeWatch};
use crate::observe::Names;
use crate::proxy::{self, ProxySettings};
use crate::server::Sources;
use crate::source::directory::Worker;
use crate::state::{Settings, State};
use crate::store::{self, Store};
use crate::{clock, conflist, observe, server};

/// Events that wait for the state.
const EVENTS_MAX: usize = 4096;
/// Below the state directory: policies that came through the API.
const APPLIED_DIR: &str = "applied";

/// Runs the agent until a signal ends it.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    raise_file_limit();
    store::make_dir(&config.state_dir)?;
    let lock = Lock::take(&config.state_dir, Some("agent.lock"))?;
    bpffs::ensure(&config.bpffs)?;
    let pins = config.bpffs.join(PIN_SUBDIR);
    fs::create_dir_all(&pins).with_context(|| format!("make {}", pins.display()))?;
    let pin_lock = Lock::take(&pins, None)?;
    let store = Store::open(&config.state_dir)?;
    let is_first_run = !config.state_dir.join(file::NUMBERS).exists();
    let datapath = Arc::new(Datapath::load_or_adopt(&pins, &Sizes::default())?);
    datapath.settings.write(&sluice_ebpf_loader::Settings::default())?;

    let mut problems = node::enable_forwarding(config.pool4.0.is_some(), config.pool6.0.is_some());
    let restored = restore::gather(&datapath, &store, std::mem::take(&mut problems))?;
    let state = State::restore(settings(&config), restored, clock::now());
    make_directories(&config, is_first_run)?;

    let (events, queue) = mpsc::channel(EVENTS_MAX);
    let (names_sender, names) = watch::channel(Default::default());
    let hub = observe::start(datapath.events()?, names.clone())?;
    let kernel = {
        let events = events.clone();
        let send = move |report| events.blocking_send(Event::Executed(report)).is_ok();
        Kernel::start(&datapath, store.clone(), send)?
    };
    let source = start_source(&config, &store, &events)?;
    start_node_watch(&config, &events, Arc::clone(&datapath), names.clone())?;
    let totals = Arc::new(Totals::begin(datapath.counters.clone())?);
    let collector = Collector::start(datapath.conntrack.clone(), Arc::clone(&totals))?;
    let agent = Agent::new(events, source.clone(), Readers::new(&datapath), (hub, names), kernel.clone());

    let (ready, is_ready) = watch::channel(false);
    let outlets =
        run::Outlets { kernel, source, collector, names: names_sender, tickets: agent.tickets(), ready };
    std::thread::Builder::new()
        .name("sluice-state".to_owned())
        .spawn(move || run::run(state, queue, &outlets))?;
    let queue_dir = config.state_dir.join(path::DELETE_QUEUE_DIR);
    replay::all(&agent, &queue_dir);
    start_proxy(&config, &pins)?;
    let proxy = config.l7_proxy.as_ref().map(|_| config.state_dir.join(path::L7_PROXY_METRICS));
    serve(&config, Sources { agent, totals, proxy }, is_ready)?;
    drop((datapath, lock, pin_lock));
    Ok(())
}

/// Each endpoint's policy is a map, and each map a file.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays low; policies of many endpoints will not fit");
    }
}

fn settings(config: &Config) -> Settings {
    // Audit mode is a property of each endpoint; the engine is told with the endpoint.
    let policy = sluice_policy::Config { audit: false, ..config.policy() };
    Settings {
        policy,
        audit: config.audit,
        enforcement: config.enforcement.as_str(),
        source: format!("directory {}", config.manifests.display()),
        pools: config.pools(),
        release_rest: Duration::from_secs(config.release_rest),
        mtu: config.mtu,
    }
}

/// Makes the user's directory on the first run only: if it vanishes later, that is no order to drop all policies.
fn make_directories(config: &Config, is_first_run: bool) -> anyhow::Result<()> {
    store::make_dir(&config.state_dir.join(APPLIED_DIR))?;
    if is_first_run && !config.manifests.exists() {
        fs::create_dir_all(&config.manifests)
            .with_context(|| format!("make {}", config.manifests.display()))?;
        fs::set_permissions(&config.manifests, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("open {} for others to read", config.manifests.display()))?;
    }
    Ok(())
}

fn start_source(
    config: &Config,
    store: &Store,
    events: &mpsc::Sender<Event>,
) -> anyhow::Result<crate::source::directory::Handle> {
    let absolute = |path: &Path| std::path::absolute(path).with_context(|| path.display().to_string());
    let user = absolute(&config.manifests)?;
    let applied = absolute(&config.state_dir.join(APPLIED_DIR))?;
    let worker = Worker::new(user, applied, config.policy(), store.clone());
    let handle = worker.handle();
    let events = events.clone();
    std::thread::Builder::new()
        .name("sluice-source".to_owned())
        .spawn(move || worker.run(move |event| events.blocking_send(event).is_ok()))?;
    Ok(handle)
}

/// Starts the proxy, if there is one.
fn start_proxy(config: &Config, pins: &Path) -> anyhow::Result<()> {
    let Some(program) = &config.l7_proxy else { return Ok(()) };
    let absolute = |path: &Path| std::path::absolute(path).with_context(|| path.display().to_string());
    proxy::keep_running(ProxySettings {
        program: absolute(program)?,
        port: config.l7_proxy_port,
        pins: absolute(pins)?,
        state_dir: absolute(&config.state_dir)?,
        socket: absolute(&config.socket)?,
        pod_networks: config.pools(),
        arguments: config.l7_proxy_argument.clone(),
    })
    .context("the proxy for HTTP")
}

fn start_node_watch(
    config: &Config,
    events: &mpsc::Sender<Event>,
    datapath: Arc<Datapath>,
    names: watch::Receiver<Arc<Names>>,
) -> anyhow::Result<()> {
    let settings = NodeSettings {
        bpffs: config.bpffs.clone(),
        pins: config.bpffs.join(PIN_SUBDIR),
        devices: config.devices.clone(),
        routers: config.routers(),
        masqueraded: if config.masquerade { config.pools() } else { Vec::new() },
        redirects: !config.policy().proxies.is_empty(),
    };
    let mut watch = NodeWatch::new(settings, datapath, names)?;
    // The first look before anything else: policies need the node's addresses.
    for event in watch.look() {
        events.try_send(event).context("queue the node's addresses")?;
    }
    let events = events.clone();
    std::thread::Builder::new()
        .name("sluice-node".to_owned())
        .spawn(move || watch.run(move |event| events.blocking_send(event).is_ok()))?;
    Ok(())
}

/// Serves the API until a signal comes. Everything else ends with the process.
fn serve(config: &Config, sources: Sources, mut is_ready: watch::Receiver<bool>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener =
            listen(&config.socket).with_context(|| format!("listen on {}", config.socket.display()))?;
        if let Some(address) = config.metrics_address {
            let metrics = TcpListener::bind(address).await;
            let metrics = metrics.with_context(|| format!("listen on {address} for metrics"))?;
            tokio::spawn(server::serve_metrics(metrics, sources.clone()));
        }
        tokio::spawn(server::serve(listener, sources));
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut int = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        let announce = async {
            is_ready.wait_for(|ready| *ready).await.context("the state has stopped")?;
            conflist::write(config)?;
            tracing::info!(socket = %config.socket.display(), "ready");
            // The other end goes only with the thread that owns the state.
            while is_ready.changed().await.is_ok() {}
            anyhow::bail!("the state has stopped")
        };
        tokio::select! {
            result = announce => result,
            _ = term.recv() => Ok(()),
            _ = int.recv() => Ok(()),
        }
    })
}

/// A socket that only root can use. One that is left of an earlier run is replaced; the lock says that run is over.
fn listen(path: &PathBuf) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent()
        && !directory.as_os_str().is_empty()
        && !directory.exists()
    {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // The process's mask made it private from the start.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Asks the datapath to report verdicts that allow, while somebody wants them.
pub(crate) fn report_verdicts(kernel: &Kernel, is_on: bool) {
    kernel.send(Work::ReportVerdicts(is_on));
}
