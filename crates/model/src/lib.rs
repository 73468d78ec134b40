//! A cluster on paper: objects and participants go in, and what would happen to a flow between two of them comes out.
//!
//! The tools that judge without a datapath (`sluice policy trace`, `test`, `diff`, `matrix`) ask here. Identities are
//! given out as the agent gives them out; every verdict is the engine's. Pure: no I/O, no clock, no threads.

mod addresses;
mod change;
mod cluster;
mod compare;
mod convert;
mod coverage;
mod end;
mod flow;
mod matrix;
mod meet;
mod participant;
mod reach;
mod secrets;
mod selected;
mod services;
mod trace;

pub use change::{Change, Opened, Step};
pub use cluster::Cluster;
pub use compare::{Comparison, Felt, IsolationChange, PairChange, SpanChange, compare};
pub use convert::{Inexpressible, to_cilium, to_kubernetes};
pub use coverage::RulePart;
pub use end::UnknownEnd;
pub use flow::{Flow, FlowPort, FlowRequest, HttpCall, KafkaCall};
pub use matrix::{Group, Matrix};
pub use meet::{Met, meet};
pub use participant::{Participant, Who};
pub use reach::{Judges, PROTOCOLS, Passage, Reach, Requests, Span};
pub use secrets::SecretValues;
pub use selected::{Role, Selected};
pub use services::ServiceError;
pub use trace::{Side, Trace, TraceError, Word};

#[cfg(test)]
mod tests;
