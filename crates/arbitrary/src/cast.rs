//! The cluster that random policies are about: small, and with somebody for everything that a rule can name.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::{Value, json};
use sluice_types::Protocol;

/// Keys and values.
pub type Pairs = &'static [(&'static str, &'static str)];

/// A pod as its author wrote it.
#[derive(Clone, Debug)]
pub struct Pod {
    /// `namespace/name`.
    pub name: &'static str,
    /// Its own labels.
    pub labels: Pairs,
    /// The names of its ports: name, protocol, number.
    pub ports: &'static [(&'static str, Protocol, u16)],
}

impl Pod {
    /// Where it is.
    #[must_use]
    pub fn namespace(&self) -> &'static str {
        self.name.split_once('/').map_or("", |(namespace, _)| namespace)
    }
}

/// A Service as somebody reads it.
#[derive(Clone, Debug)]
pub struct Svc {
    /// `namespace/name`.
    pub name: &'static str,
    /// Its labels.
    pub labels: Pairs,
    /// The label of the pods behind it; without one somebody else said who is behind it.
    pub selector: Option<(&'static str, &'static str)>,
    /// Its own address.
    pub cluster_ip: &'static str,
    /// Name, protocol, own number, number behind it.
    pub ports: &'static [(&'static str, Protocol, u16, u16)],
    /// Pods and addresses.
    pub behind: &'static [&'static str],
}

/// A group of prefixes.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name.
    pub name: &'static str,
    /// Its labels.
    pub labels: Pairs,
    /// What is in it.
    pub prefixes: &'static [&'static str],
}

/// Namespaces with their labels.
pub const NAMESPACES: [(&str, Pairs); 3] =
    [("a", &[("team", "x")]), ("b", &[("team", "y"), ("zone", "z")]), ("kube-system", &[])];
/// The pods of the cluster.
pub const PODS: &[Pod] = &[
    Pod { name: "a/web", labels: &[("app", "web")], ports: &[("http", Protocol::Tcp, 80)] },
    Pod { name: "a/db", labels: &[("app", "db"), ("tier", "t")], ports: &[] },
    Pod { name: "b/web", labels: &[("app", "web"), ("tier", "t")], ports: &[("http", Protocol::Tcp, 8080)] },
    Pod {
        name: "b/odd",
        labels: &[("tier", "u")],
        ports: &[("http", Protocol::Udp, 80), ("dns", Protocol::Udp, 53), ("dns", Protocol::Udp, 54)],
    },
    Pod {
        name: "kube-system/dns",
        labels: &[("k8s-app", "kube-dns")],
        ports: &[("dns", Protocol::Udp, 53), ("dns-tcp", Protocol::Tcp, 53)],
    },
];
/// Addresses outside of it, inside and beside the prefixes that policies name.
pub const ADDRESSES: [&str; 11] = [
    "10.0.0.1",
    "10.1.0.1",
    "10.1.1.1",
    "192.0.2.1",
    "fd00::1",
    "fd00:1::1",
    "2001:db8::1",
    "10.96.0.1",
    "10.96.0.2",
    "203.0.113.5",
    "203.0.113.6",
];
/// Peers with an identity of fixed meaning.
pub const RESERVED: [&str; 4] = ["host", "remote-node", "health", "unmanaged"];
/// Other nodes by name, with their labels.
pub const NODES: [(&str, Pairs); 2] =
    [("node-a", &[("zone", "a")]), ("node-b", &[("zone", "b"), ("disk", "ssd")])];
/// What each address was learnt for.
pub const NAMES: [(&str, &[&str]); 3] = [
    ("203.0.113.5", &["api.example.com", "example.org"]),
    ("203.0.113.6", &["a.b.example.com"]),
    ("192.0.2.1", &["example.com"]),
];
/// Its Services.
pub const SERVICES: &[Svc] = &[
    Svc {
        name: "a/api",
        labels: &[("team", "x")],
        selector: Some(("app", "web")),
        cluster_ip: "10.96.0.1",
        ports: &[("web", Protocol::Tcp, 80, 8080), ("dns", Protocol::Udp, 53, 53)],
        behind: &["a/web", "a/db"],
    },
    Svc {
        name: "b/api",
        labels: &[("team", "y")],
        selector: None,
        cluster_ip: "10.96.0.2",
        ports: &[("", Protocol::Tcp, 81, 80)],
        behind: &["b/web", "203.0.113.5"],
    },
    Svc {
        name: "b/odd",
        labels: &[("team", "x")],
        selector: Some(("tier", "u")),
        cluster_ip: "10.96.0.9",
        ports: &[("http", Protocol::Tcp, 80, 80), ("m", Protocol::Tcp, 100, 81)],
        behind: &["b/web"],
    },
];
/// Its groups of prefixes.
pub const GROUPS: &[Group] = &[
    Group { name: "g", labels: &[("kind", "x")], prefixes: &["10.0.0.0/8", "192.0.2.0/24", "fd00::/8"] },
    Group {
        name: "h",
        labels: &[("kind", "x"), ("more", "y")],
        prefixes: &["10.1.0.0/16", "203.0.113.5/32"],
    },
    Group { name: "i", labels: &[], prefixes: &[] },
];

/// The pods, namespaces, Services, slices, nodes and groups as manifests, for judges that read those.
///
/// `address` gives a pod's address.
#[must_use]
pub fn manifests(address: impl Fn(&Pod) -> IpAddr) -> Vec<Value> {
    let namespaces = NAMESPACES.iter().map(
        |(name, labels)| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata(name, labels)}),
    );
    let pods = PODS.iter().map(|pod| {
        let port = |(name, protocol, number): &(&str, Protocol, u16)| {
            json!({"name": name, "protocol": protocol.to_string(), "containerPort": number})
        };
        let ports: Vec<Value> = pod.ports.iter().map(port).collect();
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata(pod.name, pod.labels),
            "spec": {"containers": [{"name": "main", "ports": ports}]},
            "status": {"podIP": address(pod)},
        })
    });
    let nodes = NODES.iter().map(
        |(name, labels)| json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata(name, labels)}),
    );
    let groups = GROUPS.iter().map(|group| {
        json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup", "metadata": metadata(group.name, group.labels),
            "spec": {"externalCIDRs": group.prefixes},
        })
    });
    let services = SERVICES.iter().flat_map(|own| [service(own), slice(own, &address)]);
    namespaces.chain(pods).chain(nodes).chain(groups).chain(services).collect()
}

/// Of an object that is called `name` or `namespace/name`.
fn metadata(name: &str, labels: Pairs) -> Value {
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
    json!({"namespace": namespace, "name": name, "labels": labels})
}

fn service(service: &Svc) -> Value {
    let port = |(name, protocol, own, _): &(&str, Protocol, u16, u16)| json!({"name": name, "protocol": protocol.to_string(), "port": own});
    let ports: Vec<Value> = service.ports.iter().map(port).collect();
    let selector: Option<BTreeMap<&str, &str>> = service.selector.map(|label| [label].into());
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(service.name, service.labels),
        "spec": {"clusterIP": service.cluster_ip, "selector": selector, "ports": ports},
    })
}

/// Who is behind a Service.
fn slice(service: &Svc, address: impl Fn(&Pod) -> IpAddr) -> Value {
    let port = |(name, protocol, _, behind): &(&str, Protocol, u16, u16)| json!({"name": name, "protocol": protocol.to_string(), "port": behind});
    let ports: Vec<Value> = service.ports.iter().map(port).collect();
    let endpoints = service.behind.iter().map(|name| {
        let own = PODS.iter().find(|pod| pod.name == *name).map(|pod| address(pod).to_string());
        json!({"addresses": [own.unwrap_or_else(|| (*name).to_owned())]})
    });
    let mut metadata = metadata(service.name, &[]);
    metadata["labels"] = json!({"kubernetes.io/service-name": metadata["name"]});
    metadata["name"] = json!(format!("{}-1", metadata["name"].as_str().unwrap()));
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": "IPv4", "endpoints": endpoints.collect::<Vec<_>>(), "ports": ports,
    })
}
