//! Records of requests on their way to the agent. Nobody waits for them: what the agent does not take in time is lost,
//! and counted, and so is what is more than the agent is to be bothered with.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use sluice_client::{Client, path};
use sluice_flow::ProxyRecord;
use sluice_l7proxy::budget::{Budget, Weight};
use tokio::time::Instant;

use crate::metrics::{Fate, Metrics};

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
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
    begin: Instant,
}

impl Records {
    /// Starts the thread that brings records to the agent behind `socket`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(socket: PathBuf, per_second: u32, metrics: Arc<Metrics>) -> io::Result<(Self, Rest)> {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let (done, rest) = sync_channel(1);
        let lost = Arc::new(AtomicU32::new(0));
        let (own, counts) = (Arc::clone(&lost), Arc::clone(&metrics));
        let client = Client::new(socket, TIMEOUT);
        std::thread::Builder::new().name("sluice-records".to_owned()).spawn(move || {
            bring(&receiver, &client, &own, &counts);
            drop(done);
        })?;
        let budget = Arc::new(Budget::new(per_second));
        Ok((Self { sender, lost, budget, metrics, begin: Instant::now() }, Rest(rest)))
    }

    /// Sends a record if there is room for one that says so much.
    pub(crate) fn send(&self, weight: Weight, record: impl FnOnce() -> ProxyRecord) {
        let now_ns = u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let fate = if !self.budget.take(now_ns, weight) {
            Fate::OverRate
        } else if self.sender.try_send(record()).is_err() {
            Fate::QueueFull
        } else {
            return;
        };
        self.metrics.records(fate, 1);
        self.lost.fetch_add(1, Ordering::Relaxed);
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

fn bring(receiver: &Receiver<ProxyRecord>, client: &Client, lost: &AtomicU32, metrics: &Metrics) {
    while let Ok(first) = receiver.recv() {
        std::thread::sleep(WAIT);
        let mut batch = vec![first];
        batch.extend(receiver.try_iter().take(BATCH - 1));
        let missing = lost.swap(0, Ordering::Relaxed);
        if let Some(first) = batch.first_mut() {
            first.lost = missing;
        }
        match client.send::<_, ()>("POST", path::PROXY_RECORDS, &batch) {
            Ok(()) => metrics.records(Fate::Sent, batch.len()),
            Err(error) => {
                tracing::debug!(%error, records = batch.len(), "the agent takes no records");
                metrics.records(Fate::NotTaken, batch.len());
                let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
                lost.fetch_add(missing.saturating_add(count), Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::UnixListener;

    use sluice_flow::{FlowVerdict, HttpRecord};
    use sluice_types::{Direction, EndpointId, Identity, RuleId};

    use super::*;

    fn record(verdict: FlowVerdict) -> ProxyRecord {
        ProxyRecord {
            time_unix_ns: 1,
            verdict,
            direction: Direction::Ingress,
            endpoint: EndpointId::new(7).unwrap(),
            source: "10.0.0.8:40000".parse().unwrap(),
            source_identity: Identity::new(300),
            destination: "10.0.0.7:80".parse().unwrap(),
            destination_identity: Identity::new(301),
            rule: RuleId(1),
            part: None,
            revision: 3,
            lost: 0,
            http: HttpRecord {
                flow: "1-1".to_owned(),
                method: "GET".to_owned(),
                path: "/a".to_owned(),
                authority: "web".to_owned(),
                status: None,
                latency_ns: 2,
            },
        }
    }

    /// An agent that takes one batch.
    fn take(listener: &UnixListener) -> Vec<ProxyRecord> {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nnull").unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// A flood of good requests leaves room for the one that was denied, and what is missing is counted.
    #[test]
    fn what_is_left_out_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (records, rest) = Records::start(socket, 100, Arc::new(Metrics::new())).unwrap();
        for _ in 0..1_000 {
            records.send(Weight::Common, || record(FlowVerdict::Forwarded));
        }
        records.send(Weight::Telling, || record(FlowVerdict::Dropped));
        drop(records);
        let batch = take(&listener);
        rest.wait();
        let denied = batch.iter().filter(|record| record.verdict == FlowVerdict::Dropped).count();
        let lost: u32 = batch.iter().map(|record| record.lost).sum();
        assert_eq!((denied, usize::try_from(lost).unwrap() + batch.len()), (1, 1_001));
        // Half of the rate at once, and some for the time that this took.
        assert!((51..500).contains(&batch.len()), "{}", batch.len());
    }

    #[test]
    fn what_the_agent_does_not_take_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let (records, rest) = Records::start(socket.clone(), 100, Arc::new(Metrics::new())).unwrap();
        records.send(Weight::Telling, || record(FlowVerdict::Dropped));
        // Nobody listens.
        while records.lost.load(Ordering::Relaxed) == 0 {
            std::thread::sleep(WAIT);
        }
        let listener = UnixListener::bind(&socket).unwrap();
        records.send(Weight::Telling, || record(FlowVerdict::Dropped));
        drop(records);
        let batch = take(&listener);
        rest.wait();
        assert_eq!((batch.len(), batch.first().map(|record| record.lost)), (1, Some(1)));
    }
}
