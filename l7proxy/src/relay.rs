//! One client's connection from its first byte to its last: requests are judged one by one, what passes goes to the
//! server, what does not is answered here.
//!
//! The order of messages is [`Exchange`]'s work; here are the streams, their buffers and the time. What is not sent yet is
//! bounded: nothing is read for a side that does not take what it was sent. Bodies are never held as a whole.

mod buffers;
mod connection;
mod side;

use std::future::Future;
use std::io;
use std::time::Duration;

use sluice_flow::HttpRecord;
use sluice_policy::l7::{Effects, HttpRequest};
use tokio::sync::watch;

use crate::answer::DeniedBy;
use crate::http1::{Broken, HeadError, Limits};
use crate::http2::Http2Settings;
use connection::Connection;

pub use side::Stream;

/// What one connection may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settings {
    /// How long heads may be.
    pub head: Limits,
    /// How long a client may take for a head, from its first byte; for the first one, from the connection's begin.
    pub head_timeout: Duration,
    /// How long nothing may come or go.
    pub idle_timeout: Duration,
    /// How long a server may take to accept a connection.
    pub connect_timeout: Duration,
    /// How many bytes may wait to be sent to a side before no more are read for it.
    pub buffer_bytes: usize,
    /// What HTTP/2 may take.
    pub http2: Http2Settings,
}

impl Default for Settings {
    /// The field's values, where it has some: 2 s to connect, an hour of silence (upstream `proxy-connect-timeout`,
    /// `http-request-timeout`).
    fn default() -> Self {
        Self {
            head: Limits::default(),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3_600),
            connect_timeout: Duration::from_secs(2),
            buffer_bytes: 64 * 1024,
            http2: Http2Settings::default(),
        }
    }
}

/// Who knows the rules, the server and the records of one connection.
pub trait Host: Sync {
    /// The server's end.
    type Server: Stream;
    /// What is kept of a judgement until the request is answered.
    type Note: Send;

    /// Connects to the server. Asked once, for the first request that passes.
    fn connect(&self) -> impl Future<Output = io::Result<Self::Server>> + Send;

    /// Decides about a request by the rules of this moment.
    fn judge(&self, request: &HttpRequest<'_>) -> (Judgement, Self::Note);

    /// Who denied a request, if its client may know.
    fn denied_by<'n>(&self, note: &'n Self::Note) -> Option<DeniedBy<'n>>;

    /// Takes note of a request that was answered, or never will be.
    fn record(&self, record: Record<'_, Self::Note>);
}

/// What a connection is told while it goes on.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Ticks when the rules change.
    pub changes: watch::Receiver<u64>,
    /// Ticks once, when connections are to end: each as soon as its client knows, and begins nothing new on it.
    pub leaving: watch::Receiver<()>,
}

/// What becomes of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Judgement {
    /// It goes on, with these changes.
    Pass(Effects),
    /// It is answered with 403.
    Deny,
}

/// What happened to one request.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a, N> {
    /// Its id, the connection's and a number.
    pub flow: &'a str,
    /// As judged.
    pub method: &'a str,
    /// As judged, with the query.
    pub path: &'a str,
    /// As judged.
    pub authority: &'a str,
    /// Of the answer; none if the client got none.
    pub status: Option<u16>,
    /// From the head of the request to that of the answer.
    pub latency: Duration,
    /// Whether it passed.
    pub outcome: Outcome,
    /// What was kept of the judgement.
    pub note: &'a N,
}

/// What a flow says of it.
impl<N> From<&Record<'_, N>> for HttpRecord {
    fn from(record: &Record<'_, N>) -> Self {
        Self {
            flow: record.flow.to_owned(),
            method: record.method.to_owned(),
            path: record.path.to_owned(),
            authority: record.authority.to_owned(),
            status: record.status,
            latency_ns: u64::try_from(record.latency.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

/// What became of one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It went to the server, which answered.
    Forwarded,
    /// It was denied.
    Denied,
    /// It passed, but got no answer from the server.
    Failed,
    /// Its tunnel was closed because it may be no longer.
    Revoked,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum End {
    /// One of its ends closed it, between two messages.
    #[error("closed")]
    Closed,
    /// The client sent what is no request.
    #[error("a request that is none: {0}")]
    Request(Broken),
    /// The server sent what is no answer.
    #[error("an answer that is none: {0}")]
    Answer(Broken),
    /// The client went away in the middle of something.
    #[error("the client is gone")]
    ClientGone,
    /// The server went away in the middle of something.
    #[error("the server is gone")]
    ServerGone,
    /// There is no connection to the server.
    #[error("no connection to the server")]
    NoServer,
    /// The server did not accept a connection in time.
    #[error("no connection to the server in time")]
    NoServerInTime,
    /// The client took too long for a head.
    #[error("no request in time")]
    HeadTimeout,
    /// Nothing came or went for too long.
    #[error("nothing came or went")]
    IdleTimeout,
    /// A change that a rule wants would make another message of the request.
    #[error("a change of headers that cannot be made")]
    BadEffect,
    /// The tunnel may be no longer.
    #[error("a tunnel that is no longer allowed")]
    Revoked,
    /// The client broke the rules of HTTP/2, or asked for too much.
    #[error("a client that breaks HTTP/2: {0}")]
    BrokenHttp2(h2::Reason),
}

impl End {
    /// What the client is told, if it can be told anything.
    pub(crate) const fn status(self) -> Option<u16> {
        match self {
            Self::Request(Broken::Head(HeadError::OtherProtocol)) => None,
            Self::Request(broken) => Some(broken.status()),
            Self::Answer(_) | Self::ServerGone => Some(502),
            Self::NoServer => Some(503),
            Self::NoServerInTime | Self::IdleTimeout => Some(504),
            Self::HeadTimeout => Some(408),
            Self::BadEffect => Some(500),
            Self::Closed | Self::ClientGone | Self::Revoked | Self::BrokenHttp2(_) => None,
        }
    }
}

/// Carries one connection to its end, in HTTP/1, or in HTTP/2 if the client begins with its preface.
///
/// `id` is the first half of the flows' ids.
pub async fn relay<C: Stream, H: Host>(
    client: C,
    host: &H,
    settings: &Settings,
    signals: Signals,
    id: u64,
) -> End {
    // It stays where it is: a future that is moved into another one takes the room of both.
    let mut connection = Connection::new(client, host, settings, signals, id);
    connection.run().await
}

#[cfg(test)]
pub(crate) mod rig;
#[cfg(test)]
mod tests;
