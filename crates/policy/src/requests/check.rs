//! One request against the rules that come into question.

use sluice_types::RuleId;

use crate::l7::{Effects, L7Rules, Mismatch, Request, Secrets};

/// What the rules say.
#[derive(Debug, Default)]
pub(super) struct Finding {
    /// Those that name the request.
    pub(super) parts: Vec<(RuleId, String)>,
    /// What they do to it.
    pub(super) effects: Effects,
    /// Why the others do not.
    pub(super) mismatches: Vec<(RuleId, String, Mismatch)>,
}

pub(super) fn check<'a>(
    _rules: impl Iterator<Item = (RuleId, Option<&'a str>, &'a L7Rules)>,
    _request: &Request<'_>,
    _secrets: &dyn Secrets,
) -> Finding {
    Finding::default()
}
