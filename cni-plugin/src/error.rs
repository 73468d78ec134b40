//! Why a verb failed, and the number the runtime gets to see for it: the only place that knows the numbers.
//!
//! Below 100 they are the specification's, from 100 on ours; `docs/cni.md` lists both.

use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};
use sluice_client::ClientError;
use sluice_ebpf_loader::LoaderError;
use sluice_netlink::NetnsError;
use sluice_netlink::sysctl::SysctlError;

use crate::environment::Verb;
use crate::report;
use crate::version::SpecVersion;

/// A verb failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The configuration is of a version of the specification that is not spoken.
    #[error("CNI version {found} is not supported; supported are {}", SpecVersion::list())]
    Version { found: String },
    /// The verb came later than the configuration's version.
    #[error("{verb} exists from CNI version {since} on, and the configuration is of {found}")]
    VerbTooNew { verb: Verb, since: SpecVersion, found: SpecVersion },
    /// A key that means nothing here, so that its author would be disappointed.
    #[error("unsupported field in the network configuration: {key}: {value}")]
    UnsupportedField { key: String, value: String },
    /// The kernel has an address and does not take packets to it.
    #[error("the container does not take packets to its address {0}")]
    AddressUnusable(std::net::IpAddr),
    /// The container's namespace is gone.
    #[error("the container is not there")]
    ContainerMissing(#[source] NetnsError),
    /// A parameter is missing or invalid.
    #[error("{name} is invalid: {reason}")]
    Environment { name: &'static str, reason: String },
    /// The namespace is none, or the node's own.
    #[error("CNI_NETNS is refused")]
    NetnsRefused(#[source] NetnsError),
    /// The namespace is the node's.
    #[error("CNI_NETNS is refused: {0} is the network namespace of the node itself")]
    NetnsOfNode(PathBuf),
    /// Reading or writing failed.
    #[error("cannot {operation} {object}")]
    Io {
        operation: &'static str,
        object: String,
        #[source]
        source: io::Error,
    },
    /// A document is not what it should be.
    #[error("cannot decode {what}: {reason}")]
    Decode { what: String, reason: String },
    /// The configuration asks for what cannot be.
    #[error("the network configuration is invalid: {key}: {reason}")]
    Config { key: String, reason: String },
    /// The agent is down or does not answer.
    #[error("cannot {operation}: try again when the agent runs")]
    AgentUnreachable {
        operation: &'static str,
        #[source]
        source: ClientError,
    },
    /// The agent runs and asks for patience.
    #[error("cannot {operation} yet")]
    AgentNotReady {
        operation: &'static str,
        #[source]
        source: ClientError,
    },
    /// Another call for the same attachment is under way.
    #[error("another call for container {container_id}, interface {ifname} is still running")]
    Busy { container_id: String, ifname: String },
    /// STATUS: pods cannot be added now.
    #[error("pods cannot be added: {reason}")]
    NotAvailable {
        reason: String,
        #[source]
        source: Option<ClientError>,
    },
    /// STATUS: pods cannot be added, and those that exist may not get what policy allows.
    #[error("pods cannot be added, and running ones may lack connectivity: {reason}")]
    LimitedConnectivity { reason: String },
    /// A bug of ours; the panic's message is on standard error.
    #[error("sluice-cni failed unexpectedly; its standard error says where")]
    Bug,
    /// The agent said no.
    #[error("the agent refused to {operation}")]
    AgentRefused {
        operation: &'static str,
        #[source]
        source: ClientError,
    },
    /// The agent has no address left.
    #[error("there is no free address")]
    Exhausted(#[source] ClientError),
    /// The container has an interface of that name already.
    #[error("the container has an interface {0} already")]
    InterfaceTaken(String),
    /// The host-side name is in use for something else.
    #[error("the node has an interface {name} already, and it is not this container's: {what}")]
    HostInterfaceTaken { name: String, what: String },
    /// ADD for an attachment that is there and complete.
    #[error("container {container_id} has been added with interface {ifname} already; delete it first")]
    AlreadyAdded { container_id: String, ifname: String },
    /// A netlink request failed.
    #[error("cannot set up the network")]
    Network(#[from] sluice_netlink::Error),
    /// The namespace could not be entered.
    #[error("cannot set up the network")]
    Namespace(#[source] NetnsError),
    /// A kernel setting failed.
    #[error("cannot set up the network")]
    Setting(#[from] SysctlError),
    /// The datapath's programs could not be attached.
    #[error("cannot put interface {ifname} under policy")]
    Programs {
        ifname: String,
        #[source]
        source: LoaderError,
    },
    /// The delegated IPAM plugin could not be run.
    #[error("cannot run the IPAM plugin {plugin} for {verb}: {reason}")]
    IpamRun {
        plugin: String,
        verb: Verb,
        reason: String,
        #[source]
        source: Option<io::Error>,
    },
    /// The delegated IPAM plugin said no; its code is passed on.
    #[error("the IPAM plugin {plugin} failed: {message}")]
    IpamFailed { plugin: String, code: u64, message: String, details: String },
    /// The delegated IPAM plugin's result cannot be used.
    #[error("the result of the IPAM plugin {plugin} cannot be used: {reason}")]
    IpamResult { plugin: String, reason: String },
    /// CHECK found differences.
    #[error("the attachment is not as it was made: {}", .0.join("; "))]
    Drift(Vec<String>),
    /// Chained: the other plugin's interface is of a kind that cannot be put under policy.
    #[error("interface {ifname} cannot be put under policy: {reason}")]
    UnsupportedInterface { ifname: String, reason: String },
}

impl Error {
    /// The number the runtime gets.
    pub(crate) fn code(&self) -> u64 {
        match self {
            Self::Version { .. } | Self::VerbTooNew { .. } => 1,
            Self::UnsupportedField { .. } => 2,
            Self::ContainerMissing(_) => 3,
            Self::Environment { .. } | Self::NetnsRefused(_) | Self::NetnsOfNode(_) => 4,
            Self::Io { .. } => 5,
            Self::Decode { .. } => 6,
            Self::Config { .. } => 7,
            Self::AgentUnreachable { .. } | Self::AgentNotReady { .. } | Self::Busy { .. } => 11,
            Self::NotAvailable { .. } => 50,
            Self::LimitedConnectivity { .. } => 51,
            Self::Bug => 100,
            Self::AgentRefused { .. } => 101,
            Self::Exhausted(_) => 102,
            Self::InterfaceTaken(_) => 103,
            Self::HostInterfaceTaken { .. } => 104,
            Self::AlreadyAdded { .. } => 105,
            Self::Network(_) | Self::Namespace(_) | Self::Setting(_) | Self::AddressUnusable(_) => 106,
            Self::Programs { .. } => 107,
            Self::IpamRun { .. } => 108,
            Self::IpamFailed { code, .. } => *code,
            Self::IpamResult { .. } => 109,
            Self::Drift(_) => 110,
            Self::UnsupportedInterface { .. } => 111,
        }
    }

    /// The specification's error object.
    pub(crate) fn to_json(&self, version: SpecVersion) -> Value {
        let causes = std::error::Error::source(self).map(report::with_causes).unwrap_or_default();
        let details = if let Self::IpamFailed { details, .. } = self { details.clone() } else { causes };
        let mut object =
            json!({ "cniVersion": version.as_str(), "code": self.code(), "msg": self.to_string() });
        if let Some(object) = object.as_object_mut().filter(|_| !details.is_empty()) {
            object.insert("details".to_owned(), details.into());
        }
        object
    }
}

/// What a netns error means depends on what is wrong with the namespace.
impl From<NetnsError> for Error {
    fn from(error: NetnsError) -> Self {
        match error {
            NetnsError::Missing(_) => Self::ContainerMissing(error),
            NetnsError::NotNetns { .. } => Self::NetnsRefused(error),
            NetnsError::Netlink(error) => Self::Network(error),
            NetnsError::Io { .. } => Self::Namespace(error),
        }
    }
}
