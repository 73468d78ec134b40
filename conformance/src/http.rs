//! A server of HTTP/1 that says whom it sees, and a client that says exactly what it got.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::netns::Netns;

/// How long a client waits.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a server looks whether it is to end.
const STEP: Duration = Duration::from_millis(5);

/// Servers at some addresses and ports. Each answers every request with 200, and with the address that it sees and the
/// request line as the body; what it gets after an upgrade it sends back. Where the path ends with `?wait=N` the answer
/// takes N milliseconds. They end when dropped.
#[derive(Debug)]
pub struct HttpServer {
    requests: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl HttpServer {
    /// Serves in the namespace.
    ///
    /// # Errors
    /// An address is not there, or a port is taken.
    pub fn start(netns: &Netns, addresses: &[IpAddr], ports: &[u16]) -> Result<Self> {
        let places = addresses.iter().flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port)));
        let places: Vec<SocketAddr> = places.collect();
        let listeners = netns.run(|| {
            let open = |place: &SocketAddr| {
                let listener = TcpListener::bind(place).with_context(|| format!("listening at {place}"))?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            };
            places.iter().map(open).collect::<Result<Vec<_>>>()
        })?;
        let (requests, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let serve = |listener: TcpListener| {
            let (requests, stop) = (Arc::clone(&requests), Arc::clone(&stop));
            std::thread::spawn(move || accept(&listener, &requests, &stop))
        };
        let threads = listeners.into_iter().map(serve).collect();
        Ok(Self { requests, stop, threads })
    }

    /// How many requests came.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, requests: &Arc<AtomicUsize>, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, peer)) => {
                let requests = Arc::clone(requests);
                // Ends with its client.
                drop(std::thread::spawn(move || serve(stream, peer, &requests)));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(STEP),
            Err(_) => return,
        }
    }
}

fn serve(stream: TcpStream, peer: SocketAddr, requests: &AtomicUsize) -> Option<()> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let head = read_head(&mut reader).ok()?;
        let (line, fields) = head.split_first()?;
        requests.fetch_add(1, Ordering::SeqCst);
        if fields.iter().any(|field| field.eq_ignore_ascii_case("upgrade: websocket")) {
            let answer =
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
            writer.write_all(answer.as_bytes()).ok()?;
            std::io::copy(&mut reader, &mut writer).ok()?;
            return None;
        }
        if let Some(wait) = wait(line) {
            std::thread::sleep(wait);
        }
        let body = format!("{} {line}", peer.ip());
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        writer.write_all(answer.as_bytes()).ok()?;
    }
}

fn wait(line: &str) -> Option<Duration> {
    let wait = line.split(' ').nth(1)?.split_once("?wait=")?.1;
    wait.parse().ok().map(Duration::from_millis)
}

/// The lines of a head, without the empty one at its end.
fn read_head(reader: &mut impl BufRead) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            bail!("the connection ended in the middle of a head: {lines:?}");
        }
        match line.trim_end_matches(['\r', '\n']) {
            "" => return Ok(lines),
            line => lines.push(line.to_owned()),
        }
    }
}

/// An answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpAnswer {
    /// Its status.
    pub status: u16,
    /// Its headers, as lines.
    pub fields: Vec<String>,
    /// Its body.
    pub body: String,
}

impl HttpAnswer {
    /// Whether the server says that nothing more can be asked on the connection.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.fields.iter().any(|field| field.eq_ignore_ascii_case("connection: close"))
    }
}

/// A connection to a server.
#[derive(Debug)]
pub struct HttpClient {
    writer: TcpStream,
    reader: BufReader<TcpStream>,
    server: SocketAddr,
}

impl HttpClient {
    /// Connects from the namespace.
    ///
    /// # Errors
    /// It does not come to be in time.
    pub fn connect(netns: &Netns, server: SocketAddr) -> Result<Self> {
        netns.run(|| Self::connect_here(server))
    }

    /// Connects from the namespace of the calling thread.
    ///
    /// # Errors
    /// It does not come to be in time.
    pub fn connect_here(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&server, PATIENCE)
            .with_context(|| format!("connecting to {server}"))?;
        Self::over(stream, server)
    }

    /// Connects from the namespace, and from an address and port of its own.
    ///
    /// # Errors
    /// The port is taken, or it does not come to be in time.
    pub fn connect_as(netns: &Netns, own: SocketAddr, server: SocketAddr) -> Result<Self> {
        let family = if own.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let stream = netns.run(|| {
            let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
            rustix::net::bind(&socket, &own).with_context(|| format!("binding to {own}"))?;
            rustix::net::connect(&socket, &server).with_context(|| format!("connecting to {server}"))?;
            Ok(TcpStream::from(socket))
        })?;
        Self::over(stream, server)
    }

    fn over(stream: TcpStream, server: SocketAddr) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { writer: stream.try_clone()?, reader: BufReader::new(stream), server })
    }

    /// One request and its answer.
    ///
    /// # Errors
    /// There is none in time, or none that can be read.
    pub fn ask(&mut self, request_line: &str) -> Result<HttpAnswer> {
        self.send(&format!("{request_line} HTTP/1.1\r\nHost: {}\r\n\r\n", self.server))?;
        self.answer()
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, text: &str) -> Result<()> {
        self.writer.write_all(text.as_bytes()).with_context(|| format!("asking {}", self.server))
    }

    /// The next answer.
    ///
    /// # Errors
    /// There is none in time, or none that can be read.
    pub fn answer(&mut self) -> Result<HttpAnswer> {
        let mut head = read_head(&mut self.reader)?.into_iter();
        let line = head.next().context("an answer without a line")?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("no status in {line:?}"))?;
        let fields: Vec<String> = head.collect();
        let length = fields
            .iter()
            .find_map(|field| field.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        self.reader.read_exact(&mut body)?;
        Ok(HttpAnswer { status, fields, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// The next bytes, exactly so many.
    ///
    /// # Errors
    /// The connection ends before.
    pub fn read(&mut self, length: usize) -> Result<String> {
        let mut bytes = vec![0; length];
        self.reader.read_exact(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
