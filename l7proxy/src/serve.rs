//! Listens for redirected flows and carries each of them in a task of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluice_ebpf_loader::proxy::{Family, RedirectFacts, listener};
use sluice_l7proxy::relay::{End, Settings, Stream, relay};
use sluice_types::{EndpointId, Protocol, ProxyPort};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::flow::{Flow, Shared};

/// How long nothing is accepted after the kernel refused, as it does when there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What carries flows.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) shared: Arc<Shared>,
    pub(crate) port: ProxyPort,
    pub(crate) settings: Settings,
    pub(crate) connections_max: usize,
    pub(crate) changes: watch::Receiver<u64>,
    pub(crate) numbers: AtomicU64,
    pub(crate) open: Mutex<HashMap<EndpointId, usize>>,
}

/// The sockets of both families.
///
/// # Errors
/// The port is taken, or the process may not make them.
pub(crate) fn listen(port: u16) -> std::io::Result<[TcpListener; 2]> {
    let open = |family| TcpListener::from_std(listener(family, port)?);
    Ok([open(Family::V4)?, open(Family::V6)?])
}

impl Server {
    /// Accepts for as long as it is polled.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener) {
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
            stream.abort();
            return;
        }
        let id = self.numbers.fetch_add(1, Ordering::Relaxed);
        let changes = self.changes.clone();
        let flow = Flow::new(Arc::clone(&self.shared), facts, client, destination, changes.clone());
        let end = relay(stream, &flow, &self.settings, changes, id).await;
        self.leave(facts.endpoint);
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
