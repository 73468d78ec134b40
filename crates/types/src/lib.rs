//! The words every room shares: identities, endpoints, labels, protocols, verdicts, drop reasons.
//!
//! `no_std` (with `alloc` for labels), so that the eBPF programs use the same numbers as user space.
//! Never does I/O and depends on nothing; with the feature `serde` the words serialise as their plain form.
#![no_std]

#[cfg(feature = "labels")]
extern crate alloc;

mod direction;
mod drop_reason;
mod endpoint;
mod identity;
#[cfg(feature = "labels")]
mod label;
mod protocol;
mod verdict;

pub use direction::Direction;
pub use drop_reason::DropReason;
pub use endpoint::EndpointId;
pub use identity::{Identity, IdentityScope};
#[cfg(feature = "labels")]
pub use label::{Label, LabelParseError, Labels, Source};
pub use protocol::Protocol;
pub use verdict::{ProxyPort, RuleId, Verdict};
