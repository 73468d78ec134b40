//! Questions to the agent: each with a time limit of its own and an error that says what was wanted.

use std::time::Duration;

use sluice_client::model::{
    CniGcRequest, CniGcResult, Endpoint, EndpointRequest, IpamLease, IpamRequest, Status,
};
use sluice_client::{Client, ClientError, path};

use crate::attachment::Attachment;
use crate::config::Config;
use crate::error::Error;

/// STATUS is asked often, and an answer that takes longer is as good as none.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
/// Handing out an address is a write to disk.
const LEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// Includes waiting for the Pod's manifest and computing its policy.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(20);
const DELETE_TIMEOUT: Duration = Duration::from_secs(5);
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
const GC_TIMEOUT: Duration = Duration::from_secs(30);

/// The agent of this node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agent<'a> {
    config: &'a Config,
}

impl<'a> Agent<'a> {
    /// The agent that `config` names. Nothing is connected yet.
    pub(crate) const fn new(config: &'a Config) -> Self {
        Self { config }
    }

    /// Its state; the error is the client's own because STATUS judges it.
    pub(crate) fn status(&self) -> Result<Status, ClientError> {
        self.client(STATUS_TIMEOUT).fetch(path::STATUS)
    }

    /// Refuses early when the agent is not there, before anything is made that would have to be taken back.
    pub(crate) fn check_runs(&self) -> Result<(), Error> {
        self.status().map(drop).map_err(|source| failure("reach the agent", source))
    }

    /// Addresses for the attachment.
    pub(crate) fn lease(&self, attachment: &Attachment) -> Result<IpamLease, Error> {
        let asked = self.client(LEASE_TIMEOUT).send("POST", path::IPAM, &owner(attachment));
        asked.map_err(|source| failure("get addresses from the agent", source))
    }

    /// Gives the attachment's addresses back, if it has any.
    pub(crate) fn release(&self, attachment: &Attachment) -> Result<(), Error> {
        let path = path::fill(path::IPAM_OWNER, &[&attachment.container_id, &attachment.ifname]);
        self.delete("give the addresses back to the agent", &path)
    }

    /// Puts the attachment under policy: when this returns, its policy is in the kernel.
    pub(crate) fn create_endpoint(&self, request: &EndpointRequest) -> Result<Endpoint, Error> {
        let asked = self.client(ENDPOINT_TIMEOUT).send("POST", path::ENDPOINTS, request);
        asked.map_err(|source| failure("create the endpoint", source))
    }

    /// Removes the attachment's endpoint and addresses, if there are any.
    pub(crate) fn delete_attachment(&self, attachment: &Attachment) -> Result<(), Error> {
        let path = path::fill(path::ATTACHMENT, &[&attachment.container_id, &attachment.ifname]);
        self.delete("delete the endpoint", &path)
    }

    /// The attachment's endpoint.
    pub(crate) fn endpoint_of(&self, attachment: &Attachment) -> Result<Option<Endpoint>, Error> {
        let all: Vec<Endpoint> = self
            .client(LIST_TIMEOUT)
            .fetch(path::ENDPOINTS)
            .map_err(|source| failure("list the endpoints", source))?;
        Ok(all.into_iter().find(|endpoint| {
            let own = &endpoint.attachment;
            own.container_id == attachment.container_id && own.ifname == attachment.ifname
        }))
    }

    /// Removes everything but the `valid` attachments.
    pub(crate) fn gc(&self, valid: &[Attachment]) -> Result<CniGcResult, Error> {
        let request = CniGcRequest { valid: valid.iter().map(owner).collect() };
        let asked = self.client(GC_TIMEOUT).send("POST", path::CNI_GC, &request);
        asked.map_err(|source| failure("collect what nobody uses", source))
    }

    fn delete(&self, operation: &'static str, path: &str) -> Result<(), Error> {
        match self.client(DELETE_TIMEOUT).delete(path) {
            Err(ClientError::Api(error)) if error.code == "not-found" => Ok(()),
            done => done.map_err(|source| failure(operation, source)),
        }
    }

    fn client(&self, timeout: Duration) -> Client {
        Client::new(&self.config.agent_socket, timeout)
    }
}

fn owner(attachment: &Attachment) -> IpamRequest {
    IpamRequest { container_id: attachment.container_id.clone(), ifname: attachment.ifname.clone() }
}

fn failure(operation: &'static str, source: ClientError) -> Error {
    let code = match &source {
        ClientError::Api(error) => error.code.as_str(),
        ClientError::Connect { .. } | ClientError::Io { .. } => {
            return Error::AgentUnreachable { operation, source };
        }
        ClientError::Protocol(_) => "",
    };
    match code {
        "not-ready" => Error::AgentNotReady { operation, source },
        "exhausted" => Error::Exhausted(source),
        _ => Error::AgentRefused { operation, source },
    }
}
