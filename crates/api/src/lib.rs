//! The objects users write: Cilium policies, Kubernetes NetworkPolicy, Pod, Namespace.
//!
//! The types follow the upstream schemas field by field and say nothing about meaning: no defaults, no merging, no
//! checks beyond the shape. Absent and empty lists stay different (`None`, `Some(vec![])`), because policies mean
//! different things by them. [`read_manifests`] reads YAML or JSON text and says for each document what it is or
//! what is wrong with it, with line, column and field path. The policy engine and the agent's sources call this.

pub mod cilium;
mod decode;
mod document;
mod int_or_string;
mod manifest;
mod meta;
pub mod network_policy;
mod suggest;
pub mod workload;

pub use cilium::{CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy};
pub use document::MAX_DOCUMENT_BYTES;
pub use int_or_string::IntOrString;
pub use manifest::{DocumentError, Manifest, Object, read_manifests};
pub use meta::{LabelSelector, LabelSelectorRequirement, Metadata};
pub use network_policy::NetworkPolicy;
pub use workload::{Namespace, Pod};
