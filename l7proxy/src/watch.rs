//! Says when files with rules change.

use std::io;
use std::path::Path;

use inotify::{Inotify, WatchMask};
use tokio::sync::watch;

const BUFFER_BYTES: usize = 16 << 10;

/// Starts a thread that counts changes in `directory`.
///
/// # Errors
/// The directory cannot be watched.
pub(crate) fn start(directory: &Path) -> io::Result<watch::Receiver<u64>> {
    let mut inotify = Inotify::init()?;
    let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::DELETE | WatchMask::ONLYDIR;
    inotify.watches().add(directory, mask)?;
    let (sender, receiver) = watch::channel(0);
    std::thread::Builder::new().name("sluice-rules".to_owned()).spawn(move || {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match inotify.read_events_blocking(&mut buffer) {
                Ok(events) => {
                    // How many there were does not matter.
                    events.for_each(drop);
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
