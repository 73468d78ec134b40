//! How connections come to their begin and their end.

use super::*;

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

/// A stream on which nothing comes or goes ends, also where others are lively.
#[tokio::test]
async fn a_stream_that_is_silent() {
    let mut client = Client::with(quick(), Effects::new()).await;
    let (asked, begun) = (client.ask(get("/asked")), client.ask(get("/begun")));
    let (lively, mut up) = client.begin(post("/lively"));
    let mut server = client.server().await;
    let [(_, _asked), (_, mut begin), (request, mut respond)] =
        server.next_of(["/asked", "/begun", "/lively"]).await;
    let mut begun_by = ok(&mut begin);
    let mut begun = answer(begun).await.into_body();
    let mut body = request.into_body();
    let lives = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            up.send_data("x".into(), false).unwrap();
            assert_eq!(body.data().await.unwrap().unwrap(), "x");
            body.flow_control().release_capacity(1).unwrap();
        }
    };
    let silent = async {
        assert_eq!(answer(asked).await.status(), 504);
        let error = timeout(SOON, begun.data()).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        assert_eq!(poll_fn(|cx| begun_by.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
    };
    tokio::select! {
        () = lives => {}
        () = silent => {}
    }
    up.send_data("end".into(), true).unwrap();
    assert_eq!(body.data().await.unwrap().unwrap(), "end");
    ok_bare(&mut respond);
    assert_eq!(answer(lively).await.status(), 200);
    let mut log = client.log();
    log.sort();
    let wanted = [
        "17-1 GET web/asked 504 Failed",
        "17-2 GET web/begun 200 Forwarded",
        "17-3 POST web/lively 200 Forwarded",
    ];
    assert_eq!(log, wanted);
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

#[tokio::test]
async fn the_library_takes_a_connection_from_its_first_byte() {
    let rig = Rig::new().await;
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(front.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = front.accept().await.unwrap();
    let rules = Arc::clone(&rig.rules);
    let signals = Signals { changes: rig.changes.subscribe(), leaving: rig.leaving.subscribe() };
    let end = tokio::spawn(async move {
        relay(accepted, BytesMut::new(), &*rules, &Settings::default(), signals, 3).await
    });
    let (mut send, connection) = h2::client::handshake(client).await.unwrap();
    let connection = tokio::spawn(connection);
    let response = send.send_request(get("/no").body(()).unwrap(), true).unwrap().0;
    assert_eq!(answer(response).await.headers()["x-sluice-flow"], "3-1");
    drop(send);
    connection.await.unwrap().unwrap();
    assert_eq!(end.await.unwrap(), End::Closed);
}
