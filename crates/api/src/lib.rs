//! The objects users write: policies, and the pods, namespaces, nodes, Services and Secrets they are about.
//!
//! The types follow the upstream schemas field by field and say nothing about meaning: no defaults, no merging, no
//! checks beyond the shape. Absent and empty lists stay different (`None`, `Some(vec![])`), because policies mean
//! different things by them. [`read_manifests`] reads YAML or JSON text and says for each document what it is or
//! what is wrong with it, with line, column and field path. The policy engine and the agent's sources call this.
//!
//! The feature `schema` adds the same shapes, with the limits of single fields, as JSON Schema for editors.

pub mod cilium;
pub mod cluster_network_policy;
mod decode;
mod document;
mod int_or_string;
mod manifest;
mod meta;
pub mod network_policy;
mod object;
mod place;
#[cfg(feature = "schema")]
pub mod schema;
pub mod secret;
pub mod service;
mod suggest;
mod tree;
pub mod workload;

pub use cilium::{CiliumCidrGroup, CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy};
pub use cluster_network_policy::ClusterNetworkPolicy;
pub use document::MAX_DOCUMENT_BYTES;
pub use int_or_string::IntOrString;
pub use manifest::{DocumentError, Manifest, read_manifests};
pub use meta::{LabelSelector, LabelSelectorRequirement, Metadata};
pub use network_policy::NetworkPolicy;
pub use object::{Kind, Object};
pub use place::Place;
pub use secret::Secret;
pub use service::{EndpointSlice, Service};
pub use suggest::nearest;
pub use tree::{Tree, read_trees};
pub use workload::{Namespace, Node, Pod};
