//! The network configuration, checked whole before anything is touched.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sluice_client::path;

use crate::attachment::Attachment;
use crate::environment::{check_container_id, check_ifname, check_word};
use crate::error::Error;
use crate::json::Node;
use crate::programs;
use crate::result::CniResult;
use crate::version::SpecVersion;

/// Longest name of a network; it becomes part of an alias of at most 255 bytes.
const NETWORK_NAME_LEN_MAX: usize = 64;
/// Most attachments that GC is told of: far more than one node has.
const ATTACHMENTS_MAX: usize = 100_000;
/// IPv6 needs links of at least this MTU (RFC 8200, section 5).
const MTU_MIN: u32 = 1280;
/// The largest MTU of a veth.
const MTU_MAX: u32 = 65_535;

/// Keys of the specification that a runtime or an administrator may set and that ask nothing of this plugin.
const KEYS_WITHOUT_MEANING: &[&str] = &[
    "cniVersion",
    "cniVersions",
    "type",
    "capabilities",
    "runtimeConfig",
    "args",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
];
/// Keys that are read.
const KEYS: &[&str] = &["name", "agentSocket", "stateDir", "pinDir", "mtu", "ipam", "dns", "prevResult"];

/// The configuration of one network.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The version it is written in, which the result is written in too.
    pub(crate) version: SpecVersion,
    /// The network's name.
    pub(crate) name: String,
    /// The agent's socket.
    pub(crate) agent_socket: PathBuf,
    /// Where delete records go.
    pub(crate) state_dir: PathBuf,
    /// Where the datapath's programs and links are pinned.
    pub(crate) pin_dir: PathBuf,
    /// MTU of the pod's interface, in place of the agent's.
    pub(crate) mtu: Option<u32>,
    /// Who hands out addresses.
    pub(crate) ipam: Ipam,
    /// `dns`, passed on in the result.
    pub(crate) dns: Option<Value>,
    /// `prevResult`.
    pub(crate) previous: Option<Previous>,
    /// `cni.dev/valid-attachments`: what GC leaves. Absent means none, as the reference library means it.
    pub(crate) valid_attachments: Vec<Attachment>,
}

/// Who hands out addresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Ipam {
    /// The agent.
    Own,
    /// The plugin of this name.
    Delegated(String),
}

/// A previous result.
#[derive(Clone, Debug)]
pub(crate) struct Previous {
    /// As it came.
    pub(crate) document: Value,
    /// As it is understood.
    pub(crate) result: CniResult,
}

/// The version a configuration says it is written in.
pub(crate) fn spec_version(document: &Value) -> Result<SpecVersion, Error> {
    let root = Node::new("the network configuration", document);
    // Documents without a version are of one before 0.3.0 by definition.
    SpecVersion::parse(root.text_at("cniVersion")?.unwrap_or("0.1.0"))
}

impl Config {
    /// Reads and checks a configuration of `version`.
    pub(crate) fn from_json(document: &Value, version: SpecVersion) -> Result<Self, Error> {
        let root = Node::new("the network configuration", document);
        refuse_unknown_keys(&root)?;
        let name = root.text_at("name")?.ok_or_else(|| invalid("name", "it is missing"))?.to_owned();
        check_word(&name, NETWORK_NAME_LEN_MAX).map_err(|reason| invalid("name", &reason))?;
        let mtu = root.number_at("mtu")?;
        if mtu.is_some_and(|mtu| !(MTU_MIN..=MTU_MAX).contains(&mtu)) {
            return Err(invalid("mtu", &format!("it is not between {MTU_MIN} and {MTU_MAX}")));
        }
        let dns = root.member("dns")?;
        if let Some(dns) = &dns {
            dns.object()?;
        }
        Ok(Self {
            version,
            name: name.clone(),
            agent_socket: directory(&root, "agentSocket", Path::new(path::DEFAULT_SOCKET))?,
            state_dir: directory(&root, "stateDir", Path::new(path::DEFAULT_STATE_DIR))?,
            pin_dir: directory(&root, "pinDir", &programs::default_pin_dir())?,
            mtu,
            ipam: ipam(&root)?,
            dns: dns.map(|dns| dns.value().clone()),
            previous: previous(&root, version)?,
            valid_attachments: valid_attachments(&root, &name)?,
        })
    }
}

/// A key that is misspelt would otherwise silently not do what its author wants. Keys with a `/` belong to whoever
/// owns the domain before it.
fn refuse_unknown_keys(root: &Node<'_>) -> Result<(), Error> {
    for (key, value) in root.object()? {
        let is_asked_in_vain = key == "ipMasq" && value.as_bool() != Some(false);
        let known = KEYS.contains(&key.as_str()) || KEYS_WITHOUT_MEANING.contains(&key.as_str());
        if is_asked_in_vain || !(known || key.contains('/') || key == "ipMasq") {
            let mut value = value.to_string();
            value.truncate(value.floor_char_boundary(100));
            return Err(Error::UnsupportedField { key: key.clone(), value });
        }
    }
    Ok(())
}

fn directory(root: &Node<'_>, key: &str, default: &Path) -> Result<PathBuf, Error> {
    let path = root.text_at(key)?.map_or_else(|| default.to_owned(), PathBuf::from);
    if path.is_absolute() { Ok(path) } else { Err(invalid(key, "it is not an absolute path")) }
}

fn ipam(root: &Node<'_>) -> Result<Ipam, Error> {
    let Some(ipam) = root.member("ipam")? else { return Ok(Ipam::Own) };
    match ipam.text_at("type")? {
        Some(plugin) => {
            check_word(plugin, NETWORK_NAME_LEN_MAX).map_err(|reason| invalid("ipam.type", &reason))?;
            Ok(Ipam::Delegated(plugin.to_owned()))
        }
        None if ipam.object()?.is_empty() => Ok(Ipam::Own),
        None => Err(invalid("ipam.type", "it is missing; leave `ipam` away for the agent's own addresses")),
    }
}

fn previous(root: &Node<'_>, version: SpecVersion) -> Result<Option<Previous>, Error> {
    let Some(document) = root.member("prevResult")? else { return Ok(None) };
    let document = document.value();
    let node = Node::new("prevResult", document);
    if let Some(found) = node.text_at("cniVersion")?.filter(|found| *found != version.as_str()) {
        let reason = format!("it is of version {found}, the configuration of {version}");
        return Err(invalid("prevResult.cniVersion", &reason));
    }
    let result = CniResult::from_json(&node)?;
    result.check_indices()?;
    Ok(Some(Previous { document: document.clone(), result }))
}

fn valid_attachments(root: &Node<'_>, network: &str) -> Result<Vec<Attachment>, Error> {
    // The second name stood in drafts of 1.1.0 and is still sent beside the first.
    let key = ["cni.dev/valid-attachments", "cni.dev/attachments"]
        .into_iter()
        .find(|key| root.value().get(*key).is_some_and(|value| !value.is_null()));
    let Some(key) = key else { return Ok(Vec::new()) };
    let mut attachments = Vec::new();
    for node in root.list(key, ATTACHMENTS_MAX)? {
        let container_id =
            node.text_at("containerID")?.ok_or_else(|| node.invalid("containerID is missing"))?;
        let ifname = node.text_at("ifname")?.ok_or_else(|| node.invalid("ifname is missing"))?;
        check_container_id(container_id).map_err(|reason| node.invalid(&format!("containerID: {reason}")))?;
        check_ifname(ifname).map_err(|reason| node.invalid(&format!("ifname: {reason}")))?;
        attachments.push(Attachment::new(network, container_id, ifname));
    }
    Ok(attachments)
}

fn invalid(key: &str, reason: &str) -> Error {
    Error::Config { key: key.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A configuration with some keys set, or removed by null.
    fn check(changes: &Value) -> Result<Config, Error> {
        let mut document = json!({ "cniVersion": "1.1.0", "name": "pods", "type": "sluice-cni" });
        for (key, value) in changes.as_object().unwrap() {
            document.as_object_mut().unwrap().insert(key.clone(), value.clone());
        }
        let version = spec_version(&document)?;
        Config::from_json(&document, version)
    }

    #[test]
    fn defaults() {
        let config = check(&json!({})).unwrap();
        assert_eq!(config.version, SpecVersion::V1_1_0);
        assert_eq!(config.name, "pods");
        assert_eq!(config.agent_socket, Path::new("/run/sluice/agent.sock"));
        assert_eq!(config.state_dir, Path::new("/var/lib/sluice"));
        assert_eq!(config.pin_dir, Path::new("/sys/fs/bpf/sluice/v1"));
        assert_eq!(config.ipam, Ipam::Own);
        assert!(config.mtu.is_none() && config.previous.is_none() && config.valid_attachments.is_empty());
    }

    #[test]
    fn accepted() {
        let cases = [
            json!({ "ipam": {} }),
            json!({ "ipam": null, "mtu": null, "prevResult": null }),
            json!({ "ipam": { "type": "host-local", "ranges": [] } }),
            json!({ "mtu": 1280 }),
            json!({ "mtu": 65535 }),
            json!({ "ipMasq": false, "disableCheck": true, "disableGC": false, "cniVersions": ["1.0.0"] }),
            json!({ "capabilities": { "portMappings": true }, "runtimeConfig": { "portMappings": [] } }),
            json!({ "example.org/anything": 1, "args": { "cni": {} } }),
            json!({ "dns": { "nameservers": ["10.0.0.1"] } }),
        ];
        for case in cases {
            check(&case).unwrap_or_else(|error| panic!("{case}: {error}"));
        }
        let delegated = check(&json!({ "ipam": { "type": "host-local" } })).unwrap();
        assert_eq!(delegated.ipam, Ipam::Delegated("host-local".to_owned()));
    }

    #[test]
    fn refused() {
        let long = "n".repeat(65);
        let cases = [
            (1, json!({ "cniVersion": "0.2.0" })),
            (1, json!({ "cniVersion": "2.0.0" })),
            (1, json!({ "cniVersion": "" })),
            (1, json!({ "cniVersion": null })),
            (6, json!({ "cniVersion": 1 })),
            (2, json!({ "agentSockets": "/run/x" })),
            (2, json!({ "ipMasq": true })),
            (7, json!({ "name": null })),
            (7, json!({ "name": "" })),
            (7, json!({ "name": "../x" })),
            (7, json!({ "name": long })),
            (6, json!({ "name": ["x"] })),
            (6, json!({ "agentSocket": 1 })),
            (7, json!({ "agentSocket": "agent.sock" })),
            (7, json!({ "stateDir": "x" })),
            (7, json!({ "pinDir": "../x" })),
            (7, json!({ "mtu": 1279 })),
            (7, json!({ "mtu": 65536 })),
            (6, json!({ "mtu": -1 })),
            (6, json!({ "mtu": 1500.5 })),
            (6, json!({ "mtu": "1500" })),
            (6, json!({ "ipam": "host-local" })),
            (6, json!({ "ipam": { "type": 5 } })),
            (7, json!({ "ipam": { "subnet": "10.0.0.0/8" } })),
            (7, json!({ "ipam": { "type": "../../bin/sh" } })),
            (7, json!({ "ipam": { "type": "a/b" } })),
            (7, json!({ "ipam": { "type": ".." } })),
            (6, json!({ "dns": [] })),
            (6, json!({ "prevResult": "x" })),
            (6, json!({ "prevResult": [] })),
            (7, json!({ "prevResult": { "cniVersion": "1.0.0" } })),
            (7, json!({ "prevResult": { "cniVersion": "0.2.0", "ip4": {} } })),
            (6, json!({ "prevResult": { "cniVersion": 3 } })),
            (6, json!({ "cni.dev/valid-attachments": {} })),
            (6, json!({ "cni.dev/valid-attachments": [{}] })),
            (6, json!({ "cni.dev/valid-attachments": [{ "containerID": "a", "ifname": "../x" }] })),
            (6, json!({ "cni.dev/valid-attachments": [{ "containerID": "a/b", "ifname": "eth0" }] })),
        ];
        for (code, case) in cases {
            match check(&case) {
                Err(error) => assert_eq!(error.code(), code, "{case}: {error}"),
                Ok(_) => panic!("{case} was accepted"),
            }
        }
    }

    #[test]
    fn attachments() {
        let config =
            check(&json!({ "cni.dev/valid-attachments": [{ "containerID": "a", "ifname": "eth0" }] }));
        assert_eq!(config.unwrap().valid_attachments, [Attachment::new("pods", "a", "eth0")]);
        for none in [json!({ "cni.dev/attachments": [] }), json!({ "cni.dev/valid-attachments": null })] {
            assert_eq!(check(&none).unwrap().valid_attachments, []);
        }
    }
}
