//! The thread that owns the state.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::agent::Tickets;
use crate::clock;
use crate::datapath::{Collector, Kernel, Work};
use crate::effect::Effect;
use crate::event::Event;
use crate::observe::Names;
use crate::source::directory::{Handle, SourceRequest};
use crate::state::State;

/// Where effects go.
#[derive(Debug)]
pub(super) struct Outlets {
    pub(super) kernel: Kernel,
    pub(super) source: Handle,
    pub(super) collector: Collector,
    pub(super) names: watch::Sender<Arc<Names>>,
    pub(super) tickets: Arc<Tickets>,
    /// Becomes true when the kernel has what the sources and the last run say.
    pub(super) ready: watch::Sender<bool>,
}

/// Feeds the state until nobody sends events any more.
pub(super) fn run(mut state: State, mut queue: mpsc::Receiver<Event>, outlets: &Outlets) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the state cannot run");
            return;
        }
    };
    runtime.block_on(async {
        while let Some(event) = next(&mut state, &mut queue).await {
            for effect in state.apply(event, clock::now()) {
                carry_out(effect, outlets);
            }
            if state.is_settled() && !*outlets.ready.borrow() {
                outlets.ready.send_replace(true);
            }
        }
    });
}

async fn next(state: &mut State, queue: &mut mpsc::Receiver<Event>) -> Option<Event> {
    match state.deadline() {
        None => queue.recv().await,
        Some(at) => match tokio::time::timeout_at(at.into(), queue.recv()).await {
            Ok(event) => event,
            Err(_elapsed) => Some(Event::Tick),
        },
    }
}

fn carry_out(effect: Effect, outlets: &Outlets) {
    match effect {
        Effect::Execute(batch) => outlets.kernel.send(Work::Batch(batch)),
        Effect::Answer(ticket, answer) => outlets.tickets.answer(ticket, answer),
        Effect::Rescan => outlets.source.send(SourceRequest::Rescan),
        Effect::Forget(forget) => outlets.collector.forget(forget),
        Effect::Publish(names) => {
            outlets.names.send_replace(names);
        }
    }
}
