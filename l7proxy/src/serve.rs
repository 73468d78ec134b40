//! Listens for redirected flows and carries each of them in a task of its own.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluice_ebpf_loader::proxy::{Family, RedirectFacts, TimeWaits, cookie, listener};
use sluice_l7proxy::relay::{End, Settings, Signals, Stream, relay};
use sluice_types::{EndpointId, Protocol, ProxyPort};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::flow::{Flow, Shared};
use crate::metrics::Limit;

/// How long nothing is accepted after the kernel refused, as it does when there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What carries flows.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) shared: Arc<Shared>,
    pub(crate) port: ProxyPort,
    pub(crate) settings: Settings,
    pub(crate) connections_max: usize,
    pub(crate) signals: Signals,
    pub(crate) time_waits: TimeWaits,
    /// The next connection's.
    pub(crate) numbers: AtomicU64,
    pub(crate) open: Mutex<HashMap<EndpointId, usize>>,
    /// Whoever waits at its other end waits for the last connection.
    #[expect(dead_code, reason = "it is there to be dropped")]
    pub(crate) carried: mpsc::Sender<Infallible>,
}

/// The sockets of both families.
///
/// # Errors
/// The port is taken, or the process may not make them.
pub(crate) fn listen(port: u16) -> std::io::Result<[std::net::TcpListener; 2]> {
    Ok([listener(Family::V4, port)?, listener(Family::V6, port)?])
}

impl Server {
    /// Accepts for as long as it is polled.
    pub(crate) async fn accept(self: Arc<Self>, listener: Arc<TcpListener>) {
        loop {
            match listener.accept().await {
                Ok((stream, client)) => {
                    tokio::spawn(Arc::clone(&self).carry(stream, client));
                }
                Err(error) => {
                    tracing::warn!(%error, "no flow can be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn carry(self: Arc<Self>, mut stream: TcpStream, client: SocketAddr) {
        let Some((facts, destination)) = self.facts(&stream, client) else {
            stream.abort();
            return;
        };
        if !self.enter(facts.endpoint) {
            tracing::warn!(endpoint = %facts.endpoint, "too many connections, one is refused");
            self.shared.metrics.reached(Limit::Connections);
            stream.abort();
            return;
        }
        let is_open = self.shared.metrics.connection();
        let id = self.numbers.fetch_add(1, Ordering::Relaxed);
        let signals = self.signals.clone();
        let flow = Flow::new(Arc::clone(&self.shared), facts, client, destination, signals.changes.clone());
        let cookie = cookie(&stream);
        let end = relay(&mut stream, &flow, &self.settings, signals, id).await;
        if let Err(error) = cookie.and_then(|own| self.time_waits.forget(&stream, destination, client, own)) {
            tracing::debug!(%error, "the client's port stays in use for a while");
        }
        self.leave(facts.endpoint);
        drop(is_open);
        self.shared.metrics.ended(end);
        if end != End::Closed {
            tracing::debug!(flow = format!("{id:x}"), endpoint = %facts.endpoint, %end, "connection ended");
        }
    }

    /// What the datapath knows of the flow. One that it does not know came by another way, and is nobody's.
    fn facts(&self, stream: &TcpStream, client: SocketAddr) -> Option<(RedirectFacts, SocketAddr)> {
        let destination = stream.local_addr().ok()?;
        match self.shared.view.facts(Protocol::Tcp, client, destination) {
            Ok(Some(facts)) if facts.proxy_port == self.port => {
                stream.set_nodelay(true).ok()?;
                Some((facts, destination))
            }
            Ok(_) => {
                tracing::debug!(%client, %destination, "nobody redirected this connection, it is refused");
                None
            }
            Err(error) => {
                tracing::error!(%error, "the datapath cannot be asked, connections are refused");
                None
            }
        }
    }

    fn enter(&self, endpoint: EndpointId) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(endpoint).or_default();
        let fits = *count < self.connections_max;
        *count += usize::from(fits);
        fits
    }

    fn leave(&self, endpoint: EndpointId) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let left = open.get_mut(&endpoint).map(|count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == Some(0) {
            open.remove(&endpoint);
        }
    }
}
