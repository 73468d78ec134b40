//! `sluice demo`: the main job on real traffic, and a check that every promise of it is kept.
//!
//! Starts a node by the same code as `sluice up`, makes pods with the CNI plugin, applies policies, and connects.
//! What is printed is what happened: an attempt that does not end as the policy says makes the demo fail.

mod attempt;
mod narrator;
mod stage;
mod story;

use std::io::IsTerminal;
use std::time::Duration;

use crate::args::DemoArgs;
use crate::failure::Failure;
use crate::node::signal::Interrupt;
use crate::node::up::{remove_stale, require_root};
use crate::output::Output;

use narrator::Narrator;
use stage::Stage;

/// Time to read a scene before the next one begins.
const READING: Duration = Duration::from_millis(1500);

/// Tells the story.
pub(crate) fn run(arguments: &DemoArgs, output: &mut Output) -> Result<(), Failure> {
    require_root()?;
    let interrupt = Interrupt::install()?;
    remove_stale();
    let pause = if arguments.fast || !std::io::stdout().is_terminal() { Duration::ZERO } else { READING };
    let mut narrator = Narrator::new(output, interrupt.clone(), pause);
    narrator.opening()?;
    let mut stage = Stage::build(&mut narrator, &interrupt)?;
    story::tell(&mut stage, &mut narrator)?;
    let failures = narrator.summary(stage.flows_seen())?;
    if arguments.keep {
        narrator.invite(&stage)?;
        while interrupt.sleep(Duration::from_secs(1)).is_ok() {}
    }
    drop(stage);
    narrator.curtain(arguments.keep)?;
    match failures {
        0 => Ok(()),
        1 => Err(Failure::error("one attempt did not end as the policy says")),
        many => Err(Failure::error(format!("{many} attempts did not end as the policy says"))),
    }
}
