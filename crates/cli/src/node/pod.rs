//! Pods of a node: a manifest, a network namespace, an interface by the CNI plugin, and a process.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde_json::{Value, json};
use sluice_netlink::{Netns, netns};

use super::cni::{self, Attachment};
use super::layout::Layout;
use super::process::{ProcessId, end_group};
use super::record::{NodeRecord, PodRecord, write_whole};
use super::world::loopback_up;
use crate::failure::{Failure, io};
use crate::manifest;
use crate::pod_name::{PodName, parse_label};

/// How long a pod's processes may take to end when asked.
const END_WITHIN: Duration = Duration::from_millis(1500);
/// Most labels of one pod.
const LABELS_MAX: usize = 100;

/// What a pod shall be.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodSpec {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) service_account: String,
    pub(crate) ports: Vec<NamedPort>,
    pub(crate) command: Vec<String>,
}

/// A port with a name, as a container declares it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct NamedPort {
    name: String,
    port: u16,
    protocol: String,
}

impl PodSpec {
    /// Reads labels and ports as the command line has them.
    pub(crate) fn parse(labels: &[String], ports: &[String]) -> Result<Self, Failure> {
        let mut spec = Self::default();
        for text in labels {
            let (key, value) = parse_label(text).map_err(Failure::invalid)?;
            if spec.labels.insert(key, value).is_some() {
                return Err(Failure::invalid(format!("the label {text:?} is given twice")));
            }
        }
        if spec.labels.len() > LABELS_MAX {
            return Err(Failure::invalid(format!("a pod has at most {LABELS_MAX} labels")));
        }
        for text in ports {
            spec.ports.push(parse_port(text).map_err(Failure::invalid)?);
        }
        Ok(spec)
    }
}

fn parse_port(text: &str) -> Result<NamedPort, String> {
    let wrong = || format!("the port {text:?} is not NAME=PORT or NAME=PORT/PROTOCOL");
    let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
    let (port, protocol) = rest.split_once('/').unwrap_or((rest, "TCP"));
    let protocol = protocol.to_ascii_uppercase();
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    let proper = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let has_letter = name.bytes().any(|byte| byte.is_ascii_lowercase());
    if !["TCP", "UDP", "SCTP"].contains(&protocol.as_str()) {
        return Err(wrong());
    }
    if name.len() > 15 || !name.bytes().all(proper) || !has_letter {
        return Err(format!(
            "the port's name {name:?} has at most 15 lower-case letters, digits and hyphens"
        ));
    }
    Ok(NamedPort { name: name.to_owned(), port, protocol })
}

/// Makes a pod and starts its command, with its output in a log file.
pub(crate) fn run(
    layout: &Layout,
    node: &NodeRecord,
    pod: &PodName,
    spec: &PodSpec,
) -> Result<PodRecord, Failure> {
    let mut made = Pod::make(layout, node, pod, spec)?;
    if !spec.command.is_empty() {
        let log = layout.pod_log(pod);
        if let Some(parent) = log.parent() {
            std::fs::create_dir_all(parent).map_err(io("making the directory of logs"))?;
        }
        let file = File::create(&log).map_err(io(format!("creating {}", log.display())))?;
        let twin = file.try_clone().map_err(io("opening the pod's log"))?;
        made.record.log = Some(log);
        made.start(|command| {
            command.stdin(Stdio::null()).stdout(file).stderr(twin).process_group(0);
        })?;
    }
    Ok(made.keep())
}

/// Makes a pod, runs its command in the foreground, removes the pod, and answers the command's exit code.
pub(crate) fn run_in_foreground(
    layout: &Layout,
    node: &NodeRecord,
    pod: &PodName,
    spec: &PodSpec,
) -> Result<u8, Failure> {
    let mut made = Pod::make(layout, node, pod, spec)?;
    let mut child = made.start(|_| {})?;
    let status = child.wait().map_err(io("waiting for the command"))?;
    drop(made);
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Enters a pod's network namespace, and nothing else of it, and becomes `command`. Returns only on failure.
pub(crate) fn exec(layout: &Layout, pod: &PodName, command: &[String]) -> Failure {
    let record = match PodRecord::load(layout, pod) {
        Ok(record) => record,
        Err(failure) => return failure,
    };
    let Some((program, arguments)) = command.split_first() else {
        return Failure::usage("no command is given");
    };
    let netns = match Netns::open(&record.netns) {
        Ok(netns) => netns,
        Err(error) => return io(format!("entering the pod {pod}"))(error),
    };
    match netns.run(|| Command::new(program).args(arguments).exec()) {
        Ok(error) => cannot_start(program, &error),
        Err(error) => io(format!("entering the pod {pod}"))(error),
    }
}

/// Removes a pod: processes, endpoint, namespace, manifest.
pub(crate) fn remove(layout: &Layout, node: &NodeRecord, pod: &PodName) -> Result<(), Failure> {
    let record = PodRecord::load(layout, pod)?;
    end_processes(&record);
    if record.netns.exists() {
        let machine = Netns::open(&node.netns).map_err(io("entering the node"))?;
        let attachment = Attachment {
            container_id: &record.container_id,
            netns: &record.netns,
            pod,
            uid: record.uid.as_deref(),
        };
        cni::delete(layout, &machine, &attachment)?;
        netns::remove(&record.netns).map_err(io("removing the pod's network namespace"))?;
    }
    forget(layout, &record);
    Ok(())
}

/// Removes what is there of a pod whose node goes away. Goes on past failures.
pub(super) fn dismantle(layout: &Layout, node: &NodeRecord, record: &PodRecord) {
    end_processes(record);
    // The namespaces of a killed `up --host` cannot be told from others any more; `sluice-agent cleanup` does it then.
    if node.host
        && node.owner.is_alive()
        && let Ok(machine) = Netns::open(&node.netns)
    {
        let pod = record.pod();
        let attachment = Attachment {
            container_id: &record.container_id,
            netns: &record.netns,
            pod: &pod,
            uid: record.uid.as_deref(),
        };
        let _gone = cni::delete(layout, &machine, &attachment);
    }
    let _gone = netns::remove(&record.netns);
    forget(layout, record);
}

fn end_processes(record: &PodRecord) {
    if let Some(process) = record.process
        && let Ok(netns) = Netns::open(&record.netns)
    {
        end_group(process.pid, netns.id(), END_WITHIN);
    }
}

fn forget(layout: &Layout, record: &PodRecord) {
    for file in record.manifest.iter().chain(record.log.iter()) {
        let _gone = std::fs::remove_file(file);
    }
    let _gone = std::fs::remove_file(layout.pod_file(&record.pod()));
}

/// A pod that is being made. Dropped before [`Pod::keep`], it is removed again.
struct Pod<'a> {
    layout: &'a Layout,
    node: &'a NodeRecord,
    spec: &'a PodSpec,
    record: PodRecord,
    netns: Option<Netns>,
    kept: bool,
}

impl<'a> Pod<'a> {
    fn make(
        layout: &'a Layout,
        node: &'a NodeRecord,
        pod: &PodName,
        spec: &'a PodSpec,
    ) -> Result<Self, Failure> {
        let record = reserve(layout, node, pod, spec)?;
        let mut made = Self { layout, node, spec, record, netns: None, kept: false };
        made.attach(pod)?;
        Ok(made)
    }

    fn attach(&mut self, pod: &PodName) -> Result<(), Failure> {
        let machine = Netns::open(&self.node.netns).map_err(io("entering the node"))?;
        std::fs::create_dir_all("/run/netns").map_err(io("making /run/netns"))?;
        let netns = Netns::create(&self.record.netns).map_err(io("making the pod's network namespace"))?;
        loopback_up(&netns)?;
        self.netns = Some(netns);
        let attachment = Attachment {
            container_id: &self.record.container_id,
            netns: &self.record.netns,
            pod,
            uid: self.record.uid.as_deref(),
        };
        for address in cni::add(self.layout, &machine, &attachment)? {
            match address {
                std::net::IpAddr::V4(ip) => self.record.ipv4 = Some(ip),
                std::net::IpAddr::V6(ip) => self.record.ipv6 = Some(ip),
            }
        }
        self.record.store(self.layout)
    }

    fn start(&mut self, prepare: impl FnOnce(&mut Command)) -> Result<Child, Failure> {
        let Some((program, arguments)) = self.spec.command.split_first() else {
            return Err(Failure::usage("no command is given"));
        };
        let Some(netns) = &self.netns else { return Err(Failure::error("the pod has no namespace")) };
        let mut command = Command::new(program);
        command.args(arguments);
        prepare(&mut command);
        let started = netns.run(|| command.spawn()).map_err(io("entering the pod"))?;
        let child = started.map_err(|error| cannot_start(program, &error))?;
        self.record.process = ProcessId::of(child.id());
        self.record.store(self.layout)?;
        Ok(child)
    }

    fn keep(mut self) -> PodRecord {
        self.kept = true;
        self.record.clone()
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if remove(self.layout, self.node, &self.record.pod()).is_err() {
            let _gone = netns::remove(&self.record.netns);
            forget(self.layout, &self.record);
        }
    }
}

fn cannot_start(program: &str, error: &std::io::Error) -> Failure {
    if error.kind() == std::io::ErrorKind::NotFound {
        Failure::not_found(format!("there is no program {program}"))
    } else {
        Failure::error(format!("starting {program} failed: {error}"))
    }
}

/// Makes sure that nobody else makes this pod, and that the agent knows it.
fn reserve(layout: &Layout, node: &NodeRecord, pod: &PodName, spec: &PodSpec) -> Result<PodRecord, Failure> {
    let dir = layout.pods_dir();
    std::fs::create_dir_all(&dir).map_err(io("making the directory of pods"))?;
    let lock = OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join(".lock"))
        .map_err(io("locking the pods"))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(io("locking the pods"))?;
    if layout.pod_file(pod).exists() {
        return Err(Failure::error(format!("the pod {pod} exists already"))
            .hint(format!("`sluice pod rm {pod}` removes it.")));
    }
    let netns = layout.pod_netns(pod)?;
    if netns.exists() {
        return Err(Failure::error(format!(
            "{} exists already and is not of a pod of this node",
            netns.display()
        )));
    }
    let random = uuid()?;
    let (uid, manifest) = match find_manifest(&node.manifests, pod)? {
        Some((file, uid)) if spec.labels.is_empty() && spec.ports.is_empty() => {
            drop(file);
            (uid, None)
        }
        Some((file, _)) => {
            return Err(Failure::error(format!("{} describes the pod {pod} already", file.display()))
                .hint("Leave --labels and --port out to use it as it is."));
        }
        None => {
            let file = node.manifests.join(format!("pod_{}_{}.yaml", pod.namespace, pod.name));
            (Some(random.clone()), Some(file))
        }
    };
    let record = PodRecord {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        container_id: random.replace('-', ""),
        uid,
        netns,
        manifest,
        ipv4: None,
        ipv6: None,
        command: spec.command.clone(),
        process: None,
        log: None,
    };
    record.store(layout)?;
    if let Some(file) = &record.manifest {
        let written = write_manifest(file, pod, spec, &random);
        written.inspect_err(|_| forget(layout, &record))?;
    }
    Ok(record)
}

fn write_manifest(file: &Path, pod: &PodName, spec: &PodSpec, uid: &str) -> Result<(), Failure> {
    let port =
        |port: &NamedPort| json!({"name": port.name, "containerPort": port.port, "protocol": port.protocol});
    let ports: Vec<Value> = spec.ports.iter().map(port).collect();
    let mut container = json!({"name": "main"});
    if !ports.is_empty() {
        container = json!({"name": "main", "ports": ports});
    }
    let account = if spec.service_account.is_empty() { "default" } else { &spec.service_account };
    let object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": pod.namespace, "name": pod.name, "uid": uid, "labels": spec.labels},
        "spec": {"serviceAccountName": account, "containers": [container]},
    });
    let text = serde_saphyr::to_string(&object).map_err(io("writing the pod's manifest"))?;
    write_whole(file, &text)
}

/// The file that describes the pod, and the pod's uid if it says one. Files that cannot be read are the agent's to
/// complain about.
fn find_manifest(directory: &Path, pod: &PodName) -> Result<Option<(PathBuf, Option<String>)>, Failure> {
    for file in manifest::files_of(directory)? {
        let Ok(manifests) = manifest::read_all(std::slice::from_ref(&file)) else { continue };
        for object in manifests.iter().filter_map(|manifest| manifest.documents().ok()).flatten() {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
            let namespace = text("/metadata/namespace").unwrap_or("default");
            let is_it = text("/kind") == Some("Pod")
                && namespace == pod.namespace
                && text("/metadata/name") == Some(pod.name.as_str());
            if is_it {
                return Ok(Some((file, text("/metadata/uid").map(ToOwned::to_owned))));
            }
        }
    }
    Ok(None)
}

fn uuid() -> Result<String, Failure> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(io("reading random bytes"))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let cases = [
            ("http=8080", Some(("http", 8080, "TCP"))),
            ("dns=53/udp", Some(("dns", 53, "UDP"))),
            ("http=0", None),
            ("http=70000", None),
            ("=80", None),
            ("80=80", None),
            ("HTTP=80", None),
            ("http", None),
            ("http=80/ICMP", None),
        ];
        for (text, want) in cases {
            let got = parse_port(text).ok();
            let want = want.map(|(name, port, protocol): (&str, u16, &str)| NamedPort {
                name: name.to_owned(),
                port,
                protocol: protocol.to_owned(),
            });
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn a_manifest_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let pod: PodName = "shop/web".parse().unwrap();
        let spec =
            PodSpec::parse(&["app=web".to_owned(), "n=1".to_owned()], &["http=80".to_owned()]).unwrap();
        write_manifest(&dir.path().join("pod_shop_web.yaml"), &pod, &spec, "uid-1").unwrap();
        let (_, uid) = find_manifest(dir.path(), &pod).unwrap().unwrap();
        assert_eq!(uid.as_deref(), Some("uid-1"));
        assert!(find_manifest(dir.path(), &"shop/other".parse().unwrap()).unwrap().is_none());
        let text = std::fs::read_to_string(dir.path().join("pod_shop_web.yaml")).unwrap();
        let object: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(object["metadata"]["labels"]["n"], "1", "a label's value stays a string:\n{text}");
    }
}
