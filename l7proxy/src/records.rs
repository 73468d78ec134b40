//! Records of requests on their way to the agent. Nobody waits for them: what the agent does not take in time is lost,
//! and counted.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use sluice_client::{Client, path};
use sluice_flow::ProxyRecord;

/// How many records wait.
const WAITING_MAX: usize = 8_192;
/// How many go at once.
const BATCH: usize = 2_048;
/// How long the first one of a batch waits for others.
const WAIT: Duration = Duration::from_millis(50);
/// How long the agent may take. Meanwhile others wait.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long the process may take to end for what is still on its way.
const REST: Duration = Duration::from_millis(500);

/// Where records go.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    sender: SyncSender<ProxyRecord>,
    lost: Arc<AtomicU32>,
}

impl Records {
    /// Starts the thread that brings records to the agent behind `socket`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(socket: PathBuf) -> io::Result<(Self, Rest)> {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let (done, rest) = sync_channel(1);
        let lost = Arc::new(AtomicU32::new(0));
        let own = Arc::clone(&lost);
        let client = Client::new(socket, TIMEOUT);
        std::thread::Builder::new().name("sluice-records".to_owned()).spawn(move || {
            bring(&receiver, &client, &own);
            drop(done);
        })?;
        Ok((Self { sender, lost }, Rest(rest)))
    }

    /// Sends a record if there is room.
    pub(crate) fn send(&self, record: ProxyRecord) {
        if self.sender.try_send(record).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What is still on its way when the process ends.
#[derive(Debug)]
pub(crate) struct Rest(Receiver<Infallible>);

impl Rest {
    /// Waits for it a moment, once nobody sends any more.
    pub(crate) fn wait(self) {
        if self.0.recv_timeout(REST) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the agent takes no records, the last ones are lost");
        }
    }
}

fn bring(receiver: &Receiver<ProxyRecord>, client: &Client, lost: &AtomicU32) {
    while let Ok(first) = receiver.recv() {
        std::thread::sleep(WAIT);
        let mut batch = vec![first];
        batch.extend(receiver.try_iter().take(BATCH - 1));
        let missing = lost.swap(0, Ordering::Relaxed);
        if let Some(first) = batch.first_mut() {
            first.lost = missing;
        }
        if let Err(error) = client.send::<_, ()>("POST", path::PROXY_RECORDS, &batch) {
            tracing::debug!(%error, records = batch.len(), "the agent takes no records");
            let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
            lost.fetch_add(missing.saturating_add(count), Ordering::Relaxed);
        }
    }
}
