//! What follows the heads: data, trailers, and what breaks them off.

use super::*;

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

/// A request that its server has answered, but does not read, may still be reset.
#[tokio::test]
async fn a_reset_behind_the_answer() {
    let mut client = Client::new().await;
    let (response, mut up) = client.begin(post("/a"));
    let mut server = client.server().await;
    let (request, mut respond) = server.next().await;
    let mut down = ok(&mut respond);
    down.send_data("enough".into(), true).unwrap();
    assert_eq!(text(answer(response).await).await, "enough");
    let much = Bytes::from(vec![b'x'; 1 << 20]);
    assert!(timeout(Duration::from_millis(100), send_all(&mut up, much)).await.is_err());
    up.send_reset(Reason::ENHANCE_YOUR_CALM);
    let reason = timeout(SOON, poll_fn(|cx| down.poll_reset(cx))).await.unwrap().unwrap();
    assert_eq!(reason, Reason::ENHANCE_YOUR_CALM);
    drop(request);
}

/// A client that sends on gets its answer behind what it sends, as servers do; if that is much, its stream is reset then.
#[tokio::test]
async fn what_a_refused_client_still_sends() {
    let mut client = Client::new().await;
    for length in [10, 60_000] {
        let (response, mut up) = client.begin(post("/no"));
        send_all(&mut up, vec![b'x'; length].into()).await;
        up.send_data(Bytes::new(), true).unwrap();
        assert_eq!(answer(response).await.status(), 403);
        // Both sides have ended it: nobody resets it.
        drop(up);
    }
    let (response, mut up) = client.begin(post("/no"));
    let much = send_all(&mut up, vec![b'x'; 100_000].into());
    assert!(timeout(Duration::from_millis(500), much).await.is_err(), "a window is taken, and no more");
    assert_eq!(answer(response).await.status(), 403);
    let reason = timeout(SOON, poll_fn(|cx| up.poll_reset(cx))).await.unwrap().unwrap();
    assert_eq!(reason, Reason::NO_ERROR);
    drop(up);
    assert_eq!(client.leave().await.0, End::Closed);
}

/// Who waits for leave to send the rest is told at once.
#[tokio::test]
async fn a_refused_client_that_waits() {
    let mut client = Client::new().await;
    let (first, _first_up) = client.begin(post("/no/first"));
    let (second, _second_up) = client.begin(post("/no/second").header("expect", "100-continue"));
    for response in [first, second] {
        assert_eq!(answer(response).await.status(), 403);
    }
    assert_eq!(client.log(), ["17-2 POST web/no/second 403 Denied", "17-1 POST web/no/first 403 Denied"]);
}
