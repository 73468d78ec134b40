//! Who there is: pods with labels, their namespaces, the node, and the world around it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

/// The node's own addresses, one per family, at its cable to the world.
pub const NODE_ADDRESSES: [&str; 2] = ["192.0.2.2", "2001:db8:2::2"];
/// The world's addresses at that cable.
pub const WORLD_ADDRESSES: [&str; 2] = ["192.0.2.1", "2001:db8:2::1"];
/// Hosts of the world that every case can name; a case adds its own.
const WORLD_HOSTS: [(&str, &str, &str); 4] = [
    ("router", WORLD_ADDRESSES[0], WORLD_ADDRESSES[1]),
    ("a", "198.51.100.1", "2001:db8:51::1"),
    ("b", "203.0.113.1", "2001:db8:113::1"),
    ("metadata", "169.254.169.254", "fd00:ec2::254"),
];

/// Labels.
pub type Labels = BTreeMap<String, String>;

/// Who there is in a case.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// Labels of namespaces; those of pods that are not named here have none.
    #[serde(default)]
    pub namespaces: BTreeMap<String, Labels>,
    /// Pods by `NAMESPACE/NAME`.
    #[serde(default)]
    pub pods: BTreeMap<String, PodSpec>,
    /// Hosts of the world beside the usual ones: one or two addresses.
    #[serde(default)]
    pub world: BTreeMap<String, Vec<IpAddr>>,
}

/// One pod.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(deny_unknown_fields)]
pub struct PodSpec {
    /// Its labels.
    #[serde(default)]
    pub labels: Labels,
    /// Names of its ports: `http: 8080/TCP`.
    #[serde(default)]
    pub ports: BTreeMap<String, String>,
}

impl Topology {
    /// The namespaces with their labels, those that only pods name included.
    #[must_use]
    pub fn all_namespaces(&self) -> BTreeMap<&str, Labels> {
        let mut all: BTreeMap<&str, Labels> = self
            .pods
            .keys()
            .filter_map(|pod| pod.split_once('/'))
            .map(|(namespace, _)| (namespace, Labels::new()))
            .collect();
        all.extend(self.namespaces.iter().map(|(name, labels)| (name.as_str(), labels.clone())));
        all
    }

    /// The addresses of a host of the world.
    ///
    /// # Errors
    /// There is no such host.
    pub fn world_host(&self, name: &str) -> Result<Vec<IpAddr>> {
        if let Some(addresses) = self.world.get(name) {
            return Ok(addresses.clone());
        }
        let (_, ipv4, ipv6) = WORLD_HOSTS
            .iter()
            .find(|(host, _, _)| *host == name)
            .with_context(|| format!("the world has no host {name}"))?;
        Ok(vec![ipv4.parse()?, ipv6.parse()?])
    }

    /// Every address of the world.
    ///
    /// # Errors
    /// Not with the hosts that are built in.
    pub fn world_addresses(&self) -> Result<BTreeSet<IpAddr>> {
        let mut all: BTreeSet<IpAddr> = self.world.values().flatten().copied().collect();
        for (host, _, _) in WORLD_HOSTS {
            all.extend(self.world_host(host)?);
        }
        Ok(all)
    }
}

/// Who asks or is asked.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Subject {
    /// `NAMESPACE/NAME`.
    Pod(String),
    /// `world/HOST`.
    World(String),
    /// `node`: the node by the address of its uplink.
    Node,
    /// `node/router`: the node by its address in the pods' pool.
    Router,
}

impl std::str::FromStr for Subject {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.split_once('/') {
            None if text == "node" => Self::Node,
            Some(("node", "router")) => Self::Router,
            Some(("world", host)) => Self::World(host.to_owned()),
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                Self::Pod(text.to_owned())
            }
            _ => bail!("{text:?} is not NAMESPACE/NAME, world/HOST, node or node/router"),
        })
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod(name) => f.write_str(name),
            Self::World(host) => write!(f, "world/{host}"),
            Self::Node => f.write_str("node"),
            Self::Router => f.write_str("node/router"),
        }
    }
}

/// The manifest of a namespace.
#[must_use]
pub fn namespace_manifest(name: &str, labels: &Labels) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// The manifest of a pod.
///
/// # Errors
/// The name or a port is malformed.
pub fn pod_manifest(pod: &str, spec: &PodSpec) -> Result<Value> {
    let (namespace, name) = pod.split_once('/').with_context(|| format!("{pod:?} is not NAMESPACE/NAME"))?;
    let mut ports = Vec::new();
    for (port_name, port) in &spec.ports {
        let (number, protocol) =
            port.split_once('/').with_context(|| format!("{port:?} is not PORT/PROTOCOL"))?;
        let number: u16 = number.parse().with_context(|| format!("the port of {port:?}"))?;
        ports.push(json!({"name": port_name, "containerPort": number, "protocol": protocol}));
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": spec.labels},
        "spec": {"containers": [{"name": "main", "image": "none", "ports": ports}]},
    }))
}
