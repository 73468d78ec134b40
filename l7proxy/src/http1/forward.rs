//! The head of a request as it goes on to the server: what was judged, and nothing else.

use bytes::BufMut;
use sluice_policy::l7::{HeaderAction, HeaderEffect};

use super::fields::{Fields, is_word, values, words};
use super::head::{RequestHead, Target};

/// Protocols that a server must not be asked for, by how their names begin: requests in them would pass unjudged.
const NEVER_ASKED_FOR: [&str; 3] = ["h2", "http/", "tls/"];
/// What comes with HTTP/2 (RFC 7540, section 3.2.1), and which `Connection` names as well.
const HTTP2_SETTINGS: &str = "http2-settings";
/// Headers that no rule changes: they say how the message is framed and whose it is.
const NEVER_CHANGED: [&str; 8] =
    ["connection", "content-length", "host", HTTP2_SETTINGS, "te", "trailer", "transfer-encoding", "upgrade"];

/// An effect that would make another message of the one that was judged. The request must not be forwarded.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EffectError {
    /// Its header is one that says how the message is framed, or no header.
    #[error("the header {0:?} cannot be changed")]
    Name(String),
    /// Its value, perhaps a secret's, has a character that would end the header.
    #[error("the value of the header {0} is none")]
    Value(String),
}

/// Writes the head down for the server, behind what is in `out`.
///
/// The target is in its one form, `Host` is the authority, effects are carried out, and no other HTTP is asked for.
/// Everything else goes on as it came.
///
/// # Errors
/// An effect cannot be carried out; nothing was written.
pub fn write_request(
    head: &RequestHead<'_>,
    effects: &[HeaderEffect],
    out: &mut impl BufMut,
) -> Result<(), EffectError> {
    effects.iter().try_for_each(check_effect)?;
    let target = match &head.target {
        Target::Path(path) => path,
        Target::Tunnel(authority) => *authority,
        Target::Server => "*",
    };
    for part in [head.method, " ", target, " HTTP/1.", if head.minor == 0 { "0" } else { "1" }, "\r\n"] {
        out.put_slice(part.as_bytes());
    }
    // HTTP/1.0 may name its host in the target alone, which goes on without.
    if !head.authority.is_empty() && values(&head.headers, "host").next().is_none() {
        write_header("Host", head.authority.as_bytes(), out);
    }
    let is_upgrade_left = asks_for_upgrade(&head.headers);
    for (name, value) in &head.headers {
        if is_taken_out(name, effects) || is(name, HTTP2_SETTINGS) {
            continue;
        }
        if is(name, "host") {
            write_header(name, head.authority.as_bytes(), out);
        } else if is(name, "upgrade") {
            write_list(name, value, is_never_asked_for, out);
        } else if is(name, "connection") {
            let is_gone =
                |word: &[u8]| is_word(word, HTTP2_SETTINGS) || (!is_upgrade_left && is_word(word, "upgrade"));
            write_list(name, value, is_gone, out);
        } else {
            write_header(name, value, out);
        }
    }
    for effect in effects.iter().filter(|own| matches!(own.action, HeaderAction::Add | HeaderAction::Replace))
    {
        write_header(&effect.name, &effect.value, out);
    }
    out.put_slice(b"\r\n");
    Ok(())
}

/// Whether the effect leaves the message the one that was judged.
///
/// # Errors
/// It does not.
pub(crate) fn check_effect(effect: &HeaderEffect) -> Result<(), EffectError> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_name = !effect.name.is_empty() && effect.name.bytes().all(is_token);
    if !is_name || NEVER_CHANGED.iter().any(|never| is(&effect.name, never)) {
        return Err(EffectError::Name(effect.name.clone()));
    }
    let is_text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    if !effect.value.iter().all(is_text) {
        return Err(EffectError::Value(effect.name.clone()));
    }
    Ok(())
}

/// Whether the server is asked for another protocol, after those were taken out that it must not be asked for.
pub(super) fn asks_for_upgrade(headers: &Fields<'_>) -> bool {
    values(headers, "upgrade").flat_map(words).any(|word| !is_never_asked_for(word))
}

/// Whether a server must not be asked for this protocol.
pub(crate) fn is_never_asked_for(word: &[u8]) -> bool {
    NEVER_ASKED_FOR
        .iter()
        .any(|start| word.get(..start.len()).is_some_and(|own| own.eq_ignore_ascii_case(start.as_bytes())))
}

fn is(name: &str, known: &str) -> bool {
    name.eq_ignore_ascii_case(known)
}

fn is_taken_out(name: &str, effects: &[HeaderEffect]) -> bool {
    let takes_out = |own: &&HeaderEffect| matches!(own.action, HeaderAction::Delete | HeaderAction::Replace);
    effects.iter().filter(takes_out).any(|own| is(&own.name, name))
}

fn write_header(name: &str, value: &[u8], out: &mut impl BufMut) {
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// A list without some of its words; no header if nothing is left.
fn write_list(name: &str, value: &[u8], is_gone: impl Fn(&[u8]) -> bool, out: &mut impl BufMut) {
    let left: Vec<&[u8]> = words(value).filter(|word| !is_gone(word)).collect();
    if !left.is_empty() {
        write_header(name, &left.join(b", ".as_slice()), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{Limits, Parsed, parse_request};

    fn forwarded(text: &str, effects: &[HeaderEffect]) -> String {
        let Ok(Parsed::Request(head)) = parse_request(text.as_bytes(), Limits::default()) else {
            panic!("{text:?}")
        };
        let mut out = Vec::new();
        write_request(&head, effects, &mut out).unwrap();
        let written = String::from_utf8(out).unwrap();
        assert!(
            matches!(parse_request(written.as_bytes(), Limits::default()), Ok(Parsed::Request(_))),
            "{written:?}"
        );
        written
    }

    #[test]
    fn the_form_that_was_judged_goes_on() {
        let cases = [
            (
                "GET /a HTTP/1.1\r\nHost: web\r\nX:  y \r\n\r\n",
                "GET /a HTTP/1.1\r\nHost: web\r\nX: y\r\n\r\n",
            ),
            ("GET /a/%2e%2e//b?c HTTP/1.0\r\nX: y\r\n\r\n", "GET /b?c HTTP/1.0\r\nX: y\r\n\r\n"),
            ("GET http://web/a HTTP/1.1\r\nhost: WEB\r\n\r\n", "GET /a HTTP/1.1\r\nhost: web\r\n\r\n"),
            ("GET http://web/a HTTP/1.0\r\n\r\n", "GET /a HTTP/1.0\r\nHost: web\r\n\r\n"),
            ("OPTIONS * HTTP/1.1\r\nHost: web\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: web\r\n\r\n"),
            (
                "CONNECT web:1 HTTP/1.1\r\nHost: web:1\r\n\r\n",
                "CONNECT web:1 HTTP/1.1\r\nHost: web:1\r\n\r\n",
            ),
        ];
        for (text, wanted) in cases {
            assert_eq!(forwarded(text, &[]), wanted);
        }
    }

    #[test]
    fn nobody_asks_the_server_for_unjudged_http2() {
        let request =
            |headers: &str| forwarded(&format!("GET / HTTP/1.1\r\nHost: web\r\n{headers}\r\n"), &[]);
        let wanted = |headers: &str| format!("GET / HTTP/1.1\r\nHost: web\r\n{headers}\r\n");
        let cases = [
            ("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMA\r\n", ""),
            ("Connection: keep-alive, Upgrade\r\nupgrade: H2C\r\n", "Connection: keep-alive\r\n"),
            (
                "Upgrade: websocket, h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: A\r\n",
                "Upgrade: websocket\r\nConnection: Upgrade\r\n",
            ),
            (
                "Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: upgrade\r\n",
                "Upgrade: websocket\r\nConnection: upgrade\r\n",
            ),
            (
                "Upgrade: websocket\r\nConnection: Upgrade\r\n",
                "Upgrade: websocket\r\nConnection: Upgrade\r\n",
            ),
        ];
        for (headers, left) in cases {
            assert_eq!(request(headers), wanted(left), "{headers:?}");
        }
    }

    fn effect(action: HeaderAction, name: &str, value: &str) -> HeaderEffect {
        HeaderEffect { action, name: name.to_owned(), value: value.as_bytes().to_vec() }
    }

    #[test]
    fn effects_make_no_other_message() {
        let text = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
        let Ok(Parsed::Request(head)) = parse_request(text.as_bytes(), Limits::default()) else { panic!() };
        let cases = [
            effect(HeaderAction::Delete, "Content-Length", ""),
            effect(HeaderAction::Add, "transfer-encoding", "chunked"),
            effect(HeaderAction::Replace, "Host", "other"),
            effect(HeaderAction::Add, "X: y\r\nZ", "a"),
            effect(HeaderAction::Add, "", "a"),
            effect(HeaderAction::Add, "X", "a\r\nHost: other"),
            effect(HeaderAction::Replace, "X", "a\0"),
        ];
        for effect in cases {
            let mut out = Vec::new();
            assert!(
                write_request(&head, std::slice::from_ref(&effect), &mut out).is_err(),
                "{}",
                effect.name
            );
            assert!(out.is_empty());
        }
    }

    #[test]
    fn effects_are_carried_out() {
        let effects = [
            effect(HeaderAction::Add, "X-Added", "1"),
            effect(HeaderAction::Delete, "x-gone", ""),
            effect(HeaderAction::Replace, "X-Token", "good"),
            effect(HeaderAction::Log, "X-Logged", "2"),
        ];
        let text = "GET / HTTP/1.1\r\nHost: web\r\nX-Gone: a\r\nX-TOKEN: b\r\nX-Token: c\r\nX-Gone: d\r\nX-Logged: e\r\n\r\n";
        assert_eq!(
            forwarded(text, &effects),
            "GET / HTTP/1.1\r\nHost: web\r\nX-Logged: e\r\nX-Added: 1\r\nX-Token: good\r\n\r\n"
        );
    }
}
