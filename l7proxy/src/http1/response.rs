//! The head of a response, and how its body ends (RFC 9112, section 6.3).
//!
//! A response is read to know where the next one begins: a server that could make the proxy and the client disagree
//! about that would answer requests that it never saw.

use std::mem::MaybeUninit;

use httparse::ParserConfig;

use super::fields::{is_word, values, words};
use super::framing::{BodyLength, FramingError, message_length};
use super::head::{HeadError, Limits, check_headers};

/// The head of a response.
#[derive(Debug)]
pub struct ResponseHead<'b> {
    /// The status, 100 to 599.
    pub status: u16,
    /// The digit after `HTTP/1.`, 0 or 1.
    pub minor: u8,
    /// Names and values, in order, as sent.
    pub headers: Vec<(&'b str, &'b [u8])>,
    /// What follows the head.
    pub follows: Follows,
    /// How many bytes the head has.
    pub length: usize,
}

/// What follows the head of a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Follows {
    /// Another response to the same request: this one is interim (1xx).
    Response,
    /// A body.
    Body(BodyLength),
    /// A body that ends with the connection.
    UntilClose,
    /// No HTTP any more: both sides agreed on another protocol, or on a tunnel.
    Tunnel,
}

/// The request that is answered, as far as the end of the answer depends on it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Asked {
    /// The method was HEAD: whatever the headers say, no body follows.
    pub is_head: bool,
    /// The method was CONNECT: success opens a tunnel.
    pub is_connect: bool,
    /// An upgrade was asked for; without, nobody may answer 101.
    pub is_upgrade: bool,
    /// The request was one of HTTP/1.0, which knows no chunks.
    pub is_old: bool,
}

/// Reads the head of a response to `asked`; `None` if it is not whole yet.
///
/// # Errors
/// It is no response that everybody reads alike: the client gets 502, and the connection to the server ends.
pub fn parse_response<'b>(
    bytes: &'b [u8],
    asked: Asked,
    limits: Limits,
) -> Result<Option<ResponseHead<'b>>, HeadError> {
    check_headers(bytes)?;
    let mut headers = [const { MaybeUninit::uninit() }; Limits::HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let status =
        ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, &mut headers)?;
    let Some(length) = limits.length(status, bytes.len())? else { return Ok(None) };
    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Err(HeadError::Malformed);
    };
    if !(100..600).contains(&status) {
        return Err(HeadError::Malformed);
    }
    let headers: Vec<(&str, &[u8])> = response.headers.iter().map(|own| (own.name, own.value)).collect();
    let follows = follows(status, minor, &headers, asked)?;
    Ok(Some(ResponseHead { status, minor, headers, follows, length }))
}

/// Writes the head of a response, which begins `bytes`, so that the client takes it for the last on its connection.
///
/// What the server said about that goes: clients look for one field, or for the first.
pub(super) fn write_last(head: &ResponseHead<'_>, bytes: &[u8], out: &mut Vec<u8>) {
    let line = bytes.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    out.extend_from_slice(line);
    out.extend_from_slice(b"Connection: close");
    let others = values(&head.headers, "connection").flat_map(words);
    for word in others.filter(|word| !is_word(word, "close") && !is_word(word, "keep-alive")) {
        out.extend_from_slice(b", ");
        out.extend_from_slice(word);
    }
    out.extend_from_slice(b"\r\n");
    let is_replaced =
        |name: &str| ["connection", "keep-alive"].iter().any(|own| name.eq_ignore_ascii_case(own));
    for (name, value) in head.headers.iter().filter(|(name, _)| !is_replaced(name)) {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn follows(status: u16, minor: u8, headers: &[(&str, &[u8])], asked: Asked) -> Result<Follows, HeadError> {
    let length = message_length(headers.iter().copied(), minor)?;
    match status {
        101 if asked.is_upgrade => Ok(Follows::Tunnel),
        // Nobody asked for another protocol, or HTTP/1.0 would have been asked to wait.
        101 => Err(HeadError::Malformed),
        100..=199 if length.is_some() => Err(FramingError::Unexpected.into()),
        100..=199 => Ok(Follows::Response),
        200..=299 if asked.is_connect => Ok(Follows::Tunnel),
        204 | 304 => Ok(Follows::Body(BodyLength::Exactly(0))),
        _ if asked.is_head => Ok(Follows::Body(BodyLength::Exactly(0))),
        _ => Ok(length.map_or(Follows::UntilClose, Follows::Body)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GET: Asked = Asked { is_head: false, is_connect: false, is_upgrade: false, is_old: false };
    const HEAD: Asked = Asked { is_head: true, ..GET };
    const CONNECT: Asked = Asked { is_connect: true, ..GET };
    const UPGRADE: Asked = Asked { is_upgrade: true, ..GET };

    fn read(text: &str, asked: Asked) -> Result<Option<Follows>, HeadError> {
        let head = parse_response(text.as_bytes(), asked, Limits::default())?;
        Ok(head.map(|head| head.follows))
    }

    #[test]
    fn what_follows() {
        let exactly = |length| Follows::Body(BodyLength::Exactly(length));
        let cases = [
            ("200 OK\r\nContent-Length: 5\r\n", GET, exactly(5)),
            ("200 OK\r\nTransfer-Encoding: chunked\r\n", GET, Follows::Body(BodyLength::Chunked)),
            ("200 OK\r\n", GET, Follows::UntilClose),
            ("404\r\n", GET, Follows::UntilClose),
            ("200 OK\r\nContent-Length: 5\r\n", HEAD, exactly(0)),
            ("200 OK\r\nTransfer-Encoding: chunked\r\n", HEAD, exactly(0)),
            ("204 No Content\r\n", GET, exactly(0)),
            ("304 Not Modified\r\nContent-Length: 5\r\n", GET, exactly(0)),
            ("100 Continue\r\n", GET, Follows::Response),
            ("103 Early Hints\r\nLink: x\r\n", HEAD, Follows::Response),
            ("101 Switching Protocols\r\n", UPGRADE, Follows::Tunnel),
            ("200 OK\r\n", UPGRADE, Follows::UntilClose),
            ("200 OK\r\nContent-Length: 5\r\n", CONNECT, Follows::Tunnel),
            ("407 No\r\nContent-Length: 5\r\n", CONNECT, exactly(5)),
        ];
        for (text, asked, wanted) in cases {
            assert_eq!(read(&format!("HTTP/1.1 {text}\r\n"), asked), Ok(Some(wanted)), "{text:?} {asked:?}");
        }
    }

    #[test]
    fn what_is_read_in_two_ways_is_refused() {
        use FramingError::{BadLength, Both, OtherEncoding, SeveralLengths, TooOld, Unexpected};
        let framing = HeadError::Framing;
        let cases = [
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", HeadError::Malformed),
            ("HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n", framing(Unexpected)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", framing(Both)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", framing(SeveralLengths)),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", framing(BadLength)),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", framing(OtherEncoding)),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", framing(TooOld)),
            ("HTTP/1.1 200 OK\nA: b\n\n", HeadError::BareLineEnd),
            ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", HeadError::Folded),
            ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", HeadError::Malformed),
            ("HTTP/1.1 099 OK\r\n\r\n", HeadError::Malformed),
            ("HTTP/1.1 999 OK\r\n\r\n", HeadError::Malformed),
            ("HTTP/2.0 200 OK\r\n\r\n", HeadError::Version),
            ("\r\nHTTP/1.1 200 OK\r\n\r\n", HeadError::Malformed),
            ("220 mail ESMTP\r\n", HeadError::Version),
        ];
        for (text, wanted) in cases {
            assert_eq!(read(text, GET), Err(wanted), "{text:?}");
        }
    }

    #[test]
    fn the_last_response_says_so_once() {
        let cases = [
            ("Content-Length: 0\r\n", "Connection: close\r\nContent-Length: 0\r\n"),
            (
                "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nX-a:  b \r\n",
                "Connection: close\r\nX-a: b\r\n",
            ),
            ("A: b\r\nconnection: Close\r\n", "Connection: close\r\nA: b\r\n"),
            ("Connection: X-a, Keep-Alive\r\nX-a: b\r\n", "Connection: close, X-a\r\nX-a: b\r\n"),
            ("A: 1\r\nA: 2\r\n", "Connection: close\r\nA: 1\r\nA: 2\r\n"),
        ];
        for (fields, wanted) in cases {
            let text = format!("HTTP/1.1 200 Very OK\r\n{fields}\r\nbody");
            let head = parse_response(text.as_bytes(), HEAD, Limits::default()).unwrap().unwrap();
            let mut written = Vec::new();
            write_last(&head, text.as_bytes(), &mut written);
            assert_eq!(String::from_utf8(written).unwrap(), format!("HTTP/1.1 200 Very OK\r\n{wanted}\r\n"));
        }
    }

    #[test]
    fn a_response_may_come_in_any_pieces() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: y\r\n\r\nabc";
        let whole = text.len() - 3;
        for end in 0..whole {
            assert_eq!(read(text.split_at(end).0, GET), Ok(None), "{end}");
        }
        assert!(read(text.split_at(whole).0, GET).unwrap().is_some());
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), is_head: bool) {
            let _head = parse_response(&bytes, Asked { is_head, ..GET }, Limits::default());
        }
    }
}
