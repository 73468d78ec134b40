//! Loads the kernel programs, attaches them, and gives typed access to their maps.
//!
//! The only user of `aya`. The agent holds a [`Datapath`]; the CNI plugin needs nothing but [`attach`]. Never
//! decides a verdict: it carries what `policy` decided into the kernel, and reports from there.

pub mod attach;
pub mod bench;
pub mod bpffs;
pub mod conntrack;
pub mod counters;
mod datapath;
pub mod endpoints;
mod error;
mod events;
pub mod ipcache;
mod map;
mod object;
mod plain;
pub mod policy;
pub mod proxy;
mod settings;
mod sys;
mod translate;

pub use datapath::{Datapath, TestRun};
pub use error::LoaderError;
pub use events::EventReader;
pub use object::Sizes;
pub use settings::{Settings, SettingsMap};
pub use sluice_ebpf_common as common;
