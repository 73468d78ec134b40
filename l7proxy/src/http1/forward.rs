//! The head of a request as it goes on to the server: what was judged, and nothing else.

use sluice_policy::l7::{HeaderAction, HeaderEffect};

use super::head::{RequestHead, Target};

/// The protocol that a server must not be asked for: its requests would pass unjudged.
const H2C: &str = "h2c";
/// What comes with it (RFC 7540, section 3.2.1), and which `Connection` names as well.
const HTTP2_SETTINGS: &str = "http2-settings";

/// Writes the head down for the server, behind what is in `out`.
///
/// The target is in its one form, `Host` is the authority, effects are carried out, and an upgrade to HTTP/2 is not
/// asked for. Everything else goes on as it came.
pub fn write_request(head: &RequestHead<'_>, effects: &[HeaderEffect], out: &mut Vec<u8>) {
    let target = match &head.target {
        Target::Path(path) => path,
        Target::Tunnel(authority) => *authority,
        Target::Server => "*",
    };
    for part in [head.method, " ", target, " HTTP/1.", if head.minor == 0 { "0" } else { "1" }, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    // HTTP/1.0 may name its host in the target alone, which goes on without.
    if !head.authority.is_empty() && !head.headers.iter().any(|(name, _)| is(name, "host")) {
        write_header("Host", head.authority.as_bytes(), out);
    }
    let asks_for_h2c = head.headers.iter().any(|(name, value)| is(name, "upgrade") && has_token(value, H2C));
    for (name, value) in &head.headers {
        if is_taken_out(name, effects) || (asks_for_h2c && is(name, HTTP2_SETTINGS)) {
            continue;
        }
        if is(name, "host") {
            write_header(name, head.authority.as_bytes(), out);
        } else if asks_for_h2c && is(name, "upgrade") {
            write_list(name, value, &[H2C], out);
        } else if asks_for_h2c && is(name, "connection") {
            let is_left = asks_for_upgrade(&head.headers);
            write_list(
                name,
                value,
                if is_left { &[HTTP2_SETTINGS] } else { &[HTTP2_SETTINGS, "upgrade"] },
                out,
            );
        } else {
            write_header(name, value, out);
        }
    }
    for effect in effects.iter().filter(|own| matches!(own.action, HeaderAction::Add | HeaderAction::Replace))
    {
        write_header(&effect.name, &effect.value, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether the server is asked for another protocol, after HTTP/2 was taken out.
pub(super) fn asks_for_upgrade(headers: &[(&str, &[u8])]) -> bool {
    headers.iter().any(|(name, value)| is(name, "upgrade") && !is_only(value, H2C))
}

fn is(name: &str, known: &str) -> bool {
    name.eq_ignore_ascii_case(known)
}

fn is_taken_out(name: &str, effects: &[HeaderEffect]) -> bool {
    let takes_out = |own: &&HeaderEffect| matches!(own.action, HeaderAction::Delete | HeaderAction::Replace);
    effects.iter().filter(takes_out).any(|own| is(&own.name, name))
}

fn write_header(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A list without some of its words; no header if nothing is left.
fn write_list(name: &str, value: &[u8], without: &[&str], out: &mut Vec<u8>) {
    let is_left = |word: &&[u8]| !without.iter().any(|gone| word.eq_ignore_ascii_case(gone.as_bytes()));
    let left: Vec<&[u8]> = words(value).filter(is_left).collect();
    if !left.is_empty() {
        write_header(name, &left.join(b", ".as_slice()), out);
    }
}

/// The words of a list such as `Connection` and `Upgrade` have.
fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|word| !word.is_empty())
}

fn has_token(value: &[u8], token: &str) -> bool {
    words(value).any(|word| word.eq_ignore_ascii_case(token.as_bytes()))
}

fn is_only(value: &[u8], token: &str) -> bool {
    words(value).all(|word| word.eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{Head, Parsed};

    fn forwarded(text: &str, effects: &[HeaderEffect]) -> String {
        let Ok(Parsed::Request(head)) = Head::default().parse(text.as_bytes()) else { panic!("{text:?}") };
        let mut out = Vec::new();
        write_request(&head, effects, &mut out);
        let written = String::from_utf8(out).unwrap();
        assert!(matches!(Head::default().parse(written.as_bytes()), Ok(Parsed::Request(_))), "{written:?}");
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

    #[test]
    fn effects_are_carried_out() {
        let effect = |action, name: &str, value: &str| HeaderEffect {
            action,
            name: name.to_owned(),
            value: value.as_bytes().to_vec(),
        };
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
