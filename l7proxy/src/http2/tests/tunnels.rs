//! Tunnels, in which nothing is judged any more.

use super::*;

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

#[tokio::test]
async fn a_tunnel_that_is_denied_before_it_is_open() {
    let mut client = Client::new().await;
    let (response, _up) = client.begin(Request::builder().method(Method::CONNECT).uri("web:443"));
    let mut server = client.server().await;
    let (_, mut respond) = server.next().await;
    deny(&client, "");
    assert_eq!(reset(response).await, Reason::CANCEL);
    assert_eq!(timeout(SOON, poll_fn(|cx| respond.poll_reset(cx))).await.unwrap().unwrap(), Reason::CANCEL);
    assert_eq!(client.log(), ["17-1 CONNECT web:443 - Revoked"]);
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
