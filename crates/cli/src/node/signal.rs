//! Ctrl-C and its relatives, as a question that can be asked between steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::failure::{Failure, io};

const STEP: Duration = Duration::from_millis(25);

/// Remembers whether the user wants an end.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// From now on SIGINT, SIGTERM and SIGHUP are remembered instead of ending the process.
    pub(crate) fn install() -> Result<Self, Failure> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&asked)).map_err(io("watching for signals"))?;
        }
        Ok(Self { asked })
    }

    /// Whether an end was asked for.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Fails if an end was asked for.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.is_asked() { Err(Failure::error("interrupted; everything was removed")) } else { Ok(()) }
    }

    /// Sleeps, but not longer than until an end is asked for.
    pub(crate) fn sleep(&self, time: Duration) -> Result<(), Failure> {
        let mut left = time;
        while !left.is_zero() {
            self.check()?;
            let step = left.min(STEP);
            std::thread::sleep(step);
            left -= step;
        }
        self.check()
    }
}
