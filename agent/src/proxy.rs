//! Keeps the proxy for HTTP running: starts it, starts it again when it ends, and replaces it by another version.
//!
//! It is a process beside the agent, not below it: in a group of its own, with a log of its own, and left alone when the
//! agent ends. The next agent finds it by its lock. Where it is not the program, or has not the arguments, that this agent
//! would start, another one is started, which takes over from it: the two see to that themselves.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use ipnet::IpNet;
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal, kill_process};
use sluice_client::path;

use crate::clock;
use crate::report::chain;

/// How often it is looked at. When it has ended, its ports are closed for so long.
const LOOK: Duration = Duration::from_millis(100);
/// How long a program that did not take over is not tried again, unless the file changes.
const REST: Duration = Duration::from_secs(30);
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

impl ProxySettings {
    fn arguments(&self) -> Vec<OsString> {
        let place = |flag: &str, path: &Path| {
            let mut argument = OsString::from(format!("--{flag}="));
            argument.push(path);
            argument
        };
        let networks: Vec<String> = self.pod_networks.iter().map(ToString::to_string).collect();
        let own = [
            format!("--port={}", self.port).into(),
            place("pins", &self.pins),
            place("state-dir", &self.state_dir),
            place("socket", &self.socket),
            format!("--pod-networks={}", networks.join(",")).into(),
        ];
        own.into_iter().chain(self.arguments.iter().map(OsString::from)).collect()
    }
}

/// Starts the thread that keeps the proxy running.
///
/// # Errors
/// There is no such program, or the thread cannot be started.
pub(crate) fn keep_running(settings: ProxySettings) -> anyhow::Result<()> {
    let program = &settings.program;
    anyhow::ensure!(program.is_file(), "there is no program {}", program.display());
    fs::create_dir_all(settings.state_dir.join(sluice_proxy_rules::DIRECTORY))?;
    let mut keeper = Keeper::new(settings);
    std::thread::Builder::new().name("sluice-l7proxy".to_owned()).spawn(move || {
        loop {
            keeper.look(clock::now().instant);
            std::thread::sleep(LOOK);
        }
    })?;
    Ok(())
}

/// What is known of the proxies that were started here.
#[derive(Debug)]
struct Keeper {
    arguments: Vec<OsString>,
    settings: ProxySettings,
    /// All that have not ended: older generations may take their time.
    children: Vec<Child>,
    /// The one that was started last, until it is the proxy or has ended.
    coming: Option<u32>,
    /// Which program was last to take over, and when.
    tried: Option<(ProgramFile, Instant)>,
}

/// Which file a program is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct ProgramFile {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl ProgramFile {
    fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self {
            device: file.dev(),
            inode: file.ino(),
            length: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
        })
    }
}

impl Keeper {
    fn new(settings: ProxySettings) -> Self {
        let arguments = settings.arguments();
        Self { arguments, settings, children: Vec::new(), coming: None, tried: None }
    }

    /// Starts what has to be started.
    fn look(&mut self, now: Instant) {
        self.reap();
        let is_running = is_locked(&self.settings.state_dir);
        let owner = is_running.then(|| owner(&self.settings.state_dir)).flatten();
        if self.coming.is_some() && self.coming == owner {
            self.coming = None;
        }
        if self.coming.is_some() {
            return;
        }
        let is_due = match owner {
            Some(owner) => self.is_to_be_replaced(owner, now),
            // Who is it? It may just be writing that down.
            None => !is_running,
        };
        if is_due && let Err(error) = self.start() {
            tracing::error!(error = format!("{error:#}"), "the proxy for HTTP does not start");
        }
    }

    /// Takes note of those that have ended.
    fn reap(&mut self) {
        let coming = &mut self.coming;
        self.children.retain_mut(|child| match child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                let pid = child.id();
                coming.take_if(|coming| *coming == pid);
                if status.success() {
                    tracing::info!(pid, "a proxy for HTTP ended");
                } else {
                    tracing::warn!(pid, %status, "a proxy for HTTP ended");
                }
                false
            }
            Err(error) => {
                tracing::error!(%error, "a proxy for HTTP cannot be waited for");
                false
            }
        });
    }

    /// Whether the proxy that runs is another one than would be started now.
    fn is_to_be_replaced(&mut self, owner: u32, now: Instant) -> bool {
        // A program that is not there is just being replaced, and one that cannot be looked at is just ending.
        let Ok(wanted) = ProgramFile::of(&self.settings.program) else { return false };
        let process = PathBuf::from(format!("/proc/{owner}"));
        let (Ok(running), Ok(command)) =
            (ProgramFile::of(&process.join("exe")), fs::read(process.join("cmdline")))
        else {
            return false;
        };
        if running == wanted && arguments(&command).eq(self.arguments.iter().map(OsString::as_os_str)) {
            return false;
        }
        let is_tried = self.tried.is_some_and(|(tried, at)| tried == wanted && now < at + REST);
        self.tried = if is_tried { self.tried } else { Some((wanted, now)) };
        !is_tried
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let log = self.settings.state_dir.join(LOG);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| log.display().to_string())?;
        let mut command = Command::new(&self.settings.program);
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // What is sent to the agent's group does not reach it.
            .process_group(0);
        let child = command.spawn().context("start it")?;
        tracing::info!(pid = child.id(), port = self.settings.port, "a proxy for HTTP was started");
        self.coming = Some(child.id());
        self.children.push(child);
        Ok(())
    }
}

/// The arguments in a process's command line, as `/proc` has it.
fn arguments(command: &[u8]) -> impl Iterator<Item = &OsStr> {
    let all = command.strip_suffix(b"\0").unwrap_or(command);
    all.split(|byte| *byte == 0).skip(1).map(OsStr::from_bytes)
}

/// Who has the lock, if it says so.
fn owner(state_dir: &Path) -> Option<u32> {
    fs::read_to_string(state_dir.join(path::L7_PROXY_LOCK)).ok()?.trim().parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let words = |text: &[u8]| arguments(text).map(OsStr::to_owned).collect::<Vec<_>>();
        assert_eq!(words(b"/bin/proxy\0--port=1\0--a=b c\0"), ["--port=1", "--a=b c"]);
        assert_eq!(words(b"/bin/proxy\0--a=\0\0"), ["--a=", ""]);
        assert!(words(b"").is_empty() && words(b"/bin/proxy\0").is_empty());
    }

    /// This process plays the proxy that runs.
    #[test]
    fn another_program_and_other_arguments_replace_a_proxy() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("l7proxy");
        let put = |source: &Path| {
            drop(fs::remove_file(&program));
            fs::hard_link(source, &program)
                .or_else(|_| std::os::unix::fs::symlink(source, &program))
                .unwrap();
        };
        let own = std::env::current_exe().unwrap();
        put(&own);
        let mut keeper = Keeper::new(ProxySettings {
            program: program.clone(),
            port: 1,
            pins: "/pins".into(),
            state_dir: "/state".into(),
            socket: "/socket".into(),
            pod_networks: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/16".parse().unwrap()],
            arguments: vec!["--idle-timeout=5".to_owned()],
        });
        let wanted = [
            "--port=1",
            "--pins=/pins",
            "--state-dir=/state",
            "--socket=/socket",
            "--pod-networks=10.0.0.0/8,fd00::/16",
            "--idle-timeout=5",
        ];
        assert_eq!(keeper.arguments, wanted);
        let now = clock::now().instant;
        let is_replaced =
            |keeper: &mut Keeper, later: Duration| keeper.is_to_be_replaced(std::process::id(), now + later);
        let just = Duration::ZERO;
        assert!(is_replaced(&mut keeper, just), "its arguments are others");
        assert!(!is_replaced(&mut keeper, REST / 2), "it was tried just now");
        assert!(is_replaced(&mut keeper, REST), "it is tried again");
        keeper.arguments = std::env::args_os().skip(1).collect();
        assert!(!is_replaced(&mut keeper, 2 * REST), "it is the one");
        let other = directory.path().join("other");
        fs::copy(&own, &other).unwrap();
        put(&other);
        assert!(is_replaced(&mut keeper, 2 * REST), "it is another file");
        fs::remove_file(&program).unwrap();
        assert!(!is_replaced(&mut keeper, 4 * REST), "it is just being replaced");
        put(&own);
        assert!(!is_replaced(&mut keeper, 4 * REST), "it is the one again");
        let gone = u32::MAX >> 1;
        assert!(!keeper.is_to_be_replaced(gone, now + 4 * REST), "there is no such process");
    }
}
