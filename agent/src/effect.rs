//! What the outside world must do after an event: everything that [`crate::state::State::apply`] returns.
//!
//! Work in the kernel and on disk comes as a [`Batch`] of steps that are carried out in order; the next batch is
//! made only after the report of this one, so changes that arrive meanwhile are answered together.

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sluice_client::model::{EndpointOptions, EndpointRequest};
use sluice_ebpf_common::{EndpointInfo, IpcacheEntry};
use sluice_policy::EndpointPolicy;
use sluice_policy::map_state::{Entry, Key};
use sluice_proxy_rules::EndpointRules;
use sluice_types::{EndpointId, Identity, Labels};

use crate::datapath::Forget;
use crate::event::{Answer, Refusal, Ticket};
use crate::identity::IdentityRecord;
use crate::ipam::IpamRecord;

/// One effect.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Carry out these steps, then report.
    Execute(Batch),
    /// Tell whoever holds the ticket.
    Answer(Ticket, Result<Answer, Refusal>),
    /// Read the sources now: something is unknown that may have just been written.
    Rescan,
    /// Forget connections and counters of endpoints that are gone.
    Forget(Forget),
    /// Who is who has changed: names for reports.
    Publish(Arc<crate::observe::Names>),
}

/// Steps in order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The steps.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug)]
pub(crate) enum Step {
    /// Write a file.
    Store(Record),
    /// Put policies in place, then write the entries of their endpoints.
    ///
    /// An endpoint whose policy cannot be put in place is closed before anything else happens.
    Install(Vec<Installation>),
    /// Add entries to or remove them from policies in place. Only entries that no packet can ask for yet, or any
    /// more, so no revision changes.
    Amend(Vec<Amendment>),
    /// Write endpoints' entries without touching their policy.
    Endpoint(Vec<EndpointInfo>),
    /// Packets of this interface belong to nobody.
    Unbind(u32),
    /// Write ipcache entries, remove others, then change the epoch.
    Ipcache {
        /// New or changed entries.
        set: Vec<(IpNet, IpcacheEntry)>,
        /// Entries to remove.
        remove: Vec<IpNet>,
    },
    /// Forget an endpoint: its entry and interface first, then its policy.
    Remove(EndpointId),
}

/// One policy for endpoints that share it.
#[derive(Debug)]
pub(crate) struct Installation {
    /// The policy.
    pub policy: Arc<EndpointPolicy>,
    /// Their entries, ready, with the new revision.
    pub endpoints: Vec<EndpointInfo>,
}

/// A change of a policy in place.
#[derive(Debug)]
pub(crate) struct Amendment {
    /// The endpoints that share it.
    pub endpoints: Vec<EndpointId>,
    /// The policy afterwards.
    pub policy: Arc<EndpointPolicy>,
    /// Entries to add.
    pub add: Vec<(Key, Entry)>,
    /// Entries to remove.
    pub remove: Vec<Key>,
}

/// What is kept on disk.
#[derive(Debug)]
pub(crate) enum Record {
    /// Leases.
    Ipam(IpamRecord),
    /// The table of identities.
    Identities(Vec<IdentityRecord>),
    /// How far numbers are used up.
    Numbers(NumbersRecord),
    /// One endpoint.
    Endpoint(Box<EndpointRecord>),
    /// One endpoint less.
    EndpointGone(EndpointId),
    /// What the proxies must know of an endpoint.
    Rules(Box<EndpointRules>),
    /// They need to know nothing of it any more.
    RulesGone(EndpointId),
}

/// Numbers below these may have been used.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct NumbersRecord {
    /// Revisions of endpoints' policies.
    pub revision: u32,
    /// Generations of endpoints.
    pub generation: u32,
}

/// An endpoint as it is stored.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct EndpointRecord {
    /// Its number.
    pub id: EndpointId,
    /// Its life.
    pub generation: u32,
    /// Its identity.
    pub identity: Identity,
    /// The identity's labels.
    pub labels: Labels,
    /// What the plugin said.
    pub attachment: EndpointRequest,
    /// Its options.
    pub options: EndpointOptions,
}

/// What became of a batch. What is not named succeeded.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// What failed.
    pub failures: Vec<Failure>,
}

/// One thing that failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Failure {
    /// What.
    pub what: Failed,
    /// Why, for people.
    pub reason: String,
}

impl Failed {
    /// The interface, if it is one that was not unbound.
    pub(crate) const fn unbound(&self) -> Option<u32> {
        if let Self::Unbind(ifindex) = self { Some(*ifindex) } else { None }
    }
}

/// What can fail.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Failed {
    /// The leases were not stored.
    StoreIpam,
    /// Identities or numbers were not stored.
    StoreTables,
    /// The endpoint was not stored.
    StoreEndpoint(EndpointId),
    /// The proxies were not told about the endpoint.
    StoreRules(EndpointId),
    /// The endpoint's policy or entry was not written; it is closed.
    Install(EndpointId),
    /// An interface was not unbound.
    Unbind(u32),
    /// The entry of this prefix was not written or removed.
    Ipcache(IpNet),
    /// The ipcache epoch was not changed.
    Epoch,
    /// The endpoint was not removed.
    Remove(EndpointId),
}
