//! Says when files with rules change.

use std::io;
use std::path::Path;

use inotify::{EventMask, Inotify, WatchMask};
use tokio::sync::watch;

const BUFFER_BYTES: usize = 16 << 10;

/// The directory is no longer where the agent writes.
const GONE: EventMask = EventMask::DELETE_SELF.union(EventMask::MOVE_SELF).union(EventMask::UNMOUNT);

/// Starts a thread that counts changes in `directory`.
///
/// # Errors
/// The directory cannot be watched.
pub(crate) fn start(directory: &Path) -> io::Result<watch::Receiver<u64>> {
    let mut inotify = Inotify::init()?;
    let mask = WatchMask::CLOSE_WRITE
        | WatchMask::MOVED_TO
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR;
    inotify.watches().add(directory, mask)?;
    let (sender, receiver) = watch::channel(0);
    std::thread::Builder::new().name("sluice-rules".to_owned()).spawn(move || {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match inotify.read_events_blocking(&mut buffer) {
                Ok(events) => {
                    // How many there were does not matter.
                    let is_gone = events.fold(false, |is_gone, event| is_gone | event.mask.intersects(GONE));
                    if is_gone {
                        // Whoever took it away has ended everything, older generations of the proxy too.
                        tracing::error!("the directory of rules is gone");
                        std::process::exit(1);
                    }
                    sender.send_modify(|version| *version += 1);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // A proxy that learns of no change would enforce yesterday's rules.
                    tracing::error!(%error, "rules cannot be watched");
                    std::process::exit(1);
                }
            }
        }
    })?;
    Ok(receiver)
}
