//! What the targets share.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use sluice_l7proxy::answer::DeniedBy;
use sluice_l7proxy::http1::{Exchange, FromClient, RequestHead, write_request};
use sluice_l7proxy::relay::{Host, Judgement, Record, Stream};
use sluice_policy::l7::HttpRequest;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

/// What a policy point saw of a client's bytes.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Seen {
    /// The requests that passed: method, target, authority.
    pub passed: Vec<[String; 3]>,
    /// What went to the server.
    pub forwarded: Vec<u8>,
    /// Whether the client was understood to the end.
    pub is_whole: bool,
}

impl Seen {
    /// Whether both saw the same. Of a message that is broken somewhere more or less may have gone on before that was
    /// seen.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_begin =
            self.forwarded.starts_with(&other.forwarded) || other.forwarded.starts_with(&self.forwarded);
        self.passed == other.passed
            && self.is_whole == other.is_whole
            && if self.is_whole { self.forwarded == other.forwarded } else { is_begin }
    }
}

fn names(head: &RequestHead<'_>) -> [String; 3] {
    [head.method, head.target.as_path(), head.authority].map(str::to_owned)
}

/// Reads a client's bytes, `step` more each time, while a server answers each request at once. What `denies` is not
/// forwarded.
pub fn see(bytes: &[u8], step: usize, denies: impl Fn(&str) -> bool) -> Seen {
    let (mut exchange, mut seen) = (Exchange::default(), Seen::default());
    let (mut consumed, mut came) = (0, 0);
    while came < bytes.len() {
        came = (came + step).min(bytes.len());
        loop {
            let now = &bytes[consumed..came];
            match exchange.from_client(now) {
                Err(_) | Ok(FromClient::Http2) => return seen,
                Ok(FromClient::More) => break,
                // The request is whole: its answer comes, and its turn is over.
                Ok(FromClient::Wait) if exchange.is_idle() => return seen,
                Ok(FromClient::Wait) => {
                    let answer = exchange.from_server(b"HTTP/1.1 204 No Content\r\n\r\n");
                    if answer.is_err() || exchange.is_tunnel() {
                        return seen;
                    }
                }
                Ok(FromClient::Request(head)) => {
                    if denies(head.target.as_path()) {
                        exchange.deny(&head);
                    } else {
                        let mut text = Vec::new();
                        if write_request(&head, &[], &mut text).is_ok() {
                            seen.passed.push(names(&head));
                            seen.forwarded.extend(text);
                        }
                        exchange.allow(&head);
                    }
                    consumed += head.length;
                }
                Ok(FromClient::Pass(pass)) => {
                    assert!(pass.forward <= pass.consumed && pass.consumed <= now.len());
                    seen.forwarded.extend(&now[..pass.forward]);
                    seen.forwarded.extend(&pass.trailer);
                    consumed += pass.consumed;
                    if pass.consumed == 0 && pass.trailer.is_empty() {
                        break;
                    }
                }
            }
        }
    }
    seen.is_whole = exchange.is_idle() && consumed == bytes.len();
    seen
}

/// One end of a connection in memory.
pub struct Pipe(pub DuplexStream);

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Stream for Pipe {
    fn abort(&mut self) {}
}

/// Lets everything pass but what begins with `/no`, to a server that sends `answer` whatever it is asked.
pub struct Open<'b> {
    /// What the server sends.
    pub answer: &'b [u8],
}

impl Host for Open<'_> {
    type Server = Pipe;
    type Note = ();

    async fn connect(&self) -> io::Result<Pipe> {
        let (own, mut other) = tokio::io::duplex(1 << 20);
        let answer = self.answer.to_vec();
        tokio::spawn(async move {
            if other.write_all(&answer).await.is_ok() {
                // Takes what it is sent until there is no more.
                tokio::io::copy(&mut other, &mut tokio::io::sink()).await.ok();
            }
        });
        Ok(Pipe(own))
    }

    fn judge(&self, request: &HttpRequest<'_>) -> (Judgement, ()) {
        assert!(
            request.path.is_empty()
                || request.path == "*"
                || request.path.starts_with('/')
                || request.method == "CONNECT"
        );
        let is_denied = request.path.starts_with("/no");
        (if is_denied { Judgement::Deny } else { Judgement::Pass(Vec::new()) }, ())
    }

    fn denied_by<'n>(&self, (): &'n ()) -> Option<DeniedBy<'n>> {
        None
    }

    fn record(&self, _: Record<'_, ()>) {}
}
