use sluice_policy::l7::{HeaderAction, HeaderEffect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::rig::{Rig, quick};
use super::*;

const GET: &str = "GET /a HTTP/1.1\r\nHost: web\r\n\r\n";
const NO: &str = "GET /no HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: web\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

impl Rig {
    async fn send(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    async fn server(&self) -> TcpStream {
        self.listener.accept().await.unwrap().0
    }

    /// Everything that the client gets until the end, and how the connection ended.
    async fn rest(mut self) -> (String, End, Vec<String>) {
        let mut rest = Vec::new();
        self.client.read_to_end(&mut rest).await.unwrap();
        drop(self.client);
        let log = self.rules.log.lock().unwrap().clone();
        (String::from_utf8(rest).unwrap(), self.end.await.unwrap(), log)
    }
}

/// The next bytes are these.
async fn gets(stream: &mut TcpStream, wanted: &str) {
    let mut bytes = vec![0; wanted.len()];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), wanted);
}

fn denied(flow: &str, end: &str) -> String {
    let head = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 15\r\n";
    format!("{head}X-Sluice-Flow: {flow}\r\n{end}\r\nAccess denied\r\n")
}

#[tokio::test]
async fn each_request_of_a_connection_is_judged_alone() {
    let mut rig = Rig::new().await;
    rig.send(&format!("{GET}{NO}{GET}")).await;
    let mut server = rig.server().await;
    gets(&mut server, GET).await;
    server.write_all(OK.as_bytes()).await.unwrap();
    gets(&mut rig.client, &format!("{OK}{}", denied("17-2", ""))).await;
    gets(&mut server, GET).await;
    server.write_all(OK.as_bytes()).await.unwrap();
    gets(&mut rig.client, OK).await;
    // The rules of the moment count.
    *rig.rules.denied.lock().unwrap() = "/a";
    rig.send(GET).await;
    gets(&mut rig.client, &denied("17-4", "")).await;
    rig.client.shutdown().await.unwrap();
    let (rest, end, log) = rig.rest().await;
    assert_eq!((rest.as_str(), end), ("", End::Closed));
    let wanted = [
        "17-1 GET web/a 200 Forwarded",
        "17-2 GET web/no 403 Denied",
        "17-3 GET web/a 200 Forwarded",
        "17-4 GET web/a 403 Denied",
    ];
    assert_eq!(log, wanted);
}

#[tokio::test]
async fn nobody_connects_to_a_server_for_a_denied_request() {
    let mut rig = Rig::new().await;
    rig.send("POST /no HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    gets(&mut rig.client, &denied("17-1", "Connection: close\r\n")).await;
    let listener = std::mem::replace(&mut rig.listener, TcpListener::bind("127.0.0.1:0").await.unwrap());
    assert_eq!(rig.rest().await.1, End::Closed);
    let connected = timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(connected.is_err(), "{connected:?}");
}

/// Bodies of both directions are whole, and not held: they are larger than all buffers.
#[tokio::test]
async fn large_bodies() {
    let mut rig = Rig::new().await;
    let body: Vec<u8> = (0..9_000_000_u32).map(|nth| u8::try_from(nth % 251).unwrap()).collect();
    let listener = std::mem::replace(&mut rig.listener, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let wanted = body.clone();
    let served = tokio::spawn(async move {
        let (mut server, _) = listener.accept().await.unwrap();
        let head = format!("PUT /a HTTP/1.1\r\nHost: web\r\nContent-Length: {}\r\n\r\n", wanted.len());
        gets(&mut server, &head).await;
        let mut got = vec![0; wanted.len()];
        server.read_exact(&mut got).await.unwrap();
        assert!(got == wanted);
        server.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        for part in got.chunks(100_000) {
            server.write_all(format!("{:x}\r\n", part.len()).as_bytes()).await.unwrap();
            server.write_all(&[part, b"\r\n"].concat()).await.unwrap();
        }
        server.write_all(b"0\r\n\r\n").await.unwrap();
    });
    rig.send(&format!("PUT /a HTTP/1.1\r\nHost: web\r\nContent-Length: {}\r\n\r\n", body.len())).await;
    rig.client.write_all(&body).await.unwrap();
    gets(&mut rig.client, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for part in body.chunks(100_000) {
        gets(&mut rig.client, &format!("{:x}\r\n", part.len())).await;
        let mut got = vec![0; part.len() + 2];
        rig.client.read_exact(&mut got).await.unwrap();
        assert!(got == [part, b"\r\n"].concat());
    }
    gets(&mut rig.client, "0\r\n\r\n").await;
    served.await.unwrap();
}

/// A client that takes nothing holds back its server: what waits for it is bounded.
#[tokio::test]
async fn what_a_client_does_not_take_is_not_read() {
    const MUCH: usize = 64 << 20;
    let mut rig = Rig::new().await;
    rig.send(GET).await;
    let mut server = rig.server().await;
    gets(&mut server, GET).await;
    server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let part = vec![b'x'; 1 << 20];
    let mut written = 0;
    while written < MUCH {
        match timeout(Duration::from_millis(500), server.write(&part)).await {
            Ok(length) => written += length.unwrap(),
            Err(_) => break,
        }
    }
    assert!(written < MUCH, "the sockets hold a few MiB, the proxy nothing of note; written: {written}");
    drop(server);
    let (got, end, _) = rig.rest().await;
    assert_eq!((got.len(), end), (written + 19, End::Closed));
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    for (text, status) in [
        ("GET / HTTP/1.1\nHost: web\n\n", "400 Bad Request"),
        ("GET / HTTP/1.2\r\nHost: web\r\n\r\n", "505 HTTP Version Not Supported"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400 Bad Request",
        ),
    ] {
        let mut rig = Rig::new().await;
        rig.send(text).await;
        let (rest, end, log) = rig.rest().await;
        assert!(rest.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{text:?}: {rest}");
        assert!(
            rest.contains("Connection: close\r\n") && matches!(end, End::Request(_)),
            "{text:?}: {end:?}"
        );
        assert_eq!(log, Vec::<String>::new());
    }
}

/// Not even an answer: it would be none in the client's protocol.
#[tokio::test]
async fn what_is_another_protocol_ends() {
    for text in ["INVALID CONNECTION PREFACE\r\n\r\n", "OPTIONS rtsp://web/ RTSP/1.0\r\n\r\n"] {
        let mut rig = Rig::new().await;
        rig.send(text).await;
        let (rest, end, _) = rig.rest().await;
        assert_eq!(
            (rest.as_str(), end),
            ("", End::Request(Broken::Head(HeadError::OtherProtocol))),
            "{text:?}"
        );
    }
}

/// A body that turns out to be none, behind a head that the server has: neither end takes it for a whole.
#[tokio::test]
async fn a_body_that_is_none_ends_both_connections() {
    let mut rig = Rig::new().await;
    rig.send("POST /a HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut server = rig.server().await;
    gets(&mut server, "POST /a HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    rig.send("0x1\r\n").await;
    let (rest, end, log) = rig.rest().await;
    assert!(rest.starts_with("HTTP/1.1 400 Bad Request\r\n") && matches!(end, End::Request(_)), "{rest}");
    let mut more = Vec::new();
    let _end = server.read_to_end(&mut more).await;
    assert!(!more.ends_with(b"0\r\n\r\n"), "{more:?}");
    assert_eq!(log, ["17-1 POST web/a 400 Failed"]);
}

#[tokio::test]
async fn who_takes_too_long_is_not_waited_for() {
    let rig = Rig::with(quick(), Effects::new()).await;
    assert_eq!(rig.rest().await.1, End::HeadTimeout);
    let mut rig = Rig::with(quick(), Effects::new()).await;
    rig.send("GET /a HTTP/1.1\r\n").await;
    let (rest, end, _) = rig.rest().await;
    assert!(rest.starts_with("HTTP/1.1 408 Request Timeout\r\n") && end == End::HeadTimeout, "{rest}");
    // A request that is answered by nobody.
    let mut rig = Rig::with(quick(), Effects::new()).await;
    rig.send(GET).await;
    let _server = rig.server().await;
    let (rest, end, log) = rig.rest().await;
    assert!(rest.starts_with("HTTP/1.1 504 Gateway Timeout\r\n") && end == End::IdleTimeout, "{rest}");
    assert_eq!(log, ["17-1 GET web/a 504 Failed"]);
    // A connection between two requests may be idle for longer than a head may take, but not for ever.
    let mut rig = Rig::with(quick(), Effects::new()).await;
    rig.send(NO).await;
    gets(&mut rig.client, &denied("17-1", "")).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    rig.send(NO).await;
    gets(&mut rig.client, &denied("17-2", "")).await;
    assert_eq!(rig.rest().await.1, End::IdleTimeout);
}

#[tokio::test]
async fn servers_that_do_not_answer() {
    let mut rig = Rig::new().await;
    rig.listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    rig.send(GET).await;
    let (rest, end, log) = rig.rest().await;
    assert!(rest.starts_with("HTTP/1.1 503 Service Unavailable\r\n") && end == End::NoServer, "{rest}");
    assert!(rest.contains("X-Sluice-Flow: 17-1\r\n"), "{rest}");
    assert_eq!(log, ["17-1 GET web/a 503 Failed"]);

    for (answer, wanted) in [("", End::ServerGone), ("HTTP/1.1 200", End::ServerGone)] {
        let mut rig = Rig::new().await;
        rig.send(GET).await;
        let mut server = rig.server().await;
        gets(&mut server, GET).await;
        server.write_all(answer.as_bytes()).await.unwrap();
        drop(server);
        let (rest, end, _) = rig.rest().await;
        assert!(rest.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer:?}: {rest}");
        assert_eq!(end, wanted);
    }

    let mut rig = Rig::new().await;
    rig.send(GET).await;
    let mut server = rig.server().await;
    server.write_all(b"220 mail ESMTP\r\n").await.unwrap();
    let (rest, end, _) = rig.rest().await;
    assert!(rest.starts_with("HTTP/1.1 502 Bad Gateway\r\n") && matches!(end, End::Answer(_)), "{rest}");
}

/// The client must not take a part for the whole, least of all where the end of the connection is that of the answer.
#[tokio::test]
async fn an_answer_that_is_cut_short_is_seen_as_such() {
    for head in ["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
        let mut rig = Rig::new().await;
        rig.send(GET).await;
        let mut server = rig.server().await;
        gets(&mut server, GET).await;
        server.write_all(format!("{head}abc").as_bytes()).await.unwrap();
        gets(&mut rig.client, &format!("{head}abc")).await;
        server.abort();
        drop(server);
        let error = rig.client.read(&mut [0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{head:?}");
        assert_eq!(rig.end.await.unwrap(), End::ServerGone);
    }
    let mut rig = Rig::new().await;
    rig.send(GET).await;
    let mut server = rig.server().await;
    gets(&mut server, GET).await;
    server.write_all(b"HTTP/1.1 200 OK\r\n\r\nwhole").await.unwrap();
    drop(server);
    let (rest, end, _) = rig.rest().await;
    assert_eq!((rest.as_str(), end), ("HTTP/1.1 200 OK\r\n\r\nwhole", End::Closed));
}

#[tokio::test]
async fn a_client_that_sends_nothing_more_still_gets_its_answer() {
    let mut rig = Rig::new().await;
    rig.send(GET).await;
    rig.client.shutdown().await.unwrap();
    let mut server = rig.server().await;
    gets(&mut server, GET).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.write_all(OK.as_bytes()).await.unwrap();
    let (rest, end, _) = rig.rest().await;
    assert_eq!((rest.as_str(), end), (OK, End::Closed));
    // One that stops in the middle of a body gets none, and its server sees no whole request.
    let mut rig = Rig::new().await;
    rig.send("POST /a HTTP/1.1\r\nHost: web\r\nContent-Length: 9\r\n\r\nabc").await;
    let mut server = rig.server().await;
    rig.client.shutdown().await.unwrap();
    assert!(rig.client.read(&mut [0; 9]).await.is_err());
    assert_eq!(rig.end.await.unwrap(), End::ClientGone);
    let mut got = Vec::new();
    assert!(server.read_to_end(&mut got).await.is_err());
}

async fn tunnel(rig: &mut Rig) -> TcpStream {
    rig.send(UPGRADE).await;
    let mut server = rig.server().await;
    gets(&mut server, UPGRADE).await;
    server.write_all(format!("{SWITCHED}hello").as_bytes()).await.unwrap();
    gets(&mut rig.client, &format!("{SWITCHED}hello")).await;
    server
}

#[tokio::test]
async fn a_tunnel_carries_everything_until_both_have_ended() {
    let mut rig = Rig::new().await;
    let mut server = tunnel(&mut rig).await;
    rig.send(NO).await;
    gets(&mut server, NO).await;
    rig.client.shutdown().await.unwrap();
    let mut got = Vec::new();
    server.read_to_end(&mut got).await.unwrap();
    server.write_all(b"goodbye").await.unwrap();
    drop(server);
    let (rest, end, log) = rig.rest().await;
    assert_eq!((rest.as_str(), end), ("goodbye", End::Closed));
    assert_eq!(log, ["17-1 GET web/ws 101 Forwarded"]);
}

#[tokio::test]
async fn a_tunnel_that_is_no_longer_allowed_is_closed() {
    let mut rig = Rig::new().await;
    let mut server = tunnel(&mut rig).await;
    // A change that leaves it allowed does not touch it.
    rig.changes.send_modify(|version| *version += 1);
    rig.send("more").await;
    gets(&mut server, "more").await;
    *rig.rules.denied.lock().unwrap() = "/ws";
    rig.changes.send_modify(|version| *version += 1);
    assert!(rig.client.read(&mut [0; 9]).await.is_err());
    assert!(server.read(&mut [0; 9]).await.is_err());
    assert_eq!(rig.log(), ["17-1 GET web/ws 101 Forwarded", "17-1 GET web/ws - Revoked"]);
    assert_eq!(rig.end.await.unwrap(), End::Revoked);
}

#[tokio::test]
async fn a_change_that_makes_another_message_is_not_made() {
    let effect = |name: &str, value: &str| {
        vec![HeaderEffect {
            action: HeaderAction::Add,
            name: name.to_owned(),
            value: value.as_bytes().to_vec(),
        }]
    };
    let mut rig = Rig::with(Settings::default(), effect("X-Token", "a\r\nHost: other")).await;
    rig.send(GET).await;
    let (rest, end, log) = rig.rest().await;
    assert!(rest.starts_with("HTTP/1.1 500 Internal Server Error\r\n") && end == End::BadEffect, "{rest}");
    assert_eq!(log, ["17-1 GET web/a 500 Failed"]);
    let mut rig = Rig::with(Settings::default(), effect("X-Token", "a")).await;
    rig.send(GET).await;
    gets(&mut rig.server().await, "GET /a HTTP/1.1\r\nHost: web\r\nX-Token: a\r\n\r\n").await;
}

const LAST: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

/// A connection ends when its client knows, and not before: a request on its way to a closed one would be lost.
#[tokio::test]
async fn who_is_to_leave_gets_one_more_answer() {
    let mut rig = Rig::new().await;
    rig.send(GET).await;
    let mut server = rig.server().await;
    gets(&mut server, GET).await;
    server.write_all(OK.as_bytes()).await.unwrap();
    gets(&mut rig.client, OK).await;
    rig.leaving.send_replace(());
    let ended = timeout(Duration::from_millis(50), rig.client.read(&mut [0; 9])).await;
    assert!(ended.is_err(), "an idle connection stays: {ended:?}");
    rig.send(GET).await;
    gets(&mut server, GET).await;
    server.write_all(OK.as_bytes()).await.unwrap();
    let (rest, end, _) = rig.rest().await;
    assert_eq!((rest.as_str(), end), (LAST, End::Closed));
}

#[tokio::test]
async fn who_is_denied_when_leaving_is_told_so() {
    let mut rig = Rig::new().await;
    rig.leaving.send_replace(());
    rig.send(NO).await;
    let (rest, end, _) = rig.rest().await;
    assert_eq!((rest, end), (denied("17-1", "Connection: close\r\n"), End::Closed));
}

/// What has begun is brought to its end: an answer whose head is out says nothing any more, so the next one does.
#[tokio::test]
async fn answers_and_tunnels_go_on_while_leaving() {
    let mut rig = Rig::new().await;
    rig.send(GET).await;
    let mut server = rig.server().await;
    gets(&mut server, GET).await;
    let (begun, rest) = OK.split_at(OK.len() - 1);
    server.write_all(begun.as_bytes()).await.unwrap();
    gets(&mut rig.client, begun).await;
    rig.leaving.send_replace(());
    server.write_all(rest.as_bytes()).await.unwrap();
    gets(&mut rig.client, rest).await;
    rig.send(GET).await;
    gets(&mut server, GET).await;
    server.write_all(format!("HTTP/1.1 103 Early Hints\r\n\r\n{OK}").as_bytes()).await.unwrap();
    assert_eq!(rig.rest().await.0, format!("HTTP/1.1 103 Early Hints\r\n\r\n{LAST}"));

    let mut rig = Rig::new().await;
    let mut server = tunnel(&mut rig).await;
    rig.leaving.send_replace(());
    rig.send("more").await;
    gets(&mut server, "more").await;
    server.write_all(b"less").await.unwrap();
    gets(&mut rig.client, "less").await;
    let mut asking = Rig::new().await;
    asking.leaving.send_replace(());
    tunnel(&mut asking).await;
}

/// Thousands of idle connections are thousands of these.
#[tokio::test]
async fn a_connection_takes_little_memory() {
    let rig = Rig::new().await;
    let settings = Settings::default();
    let (changes, leaving) = (watch::Sender::new(0), watch::Sender::new(()));
    let signals = Signals { changes: changes.subscribe(), leaving: leaving.subscribe() };
    let connection = relay(rig.client, &*rig.rules, &settings, signals, 1);
    assert!(size_of_val(&connection) <= 1_536, "{} bytes", size_of_val(&connection));
}
