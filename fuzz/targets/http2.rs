//! Frames of HTTP/2 and their compressed heads, from a client and from a server. The connection ends, whatever they are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_fuzz::{Open, Pipe};
use sluice_l7proxy::relay::{Settings, Signals, relay};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

fuzz_target!(|bytes: &[u8]| {
    let Some((share, bytes)) = bytes.split_first() else { return };
    let (client, server) = bytes.split_at(bytes.len() * usize::from(*share) / 255);
    let answer = [SETTINGS, server].concat();
    // Time stands still until nobody has anything to do: then it is the time of the next timeout.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let (own, mut other) = tokio::io::duplex(1 << 20);
        other.write_all(&[PREFACE, client].concat()).await.expect("it fits");
        let taken = tokio::spawn(async move {
            tokio::io::copy(&mut other, &mut tokio::io::sink()).await.ok();
        });
        let (changes, leaving) = (watch::Sender::new(0), watch::Sender::new(()));
        let signals = Signals { changes: changes.subscribe(), leaving: leaving.subscribe() };
        relay(Pipe(own), &Open { answer: &answer }, &Settings::default(), signals, 1).await;
        taken.abort();
    });
});
