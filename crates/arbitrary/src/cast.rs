//! The cluster that random policies are about: small, and with somebody for everything that a rule can name.

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
