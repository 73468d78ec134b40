//! Tells the worker when something happens in the directories. Only a hint: the worker also looks by itself.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};

use super::worker::Message;

const BUFFER_BYTES: usize = 16 << 10;

type Paths = Mutex<HashMap<WatchDescriptor, PathBuf>>;

/// The watched directories.
pub(super) struct Watcher {
    watches: Watches,
    paths: Arc<Paths>,
}

impl Watcher {
    /// Starts a thread that sends messages for as long as somebody takes them.
    pub(super) fn start(sender: Sender<Message>) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let watches = inotify.watches();
        let paths = Arc::new(Paths::default());
        let known = Arc::clone(&paths);
        std::thread::Builder::new()
            .name("sluice-watch".to_owned())
            .spawn(move || run(inotify, &known, &sender))?;
        Ok(Self { watches, paths })
    }

    /// Watches a directory; one that is watched already stays so.
    pub(super) fn watch(&mut self, directory: &Path) -> io::Result<()> {
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::MOVE
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let descriptor = self.watches.add(directory, mask)?;
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        paths.insert(descriptor, directory.to_owned());
        Ok(())
    }
}

fn run(mut inotify: Inotify, paths: &Paths, sender: &Sender<Message>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let complete = EventMask::CLOSE_WRITE | EventMask::MOVED_TO;
    loop {
        let events = match inotify.read_events_blocking(&mut buffer) {
            Ok(events) => events,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                tracing::warn!(%error, "the directories are not watched any more, only looked at");
                return;
            }
        };
        for event in events {
            let directory = {
                let mut paths = paths.lock().unwrap_or_else(PoisonError::into_inner);
                if event.mask.contains(EventMask::IGNORED) {
                    paths.remove(&event.wd);
                }
                paths.get(&event.wd).cloned()
            };
            let message = match (directory, event.name) {
                (Some(directory), Some(name)) if event.mask.intersects(complete) => {
                    Message::Closed(directory.join(name))
                }
                _ => Message::Look,
            };
            if sender.send(message).is_err() {
                return;
            }
        }
    }
}
