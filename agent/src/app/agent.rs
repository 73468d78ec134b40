//! What the API's handlers hold of the agent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sluice_ebpf_loader::Datapath;
use sluice_ebpf_loader::conntrack::Conntrack;
use sluice_ebpf_loader::counters::CountersReader;
use sluice_ebpf_loader::ipcache::Ipcache;
use sluice_ebpf_loader::policy::Policies;
use tokio::sync::{mpsc, oneshot, watch};

use crate::datapath::Kernel;
use crate::event::{Answer, Event, Refusal, RefusalCode, Request, Ticket};
use crate::observe::{Hub, Names};
use crate::source::directory::{Handle, SourceRequest};

type Reply = oneshot::Sender<Result<Answer, Refusal>>;

/// Whoever waits for an answer, by ticket.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    last: AtomicU64,
    waiting: Mutex<HashMap<Ticket, Reply>>,
}

impl Tickets {
    fn issue(&self) -> (Ticket, oneshot::Receiver<Result<Answer, Refusal>>) {
        let ticket = Ticket(self.last.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(ticket, sender);
        (ticket, receiver)
    }

    /// Hands an answer to whoever holds the ticket, if they still wait.
    pub(crate) fn answer(&self, ticket: Ticket, answer: Result<Answer, Refusal>) {
        let reply = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&ticket);
        if let Some(reply) = reply
            && reply.send(answer).is_err()
        {
            tracing::debug!(?ticket, "nobody waits for the answer any more");
        }
    }
}

/// Read-only handles to the kernel's maps.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    /// Connections.
    pub conntrack: Conntrack,
    /// Counters.
    pub counters: CountersReader,
    /// Addresses.
    pub ipcache: Ipcache,
    /// Policies.
    pub policies: Policies,
}

impl Readers {
    /// Handles of their own.
    #[must_use]
    pub(crate) fn new(datapath: &Datapath) -> Self {
        Self {
            conntrack: datapath.conntrack.clone(),
            counters: datapath.counters.clone(),
            ipcache: datapath.ipcache.clone(),
            policies: datapath.policies.clone(),
        }
    }
}

/// The agent as its API sees it.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    events: mpsc::Sender<Event>,
    tickets: Arc<Tickets>,
    source: Handle,
    /// Handles to the kernel's maps.
    pub readers: Readers,
    /// Flows.
    pub hub: Hub,
    names: watch::Receiver<Arc<Names>>,
    kernel: Kernel,
    verdict_listeners: Arc<AtomicUsize>,
}

impl Agent {
    /// An agent whose parts are running.
    #[must_use]
    pub(crate) fn new(
        events: mpsc::Sender<Event>,
        source: Handle,
        readers: Readers,
        (hub, names): (Hub, watch::Receiver<Arc<Names>>),
        kernel: Kernel,
    ) -> Self {
        let (tickets, verdict_listeners) = Default::default();
        Self { events, tickets, source, readers, hub, names, kernel, verdict_listeners }
    }

    /// Who is who now.
    #[must_use]
    pub(crate) fn names(&self) -> Arc<Names> {
        Arc::clone(&self.names.borrow())
    }

    /// Those who wait.
    #[must_use]
    pub(crate) fn tickets(&self) -> Arc<Tickets> {
        Arc::clone(&self.tickets)
    }

    /// Asks the state.
    ///
    /// # Errors
    /// It refuses, or has stopped.
    pub(crate) async fn ask(&self, request: Request) -> Result<Answer, Refusal> {
        let (ticket, receiver) = self.tickets.issue();
        self.events.send(Event::Request(request, ticket)).await.map_err(|_closed| stopped())?;
        receiver.await.map_err(|_closed| stopped())?
    }

    /// Asks the state from a thread without runtime. The answer is what the returned function waits for.
    ///
    /// # Errors
    /// It has stopped; the function's: it refuses, or has stopped.
    pub(crate) fn begin(
        &self,
        request: Request,
    ) -> Result<impl FnOnce() -> Result<Answer, Refusal> + use<>, Refusal> {
        let (ticket, receiver) = self.tickets.issue();
        self.events.blocking_send(Event::Request(request, ticket)).map_err(|_closed| stopped())?;
        Ok(move || receiver.blocking_recv().map_err(|_closed| stopped())?)
    }

    /// Asks the source.
    ///
    /// # Errors
    /// It refuses, or has stopped.
    pub(crate) async fn ask_source(
        &self,
        request: impl FnOnce(Ticket) -> SourceRequest,
    ) -> Result<Answer, Refusal> {
        let (ticket, receiver) = self.tickets.issue();
        self.source.send(request(ticket));
        receiver.await.map_err(|_closed| stopped())?
    }

    /// Has verdicts that allow reported for as long as the guard lives.
    #[must_use]
    pub(crate) fn want_verdicts(&self) -> VerdictGuard {
        if self.verdict_listeners.fetch_add(1, Ordering::SeqCst) == 0 {
            super::report_verdicts(&self.kernel, true);
        }
        VerdictGuard { kernel: self.kernel.clone(), listeners: Arc::clone(&self.verdict_listeners) }
    }
}

fn stopped() -> Refusal {
    Refusal::new(RefusalCode::NotReady, "the agent is stopping")
}

/// See [`Agent::want_verdicts`].
#[derive(Debug)]
pub(crate) struct VerdictGuard {
    kernel: Kernel,
    listeners: Arc<AtomicUsize>,
}

impl Drop for VerdictGuard {
    fn drop(&mut self) {
        if self.listeners.fetch_sub(1, Ordering::SeqCst) == 1 {
            super::report_verdicts(&self.kernel, false);
        }
    }
}
