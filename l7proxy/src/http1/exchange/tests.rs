use super::*;
use crate::http1::write_request;

/// A connection with a server that answers each request with the next of `answers`, and a policy that denies what begins
/// with `/no`.
struct Rig {
    exchange: Exchange,
    from_client: Vec<u8>,
    from_server: Vec<u8>,
    to_client: Vec<u8>,
    to_server: Vec<u8>,
}

const DENIED: &[u8] = b"<403>";

impl Rig {
    fn new() -> Self {
        Self {
            exchange: Exchange::default(),
            from_client: Vec::new(),
            from_server: Vec::new(),
            to_client: Vec::new(),
            to_server: Vec::new(),
        }
    }

    fn client(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.from_client.extend(bytes);
        self.run()
    }

    fn server(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.from_server.extend(bytes);
        self.run()
    }

    /// Goes on until nothing can be done.
    fn run(&mut self) -> Result<(), Broken> {
        while let Some(pass) = self.exchange.from_server(&self.from_server)? {
            self.to_client.extend(self.from_server.drain(..pass.consumed).take(pass.forward));
            self.to_client.extend(pass.trailer);
        }
        loop {
            let bytes = self.from_client.clone();
            match self.exchange.from_client(&bytes)? {
                FromClient::More | FromClient::Wait | FromClient::Http2 => return Ok(()),
                FromClient::Request(head) => {
                    if head.target.as_path().starts_with("/no") {
                        self.to_client.extend(DENIED);
                        self.exchange.deny(&head);
                    } else {
                        write_request(&head, &[], &mut self.to_server).unwrap();
                        self.exchange.allow(&head);
                    }
                    self.from_client.drain(..head.length);
                }
                FromClient::Pass(pass) => {
                    self.to_server.extend(self.from_client.drain(..pass.consumed).take(pass.forward));
                    self.to_server.extend(pass.trailer);
                    if bytes.is_empty() {
                        return Ok(());
                    }
                }
            }
        }
    }

    #[track_caller]
    fn sent(&mut self, to_server: &str, to_client: &str) {
        assert_eq!(String::from_utf8_lossy(&self.to_server), to_server);
        assert_eq!(String::from_utf8_lossy(&self.to_client), to_client);
        self.to_server.clear();
        self.to_client.clear();
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const NO: &str = "GET /no HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    let mut rig = Rig::new();
    rig.client(format!("{GET}{NO}{GET}").as_bytes()).unwrap();
    rig.sent(GET, "");
    rig.server(OK.as_bytes()).unwrap();
    rig.run().unwrap();
    rig.sent(GET, &format!("{OK}<403>"));
    rig.server(OK.as_bytes()).unwrap();
    rig.sent("", OK);
    assert!(rig.exchange.is_idle() && !rig.exchange.closes());
}

#[test]
fn the_same_happens_byte_by_byte() {
    let mut rig = Rig::new();
    let post =
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n";
    for byte in format!("{post}{NO}").as_bytes() {
        rig.client(&[*byte]).unwrap();
    }
    rig.sent(post, "");
    let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    for byte in answer.as_bytes() {
        rig.server(&[*byte]).unwrap();
    }
    rig.sent("", &format!("{answer}<403>"));
}

/// The body of a denied request is nobody's: it neither reaches the server nor is it taken for the next request.
#[test]
fn the_body_of_a_denied_request_is_dropped() {
    let post = |fields: &str| format!("POST /no HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    for request in [
        format!("{}{NO}x", post(&format!("Content-Length: {}\r\n", NO.len() + 1))),
        format!("{}3\r\nabc\r\n0\r\nX: y\r\n\r\n", post("Transfer-Encoding: chunked\r\n")),
    ] {
        let mut rig = Rig::new();
        for byte in format!("{request}{GET}").as_bytes() {
            rig.client(&[*byte]).unwrap();
        }
        rig.sent(GET, "<403>");
        assert!(!rig.exchange.closes());
    }
}

#[test]
fn a_denied_request_ends_the_connection_where_its_body_has_no_near_end() {
    for fields in ["Expect: 100-continue\r\nContent-Length: 9\r\n", "Content-Length: 65537\r\n"] {
        let mut rig = Rig::new();
        let post = format!("POST /no HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        rig.client(format!("{post}GET / HTT").as_bytes()).unwrap();
        rig.sent("", "<403>");
        assert!(rig.exchange.closes(), "{fields:?}");
        rig.client(GET.as_bytes()).unwrap();
        rig.sent("", "");
    }
    let mut rig = Rig::new();
    rig.client(b"POST /no HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    rig.client(chunk.repeat(15).as_bytes()).unwrap();
    assert!(!rig.exchange.closes());
    rig.client(chunk.as_bytes()).unwrap();
    assert!(rig.exchange.closes());
    rig.client(format!("0\r\n\r\n{GET}").as_bytes()).unwrap();
    rig.sent("", "<403>");
}

#[test]
fn a_client_of_http_1_0_gets_no_chunks() {
    let mut rig = Rig::new();
    rig.client(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(rig.server(answer.as_bytes()), Err(Broken::TooNew));
    rig.sent("GET / HTTP/1.0\r\n\r\n", "");
}

#[test]
fn answers_without_a_body() {
    let mut rig = Rig::new();
    for (request, answer) in [
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (GET, "HTTP/1.1 204 No Content\r\n\r\n"),
        (GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        (GET, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        rig.client(request.as_bytes()).unwrap();
        rig.server(answer.as_bytes()).unwrap();
        rig.sent(request, answer);
        assert!(rig.exchange.is_idle() && !rig.exchange.closes(), "{answer:?}");
    }
}

#[test]
fn connections_that_end() {
    let close = "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\n\r\n";
    let old = "GET / HTTP/1.0\r\n\r\n";
    let kept = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let closing = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    for (request, answer, closes) in
        [(GET, OK, false), (close, OK, true), (old, OK, true), (kept, OK, false), (GET, closing, true)]
    {
        let mut rig = Rig::new();
        rig.client(request.as_bytes()).unwrap();
        rig.server(answer.as_bytes()).unwrap();
        assert!(rig.exchange.is_idle());
        assert_eq!(rig.exchange.closes(), closes, "{request:?} {answer:?}");
    }
    let mut rig = Rig::new();
    rig.client(GET.as_bytes()).unwrap();
    rig.server(b"HTTP/1.1 200 OK\r\n\r\nto the end").unwrap();
    assert!(!rig.exchange.is_idle());
    assert!(rig.exchange.server_ended() && rig.exchange.is_idle() && rig.exchange.closes());
    rig.sent(GET, "HTTP/1.1 200 OK\r\n\r\nto the end");
}

#[test]
fn an_answer_that_is_cut_short_is_no_answer() {
    let mut rig = Rig::new();
    rig.client(GET.as_bytes()).unwrap();
    rig.server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab").unwrap();
    assert!(!rig.exchange.server_ended());
}

#[test]
fn interim_answers_have_an_end() {
    let mut rig = Rig::new();
    rig.client(GET.as_bytes()).unwrap();
    rig.server("HTTP/1.1 102 Processing\r\n\r\n".repeat(16).as_bytes()).unwrap();
    assert_eq!(rig.server(b"HTTP/1.1 102 Processing\r\n\r\n"), Err(Broken::Interim));
}

/// An answer that comes before the whole request: the rest of that must not be taken for the next one.
#[test]
fn an_early_answer_ends_the_connection() {
    let mut rig = Rig::new();
    rig.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90\r\n\r\nabc").unwrap();
    rig.server(OK.as_bytes()).unwrap();
    assert!(rig.exchange.is_idle() && rig.exchange.closes());
    rig.to_server.clear();
    rig.client(GET.as_bytes()).unwrap();
    rig.sent("", OK);
}

#[test]
fn nobody_answers_before_being_asked() {
    let mut rig = Rig::new();
    assert_eq!(rig.server(OK.as_bytes()), Err(Broken::Unasked));
    let mut rig = Rig::new();
    rig.client(GET.as_bytes()).unwrap();
    assert_eq!(rig.server(format!("{OK}{OK}").as_bytes()), Err(Broken::Unasked));
    rig.sent(GET, OK);
    // Nobody asked for another protocol, or for HTTP/2 alone, which the server does not hear of.
    for headers in ["", "Upgrade: h2c\r\nConnection: Upgrade\r\n", "Upgrade: \r\n"] {
        let mut rig = Rig::new();
        rig.client(format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n").as_bytes()).unwrap();
        assert!(rig.server(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").is_err(), "{headers:?}");
    }
}

#[test]
fn tunnels() {
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let connect = "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n";
    for (request, answer) in [
        (upgrade, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
        (connect, "HTTP/1.1 200 OK\r\n\r\n"),
    ] {
        let mut rig = Rig::new();
        rig.client(format!("{request}early").as_bytes()).unwrap();
        rig.sent(request, "");
        rig.server(format!("{answer}late").as_bytes()).unwrap();
        rig.client(NO.as_bytes()).unwrap();
        rig.sent(&format!("early{NO}"), &format!("{answer}late"));
    }
    // Refused by the server, it is a request like others.
    let mut rig = Rig::new();
    rig.client(format!("{upgrade}{NO}").as_bytes()).unwrap();
    rig.server(OK.as_bytes()).unwrap();
    rig.sent(upgrade, &format!("{OK}<403>"));
}

#[test]
fn http2_begins_a_connection_and_never_continues_one() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert!(matches!(Exchange::default().from_client(preface), Ok(FromClient::Http2)));
    let mut rig = Rig::new();
    rig.client(NO.as_bytes()).unwrap();
    assert_eq!(rig.client(preface), Err(Broken::Head(HeadError::Version)));
}
