//! A proxy that is to leave, and what its clients notice.

use super::*;

/// The client is told, what it has begun is brought to its end, and then the connection ends.
#[tokio::test]
async fn streams_go_on_while_leaving() {
    let mut client = Client::new().await;
    let response = client.ask(get("/a"));
    let mut server = client.server().await;
    let (_, mut respond) = server.next().await;
    client.leaving.send_replace(());
    let asks_for_more = async {
        while poll_fn(|cx| client.send.poll_ready(cx)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, asks_for_more).await.unwrap();
    ok(&mut respond).send_data("rest".into(), true).unwrap();
    let mut body = answer(response).await.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "rest");
    let (end, log) = client.end().await;
    assert_eq!((end, log), (End::Closed, vec!["17-1 GET web/a 200 Forwarded".to_owned()]));
}

/// A request that was on its way when the client was told is answered.
#[tokio::test]
async fn no_request_is_lost_while_leaving() {
    let mut client = Client::new().await;
    let first = client.ask(get("/a"));
    let mut server = client.server().await;
    let (_, mut respond) = server.next().await;
    ok(&mut respond).send_data("1".into(), true).unwrap();
    assert_eq!(answer(first).await.status(), 200);
    client.leaving.send_replace(());
    let second = client.ask(get("/b"));
    let (_, mut respond) = server.next().await;
    ok(&mut respond).send_data("2".into(), true).unwrap();
    assert_eq!(answer(second).await.status(), 200);
    assert_eq!(client.end().await.0, End::Closed);
}

#[tokio::test]
async fn a_connection_without_streams_ends_when_its_client_knows() {
    let mut client = Client::new().await;
    let first = client.ask(get("/no"));
    assert_eq!(answer(first).await.status(), 403);
    client.leaving.send_replace(());
    assert_eq!(client.end().await.0, End::Closed);
}
