//! Waiting: the only place that reads a clock.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often something that should become true is looked at.
const STEP: Duration = Duration::from_millis(4);

/// The time.
#[must_use]
pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an edge: probes and waits are about real time")]
    Instant::now()
}

/// Asks `done` until it answers, for at most `patience`. `done` returns `Err(why not yet)` as a text.
///
/// # Errors
/// It never came true: `what` and the last reason.
pub fn wait_for<T>(what: &str, patience: Duration, mut done: impl FnMut() -> Result<T, String>) -> Result<T> {
    let deadline = now() + patience;
    loop {
        match done() {
            Ok(value) => return Ok(value),
            Err(why) if now() >= deadline => bail!("{what}: not within {patience:?}: {why}"),
            Err(_) => thread::sleep(STEP),
        }
    }
}
