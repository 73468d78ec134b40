//! Random policies over a small fixed cluster, for tests that hold two judges against each other.
//!
//! What comes out are objects as users write them, so every judge reads them by itself: the engine and its oracle
//! (`crates/policy`), and the kernel (`ebpf/loader`).

mod cast;
mod policies;

pub use cast::{
    ADDRESSES, GROUPS, Group, NAMES, NAMESPACES, NODES, PODS, Pairs, Pod, RESERVED, SERVICES, Svc, manifests,
};
pub use policies::{ingress, metadata, policies};
use sluice_api::{
    CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, ClusterNetworkPolicy, NetworkPolicy, Object,
};

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
