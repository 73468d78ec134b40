//! Answers that do not come from the server, in the frames of HTTP/2 and in the manner of gRPC.

use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use tokio::time::timeout;

use super::flow::Flow;
use super::forward::Head;
use super::stream::Ended;
use crate::answer::Answer;
use crate::relay::{Host, Outcome};

/// [`crate::answer::FLOW_HEADER`], in the case that HTTP/2 wants.
const FLOW: HeaderName = HeaderName::from_static("x-sluice-flow");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// How long the end of a request is waited for before it is refused.
const GRACE: Duration = Duration::from_millis(20);
/// How long it is waited for afterwards.
const LINGER: Duration = Duration::from_secs(1);

/// A request that gets its answer here, and what of it has not come yet.
pub(super) struct Refused<'h, H: Host> {
    pub(super) flow: Flow<'h, H>,
    pub(super) outcome: Outcome,
    pub(super) status: u16,
    pub(super) body: RecvStream,
    pub(super) respond: SendResponse<Bytes>,
}

impl<H: Host> Refused<'_, H> {
    /// Whether all of the request has come.
    pub(super) fn is_whole(&self) -> bool {
        self.body.is_end_stream()
    }

    /// Answers and takes note.
    pub(super) fn answer(&mut self) {
        let Self { flow, outcome, status, respond, .. } = self;
        let is_denied = *outcome == Outcome::Denied;
        let denied_by = flow.host.denied_by(&flow.note).filter(|_| is_denied);
        let told = Answer { status: *status, flow: Some(&flow.id), denied_by };
        let status = answer(&told, Some(&flow.head), respond);
        flow.record(*outcome, status);
    }

    /// Answers as servers do, behind the request if its end comes at once: there are clients that lose an answer that
    /// comes before they have sent all. One that waits for leave to send it is not waited for.
    pub(super) async fn run(mut self) -> Ended {
        if !self.flow.head.waits() {
            read_away(&mut self.body, GRACE).await;
        }
        self.answer();
        read_away(&mut self.body, LINGER).await;
        Ended::InOrder
    }
}

/// Takes what comes. Nothing of the window is given back, so no more than that comes.
async fn read_away(body: &mut RecvStream, patience: Duration) {
    let rest = async { while let Some(Ok(_)) = body.data().await {} };
    drop(timeout(patience, rest).await);
}

/// Answers a request whose head may not have been read. Says with what status. Whether the client still takes the
/// answer is its own matter.
pub(super) fn answer(
    answer: &Answer<'_>,
    head: Option<&Head>,
    respond: &mut SendResponse<Bytes>,
) -> Option<u16> {
    if head.is_some_and(Head::is_grpc) {
        let response = grpc(answer)?;
        let status = response.status().as_u16();
        drop(respond.send_response(response, true));
        return Some(status);
    }
    let (kind, body) = answer.body();
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(answer.status).ok()?;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    if let Some(flow) = answer.flow {
        headers.insert(FLOW, HeaderValue::from_str(flow).ok()?);
    }
    let is_bare = head.is_some_and(|head| head.method == Method::HEAD);
    if let Ok(mut sender) = respond.send_response(response, is_bare)
        && !is_bare
    {
        drop(sender.send_data(body.into(), true));
    }
    Some(answer.status)
}

/// Headers alone, which are the trailers at once.
fn grpc(answer: &Answer<'_>) -> Option<Response<()>> {
    let (code, message) = match answer.status {
        403 => (7, "Access denied"),
        502..=504 => (14, answer.reason()),
        _ => (13, answer.reason()),
    };
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(code));
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(message));
    if let Some(flow) = answer.flow {
        headers.insert(FLOW, HeaderValue::from_str(flow).ok()?);
    }
    Some(response)
}
