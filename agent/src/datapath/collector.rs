//! Clears away what is over: connections that expired, and whatever is left of endpoints that are gone.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use sluice_ebpf_loader::conntrack::{self, Conntrack};
use sluice_types::EndpointId;

use super::Totals;
use crate::clock;
use crate::report::chain;

/// How often expired connections are cleared away.
const INTERVAL: Duration = Duration::from_secs(5);

/// What is to be forgotten is gathered for this long.
const GATHER: Duration = Duration::from_millis(50);

/// What is left of endpoints that are gone.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Forget {
    /// Their numbers.
    pub endpoints: Vec<EndpointId>,
    /// Their addresses.
    pub addresses: Vec<IpAddr>,
}

/// Hands work to the collecting thread.
#[derive(Clone, Debug)]
pub(crate) struct Collector(Sender<Forget>);

impl Collector {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(conntrack: Conntrack, totals: Arc<Totals>) -> io::Result<Self> {
        let (sender, receiver) = channel();
        std::thread::Builder::new()
            .name("sluice-collect".to_owned())
            .spawn(move || run(&receiver, &conntrack, &totals))?;
        Ok(Self(sender))
    }

    /// Forgets connections and counters.
    pub(crate) fn forget(&self, forget: Forget) {
        if self.0.send(forget).is_err() {
            tracing::error!("the collecting thread has stopped");
        }
    }
}

fn run(receiver: &Receiver<Forget>, conntrack: &Conntrack, totals: &Totals) {
    let mut next = clock::now().instant + INTERVAL;
    loop {
        let now = clock::now().instant;
        if now >= next {
            next = now + INTERVAL;
            match conntrack.collect(conntrack::now()) {
                Ok(collected) => tracing::trace!(?collected, "connections collected"),
                Err(error) => tracing::error!(error = chain(&error), "expired connections not cleared away"),
            }
        }
        match receiver.recv_timeout(next.saturating_duration_since(now)) {
            Ok(mut forget) => {
                // One walk through the tables serves all that come within a moment.
                std::thread::sleep(GATHER);
                for more in receiver.try_iter() {
                    forget.endpoints.extend(more.endpoints);
                    forget.addresses.extend(more.addresses);
                }
                carry_out(&forget, conntrack, totals);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn carry_out(forget: &Forget, conntrack: &Conntrack, totals: &Totals) {
    // What comes between a removal and this is harmless: the programs do not believe entries of another life.
    match conntrack.purge(&forget.addresses) {
        Ok(removed) => tracing::debug!(addresses = ?forget.addresses, removed, "connections forgotten"),
        Err(error) => tracing::error!(error = chain(&error), "connections not forgotten"),
    }
    for endpoint in &forget.endpoints {
        if let Err(error) = totals.forget(*endpoint) {
            tracing::error!(endpoint.id = %endpoint, error = chain(&error), "counters not forgotten");
        }
    }
}
