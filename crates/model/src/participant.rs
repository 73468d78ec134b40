//! Who takes part: pods, nodes, addresses outside, and what has a fixed meaning.

use std::{collections::BTreeMap, net::IpAddr};

use sluice_policy::NamedPort;
use sluice_types::{Identity, Label, Labels, Source};

/// What a participant is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Who {
    /// A pod of this namespace.
    Pod {
        /// Where it is.
        namespace: String,
        /// The pod's own labels.
        labels: BTreeMap<String, String>,
        /// What it runs as.
        service_account: String,
    },
    /// Any pod that has exactly these labels, given with their sources.
    Labelled(Labels),
    /// Somebody who is not judged here and has exactly these labels, as another judge gave them out.
    Seen(Labels),
    /// An address outside of the cluster.
    Outside,
    /// The node the other end is on, with its node labels. Judged if the host firewall is on.
    Host(BTreeMap<String, String>),
    /// One of the other identities with a fixed meaning: `world`, `remote-node`, `health` and so on.
    Reserved {
        /// Which one.
        identity: Identity,
        /// Node labels, if it is a node.
        labels: BTreeMap<String, String>,
    },
}

/// Somebody who sends or receives.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Participant {
    /// The name it is asked for by: `namespace/name` of a pod, anything else for others.
    pub name: String,
    /// What it is.
    pub who: Who,
    /// Its addresses, as far as they are known. Somebody outside has exactly one.
    pub addresses: Vec<IpAddr>,
    /// DNS names whose answers held one of its addresses and passed the DNS proxy.
    pub names: Vec<String>,
    /// The names of its ports.
    pub ports: Vec<NamedPort>,
    /// Further reserved labels, as the API server's address has one.
    pub also: Vec<String>,
    /// Whether it is in audit mode by itself; what its namespace and the cluster say does not count then.
    pub audit: Option<bool>,
}

impl Who {
    /// Whether it is a pod, known by its manifest or by its labels alone.
    #[must_use]
    pub const fn is_pod(&self) -> bool {
        matches!(self, Self::Pod { .. } | Self::Labelled(_))
    }
}

impl Participant {
    /// Without addresses, names and ports.
    #[must_use]
    pub fn new(name: impl Into<String>, who: Who) -> Self {
        Self {
            name: name.into(),
            who,
            addresses: Vec::new(),
            names: Vec::new(),
            ports: Vec::new(),
            also: Vec::new(),
            audit: None,
        }
    }

    /// A pod with these labels of its own, `namespace/name`.
    #[must_use]
    pub fn pod(namespace: &str, name: &str, labels: BTreeMap<String, String>, service_account: &str) -> Self {
        let who =
            Who::Pod { namespace: namespace.to_owned(), labels, service_account: service_account.to_owned() };
        Self::new(format!("{namespace}/{name}"), who)
    }

    /// An address outside of the cluster.
    #[must_use]
    pub fn outside(name: impl Into<String>, address: IpAddr) -> Self {
        Self { addresses: vec![address], ..Self::new(name, Who::Outside) }
    }

    /// Whether policies may select it. Other nodes and the world judge for themselves or not at all.
    #[must_use]
    pub fn is_judged(&self, host_firewall: bool) -> bool {
        match &self.who {
            Who::Pod { .. } | Who::Labelled(_) => true,
            Who::Seen(_) | Who::Outside => false,
            Who::Host(_) => host_firewall,
            Who::Reserved { identity, .. } => {
                [Identity::HEALTH, Identity::INIT, Identity::INGRESS].contains(identity)
            }
        }
    }
}

/// Labels of a node as its identity carries them.
pub(crate) fn node_labels(labels: &BTreeMap<String, String>) -> impl Iterator<Item = Label> {
    labels.iter().map(|(key, value)| Label::new(Source::Node, key, value))
}
