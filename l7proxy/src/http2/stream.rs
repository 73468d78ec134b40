//! One request that passes, from its head to the end of its answer.

use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response, StatusCode};
use tokio::sync::watch;

use super::body::{self, Broke};
use super::flow::Flow;
use super::forward::Head;
use super::link::Link;
use super::refusal;
use super::wire::Pulse;
use crate::answer::Answer;
use crate::http1::{Broken, HeadError, INTERIM_MAX};
use crate::relay::{End, Host, Judgement, Outcome};

/// A request that passes, and its client's end of the stream.
pub(super) struct Stream<'h, H: Host> {
    pub(super) flow: Flow<'h, H>,
    /// As it goes on.
    pub(super) request: Request<()>,
    pub(super) body: RecvStream,
    pub(super) respond: SendResponse<Bytes>,
    pub(super) link: watch::Receiver<Link>,
    /// Ticks when the rules change; what was seen when the request was judged counts as seen.
    pub(super) changes: watch::Receiver<u64>,
    /// How long nothing may come or go.
    pub(super) idle_timeout: Duration,
}

/// What became of a stream, as far as it says something about its client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ended {
    /// The client took the answer for which it asked, or the server had none.
    InOrder,
    /// The client did not wait for the answer.
    ResetUnanswered,
}

/// Why a stream ends before its time.
enum Stop<N> {
    /// The client reset it, or is gone.
    Client(Reason),
    /// The server reset it.
    Server(Reason),
    /// The server did not look at it, so the client may ask again.
    Refused,
    /// There is no server for it.
    Failed(End),
    /// The rules of this moment deny it.
    Revoked(N),
}

impl<H: Host> Stream<'_, H> {
    /// Carries it to its end.
    pub(super) async fn run(mut self) -> Ended {
        let stop = match self.sender().await {
            Ok(sender) => self.exchange(sender).await.err(),
            Err(stop) => Some(stop),
        };
        match stop {
            Some(stop) => self.stop(stop),
            None => Ended::InOrder,
        }
    }

    /// Waits for the connection to the server.
    async fn sender(&mut self) -> Result<SendRequest<Bytes>, Stop<H::Note>> {
        loop {
            match &*self.link.borrow_and_update() {
                Link::Opening => {}
                Link::Open(sender) => return Ok(sender.clone()),
                // There was one, which this request has not seen.
                Link::Closed(End::ServerGone) => return Err(Stop::Refused),
                Link::Closed(end) => return Err(Stop::Failed(*end)),
            }
            tokio::select! {
                biased;
                reason = poll_fn(|cx| self.respond.poll_reset(cx)) => return Err(client_gone(reason)),
                changed = self.link.changed() => changed.map_err(|_gone| Stop::Failed(End::ServerGone))?,
            }
        }
    }

    /// Sends the request and carries what belongs to it in both directions.
    async fn exchange(&mut self, mut sender: SendRequest<Bytes>) -> Result<(), Stop<H::Note>> {
        let is_whole = self.body.is_end_stream();
        let sent = sender.send_request(std::mem::take(&mut self.request), is_whole);
        // The connection may end when the last stream has.
        drop(sender);
        let (response, mut to_server) = sent.map_err(|error| unsent(&error))?;
        let result = self.carry(response, &mut to_server, is_whole).await;
        if let Err(Stop::Client(reason)) = result {
            to_server.send_reset(reason);
        }
        result
    }

    async fn carry(
        &mut self,
        response: ResponseFuture,
        to_server: &mut SendStream<Bytes>,
        mut is_sent: bool,
    ) -> Result<(), Stop<H::Note>> {
        let Self { flow, body, respond, link, changes, idle_timeout, .. } = self;
        let pulse = Pulse::new();
        let silent = || pulse.stops(*idle_timeout);
        let mut upload = pin!(body::carry(body, to_server, &pulse));

        let answered = answered(response, respond, &pulse);
        let stopped = stopped(flow.host, &flow.head, changes, link.clone(), silent());
        let response = while_sending(answered, upload.as_mut(), &mut is_sent, stopped).await?;

        let (parts, answer) = response.into_parts();
        flow.record(Outcome::Forwarded, Some(parts.status.as_u16()));
        let is_whole = answer.is_end_stream();
        let to_client = respond.send_response(Response::from_parts(parts, ()), is_whole);
        let mut to_client = to_client.map_err(|error| client_gone(Err(error)))?;
        if !is_whole {
            let download = download(answer, &mut to_client, &pulse);
            let stopped = self::stopped(flow.host, &flow.head, changes, link.clone(), silent());
            while_sending(download, upload.as_mut(), &mut is_sent, stopped).await?;
        }

        if is_sent {
            return Ok(());
        }
        // The server may still want to read on, and the client not to wait until it does.
        let rest = async {
            tokio::select! {
                biased;
                sent = upload => after_upload(sent),
                reason = poll_fn(|cx| to_client.poll_reset(cx)) => Err(client_gone(reason)),
            }
        };
        let stopped = self::stopped(flow.host, &flow.head, changes, link.clone(), silent());
        while_sending(rest, pin!(pending()), &mut true, stopped).await
    }

    /// Tells the client and the records what is not told yet.
    fn stop(&mut self, stop: Stop<H::Note>) -> Ended {
        let is_answered = self.flow.is_recorded();
        match stop {
            Stop::Client(_) if is_answered => {}
            Stop::Client(_) => {
                self.flow.record(Outcome::Failed, None);
                return Ended::ResetUnanswered;
            }
            Stop::Server(reason) => self.respond.send_reset(reason),
            Stop::Revoked(note) => {
                self.respond.send_reset(Reason::CANCEL);
                self.flow.record_revoked(&note);
            }
            // What was begun must not look as if it could be asked for again.
            Stop::Refused | Stop::Failed(_) if is_answered => self.respond.send_reset(Reason::INTERNAL_ERROR),
            Stop::Refused => self.respond.send_reset(Reason::REFUSED_STREAM),
            Stop::Failed(end) => self.fail(end),
        }
        self.flow.record(Outcome::Failed, None);
        Ended::InOrder
    }

    /// Answers in the server's stead.
    fn fail(&mut self, end: End) {
        let status = end.status().unwrap_or(502);
        let answer = Answer { status, flow: Some(&self.flow.id), denied_by: None };
        let status = refusal::answer(&answer, Some(&self.flow.head), &mut self.respond);
        self.flow.record(Outcome::Failed, status);
    }
}

/// Goes on with the request's body until the answer is a step further.
async fn while_sending<T, N>(
    step: impl Future<Output = Result<T, Stop<N>>>,
    mut upload: Pin<&mut impl Future<Output = Result<(), Broke>>>,
    is_sent: &mut bool,
    stopped: impl Future<Output = Stop<N>>,
) -> Result<T, Stop<N>> {
    let (mut step, mut stopped) = (pin!(step), pin!(stopped));
    loop {
        tokio::select! {
            biased;
            done = &mut step => return done,
            sent = &mut upload, if !*is_sent => {
                *is_sent = true;
                after_upload(sent)?;
            }
            stop = &mut stopped => return Err(stop),
        }
    }
}

/// A server that wants no more of a request may still answer it: its answer tells what became of the stream.
fn after_upload<N>(sent: Result<(), Broke>) -> Result<(), Stop<N>> {
    match sent {
        Ok(()) | Err(Broke::To(_)) => Ok(()),
        Err(Broke::From(error)) => Err(client_gone(Err(error))),
    }
}

/// Waits for the answer's head, and passes on what comes before it.
async fn answered<N>(
    mut response: ResponseFuture,
    respond: &mut SendResponse<Bytes>,
    pulse: &Pulse,
) -> Result<Response<RecvStream>, Stop<N>> {
    let mut interims = 0;
    while let Some(interim) = interim(&mut response, respond).await? {
        pulse.beat();
        interims += 1;
        pass_on(interim, interims, respond)?;
    }
    tokio::select! {
        biased;
        response = response => response.map_err(|error| server_gone(&error)),
        reason = poll_fn(|cx| respond.poll_reset(cx)) => Err(client_gone(reason)),
    }
}

/// The next interim response; none once the answer has come.
async fn interim<N>(
    response: &mut ResponseFuture,
    respond: &mut SendResponse<Bytes>,
) -> Result<Option<Response<()>>, Stop<N>> {
    tokio::select! {
        biased;
        interim = poll_fn(|cx| response.poll_informational(cx)) => {
            interim.transpose().map_err(|error| server_gone(&error))
        }
        reason = poll_fn(|cx| respond.poll_reset(cx)) => Err(client_gone(reason)),
    }
}

/// Sends an interim response on. No window bounds these, so their number does; and nobody may switch to another
/// protocol in HTTP/2 (RFC 9113, section 8.6).
fn pass_on<N>(interim: Response<()>, nth: u32, respond: &mut SendResponse<Bytes>) -> Result<(), Stop<N>> {
    if interim.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Stop::Failed(End::Answer(HeadError::Malformed.into())));
    }
    if nth > INTERIM_MAX {
        return Err(Stop::Failed(End::Answer(Broken::Interim)));
    }
    respond.send_informational(interim).map_err(|error| client_gone(Err(error)))
}

async fn download<N>(
    mut answer: RecvStream,
    to_client: &mut SendStream<Bytes>,
    pulse: &Pulse,
) -> Result<(), Stop<N>> {
    pulse.beat();
    match body::carry(&mut answer, to_client, pulse).await {
        Ok(()) => Ok(()),
        Err(Broke::From(error)) => Err(server_gone(&error)),
        Err(Broke::To(reason)) => Err(client_gone(Ok(reason))),
    }
}

/// Waits for what ends a stream from outside.
async fn stopped<H: Host>(
    host: &H,
    head: &Head,
    changes: &mut watch::Receiver<u64>,
    mut link: watch::Receiver<Link>,
    silent: impl Future<Output = ()>,
) -> Stop<H::Note> {
    tokio::select! {
        note = revoked(host, head, changes) => Stop::Revoked(note),
        _ = link.wait_for(|link| matches!(link, Link::Closed(End::IdleTimeout))) => {
            Stop::Failed(End::IdleTimeout)
        }
        () = silent => Stop::Failed(End::IdleTimeout),
    }
}

/// Waits until the rules deny a tunnel that they let pass.
async fn revoked<H: Host>(host: &H, head: &Head, changes: &mut watch::Receiver<u64>) -> H::Note {
    // Nobody can change the rules any more once the sender is gone.
    while head.is_tunnel() && changes.changed().await.is_ok() {
        if let (Judgement::Deny, note) = head.judged(|request| host.judge(request)) {
            return note;
        }
    }
    pending().await
}

/// The request was not sent.
fn unsent<N>(error: &h2::Error) -> Stop<N> {
    if error.is_go_away() { Stop::Refused } else { Stop::Failed(End::ServerGone) }
}

fn client_gone<N>(reason: Result<Reason, h2::Error>) -> Stop<N> {
    let reason = reason.map_or_else(|error| error.reason(), Some);
    Stop::Client(reason.filter(|reason| *reason != Reason::NO_ERROR).unwrap_or(Reason::CANCEL))
}

/// What an error of the server's end says. A server that goes away names the streams that it never looked at: only
/// those get its word as their error.
fn server_gone<N>(error: &h2::Error) -> Stop<N> {
    match error.reason() {
        Some(reason) if error.is_reset() && error.is_remote() => Stop::Server(reason),
        Some(_) if error.is_go_away() && error.is_remote() => Stop::Refused,
        Some(_) | None => Stop::Failed(End::ServerGone),
    }
}
