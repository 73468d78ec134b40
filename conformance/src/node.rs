//! A node in a namespace of its own, with the world at the other end of a cable, and pods made by the CNI plugin.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::agent::{Agent, AgentFlags, Monitor, PATIENCE, binary, spawn_in};
use crate::netns::Netns;
use crate::probe::{Answer, Protocol, Question, ask};
use crate::topology::{
    Labels, NODE_ADDRESSES, PodSpec, Subject, Topology, WORLD_ADDRESSES, namespace_manifest, pod_manifest,
};

const POOL4: &str = "10.244.0.0/24";
const POOL6: &str = "fd00:10:244::/112";
const ROUTER_ADDRESSES: [&str; 2] = ["10.244.0.1", "fd00:10:244::1"];

/// What the agent is told that changes verdicts. Cases with equal settings share nodes.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NodeConfig {
    /// `default`, `always` or `never`.
    #[serde(default)]
    pub enforcement: Option<String>,
    /// Report instead of dropping.
    #[serde(default)]
    pub audit: bool,
    /// `auto`, `always` or `policy`.
    #[serde(default)]
    pub allow_localhost: Option<String>,
    /// The IPv4 pool, if it matters; empty for none.
    #[serde(default)]
    pub pool4: Option<String>,
    /// The IPv6 pool, if it matters; empty for none.
    #[serde(default)]
    pub pool6: Option<String>,
    /// With the proxy for HTTP rules.
    #[serde(default)]
    pub l7: bool,
    /// Another place of that proxy's program than beside the others.
    #[serde(skip)]
    pub l7_program: Option<PathBuf>,
    /// The MTU of the cable between node and world, if it is not that of the pods.
    #[serde(default)]
    pub uplink_mtu: Option<u16>,
}

impl NodeConfig {
    fn pool4(&self) -> &str {
        self.pool4.as_deref().unwrap_or(POOL4)
    }

    fn pool6(&self) -> &str {
        self.pool6.as_deref().unwrap_or(POOL6)
    }

    fn flags(&self) -> Result<Vec<String>> {
        let mut flags = vec![
            "--pool4".to_owned(),
            self.pool4().to_owned(),
            "--pool6".to_owned(),
            self.pool6().to_owned(),
            "--release-rest".to_owned(),
            "1".to_owned(),
        ];
        if let Some(enforcement) = &self.enforcement {
            flags.extend(["--enforcement".to_owned(), enforcement.clone()]);
        }
        if let Some(mode) = &self.allow_localhost {
            flags.extend(["--allow-localhost".to_owned(), mode.clone()]);
        }
        if self.audit {
            flags.push("--audit".to_owned());
        }
        if self.l7 {
            let program = self.l7_program.clone().map_or_else(|| binary("sluice-l7proxy"), Ok)?;
            flags.extend(["--l7-proxy".to_owned(), program.display().to_string()]);
        }
        Ok(flags)
    }
}

/// bpffs in a private place.
#[derive(Debug)]
struct Bpffs(PathBuf);

impl Bpffs {
    fn mount(path: PathBuf) -> Result<Self> {
        std::fs::create_dir(&path).context("making the directory for bpffs")?;
        rustix::mount::mount("bpf", &path, "bpf", MountFlags::empty(), None).context("mounting bpffs")?;
        Ok(Self(path))
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _hidden = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// A pod that runs.
#[derive(Debug)]
pub struct Pod {
    /// Its namespace.
    pub netns: Netns,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    container_id: String,
}

/// A node, ready. Everything goes away when it is dropped: the order of the fields is the order of the end.
#[derive(Debug)]
pub struct Node {
    /// The agent's stream of flows.
    pub monitor: Monitor,
    /// The agent.
    pub agent: Agent,
    pods: BTreeMap<String, Pod>,
    /// The node's namespace.
    pub netns: Netns,
    /// The world's.
    pub world: Netns,
    world_addresses: BTreeSet<IpAddr>,
    _bpffs: Bpffs,
    dir: tempfile::TempDir,
}

impl Node {
    /// Makes a node and waits until its agent is ready. The calling thread must outlive it, and must have called
    /// [`crate::netns::hide_mounts`].
    ///
    /// # Errors
    /// Not root, a binary is missing, or the agent does not become ready.
    pub fn start(config: &NodeConfig) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("sluice-conformance-{}-", std::process::id()))
            .tempdir()
            .context("making a temporary directory")?;
        for below in ["manifests", "netns", "state"] {
            std::fs::create_dir(dir.path().join(below)).context("making the node's directories")?;
        }
        let bpffs = Bpffs::mount(dir.path().join("bpf"))?;
        let netns = Netns::create(dir.path().join("netns/node"))?;
        let world = Netns::create(dir.path().join("netns/world"))?;
        wire(&netns, &world, config).context("connecting the node with the world")?;
        let flags = AgentFlags { dir: dir.path().to_owned(), flags: config.flags()? };
        let agent = Agent::start(&netns, flags)?;
        let monitor = Monitor::start(agent.socket())?;
        monitor.wait_for_start()?;
        let mut node = Self {
            monitor,
            agent,
            pods: BTreeMap::new(),
            netns,
            world,
            world_addresses: BTreeSet::new(),
            _bpffs: bpffs,
            dir,
        };
        node.extend_world(&Topology::default())?;
        node.warm_up()?;
        Ok(node)
    }

    /// The first packets on a new link may be lost while it comes up.
    fn warm_up(&self) -> Result<()> {
        for target in parse_all(&WORLD_ADDRESSES)? {
            let question = Question {
                protocol: Protocol::Icmp,
                source: None,
                target,
                port: 8,
                len: 64,
                patience: PATIENCE,
            };
            for outcome in ask(&self.netns, &[question])? {
                ensure!(
                    outcome.answer == Answer::Echoed(None),
                    "the node does not reach the world at {target}: {:?}",
                    outcome.answer
                );
            }
        }
        Ok(())
    }

    /// SIGKILL for the agent.
    ///
    /// # Errors
    /// The process cannot be killed.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.kill()?;
        self.monitor.wait_for_end()
    }

    /// Starts the agent again and waits until it is ready and its flows are heard.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn revive_agent(&mut self) -> Result<()> {
        self.agent.start_again(&self.netns)?;
        self.agent.wait_ready()?;
        self.monitor.wait_for_start()
    }

    /// Where the node's files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The pods.
    #[must_use]
    pub const fn pods(&self) -> &BTreeMap<String, Pod> {
        &self.pods
    }

    /// A pod by name.
    ///
    /// # Errors
    /// It does not run.
    pub fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods.get(name).with_context(|| format!("there is no pod {name}"))
    }

    /// The namespace in which a subject lives.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn netns_of(&self, subject: &Subject) -> Result<&Netns> {
        Ok(match subject {
            Subject::Pod(name) => &self.pod(name)?.netns,
            Subject::World(_) => &self.world,
            Subject::Node | Subject::Router => &self.netns,
        })
    }

    /// Its addresses.
    ///
    /// # Errors
    /// There is no such subject.
    pub fn addresses_of(&self, subject: &Subject, topology: &Topology) -> Result<Vec<IpAddr>> {
        Ok(match subject {
            Subject::Pod(name) => self.pod(name)?.addresses.clone(),
            Subject::World(host) => topology.world_host(host)?,
            Subject::Node => parse_all(&NODE_ADDRESSES)?,
            Subject::Router => parse_all(&ROUTER_ADDRESSES)?,
        })
    }

    /// Gives the world the addresses that a case wants.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn extend_world(&mut self, topology: &Topology) -> Result<()> {
        let wanted = topology.world_addresses()?;
        let mut commands = String::new();
        for address in wanted.difference(&self.world_addresses) {
            if !WORLD_ADDRESSES.contains(&address.to_string().as_str()) {
                let (len, nodad) = if address.is_ipv4() { (32, "") } else { (128, " nodad") };
                commands.push_str(&format!("addr add {address}/{len} dev lo{nodad}\n"));
            }
        }
        ip(&self.world, &commands)?;
        self.world_addresses.extend(wanted);
        Ok(())
    }

    /// Writes a manifest: complete or not at all.
    ///
    /// # Errors
    /// The file system's.
    pub fn write_manifest(&self, file: &str, text: &str) -> Result<()> {
        let manifests = self.dir().join("manifests");
        let hidden = manifests.join(format!(".{file}.new"));
        std::fs::write(&hidden, text).with_context(|| format!("writing {file}"))?;
        std::fs::rename(&hidden, manifests.join(file)).with_context(|| format!("renaming {file}"))
    }

    /// Deletes a manifest, if it is there.
    ///
    /// # Errors
    /// The file system's.
    pub fn remove_manifest(&self, file: &str) -> Result<()> {
        match std::fs::remove_file(self.dir().join("manifests").join(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("deleting {file}"))
            }
            _ => Ok(()),
        }
    }

    /// The names of all manifests.
    ///
    /// # Errors
    /// The file system's.
    pub fn manifests(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.dir().join("manifests")).context("listing the manifests")? {
            let name = entry.context("listing the manifests")?.file_name();
            names.push(name.to_string_lossy().into_owned());
        }
        Ok(names)
    }

    /// Writes a namespace's manifest.
    ///
    /// # Errors
    /// The file system's.
    pub fn write_namespace(&self, name: &str, labels: &Labels) -> Result<()> {
        self.write_manifest(&format!("namespace_{name}.json"), &namespace_manifest(name, labels).to_string())
    }

    /// Writes a pod's manifest.
    ///
    /// # Errors
    /// The file system's, or the pod is malformed.
    pub fn write_pod(&self, name: &str, spec: &PodSpec) -> Result<()> {
        self.write_manifest(&pod_file(name), &pod_manifest(name, spec)?.to_string())
    }

    /// Brings pods to life whose manifests are written, all at once.
    ///
    /// # Errors
    /// The plugin's.
    pub fn add_pods<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let made: Vec<Result<(String, Pod)>> = std::thread::scope(|scope| {
            let node = &*self;
            let threads: Vec<_> =
                names.into_iter().map(|name| scope.spawn(move || node.make_pod(name))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| bail!("making a pod panicked")))
                .collect()
        });
        for made in made {
            let (name, pod) = made?;
            self.pods.insert(name, pod);
        }
        Ok(())
    }

    /// Ends pods, all at once, and deletes their manifests.
    ///
    /// # Errors
    /// The plugin's.
    pub fn remove_pods(&mut self, names: &[String]) -> Result<()> {
        let gone: Vec<(&String, Pod)> =
            names.iter().filter_map(|name| Some((name, self.pods.remove(name)?))).collect();
        let node = &*self;
        let done: Vec<Result<()>> = std::thread::scope(|scope| {
            let end = |(name, pod): (&String, Pod)| -> Result<()> {
                node.remove_manifest(&pod_file(name))?;
                node.cni("DEL", name, &pod.container_id, &pod.netns).map(drop)
            };
            let threads: Vec<_> = gone.into_iter().map(|pod| scope.spawn(move || end(pod))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| bail!("ending a pod panicked")))
                .collect()
        });
        done.into_iter().collect()
    }

    fn make_pod(&self, name: &str) -> Result<(String, Pod)> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let container_id = format!("conf{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let netns = Netns::create(self.dir().join("netns").join(&container_id))?;
        let result = self.cni("ADD", name, &container_id, &netns)?;
        let result: Value = serde_json::from_slice(&result).context("understanding the result of ADD")?;
        let mut addresses = Vec::new();
        for ip in result.get("ips").and_then(Value::as_array).into_iter().flatten() {
            let text = ip.get("address").and_then(Value::as_str).unwrap_or_default();
            let address = text.split('/').next().unwrap_or_default();
            addresses.push(address.parse().with_context(|| format!("the address {text:?} of {name}"))?);
        }
        addresses.sort();
        ensure!(!addresses.is_empty(), "ADD of {name} gave no address: {result}");
        Ok((name.to_owned(), Pod { netns, addresses, container_id }))
    }

    fn cni(&self, verb: &str, pod: &str, container_id: &str, netns: &Netns) -> Result<Vec<u8>> {
        let (namespace, name) =
            pod.split_once('/').with_context(|| format!("{pod:?} is not NAMESPACE/NAME"))?;
        let configuration = json!({
            "cniVersion": "1.1.0",
            "name": "sluice",
            "type": "sluice-cni",
            "agentSocket": self.agent.socket(),
            "stateDir": self.agent.state_dir(),
            "pinDir": self.dir().join("bpf/sluice/v1"),
        });
        let plugin = binary("sluice-cni")?;
        let mut command = Command::new(&plugin);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container_id)
            .env("CNI_NETNS", netns.path())
            .env("CNI_IFNAME", "eth0")
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};\
                     K8S_POD_INFRA_CONTAINER_ID={container_id}"
                ),
            )
            .env("CNI_PATH", plugin.parent().unwrap_or(Path::new("/")));
        let done = feed(&mut command, &self.netns, configuration.to_string().as_bytes())?;
        ensure!(
            done.status.success(),
            "{verb} of {pod} failed, {}: {} {}",
            done.status,
            String::from_utf8_lossy(&done.stdout).trim(),
            String::from_utf8_lossy(&done.stderr).trim()
        );
        Ok(done.stdout)
    }
}

fn pod_file(name: &str) -> String {
    format!("pod_{}.json", name.replace('/', "_"))
}

fn parse_all(addresses: &[&str]) -> Result<Vec<IpAddr>> {
    addresses
        .iter()
        .map(|address| address.parse().with_context(|| format!("the address {address}")))
        .collect()
}

/// Runs a command in the namespace with `input` on its standard input.
fn feed(command: &mut Command, netns: &Netns, input: &[u8]) -> Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn_in(command, netns, false)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it reads says why by itself.
        let _unread = stdin.write_all(input);
    }
    child.wait_with_output().context("waiting for a program")
}

/// Runs commands of `ip`, one a line, in the namespace.
///
/// # Errors
/// One of them fails, or there is no `ip`.
pub fn ip(netns: &Netns, commands: &str) -> Result<()> {
    if commands.is_empty() {
        return Ok(());
    }
    let done = feed(Command::new("ip").args(["-batch", "-"]), netns, commands.as_bytes())?;
    ensure!(done.status.success(), "ip: {}\n{commands}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}

fn wire(node: &Netns, world: &Netns, config: &NodeConfig) -> Result<()> {
    for netns in [node, world] {
        netns.run(|| {
            for (setting, value) in [
                ("ipv4/ip_forward", "1"),
                ("ipv6/conf/all/forwarding", "1"),
                ("ipv6/conf/all/accept_dad", "0"),
                ("ipv6/conf/default/accept_dad", "0"),
            ] {
                std::fs::write(format!("/proc/sys/net/{setting}"), value)
                    .with_context(|| format!("setting {setting}"))?;
            }
            Ok(())
        })?;
    }
    let [node4, node6] = NODE_ADDRESSES;
    let [world4, world6] = WORLD_ADDRESSES;
    let far = world.path().display();
    ip(
        node,
        &format!(
            "link add up0 type veth peer name up0 netns {far}\n\
             addr add {node4}/24 dev up0\n\
             addr add {node6}/64 dev up0 nodad\n\
             link set up0 up\n\
             route add default via {world4} dev up0\n\
             route add default via {world6} dev up0\n"
        ),
    )?;
    let mut far =
        format!("addr add {world4}/24 dev up0\naddr add {world6}/64 dev up0 nodad\nlink set up0 up\n");
    for (pool, gateway) in [(config.pool4(), node4), (config.pool6(), node6)] {
        if !pool.is_empty() {
            far.push_str(&format!("route add {pool} via {gateway}\n"));
        }
    }
    if let Some(mtu) = config.uplink_mtu {
        far.push_str(&format!("link set up0 mtu {mtu}\n"));
        ip(node, &format!("link set up0 mtu {mtu}\n"))?;
    }
    ip(world, &far)
}
