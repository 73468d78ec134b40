//! Hands flows to listeners and keeps the last ones.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use sluice_ebpf_loader::EventReader;
use sluice_flow::Flow;
use tokio::sync::{broadcast, watch};

use super::Names;
use super::decode::{self, ClockOffset};

/// How many flows a listener may be behind before it loses some.
const LISTENER_MAX: usize = 8192;
/// How many flows are kept for those who come later.
const KEPT_MAX: usize = 4096;
/// How long an empty buffer is waited for; names are looked at anew afterwards.
const WAIT: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
/// How many events are taken before names are looked up anew.
const BURST: usize = 256;

/// Where flows can be had.
#[derive(Clone, Debug)]
pub(crate) struct Hub(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    sender: broadcast::Sender<Arc<Flow>>,
    kept: Mutex<VecDeque<Arc<Flow>>>,
}

/// One listener.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// Flows from before, oldest first.
    pub before: Vec<Arc<Flow>>,
    /// Flows from now on.
    pub receiver: broadcast::Receiver<Arc<Flow>>,
}

impl Hub {
    fn new() -> Self {
        let (sender, _) = broadcast::channel(LISTENER_MAX);
        Self(Arc::new(Shared { sender, kept: Mutex::default() }))
    }

    /// Listens, beginning with the last `last` flows.
    #[must_use]
    pub(crate) fn subscribe(&self, last: usize) -> Subscription {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = self.0.sender.subscribe();
        let before = kept.iter().skip(kept.len().saturating_sub(last)).cloned().collect();
        Subscription { before, receiver }
    }

    /// Hands out a flow.
    pub(crate) fn publish(&self, flow: Flow) {
        let flow = Arc::new(flow);
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&flow));
        // Nobody listens: that is fine.
        drop(self.0.sender.send(flow));
    }
}

/// Starts the thread that reads events for as long as the process lives.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn start(mut reader: EventReader, names: watch::Receiver<Arc<Names>>) -> io::Result<Hub> {
    let hub = Hub::new();
    let own = hub.clone();
    std::thread::Builder::new().name("sluice-observe".to_owned()).spawn(move || {
        loop {
            let known = Arc::clone(&names.borrow());
            let clock = clock_offset();
            let mut taken = 0;
            while let Some(event) = (taken < BURST).then(|| reader.next_event()).flatten() {
                own.publish(decode::flow(&event, &known, clock));
                taken += 1;
            }
            if taken == 0 {
                wait(&reader);
            }
        }
    })?;
    Ok(hub)
}

/// Waits until there is something to read.
fn wait(reader: &EventReader) {
    let mut polled = [rustix::event::PollFd::new(reader, rustix::event::PollFlags::IN)];
    if let Err(error) = rustix::event::poll(&mut polled, Some(&WAIT))
        && error != rustix::io::Errno::INTR
    {
        tracing::error!(%error, "events cannot be waited for");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// The kernel stamps with the monotonic clock. Read each time: the wall clock may be set.
fn clock_offset() -> ClockOffset {
    let (_, wall) = crate::clock::now_and_wall();
    let wall = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let monotonic = Duration::new(
        u64::try_from(monotonic.tv_sec).unwrap_or_default(),
        u32::try_from(monotonic.tv_nsec).unwrap_or_default(),
    );
    let offset = wall.saturating_sub(monotonic).as_nanos();
    ClockOffset { unix_minus_monotonic_ns: u64::try_from(offset).unwrap_or_default() }
}
