//! A node and its pods on this machine: what the container runtime and the machine itself would be elsewhere.
//!
//! Makes network namespaces, starts the agent in one, and runs the CNI plugin for pods. Everything it makes stands
//! below one directory per node, so that whatever is left of a killed node can be found and removed.

mod cni;
pub(crate) mod layout;
pub(crate) mod pod;
mod process;
pub(crate) mod record;
pub(crate) mod signal;
pub(crate) mod up;
mod world;

pub(crate) use cni::binary;
