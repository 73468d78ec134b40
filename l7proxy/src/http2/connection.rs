//! One client's connection: its streams are judged as they come, and carried side by side in one task.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::flow::Flow;
use super::forward::Head;
use super::link::{Change, Upstream};
use super::refusal::{self, Refused};
use super::stream::{Ended, Stream};
use super::wire::{Pulse, Wire};
use crate::answer::Answer;
use crate::relay::{self, End, Host, Judgement, Outcome, Settings, Signals};

/// How long a connection that has ended is kept for what is still to be said on either side.
const LINGER: Duration = Duration::from_secs(1);

type Running<'h> = FuturesUnordered<Pin<Box<dyn Future<Output = Ended> + Send + 'h>>>;

/// One connection.
pub(super) struct Connection<'h, C: relay::Stream, H: Host> {
    client: server::Connection<Wire<C>, Bytes>,
    upstream: Upstream<'h, H::Server>,
    streams: Running<'h>,
    host: &'h H,
    settings: &'h Settings,
    changes: watch::Receiver<u64>,
    leaving: watch::Receiver<()>,
    pulse: Pulse,
    id: u64,
    requests: u64,
    /// How many requests more were reset by the client than were answered.
    resets: usize,
    /// The client is to be told that it may ask for tunnels with a protocol.
    offers_tunnels: bool,
    /// How the connection will have ended when the last stream has.
    end: Option<End>,
}

/// Greets the client and carries its connection to the end.
pub(super) async fn run<'h, C: relay::Stream, H: Host>(
    client: C,
    already_read: BytesMut,
    host: &'h H,
    settings: &'h Settings,
    signals: Signals,
    id: u64,
) -> End {
    let pulse = Pulse::new();
    let wire = Wire::new(client, already_read, pulse.clone());
    let greeting = settings.http2.server().handshake(wire);
    let client = match timeout_at(pulse.begin() + settings.head_timeout, greeting).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return client_end(&error),
        Err(_) => return End::HeadTimeout,
    };
    let connection = Connection {
        client,
        upstream: Upstream::new(),
        streams: FuturesUnordered::new(),
        host,
        settings,
        changes: signals.changes,
        leaving: signals.leaving,
        pulse,
        id,
        requests: 0,
        resets: 0,
        offers_tunnels: false,
        end: None,
    };
    connection.run().await
}

/// A request and the way to answer it.
type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

/// What happened.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once, and never kept")]
enum Event {
    Client(Option<Result<Accepted, h2::Error>>),
    Server(Change),
    Stream(Ended),
    Leaving,
    Timer,
}

impl<'h, C: relay::Stream, H: Host> Connection<'h, C, H> {
    async fn run(mut self) -> End {
        let end = self.carry().await;
        self.finish(end).await;
        end
    }

    async fn carry(&mut self) -> End {
        let mut has_asked = false;
        let mut leaving = self.leaving.clone();
        let mut timer = pin!(sleep_until(self.deadline(has_asked)));
        loop {
            let event = tokio::select! {
                biased;
                event = self.next() => event,
                Ok(()) = leaving.changed() => Event::Leaving,
                () = timer.as_mut() => Event::Timer,
            };
            match event {
                Event::Client(Some(Ok((request, respond)))) => {
                    has_asked = true;
                    self.request(request, respond);
                }
                Event::Client(Some(Err(error))) => return client_end(&error),
                Event::Client(None) if self.streams.is_empty() => return self.end.unwrap_or(End::Closed),
                Event::Client(None) => return self.end.unwrap_or(End::ClientGone),
                Event::Server(change) => self.server_changed(change),
                Event::Stream(ended) => {
                    if self.is_flooded(ended) {
                        return End::BrokenHttp2(Reason::ENHANCE_YOUR_CALM);
                    }
                }
                Event::Leaving => {
                    self.end = self.end.or(Some(End::Closed));
                    self.client.graceful_shutdown();
                }
                Event::Timer => {
                    let deadline = self.deadline(has_asked);
                    if Instant::now() >= deadline {
                        return if has_asked { End::IdleTimeout } else { End::HeadTimeout };
                    }
                    timer.as_mut().reset(deadline);
                }
            }
        }
    }

    fn deadline(&self, has_asked: bool) -> Instant {
        if has_asked {
            self.pulse.last() + self.settings.idle_timeout
        } else {
            self.pulse.begin() + self.settings.head_timeout
        }
    }

    /// Goes on with everything until something happens.
    async fn next(&mut self) -> Event {
        poll_fn(|cx| {
            if let Poll::Ready(accepted) = self.client.poll_accept(cx) {
                return Poll::Ready(Event::Client(accepted));
            }
            // Not while earlier settings are not acknowledged; that comes with a turn of its own.
            if self.offers_tunnels && self.client.enable_connect_protocol().is_ok() {
                self.offers_tunnels = false;
                cx.waker().wake_by_ref();
            }
            if let Poll::Ready(change) = self.upstream.poll(cx) {
                return Poll::Ready(Event::Server(change));
            }
            match self.streams.poll_next_unpin(cx) {
                Poll::Ready(Some(ended)) => Poll::Ready(Event::Stream(ended)),
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Has a request judged, and begins what follows from that.
    fn request(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let (parts, body) = request.into_parts();
        let head = match Head::read(parts) {
            Ok(head) => head,
            Err(error) => {
                let answer = Answer { status: error.status(), flow: None, denied_by: None };
                refusal::answer(&answer, None, &mut respond);
                return;
            }
        };
        self.requests += 1;
        // Seen before it is judged: a change that comes meanwhile counts as a new one.
        self.changes.mark_unchanged();
        let (judgement, note) = head.judged(|request| self.host.judge(request));
        let id = format!("{:x}-{}", self.id, self.requests);
        let mut flow = Flow::new(self.host, head, id, note);
        let effects = match judgement {
            Judgement::Pass(effects) => effects,
            Judgement::Deny => {
                return self.refuse(Refused { flow, outcome: Outcome::Denied, status: 403, body, respond });
            }
        };
        // The error may hold a header's name from a rule, never a value; the record names the rule.
        let Ok(request) = flow.head.forwarded(&effects) else {
            return self.refuse(Refused { flow, outcome: Outcome::Failed, status: 500, body, respond });
        };
        self.upstream.open(self.host, self.settings, &self.pulse);
        let (link, changes) = (self.upstream.link(), self.changes.clone());
        let idle_timeout = self.settings.idle_timeout;
        let stream = Stream { flow, request, body, respond, link, changes, idle_timeout };
        self.streams.push(Box::pin(stream.run()));
    }

    fn refuse(&mut self, mut refused: Refused<'h, H>) {
        if refused.is_whole() {
            refused.answer();
        } else {
            self.streams.push(Box::pin(refused.run()));
        }
    }

    /// Whether the client asks for much and waits for nothing.
    fn is_flooded(&mut self, ended: Ended) -> bool {
        match ended {
            Ended::InOrder => self.resets = self.resets.saturating_sub(1),
            Ended::ResetUnanswered => self.resets += 1,
        }
        self.resets > self.settings.http2.resets_max
    }

    /// Lets the client know what became of the server: it finishes what it has begun, and comes back for another.
    fn server_changed(&mut self, change: Change) {
        match change {
            Change::TakesTunnels => self.offers_tunnels = true,
            Change::Leaving => {
                self.end = self.end.or(Some(End::Closed));
                self.client.graceful_shutdown();
            }
            Change::Gone(end) => {
                let is_between = end == End::ServerGone && self.streams.is_empty();
                self.end = self.end.or(Some(if is_between { End::Closed } else { end }));
                self.client.graceful_shutdown();
            }
        }
    }

    /// Lets everybody know, for a moment.
    async fn finish(mut self, end: End) {
        if end == End::IdleTimeout {
            // Streams that wait for the server get an answer, which is sent before anything is closed.
            self.upstream.close(end);
            self.client.graceful_shutdown();
            drop(timeout(LINGER, self.settle()).await);
        }
        let reason = if let End::BrokenHttp2(reason) = end { reason } else { Reason::NO_ERROR };
        self.client.abrupt_shutdown(reason);
        drop(timeout(LINGER, poll_fn(|cx| self.client.poll_closed(cx))).await);
        let Self { client, mut upstream, mut streams, .. } = self;
        // What streams learn of it is theirs to record, and to pass on to the server.
        drop(client);
        let rest = poll_fn(|cx| {
            while let Poll::Ready(Some(_)) = streams.poll_next_unpin(cx) {}
            if streams.is_empty() {
                upstream.release(end);
            }
            while upstream.poll(cx).is_ready() {}
            if streams.is_empty() && upstream.is_gone() { Poll::Ready(()) } else { Poll::Pending }
        });
        drop(timeout(LINGER, rest).await);
    }

    /// Goes on until the last stream has ended, and the client has gone.
    async fn settle(&mut self) {
        loop {
            match self.next().await {
                Event::Client(Some(Ok((_, mut respond)))) => respond.send_reset(Reason::REFUSED_STREAM),
                Event::Client(None | Some(Err(_))) => return,
                Event::Server(_) | Event::Stream(_) | Event::Leaving | Event::Timer => {}
            }
        }
    }
}

/// How a connection ended whose client's end had this error.
fn client_end(error: &h2::Error) -> End {
    match error.reason() {
        Some(reason) if error.is_library() => End::BrokenHttp2(reason),
        Some(_) | None => End::ClientGone,
    }
}
