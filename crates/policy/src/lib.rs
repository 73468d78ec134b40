//! The meaning of network policy: parse, select, resolve, decide.
//!
//! Objects as users write them become [`Rule`]s (`parse`); a [`Repository`] keeps rules and identities and resolves
//! the [`EndpointPolicy`] of an endpoint, whose [`MapState`] both the kernel's map and [`MapState::decide`] follow.
//! Pure: no I/O, no clock, no threads. Called by the agent, the loader and the command.

pub mod config;
pub mod explain;
pub mod l7;
pub mod labels;
pub mod map_state;
mod named_ports;
pub mod parse;
mod precedence;
pub mod referents;
pub mod repository;
pub mod requests;
mod resolve;
pub mod rule;
pub mod selector;
mod selector_cache;
pub mod services;

pub use config::{Config, Enforcement, Proxies};
pub use explain::{Asked, Explanation, NearMiss, Obstacle, Outcome};
pub use map_state::{Decision, Entry, EntryVerdict, Key, L4Match, MapState, MatchType, Plane, Query};
pub use parse::{ParseError, Reason};
pub use referents::{Backend, CidrGroup, Membership, Service, ServiceName, ServicePort};
pub use repository::{Changed, DirectionState, EndpointPolicy, PolicyView, Repository, SelectorView};
pub use requests::{RequestDecision, RequestTable};
pub use resolve::Conflict;
pub use rule::{NamedPort, PolicyKind, PolicyRef, Rule, RuleOrigin, Subject};
pub use selector_cache::IdentitySet;
pub use services::{BackendPod, DeclaredService, ServiceTable, Slice};

#[cfg(test)]
mod tests;
