//! Requests that servers read in different ways, through us and through the proxies that people run: what the client is
//! told, and what reaches the server. No row of a benchmark: a table for `docs/smuggling.md`.
//!
//! All have the rule of the benchmarks: GET of `/a/.*` passes, everything else is denied.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Lab, Proxy};
use crate::report::write_out;

/// A server that keeps what it is sent.
const WITNESS: u16 = 9_010;
/// How long an answer, or a byte at the server, is waited for.
const PATIENCE: Duration = Duration::from_millis(300);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A name, and what the client sends; `{}` in it stands for nothing.
type Vector = (&'static str, fn() -> String);

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn with(headers: &str, rest: &str) -> String {
    format!("GET /a/x HTTP/1.1\r\nHost: a\r\n{headers}\r\n{rest}")
}

const VECTORS: &[Vector] = &[
    ("plain GET of an allowed path", || get("/a/x")),
    ("GET of another path", || get("/b")),
    ("Content-Length and Transfer-Encoding", || {
        with("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")
    }),
    ("Content-Length twice, the same", || with("Content-Length: 2\r\nContent-Length: 2\r\n", "ab")),
    ("Content-Length: 2, 2", || with("Content-Length: 2, 2\r\n", "ab")),
    ("Content-Length: +2", || with("Content-Length: +2\r\n", "ab")),
    ("Content-Length: 0x2", || with("Content-Length: 0x2\r\n", "ab")),
    ("Content-Length above 2^64", || with("Content-Length: 18446744073709551618\r\n", "ab")),
    ("Transfer-Encoding: identity, chunked", || {
        with("Transfer-Encoding: identity, chunked\r\n", "0\r\n\r\n")
    }),
    ("Transfer-Encoding: chunked, identity", || {
        with("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n")
    }),
    ("Transfer-Encoding twice", || {
        with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")
    }),
    ("Transfer-Encoding with a space before the colon", || {
        with("Transfer-Encoding : chunked\r\n", "0\r\n\r\n")
    }),
    ("Transfer-Encoding in HTTP/1.0", || {
        "GET /a/x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()
    }),
    ("a folded header", || with("X: a\r\n b\r\n", "")),
    ("lines that end in LF", || "GET /a/x HTTP/1.1\nHost: a\n\n".to_owned()),
    ("a bare CR in a value", || with("X: a\rb\r\n", "")),
    ("NUL in a value", || with("X: a\0b\r\n", "")),
    ("no Host", || "GET /a/x HTTP/1.1\r\n\r\n".to_owned()),
    ("two Hosts", || with("Host: b\r\n", "")),
    ("absolute form, another host", || get("http://b/a/x")),
    ("/a/../b", || get("/a/../b")),
    ("/a/%2e%2e/b", || get("/a/%2e%2e/b")),
    ("/a/..%2fb", || get("/a/..%2fb")),
    ("/a/..\\b", || get("/a/..\\b")),
    ("/a/%252e%252e/b", || get("/a/%252e%252e/b")),
    ("//a/x", || get("//a/x")),
    ("/%61/x", || get("/%61/x")),
    ("/a/%00", || get("/a/%00")),
    ("/a/x#y", || get("/a/x#y")),
    ("raw UTF-8 in the path", || get("/a/\u{e9}")),
    ("a chunk's size ends in LF", || with("Transfer-Encoding: chunked\r\n", "2\nab\r\n0\r\n\r\n")),
    ("a chunk's size is 0x2", || with("Transfer-Encoding: chunked\r\n", "0x2\r\nab\r\n0\r\n\r\n")),
    ("a chunk's size above 2^64", || {
        with("Transfer-Encoding: chunked\r\n", "10000000000000002\r\nab\r\n0\r\n\r\n")
    }),
    ("Content-Length in a trailer", || {
        with("Transfer-Encoding: chunked\r\n", "0\r\nContent-Length: 5\r\n\r\n")
    }),
    ("Upgrade: h2c", || {
        with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", "")
    }),
    ("two spaces in the request line", || "GET  /a/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
    ("HTTP/1.2", || "GET /a/x HTTP/1.2\r\nHost: a\r\n\r\n".to_owned()),
    ("a header of 70 KB", || with(&format!("X: {}\r\n", "a".repeat(70_000)), "")),
    ("150 headers", || with(&"X: a\r\n".repeat(150), "")),
    ("pipelined: allowed, denied", || get("/a/x") + &get("/b")),
    ("Expect: 100-continue of a denied request", || {
        "GET /b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n".to_owned()
    }),
];

/// Prints the table, one row for each vector and one column for each proxy.
pub(crate) fn run() -> Result<()> {
    let lab = Lab::new()?;
    let witness = Witness::start(&lab)?;
    let proxies =
        [Proxy::Sluice { rules: 1, records: false }, Proxy::Envoy { rules: 1 }, Proxy::Haproxy, Proxy::Nginx];
    let mut running = Vec::new();
    for (nth, proxy) in (0_u16..).zip(proxies) {
        running.push((lab.start_before(proxy, 10_020 + nth, WITNESS, false)?, 10_020 + nth));
    }
    witness.taken();
    let names: Vec<String> = proxies.iter().map(|proxy| proxy.name()).collect();
    write_out(&format!("| request | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len())));
    for (name, text) in VECTORS {
        let mut cells = Vec::new();
        for (_, port) in &running {
            let statuses = ask(&lab, *port, text().as_bytes())?;
            cells.push(summary(&statuses, &witness.taken()));
        }
        write_out(&format!("| {} | {} |\n", name.replace('\\', "\\\\"), cells.join(" | ")));
    }
    Ok(())
}

/// The statuses that the client gets.
fn ask(lab: &Lab, port: u16, bytes: &[u8]) -> Result<String> {
    let answer = lab.netns.enter(|| -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = Vec::new();
        // A proxy that has seen enough closes while it is written to, and is silent when it waits for more: what it
        // said until then counts.
        drop(stream.write_all(bytes));
        drop(stream.read_to_end(&mut answer));
        drop(stream.shutdown(Shutdown::Both));
        Ok(answer)
    })??;
    let text = String::from_utf8_lossy(&answer);
    let is_status = |line: &&str| line.starts_with("HTTP/1.");
    let statuses: Vec<&str> = text
        .split("\r\n")
        .flat_map(|line| line.find("HTTP/1.").and_then(|at| line.get(at..)))
        .filter(is_status)
        .collect();
    let codes: Vec<&str> = statuses.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    Ok(codes.join(", "))
}

/// What became of a vector: the statuses, and the targets that reached the server.
fn summary(statuses: &str, reached: &str) -> String {
    let requests: Vec<&str> = reached.lines().filter(|line| line.contains(" HTTP/1.")).collect();
    let targets: Vec<&str> = requests.iter().filter_map(|line| line.split_whitespace().nth(1)).collect();
    let left: Vec<&str> = ["upgrade:", "transfer-encoding:", "content-length:", "expect:"]
        .into_iter()
        .filter(|name| reached.lines().any(|line| line.to_ascii_lowercase().starts_with(name)))
        .map(|name| name.trim_end_matches(':'))
        .collect();
    let status = if statuses.is_empty() { "closed or silent" } else { statuses };
    let kept = if left.is_empty() { String::new() } else { format!(" with {}", left.join(", ")) };
    if targets.is_empty() { status.to_owned() } else { format!("{status}: `{}`{kept}", targets.join("`, `")) }
}

/// A server that answers every read with 200, and tells what it was sent.
struct Witness {
    came: Receiver<Vec<u8>>,
}

impl Witness {
    fn start(lab: &Lab) -> Result<Self> {
        let listener = lab.netns.enter(|| TcpListener::bind(("127.0.0.1", WITNESS)))?.context("listen")?;
        let (sender, came) = channel();
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sender = sender.clone();
                std::thread::spawn(move || serve(stream, &mut |bytes| sender.send(bytes.to_vec()).is_ok()));
            }
        });
        Ok(Self { came })
    }

    /// All that came since the last time.
    fn taken(&self) -> String {
        let mut all = Vec::new();
        while let Ok(bytes) = self.came.recv_timeout(PATIENCE / 3) {
            all.extend(bytes);
        }
        String::from_utf8_lossy(&all).into_owned()
    }
}

fn serve(mut stream: TcpStream, tell: &mut dyn FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 128 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        let is_told = buffer.get(..length).is_some_and(&mut *tell);
        if !is_told || stream.write_all(OK).is_err() {
            return;
        }
    }
}
