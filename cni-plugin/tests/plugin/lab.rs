//! A node and its pods: namespaces, a bpffs with the datapath's programs, and the agent, all gone with the value.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_ebpf_loader::{Datapath, Sizes, attach, bpffs};
use sluice_netlink::{Link, Netlink, Netns, netns};

use crate::fake_agent::{FakeAgent, State};

pub(crate) const CONTAINER: &str = "0123456789abcdef";

/// One node.
pub(crate) struct Lab {
    pub(crate) node: Netns,
    pub(crate) agent: Option<FakeAgent>,
    state: Arc<Mutex<State>>,
    bpffs: PathBuf,
    dir: tempfile::TempDir,
}

/// A namespace for a container.
pub(crate) struct Pod {
    pub(crate) netns: Netns,
    removed: bool,
}

/// What the plugin left: how it ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) success: bool,
    pub(crate) killed: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// One call, ready to be changed.
pub(crate) struct Call<'a> {
    lab: &'a Lab,
    variables: Vec<(String, String)>,
    input: Vec<u8>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::Builder::new().prefix("sluice-cni-test-").tempdir().unwrap();
        let name = format!("node-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let node = Netns::create(dir.path().join(name)).unwrap();
        let bpffs = dir.path().join("bpf");
        let state = Arc::new(Mutex::new(State::default()));
        let mut lab = Self { node, agent: None, state, bpffs, dir };
        bpffs::ensure(&lab.bpffs).unwrap();
        let sizes = Sizes { conntrack: 64, addresses: 64, prefixes: 64, ..Sizes::default() };
        Datapath::load_or_adopt(&lab.pins(), &sizes).unwrap();
        let mut netlink = lab.netlink();
        let loopback = netlink.link("lo").unwrap();
        netlink.set_up(loopback.index).unwrap();
        lab.start_agent();
        lab
    }

    pub(crate) fn start_agent(&mut self) {
        self.agent = Some(FakeAgent::start(&self.dir.path().join("agent.sock"), Arc::clone(&self.state)));
    }

    pub(crate) fn stop_agent(&mut self) {
        self.agent = None;
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.bpffs.join("sluice/v1")
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn queue(&self) -> PathBuf {
        self.dir.path().join("state/delete-queue")
    }

    pub(crate) fn netlink(&self) -> Netlink {
        Netlink::open_in(&self.node).unwrap()
    }

    pub(crate) fn pod(&self, name: &str) -> Pod {
        Pod { netns: Netns::create(self.dir.path().join(name)).unwrap(), removed: false }
    }

    /// The network configuration with some keys set.
    pub(crate) fn config(&self, changes: &Value) -> Value {
        let mut config = json!({
            "cniVersion": "1.1.0",
            "name": "pods",
            "type": "sluice-cni",
            "agentSocket": self.dir.path().join("agent.sock"),
            "stateDir": self.dir.path().join("state"),
            "pinDir": self.pins(),
        });
        for (key, value) in changes.as_object().unwrap() {
            config.as_object_mut().unwrap().insert(key.clone(), value.clone());
        }
        config
    }

    /// A call of `verb` for [`CONTAINER`], interface `eth0`.
    pub(crate) fn call(&self, verb: &str, netns: &Path, config: &Value) -> Call<'_> {
        let variables = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", CONTAINER),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", netns.to_str().unwrap()),
            ("CNI_PATH", "/usr/lib/cni"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u-1"),
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ];
        let variables = variables.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        Call { lab: self, variables, input: config.to_string().into_bytes() }
    }

    pub(crate) fn add(&self, pod: &Pod) -> Outcome {
        self.call("ADD", pod.netns.path(), &self.config(&json!({}))).run()
    }

    pub(crate) fn del(&self, pod: &Pod) -> Outcome {
        self.call("DEL", pod.netns.path(), &self.config(&json!({}))).run()
    }

    /// Everything that an attachment consists of, as words; empty when nothing is left.
    pub(crate) fn traces(&self, pod: Option<&Pod>) -> Vec<String> {
        let mut found = Vec::new();
        let mut netlink = self.netlink();
        let links: Vec<Link> =
            netlink.links().unwrap().into_iter().filter(|link| !link.is_loopback).collect();
        found.extend(links.iter().map(|link| format!("link {}", link.name)));
        found.extend(netlink.routes().unwrap().iter().map(|route| format!("route {}", route.destination)));
        let neighbours = netlink.neighbours(None).unwrap();
        found.extend(
            neighbours.iter().filter(|one| one.is_permanent).map(|one| format!("neighbour {}", one.ip)),
        );
        let pins = attach::pinned_interfaces(&self.pins()).unwrap();
        found.extend(pins.into_iter().map(|name| format!("pin {name}")));
        let state = self.state();
        found.extend(state.leases.keys().map(|owner| format!("lease {owner:?}")));
        found.extend(state.endpoints.keys().map(|owner| format!("endpoint {owner:?}")));
        let records = std::fs::read_dir(self.queue()).into_iter().flatten();
        found.extend(records.map(|entry| format!("record {}", entry.unwrap().file_name().to_string_lossy())));
        if let Some(pod) = pod {
            let mut netlink = Netlink::open_in(&pod.netns).unwrap();
            let links = netlink.links().unwrap();
            found.extend(
                links.iter().filter(|one| !one.is_loopback).map(|one| format!("pod link {}", one.name)),
            );
        }
        found
    }

    /// The one host-side veth.
    pub(crate) fn host_link(&self) -> Link {
        let mut links = self.netlink().links().unwrap().into_iter();
        links.find(|link| link.name.starts_with("slu")).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.agent = None;
        netns::remove(self.node.path()).unwrap();
        rustix::mount::unmount(&self.bpffs, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

impl Pod {
    /// Takes the namespace away from its path; if nobody else holds it, it ends.
    pub(crate) fn remove(&mut self) {
        netns::remove(self.netns.path()).unwrap();
        self.removed = true;
    }

    pub(crate) fn netlink(&self) -> Netlink {
        Netlink::open_in(&self.netns).unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if !self.removed {
            netns::remove(self.netns.path()).unwrap();
        }
    }
}

impl Call<'_> {
    /// Sets a variable; to nothing, removes it.
    pub(crate) fn env(mut self, key: &str, value: &str) -> Self {
        self.variables.retain(|(own, _)| own != key);
        if !value.is_empty() {
            self.variables.push((key.to_owned(), value.to_owned()));
        }
        self
    }

    /// Replaces what stands on standard input.
    pub(crate) fn input(mut self, bytes: &[u8]) -> Self {
        self.input = bytes.to_owned();
        self
    }

    /// Runs our plugin.
    pub(crate) fn run(self) -> Outcome {
        self.run_program(Path::new(env!("CARGO_BIN_EXE_sluice-cni")))
    }

    /// Runs another plugin with the same parameters.
    pub(crate) fn run_program(self, program: &Path) -> Outcome {
        let (variables, input) = (self.variables, self.input);
        let mut child = self
            .lab
            .node
            .run(|| {
                let mut command = Command::new(program);
                command.env_clear().envs(variables);
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                command.spawn().unwrap()
            })
            .unwrap();
        // The plugin may refuse before it has read everything.
        child.stdin.take().unwrap().write_all(&input).ok();
        let output = child.wait_with_output().unwrap();
        Outcome {
            success: output.status.success(),
            killed: output.status.signal() == Some(9),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Outcome {
    /// The result, which is there.
    #[track_caller]
    pub(crate) fn result(&self) -> Value {
        assert!(self.success, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Success without a word on standard output.
    #[track_caller]
    pub(crate) fn silent(&self) {
        assert!(self.success && self.stdout.is_empty(), "{self:?}");
    }

    /// A clean failure: an error object of this code, and its message.
    #[track_caller]
    pub(crate) fn refused(&self, code: u64) -> String {
        assert!(!self.success && !self.killed, "{self:?}");
        let error: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{self:?}"));
        assert_eq!(error["code"], code, "{self:?}");
        assert!(error["cniVersion"].is_string(), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        format!("{} {}", error["msg"].as_str().unwrap(), error["details"].as_str().unwrap_or_default())
    }
}

/// How long `work` takes.
#[expect(clippy::disallowed_methods, reason = "the edge that reads the clock for these tests")]
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let done = work();
    (done, begin.elapsed())
}
