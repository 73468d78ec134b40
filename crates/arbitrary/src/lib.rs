//! Random policies over a small fixed cluster, for tests that hold two judges against each other.
//!
//! What comes out are objects as users write them, so every judge reads them by itself: the engine and its oracle
//! (`crates/policy`), and the kernel (`ebpf/loader`).
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "for tests, where a panic is a failed test"
)]

mod cast;
mod policies;

pub use cast::{
    ADDRESSES, GROUPS, Group, NAMES, NAMESPACES, NODES, PODS, Pairs, Pod, RESERVED, SERVICES, Svc, manifests,
};
pub use policies::{ingress, metadata, policies};
use sluice_api::{
    CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, ClusterNetworkPolicy, Metadata, NetworkPolicy,
    Object,
};

/// The annotation of policies in audit mode.
const AUDIT: &str = "sluice.dev/audit";

/// A policy as the API has it.
#[derive(Clone, Debug)]
pub enum Policy {
    /// CiliumNetworkPolicy.
    Cnp(CiliumNetworkPolicy),
    /// CiliumClusterwideNetworkPolicy.
    Ccnp(CiliumClusterwideNetworkPolicy),
    /// NetworkPolicy.
    Knp(NetworkPolicy),
    /// ClusterNetworkPolicy.
    Kcnp(ClusterNetworkPolicy),
}

impl Policy {
    /// Its name, labels and annotations.
    #[must_use]
    pub const fn metadata(&self) -> &Metadata {
        match self {
            Self::Cnp(policy) => &policy.metadata,
            Self::Ccnp(policy) => &policy.metadata,
            Self::Knp(policy) => &policy.metadata,
            Self::Kcnp(policy) => &policy.metadata,
        }
    }

    /// Whether it is in audit mode.
    #[must_use]
    pub fn is_staged(&self) -> bool {
        let annotation = self.metadata().annotations.as_ref().and_then(|all| all.get(AUDIT));
        annotation.is_some_and(|value| value == "true")
    }

    /// The same policy in audit mode, if it can be.
    #[must_use]
    pub fn staged(mut self) -> Self {
        let metadata = match &mut self {
            Self::Cnp(policy) => &mut policy.metadata,
            Self::Ccnp(policy) => &mut policy.metadata,
            Self::Knp(policy) => &mut policy.metadata,
            Self::Kcnp(_) => return self,
        };
        metadata.annotations = Some([(AUDIT.to_owned(), "true".to_owned())].into());
        self
    }
}

impl From<Policy> for Object {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Cnp(policy) => Self::CiliumNetworkPolicy(Box::new(policy)),
            Policy::Ccnp(policy) => Self::CiliumClusterwideNetworkPolicy(Box::new(policy)),
            Policy::Knp(policy) => Self::NetworkPolicy(Box::new(policy)),
            Policy::Kcnp(policy) => Self::ClusterNetworkPolicy(Box::new(policy)),
        }
    }
}
