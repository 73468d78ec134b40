//! What happens to the agent's state: everything that [`crate::state::State::apply`] takes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use sluice_client::model::{CniGcResult, EndpointLogEntry, EndpointOptions, EndpointRequest, IdentityInfo};
use sluice_client::model::{Endpoint as EndpointView, IpamLease, PolicyApplied, PolicyInfo, Problem, Status};
use sluice_types::EndpointId;

use crate::effect::Report;
use crate::ipam::Owner;
use crate::source::SourceChanges;

/// The time of an event. Deadlines count on the first, people read the second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// The monotonic clock.
    pub instant: Instant,
    /// The wall clock, nanoseconds since 1970.
    pub unix_ns: u64,
}

/// Stands for somebody who waits for an answer; the wiring knows whom.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Ticket(pub u64);

/// One event.
#[derive(Debug)]
pub(crate) enum Event {
    /// Objects of the sources changed. The first one says that the sources have been read.
    Source(Box<SourceChanges>),
    /// The node has exactly these addresses.
    NodeAddresses(BTreeSet<IpAddr>),
    /// These links exist on the node: index and name.
    Links(BTreeMap<u32, String>),
    /// The devices that carry `from_netdev`, and what is wrong with the node's set-up, whole.
    Node {
        /// Names.
        devices: Vec<String>,
        /// What needs a look.
        problems: Vec<Problem>,
    },
    /// Somebody asks for something.
    Request(Request, Ticket),
    /// A batch of steps was carried out.
    Executed(Report),
    /// A deadline has come.
    Tick,
}

/// What can be asked for.
#[derive(Debug)]
pub(crate) enum Request {
    /// Addresses for an owner.
    Lease(Owner),
    /// The end of a lease.
    Release(Owner),
    /// A new endpoint; answered when its policy is in the kernel.
    CreateEndpoint(Box<EndpointRequest>),
    /// The end of an endpoint and its lease; answered when the kernel has forgotten it.
    DeleteAttachment(Owner),
    /// The same for everything of our network that is not among these.
    Gc(BTreeSet<Owner>),
    /// Other options for an endpoint.
    Configure(EndpointId, EndpointOptions),
    /// The agent's state.
    Status,
    /// All endpoints.
    Endpoints,
    /// One endpoint.
    Endpoint(EndpointId),
    /// The history of one endpoint.
    EndpointLog(EndpointId),
    /// All identities in use.
    Identities,
    /// What policies can be about, as users write it.
    Objects,
    /// All policies.
    Policies,
    /// How full the maps are that the state fills.
    MapLevels,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Done,
    Lease(IpamLease),
    Endpoint(Box<EndpointView>),
    Endpoints(Vec<EndpointView>),
    EndpointLog(Vec<EndpointLogEntry>),
    Gc(CniGcResult),
    Identities(Vec<IdentityInfo>),
    Policies(Vec<PolicyInfo>),
    Objects(Vec<serde_json::Value>),
    Applied(PolicyApplied),
    Status(Box<Status>),
    MapLevels { addresses4: usize, addresses6: usize, prefixes4: usize, prefixes6: usize },
}

/// Why a request is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    /// The kind, for programs.
    pub code: RefusalCode,
    /// One sentence for people.
    pub message: String,
}

impl Refusal {
    /// A refusal with a sentence.
    #[must_use]
    pub(crate) fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RefusalCode {
    /// There is no such thing.
    NotFound,
    /// It contradicts what is there.
    Conflict,
    /// The request makes no sense.
    Invalid,
    /// Something has run out.
    Exhausted,
    /// Not now.
    NotReady,
    /// The kernel or the disk refuses.
    Internal,
}

impl RefusalCode {
    /// The word of the API.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Exhausted => "exhausted",
            Self::NotReady => "not-ready",
            Self::Internal => "internal",
        }
    }

    /// The status of the API.
    #[must_use]
    pub(crate) const fn http_status(self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::Conflict | Self::Exhausted => 409,
            Self::Invalid => 400,
            Self::NotReady => 503,
            Self::Internal => 500,
        }
    }
}
