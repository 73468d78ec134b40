//! What was seen and decided: one [`Flow`] per reported packet, with both ends and the reason.
//!
//! Pure data. The agent joins kernel events with names and rules to make flows; `sluice monitor` prints them.
//! Never does I/O.

mod flow;
mod format;

pub use flow::{Flow, FlowEnd, FlowVerdict, HttpRecord, L4, PolicyOrigin, ProxyRecord};
