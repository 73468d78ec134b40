//! Recorded flows under the new policies: which would break, and which would newly pass.

use std::collections::BTreeMap;
use std::path::Path;

use sluice_flow::FlowVerdict;
use sluice_model::{Cluster, Flow, FlowPort};
use sluice_types::DropReason;

use crate::command::recorded;
use crate::failure::Failure;

/// A connection that was recorded, as often as it was.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Seen {
    pub(super) from: String,
    pub(super) to: String,
    /// `8080/TCP`, `ICMP type 8`.
    pub(super) port: String,
}

/// What becomes of them.
#[derive(Debug, Default)]
pub(super) struct FlowChanges {
    /// How many were judged.
    pub(super) judged: usize,
    /// They passed and would be dropped, by whom.
    pub(super) breaking: BTreeMap<Seen, (usize, Vec<String>)>,
    /// They were dropped and would pass.
    pub(super) opening: BTreeMap<Seen, usize>,
}

impl FlowChanges {
    pub(super) fn is_empty(&self) -> bool {
        self.breaking.is_empty() && self.opening.is_empty()
    }
}

/// Asks the new cluster about each. Records of audit mode passed, and are not said to break.
pub(super) fn judge(file: &Path, new: &mut Cluster) -> Result<FlowChanges, Failure> {
    let mut changes = FlowChanges::default();
    for flow in recorded::read(file)? {
        let asked = recorded::asked(&flow, new)?;
        let trace = new.trace(&asked).map_err(|error| Failure::not_found(error.to_string()))?;
        changes.judged += 1;
        let passed = match flow.verdict {
            FlowVerdict::Forwarded | FlowVerdict::Redirected | FlowVerdict::Error => true,
            FlowVerdict::Dropped | FlowVerdict::Audit => false,
        };
        let is_policy = |reason| matches!(reason, DropReason::PolicyDenied | DropReason::PolicyDeny);
        let was_policy = flow.drop_reason.is_none_or(is_policy);
        match (passed, trace.word().passes()) {
            (true, false) => {
                let by = trace.by().iter().map(ToString::to_string).collect();
                changes.breaking.entry(seen(asked)).or_insert((0, by)).0 += 1;
            }
            // What was dropped for another reason is dropped again.
            (false, true) if was_policy => *changes.opening.entry(seen(asked)).or_default() += 1,
            (true, true) | (false, _) => {}
        }
    }
    Ok(changes)
}

fn seen(flow: Flow) -> Seen {
    let port = match flow.port {
        FlowPort::Number(port) if flow.protocol.has_ports() => format!("{port}/{}", flow.protocol),
        FlowPort::Number(kind) => format!("{} type {kind}", flow.protocol),
        FlowPort::Named(name) => format!("{name}/{}", flow.protocol),
    };
    Seen { from: flow.from, to: flow.to, port }
}
