//! What is looked for, one file for each family of rules.

mod closing;
mod coverage;
mod documents;
mod kafka;
mod lists;
mod mixing;
mod names;
mod nodes;
mod patterns;
mod portable;
mod prefixes;
mod probes;
mod referents;
mod requests;
mod selectors;
mod size;
mod system;

use crate::{report::Report, scene::Scene};

/// Looks at everything and reports what it finds.
pub(crate) type Check = fn(&Scene<'_>, &mut Report);

/// Every check.
pub(crate) const ALL: &[Check] = &[
    documents::check,
    names::check,
    selectors::check,
    referents::check,
    closing::check,
    lists::check,
    prefixes::check,
    requests::check,
    patterns::check,
    kafka::check,
    coverage::check,
    mixing::check,
    system::check,
    nodes::check,
    probes::check,
    size::check,
    portable::check,
];
