//! `GET /metrics`, one request for each connection, on a thread that traffic does not know.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use sluice_client::exposition::CONTENT_TYPE;

use super::Metrics;

/// How long one reader may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much of a request is read.
const REQUEST_BYTES_MAX: u64 = 8 << 10;
/// How long nobody is answered after the kernel refused.
const PAUSE: Duration = Duration::from_millis(50);

/// Starts the thread that answers at `door`, for as long as the process lives.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn serve(door: UnixListener, metrics: Arc<Metrics>) -> io::Result<()> {
    let answer_all = move || {
        for stream in door.incoming() {
            match stream.and_then(|stream| answer(&stream, &metrics)) {
                Ok(()) => {}
                Err(error) => {
                    tracing::debug!(%error, "metrics were not read");
                    std::thread::sleep(PAUSE);
                }
            }
        }
    };
    std::thread::Builder::new().name("sluice-metrics".to_owned()).spawn(answer_all).map(drop)
}

fn answer(mut stream: &UnixStream, metrics: &Metrics) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.take(REQUEST_BYTES_MAX)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The rest of the head says nothing that matters.
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let (status, text) = match request.split(' ').collect::<Vec<_>>().as_slice() {
        ["GET", "/metrics", _] => ("200 OK", metrics.text()),
        _ => ("404 Not Found", String::new()),
    };
    let length = text.len();
    write!(
        stream,
        "HTTP/1.0 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {length}\r\n\r\n{text}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_at_their_path() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("metrics.sock");
        serve(UnixListener::bind(&place).unwrap(), Arc::new(Metrics::new())).unwrap();
        let ask = |request: &str| {
            let mut stream = UnixStream::connect(&place).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        let answer = ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        assert!(body.ends_with("\nsluice_proxy_handovers_total 0\n"), "{body}");
        for request in ["GET /other HTTP/1.1\r\n\r\n", "POST /metrics HTTP/1.1\r\n\r\n", "nonsense", ""] {
            assert!(ask(request).starts_with("HTTP/1.0 404 Not Found\r\n"), "{request:?}");
        }
    }
}
