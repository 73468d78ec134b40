//! Servers that send back what they get and remember whom they heard.

mod speech;

use std::collections::{BTreeSet, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

use crate::clock;
use crate::netns::Netns;
use crate::probe::Protocol;
use crate::wire::{Sctp, after_ipv4_header};
use speech::Speech;

/// Length of a message on a stream, and the least of a datagram: the token, the asker as the server saw it, filling.
pub const MESSAGE_LEN: usize = 32;
/// Room for datagrams that this process is too busy to read at once.
pub(crate) const RECEIVE_BUFFER_LEN: usize = 4 << 20;
/// Largest datagram.
const DATAGRAM_LEN_MAX: usize = 65_535;

/// A question or answer.
#[must_use]
pub fn message(token: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len.max(MESSAGE_LEN)];
    if let Some(place) = bytes.first_chunk_mut() {
        *place = token.to_be_bytes();
    }
    bytes
}

/// The token of a message, and whom the server saw.
#[must_use]
pub fn read_message(bytes: &[u8]) -> Option<(u64, IpAddr)> {
    let (token, rest) = bytes.split_first_chunk::<8>()?;
    let seen = Ipv6Addr::from(*rest.first_chunk::<16>()?);
    Some((u64::from_be_bytes(*token), seen.to_canonical()))
}

/// The tokens that arrived anywhere.
#[derive(Clone, Debug, Default)]
pub struct Arrivals(Arc<Mutex<BTreeSet<u64>>>);

impl Arrivals {
    /// Whether a server heard this token.
    #[must_use]
    pub fn contains(&self, token: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&token)
    }

    fn insert(&self, token: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(token);
    }
}

/// The servers of one subject; they end when dropped.
#[derive(Debug)]
pub struct Echo {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Serves `ports` at `addresses` in the namespace.
    ///
    /// # Errors
    /// An address is not there, or a port is taken.
    pub fn start(
        netns: &Netns,
        addresses: &[IpAddr],
        ports: &BTreeSet<(Protocol, u16)>,
        arrivals: &Arrivals,
    ) -> Result<Self> {
        let sockets = netns.run(|| open_all(addresses, ports))?;
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).context("making an eventfd")?;
        let stopped = stop.try_clone().context("copying an eventfd")?;
        let mut server = Server { sockets, streams: HashMap::new(), next: 0, arrivals: arrivals.clone() };
        let thread = std::thread::Builder::new()
            .name("echo".to_owned())
            .spawn(move || server.serve(stopped.as_fd()))
            .context("starting a server")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _told = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

enum Socket {
    Listener(TcpListener),
    Udp(UdpSocket),
    Sctp { fd: OwnedFd, is_ipv4: bool, ports: BTreeSet<u16> },
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Listener(socket) => socket.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
            Self::Sctp { fd, .. } => fd.as_fd(),
        }
    }
}

fn open_all(addresses: &[IpAddr], ports: &BTreeSet<(Protocol, u16)>) -> Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for address in addresses {
        for (protocol, port) in ports {
            let place = SocketAddr::new(*address, *port);
            match protocol {
                Protocol::Tcp => {
                    let socket = bind(place, || TcpListener::bind(place))?;
                    socket.set_nonblocking(true)?;
                    sockets.push(Socket::Listener(socket));
                }
                Protocol::Udp => {
                    let socket = bind(place, || UdpSocket::bind(place))?;
                    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_LEN)
                        .context("enlarging a receive buffer")?;
                    socket.set_nonblocking(true)?;
                    sockets.push(Socket::Udp(socket));
                }
                // One raw socket serves all ports; the kernel answers ICMP.
                Protocol::Sctp | Protocol::Icmp => {}
            }
        }
        let sctp: BTreeSet<u16> =
            ports.iter().filter(|(protocol, _)| *protocol == Protocol::Sctp).map(|(_, port)| *port).collect();
        if !sctp.is_empty() {
            let fd = raw_socket(*address, ipproto::SCTP)?;
            rustix::net::bind(&fd, &SocketAddr::new(*address, 0))
                .with_context(|| format!("binding a raw socket to {address}"))?;
            sockets.push(Socket::Sctp { fd, is_ipv4: address.is_ipv4(), ports: sctp });
        }
    }
    Ok(sockets)
}

/// Binds a server's socket. A process that is being started elsewhere holds copies of all descriptors for a moment,
/// those of the servers before this one included.
fn bind<T>(place: SocketAddr, bind: impl Fn() -> std::io::Result<T>) -> Result<T> {
    let bound = clock::wait_for("the port", Duration::from_secs(5), || match bind() {
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(error.to_string()),
        result => Ok(result),
    })?;
    bound.with_context(|| format!("listening on {place}"))
}

/// A raw socket of the family of `address`, not blocking.
pub(crate) fn raw_socket(address: IpAddr, protocol: rustix::net::Protocol) -> Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, SocketType::RAW, flags, Some(protocol)).context("opening a raw socket")
}

struct Stream {
    socket: TcpStream,
    peer: SocketAddr,
    /// Not known before anything is read.
    speech: Option<Speech>,
    /// Read, but not a whole question yet.
    read: Vec<u8>,
    /// Answers that the socket has not taken yet.
    unsent: Vec<u8>,
}

struct Server {
    sockets: Vec<Socket>,
    streams: HashMap<u64, Stream>,
    next: u64,
    arrivals: Arrivals,
}

impl Server {
    fn serve(&mut self, stop: BorrowedFd<'_>) {
        loop {
            let mut polled = vec![PollFd::from_borrowed_fd(stop, PollFlags::IN)];
            polled.extend(self.sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
            let names: Vec<u64> = self.streams.keys().copied().collect();
            polled.extend(self.streams.values().map(|stream| PollFd::new(&stream.socket, stream.awaited())));
            if rustix::event::poll(&mut polled, None).is_err() {
                continue;
            }
            let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
            drop(polled);
            let Some((stopped, rest)) = ready.split_first() else { return };
            if *stopped {
                return;
            }
            let (sockets, streams) = rest.split_at(self.sockets.len().min(rest.len()));
            for (name, _) in names.iter().zip(streams).filter(|(_, ready)| **ready) {
                self.converse(*name);
            }
            for nth in sockets.iter().enumerate().filter(|(_, ready)| **ready).map(|(nth, _)| nth) {
                self.attend(nth);
            }
        }
    }

    fn attend(&mut self, nth: usize) {
        match self.sockets.get(nth) {
            Some(Socket::Listener(listener)) => {
                while let Ok((socket, peer)) = listener.accept() {
                    if socket.set_nonblocking(true).is_ok() {
                        self.streams.insert(self.next, Stream::new(socket, peer));
                        self.next += 1;
                    }
                }
            }
            Some(Socket::Udp(socket)) => {
                let mut buffer = vec![0; DATAGRAM_LEN_MAX];
                while let Ok((len, peer)) = socket.recv_from(&mut buffer) {
                    let Some(question) = buffer.get(..len) else { continue };
                    if let Some(answer) = answer(question, peer, &self.arrivals) {
                        // A refused answer shows at the asker.
                        let _sent = socket.send_to(&answer, peer);
                    }
                }
            }
            Some(Socket::Sctp { fd, is_ipv4, ports }) => answer_sctp(fd, *is_ipv4, ports, &self.arrivals),
            None => {}
        }
    }

    fn converse(&mut self, name: u64) {
        let Some(stream) = self.streams.get_mut(&name) else { return };
        if stream.listen(&self.arrivals).and_then(|()| stream.answer()).is_err() {
            self.streams.remove(&name);
        }
    }
}

impl Stream {
    const fn new(socket: TcpStream, peer: SocketAddr) -> Self {
        Self { socket, peer, speech: None, read: Vec::new(), unsent: Vec::new() }
    }

    fn awaited(&self) -> PollFlags {
        if self.unsent.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT }
    }

    /// Reads what is there. An error is the end.
    fn listen(&mut self, arrivals: &Arrivals) -> std::io::Result<()> {
        let mut chunk = [0; 16_384];
        loop {
            match self.socket.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.read.extend(chunk.iter().take(len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.speech.is_none() {
            self.speech = Speech::recognise(&self.read);
            self.unsent.extend(self.speech.map(Speech::greeting).unwrap_or_default());
        }
        let Some(speech) = self.speech else { return Ok(()) };
        let echo = |question: &[u8]| answer(question, self.peer, arrivals).unwrap_or_default();
        let mut at = 0;
        while let Some((length, answer)) = speech.answer(self.read.get(at..).unwrap_or_default(), echo) {
            at += length;
            self.unsent.extend(answer);
        }
        drop(self.read.drain(..at));
        Ok(())
    }

    /// Sends what the socket takes.
    fn answer(&mut self) -> std::io::Result<()> {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(len) => drop(self.unsent.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The question with the asker written into it.
fn answer(question: &[u8], peer: SocketAddr, arrivals: &Arrivals) -> Option<Vec<u8>> {
    let (token, _) = read_message(question)?;
    arrivals.insert(token);
    let seen = match peer.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut answer = question.to_vec();
    answer.get_mut(8..24)?.copy_from_slice(&seen.octets());
    Some(answer)
}

fn answer_sctp(fd: &OwnedFd, is_ipv4: bool, ports: &BTreeSet<u16>, arrivals: &Arrivals) {
    let mut buffer = [0; 2048];
    while let Ok((_, len, Some(peer))) = rustix::net::recvfrom(fd, &mut buffer[..], RecvFlags::empty()) {
        let packet = buffer.get(..len).unwrap_or_default();
        let packet = if is_ipv4 { after_ipv4_header(packet) } else { Some(packet) };
        let Some(question) = packet.and_then(Sctp::read) else { continue };
        if question.is_ack || !ports.contains(&question.destination_port) {
            continue;
        }
        arrivals.insert(u64::from(question.tag));
        let answer = Sctp {
            source_port: question.destination_port,
            destination_port: question.source_port,
            is_ack: true,
            tag: question.tag,
        };
        let Ok(mut peer) = SocketAddr::try_from(peer) else { continue };
        peer.set_port(0);
        let _sent = rustix::net::sendto(fd, &answer.bytes(), SendFlags::empty(), &peer);
    }
}
