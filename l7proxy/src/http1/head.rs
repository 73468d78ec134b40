//! The head of a request: its line and its headers.
//!
//! `httparse` finds the tokens; everything that it lets through and that servers read in different ways is refused
//! afterwards: lines that end in a bare LF, folded headers, spaces around the parts of the line, two Hosts.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use memchr::memchr2;

use super::fields::{Fields, is_word, values, words};
use super::forward::asks_for_upgrade;
use super::framing::{BodyLength, FramingError, request_length};
use crate::path::{self, PathError};

/// What a client with prior knowledge of HTTP/2 sends first (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much of a head is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes of the whole head.
    pub head_bytes: usize,
}

impl Limits {
    /// How many headers a message may have.
    pub const HEADERS: usize = 100;

    /// The length of a head of which so many bytes came; none if it is not whole.
    pub(super) const fn length(
        self,
        status: httparse::Status<usize>,
        came: usize,
    ) -> Result<Option<usize>, HeadError> {
        match status {
            httparse::Status::Partial if came >= self.head_bytes => Err(HeadError::TooLarge),
            httparse::Status::Partial => Ok(None),
            httparse::Status::Complete(length) if length > self.head_bytes => Err(HeadError::TooLarge),
            httparse::Status::Complete(length) => Ok(Some(length)),
        }
    }
}

impl Default for Limits {
    /// 64 KiB, as servers and proxies of the field have it.
    fn default() -> Self {
        Self { head_bytes: 64 * 1024 }
    }
}

/// What the bytes that came so far begin with.
#[derive(Debug)]
pub enum Parsed<'b> {
    /// Something whose end is not there yet.
    Partial,
    /// A request.
    Request(RequestHead<'b>),
    /// HTTP/2 with prior knowledge; only as the first thing on a connection.
    Http2,
}

/// The head of a request.
#[derive(Debug)]
pub struct RequestHead<'b> {
    /// As sent; methods are case-sensitive.
    pub method: &'b str,
    /// What it is about, in the form that is judged and forwarded.
    pub target: Target<'b>,
    /// Host and, if it was sent, port; empty where HTTP/1.0 says none.
    pub authority: &'b str,
    /// The digit after `HTTP/1.`, 0 or 1.
    pub minor: u8,
    /// Names and values, in order, as sent.
    pub headers: Vec<(&'b str, &'b [u8])>,
    /// How the body ends.
    pub body: BodyLength,
    /// How many bytes the head has.
    pub length: usize,
}

impl RequestHead<'_> {
    /// Whether the server may answer it with another protocol or a tunnel, in which nothing is judged any more.
    #[must_use]
    pub fn opens_tunnel(&self) -> bool {
        self.method == "CONNECT" || self.is_upgrade()
    }

    /// Whether it asks for another protocol. HTTP/1.0 cannot.
    pub(super) fn is_upgrade(&self) -> bool {
        self.minor == 1 && asks_for_upgrade(&self.headers)
    }
}

/// What a request is about (RFC 9112, section 3.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target<'b> {
    /// A path with its query. A whole URI becomes one as well: its authority is the request's.
    Path(Cow<'b, str>),
    /// The authority of a tunnel, only of CONNECT.
    Tunnel(&'b str),
    /// The server as a whole, only of OPTIONS.
    Server,
}

impl Target<'_> {
    /// The form that rules about paths are matched with. That of a tunnel is empty, as it has none.
    #[must_use]
    pub fn as_path(&self) -> &str {
        match self {
            Self::Path(path) => path,
            Self::Tunnel(_) => "",
            Self::Server => "*",
        }
    }
}

/// Why a request is not read. The connection ends with it: nobody can say where the next one begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HeadError {
    /// No request line, or a header that is none.
    #[error("no HTTP/1 request")]
    Malformed,
    /// CR or LF by itself.
    #[error("a line that does not end in CRLF")]
    BareLineEnd,
    /// A header that goes on in the next line (`obs-fold`).
    #[error("a folded header")]
    Folded,
    /// More or other than one space between method, target and version.
    #[error("spaces in the request line")]
    Spaces,
    /// A version that is not HTTP/1.0 or HTTP/1.1.
    #[error("not HTTP/1.0 or HTTP/1.1")]
    Version,
    /// What stands where HTTP says its version is nothing of HTTP's: whoever sent it does not understand an answer.
    #[error("another protocol than HTTP")]
    OtherProtocol,
    /// More bytes or headers than are read.
    #[error("the head is too large")]
    TooLarge,
    /// HTTP/1.1 without `Host`.
    #[error("no Host")]
    NoHost,
    /// More than one `Host`.
    #[error("more than one Host")]
    SeveralHosts,
    /// `Host` is no host and port, or not that of the target.
    #[error("Host is not the authority")]
    BadHost,
    /// `Connection` names a header without which the message is another one.
    #[error("Connection names a header of the message's frame")]
    BadConnection,
    /// A form of target that does not go with the method, or none.
    #[error("no target for this method")]
    BadTarget,
    /// The path has no form that everybody agrees on.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Nobody can say how long the body is.
    #[error(transparent)]
    Framing(#[from] FramingError),
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::Version => Self::Version,
            httparse::Error::TooManyHeaders => Self::TooLarge,
            httparse::Error::HeaderName
            | httparse::Error::HeaderValue
            | httparse::Error::NewLine
            | httparse::Error::Status
            | httparse::Error::Token => Self::Malformed,
        }
    }
}

impl HeadError {
    /// The status that the client gets (RFC 9110, section 15).
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::TooLarge => 431,
            Self::Version | Self::OtherProtocol => 505,
            Self::Malformed
            | Self::BareLineEnd
            | Self::Folded
            | Self::Spaces
            | Self::NoHost
            | Self::SeveralHosts
            | Self::BadHost
            | Self::BadConnection
            | Self::BadTarget
            | Self::Path(_)
            | Self::Framing(_) => 400,
        }
    }
}

/// What `bytes` begin with, all that came and was not read yet.
///
/// # Errors
/// It is no request that everybody reads alike, and never will be one whatever follows.
pub fn parse_request(bytes: &[u8], limits: Limits) -> Result<Parsed<'_>, HeadError> {
    let known = bytes.get(..HTTP2_PREFACE.len()).unwrap_or(bytes);
    if !known.is_empty() && HTTP2_PREFACE.starts_with(known) {
        return Ok(if known == HTTP2_PREFACE { Parsed::Http2 } else { Parsed::Partial });
    }
    check_request_line(bytes)?;
    check_headers(bytes)?;
    let mut headers = [const { MaybeUninit::uninit() }; Limits::HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let status = request.parse_with_uninit_headers(bytes, &mut headers)?;
    match limits.length(status, bytes.len())? {
        Some(length) => understand(&request, length).map(Parsed::Request),
        None => Ok(Parsed::Partial),
    }
}

/// Between method, target and version is one space each, and the version is one of HTTP.
fn check_request_line(bytes: &[u8]) -> Result<(), HeadError> {
    let mut line = bytes.split(|byte| matches!(byte, b'\r' | b'\n'));
    let (first, is_whole) = (line.next().unwrap_or_default(), line.next().is_some());
    let spaces = first.iter().filter(|byte| **byte == b' ').count();
    let is_bad = first.contains(&b'\t') || spaces > 2 || (is_whole && spaces < 2 && !first.is_empty());
    if is_bad {
        return Err(HeadError::Spaces);
    }
    let version = first.split(|byte| *byte == b' ').nth(2).unwrap_or_default();
    let is_http = version.iter().zip(b"HTTP/").all(|(byte, wanted)| byte.eq_ignore_ascii_case(wanted));
    if is_http { Ok(()) } else { Err(HeadError::OtherProtocol) }
}

/// Every line of the head ends in CRLF, and none begins with a space.
pub(super) fn check_headers(bytes: &[u8]) -> Result<(), HeadError> {
    // An empty line before a message would end the checks, and `httparse` would go on behind it.
    if matches!(bytes.first(), Some(b'\r' | b'\n')) {
        return Err(HeadError::Malformed);
    }
    let mut rest = bytes;
    loop {
        match (rest.first(), rest.get(1)) {
            (Some(b' ' | b'\t'), _) => return Err(HeadError::Folded),
            (Some(b'\r'), Some(b'\n')) => return Ok(()),
            _ => {}
        }
        let Some(end) = memchr2(b'\r', b'\n', rest) else { return Ok(()) };
        rest = match rest.get(end..) {
            Some([b'\r', b'\n', rest @ ..]) => rest,
            Some([b'\r']) | None => return Ok(()),
            Some(_) => return Err(HeadError::BareLineEnd),
        };
    }
}

/// The request that `httparse` found in the first `length` bytes.
fn understand<'b>(request: &httparse::Request<'_, 'b>, length: usize) -> Result<RequestHead<'b>, HeadError> {
    let (Some(method), Some(written), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(HeadError::Malformed);
    };
    let headers: Vec<(&str, &[u8])> = request.headers.iter().map(|own| (own.name, own.value)).collect();
    let host = host(&headers, minor)?;
    check_connection(&headers)?;
    let (target, authority) = target(method, written, host)?;
    let body = request_length(headers.iter().copied(), minor)?;
    Ok(RequestHead { method, target, authority, minor, headers, body, length })
}

/// The next recipient takes out what `Connection` names (RFC 9110, section 7.6.1), and must not take out these.
fn check_connection(headers: &Fields<'_>) -> Result<(), HeadError> {
    const NEVER_NAMED: [&str; 3] = ["content-length", "host", "transfer-encoding"];
    let is_bad = |word: &[u8]| NEVER_NAMED.iter().any(|never| is_word(word, never));
    let is_named = values(headers, "connection").flat_map(words).any(is_bad);
    if is_named { Err(HeadError::BadConnection) } else { Ok(()) }
}

/// The one `Host`; HTTP/1.0 may have none.
fn host<'b>(headers: &Fields<'b>, minor: u8) -> Result<Option<&'b str>, HeadError> {
    let mut hosts = values(headers, "host");
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host,
        (None, _) if minor == 0 => return Ok(None),
        (None, _) => return Err(HeadError::NoHost),
        (Some(_), Some(_)) => return Err(HeadError::SeveralHosts),
    };
    match std::str::from_utf8(host) {
        Ok(host) if is_authority(host) => Ok(Some(host)),
        Ok(_) | Err(_) => Err(HeadError::BadHost),
    }
}

/// Host and port in the characters that they may have (RFC 3986, section 3.2), without user information. Host may be
/// empty.
pub(crate) fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        Some(_) | None => (text, None),
    };
    let is_number = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match inside {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&byte)),
    };
    is_host && port.is_none_or(is_number)
}

/// What the request is about, and whose it is.
fn target<'b>(
    method: &str,
    written: &'b str,
    host: Option<&'b str>,
) -> Result<(Target<'b>, &'b str), HeadError> {
    let own = host.unwrap_or_default();
    if method == "CONNECT" {
        let is_own = is_authority(written) && written.contains(':') && is_same(written, host);
        return if is_own { Ok((Target::Tunnel(written), written)) } else { Err(HeadError::BadTarget) };
    }
    if written == "*" {
        return if method == "OPTIONS" { Ok((Target::Server, own)) } else { Err(HeadError::BadTarget) };
    }
    if written.starts_with('/') {
        return Ok((Target::Path(path::normal(written)?), own));
    }
    let Some((scheme, rest)) = written.split_once("://") else { return Err(HeadError::BadTarget) };
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(HeadError::BadTarget);
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || !is_authority(authority) || !is_same(authority, host) {
        return Err(HeadError::BadHost);
    }
    let path = if path.starts_with('/') { path::normal(path)? } else { absolute(path)? };
    Ok((Target::Path(path), authority))
}

/// The path of a URI without one: `http://host?query` is about the root.
fn absolute(rest: &str) -> Result<Cow<'_, str>, PathError> {
    path::normal(&format!("/{rest}")).map(|form| Cow::Owned(form.into_owned()))
}

/// Whether `Host`, if there is one, says the same authority. The case of hosts does not matter.
pub(crate) fn is_same(authority: &str, host: Option<&str>) -> bool {
    host.is_none_or(|host| host.eq_ignore_ascii_case(authority))
}

#[cfg(test)]
mod tests;
