//! Which number stands for which labels, on this node.
//!
//! [`cluster`] numbers the label sets of pods, [`prefixes`] the prefixes that policies name. Both keep a number
//! for a while after its last use, because the kernel's maps are corrected in steps: the number of one meaning
//! never becomes that of another while something may still hold it. Pure; used by `state` alone.

pub(crate) mod cluster;
pub(crate) mod prefixes;

pub(crate) use cluster::{ClusterIdentities, IdentityRecord};
pub(crate) use prefixes::PrefixIdentities;

use sluice_types::Identity;

/// Every number of a scope is taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no security identity is left: all {count} numbers from {first} on are in use")]
pub(crate) struct IdentitiesExhausted {
    /// How many there are.
    pub count: u32,
    /// The first of them.
    pub first: Identity,
}
