//! Clients and servers that write frames of their own.

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Headers that no table keeps (RFC 7541, section 6.2.2).
fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    headers.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "web")];

/// A rig whose client has said hello.
async fn greeted() -> Rig {
    let mut rig = Rig::new().await;
    rig.client.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    rig
}

/// The next frame of one of these types: its type and payload.
async fn next_of(stream: &mut TcpStream, wanted: &[u8]) -> (u8, Vec<u8>) {
    let read = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            stream.read_exact(&mut payload).await.unwrap();
            if wanted.contains(&head[3]) {
                return (head[3], payload);
            }
        }
    };
    timeout(SOON, read).await.unwrap()
}

fn code(payload: &[u8]) -> u32 {
    u32::from_be_bytes(*payload.last_chunk().unwrap())
}

/// No server sees what no server should have to understand.
#[tokio::test]
async fn heads_that_are_none() {
    let with = |header: (&'static str, &'static str)| [GET.as_slice(), &[header]].concat();
    let cases = [
        with((":path", "/b")),
        with((":method", "POST")),
        with((":status", "200")),
        with((":unknown", "1")),
        with(("X-Upper", "1")),
        with(("connection", "close")),
        with(("transfer-encoding", "chunked")),
        with(("upgrade", "h2c")),
        with(("te", "gzip")),
        with((":protocol", "websocket")),
        with(("content-length", "5")),
        with(("content-length", "x")),
        with(("x", "a\r\nb: c")),
        [("x", "late")].iter().chain(&GET).copied().collect(),
        GET[1..].to_vec(),
        [GET[0], GET[2], GET[3]].to_vec(),
        [GET[0], GET[1], GET[3]].to_vec(),
        [GET[0], GET[1], (":path", ""), GET[3]].to_vec(),
        [GET[0], GET[1], GET[2], (":authority", "")].to_vec(),
        [GET[0], GET[1], GET[2], (":authority", "a b")].to_vec(),
    ];
    for headers in cases {
        let mut rig = greeted().await;
        rig.client.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&headers))).await.unwrap();
        let (kind, payload) = next_of(&mut rig.client, &[RST_STREAM, GOAWAY, HEADERS]).await;
        assert!(kind != HEADERS && code(&payload) != 0, "{headers:?}: {kind} {payload:?}");
        assert_eq!(rig.log(), Vec::<String>::new(), "{headers:?}");
        drop(rig.client);
        assert!(timeout(Duration::from_millis(1), rig.listener.accept()).await.is_err(), "{headers:?}");
    }
}

/// What is sent in place of a target is answered as what it is.
#[tokio::test]
async fn targets_that_are_none() {
    for path in ["a", "*", "a/../b", "http://web/a", "/\u{e9}"] {
        let mut rig = greeted().await;
        let head = block(&[GET[0], GET[1], (":path", path), GET[3]]);
        rig.client.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &head)).await.unwrap();
        let (kind, payload) = next_of(&mut rig.client, &[RST_STREAM, GOAWAY, HEADERS]).await;
        // `:status: 400` stands in the table that everybody has; there is no 200 in it.
        let is_refused = if kind == HEADERS { payload.first() == Some(&0x8c) } else { code(&payload) != 0 };
        assert!(is_refused, "{path}: {kind} {payload:?}");
        assert!(timeout(Duration::from_millis(1), rig.listener.accept()).await.is_err(), "{path}");
    }
}

/// Compressed heads that say something else than they should, or much more than they seem to.
#[tokio::test]
async fn compression_that_is_none() {
    let get = block(&GET);
    // An entry of the connection's table that fills it, and an index that names it.
    let entry = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e], [b'y'; 4_000].as_slice()].concat();
    let cases = [
        ("no index", [get.as_slice(), &[0x80]].concat()),
        ("an index of nothing", [get.as_slice(), &[0xbe]].concat()),
        ("an index without end", [get.as_slice(), &[0xff; 32]].concat()),
        ("a table that is too large", [&[0x3f, 0xe1, 0xff, 0x03], get.as_slice()].concat()),
        ("a table that changes late", [get.as_slice(), &[0x20]].concat()),
        ("much in little", [get.as_slice(), &entry, &[0xbe; 8_000]].concat()),
    ];
    for (name, head) in cases {
        let mut rig = greeted().await;
        rig.client.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &head)).await.unwrap();
        let (_, payload) = next_of(&mut rig.client, &[GOAWAY]).await;
        let reason = Reason::from(u32::from_be_bytes(*payload[4..].first_chunk().unwrap()));
        assert_ne!(reason, Reason::NO_ERROR, "{name}");
        drop(rig.client);
        assert_eq!(timeout(SOON, rig.end).await.unwrap().unwrap(), End::BrokenHttp2(reason), "{name}");
        assert!(timeout(Duration::from_millis(1), rig.listener.accept()).await.is_err(), "{name}");
    }
}

/// What no server should see of a target goes no further.
#[tokio::test]
async fn a_fragment_of_a_target() {
    let mut rig = greeted().await;
    let head = block(&[GET[0], GET[1], (":path", "/a?b#c"), GET[3]]);
    rig.client.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &head)).await.unwrap();
    let (stream, _) = timeout(SOON, rig.listener.accept()).await.unwrap().unwrap();
    let (request, _respond) = Server::new(stream, h2::server::Builder::new()).next().await;
    assert_eq!(request.uri(), "http://web/a?b");
}

/// Frames that must be answered are not read on as long as nobody takes the answers.
#[tokio::test]
async fn floods_of_what_must_be_answered() {
    for (name, asks) in [("PING", frame(PING, 0, 0, &[0; 8])), ("SETTINGS", frame(SETTINGS, 0, 0, &[]))] {
        let Rig { client, end, .. } = greeted().await;
        let (flood, mut sent) = (asks.repeat(10_000), 0);
        let (_from, mut to) = client.into_split();
        while let Ok(Ok(())) = timeout(Duration::from_millis(500), to.write_all(&flood)).await {
            sent += flood.len();
            assert!(sent < 256 << 20, "{name}: nothing stops it");
        }
        end.abort();
    }
}

/// Trailers do not say what a request is about.
#[tokio::test]
async fn trailers_with_a_path() {
    let mut rig = greeted().await;
    rig.client.write_all(&frame(HEADERS, END_HEADERS, 1, &block(&GET))).await.unwrap();
    let (stream, _) = rig.listener.accept().await.unwrap();
    let mut server = Server::new(stream, h2::server::Builder::new());
    let (request, _respond) = server.next().await;
    let trailers = block(&[(":path", "/no"), ("x-sum", "1")]);
    rig.client.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &trailers)).await.unwrap();
    let (got, trailers) = timeout(SOON, whole(request.into_body())).await.unwrap().unwrap();
    assert_eq!((got.len(), trailers.unwrap().len()), (0, 1));
    assert_eq!(rig.log(), Vec::<String>::new());
}

/// What costs its sender nothing and everybody else something ends the connection.
#[tokio::test]
async fn floods() {
    let open = frame(HEADERS, END_HEADERS, 1, &block(&GET));
    let begun = frame(HEADERS, END_STREAM, 1, &block(&GET));
    let crumbs = block(&[("x", "y")]).repeat(100);
    let cases = [
        ("data without any", open, frame(DATA, 0, 1, &[])),
        ("a head without end", begun, frame(CONTINUATION, 0, 1, &crumbs)),
    ];
    for (name, first, next) in cases {
        let Rig { client, listener, end, .. } = greeted().await;
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut server = Server::new(stream, h2::server::Builder::new());
            let taken = server.next().await;
            // Takes nothing more.
            std::future::pending::<()>().await;
            drop(taken);
        });
        let (mut from, mut to) = client.into_split();
        let flood = async {
            to.write_all(&first).await?;
            for _ in 0..100_000 {
                to.write_all(&next).await?;
            }
            Ok::<(), std::io::Error>(())
        };
        let drain = async { drop(from.read_to_end(&mut Vec::new()).await) };
        let (flooded, ()) = timeout(SOON, async { tokio::join!(flood, drain) }).await.unwrap();
        assert!(flooded.is_err(), "{name}");
        let end = timeout(SOON, end).await.unwrap().unwrap();
        assert!(matches!(end, End::BrokenHttp2(_)), "{name}: {end:?}");
        server.abort();
    }
}

/// Streams that are opened and reset at once are not worth a look.
#[tokio::test]
async fn a_flood_of_resets_that_nobody_saw() {
    let mut rig = greeted().await;
    let block = block(&[GET[0], GET[1], (":path", "/no"), GET[3]]);
    let pair = |nth: u32| {
        let reset = frame(RST_STREAM, 0, nth * 2 + 1, &u32::from(Reason::CANCEL).to_be_bytes());
        [frame(HEADERS, END_STREAM | END_HEADERS, nth * 2 + 1, &block), reset].concat()
    };
    let flood: Vec<u8> = (0..200).flat_map(pair).collect();
    rig.client.write_all(&flood).await.unwrap();
    let (_, payload) = next_of(&mut rig.client, &[GOAWAY]).await;
    assert_eq!(payload[4..8], u32::from(Reason::ENHANCE_YOUR_CALM).to_be_bytes());
    assert_eq!(rig.end.await.unwrap(), End::BrokenHttp2(Reason::ENHANCE_YOUR_CALM));
}

/// What is no answer does not reach the client.
#[tokio::test]
async fn answers_that_are_none() {
    for headers in [
        [(":status", "200"), ("connection", "close")].as_slice(),
        &[(":status", "200"), ("transfer-encoding", "chunked")],
        &[(":status", "200"), ("X-Upper", "1")],
        &[(":status", "2000")],
        &[("x", "y")],
    ] {
        let mut client = Client::new().await;
        let response = client.ask(get("/a"));
        let (mut server, _) = client.listener.accept().await.unwrap();
        let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(headers));
        server.write_all(&[frame(SETTINGS, 0, 0, &[]), head].concat()).await.unwrap();
        assert_eq!(answer(response).await.status(), 502, "{headers:?}");
        assert_eq!(client.log(), ["17-1 GET web/a 502 Failed"], "{headers:?}");
    }
}

/// A server that leaves says what it has not looked at: that may be asked for again.
#[tokio::test]
async fn what_a_server_did_not_look_at() {
    let mut client = Client::new().await;
    let response = client.ask(get("/a"));
    let (mut server, _) = client.listener.accept().await.unwrap();
    let leaves = [frame(SETTINGS, 0, 0, &[]), frame(GOAWAY, 0, 0, &[0; 8])].concat();
    server.write_all(&leaves).await.unwrap();
    assert_eq!(reset(response).await, Reason::REFUSED_STREAM);
    assert_eq!(client.end().await, (End::Closed, vec!["17-1 GET web/a - Failed".to_owned()]));
}
