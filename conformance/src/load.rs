//! Requests without pause, so that not one that fails goes unnoticed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::http::{HttpAnswer, HttpClient};
use crate::netns::Netns;

/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(4);
/// More are not looked at one by one.
const FAILURES_MAX: usize = 20;

/// What a client asks for, again and again, and what it must get.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// `GET /a`.
    pub line: &'static str,
    /// The answer's status.
    pub status: u16,
}

/// How a client uses connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Manner {
    /// It keeps one for as long as the server does.
    Kept,
    /// It makes one for each request.
    Single,
}

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests that were answered as they had to be.
    pub answered: usize,
    /// Connections that were made.
    pub connections: usize,
    /// Answers that said that the connection ends, to clients that would have kept it.
    pub farewells: usize,
    /// What went wrong, the first ones in words.
    pub failures: Vec<String>,
}

impl Tally {
    fn add(mut self, other: Self) -> Self {
        self.answered += other.answered;
        self.connections += other.connections;
        self.farewells += other.farewells;
        self.failures.extend(other.failures);
        self
    }
}

/// Clients that ask until they are stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<Tally>>>,
}

impl Load {
    /// Starts `each` clients of either manner for each server, in the namespace.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(
        netns: &Netns,
        servers: &[SocketAddr],
        each: usize,
        requests: &'static [Request],
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        let wanted = servers.iter().flat_map(|server| [(*server, Manner::Kept), (*server, Manner::Single)]);
        for (server, manner) in wanted.flat_map(|client| std::iter::repeat_n(client, each)) {
            let (stop, inside) = (Arc::clone(&stop), netns.handle()?);
            let run = move || {
                inside.enter()?;
                Ok(ask(server, manner, requests, &stop))
            };
            let thread = std::thread::Builder::new().name("load".to_owned()).spawn(run);
            clients.push(thread.context("starting a client")?);
        }
        Ok(Self { stop, clients })
    }

    /// Stops it, and says what came of it.
    ///
    /// # Errors
    /// A client could not begin.
    pub fn finish(mut self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let mut tally = Tally::default();
        for client in self.clients.drain(..) {
            match client.join() {
                Ok(own) => tally = tally.add(own?),
                Err(_) => bail!("a client panicked"),
            }
        }
        Ok(tally)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ask(server: SocketAddr, manner: Manner, requests: &[Request], stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let mut kept: Option<HttpClient> = None;
    for request in requests.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match once(server, kept.take(), request, &mut tally) {
            Ok((client, answer)) => {
                tally.answered += 1;
                tally.farewells += usize::from(answer.is_last() && manner == Manner::Kept);
                kept = Some(client).filter(|_| manner == Manner::Kept && !answer.is_last());
            }
            Err(error) if tally.failures.len() < FAILURES_MAX => {
                let failure = format!("{manner:?} {server} {}: {error:#}", request.line);
                tally.failures.push(failure);
            }
            Err(_) => break,
        }
        std::thread::sleep(PAUSE);
    }
    tally
}

fn once(
    server: SocketAddr,
    kept: Option<HttpClient>,
    request: &Request,
    tally: &mut Tally,
) -> Result<(HttpClient, HttpAnswer)> {
    let mut client = match kept {
        Some(client) => client,
        None => {
            tally.connections += 1;
            HttpClient::connect_here(server)?
        }
    };
    let answer = client.ask(request.line)?;
    ensure!(answer.status == request.status, "answered {}", answer.status);
    let is_whole = answer.status != 200 || answer.body.contains(&format!(" {} HTTP/1.1", request.line));
    ensure!(is_whole, "answered with the body {:?}", answer.body);
    Ok((client, answer))
}
