use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Parsed<'_>, HeadError> {
    parse_request(text.as_bytes(), Limits::default())
}

fn request(text: &str) -> RequestHead<'_> {
    match parse(text) {
        Ok(Parsed::Request(head)) => head,
        other => panic!("{text:?}: {other:?}"),
    }
}

/// Inputs about which servers and proxies differ, with what is done about them here.
#[test]
fn what_is_read_in_two_ways_is_refused() {
    use FramingError::*;
    use HeadError::*;
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(150));
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(70_000));
    let cases: &[(&str, HeadError)] = &[
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            Framing(Both),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
            Framing(SeveralLengths),
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n\r\n", Framing(SeveralLengths)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551618\r\n\r\n", Framing(BadLength)),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", Framing(BadLength)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity,chunked\r\n\r\n", Framing(OtherEncoding)),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Framing(TooOld)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", Malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", Folded),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n", Folded),
        ("GET / HTTP/1.1\nHost: a\n\n", BareLineEnd),
        ("GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", BareLineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n", BareLineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n", Malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", Malformed),
        ("GET / HTTP/1.1\r\nHost: a\r\nX y\r\n\r\n", Malformed),
        ("GET / HTTP/1.1\r\n\r\n", NoHost),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", SeveralHosts),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: a:80:81\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: a:http\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", BadHost),
        ("GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", BadHost),
        ("GET http://u@a/x HTTP/1.1\r\nHost: a\r\n\r\n", BadHost),
        ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", BadHost),
        ("GET ftp://a/x HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        ("GET a/x HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        ("GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", BadTarget),
        ("CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        ("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        ("CONNECT b:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", BadTarget),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Content-Length\r\n\r\n", BadConnection),
        ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", Path(PathError::Nul)),
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Path(PathError::BadCharacter)),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Spaces),
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Spaces),
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Spaces),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Version),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Version),
        ("GET / HTTP\r\nHost: a\r\n\r\n", Version),
        ("GET / HTTX", OtherProtocol),
        ("INVALID CONNECTION PREFACE\r\n\r\n", OtherProtocol),
        ("GET /\r\nHost: a\r\n\r\n", Spaces),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Malformed),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Malformed),
        (&many, TooLarge),
        (&large, TooLarge),
        ("SSH-2.0-OpenSSH_9.2\r\n", Spaces),
        ("\u{16}\u{3}\u{1}\u{2}", Malformed),
    ];
    for (text, wanted) in cases {
        let error = parse(text).unwrap_err();
        assert_eq!(error, *wanted, "{:?}", text.get(..200).unwrap_or(text));
    }
}

#[test]
fn requests() {
    let text =
        "POST /a/../b?c HTTP/1.1\r\nHost: Web:8080\r\nX-A:  1 \r\nx-a: 2\r\nContent-Length: 3\r\n\r\nabc";
    let head = request(text);
    assert_eq!(text.split_at(head.length).1, "abc");
    assert_eq!((head.method, head.target.as_path(), head.authority), ("POST", "/b?c", "Web:8080"));
    assert_eq!((head.minor, head.body), (1, BodyLength::Exactly(3)));
    assert_eq!(head.headers[1..3], [("X-A", b"1".as_slice()), ("x-a", b"2".as_slice())]);

    let head = request("GET HTTP://web/a HTTP/1.1\r\nHost: WEB\r\n\r\n");
    assert_eq!((head.target.as_path(), head.authority), ("/a", "web"));
    let head = request("GET http://web?q HTTP/1.1\r\nHost: web\r\n\r\n");
    assert_eq!(head.target.as_path(), "/?q");
    let head = request("OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n");
    assert_eq!((&head.target, head.authority), (&Target::Server, "[::1]:80"));
    let head = request("CONNECT web:443 HTTP/1.1\r\nHost: web:443\r\n\r\n");
    assert_eq!((&head.target, head.target.as_path()), (&Target::Tunnel("web:443"), ""));
    let head = request("get / HTTP/1.0\r\n\r\n");
    assert_eq!((head.method, head.authority, head.minor), ("get", "", 0));
    let head = request("PUT / HTTP/1.1\r\nHost:\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!((head.authority, head.body), ("", BodyLength::Chunked));
}

#[test]
fn http2_with_prior_knowledge_is_seen() {
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert!(matches!(parse(&format!("{preface}\0\0")), Ok(Parsed::Http2)));
    for end in 1..preface.len() {
        assert!(matches!(parse(preface.split_at(end).0), Ok(Parsed::Partial)), "{end}");
    }
    assert!(matches!(parse("PRI * HTTP/2.0\r\n\r\nXX"), Err(HeadError::Version | HeadError::BadTarget)));
}

/// However the bytes come, the request is the same, and no part of it is taken for a whole or for a mistake.
#[test]
fn a_request_may_come_in_any_pieces() {
    let text = "POST /a?b HTTP/1.1\r\nHost: web\r\nX: y\r\nContent-Length: 3\r\n\r\nabc";
    let whole = request(text).length;
    for end in 0..whole {
        let start = text.split_at(end).0;
        assert!(matches!(parse(start), Ok(Parsed::Partial)), "{start:?}");
    }
    for end in whole..=text.len() {
        assert_eq!(request(text.split_at(end).0).length, whole);
    }
}

#[test]
fn what_has_no_end_is_refused_in_time() {
    let limits = Limits { head_bytes: 100 };
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(100));
    assert!(matches!(parse_request(&text.as_bytes()[..99], limits), Ok(Parsed::Partial)));
    assert_eq!(parse_request(&text.as_bytes()[..100], limits).unwrap_err(), HeadError::TooLarge);
    assert_eq!(HeadError::TooLarge.status(), 431);
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _parsed = parse_request(&bytes, Limits::default());
    }

    /// What passes is, written down again from its parts, the same request to whoever reads it.
    #[test]
    fn what_is_read_is_what_was_sent(
        parts in proptest::collection::vec(
            prop::sample::select(vec![
                "GET ", "POST ", "/a", "/../b", "*", "http://web", " HTTP/1.1", " HTTP/1.0", "\r\n", "\r\n\r\n", "\n", "\r",
                "Host: web", "Host: other", "Content-Length: 1", "Transfer-Encoding: chunked", "X: y", " ", "\t", ":", "\0",
            ]),
            0..14,
        ),
    ) {
        let text = parts.concat();
        let Ok(Parsed::Request(head)) = parse(&text) else { return Ok(()) };
        let target = match &head.target {
            Target::Path(path) => path.to_string(),
            Target::Tunnel(authority) => (*authority).to_owned(),
            Target::Server => "*".to_owned(),
        };
        let mut again = format!("{} {target} HTTP/1.{}\r\n", head.method, head.minor);
        for (name, value) in &head.headers {
            again += &format!("{name}: {}\r\n", std::str::from_utf8(value).unwrap());
        }
        again += "\r\n";
        let other = request(&again);
        prop_assert_eq!(&other.target, &head.target);
        prop_assert_eq!(other.headers, head.headers);
        prop_assert_eq!(other.body, head.body);
        // All of it was looked at, and only up to the first empty line.
        let read = text.split_at(head.length).0;
        prop_assert_eq!(read.matches("\r\n\r\n").count(), 1);
        prop_assert_eq!(read.replace("\r\n", "").matches(['\r', '\n']).count(), 0);
    }
}
