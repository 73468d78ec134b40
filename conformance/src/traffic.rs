//! Traffic that never pauses: numbered datagrams, so that not one lost or leaked goes unnoticed.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::clock;
use crate::echo::{MESSAGE_LEN, RECEIVE_BUFFER_LEN, message, read_message};
use crate::netns::Netns;
use crate::probe::new_token;

/// How many datagrams one socket sends before a new one, with a new connection entry, takes over.
const DATAGRAMS_PER_SOCKET: usize = 25;
/// How long answers are waited for after the last datagram.
const DRAIN: Duration = Duration::from_secs(2);

/// What came of a stream.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// The tokens of all datagrams.
    pub tokens: Vec<u64>,
    /// Those of them that were answered.
    pub answered: BTreeSet<u64>,
}

/// Datagrams from one namespace to one target, one every `interval`, until stopped.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Sent>>>,
}

impl Stream {
    /// Starts sending.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(netns: &Netns, target: SocketAddr, interval: Duration) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let inside = netns.handle()?;
        let thread = std::thread::Builder::new()
            .name("stream".to_owned())
            .spawn(move || {
                inside.enter()?;
                send(target, interval, &stopped)
            })
            .context("starting a stream")?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Stops it and waits for the last answers.
    ///
    /// # Errors
    /// A socket's.
    pub fn finish(mut self) -> Result<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(sent)) => sent,
            Some(Err(_)) | None => bail!("a stream panicked"),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn send(target: SocketAddr, interval: Duration, stop: &AtomicBool) -> Result<Sent> {
    let mut sent = Sent::default();
    let mut sockets: Vec<UdpSocket> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if sent.tokens.len().is_multiple_of(DATAGRAMS_PER_SOCKET) {
            sockets.push(socket_to(target)?);
        }
        let token = new_token();
        if let Some(socket) = sockets.last() {
            socket.send(&message(token, MESSAGE_LEN)).with_context(|| format!("sending to {target}"))?;
        }
        sent.tokens.push(token);
        // Never faster than the interval, also after a pause of the machine: bursts would fill queues.
        let next = clock::now() + interval;
        while clock::now() < next {
            hear(&sockets, &mut sent);
            std::thread::sleep(Duration::from_micros(500));
        }
    }
    let deadline = clock::now() + DRAIN;
    while clock::now() < deadline && sent.answered.len() < sent.tokens.len() {
        hear(&sockets, &mut sent);
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(sent)
}

fn socket_to(target: SocketAddr) -> Result<UdpSocket> {
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).context("opening a socket")?;
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_LEN)
        .context("enlarging a receive buffer")?;
    socket.connect(target).with_context(|| format!("connecting to {target}"))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Reads what has come.
fn hear(sockets: &[UdpSocket], sent: &mut Sent) {
    let mut buffer = [0; MESSAGE_LEN];
    for socket in sockets {
        while socket.recv(&mut buffer).is_ok() {
            sent.answered.extend(read_message(&buffer).map(|(token, _)| token));
        }
    }
}
