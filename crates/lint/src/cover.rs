//! Whether one rule says at least what another says.
//!
//! Every answer "yes" is certain: it holds whatever pods, nodes and addresses there are. Where that cannot be seen
//! from the rules, the answer is "no".

mod labels;
mod peers;
mod ports;
mod requests;

pub(crate) use labels::{contradiction, implies};
pub(crate) use peers::{Peer, peers_cover, peers_of, select_nobody};
pub(crate) use ports::PortSet;
pub(crate) use requests::{has_effects, open_ports, refuses_nothing, requests_cover};

use sluice_policy::rule::RuleSubject;

/// Whether everybody whom `narrow` selects is selected by `wide`.
pub(crate) fn subject_covers(wide: &RuleSubject, narrow: &RuleSubject) -> bool {
    match (wide, narrow) {
        (RuleSubject::Endpoints(wide), RuleSubject::Endpoints(narrow))
        | (RuleSubject::Node(wide), RuleSubject::Node(narrow)) => implies(narrow, wide),
        (RuleSubject::Endpoints(_), RuleSubject::Node(_))
        | (RuleSubject::Node(_), RuleSubject::Endpoints(_)) => false,
    }
}

/// Whether one of the two is certain to select everybody whom the other selects.
pub(crate) fn subjects_meet(one: &RuleSubject, other: &RuleSubject) -> bool {
    subject_covers(one, other) || subject_covers(other, one)
}
