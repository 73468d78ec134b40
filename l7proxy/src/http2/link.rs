//! The connection to the server, which the streams of one client share.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use h2::client;
use tokio::sync::watch;
use tokio::time::timeout;

use super::wire::{Pulse, Wire};
use crate::relay::{End, Host, Settings, Stream};

/// What streams know of the connection to the server.
#[derive(Clone)]
pub(super) enum Link {
    /// It is not there yet.
    Opening,
    /// Requests go here.
    Open(client::SendRequest<Bytes>),
    /// There is none, or no longer.
    Closed(End),
}

/// What happened to the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// The server takes requests for tunnels with a protocol (RFC 8441).
    TakesTunnels,
    /// The server finishes what it has begun, and takes no other requests.
    Leaving,
    /// It could not be opened, or has ended.
    Gone(End),
}

type Opened<S> = Result<(client::SendRequest<Bytes>, client::Connection<Wire<S>, Bytes>), End>;

enum State<'h, S: Stream> {
    Unused,
    Opening(Pin<Box<dyn Future<Output = Opened<S>> + Send + 'h>>),
    Open {
        sender: client::SendRequest<Bytes>,
        connection: Box<client::Connection<Wire<S>, Bytes>>,
    },
    /// No stream is left, and nothing more is asked for.
    Closing(Box<client::Connection<Wire<S>, Bytes>>),
    Gone,
}

/// The connection to the server.
pub(super) struct Upstream<'h, S: Stream> {
    state: State<'h, S>,
    link: watch::Sender<Link>,
    takes_tunnels: bool,
    is_leaving: bool,
}

impl<'h, S: Stream + 'h> Upstream<'h, S> {
    pub(super) fn new() -> Self {
        let link = watch::Sender::new(Link::Opening);
        Self { state: State::Unused, link, takes_tunnels: false, is_leaving: false }
    }

    /// Where a stream learns of it.
    pub(super) fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// Opens it, if that was not begun already.
    pub(super) fn open<H: Host<Server = S>>(&mut self, host: &'h H, settings: &'h Settings, pulse: &Pulse) {
        if matches!(self.state, State::Unused) {
            let pulse = pulse.clone();
            self.state = State::Opening(Box::pin(open(host, settings, pulse)));
        }
    }

    /// Lets all streams know that there is no connection, for them.
    pub(super) fn close(&self, end: End) {
        self.link.send_replace(Link::Closed(end));
    }

    /// Asks for nothing more, now that the last stream has ended.
    pub(super) fn release(&mut self, end: End) {
        self.close(end);
        self.state = match std::mem::replace(&mut self.state, State::Gone) {
            State::Open { connection, .. } | State::Closing(connection) => State::Closing(connection),
            State::Unused | State::Opening(_) | State::Gone => State::Gone,
        };
    }

    pub(super) const fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone)
    }

    /// Goes on with the connection until something happens to it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Change> {
        if let State::Opening(opening) = &mut self.state {
            let Poll::Ready(opened) = opening.as_mut().poll(cx) else { return Poll::Pending };
            match opened {
                Ok((sender, connection)) => {
                    self.link.send_replace(Link::Open(sender.clone()));
                    self.state = State::Open { sender, connection: Box::new(connection) };
                }
                Err(end) => return Poll::Ready(self.gone(end)),
            }
        }
        if let State::Closing(connection) = &mut self.state {
            return Pin::new(connection).poll(cx).map(|_end| self.gone(End::Closed));
        }
        let State::Open { sender, connection } = &mut self.state else { return Poll::Pending };
        if Pin::new(connection).poll(cx).is_ready() {
            let says_so = |error: &h2::Error| error.is_go_away() && error.is_remote();
            let said_so = matches!(sender.poll_ready(cx), Poll::Ready(Err(error)) if says_so(&error));
            let end = if self.is_leaving || said_so { End::Closed } else { End::ServerGone };
            return Poll::Ready(self.gone(end));
        }
        if !self.takes_tunnels && sender.is_extended_connect_protocol_enabled() {
            self.takes_tunnels = true;
            return Poll::Ready(Change::TakesTunnels);
        }
        // Nothing is pending at this handle: an error means that no stream can be opened any more.
        if !self.is_leaving && matches!(sender.poll_ready(cx), Poll::Ready(Err(_))) {
            self.is_leaving = true;
            return Poll::Ready(Change::Leaving);
        }
        Poll::Pending
    }

    fn gone(&mut self, end: End) -> Change {
        self.state = State::Gone;
        self.close(if end == End::Closed { End::ServerGone } else { end });
        Change::Gone(end)
    }
}

async fn open<H: Host>(host: &H, settings: &Settings, pulse: Pulse) -> Opened<H::Server> {
    let opening = async {
        let stream = host.connect().await.map_err(|_gone| End::NoServer)?;
        let wire = Wire::new(stream, BytesMut::new(), pulse);
        settings.http2.client().handshake(wire).await.map_err(|_gone| End::NoServer)
    };
    match timeout(settings.connect_timeout, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(End::NoServerInTime),
    }
}
