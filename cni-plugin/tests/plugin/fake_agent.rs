//! An agent played by a thread: it keeps leases and endpoints, fails when told to, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use sluice_client::model::EndpointRequest;

/// Container id and interface name.
pub(crate) type Owner = (String, String);

/// What the agent knows.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) leases: BTreeMap<Owner, u8>,
    pub(crate) endpoints: BTreeMap<Owner, EndpointRequest>,
    /// `METHOD path`, oldest first.
    pub(crate) requests: Vec<String>,
    /// Answer requests that begin with this by status and error code.
    pub(crate) refuse: Option<(String, u16, String)>,
    /// Close requests that begin with this without an answer, after doing what they ask.
    pub(crate) hang_up_on: Option<String>,
    /// `state` of `GET /v1/status`.
    pub(crate) status: String,
    /// Endpoints that GC reports as removed, by the name of their interface.
    pub(crate) gc_host_ifnames: Vec<String>,
    next_lease: u8,
    stopping: bool,
}

/// Runs until dropped.
#[derive(Debug)]
pub(crate) struct FakeAgent {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeAgent {
    /// Listens on `socket` with what an earlier one left in `state`.
    pub(crate) fn start(socket: &Path, state: Arc<Mutex<State>>) -> Self {
        std::fs::remove_file(socket).ok();
        let listener = UnixListener::bind(socket).unwrap();
        state.lock().unwrap().stopping = false;
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.lock().unwrap().stopping {
                    return;
                }
                serve(stream.unwrap(), &shared);
            }
        });
        Self { socket: socket.to_owned(), state, thread: Some(thread) }
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state.lock() {
            state.stopping = true;
        }
        UnixStream::connect(&self.socket).ok();
        self.thread.take().map(JoinHandle::join);
        std::fs::remove_file(&self.socket).ok();
    }
}

fn serve(mut stream: UnixStream, state: &Mutex<State>) {
    let Some((request, body)) = read_request(&mut stream) else { return };
    let mut state = state.lock().unwrap();
    state.requests.push(request.clone());
    if let Some((prefix, status, code)) = &state.refuse
        && request.starts_with(prefix)
    {
        let body = json!({ "code": code, "message": format!("told to answer {code}") });
        answer(&mut stream, *status, &body);
        return;
    }
    let (status, body) = state.handle(&request, &body);
    if !state.hang_up_on.as_ref().is_some_and(|prefix| request.starts_with(prefix)) {
        answer(&mut stream, status, &body);
    }
}

fn read_request(stream: &mut UnixStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let request = format!("{} {}", words.next()?, words.next()?);
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((request, body))
}

/// The plugin may be dead by now: that is what is tested.
fn answer(stream: &mut UnixStream, status: u16, body: &Value) {
    write!(stream, "HTTP/1.0 {status} X\r\nContent-Type: application/json\r\n\r\n{body}").ok();
}

impl State {
    fn handle(&mut self, request: &str, body: &[u8]) -> (u16, Value) {
        let owner_of_path = || {
            let mut parts = request.rsplit('/');
            let ifname = parts.next().unwrap().to_owned();
            (parts.next().unwrap().to_owned(), ifname)
        };
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let owner = |value: &Value| {
            let text = |key: &str| value[key].as_str().unwrap().to_owned();
            (text("container_id"), text("ifname"))
        };
        match request {
            "GET /v1/status" => (200, self.status()),
            "POST /v1/ipam" => (200, self.lease(owner(&body))),
            "GET /v1/endpoints" => (200, self.endpoints.values().map(endpoint).collect()),
            "POST /v1/endpoints" => {
                let request: EndpointRequest = serde_json::from_value(body).unwrap();
                let answer = endpoint(&request);
                self.endpoints.insert((request.container_id.clone(), request.ifname.clone()), request);
                (200, answer)
            }
            "POST /v1/cni/gc" => {
                let valid: Vec<Owner> = body["valid"].as_array().unwrap().iter().map(owner).collect();
                self.leases.retain(|owner, _| valid.contains(owner));
                self.endpoints.retain(|owner, _| valid.contains(owner));
                (200, json!({ "removed": [], "host_ifnames": self.gc_host_ifnames }))
            }
            _ if request.starts_with("DELETE /v1/ipam/") => {
                self.leases.remove(&owner_of_path());
                (204, Value::Null)
            }
            _ if request.starts_with("DELETE /v1/attachments/") => {
                self.endpoints.remove(&owner_of_path());
                self.leases.remove(&owner_of_path());
                (204, Value::Null)
            }
            _ => (404, json!({ "code": "not-found", "message": "no such path" })),
        }
    }

    fn lease(&mut self, owner: Owner) -> Value {
        let next = self.next_lease + 1;
        let number = *self.leases.entry(owner).or_insert(next);
        self.next_lease = self.next_lease.max(number);
        json!({
            "ipv4": format!("10.244.0.{number}"),
            "ipv6": format!("fd00:10:244::{number:x}"),
            "gateway4": "169.254.1.1",
            "gateway6": "fe80::1",
            "mtu": 1450,
        })
    }

    fn status(&self) -> Value {
        let state = if self.status.is_empty() { "ok" } else { &self.status };
        let used = self.leases.len();
        json!({
            "state": state, "version": "0", "uptime_s": 1, "source": "directory /x", "enforcement": "default",
            "audit": false, "revision": 1, "policies": 0, "identities": 0, "endpoints": {},
            "ipam": [{ "pool": "10.244.0.0/24", "used": used, "resting": 0, "capacity": 3 }],
            "maps": [], "devices": [], "problems": [],
        })
    }
}

fn endpoint(request: &EndpointRequest) -> Value {
    json!({
        "id": 1, "state": "ready", "ingress": "Disabled", "egress": "Disabled", "identity": 5, "labels": [],
        "attachment": request, "realized_revision": 1, "wanted_revision": 1, "policy_entries": 0, "options": {},
    })
}
