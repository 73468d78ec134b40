//! The CNI plugin as a container runtime starts it, and the other programs that belong together.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sluice_netlink::Netns;

use super::layout::Layout;
use crate::failure::{Failure, io};
use crate::pod_name::PodName;

/// Version of the CNI specification that is spoken.
const CNI_VERSION: &str = "1.1.0";
/// The interface's name in the pod.
const IFNAME: &str = "eth0";

/// A program of ours: it stands beside this one.
pub(crate) fn binary(name: &str) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().map_err(io("finding this program"))?;
    let path = own.with_file_name(name);
    if path.exists() {
        return Ok(path);
    }
    Err(Failure::error(format!("{name} is not there: it must stand beside sluice, as {}", path.display()))
        .hint("`make build` builds all programs."))
}

/// What the plugin is asked to do it to.
#[derive(Debug)]
pub(super) struct Attachment<'a> {
    pub(super) container_id: &'a str,
    pub(super) netns: &'a Path,
    pub(super) pod: &'a PodName,
    pub(super) uid: Option<&'a str>,
}

/// ADD: answers the pod's addresses.
pub(super) fn add(
    layout: &Layout,
    node: &Netns,
    attachment: &Attachment<'_>,
) -> Result<Vec<IpAddr>, Failure> {
    let answer = call("ADD", layout, node, attachment)?;
    let result: Value = serde_json::from_slice(&answer)
        .map_err(|error| Failure::error(format!("the answer of sluice-cni is not understood: {error}")))?;
    let ips = result.get("ips").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let address = |ip: &Value| ip.get("address")?.as_str()?.split('/').next()?.parse().ok();
    Ok(ips.iter().filter_map(address).collect())
}

/// DEL: succeeds when there is nothing left.
pub(super) fn delete(layout: &Layout, node: &Netns, attachment: &Attachment<'_>) -> Result<(), Failure> {
    call("DEL", layout, node, attachment).map(drop)
}

fn call(verb: &str, layout: &Layout, node: &Netns, attachment: &Attachment<'_>) -> Result<Vec<u8>, Failure> {
    let configuration = json!({
        "cniVersion": CNI_VERSION,
        "name": "sluice",
        "type": "sluice-cni",
        "agentSocket": layout.socket(),
        "stateDir": layout.state_dir(),
        "pinDir": layout.pin_dir(),
    });
    let PodName { namespace, name } = attachment.pod;
    let mut arguments = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={}",
        attachment.container_id
    );
    if let Some(uid) = attachment.uid {
        arguments.push_str(";K8S_POD_UID=");
        arguments.push_str(uid);
    }
    let program = binary("sluice-cni")?;
    let mut command = Command::new(&program);
    command
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", attachment.container_id)
        .env("CNI_NETNS", attachment.netns)
        .env("CNI_IFNAME", IFNAME)
        .env("CNI_ARGS", arguments)
        .env("CNI_PATH", program.parent().unwrap_or(Path::new("/")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let doing = || format!("sluice-cni {verb} for {}", attachment.pod);
    let child = node.run(|| command.spawn()).map_err(io(doing()))?.map_err(io(doing()))?;
    let done = feed(child, configuration.to_string().as_bytes()).map_err(io(doing()))?;
    if done.status.success() {
        return Ok(done.stdout);
    }
    Err(Failure::error(format!("{} failed: {}", doing(), reason(&done))))
}

fn feed(mut child: std::process::Child, input: &[u8]) -> std::io::Result<std::process::Output> {
    use std::io::Write;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that ends before it reads says why on its own.
        let _unread = stdin.write_all(input);
    }
    child.wait_with_output()
}

/// The plugin's error as the specification has it, else whatever it said.
fn reason(done: &std::process::Output) -> String {
    let error: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
    let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
    match (text("msg"), text("details")) {
        ("", _) => format!("{}: {}", done.status, String::from_utf8_lossy(&done.stderr).trim()),
        (message, "") => message.to_owned(),
        (message, details) => format!("{message}: {details}"),
    }
}
