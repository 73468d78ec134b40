//! What the tests of connections stand on: a client, a server, and rules between them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

/// Rules by which all paths pass but those that begin with `denied`.
pub(crate) struct Rules {
    server: SocketAddr,
    pub(crate) denied: Mutex<&'static str>,
    /// Who is named to whom is denied.
    pub(crate) denied_by: Mutex<Option<DeniedBy<'static>>>,
    effects: Effects,
    pub(crate) log: Mutex<Vec<String>>,
}

impl Host for Rules {
    type Server = TcpStream;
    type Note = ();

    async fn connect(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self.server).await
    }

    fn judge(&self, request: &HttpRequest<'_>) -> (Judgement, ()) {
        let is_denied = request.path.starts_with(*self.denied.lock().unwrap());
        (if is_denied { Judgement::Deny } else { Judgement::Pass(self.effects.clone()) }, ())
    }

    fn denied_by<'n>(&self, _: &'n ()) -> Option<DeniedBy<'n>> {
        *self.denied_by.lock().unwrap()
    }

    fn record(&self, record: Record<'_, ()>) {
        let status = record.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        let line = format!(
            "{} {} {}{} {status} {:?}",
            record.flow, record.method, record.authority, record.path, record.outcome
        );
        self.log.lock().unwrap().push(line);
    }
}

/// A client and a server with a relay between them.
pub(crate) struct Rig {
    pub(crate) client: TcpStream,
    pub(crate) listener: TcpListener,
    pub(crate) rules: Arc<Rules>,
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) leaving: watch::Sender<()>,
    pub(crate) end: JoinHandle<End>,
}

/// Short times.
pub(crate) fn quick() -> Settings {
    Settings {
        head_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(600),
        ..Settings::default()
    }
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default(), Effects::new()).await
    }

    pub(crate) async fn with(settings: Settings, effects: Effects) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rules = Arc::new(Rules {
            server: listener.local_addr().unwrap(),
            denied: Mutex::new("/no"),
            denied_by: Mutex::default(),
            effects,
            log: Mutex::default(),
        });
        let client = TcpStream::connect(front.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = front.accept().await.unwrap();
        let (changes, leaving) = (watch::Sender::new(0), watch::Sender::new(()));
        let signals = Signals { changes: changes.subscribe(), leaving: leaving.subscribe() };
        let host = Arc::clone(&rules);
        let end = tokio::spawn(async move { relay(accepted, &*host, &settings, signals, 0x17).await });
        Self { client, listener, rules, changes, leaving, end }
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.rules.log.lock().unwrap().clone()
    }
}
