//! The thread that keeps the catalog up to date and tells the state what changed.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use sluice_client::model::{PolicyApplied, PolicyDocument, Problem};
use sluice_policy::PolicyRef;

use super::catalog::Catalog;
use super::scan::{self, Found, SETTLE, Settling};
use super::watch::Watcher;
use super::{APPLIED, FileId, USER, apply};
use crate::event::{Event, Refusal, Ticket};
use crate::source::SourceChanges;
use crate::store::Store;

/// How often the directories are looked at without being told.
const RESCAN: Duration = Duration::from_secs(2);
/// Hints that come within this time are answered together.
const GATHER: Duration = Duration::from_millis(5);

/// What wakes the worker.
#[derive(Debug)]
pub(super) enum Message {
    /// This file is complete.
    Closed(PathBuf),
    /// Something else happened in a directory.
    Look,
    /// Somebody asks.
    Request(SourceRequest),
}

/// What the source can be asked for.
#[derive(Debug)]
pub(crate) enum SourceRequest {
    /// Look at once.
    Rescan,
    /// Apply manifests.
    Apply(PolicyDocument, Ticket),
    /// Delete an applied policy.
    Delete(PolicyRef, Ticket),
}

/// Talks to the worker.
#[derive(Clone, Debug)]
pub(crate) struct Handle(Sender<Message>);

impl Handle {
    /// Hands a request over. The answer comes with the changes it makes.
    pub(crate) fn send(&self, request: SourceRequest) {
        if self.0.send(Message::Request(request)).is_err() {
            tracing::error!("the source has stopped");
        }
    }
}

/// A file's good objects as they are remembered.
#[derive(Deserialize, Serialize)]
struct Remembered {
    root: usize,
    path: PathBuf,
    objects: Vec<(u32, serde_json::Value)>,
}

/// The directory source before it runs.
pub(crate) struct Worker {
    roots: Vec<PathBuf>,
    catalog: Catalog,
    settling: Settling,
    store: Store,
    receiver: Receiver<Message>,
    handle: Handle,
    watcher: Option<Watcher>,
    last_problems: Vec<Problem>,
    standing: Vec<Problem>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("roots", &self.roots).finish_non_exhaustive()
    }
}

impl Worker {
    /// A source over the user's directory and what was applied. `store` remembers the last good versions.
    #[must_use]
    pub(crate) fn new(user: PathBuf, applied: PathBuf, config: sluice_policy::Config, store: Store) -> Self {
        let (sender, receiver) = channel();
        let mut standing = Vec::new();
        let watcher = match Watcher::start(sender.clone()) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                let message = format!("cannot be watched, changes are noticed every two seconds: {error}");
                standing.push(Problem { object: user.display().to_string(), message });
                None
            }
        };
        let mut worker = Self {
            roots: vec![user, applied],
            catalog: Catalog::new(config),
            settling: Settling::default(),
            store,
            receiver,
            handle: Handle(sender),
            watcher,
            last_problems: Vec::new(),
            standing,
        };
        worker.recall();
        worker
    }

    /// How to talk to it once it runs.
    #[must_use]
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until nobody listens. The first changes are sent at once, even if there is nothing to tell.
    pub(crate) fn run(mut self, send: impl Fn(Event) -> bool) {
        let mut is_first = true;
        let mut requests = Vec::new();
        loop {
            let (now, wall) = crate::clock::now_and_wall();
            let answers: Vec<_> = requests.drain(..).filter_map(|request| self.carry_out(request)).collect();
            let mut changes = self.look(now, wall);
            changes.answers = answers;
            let is_news = self.is_news(&changes);
            if (is_first || is_news) && !send(Event::Source(Box::new(changes))) {
                return;
            }
            is_first = false;
            if !self.wait(&mut requests) {
                return;
            }
        }
    }

    /// Waits for messages, or for the time to look again. Requests do not wait for more to come, hints do.
    fn wait(&mut self, requests: &mut Vec<SourceRequest>) -> bool {
        let mut timeout = if self.settling.is_waiting() { SETTLE / 2 } else { RESCAN };
        loop {
            match self.receiver.recv_timeout(timeout) {
                Ok(Message::Closed(path)) => self.settling.closed(path),
                Ok(Message::Look) => {}
                Ok(Message::Request(request)) => requests.push(request),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
            timeout = if requests.is_empty() { GATHER } else { Duration::ZERO };
        }
    }

    fn carry_out(&mut self, request: SourceRequest) -> Option<(Ticket, Result<PolicyApplied, Refusal>)> {
        let applied = self.roots.get(APPLIED)?;
        let (ticket, result) = match request {
            SourceRequest::Rescan => return None,
            SourceRequest::Apply(document, ticket) => {
                (ticket, apply::apply(&self.catalog, applied, &document))
            }
            SourceRequest::Delete(reference, ticket) => {
                (ticket, apply::delete(&self.catalog, applied, &reference))
            }
        };
        let result = result.map(|done| {
            for path in done.written {
                self.settling.closed(path);
            }
            for path in done.removed {
                self.settling.removed(path);
            }
            PolicyApplied { results: done.results, revision: 0 }
        });
        Some((ticket, result))
    }

    fn is_news(&mut self, changes: &SourceChanges) -> bool {
        let is_new = changes.problems != self.last_problems;
        if is_new {
            for problem in changes.problems.iter().filter(|problem| !self.last_problems.contains(problem)) {
                tracing::warn!(
                    object = problem.object,
                    problem = problem.message,
                    "manifest not in force as written"
                );
            }
            self.last_problems.clone_from(&changes.problems);
        }
        is_new || !changes.set.is_empty() || !changes.removed.is_empty() || !changes.answers.is_empty()
    }

    /// Scans, reads what is complete, and says what changed.
    pub(super) fn look(&mut self, now: Instant, wall: SystemTime) -> SourceChanges {
        let found = scan::scan(&self.roots);
        self.watch(&found);
        let (ready, gone) = self.settling.sort(&found, now, wall);
        for file in &gone {
            self.catalog.remove(file);
        }
        for file in &ready {
            let text = scan::read_text(&file.path);
            self.catalog.update(file, text.as_deref().map_err(Clone::clone));
        }
        for file in ready.iter().chain(&gone) {
            self.keep(file);
        }
        let mut changes = self.catalog.changes();
        changes.problems.extend(found.unreadable.iter().map(|(path, reason)| Problem {
            object: path.display().to_string(),
            message: format!("cannot be read, what it held stays in force: {reason}"),
        }));
        changes.problems.extend(self.standing.iter().cloned());
        changes
    }

    #[cfg(test)]
    pub(super) const fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn watch(&mut self, found: &Found) {
        let Some(watcher) = &mut self.watcher else { return };
        for directory in &found.directories {
            if let Err(error) = watcher.watch(directory) {
                tracing::debug!(directory = %directory.display(), %error, "not watched, only looked at");
            }
        }
    }

    /// Remembers the good objects of a file, for the case that the next agent finds it broken.
    fn keep(&self, file: &FileId) {
        let name = remembered_name(file);
        let objects = self.catalog.objects_of(file);
        let result = if objects.is_empty() {
            self.store.remove(&name)
        } else {
            let remembered = Remembered { root: file.root, path: file.path.clone(), objects };
            self.store.write(&name, &remembered)
        };
        if let Err(error) = result {
            tracing::warn!(error = crate::report::chain(&error), "last good version not kept");
        }
    }

    fn recall(&mut self) {
        for name in self.store.list(DIRECTORY).unwrap_or_default() {
            let remembered = match self.store.read::<Remembered>(&name) {
                Ok(Some(remembered)) => remembered,
                Ok(None) => continue,
                Err(error) => {
                    let (object, message) = ("last good versions".to_owned(), crate::report::chain(&error));
                    self.standing.push(Problem { object, message });
                    continue;
                }
            };
            let root = if remembered.root == USER { USER } else { APPLIED };
            let file = FileId { root, path: remembered.path };
            let is_ours = self.roots.get(root).is_some_and(|root| file.path.starts_with(root));
            if is_ours && remembered_name(&file) == name {
                self.catalog.remember(&file, &remembered.objects);
                self.settling.remember(file);
            } else if let Err(error) = self.store.remove(&name) {
                tracing::debug!(error = crate::report::chain(&error), "stale last good version not removed");
            }
        }
    }
}

const DIRECTORY: &str = "last-good";

/// A name for a file that is as unique as its path.
fn remembered_name(file: &FileId) -> String {
    let path = file.path.as_os_str().as_encoded_bytes();
    format!("{DIRECTORY}/{}_{}.json", file.root, crate::store::checksum(path))
}
