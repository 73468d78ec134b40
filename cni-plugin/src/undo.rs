//! What ADD has done so far, and how to take it back, newest first.

use sluice_netlink::Netlink;

use crate::Request;
use crate::agent::Agent;
use crate::config::Ipam;
use crate::environment::Verb;
use crate::error::Error;
use crate::lock::Lock;
use crate::{delete_record, host_link, ipam, programs, report};

/// A step of ADD that can be taken back, also when it was done in part or not at all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Done {
    /// The agent was asked for addresses.
    Lease,
    /// The IPAM plugin was asked for addresses.
    DelegatedLease,
    /// The host-side veth was created.
    HostLink,
    /// Programs were attached to the interface of this name.
    Programs(String),
    /// The agent was asked for an endpoint.
    Endpoint,
}

/// Takes everything back when dropped, unless it is to be kept. Holds the attachment's lock until then.
#[derive(Debug)]
pub(crate) struct Undo<'a> {
    request: &'a Request,
    done: Vec<Done>,
    _lock: Lock,
}

impl<'a> Undo<'a> {
    /// Nothing done yet.
    pub(crate) fn new(request: &'a Request, lock: Lock) -> Self {
        Self { request, done: Vec::new(), _lock: lock }
    }

    /// A step was begun.
    pub(crate) fn push(&mut self, done: Done) {
        self.done.push(done);
    }

    /// All went well.
    pub(crate) fn keep(mut self) {
        self.done.clear();
    }

    /// Takes everything back.
    pub(crate) fn unwind(self) {
        drop(self);
    }

    fn take_back(&self, done: &Done) -> Result<(), Error> {
        let agent = Agent::new(&self.request.config);
        match done {
            Done::Lease => self.tell(agent.release(&self.request.attachment)),
            Done::Endpoint => self.tell(agent.delete_attachment(&self.request.attachment)),
            Done::DelegatedLease => match &self.request.config.ipam {
                Ipam::Delegated(plugin) => ipam::run(self.request, plugin, Verb::Del).map(drop),
                Ipam::Own => Ok(()),
            },
            Done::HostLink => {
                host_link::delete_own(&mut Netlink::open()?, &self.request.attachment).map(drop)
            }
            Done::Programs(ifname) => programs::detach(&self.request.config.pin_dir, ifname),
        }
    }

    /// What the agent could not be told is left for it to find.
    fn tell(&self, told: Result<(), Error>) -> Result<(), Error> {
        match told {
            Err(Error::AgentUnreachable { .. }) => {
                delete_record::write(&self.request.config, &self.request.attachment, Vec::new())
            }
            told => told,
        }
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        while let Some(done) = self.done.pop() {
            if let Err(error) = self.take_back(&done) {
                report::warn_about(&format!("cannot take back {done:?}"), &error);
            }
        }
    }
}
