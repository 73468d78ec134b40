//! The two sides of one connection, what is between them, and the time.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Buf;
use sluice_policy::l7::HttpRequest;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::side::{Side, Stream};
use super::{End, Host, Judgement, Outcome, Record, Settings, Signals};
use crate::answer::{Answer, Manner};
use crate::http1::{Exchange, FromClient, Parsed, Pass, RequestHead, parse_request, write_request};
use crate::http2;

/// A request that the server has to answer.
#[derive(Debug)]
struct Pending<N> {
    flow: String,
    method: String,
    path: String,
    authority: String,
    is_old: bool,
    since: Instant,
    note: N,
    /// Its head, if a tunnel may follow: it is judged again when the rules change.
    tunnel: Option<Vec<u8>>,
}

/// How long a connection that was closed is kept for what the client still sends, so that it sees the last answer and not
/// that nobody listens.
const LINGER: Duration = Duration::from_secs(1);

/// One connection.
pub(super) struct Connection<'h, C, H: Host> {
    client: Side<C>,
    server: Side<H::Server>,
    exchange: Exchange,
    host: &'h H,
    settings: &'h Settings,
    signals: Signals,
    id: u64,
    requests: u64,
    pending: Option<Pending<H::Note>>,
    /// The client began with the preface of HTTP/2, and nothing was done with it.
    is_http2: bool,
    /// Since when a head is awaited.
    head_since: Option<Instant>,
    /// When something last came or went.
    moved: Instant,
}

impl<'h, C: Stream, H: Host> Connection<'h, C, H> {
    pub(super) fn new(client: C, host: &'h H, settings: &'h Settings, signals: Signals, id: u64) -> Self {
        let now = Instant::now();
        Self {
            client: Side::new(Some(client)),
            server: Side::new(None),
            exchange: Exchange::new(settings.head),
            host,
            settings,
            signals,
            id,
            requests: 0,
            pending: None,
            is_http2: false,
            head_since: Some(now),
            moved: now,
        }
    }

    /// Carries it to its end.
    pub(super) async fn run(&mut self) -> End {
        let end = self.carry().await.err().unwrap_or(End::Closed);
        if self.is_http2 {
            return self.go_on_in_http2().await;
        }
        self.finish(end).await;
        end
    }

    /// Goes on in HTTP/2, from the first byte.
    async fn go_on_in_http2(&mut self) -> End {
        let Some(client) = self.client.stream.take() else { return End::ClientGone };
        let (came, signals) = (std::mem::take(&mut self.client.came), self.signals.clone());
        // In a place of its own: connections of HTTP/1 do without its memory.
        Box::pin(http2::relay(client, came, self.host, self.settings, signals, self.id)).await
    }

    /// Goes on until the connection ends in order.
    async fn carry(&mut self) -> Result<(), End> {
        let mut timer = pin!(sleep_until(self.deadline()));
        loop {
            // It wakes nobody up: a connection on which nothing goes on is left to its client, whose next request may be
            // on its way.
            if self.signals.leaving.has_changed().is_ok_and(|is_told| is_told) {
                self.exchange.leave();
            }
            self.advance_server()?;
            self.advance_client()?;
            if self.is_http2 || self.is_over() {
                return Ok(());
            }
            if !self.server.out.is_empty() && self.server.stream.is_none() {
                self.connect().await?;
            }
            self.wait(timer.as_mut()).await?;
        }
    }

    /// Does what can be done with the bytes that came from the client.
    fn advance_client(&mut self) -> Result<(), End> {
        // A server that closed the connection between two requests gets no other one on it: the client sees the end, and
        // knows that this request was not read.
        while !(self.server.has_ended && self.exchange.is_idle())
            && self.server.out.len() < self.settings.buffer_bytes
            && self.client.out.len() < self.settings.buffer_bytes
        {
            // Out of the way, as the head of a request lies in it.
            let came = std::mem::take(&mut self.client.came);
            let step = match self.exchange.from_client(&came) {
                Ok(FromClient::More | FromClient::Wait) => Ok(None),
                Ok(FromClient::Http2) => {
                    self.is_http2 = true;
                    Ok(None)
                }
                Ok(FromClient::Pass(pass)) => Ok(Some(pass)),
                Ok(FromClient::Request(head)) => {
                    let text = came.get(..head.length).unwrap_or_default();
                    self.request(&head, text)
                        .map(|()| Some(Pass { consumed: head.length, ..Pass::default() }))
                }
                Err(broken) => Err(End::Request(broken)),
            };
            self.client.came = came;
            let Some(pass) = step?.filter(|pass| pass.consumed > 0) else { break };
            self.client.pass(pass.consumed, pass.forward, &mut self.server);
            self.server.send(&pass.trailer);
        }
        if self.exchange.is_idle() && self.requests > 0 && self.client.came.is_empty() {
            self.head_since = None;
        } else if self.exchange.is_idle() && self.head_since.is_none() {
            self.head_since = Some(Instant::now());
        }
        self.client_ended()
    }

    /// The client sends nothing more: what it began is not to be taken for a whole.
    fn client_ended(&mut self) -> Result<(), End> {
        if !self.client.has_ended {
            return Ok(());
        }
        if self.client.has_failed || self.exchange.is_sending() {
            return Err(End::ClientGone);
        }
        self.server.ends |= self.exchange.is_tunnel() && self.client.came.is_empty();
        Ok(())
    }

    /// Has a request judged, whose head is `text`, and writes it down for the server or its refusal for the client.
    fn request(&mut self, head: &RequestHead<'_>, text: &[u8]) -> Result<(), End> {
        self.head_since = None;
        self.requests += 1;
        // Seen before it is judged: a change that comes meanwhile counts as a new one.
        self.signals.changes.mark_unchanged();
        let (judgement, note) = self.host.judge(&as_judged(head));
        let mut pending = self.pending(head, note);
        match judgement {
            Judgement::Pass(effects) => {
                let result = write_request(head, &effects, self.server.writer());
                pending.tunnel = head.opens_tunnel().then(|| text.to_vec());
                self.pending = Some(pending);
                // The error may hold a header's name from a rule, never a value; the record names the rule.
                if result.is_err() {
                    return Err(End::BadEffect);
                }
                self.exchange.allow(head);
            }
            Judgement::Deny => {
                let persists = self.exchange.deny(head);
                let denied_by = self.host.denied_by(&pending.note);
                let answer = Answer { status: 403, flow: Some(&pending.flow), denied_by };
                let manner = Manner { is_head: head.method == "HEAD", is_old: head.minor == 0, persists };
                answer.write(manner, self.client.writer());
                self.record(&pending, Outcome::Denied, Some(403));
                // A body that is dropped takes no longer than a head.
                self.head_since = Some(Instant::now()).filter(|_| persists && !self.exchange.is_idle());
            }
        }
        Ok(())
    }

    fn pending(&self, head: &RequestHead<'_>, note: H::Note) -> Pending<H::Note> {
        Pending {
            flow: format!("{:x}-{}", self.id, self.requests),
            method: head.method.to_owned(),
            path: head.target.as_path().to_owned(),
            authority: head.authority.to_owned(),
            is_old: head.minor == 0,
            since: Instant::now(),
            note,
            tunnel: None,
        }
    }

    fn record(&self, request: &Pending<H::Note>, outcome: Outcome, status: Option<u16>) {
        self.host.record(Record {
            flow: &request.flow,
            method: &request.method,
            path: &request.path,
            authority: &request.authority,
            status,
            latency: request.since.elapsed(),
            outcome,
            note: &request.note,
        });
    }

    /// Does what can be done with the bytes that came from the server.
    fn advance_server(&mut self) -> Result<(), End> {
        while self.client.out.len() < self.settings.buffer_bytes {
            let Some(pass) = self.exchange.from_server(&self.server.came).map_err(End::Answer)? else {
                break;
            };
            self.server.pass(pass.consumed, pass.forward, &mut self.client);
            self.client.send(&pass.trailer);
            self.answered();
        }
        if !self.server.has_ended || !self.server.came.is_empty() {
            return self.server_ended_early();
        }
        if self.server.has_failed && !self.exchange.is_idle() {
            return Err(End::ServerGone);
        }
        if self.exchange.is_tunnel() {
            self.client.ends = true;
        } else if !self.exchange.server_ended() {
            return Err(End::ServerGone);
        }
        Ok(())
    }

    /// An answer that is not whole, and nothing more comes.
    fn server_ended_early(&self) -> Result<(), End> {
        let is_stuck = self.server.has_ended && self.client.out.len() < self.settings.buffer_bytes;
        if is_stuck { Err(End::ServerGone) } else { Ok(()) }
    }

    /// Takes note of an answer's head, once.
    fn answered(&mut self) {
        let Some(status) = self.exchange.status() else { return };
        let Some(request) = self.pending.take() else { return };
        if request.tunnel.is_some() && self.exchange.is_tunnel() {
            // It stays until the tunnel ends; the record is of its begin.
            self.record(&request, Outcome::Forwarded, Some(status));
            self.pending = Some(request);
            self.exchange.forget_status();
        } else {
            self.record(&request, Outcome::Forwarded, Some(status));
        }
    }

    async fn connect(&mut self) -> Result<(), End> {
        match timeout(self.settings.connect_timeout, self.host.connect()).await {
            Ok(Ok(stream)) => {
                self.server.stream = Some(stream);
                Ok(())
            }
            Ok(Err(_)) => Err(End::NoServer),
            Err(_) => Err(End::NoServerInTime),
        }
    }

    /// Whether nothing is left to be done but to send what is written.
    fn is_over(&self) -> bool {
        if self.exchange.is_tunnel() {
            return self.client.ends && self.server.ends && self.server.is_flushed();
        }
        let is_left = self.client.has_ended || self.server.has_ended || self.exchange.closes();
        self.exchange.is_idle() && is_left
    }

    fn deadline(&self) -> Instant {
        match self.head_since {
            Some(since) => since + self.settings.head_timeout,
            None => self.moved + self.settings.idle_timeout,
        }
    }

    /// Waits until something came or went.
    async fn wait(&mut self, mut timer: Pin<&mut Sleep>) -> Result<(), End> {
        let buffer = self.settings.buffer_bytes;
        // A head must fit into what may have come.
        let room = buffer.max(self.settings.head.head_bytes);
        let takes_client = self.server.out.len() < buffer && self.client.came.len() < room;
        let takes_server = self.client.out.len() < buffer && self.server.came.len() < room;
        let is_tunnel = self.exchange.is_tunnel();
        loop {
            let (client, server) = (&mut self.client, &mut self.server);
            let moved = poll_fn(|cx| {
                let mut moved = client.poll_send(cx) | server.poll_send(cx);
                moved |= takes_client && client.poll_receive(cx);
                moved |= takes_server && server.poll_receive(cx);
                if moved { Poll::Ready(()) } else { Poll::Pending }
            });
            tokio::select! {
                biased;
                () = moved => {
                    self.moved = Instant::now();
                    return Ok(());
                }
                // Nobody can change the rules any more once the sender is gone.
                Ok(()) = self.signals.changes.changed(), if is_tunnel => self.judge_again()?,
                () = timer.as_mut() => {}
            }
            let deadline = self.deadline();
            if Instant::now() >= deadline {
                return Err(if self.head_since.is_some() { End::HeadTimeout } else { End::IdleTimeout });
            }
            timer.as_mut().reset(deadline);
        }
    }

    /// The rules have changed: whether the tunnel's request would still pass.
    fn judge_again(&mut self) -> Result<(), End> {
        self.signals.changes.mark_unchanged();
        let Some(head) = self.pending.as_ref().and_then(|pending| pending.tunnel.as_deref()) else {
            return Err(End::Revoked);
        };
        let Ok(Parsed::Request(head)) = parse_request(head, self.settings.head) else {
            return Err(End::Revoked);
        };
        match self.host.judge(&as_judged(&head)) {
            (Judgement::Pass(_), _) => Ok(()),
            (Judgement::Deny, note) => {
                let revoked = self.pending(&head, note);
                self.record(&revoked, Outcome::Revoked, None);
                Err(End::Revoked)
            }
        }
    }

    /// Tells the client what can be told, and ends the connection.
    async fn finish(&mut self, end: End) {
        let is_told = !self.exchange.is_answering() && !self.is_silent(end);
        let status = end.status().filter(|_| is_told);
        if let Some(request) = self.pending.take()
            && !self.exchange.is_tunnel()
        {
            self.record(&request, Outcome::Failed, status);
            self.tell(status, Some(&request));
        } else {
            self.tell(status, None);
        }
        // What was cut short must not look like a whole.
        if end != End::Closed && status.is_none() && !self.exchange.is_idle() {
            self.client.abort();
            self.server.abort();
            return;
        }
        self.client.ends = true;
        // A client that takes no more is not waited for.
        drop(timeout(self.settings.head_timeout, linger(&mut self.client)).await);
    }

    /// Whether the client did not ask anything, and so waits for nothing.
    fn is_silent(&self, end: End) -> bool {
        (end == End::HeadTimeout && self.client.came.is_empty())
            || (end == End::IdleTimeout && self.exchange.is_idle())
    }

    fn tell(&mut self, status: Option<u16>, request: Option<&Pending<H::Note>>) {
        let Some(status) = status else { return };
        let flow = request.map(|request| request.flow.as_str());
        let is_head = request.is_some_and(|request| request.method == "HEAD");
        let is_old = request.is_some_and(|request| request.is_old);
        let manner = Manner { is_head, is_old, persists: false };
        Answer { status, flow, denied_by: None }.write(manner, self.client.writer());
    }
}

/// Sends the rest, then reads away what still comes, for a moment.
async fn linger<S: Stream>(side: &mut Side<S>) {
    poll_fn(|cx| {
        while side.poll_send(cx) {}
        if side.is_flushed() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let rest = poll_fn(|cx| {
        while side.poll_receive(cx) {
            let length = side.came.len();
            side.came.advance(length);
        }
        if side.has_ended { Poll::Ready(()) } else { Poll::Pending }
    });
    drop(timeout(LINGER, rest).await);
}

fn as_judged<'h>(head: &'h RequestHead<'h>) -> HttpRequest<'h> {
    HttpRequest {
        method: head.method,
        path: head.target.as_path(),
        authority: head.authority,
        headers: &head.headers,
    }
}
