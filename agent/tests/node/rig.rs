//! A node with the agent's binary on it. Everything it makes goes when it is dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use sluice_client::Client;
use sluice_client::model::{
    Endpoint, EndpointRequest, IpamLease, IpamRequest, PolicyApplied, PolicyDocument, Status,
};
use sluice_client::path;
use sluice_ebpf_loader::attach;
use sluice_netlink::{Netlink, Netns, VethSpec, netns};

static COUNTER: AtomicU32 = AtomicU32::new(0);
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Rig {
    dir: tempfile::TempDir,
    netns: Netns,
    flags: Vec<String>,
    agent: Option<Child>,
}

impl Rig {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts with further flags; a word in capitals is a directory of the rig.
    pub(crate) fn start_with(more: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("sluice-agent-").tempdir().unwrap();
        let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
        let netns = Netns::create(dir.path().join(format!("netns-{}-{unique}", std::process::id()))).unwrap();
        fs::create_dir(dir.path().join("manifests")).unwrap();
        let place = |name: &str| dir.path().join(name).display().to_string();
        let mut flags: Vec<String> = ["--manifests", "--socket", "--state-dir", "--bpffs"]
            .into_iter()
            .zip(["manifests", "agent.sock", "state", "bpf"])
            .flat_map(|(flag, name)| [flag.to_owned(), place(name)])
            .collect();
        flags.extend(
            ["--pool4", "10.9.0.0/24", "--pool6", "fd09::/112", "--release-rest", "5"].map(String::from),
        );
        flags.extend(more.iter().map(|word| {
            if word.chars().all(|letter| letter.is_ascii_uppercase()) {
                place(word)
            } else {
                (*word).to_owned()
            }
        }));
        let mut rig = Self { dir, netns, flags, agent: None };
        rig.start_again();
        rig
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.path("bpf/sluice/v1")
    }

    /// How many link pins an interface has.
    pub(crate) fn pins_of(&self, ifname: &str) -> usize {
        let Ok(entries) = fs::read_dir(self.pins()) else { return 0 };
        let names = entries.map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(&format!("link_{ifname}"))).count()
    }

    pub(crate) fn is_attached(&self, ifname: &str) -> bool {
        let look = || attach::is_attached(&self.pins(), ifname, attach::ifindex(ifname).unwrap()).unwrap();
        self.netns.run(look).unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.path("agent.sock"), Duration::from_secs(30))
    }

    pub(crate) fn fetch<T: DeserializeOwned>(&self, path: &str) -> T {
        self.client().fetch(path).unwrap()
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-agent"));
        command.args(&self.flags).args(more).stdin(Stdio::null());
        command
    }

    /// Starts the agent and waits until it serves what the last one left.
    pub(crate) fn start_again(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = self.command(&["--log", "debug"]);
        command.stderr(log);
        self.agent = Some(self.netns.run(|| command.spawn().unwrap()).unwrap());
        let end = now() + PATIENCE;
        while !self.is_serving() {
            let ended = self.agent.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && now() < end, "the agent does not start: {ended:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_serving(&self) -> bool {
        self.client()
            .fetch::<Status>(path::STATUS)
            .is_ok_and(|status| status.state != "starting" && !status.endpoints.contains_key("restoring"))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().unwrap();
            agent.wait().unwrap();
        }
    }

    pub(crate) fn restart(&mut self) {
        self.kill();
        self.start_again();
    }

    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let mut agent = self.agent.take().unwrap();
        let pid = rustix::process::Pid::from_child(&agent);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let end = now() + Duration::from_secs(5);
        loop {
            if let Some(status) = agent.try_wait().unwrap() {
                return status;
            }
            assert!(now() < end, "a signal ends the agent at once");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn run_to_end(&self, more: &[&str]) -> Output {
        // The last of two equal flags would be an error, so the new one takes the place of the old.
        let mut flags = self.flags.clone();
        for pair in more.chunks(2) {
            let at = flags.iter().position(|flag| flag == pair[0]).unwrap();
            flags[at + 1] = pair[1].to_owned();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-agent"));
        command.args(&flags);
        self.netns.run(|| command.output().unwrap()).unwrap()
    }

    pub(crate) fn cleanup(&self) {
        let output = self.netns.run(|| self.command(&["cleanup"]).output().unwrap()).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// What a command prints inside the node.
    pub(crate) fn in_netns(&self, program: &str, arguments: &str) -> String {
        let mut command = Command::new(program);
        command.args(arguments.split(' '));
        let output = self.netns.run(|| command.output().unwrap()).unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn ip(&self, arguments: &str) -> String {
        self.in_netns("ip", arguments)
    }

    pub(crate) fn manifest(&self, name: &str, text: &str) {
        fs::write(self.path(&format!("manifests/{name}.yaml")), text).unwrap();
    }

    pub(crate) fn lease(&self, container: &str) -> IpamLease {
        lease(&self.client(), container).unwrap()
    }

    /// What the plugin does: a lease, a veth with programs, an endpoint. The pod's end stays in the node's namespace:
    /// no packet is sent.
    pub(crate) fn add_pod(&self, name: &str) -> Endpoint {
        self.netns.run(|| add_pod(&self.client(), &self.pins(), name).unwrap()).unwrap()
    }

    /// Pods b, c, d come and go and policies change, until the agent does not answer any more.
    pub(crate) fn churn(&self, round: u64) -> JoinHandle<()> {
        let (client, pins) = (self.client(), self.pins());
        let netns = Netns::open(self.netns.path()).unwrap();
        std::thread::spawn(move || {
            netns
                .run(|| {
                    for nth in round.. {
                        let name = ["b", "c", "d"][usize::try_from(nth % 3).unwrap()];
                        let text = policy(&format!("churn-{}", nth % 5), &(8000 + nth).to_string());
                        let document = PolicyDocument { text, name: String::new() };
                        let applied = client.send::<_, PolicyApplied>("POST", path::POLICY_APPLY, &document);
                        let added = add_pod(&client, &pins, name);
                        let owner = path::fill(path::ATTACHMENT, &[name, "eth0"]);
                        if applied.is_err() || added.is_none() || client.delete(&owner).is_err() {
                            return;
                        }
                    }
                })
                .unwrap();
        })
    }
}

fn lease(client: &Client, container: &str) -> Option<IpamLease> {
    let request = IpamRequest { container_id: container.into(), ifname: "eth0".into() };
    client.send("POST", path::IPAM, &request).ok()
}

fn add_pod(client: &Client, pins: &Path, name: &str) -> Option<Endpoint> {
    let lease = lease(client, name)?;
    let last = lease.ipv4.unwrap().octets()[3];
    let (host, peer) = (format!("slu{last:012x}"), format!("pod{last:012x}"));
    let mut netlink = Netlink::open().unwrap();
    if let Some(left) = netlink.find_link(&host).unwrap() {
        netlink.delete_link(left.index).unwrap();
    }
    netlink.create_veth(&VethSpec { name: &host, peer_name: &peer, ..VethSpec::default() }).unwrap();
    let (host, peer) = (netlink.link(&host).unwrap(), netlink.link(&peer).unwrap());
    attach::attach_container(pins, &host.name, host.index).ok()?;
    let request = EndpointRequest {
        container_id: name.into(),
        ifname: "eth0".into(),
        netns: String::new(),
        pod_namespace: Some("shop".into()),
        pod_name: Some(name.into()),
        pod_uid: None,
        host_ifname: host.name,
        host_ifindex: host.index,
        mac: peer.mac.unwrap().to_string(),
        host_mac: host.mac.unwrap().to_string(),
        ipv4: lease.ipv4,
        ipv6: lease.ipv6,
        chained: false,
        own_ipam: true,
    };
    client.send("POST", path::ENDPOINTS, &request).ok()
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the end of the agent's log, newest first\n{}", lines.join("\n"));
        }
        // Gone already if the agent did not get as far as mounting.
        if let Err(error) = rustix::mount::unmount(self.path("bpf"), rustix::mount::UnmountFlags::DETACH) {
            eprintln!("no bpffs to unmount: {error}");
        }
        drop(netns::remove(self.netns.path()));
    }
}

pub(crate) fn pod(name: &str, label: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {label}}}}}\n"
    )
}

pub(crate) fn policy(name: &str, port: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         endpointSelector: {{}}\n  ingress: [{{toPorts: [{{ports: [{{port: \"{port}\", protocol: TCP}}]}}]}}]\n"
    )
}

#[track_caller]
pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = now() + PATIENCE;
    while !is_so() {
        assert!(now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[expect(clippy::disallowed_methods, reason = "a test that waits needs a clock")]
fn now() -> Instant {
    Instant::now()
}
