mod bodies;
mod ends;
mod hostile;
mod leaving;
mod tunnels;

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
    leaving: watch::Sender<()>,
    end: JoinHandle<End>,
}

impl Client {
    async fn new() -> Self {
        Self::with(Settings::default(), Effects::new()).await
    }

    async fn with(settings: Settings, effects: Effects) -> Self {
        let Rig { client, listener, rules, changes, leaving, end } = Rig::with(settings, effects).await;
        client.set_nodelay(true).unwrap();
        let (send, connection) = h2::client::handshake(client).await.unwrap();
        Self { send, connection: tokio::spawn(connection), listener, rules, changes, leaving, end }
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

/// A client that waits for leave to go on gets the server's.
#[tokio::test]
async fn interim_responses_are_passed_on() {
    let mut client = Client::new().await;
    let (mut response, mut up) = client.begin(post("/a").header("expect", "100-continue"));
    let mut server = client.server().await;
    let (request, mut respond) = server.next().await;
    for status in [100, 103] {
        let interim = Response::builder().status(status).header("link", "</style.css>").body(()).unwrap();
        respond.send_informational(interim).unwrap();
        let got = timeout(SOON, poll_fn(|cx| response.poll_informational(cx))).await.unwrap();
        let got = got.unwrap().unwrap();
        assert_eq!(
            (got.status().as_u16(), &got.headers()["link"]),
            (status, &"</style.css>".parse().unwrap())
        );
    }
    up.send_data("all".into(), true).unwrap();
    assert_eq!(whole(request.into_body()).await.unwrap().0, b"all");
    ok_bare(&mut respond);
    assert_eq!(answer(response).await.status(), 200);
    assert_eq!(client.log(), ["17-1 POST web/a 200 Forwarded"]);
}

/// A client that does not read them must not make them wait here without end.
#[tokio::test]
async fn so_many_interim_responses() {
    let mut client = Client::new().await;
    let interim = |status: u16| Response::builder().status(status).body(()).unwrap();
    let (many, switched) = (client.ask(get("/many")), client.ask(get("/switched")));
    let mut server = client.server().await;
    let [(_, mut to_many), (_, mut to_switched)] = server.next_of(["/many", "/switched"]).await;
    for _ in 0..17 {
        to_many.send_informational(interim(102)).unwrap();
    }
    to_switched.send_informational(interim(101)).unwrap();
    for (response, respond) in [(many, &mut to_many), (switched, &mut to_switched)] {
        assert_eq!(answer(response).await.status(), 502);
        let reason = timeout(SOON, poll_fn(|cx| respond.poll_reset(cx))).await.unwrap().unwrap();
        assert_eq!(reason, Reason::CANCEL);
    }
    let mut log = client.log();
    log.sort();
    assert_eq!(log, ["17-1 GET web/many 502 Failed", "17-2 GET web/switched 502 Failed"]);
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

/// Settings that HTTP/2 has no numbers for are those nearest to them, and nothing panics.
#[tokio::test]
async fn settings_beyond_what_there_is() {
    for (bytes, frame_bytes) in [(u32::MAX, u32::MAX), (1 << 31, 0)] {
        let http2 = Http2Settings {
            stream_window_bytes: bytes,
            connection_window_bytes: bytes,
            frame_bytes,
            send_buffer_bytes: usize::MAX,
            ..Http2Settings::default()
        };
        let mut client = Client::with(Settings { http2, ..Settings::default() }, Effects::new()).await;
        let response = client.ask(get("/a"));
        ok_bare(&mut client.server().await.next().await.1);
        assert_eq!(answer(response).await.status(), 200);
    }
}
