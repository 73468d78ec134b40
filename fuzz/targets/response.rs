//! A server's answers, whole and cut: the client gets the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_l7proxy::http1::{Exchange, Limits, Parsed, parse_request};

/// What the client gets of what the server sends, `step` bytes more each time, and whether it was read to its end.
fn answered(request: &[u8], bytes: &[u8], step: usize) -> (Vec<u8>, bool) {
    let mut exchange = Exchange::default();
    let Ok(Parsed::Request(head)) = parse_request(request, Limits::default()) else { unreachable!() };
    exchange.allow(&head);
    let (mut consumed, mut came, mut sent) = (0, 0, Vec::new());
    while came < bytes.len() {
        came = (came + step).min(bytes.len());
        loop {
            let now = &bytes[consumed..came];
            match exchange.from_server(now) {
                Err(_) => return (sent, false),
                Ok(None) => break,
                Ok(Some(pass)) => {
                    assert!(pass.forward <= pass.consumed && pass.consumed <= now.len());
                    sent.extend(&now[..pass.forward]);
                    sent.extend(pass.trailer);
                    consumed += pass.consumed;
                }
            }
        }
    }
    (sent, true)
}

fuzz_target!(|bytes: &[u8]| {
    for request in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let whole = answered(request, bytes, bytes.len().max(1));
        let cut = answered(request, bytes, 1);
        // A message that is broken somewhere is seen to be later, or only with the bytes that would follow, when it comes
        // in pieces.
        assert!(cut.0.starts_with(&whole.0), "{cut:?} and not {whole:?}");
        assert!(!whole.1 || cut == whole, "{cut:?} and not {whole:?}");
    }
});
