mod hostile;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, request};
use sluice_policy::l7::{Effects, HeaderAction, HeaderEffect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::answer::DeniedBy;
use crate::relay::rig::{Rig, Rules, quick};

/// Whoever waits longer than this waits for ever.
const SOON: Duration = Duration::from_secs(10);

type Taken = (Request<RecvStream>, SendResponse<Bytes>);

/// A client that speaks HTTP/2 through the relay.
struct Client {
    send: SendRequest<Bytes>,
    /// Its connection to the relay.
    connection: JoinHandle<Result<(), h2::Error>>,
    listener: TcpListener,
    rules: Arc<Rules>,
    changes: watch::Sender<u64>,
    end: JoinHandle<End>,
}

impl Client {
    async fn new() -> Self {
        Self::with(Settings::default(), Effects::new()).await
    }

    async fn with(settings: Settings, effects: Effects) -> Self {
        let Rig { client, listener, rules, changes, end } = Rig::with(settings, effects).await;
        client.set_nodelay(true).unwrap();
        let (send, connection) = h2::client::handshake(client).await.unwrap();
        Self { send, connection: tokio::spawn(connection), listener, rules, changes, end }
    }

    /// Sends a request that has no body.
    fn ask(&mut self, request: request::Builder) -> ResponseFuture {
        self.send.send_request(request.body(()).unwrap(), true).unwrap().0
    }

    /// Sends a request whose body follows.
    fn begin(&mut self, request: request::Builder) -> (ResponseFuture, SendStream<Bytes>) {
        self.send.send_request(request.body(()).unwrap(), false).unwrap()
    }

    /// The server, which is connected to when a request has passed.
    async fn server(&self) -> Server {
        let (stream, _) = timeout(SOON, self.listener.accept()).await.unwrap().unwrap();
        stream.set_nodelay(true).unwrap();
        Server::new(stream, h2::server::Builder::new())
    }

    /// How the relay ended by itself, and its records.
    async fn end(self) -> (End, Vec<String>) {
        let end = timeout(SOON, self.end).await.unwrap().unwrap();
        let log = self.rules.log.lock().unwrap().clone();
        (end, log)
    }

    /// How the relay ended when the client has no more requests, and its records.
    async fn leave(self) -> (End, Vec<String>) {
        let Self { send, rules, end, .. } = self;
        drop(send);
        let end = timeout(SOON, end).await.unwrap().unwrap();
        let log = rules.log.lock().unwrap().clone();
        (end, log)
    }

    fn log(&self) -> Vec<String> {
        self.rules.log.lock().unwrap().clone()
    }

    /// Waits until there are so many records.
    async fn logged(&self, wanted: &[&str]) {
        let all = async {
            while self.log().len() < wanted.len() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        drop(timeout(SOON, all).await);
        assert_eq!(self.log(), wanted);
    }
}

/// The server behind the relay.
struct Server {
    taken: mpsc::UnboundedReceiver<Taken>,
    leave: Option<mpsc::UnboundedSender<()>>,
    connection: JoinHandle<()>,
}

impl Server {
    fn new(stream: TcpStream, builder: h2::server::Builder) -> Self {
        let (sender, taken) = mpsc::unbounded_channel();
        let (leave, mut leaves) = mpsc::unbounded_channel();
        let connection = tokio::spawn(async move {
            let mut connection = builder.handshake(stream).await.unwrap();
            loop {
                tokio::select! {
                    accepted = connection.accept() => {
                        let Some(Ok(accepted)) = accepted else { return };
                        drop(sender.send(accepted));
                    }
                    Some(()) = leaves.recv() => connection.graceful_shutdown(),
                }
            }
        });
        Self { taken, leave: Some(leave), connection }
    }

    async fn next(&mut self) -> Taken {
        timeout(SOON, self.taken.recv()).await.unwrap().unwrap()
    }

    /// The next requests, in the order of these paths. Requests that come at once go on in any.
    async fn next_of<const N: usize>(&mut self, paths: [&str; N]) -> [Taken; N] {
        let mut taken = Vec::new();
        for _ in paths {
            taken.push(self.next().await);
        }
        taken.sort_by_key(|(request, _)| paths.iter().position(|path| *path == request.uri().path()));
        taken.try_into().unwrap()
    }

    /// Is gone from one moment to the next.
    async fn vanish(self) {
        self.connection.abort();
        assert!(self.connection.await.unwrap_err().is_cancelled());
    }
}

fn get(path: &str) -> request::Builder {
    Request::get(format!("http://web{path}"))
}

fn post(path: &str) -> request::Builder {
    Request::post(format!("http://web{path}"))
}

fn call(path: &str) -> request::Builder {
    post(path).header("content-type", "application/grpc+proto").header("te", "trailers")
}

/// All data and the trailers.
async fn whole(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        all.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    Ok((all, body.trailers().await?))
}

async fn text(response: Response<RecvStream>) -> String {
    String::from_utf8(whole(response.into_body()).await.unwrap().0).unwrap()
}

async fn answer(response: ResponseFuture) -> Response<RecvStream> {
    timeout(SOON, response).await.unwrap().unwrap()
}

/// The reason for which there is no answer.
async fn reset(response: ResponseFuture) -> Reason {
    let error = timeout(SOON, response).await.unwrap().unwrap_err();
    assert!(error.is_reset() && error.is_remote(), "{error}");
    error.reason().unwrap()
}

fn ok(respond: &mut SendResponse<Bytes>) -> SendStream<Bytes> {
    respond.send_response(Response::new(()), false).unwrap()
}

fn ok_bare(respond: &mut SendResponse<Bytes>) {
    respond.send_response(Response::new(()), true).unwrap();
}

/// Sends all of it, as it is taken.
async fn send_all(to: &mut SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        to.reserve_capacity(data.len());
        if to.capacity() == 0 {
            poll_fn(|cx| to.poll_capacity(cx)).await.unwrap().unwrap();
        }
        let length = to.capacity().min(data.len());
        to.send_data(data.split_to(length), false).unwrap();
    }
}

fn trailers(value: &str) -> HeaderMap {
    [("x-sum".parse().unwrap(), value.parse().unwrap())].into_iter().collect()
}

#[tokio::test]
async fn a_request_that_passes_is_what_was_judged() {
    let mut client = Client::new().await;
    let response = client.ask(get("/x/../a/%2e//b?q=1").header("x-one", "1").header("host", "WEB"));
    let mut server = client.server().await;
    let (request, mut respond) = server.next().await;
    assert_eq!(request.uri(), "http://web/a/b?q=1");
    assert_eq!(request.headers().len(), 1);
    assert_eq!(request.headers()["x-one"], "1");
    let head = Response::builder().status(201).header("x-two", "2").body(()).unwrap();
    respond.send_response(head, false).unwrap().send_data("made".into(), true).unwrap();
    let response = answer(response).await;
    assert_eq!((response.status().as_u16(), &response.headers()["x-two"]), (201, &"2".parse().unwrap()));
    assert_eq!(text(response).await, "made");
    assert_eq!(client.leave().await, (End::Closed, vec!["17-1 GET web/a/b?q=1 201 Forwarded".to_owned()]));
}

#[tokio::test]
async fn each_stream_of_a_connection_is_judged_alone() {
    let mut client = Client::new().await;
    let (first, second, third) = (client.ask(get("/a")), client.ask(get("/x/../no")), client.ask(get("/b")));
    let denied = answer(second).await;
    assert_eq!(denied.status(), 403);
    assert_eq!(denied.headers()["content-type"], "text/plain");
    assert_eq!(denied.headers()["x-sluice-flow"], "17-2");
    assert_eq!(text(denied).await, "Access denied\r\n");
    let mut server = client.server().await;
    let taken = server.next_of(["/a", "/b"]).await;
    for ((_, mut respond), response) in taken.into_iter().zip([first, third]) {
        ok_bare(&mut respond);
        assert_eq!(answer(response).await.status(), 200);
    }
    // The rules of the moment count.
    *client.rules.denied.lock().unwrap() = "/a";
    let response = client.ask(get("/a"));
    assert_eq!(answer(response).await.status(), 403);
    let response = client.ask(get("/no"));
    ok_bare(&mut server.next().await.1);
    assert_eq!(answer(response).await.status(), 200);
    let wanted = [
        "17-2 GET web/no 403 Denied",
        "17-1 GET web/a 200 Forwarded",
        "17-3 GET web/b 200 Forwarded",
        "17-4 GET web/a 403 Denied",
        "17-5 GET web/no 200 Forwarded",
    ];
    client.logged(&wanted).await;
}

#[tokio::test]
async fn a_refusal_is_in_the_manner_of_the_request() {
    let mut client = Client::new().await;
    let response = client.ask(Request::head("http://web/no"));
    let response = answer(response).await;
    assert_eq!((response.status().as_u16(), &response.headers()["content-length"]), (403, &15.into()));
    assert!(response.body().is_end_stream());
    drop(response);

    // Trailers alone: there is no data between the head and its end.
    let (response, mut body) = client.begin(call("/no.Service/Call"));
    body.send_data("unwanted".into(), true).unwrap();
    drop(body);
    let response = answer(response).await;
    assert_eq!(response.status(), 200);
    assert!(response.body().is_end_stream());
    let headers = response.headers();
    assert_eq!(headers["content-type"], "application/grpc");
    assert_eq!(
        (&headers["grpc-status"], &headers["grpc-message"]),
        (&7.into(), &"Access denied".parse().unwrap())
    );
    assert_eq!(headers["x-sluice-flow"], "17-2");
    drop(response);

    let by = DeniedBy { policy: Some("cnp/shop/web"), rule: None };
    *client.rules.denied_by.lock().unwrap() = Some(by);
    let (response, mut body) = client.begin(post("/no"));
    let response = answer(response).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let json: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!((&json["policy"], &json["flow"]), (&"cnp/shop/web".into(), &"17-3".into()));
    // Nobody wants the rest of the request.
    let reason = timeout(SOON, poll_fn(|cx| body.poll_reset(cx))).await.unwrap().unwrap();
    assert_eq!(reason, Reason::NO_ERROR);
    drop(body);

    // Nobody connects to a server for all of these.
    assert!(timeout(Duration::from_millis(20), client.listener.accept()).await.is_err());
    let wanted = [
        "17-1 HEAD web/no 403 Denied",
        "17-2 POST web/no.Service/Call 200 Denied",
        "17-3 POST web/no 403 Denied",
    ];
    assert_eq!(client.leave().await, (End::Closed, wanted.map(str::to_owned).to_vec()));
}

#[tokio::test]
async fn what_is_no_clear_request_is_refused() {
    let mut client = Client::new().await;
    let crowd = (0..120).fold(get("/a"), |request, nth| request.header(format!("x-{nth}"), "y"));
    let large = get("/a").header("x", "y".repeat(70_000));
    let cases = [
        (get("/a").header("host", "other"), 400),
        (get("/a").header("host", "web").header("host", "web"), 400),
        (Request::get("http://user@web/a"), 400),
        (get("/a%00"), 400),
        (get("/a/..;/no"), 400),
        (Request::builder().method("CONNECT").uri("web"), 400),
        (crowd, 431),
        (large, 431),
    ];
    for (request, status) in cases {
        let named = format!("{:?}", request.uri_ref());
        let response = client.ask(request);
        assert_eq!(answer(response).await.status(), status, "{named}");
    }
    assert!(timeout(Duration::from_millis(20), client.listener.accept()).await.is_err());
    assert_eq!(client.leave().await, (End::Closed, vec![]));
}

/// Bodies of both directions are whole, and not held: they are larger than all windows. Trailers come behind them.
#[tokio::test]
async fn large_bodies_and_trailers() {
    let mut client = Client::new().await;
    let body: Vec<u8> = (0..5_000_000_u32).map(|nth| u8::try_from(nth % 251).unwrap()).collect();
    let body = Bytes::from(body);
    let (response, mut up) = client.begin(post("/a"));
    let mut server = client.server().await;
    let echo = tokio::spawn(async move {
        let (request, mut respond) = server.next().await;
        // The answer begins before the request has ended, and goes along with it.
        let mut down = ok(&mut respond);
        let mut body = request.into_body();
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            send_all(&mut down, data).await;
        }
        let sent = body.trailers().await.unwrap().unwrap();
        assert_eq!((sent.len(), &sent["x-sum"]), (1, &"up".parse().unwrap()));
        down.send_trailers(trailers("down")).unwrap();
        server
    });
    let sent = body.clone();
    let upload = tokio::spawn(async move {
        send_all(&mut up, sent).await;
        // What counts in heads only does not go on in trailers.
        let mut trailers = trailers("up");
        trailers.insert("authorization", "root".parse().unwrap());
        up.send_trailers(trailers).unwrap();
    });
    let response = answer(response).await;
    let (got, trailers) = timeout(SOON, whole(response.into_body())).await.unwrap().unwrap();
    assert!(got == body);
    assert_eq!(trailers.unwrap()["x-sum"], "down");
    upload.await.unwrap();
    echo.await.unwrap();
    assert_eq!(client.log(), ["17-1 POST web/a 200 Forwarded"]);
}

/// A client that takes nothing holds back its server: what waits for it is bounded.
#[tokio::test]
async fn what_a_client_does_not_take_is_not_read() {
    const MUCH: usize = 16 << 20;
    let mut client = Client::new().await;
    let response = client.ask(get("/a"));
    let mut server = client.server().await;
    let (_, mut respond) = server.next().await;
    let mut down = ok(&mut respond);
    let response = answer(response).await;
    let mut written = 0;
    while written < MUCH {
        down.reserve_capacity(1 << 16);
        match timeout(Duration::from_millis(300), poll_fn(|cx| down.poll_capacity(cx))).await {
            Ok(room) => {
                let length = room.unwrap().unwrap();
                down.send_data(vec![b'x'; length].into(), false).unwrap();
                written += length;
            }
            Err(_) => break,
        }
    }
    assert!(written < 1 << 20, "the windows of both sides; written: {written}");
    down.send_data(Bytes::new(), true).unwrap();
    let (got, _) = timeout(SOON, whole(response.into_body())).await.unwrap().unwrap();
    assert_eq!(got.len(), written);
}

#[tokio::test]
async fn resets_go_both_ways_with_their_reason() {
    let mut client = Client::new().await;
    // Of the server, before an answer and in the middle of one.
    let response = client.ask(get("/a"));
    let mut server = client.server().await;
    server.next().await.1.send_reset(Reason::REFUSED_STREAM);
    assert_eq!(reset(response).await, Reason::REFUSED_STREAM);
    let response = client.ask(get("/b"));
    let mut respond = server.next().await.1;
    ok(&mut respond).send_data("half".into(), false).unwrap();
    let mut body = answer(response).await.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "half");
    respond.send_reset(Reason::INADEQUATE_SECURITY);
    let error = timeout(SOON, body.data()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INADEQUATE_SECURITY));
    // Of the client, before an answer, with the request on its way, and in the middle of the answer.
    let (_response, mut up) = client.begin(post("/c"));
    up.send_data("half".into(), false).unwrap();
    let (request, mut respond) = server.next().await;
    let mut body = request.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "half");
    up.send_reset(Reason::ENHANCE_YOUR_CALM);
    let error = timeout(SOON, body.data()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    let reason = poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
    assert_eq!(reason, Reason::ENHANCE_YOUR_CALM);
    let response = client.ask(get("/d"));
    let mut respond = server.next().await.1;
    let mut down = ok(&mut respond);
    let response = answer(response).await;
    drop(response);
    let reason = timeout(SOON, poll_fn(|cx| down.poll_reset(cx))).await.unwrap().unwrap();
    assert_eq!(reason, Reason::CANCEL);
    // The connection does without them.
    let response = client.ask(get("/e"));
    ok_bare(&mut server.next().await.1);
    assert_eq!(answer(response).await.status(), 200);
    let wanted = [
        "17-1 GET web/a - Failed",
        "17-2 GET web/b 200 Forwarded",
        "17-3 POST web/c - Failed",
        "17-4 GET web/d 200 Forwarded",
        "17-5 GET web/e 200 Forwarded",
    ];
    client.logged(&wanted).await;
}

/// A server may answer before it has read a request, and say that it wants no more of it.
#[tokio::test]
async fn an_early_answer_is_whole() {
    let mut client = Client::new().await;
    let (response, mut up) = client.begin(post("/a"));
    let mut server = client.server().await;
    let (request, mut respond) = server.next().await;
    ok(&mut respond).send_data("enough".into(), true).unwrap();
    drop((request, respond));
    assert_eq!(text(answer(response).await).await, "enough");
    let reason = timeout(SOON, poll_fn(|cx| up.poll_reset(cx))).await.unwrap().unwrap();
    assert_eq!(reason, Reason::NO_ERROR);
    assert_eq!(client.log(), ["17-1 POST web/a 200 Forwarded"]);
}

#[tokio::test]
async fn a_client_that_is_gone_is_not_waited_for() {
    let mut client = Client::new().await;
    let _waiting = client.ask(get("/a"));
    let (_sending, mut up) = client.begin(post("/b"));
    up.send_data("half".into(), false).unwrap();
    let mut server = client.server().await;
    let [(_, mut respond), (request, _respond)] = server.next_of(["/a", "/b"]).await;
    let mut body = request.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "half");
    client.connection.abort();
    assert_eq!(timeout(SOON, poll_fn(|cx| respond.poll_reset(cx))).await.unwrap().unwrap(), Reason::CANCEL);
    let error = timeout(SOON, body.data()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::CANCEL));
    let (end, mut log) = client.end().await;
    log.sort();
    assert_eq!(end, End::ClientGone);
    assert_eq!(log, ["17-1 GET web/a - Failed", "17-2 POST web/b - Failed"]);
}

#[tokio::test]
async fn servers_that_do_not_answer() {
    // Nobody listens.
    let mut client = Client::new().await;
    client.listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (plain, grpc) = (client.ask(get("/a")), client.ask(call("/s/m")));
    let plain = answer(plain).await;
    assert_eq!((plain.status().as_u16(), &plain.headers()["x-sluice-flow"]), (503, &"17-1".parse().unwrap()));
    let grpc = answer(grpc).await;
    assert_eq!((grpc.status().as_u16(), &grpc.headers()["grpc-status"]), (200, &14.into()));
    assert!(grpc.body().is_end_stream());
    let wanted = ["17-1 GET web/a 503 Failed", "17-2 POST web/s/m 200 Failed"];
    let (end, mut log) = client.end().await;
    log.sort();
    assert_eq!((end, log), (End::NoServer, wanted.map(str::to_owned).to_vec()));

    // It goes away without an answer, and in the middle of one.
    let mut client = Client::new().await;
    let (plain, grpc, begun) = (client.ask(get("/a")), client.ask(call("/s/m")), client.ask(get("/b")));
    let mut server = client.server().await;
    let [_plain, _grpc, (_, mut respond)] = server.next_of(["/a", "/s/m", "/b"]).await;
    let mut half = ok(&mut respond);
    half.send_data("half".into(), false).unwrap();
    let mut begun = answer(begun).await.into_body();
    assert_eq!(begun.data().await.unwrap().unwrap(), "half");
    server.vanish().await;
    assert_eq!(answer(plain).await.status(), 502);
    assert_eq!(answer(grpc).await.headers()["grpc-status"], "14");
    let error = timeout(SOON, begun.data()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    assert_eq!(client.end().await.0, End::ServerGone);

    // It speaks another protocol.
    let mut client = Client::new().await;
    let response = client.ask(get("/a"));
    let (mut stream, _) = client.listener.accept().await.unwrap();
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    assert_eq!(answer(response).await.status(), 502);
    assert_eq!(client.end().await, (End::ServerGone, vec!["17-1 GET web/a 502 Failed".to_owned()]));
}

/// The client learns that the server leaves, and what was begun is finished.
#[tokio::test]
async fn a_server_that_leaves_in_order() {
    let mut client = Client::new().await;
    let response = client.ask(get("/a"));
    let mut server = client.server().await;
    let (_, mut respond) = server.next().await;
    server.leave.take().unwrap().send(()).unwrap();
    let asks_for_more = async {
        while poll_fn(|cx| client.send.poll_ready(cx)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, asks_for_more).await.unwrap();
    ok(&mut respond).send_data("rest".into(), true).unwrap();
    assert_eq!(text(answer(response).await).await, "rest");
    timeout(SOON, &mut client.connection).await.unwrap().unwrap().unwrap();
    assert_eq!(client.end().await, (End::Closed, vec!["17-1 GET web/a 200 Forwarded".to_owned()]));
}

#[tokio::test]
async fn who_takes_too_long_is_not_waited_for() {
    // No request comes, or not even a whole preface.
    let client = Client::with(quick(), Effects::new()).await;
    assert_eq!(client.end().await, (End::HeadTimeout, vec![]));
    let mut rig = Rig::with(quick(), Effects::new()).await;
    rig.client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut got = Vec::new();
    rig.client.read_to_end(&mut got).await.unwrap();
    assert_eq!(rig.end.await.unwrap(), End::HeadTimeout);
    // A request that nobody answers, and an answer that does not go on.
    let mut client = Client::with(quick(), Effects::new()).await;
    let (plain, grpc, begun) = (client.ask(get("/a")), client.ask(call("/s/m")), client.ask(get("/b")));
    let mut server = client.server().await;
    let [_plain, _grpc, (_, mut respond)] = server.next_of(["/a", "/s/m", "/b"]).await;
    let _half = ok(&mut respond);
    let mut begun = answer(begun).await.into_body();
    assert_eq!(answer(plain).await.status(), 504);
    assert_eq!(answer(grpc).await.headers()["grpc-status"], "14");
    assert!(timeout(SOON, begun.data()).await.unwrap().unwrap().is_err());
    let (end, mut log) = client.end().await;
    log.sort();
    let wanted =
        ["17-1 GET web/a 504 Failed", "17-2 POST web/s/m 200 Failed", "17-3 GET web/b 200 Forwarded"];
    assert_eq!((end, log), (End::IdleTimeout, wanted.map(str::to_owned).to_vec()));
}

/// Its beginning is read by who does not know yet that it is HTTP/2.
#[tokio::test]
async fn a_preface_in_pieces() {
    let mut rig = Rig::new().await;
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        rig.client.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    // Settings, of which there are none, in two pieces; ours, and what says that theirs came.
    rig.client.write_all(&[0, 0, 0, 4]).await.unwrap();
    rig.client.write_all(&[0, 0, 0, 0, 0]).await.unwrap();
    let mut frames = Vec::new();
    while !frames.contains(&(4, 1)) {
        let mut head = [0; 9];
        timeout(SOON, rig.client.read_exact(&mut head)).await.unwrap().unwrap();
        let mut rest = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        rig.client.read_exact(&mut rest).await.unwrap();
        frames.push((head[3], head[4]));
    }
    assert_eq!(frames.first(), Some(&(4, 0)));
    rig.client.shutdown().await.unwrap();
    rig.client.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(rig.end.await.unwrap(), End::Closed);
    // What is no frame ends the connection.
    let mut rig = Rig::new().await;
    rig.client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(timeout(SOON, rig.end).await.unwrap().unwrap(), End::BrokenHttp2(Reason::FRAME_SIZE_ERROR));
}

#[tokio::test]
async fn effects_are_carried_out_or_nothing_goes_on() {
    let effect =
        |name: &str| HeaderEffect { action: HeaderAction::Add, name: name.to_owned(), value: b"v".to_vec() };
    let mut client = Client::with(Settings::default(), vec![effect("X-Token")]).await;
    let response = client.ask(get("/a"));
    let mut server = client.server().await;
    let (request, mut respond) = server.next().await;
    assert_eq!(request.headers()["x-token"], "v");
    ok_bare(&mut respond);
    answer(response).await;
    let mut client = Client::with(Settings::default(), vec![effect("Host")]).await;
    let response = client.ask(get("/a"));
    assert_eq!(answer(response).await.status(), 500);
    assert_eq!(client.leave().await, (End::Closed, vec!["17-1 GET web/a 500 Failed".to_owned()]));
}

/// A change of rules.
fn deny(client: &Client, what: &'static str) {
    *client.rules.denied.lock().unwrap() = what;
    client.changes.send_modify(|version| *version += 1);
}

#[tokio::test]
async fn a_tunnel_that_is_no_longer_allowed_is_reset() {
    let mut client = Client::new().await;
    let (response, mut up) = client.begin(Request::builder().method(Method::CONNECT).uri("web:443"));
    let mut server = client.server().await;
    let (request, mut respond) = server.next().await;
    assert_eq!((request.method(), request.uri().to_string().as_str()), (&Method::CONNECT, "web:443"));
    let mut from_client = request.into_body();
    ok(&mut respond).send_data("hello".into(), false).unwrap();
    let mut down = answer(response).await.into_body();
    assert_eq!(down.data().await.unwrap().unwrap(), "hello");
    // Another stream, which a change of rules does not touch.
    let other = client.ask(get("/no"));
    assert_eq!(answer(other).await.status(), 403);
    // A change that leaves the tunnel allowed does not touch it.
    deny(&client, "/other");
    up.send_data("more".into(), false).unwrap();
    assert_eq!(from_client.data().await.unwrap().unwrap(), "more");
    deny(&client, "");
    let error = timeout(SOON, down.data()).await.unwrap().unwrap().unwrap_err();
    assert_eq!((error.is_remote(), error.reason()), (true, Some(Reason::CANCEL)));
    assert!(timeout(SOON, from_client.data()).await.unwrap().unwrap().is_err());
    let wanted = [
        "17-1 CONNECT web:443 200 Forwarded",
        "17-2 GET web/no 403 Denied",
        "17-1 CONNECT web:443 - Revoked",
    ];
    client.logged(&wanted).await;
}

/// Only a server that says so gets requests for tunnels with a protocol.
#[tokio::test]
async fn a_tunnel_with_a_protocol() {
    let mut client = Client::new().await;
    assert!(!client.send.is_extended_connect_protocol_enabled());
    let response = client.ask(get("/a"));
    let (stream, _) = client.listener.accept().await.unwrap();
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    let mut server = Server::new(stream, builder);
    ok_bare(&mut server.next().await.1);
    answer(response).await;
    let offered = async {
        while !client.send.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, offered).await.unwrap();
    let tunnel = |path: &str| {
        let request = Request::builder().method(Method::CONNECT).uri(format!("http://web{path}"));
        request.extension(h2::ext::Protocol::from_static("websocket"))
    };
    let (denied, _up) = client.begin(tunnel("/no"));
    assert_eq!(answer(denied).await.status(), 403);
    let (response, mut up) = client.begin(tunnel("/x/../ws"));
    let (request, mut respond) = server.next().await;
    assert_eq!(request.uri().path(), "/ws");
    assert_eq!(request.extensions().get::<h2::ext::Protocol>().unwrap().as_str(), "websocket");
    up.send_data("ping".into(), false).unwrap();
    assert_eq!(request.into_body().data().await.unwrap().unwrap(), "ping");
    let mut down = ok(&mut respond);
    let mut got = answer(response).await.into_body();
    down.send_data("pong".into(), false).unwrap();
    assert_eq!(got.data().await.unwrap().unwrap(), "pong");
    deny(&client, "/ws");
    assert!(timeout(SOON, got.data()).await.unwrap().unwrap().is_err());
}

/// Requests that are reset before they are answered cost their server something: nobody may send them without end.
#[tokio::test]
async fn a_flood_of_resets_ends_the_connection() {
    let http2 = Http2Settings { resets_max: 20, ..Http2Settings::default() };
    let mut client = Client::with(Settings { http2, ..Settings::default() }, Effects::new()).await;
    let (mut server, mut held, mut sent) = (None, Vec::new(), 0);
    while !client.end.is_finished() && sent < 1_000 {
        if poll_fn(|cx| client.send.poll_ready(cx)).await.is_err() {
            break;
        }
        let request = get("/a").body(()).unwrap();
        let Ok((_response, mut stream)) = client.send.send_request(request, true) else { break };
        let server = match &mut server {
            Some(server) => server,
            None => server.insert(client.server().await),
        };
        let Ok(taken) = timeout(SOON, server.taken.recv()).await else { panic!("no request") };
        stream.send_reset(Reason::CANCEL);
        held.push(taken);
        sent += 1;
    }
    assert!((20..40).contains(&sent), "{sent}");
    assert_eq!(client.end().await.0, End::BrokenHttp2(Reason::ENHANCE_YOUR_CALM));
}

/// Streams that nobody takes do not stand in the way of others.
#[tokio::test]
async fn streams_that_are_not_taken_hold_back_nobody() {
    let Rig { client, listener, .. } = Rig::new().await;
    client.set_nodelay(true).unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(1 << 24);
    let (mut send, connection) = builder.handshake::<_, Bytes>(client).await.unwrap();
    tokio::spawn(connection);
    let mut ask = |path: &str| send.send_request(get(path).body(()).unwrap(), true).unwrap().0;
    let stuck: Vec<_> = (0..20).map(|_| ask("/stuck")).collect();
    let (stream, _) = listener.accept().await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut server = Server::new(stream, h2::server::Builder::new());
    let much = Bytes::from(vec![b'x'; 1 << 20]);
    let mut taken = Vec::new();
    for response in stuck {
        let mut down = ok(&mut server.next().await.1);
        let much = much.clone();
        tokio::spawn(async move { send_all(&mut down, much).await });
        // Its data is left where it is.
        taken.push(answer(response));
    }
    let mut bodies = Vec::new();
    for response in taken {
        bodies.push(response.await);
    }
    let response = ask("/a");
    let mut down = ok(&mut server.next().await.1);
    let sent = much.clone();
    tokio::spawn(async move {
        send_all(&mut down, sent).await;
        down.send_data(Bytes::new(), true).unwrap();
    });
    let (got, _) = timeout(SOON, whole(answer(response).await.into_body())).await.unwrap().unwrap();
    assert!(got == much);
}

/// The next stream waits until one has ended: the client is told how many there may be.
#[tokio::test]
async fn so_many_streams_at_once() {
    let http2 = Http2Settings { streams_max: 2, ..Http2Settings::default() };
    let mut client = Client::with(Settings { http2, ..Settings::default() }, Effects::new()).await;
    let first = client.ask(get("/a"));
    let mut server = client.server().await;
    let (_, mut first_respond) = server.next().await;
    let second = client.ask(get("/b"));
    let third = client.send.clone().send_request(get("/c").body(()).unwrap(), true).unwrap().0;
    let (_, mut second_respond) = server.next().await;
    assert!(timeout(Duration::from_millis(50), server.taken.recv()).await.is_err());
    ok_bare(&mut first_respond);
    assert_eq!(answer(first).await.status(), 200);
    let (request, mut third_respond) = server.next().await;
    assert_eq!(request.uri().path(), "/c");
    for (respond, response) in [(&mut second_respond, second), (&mut third_respond, third)] {
        ok_bare(respond);
        assert_eq!(answer(response).await.status(), 200);
    }
}

#[tokio::test]
async fn the_library_takes_a_connection_from_its_first_byte() {
    let rig = Rig::new().await;
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(front.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = front.accept().await.unwrap();
    let rules = Arc::clone(&rig.rules);
    let changes = rig.changes.subscribe();
    let end = tokio::spawn(async move {
        relay(accepted, BytesMut::new(), &*rules, &Settings::default(), changes, 3).await
    });
    let (mut send, connection) = h2::client::handshake(client).await.unwrap();
    let connection = tokio::spawn(connection);
    let response = send.send_request(get("/no").body(()).unwrap(), true).unwrap().0;
    assert_eq!(answer(response).await.headers()["x-sluice-flow"], "3-1");
    drop(send);
    connection.await.unwrap().unwrap();
    assert_eq!(end.await.unwrap(), End::Closed);
}
