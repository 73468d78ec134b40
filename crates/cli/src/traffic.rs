//! A tiny server and a tiny client, so that trying a policy needs nothing installed.
//!
//! The server answers whoever speaks to it with its name, over TCP and UDP, and speaks enough HTTP for curl. Used by
//! `sluice demo` and by people inside pods.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluice_netlink::Netns;

use crate::args::{ProbeArgs, ServeArgs};
use crate::failure::{Exit, Failure, io};
use crate::output::Output;

/// Connections that are served at once; more wait in the listener.
const CONNECTIONS_MAX: usize = 256;
/// How long a connection may say nothing.
const IDLE_MAX: Duration = Duration::from_secs(300);
const QUESTION_BYTES_MAX: usize = 2048;

/// Serves until it is killed.
pub(crate) fn serve(arguments: &ServeArgs) -> Result<(), Failure> {
    let name: Arc<str> = arguments.name.as_str().into();
    let mut workers = Vec::new();
    for port in &arguments.ports {
        let address = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), *port);
        let listener = TcpListener::bind(address).map_err(io(format!("listening on TCP port {port}")))?;
        let socket = UdpSocket::bind(address).map_err(io(format!("listening on UDP port {port}")))?;
        let (own, other) = (Arc::clone(&name), Arc::clone(&name));
        workers.push(std::thread::spawn(move || serve_tcp(&listener, &own)));
        workers.push(std::thread::spawn(move || serve_udp(&socket, &other)));
    }
    for worker in workers {
        if worker.join().is_err() {
            return Err(Failure::error("a server thread ended"));
        }
    }
    Ok(())
}

/// Serves in `netns` for as long as this process lives.
pub(crate) fn serve_in(netns: &Netns, name: &str, ports: &[u16]) -> Result<(), Failure> {
    let name: Arc<str> = name.into();
    for port in ports {
        let address = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), *port);
        let listener = netns.run(|| TcpListener::bind(address)).map_err(io("entering a namespace"))?;
        let listener = listener.map_err(io(format!("listening on TCP port {port}")))?;
        let own = Arc::clone(&name);
        std::thread::spawn(move || serve_tcp(&listener, &own));
    }
    Ok(())
}

fn serve_tcp(listener: &TcpListener, name: &Arc<str>) {
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        if connections.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let Ok((stream, _)) = listener.accept() else { continue };
        let (name, count) = (Arc::clone(name), Arc::clone(&connections));
        count.fetch_add(1, Ordering::Relaxed);
        std::thread::spawn(move || {
            // A client that goes away ends its connection, nothing more.
            let _ended = answer(stream, &name);
            count.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn answer(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IDLE_MAX))?;
    let mut question = [0; QUESTION_BYTES_MAX];
    loop {
        let length = stream.read(&mut question)?;
        let asked = question.get(..length).unwrap_or_default();
        if asked.is_empty() {
            return Ok(());
        }
        let text = format!("{name}\n");
        if is_http(asked) {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                text.len()
            );
            let body = if asked.starts_with(b"HEAD ") { "" } else { text.as_str() };
            return stream.write_all(format!("{head}{body}").as_bytes());
        }
        stream.write_all(text.as_bytes())?;
    }
}

/// Whether the first line is that of a request.
fn is_http(asked: &[u8]) -> bool {
    let line = asked.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.trim_ascii_end().ends_with(b" HTTP/1.1") || line.trim_ascii_end().ends_with(b" HTTP/1.0")
}

fn serve_udp(socket: &UdpSocket, name: &str) {
    let mut question = [0; QUESTION_BYTES_MAX];
    loop {
        if let Ok((_, peer)) = socket.recv_from(&mut question) {
            // An answer that cannot be sent is one that is lost.
            let _lost = socket.send_to(format!("{name}\n").as_bytes(), peer);
        }
    }
}

/// What became of one attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// The server answered, with this name.
    Answered {
        /// Its name.
        name: String,
        /// From the first packet to the answer.
        took: Duration,
    },
    /// A request was answered with this status.
    Status {
        /// The status.
        status: u16,
        /// From the first packet to the answer.
        took: Duration,
    },
    /// Nothing came back.
    Silence,
    /// Nobody listens there.
    Refused,
    /// Something else.
    Failed(String),
}

impl Outcome {
    fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{ConnectionRefused, TimedOut, WouldBlock};
        let kind = error.kind();
        if kind == TimedOut || kind == WouldBlock {
            Self::Silence
        } else if kind == ConnectionRefused {
            Self::Refused
        } else {
            Self::Failed(error.to_string())
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "an edge: how long an answer took is what is measured")]
fn now() -> Instant {
    Instant::now()
}

/// Connects, asks, and waits for the answer, from the namespace of the calling thread.
pub(crate) fn ask_tcp(target: SocketAddr, patience: Duration) -> Outcome {
    let start = now();
    match TcpStream::connect_timeout(&target, patience) {
        Ok(mut stream) => converse(&mut stream, start, patience),
        Err(error) => Outcome::of(&error),
    }
}

/// Connects, sends one HTTP request (`GET /path`), and waits for the status of the answer.
pub(crate) fn ask_http(target: SocketAddr, request: &str, patience: Duration) -> Outcome {
    let start = now();
    let exchange = || {
        let mut stream = TcpStream::connect_timeout(&target, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(
            format!("{request} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    match exchange() {
        Ok(answer) => {
            let text = String::from_utf8_lossy(&answer);
            match text.split(' ').nth(1).and_then(|status| status.parse().ok()) {
                Some(status) => Outcome::Status { status, took: start.elapsed() },
                None => Outcome::Failed("there was no answer to the request".to_owned()),
            }
        }
        Err(error) => Outcome::of(&error),
    }
}

/// Asks once more on an open connection.
pub(crate) fn ask_again(stream: &mut TcpStream, patience: Duration) -> Outcome {
    converse(stream, now(), patience)
}

fn converse(stream: &mut TcpStream, start: Instant, patience: Duration) -> Outcome {
    let mut exchange = || {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(b"who are you?\n")?;
        let mut answer = [0; 256];
        let length = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).trim().to_owned())
    };
    match exchange() {
        Ok(name) => Outcome::Answered { name, took: start.elapsed() },
        Err(error) => Outcome::of(&error),
    }
}

fn ask_udp(target: SocketAddr, patience: Duration) -> Outcome {
    let start = now();
    let exchange = || {
        let any: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(target)?;
        socket.set_read_timeout(Some(patience))?;
        socket.send(b"who are you?\n")?;
        let mut answer = [0; 256];
        let length = socket.recv(&mut answer)?;
        Ok(String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).trim().to_owned())
    };
    match exchange() {
        Ok(name) => Outcome::Answered { name, took: start.elapsed() },
        Err(error) => Outcome::of(&error),
    }
}

/// `sluice probe`: one attempt, exit 0 if it was answered.
pub(crate) fn run(arguments: &ProbeArgs, output: &mut Output) -> Result<(), Failure> {
    let patience = Duration::from_millis(arguments.timeout_ms.max(1));
    let outcome =
        if arguments.udp { ask_udp(arguments.target, patience) } else { ask_tcp(arguments.target, patience) };
    let target = arguments.target;
    match outcome {
        Outcome::Answered { name, took } => {
            writeln!(output, "{target} answered: {name} ({})", milliseconds(took))?;
            Ok(())
        }
        Outcome::Status { status, .. } => {
            Err(Failure::error(format!("{target} answered with HTTP {status}")))
        }
        Outcome::Silence => Err(Failure::new(
            Exit::Error,
            format!("{target} did not answer within {} ms", patience.as_millis()),
        )
        .hint("`sluice monitor` says whether a policy is the reason.")),
        Outcome::Refused => {
            Err(Failure::error(format!("{target} was reached, but nobody listens on that port")))
        }
        Outcome::Failed(reason) => Err(Failure::error(format!("{target}: {reason}"))),
    }
}

/// `0.4 ms`.
pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_and_client_understand_each_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (tcp, udp) = (listener.local_addr().unwrap(), socket.local_addr().unwrap());
        let name: Arc<str> = "shop/web".into();
        let other = Arc::clone(&name);
        std::thread::spawn(move || serve_tcp(&listener, &name));
        std::thread::spawn(move || serve_udp(&socket, &other));
        let patience = Duration::from_secs(5);
        for outcome in [ask_tcp(tcp, patience), ask_udp(udp, patience)] {
            assert!(matches!(&outcome, Outcome::Answered { name, .. } if name == "shop/web"), "{outcome:?}");
        }
        let mut stream = TcpStream::connect(tcp).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let outcome = ask_http(tcp, "DELETE /a", patience);
        assert!(matches!(outcome, Outcome::Status { status: 200, .. }), "{outcome:?}");
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nshop/web\n"),
            "{answer}"
        );
    }

    #[test]
    fn a_closed_port_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(ask_tcp(address, Duration::from_secs(5)), Outcome::Refused);
    }
}
