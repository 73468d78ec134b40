//! Starting a node, keeping it in the foreground, and removing all of it whatever happens.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ipnet::IpNet;
use rustix::fs::FlockOperation;
use rustix::mount::UnmountFlags;
use sluice_client::model::Status;
use sluice_client::{Client, path};
use sluice_netlink::Netns;

use super::layout::Layout;
use super::process::ProcessId;
use super::record::{NodeRecord, PodRecord};
use super::signal::Interrupt;
use super::{binary, pod, world};
use crate::args::UpArgs;
use crate::failure::{Failure, io};
use crate::output::Output;

/// How long the agent may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How long the agent may take to end when asked.
const END_WITHIN: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_millis(20);

/// `sluice up`: a node until Ctrl-C, or until its agent ends.
pub(crate) fn run(arguments: &UpArgs, output: &mut Output) -> Result<(), Failure> {
    require_root()?;
    let interrupt = Interrupt::install()?;
    for name in remove_stale() {
        writeln!(output, "Removed the rest of the node {name}, whose `sluice up` was killed.")?;
    }
    let claim = Claim::take(&Layout::of(&arguments.name)?)?.ok_or_else(|| {
        Failure::error(format!("the node {} runs already", arguments.name))
            .hint("Give this one another name: --name NAME.")
    })?;
    let mut node = Node::start(claim, arguments, None, &interrupt)?;
    greet(&node, arguments, output)?;
    output.flush()?;
    while !interrupt.is_asked() {
        if let Some(status) = node.agent_ended() {
            drop(node);
            return Err(Failure::error(format!(
                "the agent ended by itself ({status}); the node was removed"
            ))
            .hint("What it said last stands above."));
        }
        std::thread::sleep(STEP);
    }
    drop(node);
    writeln!(output, "The node {} was removed.", arguments.name)?;
    Ok(())
}

/// Namespaces, mounts and kernel programs need root.
pub(crate) fn require_root() -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::error("a node needs network namespaces and kernel programs").hint("Run this as root."))
}

fn greet(node: &Node, arguments: &UpArgs, output: &mut Output) -> Result<(), Failure> {
    let name = node.layout.name();
    let title = output.bold(&format!("The node {name} is up."));
    writeln!(output, "{title} Ctrl-C removes it and its pods.")?;
    writeln!(output, "  manifests  {}", node.record.manifests.display())?;
    writeln!(output, "  socket     {}", node.layout.socket().display())?;
    if !arguments.host {
        writeln!(output, "  namespace  {} (`ip netns exec {0} ip address`)", node.layout.netns_name())?;
        writeln!(output, "  outside    198.51.100.1, 203.0.113.1, 169.254.169.254, 2001:db8:51::1")?;
    }
    writeln!(output, "In another terminal:")?;
    if name != "node" {
        writeln!(output, "  export SLUICE_NODE={name}")?;
    }
    for line in ["pod run shop/web --labels app=web -- COMMAND", "endpoint list", "monitor"] {
        writeln!(output, "  sluice {line}")?;
    }
    Ok(())
}

/// A running node. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) layout: Layout,
    pub(crate) netns: Netns,
    record: NodeRecord,
    agent: Option<Child>,
    /// Given back last, when everything is gone.
    _claim: Claim,
}

impl Node {
    /// Makes the node and waits until its agent serves. The agent's log goes to `log`, or to our standard error.
    pub(crate) fn start(
        claim: Claim,
        arguments: &UpArgs,
        log: Option<&Path>,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        let layout = Layout::of(&arguments.name)?;
        let pools = [parse_pool("--pool4", &arguments.pool4)?, parse_pool("--pool6", &arguments.pool6)?];
        let manifests = arguments.manifests.canonicalize().map_err(|error| {
            Failure::not_found(format!("there is no directory {}: {error}", arguments.manifests.display()))
                .hint("It may be empty: `mkdir` makes it.")
        })?;
        let owner = ProcessId::current().ok_or_else(|| Failure::error("/proc is not mounted"))?;
        let netns = if arguments.host {
            PathBuf::from(format!("/proc/{}/ns/net", owner.pid))
        } else {
            layout.netns()
        };
        let flags = agent_flags(&layout, &manifests, arguments);
        let record =
            NodeRecord { owner, manifests, host: arguments.host, netns, agent: None, agent_flags: flags };
        std::fs::create_dir_all(layout.dir()).map_err(io("making the node's directory"))?;
        record.store(&layout)?;
        let netns = make_netns(&layout, arguments.host, &pools);
        let netns = netns.inspect_err(|_| dismantle(&layout, &record))?;
        let mut node = Self { layout, netns, record, agent: None, _claim: claim };
        node.start_agent(log)?;
        node.wait_until_ready(log, interrupt)?;
        Ok(node)
    }

    fn start_agent(&mut self, log: Option<&Path>) -> Result<(), Failure> {
        for dir in [self.layout.state_dir(), self.layout.bpffs(), self.layout.pods_dir()] {
            std::fs::create_dir_all(&dir).map_err(io(format!("making {}", dir.display())))?;
        }
        let mut command = Command::new(binary("sluice-agent")?);
        // A group of its own, so that Ctrl-C reaches this process alone, which ends things in order.
        command.args(&self.record.agent_flags).stdin(Stdio::null()).process_group(0);
        if let Some(log) = log {
            let file = File::create(log).map_err(io(format!("creating {}", log.display())))?;
            let twin = file.try_clone().map_err(io("opening the agent's log"))?;
            command.stdout(file).stderr(twin);
        }
        let started = self.netns.run(|| command.spawn()).map_err(io("starting sluice-agent"))?;
        let agent = started.map_err(io("starting sluice-agent"))?;
        self.record.agent = ProcessId::of(agent.id());
        self.agent = Some(agent);
        self.record.store(&self.layout)
    }

    fn wait_until_ready(&mut self, log: Option<&Path>, interrupt: &Interrupt) -> Result<(), Failure> {
        let client = self.client();
        let tail = || log.and_then(|log| std::fs::read_to_string(log).ok()).map(|text| last_lines(&text, 12));
        let with_tail = |failure: Failure| match tail() {
            Some(tail) if !tail.is_empty() => failure.hint(tail),
            _ => failure,
        };
        for _ in 0..READY_WITHIN.as_millis() / STEP.as_millis() {
            interrupt.check()?;
            if let Some(status) = self.agent_ended() {
                return Err(with_tail(Failure::error(format!(
                    "the agent ended while it started ({status})"
                ))));
            }
            if client.fetch::<Status>(path::STATUS).is_ok_and(|status| status.state != "starting") {
                return Ok(());
            }
            std::thread::sleep(STEP);
        }
        Err(with_tail(Failure::error(format!("the agent does not serve after {} s", READY_WITHIN.as_secs()))))
    }

    /// A client of its agent.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.layout.socket(), Duration::from_secs(10))
    }

    fn agent_ended(&mut self) -> Option<std::process::ExitStatus> {
        self.agent.as_mut()?.try_wait().ok().flatten()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(agent) = self.record.agent {
            agent.signal(rustix::process::Signal::TERM);
        }
        if let Some(mut agent) = self.agent.take() {
            end_child(&mut agent);
        }
        dismantle(&self.layout, &self.record);
    }
}

fn end_child(child: &mut Child) {
    for _ in 0..END_WITHIN.as_millis() / STEP.as_millis() {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(STEP);
    }
    // Neither can fail for a child that was not waited for yet.
    let _killed = child.kill();
    let _waited = child.wait();
}

/// The last lines of a log, indented.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.iter().skip(lines.len().saturating_sub(count));
    tail.map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

fn parse_pool(flag: &str, text: &str) -> Result<Option<IpNet>, Failure> {
    if text.is_empty() || text == "off" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| {
        Failure::invalid(format!("{flag} {text:?} is not a prefix like 10.244.0.0/24: {error}"))
    })
}

fn agent_flags(layout: &Layout, manifests: &Path, arguments: &UpArgs) -> Vec<String> {
    let place = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
    let pool = |flag: &str, text: &str| format!("--{flag}={}", if text == "off" { "" } else { text });
    let mut flags = vec![
        place("manifests", manifests),
        place("socket", &layout.socket()),
        place("state-dir", &layout.state_dir()),
        place("bpffs", &layout.bpffs()),
        pool("pool4", &arguments.pool4),
        pool("pool6", &arguments.pool6),
        format!("--enforcement={}", arguments.enforcement),
    ];
    if let Ok(proxy) = binary("sluice-l7proxy") {
        flags.push(place("l7-proxy", &proxy));
    }
    if arguments.audit {
        flags.push("--audit".to_owned());
    }
    flags.extend(arguments.agent_flags.iter().cloned());
    flags
}

fn make_netns(layout: &Layout, host: bool, pools: &[Option<IpNet>]) -> Result<Netns, Failure> {
    if host {
        return Netns::current().map_err(io("opening this network namespace"));
    }
    let pools: Vec<IpNet> = pools.iter().flatten().copied().collect();
    world::make(layout, &pools)
}

/// The right to run the node of one name; nobody else has it at the same time.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    _lock: File,
}

impl Claim {
    /// Takes the right, or answers none if somebody has it.
    pub(crate) fn take(layout: &Layout) -> Result<Option<Self>, Failure> {
        let path = layout.lock_file();
        let doing = || format!("locking {}", path.display());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io(doing()))?;
        }
        loop {
            let file = OpenOptions::new().create(true).append(true).open(&path).map_err(io(doing()))?;
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                return Ok(None);
            }
            // The former owner unlinks the file while it holds the lock: only the file that is there counts.
            let ours = file.metadata().map_err(io(doing()))?.ino();
            if std::fs::metadata(&path).is_ok_and(|there| there.ino() == ours) {
                return Ok(Some(Self { path, _lock: file }));
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Still locked while it is unlinked: who waits for it sees that it is another file by now.
        let _gone = std::fs::remove_file(&self.path);
    }
}

/// Removes what is left of nodes whose process was killed; answers their names.
pub(crate) fn remove_stale() -> Vec<String> {
    let mut removed = Vec::new();
    for layout in Layout::all() {
        let Ok(Some(_claim)) = Claim::take(&layout) else { continue };
        let Ok(record) = NodeRecord::load(&layout) else { continue };
        if record.owner.is_alive() {
            continue;
        }
        if let Some(agent) = record.agent {
            agent.end(END_WITHIN);
        }
        dismantle(&layout, &record);
        removed.push(layout.name().to_owned());
    }
    removed
}

/// Ends the proxy that the node's agent started: it outlives the agent. Its number is its own for as long as it holds
/// the lock.
fn end_proxy(layout: &Layout) {
    let path = layout.state_dir().join(path::L7_PROXY_LOCK);
    let Ok(mut lock) = File::open(path) else { return };
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() {
        return;
    }
    let mut text = String::new();
    let read = std::io::Read::read_to_string(&mut lock, &mut text);
    if let Some(process) = read.ok().and_then(|_| text.trim().parse().ok()).and_then(ProcessId::of) {
        process.end(END_WITHIN);
    }
}

/// Removes pods, namespaces, mounts and files of a node whose agent has ended. Goes on past failures: what is left is
/// found again at the next start.
fn dismantle(layout: &Layout, record: &NodeRecord) {
    end_proxy(layout);
    for pod in PodRecord::load_all(layout) {
        pod::dismantle(layout, record, &pod);
    }
    if record.host
        && let Ok(agent) = binary("sluice-agent")
    {
        // On the machine's own network the agent takes its things away itself; elsewhere they go with the namespace.
        let quiet = || Stdio::null();
        let _done = Command::new(agent)
            .arg("cleanup")
            .args(&record.agent_flags)
            .stdin(quiet())
            .stdout(quiet())
            .status();
    }
    world::remove(layout);
    while rustix::mount::unmount(layout.bpffs(), UnmountFlags::DETACH).is_ok() {}
    let _removed = std::fs::remove_dir_all(layout.dir());
}
