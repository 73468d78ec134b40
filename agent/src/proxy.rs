//! Keeps the proxy for HTTP running: starts it, and starts it again when it ends.
//!
//! It is a process beside the agent, not below it: in a group of its own, with a log of its own, and left alone when the
//! agent ends. The next agent finds it by its lock and starts another one only when that is free.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use ipnet::IpNet;
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal, kill_process};
use sluice_client::path;

use crate::report::chain;

/// How long a proxy that ended is not started again. Its ports are closed meanwhile.
const PAUSE: Duration = Duration::from_millis(100);
/// How often one that another agent started is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long a proxy may take to end when asked.
const END_WITHIN: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(20);
/// Below the state directory.
const LOG: &str = "proxy/l7proxy.log";

/// How the proxy is started.
#[derive(Clone, Debug)]
pub(crate) struct ProxySettings {
    /// The program.
    pub program: PathBuf,
    /// Where it listens.
    pub port: u16,
    /// Where the maps are pinned.
    pub pins: PathBuf,
    /// The agent's state directory.
    pub state_dir: PathBuf,
    /// The agent's socket.
    pub socket: PathBuf,
    /// Networks of pods.
    pub pod_networks: Vec<IpNet>,
    /// More arguments, as the operator gave them.
    pub arguments: Vec<String>,
}

/// Starts the thread that keeps the proxy running.
///
/// # Errors
/// There is no such program, or the thread cannot be started.
pub(crate) fn keep_running(settings: ProxySettings) -> anyhow::Result<()> {
    let program = &settings.program;
    anyhow::ensure!(program.is_file(), "there is no program {}", program.display());
    fs::create_dir_all(settings.state_dir.join(sluice_proxy_rules::DIRECTORY))?;
    std::thread::Builder::new().name("sluice-l7proxy".to_owned()).spawn(move || {
        loop {
            if is_locked(&settings.state_dir) {
                std::thread::sleep(LOOK);
                continue;
            }
            match run_once(&settings) {
                Ok(status) => tracing::warn!(%status, "the proxy for HTTP ended, it is started again"),
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "the proxy for HTTP does not start")
                }
            }
            std::thread::sleep(PAUSE);
        }
    })?;
    Ok(())
}

fn run_once(settings: &ProxySettings) -> anyhow::Result<std::process::ExitStatus> {
    let log = settings.state_dir.join(LOG);
    let log =
        File::options().create(true).append(true).open(&log).with_context(|| log.display().to_string())?;
    let place = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
    let networks: Vec<String> = settings.pod_networks.iter().map(ToString::to_string).collect();
    let mut command = Command::new(&settings.program);
    command
        .arg(format!("--port={}", settings.port))
        .arg(place("pins", &settings.pins))
        .arg(place("state-dir", &settings.state_dir))
        .arg(place("socket", &settings.socket))
        .arg(format!("--pod-networks={}", networks.join(",")))
        .args(&settings.arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // What is sent to the agent's group does not reach it.
        .process_group(0);
    let mut child = command.spawn().context("start it")?;
    tracing::info!(pid = child.id(), port = settings.port, "the proxy for HTTP was started");
    Ok(child.wait()?)
}

/// Whether a proxy runs on this state directory.
fn is_locked(state_dir: &Path) -> bool {
    let Ok(file) = File::open(state_dir.join(path::L7_PROXY_LOCK)) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

/// Ends the proxy that runs on this state directory, if one does.
///
/// # Errors
/// It does not end, or is nobody who can be told to.
pub(crate) fn end(state_dir: &Path) -> io::Result<()> {
    for signal in [Signal::TERM, Signal::KILL] {
        if !is_locked(state_dir) {
            return Ok(());
        }
        let text = fs::read_to_string(state_dir.join(path::L7_PROXY_LOCK))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the proxy's lock names no process"))?;
        if let Err(error) = kill_process(pid, signal) {
            tracing::debug!(error = chain(&error), "the proxy has just ended");
        }
        for _ in 0..END_WITHIN.as_millis() / STEP.as_millis() {
            if !is_locked(state_dir) {
                return Ok(());
            }
            std::thread::sleep(STEP);
        }
    }
    Err(io::Error::other("the proxy for HTTP does not end"))
}
