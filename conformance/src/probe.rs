//! Clients: many questions at once from one namespace, and what came of each.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

use crate::clock;
use crate::echo::{MESSAGE_LEN, message, raw_socket, read_message};
use crate::netns::Netns;
use crate::wire::{self, Sctp};

/// After this long without an answer a datagram is sent again: one lost to a full queue is not a denial.
const RESEND: Duration = Duration::from_millis(700);
const ICMP4_ECHO: (u8, u8) = (8, 0);
const ICMP6_ECHO: (u8, u8) = (128, 129);
const ICMP4_TIMESTAMP: (u8, u8) = (13, 14);
/// What one who looks for requests says to a message, which is none.
const NO_REQUEST: &[u8] = b"HTTP/1.1 400 ";

/// What is asked over.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// A connection.
    Tcp,
    /// A datagram.
    Udp,
    /// An INIT, made by hand.
    Sctp,
    /// The "port" is the type: 8 for echo in both families, 13 for a timestamp.
    Icmp,
}

impl Protocol {
    /// The word used in cases and flows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
        }
    }
}

/// One question.
#[derive(Clone, Debug)]
pub struct Question {
    /// Over what.
    pub protocol: Protocol,
    /// From which address; the kernel's choice if none.
    pub source: Option<IpAddr>,
    /// To whom.
    pub target: IpAddr,
    /// Port, or ICMP type.
    pub port: u16,
    /// Length of a datagram, or of all that is said over a connection.
    pub len: usize,
    /// How long to wait.
    pub patience: Duration,
}

/// What came back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The target answered; it saw the question come from this address (if it can tell).
    Echoed(Option<IpAddr>),
    /// Nothing came.
    Silent,
    /// Somebody answered in the target's stead that the request may not be.
    Forbidden,
    /// Somebody answered in the target's stead that there is no request in the question.
    NoRequest,
    /// The target's system says that nobody listens.
    Refused,
    /// Something else, in the system's words.
    Failed(String),
}

/// A question's fate.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What came back.
    pub answer: Answer,
    /// What the question carries; a server that heard it remembers it.
    pub token: u64,
    /// The question's source.
    pub local: Option<SocketAddr>,
    /// How long it took.
    pub took: Duration,
}

/// Asks all questions at once from the namespace; outcomes are in the order of the questions.
///
/// # Errors
/// The namespace cannot be entered. A question that cannot be asked is [`Answer::Failed`].
pub fn ask(netns: &Netns, questions: &[Question]) -> Result<Vec<Outcome>> {
    netns.run(|| {
        let mut flights: Vec<Flight> = questions.iter().map(Flight::start).collect();
        fly(&mut flights)?;
        Ok(flights.into_iter().map(Flight::land).collect())
    })
}

/// A number that no other question carries. SCTP has room for half of it, so that half must be enough.
pub(crate) fn new_token() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed) & u64::from(u32::MAX)
}

#[derive(Debug, Eq, PartialEq)]
enum Stage {
    Connecting,
    Waiting,
    Done(Answer),
}

struct Flight<'a> {
    question: &'a Question,
    token: u64,
    socket: Option<OwnedFd>,
    stage: Stage,
    local: Option<SocketAddr>,
    /// What the connection has not taken yet.
    unsent: Vec<u8>,
    received: Vec<u8>,
    started: Instant,
    sent: Instant,
    ended: Option<Instant>,
}

impl<'a> Flight<'a> {
    fn start(question: &'a Question) -> Self {
        let now = clock::now();
        let mut flight = Self {
            question,
            token: new_token(),
            socket: None,
            stage: Stage::Waiting,
            local: None,
            unsent: Vec::new(),
            received: Vec::new(),
            started: now,
            sent: now,
            ended: None,
        };
        if let Err(error) = flight.open() {
            flight.finish(Answer::Failed(format!("{error:#}")));
        }
        flight
    }

    fn open(&mut self) -> Result<()> {
        let Question { protocol, source, target, port, .. } = *self.question;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let (socket, place) = match protocol {
            Protocol::Tcp => (rustix::net::socket_with(family, SocketType::STREAM, flags, None)?, port),
            Protocol::Udp => (rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?, port),
            Protocol::Sctp => (raw_socket(target, ipproto::SCTP)?, 0),
            Protocol::Icmp if target.is_ipv4() => (raw_socket(target, ipproto::ICMP)?, 0),
            Protocol::Icmp => (raw_socket(target, ipproto::ICMPV6)?, 0),
        };
        if let Some(source) = source {
            rustix::net::bind(&socket, &SocketAddr::new(source, 0))
                .with_context(|| format!("binding {source}"))?;
        }
        let socket = self.socket.insert(socket);
        let connected = rustix::net::connect(&*socket, &SocketAddr::new(target, place));
        self.local =
            rustix::net::getsockname(&*socket).ok().and_then(|local| SocketAddr::try_from(local).ok());
        match connected {
            Ok(()) => self.send(),
            Err(Errno::INPROGRESS) => self.stage = Stage::Connecting,
            Err(errno) => self.fail(errno),
        }
        Ok(())
    }

    /// The port of an SCTP question, and the identifier of an ICMP one.
    fn own_port(&self) -> u16 {
        0x8000 | u16::try_from(self.token & 0x7fff).unwrap_or(0)
    }

    fn icmp_types(&self) -> (u8, u8) {
        match (self.question.target, self.question.port) {
            (IpAddr::V6(_), _) => ICMP6_ECHO,
            (IpAddr::V4(_), 13) => ICMP4_TIMESTAMP,
            (IpAddr::V4(_), _) => ICMP4_ECHO,
        }
    }

    fn send(&mut self) {
        let payload = match self.question.protocol {
            Protocol::Tcp => {
                self.unsent = message(self.token, MESSAGE_LEN).repeat(self.messages());
                return self.send_on();
            }
            Protocol::Udp => message(self.token, self.question.len),
            Protocol::Sctp => Sctp {
                source_port: self.own_port(),
                destination_port: self.question.port,
                is_ack: false,
                tag: u32::try_from(self.token).unwrap_or(0),
            }
            .bytes(),
            Protocol::Icmp => {
                let filling = if self.icmp_types() == ICMP4_TIMESTAMP { 12 } else { MESSAGE_LEN };
                let mut payload = message(self.token, filling);
                payload.truncate(filling);
                wire::icmp(self.icmp_types().0, self.own_port(), 1, &payload)
            }
        };
        let Some(socket) = &self.socket else { return };
        let sent = rustix::net::send(socket, &payload, SendFlags::NOSIGNAL);
        self.stage = Stage::Waiting;
        self.sent = clock::now();
        if let Err(errno) = sent {
            self.fail(errno);
        }
    }

    /// How many messages are said over a connection.
    fn messages(&self) -> usize {
        self.question.len.div_ceil(MESSAGE_LEN).max(1)
    }

    /// Sends what the connection takes.
    fn send_on(&mut self) {
        self.stage = Stage::Waiting;
        while !self.unsent.is_empty() {
            let Some(socket) = &self.socket else { return };
            match rustix::net::send(socket, &self.unsent, SendFlags::NOSIGNAL) {
                Ok(len) => drop(self.unsent.drain(..len)),
                Err(Errno::AGAIN) => return,
                Err(errno) => return self.fail(errno),
            }
        }
    }

    fn awaited(&self) -> PollFlags {
        match self.stage {
            Stage::Connecting => PollFlags::OUT,
            Stage::Waiting if !self.unsent.is_empty() => PollFlags::IN | PollFlags::OUT,
            Stage::Waiting | Stage::Done(_) => PollFlags::IN,
        }
    }

    fn fail(&mut self, errno: Errno) {
        match errno {
            Errno::AGAIN | Errno::NOBUFS => {}
            Errno::CONNREFUSED | Errno::CONNRESET => self.finish(Answer::Refused),
            errno => self.finish(Answer::Failed(errno.to_string())),
        }
    }

    fn finish(&mut self, answer: Answer) {
        self.stage = Stage::Done(answer);
        self.ended = Some(clock::now());
    }

    fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done(_))
    }

    /// Something happened at the socket.
    fn attend(&mut self) {
        if self.stage == Stage::Connecting {
            let Some(socket) = &self.socket else { return };
            match rustix::net::sockopt::socket_error(socket) {
                Ok(Ok(())) => self.send(),
                Ok(Err(errno)) | Err(errno) => self.fail(errno),
            }
            return;
        }
        if !self.unsent.is_empty() {
            self.send_on();
        }
        let mut buffer = vec![0; 65_535];
        while !self.is_done() {
            let Some(socket) = &self.socket else { return };
            match rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((_, 0)) if self.question.protocol == Protocol::Tcp => self.finish(Answer::Refused),
                Ok((_, len)) => self.hear(buffer.get(..len).unwrap_or_default()),
                Err(Errno::AGAIN) => return,
                Err(errno) => self.fail(errno),
            }
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        match self.question.protocol {
            Protocol::Tcp => {
                self.received.extend(bytes);
                if self.received.len() >= self.messages() * MESSAGE_LEN {
                    let received = std::mem::take(&mut self.received);
                    self.hear_message(&received);
                }
            }
            Protocol::Udp if bytes.len() == self.question.len.max(MESSAGE_LEN) => self.hear_message(bytes),
            Protocol::Udp => self.finish(Answer::Failed(format!("{} bytes came back", bytes.len()))),
            Protocol::Sctp => {
                let answer = self.after_header(bytes).and_then(Sctp::read);
                if answer.is_some_and(|answer| {
                    answer.is_ack
                        && u64::from(answer.tag) == self.token
                        && answer.destination_port == self.own_port()
                }) {
                    self.finish(Answer::Echoed(None));
                }
            }
            Protocol::Icmp => {
                let kind = self.icmp_types().1;
                let [high, low] = self.own_port().to_be_bytes();
                let answer = self.after_header(bytes).unwrap_or_default();
                if matches!(answer, [own, _, _, _, id_high, id_low, ..] if *own == kind && [*id_high, *id_low] == [high, low])
                {
                    self.finish(Answer::Echoed(None));
                }
            }
        }
    }

    fn hear_message(&mut self, bytes: &[u8]) {
        if bytes.starts_with(NO_REQUEST) {
            return self.finish(Answer::NoRequest);
        }
        match read_message(bytes) {
            Some((token, seen)) if token == self.token => self.finish(Answer::Echoed(Some(seen))),
            Some(_) | None => self.finish(Answer::Failed("another answer came back".to_owned())),
        }
    }

    fn after_header<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        if self.question.target.is_ipv4() { wire::after_ipv4_header(bytes) } else { Some(bytes) }
    }

    fn deadline(&self) -> Instant {
        self.started + self.question.patience
    }

    /// When it must be looked at although nothing happened.
    fn next_wake(&self) -> Option<Instant> {
        match (&self.stage, self.question.protocol) {
            (Stage::Done(_), _) => None,
            (_, Protocol::Tcp) => Some(self.deadline()),
            (_, Protocol::Udp | Protocol::Sctp | Protocol::Icmp) => {
                Some(self.deadline().min(self.sent + RESEND))
            }
        }
    }

    /// Gives up or sends again, if it is time.
    fn wake(&mut self, now: Instant) {
        if self.is_done() {
            return;
        }
        if now >= self.deadline() {
            self.finish(Answer::Silent);
        } else if self.question.protocol != Protocol::Tcp && now >= self.sent + RESEND {
            self.send();
        }
    }

    fn land(self) -> Outcome {
        let local = self.local.map(|mut local| {
            if matches!(self.question.protocol, Protocol::Sctp) {
                local.set_port(self.own_port());
            }
            local
        });
        let took = self.ended.unwrap_or(self.started).saturating_duration_since(self.started);
        let answer = if let Stage::Done(answer) = self.stage { answer } else { Answer::Silent };
        Outcome { answer, token: self.token, local, took }
    }
}

fn fly(flights: &mut [Flight<'_>]) -> Result<()> {
    loop {
        // What has come is read before anything is given up: this thread may have slept too long.
        let now = clock::now();
        let next = flights.iter().filter_map(|flight| flight.next_wake()).min();
        let Some(next) = next else { return Ok(()) };
        wait_and_attend(flights, next.saturating_duration_since(now))?;
        for flight in flights.iter_mut() {
            flight.wake(now);
        }
    }
}

/// Waits at most this long for anything to happen, and attends to all that did.
fn wait_and_attend(flights: &mut [Flight<'_>], timeout: Duration) -> Result<()> {
    let mut polled: Vec<PollFd<'_>> = Vec::new();
    let mut names = Vec::new();
    for (nth, flight) in flights.iter().enumerate() {
        if let (false, Some(socket)) = (flight.is_done(), &flight.socket) {
            polled.push(PollFd::new(socket, flight.awaited()));
            names.push(nth);
        }
    }
    let timeout = Timespec::try_from(timeout + Duration::from_millis(1)).context("a time limit")?;
    match rustix::event::poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno).context("waiting for answers"),
    }
    let ready: Vec<usize> = polled
        .iter()
        .zip(&names)
        .filter(|(polled, _)| !polled.revents().is_empty())
        .map(|(_, nth)| *nth)
        .collect();
    drop(polled);
    for nth in ready {
        if let Some(flight) = flights.get_mut(nth) {
            flight.attend();
        }
    }
    Ok(())
}

/// A connection that stays open over several steps.
#[derive(Debug)]
pub struct Conversation {
    stream: std::net::TcpStream,
}

impl Conversation {
    /// Opens it.
    ///
    /// # Errors
    /// The target does not answer within `patience`.
    pub fn open(netns: &Netns, target: SocketAddr, patience: Duration) -> Result<Self> {
        let stream = netns.run(|| {
            std::net::TcpStream::connect_timeout(&target, patience)
                .with_context(|| format!("connecting to {target}"))
        })?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// The connection's own end.
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        self.stream.local_addr().ok()
    }

    /// Says something and listens for the answer.
    ///
    /// # Errors
    /// The system cannot be asked at all.
    pub fn speak(&mut self, patience: Duration) -> Result<Outcome> {
        use std::io::{ErrorKind, Read, Write};
        let started = clock::now();
        let token = new_token();
        self.stream.set_read_timeout(Some(patience))?;
        let mut answer = [0; MESSAGE_LEN];
        let said = self
            .stream
            .write_all(&message(token, MESSAGE_LEN))
            .and_then(|()| self.stream.read_exact(&mut answer));
        let answer = match said {
            Ok(()) => match read_message(&answer) {
                Some((heard, seen)) if heard == token => Answer::Echoed(Some(seen)),
                Some(_) | None => Answer::Failed("an old answer came back".to_owned()),
            },
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Answer::Silent
            }
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
                Answer::Refused
            }
            Err(error) => Answer::Failed(error.to_string()),
        };
        let took = clock::now().saturating_duration_since(started);
        Ok(Outcome { answer, token, local: self.local(), took })
    }
}
