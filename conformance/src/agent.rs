//! The subject: the agent's process, and its local API as anybody can speak it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use rustix::thread::LinkNameSpaceType;
use serde::Deserialize;
use serde_json::Value;

use crate::clock;
use crate::netns::Netns;

/// How long the agent has to answer or to become what it should.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How many flows are kept; a step asks for far fewer.
const FLOWS_MAX: usize = 100_000;

/// A binary of the project: beside the directory of this test's own executable.
///
/// # Errors
/// It is not there.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program")?;
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!(
            "{name} is not there: conformance tests the built binaries beside {}; run `make build`",
            own.display()
        )
    })
}

/// What the agent is started with.
#[derive(Clone, Debug)]
pub struct AgentFlags {
    /// Directory with all of the node's files.
    pub dir: PathBuf,
    /// Flags beyond the directories.
    pub flags: Vec<String>,
}

/// The agent of one node. Killed when dropped.
#[derive(Debug)]
pub struct Agent {
    flags: AgentFlags,
    child: Option<Child>,
}

impl Agent {
    /// Starts it in the namespace and waits until its state is `ok`.
    ///
    /// # Errors
    /// The binary is missing, ends, or is not ready in time; the message holds the end of its log.
    pub fn start(netns: &Netns, flags: AgentFlags) -> Result<Self> {
        let mut agent = Self { flags, child: None };
        agent.start_again(netns)?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// Starts it after [`Self::kill`], without waiting.
    ///
    /// # Errors
    /// The process cannot be made.
    pub fn start_again(&mut self, netns: &Netns) -> Result<()> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .context("opening the log")?;
        let mut command = Command::new(binary("sluice-agent")?);
        command
            .arg("--manifests")
            .arg(self.flags.dir.join("manifests"))
            .arg("--socket")
            .arg(self.socket())
            .arg("--state-dir")
            .arg(self.state_dir())
            .arg("--bpffs")
            .arg(self.flags.dir.join("bpf"))
            .args(&self.flags.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("copying the log's descriptor")?)
            .stderr(log);
        self.child = Some(spawn_in(&mut command, netns, true)?);
        Ok(())
    }

    /// Waits until the agent says that all is well.
    ///
    /// # Errors
    /// It ended, or does not say so in time.
    pub fn wait_ready(&mut self) -> Result<()> {
        let waited = clock::wait_for("the agent's state ok", PATIENCE, || {
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                return Ok(Err(status));
            }
            let status: Value = self.fetch("/v1/status").map_err(|error| format!("{error:#}"))?;
            match status.get("state").and_then(Value::as_str) {
                Some("ok") => Ok(Ok(())),
                Some("degraded") => {
                    Err(format!("degraded: {}", status.get("problems").unwrap_or(&Value::Null)))
                }
                state => Err(format!("its state is {state:?}")),
            }
        });
        match waited {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!("the agent ended, {status}:\n{}", self.log_end()),
            Err(error) => Err(error.context(format!("the agent's log ends:\n{}", self.log_end()))),
        }
    }

    /// SIGKILL, and waits for the process to be gone.
    ///
    /// # Errors
    /// The process cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("killing the agent")?;
            child.wait().context("waiting for the agent")?;
        }
        Ok(())
    }

    /// Ends the proxies that the agent started, which outlive it.
    fn end_proxies(&self) {
        for pid in self.proxies() {
            let _gone = rustix::process::kill_process(pid, Signal::KILL);
        }
    }

    /// All processes that are, or were, the proxy of this node.
    #[must_use]
    pub fn proxies(&self) -> Vec<Pid> {
        let state_dir = format!("--state-dir={}", self.state_dir().display());
        let is_ours = |pid: &Pid| {
            let command = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
            command
                .is_ok_and(|command| command.split(|byte| *byte == 0).any(|own| own == state_dir.as_bytes()))
        };
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.filter_map(Pid::from_raw).filter(is_ours).collect()
    }

    /// Another flag, from the next start on.
    pub fn add_flag(&mut self, flag: &str) {
        self.flags.flags.push(flag.to_owned());
    }

    /// The number of the proxy's process, if one has begun.
    #[must_use]
    pub fn proxy_pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.state_dir().join("proxy/l7proxy.lock")).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    /// The number of the process, 0 if none runs.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// The socket of its API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.flags.dir.join("agent.sock")
    }

    /// What survives its restart.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.flags.dir.join("state")
    }

    fn log_file(&self) -> PathBuf {
        self.flags.dir.join("agent.log")
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let log = std::fs::read(self.log_file()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(25)..).unwrap_or_default();
        tail.join("\n")
    }

    /// GET.
    ///
    /// # Errors
    /// No agent, an error answer, or not the JSON that is wanted.
    pub fn fetch<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T> {
        let body = request(&self.socket(), "GET", path, None)?;
        serde_json::from_slice(&body)
            .with_context(|| format!("understanding {path}: {}", String::from_utf8_lossy(&body)))
    }

    /// GET of what is no JSON.
    ///
    /// # Errors
    /// No agent, or an error answer.
    pub fn fetch_text(&self, path: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&request(&self.socket(), "GET", path, None)?).into_owned())
    }

    /// PATCH.
    ///
    /// # Errors
    /// No agent, or an error answer.
    pub fn patch(&self, path: &str, body: &Value) -> Result<()> {
        request(&self.socket(), "PATCH", path, Some(body)).map(drop)
    }

    /// All endpoints.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub fn endpoints(&self) -> Result<Vec<Endpoint>> {
        self.fetch("/v1/endpoints")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _gone = self.kill();
        self.end_proxies();
    }
}

/// Starts a process in the namespace. `dies_with_us`: it is killed when the calling thread ends.
///
/// # Errors
/// The process cannot be made.
pub fn spawn_in(command: &mut Command, netns: &Netns, dies_with_us: bool) -> Result<Child> {
    let fd: OwnedFd = netns.as_fd().try_clone_to_owned().context("copying a descriptor")?;
    let enter = move || {
        if dies_with_us {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        }
        rustix::thread::move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    };
    // SAFETY: two system calls between fork and exec; nothing is allocated and no lock is taken.
    unsafe { command.pre_exec(enter) };
    command.spawn().with_context(|| format!("starting {}", command.get_program().display()))
}

fn request(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<Vec<u8>> {
    let mut stream = connect(socket, method, path, body)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("reading the answer to {method} {path}"))?;
    let head_len = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .with_context(|| format!("the answer to {method} {path} has no head"))?;
    let body = answer.split_off(head_len + 4);
    let head = String::from_utf8_lossy(&answer);
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(
        status.starts_with('2'),
        "{method} {path} was answered {}: {}",
        head.lines().next().unwrap_or_default(),
        String::from_utf8_lossy(&body).trim()
    );
    Ok(body)
}

fn connect(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("connecting to the agent at {}", socket.display()))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let question = format!(
        "{method} {path} HTTP/1.0\r\nHost: sluice\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(question.as_bytes()).with_context(|| format!("asking {method} {path}"))?;
    Ok(stream)
}

/// What the API says of an endpoint, as far as cases look at it.
#[derive(Clone, Debug, Deserialize)]
pub struct Endpoint {
    /// Node-local number.
    pub id: u64,
    /// Its state, `ready`.
    pub state: String,
    /// `Enabled`, `Disabled` or `Disabled (Audit)`.
    pub ingress: String,
    /// The same.
    pub egress: String,
    /// Security identity.
    pub identity: u32,
    /// `source:key=value`.
    pub labels: Vec<String>,
    /// What the plugin said about it.
    pub attachment: Attachment,
    /// The revision in the kernel.
    pub realized_revision: u64,
    /// The revision that is wanted.
    pub wanted_revision: u64,
    /// Packets by direction and outcome.
    #[serde(default)]
    pub counters: Vec<Counter>,
}

/// Whose endpoint it is.
#[derive(Clone, Debug, Deserialize)]
pub struct Attachment {
    /// Namespace of the pod.
    pub pod_namespace: Option<String>,
    /// Name of the pod.
    pub pod_name: Option<String>,
    /// Name of the host-side veth.
    pub host_ifname: String,
    /// The pod's MAC address.
    pub mac: String,
    /// The host-side veth's.
    pub host_mac: String,
}

/// Packets with one outcome.
#[derive(Clone, Debug, Deserialize)]
pub struct Counter {
    /// `ingress` or `egress`.
    pub direction: String,
    /// `FORWARDED` or a drop reason.
    pub outcome: String,
    /// How many.
    pub packets: u64,
}

impl Endpoint {
    /// `NAMESPACE/NAME` of its pod.
    #[must_use]
    pub fn pod(&self) -> String {
        let Attachment { pod_namespace, pod_name, .. } = &self.attachment;
        format!(
            "{}/{}",
            pod_namespace.as_deref().unwrap_or_default(),
            pod_name.as_deref().unwrap_or_default()
        )
    }

    /// Packets dropped, by direction and reason.
    pub fn drops(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.counters
            .iter()
            .filter(|counter| counter.outcome != "FORWARDED")
            .map(|counter| (counter.direction.as_str(), counter.outcome.as_str(), counter.packets))
    }
}

/// A reported packet, as far as cases look at it.
#[derive(Clone, Debug, Deserialize)]
pub struct Flow {
    /// `FORWARDED`, `DROPPED`, `AUDIT`.
    pub verdict: String,
    /// `POLICY_DENIED` …
    pub drop_reason: Option<String>,
    /// `ingress` or `egress`.
    pub direction: String,
    /// Who sent it.
    pub source: FlowEnd,
    /// To whom.
    pub destination: FlowEnd,
    /// Layer 4.
    pub l4: L4,
    /// The policies that decided.
    #[serde(default)]
    pub policies: Vec<PolicyOrigin>,
    /// Events that were lost before this one.
    #[serde(default)]
    pub lost: u32,
    /// The request, if a proxy saw one.
    #[serde(default)]
    pub http: Option<HttpRecord>,
}

/// A request.
#[derive(Clone, Debug, Deserialize)]
pub struct HttpRecord {
    /// Its method.
    pub method: String,
    /// The path that was judged.
    pub path: String,
    /// The status of the answer.
    pub status: Option<u16>,
}

/// One end of a flow.
#[derive(Clone, Debug, Deserialize)]
pub struct FlowEnd {
    /// Address; empty if the packet is not IP.
    pub ip: String,
    /// Port, 0 if none.
    pub port: u16,
    /// Security identity.
    pub identity: u32,
}

/// Layer 4 of a flow.
#[derive(Clone, Debug, Deserialize)]
pub struct L4 {
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6`.
    pub protocol: String,
    /// ICMP type.
    pub icmp_type: Option<u8>,
}

/// A policy that decided.
#[derive(Clone, Debug, Deserialize)]
pub struct PolicyOrigin {
    /// `cnp/NAMESPACE/NAME`.
    pub policy: String,
}

impl Flow {
    /// Whether it is about a packet from `source` to `target` (a port of 0 stands for any).
    #[must_use]
    pub fn is_about(&self, protocol: &str, source: SocketAddr, target: SocketAddr) -> bool {
        let is = |end: &FlowEnd, place: SocketAddr| {
            end.ip.parse() == Ok(place.ip()) && (place.port() == 0 || end.port == place.port())
        };
        let family_name = if protocol == "ICMP" && source.is_ipv6() { "ICMPv6" } else { protocol };
        self.l4.protocol == family_name && is(&self.source, source) && is(&self.destination, target)
    }

    /// Whether `address` sent it.
    #[must_use]
    pub fn is_from(&self, address: IpAddr) -> bool {
        self.source.ip.parse() == Ok(address)
    }
}

impl std::fmt::Display for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { verdict, direction, source, destination, l4, .. } = self;
        write!(f, "{verdict} at {direction}")?;
        if let Some(reason) = &self.drop_reason {
            write!(f, " {reason}")?;
        }
        for origin in &self.policies {
            write!(f, " by {}", origin.policy)?;
        }
        if let Some(HttpRecord { method, path, status }) = &self.http {
            write!(f, " {method} {path} {}", status.unwrap_or_default())?;
        }
        write!(
            f,
            " ({} {}:{} [{}] -> {}:{} [{}])",
            l4.protocol,
            source.ip,
            source.port,
            source.identity,
            destination.ip,
            destination.port,
            destination.identity
        )
    }
}

/// The agent's stream of flows, collected by a thread. It survives restarts of the agent.
#[derive(Debug)]
pub struct Monitor {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<MonitorState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct MonitorState {
    flows: Vec<Flow>,
    stream: Option<UnixStream>,
    broken: Option<String>,
    listening: bool,
    closed: bool,
}

impl Monitor {
    /// Listens to the agent at `socket`.
    ///
    /// # Errors
    /// There is none.
    pub fn start(socket: PathBuf) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let stream = listen(&socket)?;
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("monitor".to_owned())
            .spawn(move || theirs.collect(&socket, stream))
            .context("starting a thread")?;
        Ok(Self { shared })
    }

    /// Waits until the agent streams.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait_for_start(&self) -> Result<()> {
        self.wait_until_listening(true)
    }

    /// Waits until the stream of an agent that was killed has ended.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait_for_end(&self) -> Result<()> {
        self.wait_until_listening(false)
    }

    fn wait_until_listening(&self, wanted: bool) -> Result<()> {
        clock::wait_for("the stream of flows", PATIENCE, || {
            let listening = self.shared.lock().listening;
            if listening == wanted { Ok(()) } else { Err(format!("listening: {listening}")) }
        })
    }

    /// Forgets what was seen.
    pub fn clear(&self) {
        self.shared.lock().flows.clear();
    }

    /// Waits until a flow satisfies `wanted`; nothing if none does in time.
    #[must_use]
    pub fn wait_for(&self, patience: Duration, wanted: impl Fn(&Flow) -> bool) -> Option<Flow> {
        let deadline = clock::now() + patience;
        let mut state = self.shared.lock();
        loop {
            if let Some(flow) = state.flows.iter().find(|flow| wanted(flow)) {
                return Some(flow.clone());
            }
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return None;
            }
            (state, _) =
                self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// All flows since [`Self::clear`] that satisfy `wanted`.
    #[must_use]
    pub fn flows(&self, wanted: impl Fn(&Flow) -> bool) -> Vec<Flow> {
        self.shared.lock().flows.iter().filter(|flow| wanted(flow)).cloned().collect()
    }

    /// How many events the agent says were lost since [`Self::clear`].
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lock().flows.iter().map(|flow| u64::from(flow.lost)).sum()
    }

    /// What could not be understood, if anything.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        self.shared.lock().broken.clone()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        if let Some(stream) = state.stream.take() {
            let _closed = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn listen(socket: &Path) -> Result<UnixStream> {
    connect(socket, "GET", "/v1/monitor?verdicts=true", None)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, MonitorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(&self, socket: &Path, first: UnixStream) {
        let mut next = Some(first);
        while !self.lock().closed {
            match next.take().map_or_else(|| listen(socket), Ok) {
                Ok(stream) => self.read(stream),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn read(&self, stream: UnixStream) {
        self.lock().stream = stream.try_clone().ok();
        let mut lines = BufReader::new(stream).lines();
        // The head ends with an empty line.
        while let Some(Ok(line)) = lines.next() {
            if line.is_empty() {
                self.lock().listening = true;
                break;
            }
        }
        for line in lines.map_while(Result::ok).filter(|line| !line.is_empty()) {
            let mut state = self.lock();
            match serde_json::from_str(&line) {
                Ok(flow) if state.flows.len() < FLOWS_MAX => state.flows.push(flow),
                Ok(_) => {}
                Err(error) => state.broken = Some(format!("{error}: {line}")),
            }
            self.changed.notify_all();
        }
        self.lock().listening = false;
    }
}

/// Drops of all endpoints together, by pod, direction and reason.
#[must_use]
pub fn drops(endpoints: &[Endpoint]) -> BTreeMap<(String, String, String), u64> {
    let mut sums = BTreeMap::new();
    for endpoint in endpoints {
        for (direction, reason, packets) in endpoint.drops() {
            *sums.entry((endpoint.pod(), direction.to_owned(), reason.to_owned())).or_default() += packets;
        }
    }
    sums
}
