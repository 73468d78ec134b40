//! Answers that do not come from the server, in the frames of HTTP/2 and in the manner of gRPC.

use bytes::Bytes;
use h2::server::SendResponse;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};

use super::forward::Head;
use crate::answer::Answer;

/// [`crate::answer::FLOW_HEADER`], in the case that HTTP/2 wants.
const FLOW: HeaderName = HeaderName::from_static("x-sluice-flow");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

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
