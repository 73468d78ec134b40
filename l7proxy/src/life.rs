//! One generation of the proxy: how it comes to be the one, accepts, hands over, and ends.

use std::convert::Infallible;
use std::net::TcpListener as StdListener;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use sluice_client::path;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::handover::{self, Account, Parcel, Predecessor, Successor};
use crate::lock::Lock;
use crate::serve::{self, Server};

/// How long a proxy that ends by order waits for what it has begun. Whoever orders it waits a little longer.
const END_WITHIN: Duration = Duration::from_secs(1);
/// How long the one that has the lock may be unable to hand over: it has just begun, or is just ending.
const BEGIN_WITHIN: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_millis(20);

/// Where processes find each other.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    lock: PathBuf,
    pub(crate) handover: PathBuf,
    pub(crate) metrics: PathBuf,
}

impl Places {
    pub(crate) fn below(state_dir: &Path) -> Self {
        Self {
            lock: state_dir.join(path::L7_PROXY_LOCK),
            handover: state_dir.join(path::L7_PROXY_HANDOVER),
            metrics: state_dir.join(path::L7_PROXY_METRICS),
        }
    }
}

/// How this process comes to be the proxy. Until it has a [`Claim`] it is not.
#[derive(Debug)]
pub(crate) enum Begin {
    /// There is none.
    First(Lock),
    /// There is one, which gave what it has, and goes on.
    Next(Predecessor),
}

/// What a generation begins with.
#[derive(Debug)]
pub(crate) struct Claim {
    lock: Lock,
    listeners: [StdListener; 2],
    pub(crate) account: Account,
}

impl Begin {
    /// Takes the lock, or has whoever has it hand over.
    ///
    /// # Errors
    /// Somebody has it, and does not.
    pub(crate) fn find(places: &Places) -> anyhow::Result<Self> {
        Self::find_within(places, BEGIN_WITHIN)
    }

    fn find_within(places: &Places, limit: Duration) -> anyhow::Result<Self> {
        let begin = Instant::now();
        loop {
            let lock = Lock::take(&places.lock).with_context(|| format!("lock {}", places.lock.display()))?;
            if let Some(lock) = lock {
                lock.name_owner()?;
                return Ok(Self::First(lock));
            }
            match Predecessor::ask(&places.handover, &places.lock) {
                Ok(predecessor) => return Ok(Self::Next(predecessor)),
                Err(error) if begin.elapsed() > limit => {
                    let lock = places.lock.display();
                    return Err(error.context(format!("{lock} is taken, and its owner does not hand over")));
                }
                Err(_) => std::thread::sleep(STEP),
            }
        }
    }

    /// Becomes the proxy at `port`, now that everything else is ready.
    ///
    /// # Errors
    /// The port is taken, or the one before goes on.
    pub(crate) fn claim(self, port: u16) -> anyhow::Result<Claim> {
        let listen = || serve::listen(port).with_context(|| format!("listen on port {port}"));
        let claim = match self {
            Self::First(lock) => Claim { lock, listeners: listen()?, account: Account::default() },
            Self::Next(predecessor) => {
                let is_there = |own: &StdListener| own.local_addr().is_ok_and(|place| place.port() == port);
                let others = if predecessor.listeners.iter().all(is_there) { None } else { Some(listen()?) };
                let (lock, listeners, account) =
                    predecessor.relieve().context("take over from the proxy that runs")?;
                let handovers = account.handovers + 1;
                let account = Account { handovers, ..account };
                lock.name_owner().context("write down who is the proxy")?;
                Claim { lock, listeners: others.unwrap_or(listeners), account }
            }
        };
        // The clock may have been set back; who hands over knows better.
        let numbers = claim.account.numbers.max(first_number());
        Ok(Claim { account: Account { numbers, ..claim.account }, ..claim })
    }
}

/// Flows of several lives of the proxy must not share ids: this is more than any number of one that began before, as it
/// would have had to accept 65,536 connections in each millisecond since.
fn first_number() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX >> 16) << 16
}

/// A proxy that runs.
#[derive(Debug)]
pub(crate) struct Generation {
    server: Arc<Server>,
    lock: Lock,
    listeners: [Arc<TcpListener>; 2],
    door: UnixListener,
    handovers: u64,
    leaving: watch::Sender<()>,
    /// Ends when the last connection has.
    carried: mpsc::Receiver<Infallible>,
    drain_time: Duration,
    orders: Orders,
}

/// What a generation tells its connections, and learns from them.
pub(crate) type Reins = (watch::Sender<()>, mpsc::Receiver<Infallible>);

impl Generation {
    /// One that accepts nothing yet. To be called in the runtime.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn new(
        server: Arc<Server>,
        claim: Claim,
        door: std::os::unix::net::UnixListener,
        (leaving, carried): Reins,
        drain_time: Duration,
    ) -> anyhow::Result<Self> {
        let Claim { lock, listeners: [four, six], account } = claim;
        door.set_nonblocking(true)?;
        let open = |listener| anyhow::Ok(Arc::new(TcpListener::from_std(listener)?));
        Ok(Self {
            server,
            lock,
            listeners: [open(four)?, open(six)?],
            door: UnixListener::from_std(door)?,
            handovers: account.handovers,
            leaving,
            carried,
            drain_time,
            orders: Orders::listen()?,
        })
    }

    /// Accepts until it is ordered to end or has handed over, and brings to an end what it has begun.
    pub(crate) async fn run(mut self) {
        let mut accepting = self.accept();
        loop {
            let parcel = Parcel {
                lock: self.lock.as_fd(),
                listeners: self.listeners.each_ref().map(|listener| listener.as_fd()),
            };
            let successor = tokio::select! {
                () = self.orders.end() => None,
                successor = handover::successor(&self.door, parcel) => Some(successor),
            };
            for task in accepting {
                task.abort();
                // It had no connection in its hands: it gives each away as soon as it has it.
                drop(task.await);
            }
            let Some(successor) = successor else { return self.end().await };
            match self.give_way(successor).await {
                Ok(()) => return self.drain().await,
                Err(error) => tracing::warn!(%error, "nothing was handed over: the other one is gone"),
            }
            accepting = self.accept();
        }
    }

    fn accept(&self) -> [JoinHandle<()>; 2] {
        let spawn = |listener| tokio::spawn(Arc::clone(&self.server).accept(Arc::clone(listener)));
        self.listeners.each_ref().map(spawn)
    }

    async fn give_way(&self, successor: Successor) -> std::io::Result<()> {
        let numbers = self.server.numbers.load(Ordering::Relaxed);
        successor.begin(Account { numbers, handovers: self.handovers }).await
    }

    /// Ends by order. Nobody accepts any more.
    async fn end(self) {
        let Self { server, listeners, leaving, mut carried, .. } = self;
        drop((server, listeners));
        leaving.send_replace(());
        drop(timeout(END_WITHIN, carried.recv()).await);
    }

    /// Ends because another one accepts.
    async fn drain(self) {
        let Self { server, lock, listeners, door, leaving, mut carried, drain_time, mut orders, .. } = self;
        drop((server, lock, listeners, door));
        tracing::info!("handed over, what has begun is brought to its end");
        leaving.send_replace(());
        tokio::select! {
            ended = timeout(drain_time, carried.recv()) => {
                tracing::info!(is_all = ended.is_ok(), "ended");
            }
            () = orders.end() => drop(timeout(END_WITHIN, carried.recv()).await),
        }
    }
}

/// Signals that end the process.
#[derive(Debug)]
struct Orders {
    term: Signal,
    int: Signal,
}

impl Orders {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn places() -> (tempfile::TempDir, Places) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("proxy")).unwrap();
        let places = Places::below(directory.path());
        (directory, places)
    }

    #[tokio::test]
    async fn a_dead_proxy_is_not_in_the_way() {
        let (_directory, places) = places();
        drop(std::os::unix::net::UnixListener::bind(&places.handover).unwrap());
        fs::write(&places.lock, "1\n").unwrap();
        assert!(matches!(Begin::find(&places).unwrap(), Begin::First(_)));
        let owner = fs::read_to_string(&places.lock).unwrap();
        assert_eq!(owner.trim().parse(), Ok(std::process::id()));
    }

    /// Who does not hand over stays the proxy, whatever its socket is.
    #[tokio::test]
    async fn a_proxy_that_does_not_hand_over_stays() {
        let (_directory, places) = places();
        let _held = Lock::take(&places.lock).unwrap().unwrap();
        let find = || Begin::find_within(&places, Duration::from_millis(100)).unwrap_err();
        for (what, wanted) in [("none", "No such file"), ("no socket", "refused"), ("a dead one", "refused")]
        {
            match what {
                "no socket" => fs::write(&places.handover, "").unwrap(),
                "a dead one" => {
                    fs::remove_file(&places.handover).unwrap();
                    drop(std::os::unix::net::UnixListener::bind(&places.handover).unwrap());
                }
                _ => {}
            }
            let error = format!("{:#}", find());
            assert!(error.contains("does not hand over") && error.contains(wanted), "{what}: {error}");
        }
    }

    /// The lock may become free while its owner is asked.
    #[tokio::test]
    async fn a_proxy_that_ends_meanwhile_is_followed() {
        let (_directory, places) = places();
        let held = Lock::take(&places.lock).unwrap().unwrap();
        let asking = {
            let places = places.clone();
            tokio::task::spawn_blocking(move || Begin::find(&places))
        };
        tokio::time::sleep(Duration::from_millis(60)).await;
        drop(held);
        assert!(matches!(asking.await.unwrap().unwrap(), Begin::First(_)));
    }
}
