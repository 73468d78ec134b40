//! Whose turn it is on one client's connection and the one to its server: which bytes belong to a request, which to an
//! answer, and what may come next.
//!
//! One request is with the server at a time. What a client sends ahead waits, so answers keep their order, a refusal
//! among others too, and each request is judged alone, by the policy of when its turn comes. Whoever drives it keeps the
//! bytes: it shows all that came and was not consumed yet, and is told what to do with how many of them.

mod tried;

use super::chunked::{ChunkError, Chunked};
use super::fields::{Fields, is_word, values, words};
use super::framing::BodyLength;
use super::head::{HeadError, Limits, Parsed, RequestHead, parse_request};
use super::response::{Asked, Follows, ResponseHead, parse_response, write_last};
use tried::Tried;

/// A message that ends the connection, because nobody can say where it ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Broken {
    /// Its head.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// Its body.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// More interim responses than a request has use for.
    #[error("too many interim responses")]
    Interim,
    /// The server sends what nobody asked for.
    #[error("an answer without a request")]
    Unasked,
    /// An answer in chunks to a client of HTTP/1.0, which would take the chunks' sizes for the body.
    #[error("an answer in chunks for HTTP/1.0")]
    TooNew,
}

impl Broken {
    /// The status that the client gets if the message was its own (RFC 9110, section 15). What the server does wrong is
    /// 502 in any case.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Head(error) => error.status(),
            Self::Chunk(_) => 400,
            Self::Interim | Self::Unasked | Self::TooNew => 502,
        }
    }
}

/// What to do with what came from the client.
#[derive(Debug)]
pub enum FromClient<'b> {
    /// It is not enough yet.
    More,
    /// It waits until the answer to the request before it has gone.
    Wait,
    /// A request: judge it, then say [`Exchange::allow`] or [`Exchange::deny`]. Its head is consumed then.
    Request(RequestHead<'b>),
    /// Another protocol with frames of its own; only on a fresh connection.
    Http2,
    /// Bytes to pass on.
    Pass(Pass),
}

/// Bytes to be passed on to the other side as they came.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pass {
    /// So many bytes are done with.
    pub consumed: usize,
    /// So many of those go on.
    pub forward: usize,
    /// Goes on behind them: the trailer of a body that has ended, or a head that is not passed on as it came.
    pub trailer: Vec<u8>,
}

impl Pass {
    /// All of so many bytes.
    const fn all(length: usize) -> Self {
        Self { consumed: length, forward: length, trailer: Vec::new() }
    }
}

/// The order of messages.
#[derive(Debug, Default)]
pub struct Exchange {
    limits: Limits,
    tried: Tried,
    tried_answer: Tried,
    request: Request,
    answer: Answer,
    asked: Asked,
    interim: u32,
    status: Option<u16>,
    is_used: bool,
    closes: bool,
    leaves: bool,
}

/// How many interim responses (1xx) one request may get.
pub(crate) const INTERIM_MAX: u32 = 16;
/// How much of a denied request's body is read. A longer one ends the connection.
const UNWANTED_MAX: usize = 64 * 1024;

/// How much longer an answer's head gets by being the last.
const LAST_BYTES: usize = 32;

/// What the client sends.
#[derive(Debug, Default)]
enum Request {
    #[default]
    Head,
    Body(Body),
    /// The body of a request that was denied: read to find the next request, as long as it is short.
    Unwanted(Body, usize),
    Sent,
}

/// What the server sends.
#[derive(Debug, Default)]
enum Answer {
    #[default]
    None,
    Head,
    Body(Body),
    UntilClose,
    Tunnel,
}

#[derive(Debug)]
enum Body {
    Exactly(u64),
    Chunked(Chunked),
}

impl From<BodyLength> for Body {
    fn from(length: BodyLength) -> Self {
        match length {
            BodyLength::Exactly(length) => Self::Exactly(length),
            BodyLength::Chunked => Self::Chunked(Chunked::default()),
        }
    }
}

impl Body {
    fn pass(&mut self, bytes: &[u8]) -> Result<Pass, ChunkError> {
        match self {
            Self::Exactly(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left = left.saturating_sub(taken as u64);
                Ok(Pass::all(taken))
            }
            Self::Chunked(body) => {
                let progress = body.advance(bytes)?;
                let trailer = body.trailer().to_vec();
                Ok(Pass { consumed: progress.consumed, forward: progress.forward, trailer })
            }
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Self::Exactly(left) => *left == 0,
            Self::Chunked(body) => body.is_done(),
        }
    }
}

impl Exchange {
    /// One that reads heads up to these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// What to do with `bytes`, all that came from the client and was not consumed.
    ///
    /// # Errors
    /// The client gets the error's status, and then the connection ends.
    pub fn from_client<'b>(&mut self, bytes: &'b [u8]) -> Result<FromClient<'b>, Broken> {
        if matches!(self.answer, Answer::Tunnel) {
            return Ok(FromClient::Pass(Pass::all(bytes.len())));
        }
        match &mut self.request {
            Request::Sent => Ok(FromClient::Wait),
            Request::Head if self.closes => Ok(FromClient::Wait),
            Request::Head if !self.tried.is_time(bytes, self.limits.head_bytes) => Ok(FromClient::More),
            Request::Head => match parse_request(bytes, self.limits)? {
                Parsed::Partial => {
                    self.tried.note(bytes);
                    Ok(FromClient::More)
                }
                Parsed::Request(head) => Ok(FromClient::Request(head)),
                Parsed::Http2 if self.is_used => Err(HeadError::Version.into()),
                Parsed::Http2 => Ok(FromClient::Http2),
            },
            Request::Unwanted(..) => self.drop_unwanted(bytes),
            Request::Body(body) => {
                let pass = body.pass(bytes)?;
                if body.is_done() {
                    self.request = Request::Sent;
                } else if pass.consumed == 0 {
                    return Ok(FromClient::More);
                }
                Ok(FromClient::Pass(pass))
            }
        }
    }

    fn drop_unwanted<'b>(&mut self, bytes: &[u8]) -> Result<FromClient<'b>, Broken> {
        let Request::Unwanted(body, left) = &mut self.request else { return Ok(FromClient::More) };
        let consumed = body.pass(bytes)?.consumed;
        *left = left.saturating_sub(consumed);
        if body.is_done() || *left == 0 {
            self.closes |= !body.is_done();
            self.request = Request::Head;
        } else if consumed == 0 {
            return Ok(FromClient::More);
        }
        Ok(FromClient::Pass(Pass { consumed, ..Pass::default() }))
    }

    /// The request goes to the server.
    pub fn allow(&mut self, head: &RequestHead<'_>) {
        self.start(head);
        self.asked = Asked {
            is_head: head.method == "HEAD",
            is_connect: head.method == "CONNECT",
            is_upgrade: head.is_upgrade(),
            is_old: head.minor == 0,
        };
        let body = Body::from(head.body);
        self.request = if body.is_done() { Request::Sent } else { Request::Body(body) };
        self.answer = Answer::Head;
    }

    /// The request does not go to the server, and is answered here. Says whether the connection goes on.
    ///
    /// A body that nobody wants is read to find the next request, unless it is long, or the client asked whether to send
    /// it: nobody can say whether it will.
    pub fn deny(&mut self, head: &RequestHead<'_>) -> bool {
        self.start(head);
        self.closes |= self.leaves;
        let body = Body::from(head.body);
        let is_long = matches!(head.body, BodyLength::Exactly(length) if length > UNWANTED_MAX as u64);
        if !body.is_done() {
            self.closes |= is_long || values(&head.headers, "expect").next().is_some();
            self.request = if self.closes { Request::Head } else { Request::Unwanted(body, UNWANTED_MAX) };
        }
        !self.closes
    }

    /// The connection is to end, but not before its client knows: the next answer that begins tells it, and is the last.
    pub const fn leave(&mut self) {
        self.leaves = true;
    }

    fn start(&mut self, head: &RequestHead<'_>) {
        self.is_used = true;
        self.tried.forget();
        self.interim = 0;
        self.status = None;
        self.closes = !persists(head.minor, &head.headers);
    }

    /// What to do with `bytes`, all that came from the server and was not consumed; `None` if it is not enough.
    ///
    /// # Errors
    /// The connection to the server ends. If nothing of the answer has gone to the client yet, it gets 502.
    pub fn from_server(&mut self, bytes: &[u8]) -> Result<Option<Pass>, Broken> {
        if bytes.is_empty() {
            return Ok(None);
        }
        match &mut self.answer {
            Answer::None => Err(Broken::Unasked),
            Answer::Tunnel | Answer::UntilClose => Ok(Some(Pass::all(bytes.len()))),
            Answer::Head => self.answer_head(bytes),
            Answer::Body(body) => {
                let pass = body.pass(bytes)?;
                if body.is_done() {
                    self.answered();
                }
                Ok(Some(pass).filter(|pass| pass.consumed > 0))
            }
        }
    }

    fn answer_head(&mut self, bytes: &[u8]) -> Result<Option<Pass>, Broken> {
        if !self.tried_answer.is_time(bytes, self.limits.head_bytes) {
            return Ok(None);
        }
        let Some(head) = parse_response(bytes, self.asked, self.limits)? else {
            self.tried_answer.note(bytes);
            return Ok(None);
        };
        self.tried_answer.forget();
        self.status = Some(head.status).filter(|_| head.follows != Follows::Response);
        match head.follows {
            Follows::Response => {
                self.interim += 1;
                if self.interim > INTERIM_MAX {
                    return Err(Broken::Interim);
                }
            }
            Follows::Tunnel => self.answer = Answer::Tunnel,
            Follows::UntilClose => {
                self.closes = true;
                self.answer = Answer::UntilClose;
            }
            Follows::Body(BodyLength::Chunked) if self.asked.is_old => return Err(Broken::TooNew),
            Follows::Body(length) => {
                self.closes |= self.leaves || !persists(head.minor, &head.headers);
                self.answer = Answer::Body(Body::from(length));
                if matches!(length, BodyLength::Exactly(0)) {
                    self.answered();
                }
                if self.leaves {
                    return Ok(Some(last(&head, bytes)));
                }
            }
        }
        Ok(Some(Pass::all(head.length)))
    }

    /// The answer has ended. Where it came before the request had, the rest of that is nobody's.
    fn answered(&mut self) {
        self.closes |= !matches!(self.request, Request::Sent);
        self.request = Request::Head;
        self.answer = Answer::None;
    }

    /// The server sends nothing more. Says whether that is where its answer ends.
    pub fn server_ended(&mut self) -> bool {
        let is_end = matches!(self.answer, Answer::None | Answer::UntilClose | Answer::Tunnel);
        if matches!(self.answer, Answer::UntilClose) {
            self.answered();
        }
        is_end
    }

    /// The status of the last request's answer, once its head has come. Interim ones do not count.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        self.status
    }

    /// The status has been taken note of.
    pub(crate) const fn forget_status(&mut self) {
        self.status = None;
    }

    /// Whether both sides now speak another protocol, or the client speaks to the server through a tunnel.
    #[must_use]
    pub const fn is_tunnel(&self) -> bool {
        matches!(self.answer, Answer::Tunnel)
    }

    /// Whether the server has begun to answer: nobody else can then.
    #[must_use]
    pub const fn is_answering(&self) -> bool {
        matches!(self.answer, Answer::Body(_) | Answer::UntilClose | Answer::Tunnel)
    }

    /// Whether a part of a request is outstanding that the server waits for.
    #[must_use]
    pub const fn is_sending(&self) -> bool {
        matches!(self.request, Request::Body(_))
    }

    /// Whether no answer is outstanding.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        matches!((&self.request, &self.answer), (Request::Head, Answer::None))
    }

    /// Whether the connection ends when it is idle: somebody said so, or nobody can say where the next request begins.
    #[must_use]
    pub const fn closes(&self) -> bool {
        self.closes
    }
}

/// The head of an answer, which says that it is the last.
fn last(head: &ResponseHead<'_>, bytes: &[u8]) -> Pass {
    let mut written = Vec::with_capacity(head.length + LAST_BYTES);
    write_last(head, bytes, &mut written);
    Pass { consumed: head.length, forward: 0, trailer: written }
}

/// Whether the sender of a message keeps the connection (RFC 9112, section 9.3).
fn persists(minor: u8, headers: &Fields<'_>) -> bool {
    let says = |known: &str| values(headers, "connection").flat_map(words).any(|word| is_word(word, known));
    !says("close") && (minor == 1 || says("keep-alive"))
}

#[cfg(test)]
mod tests;
