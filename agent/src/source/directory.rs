//! The directory source: manifests as files, watched, in two places.
//!
//! The user's directory comes first, then what `policy apply` wrote. [`scan`] looks at the file system, [`catalog`]
//! knows which object is in force, [`worker`] is the thread that runs both, woken by [`watch`] and by requests from
//! [`apply`].

mod apply;
mod catalog;
mod scan;
mod watch;
mod worker;

pub(crate) use worker::{Handle, SourceRequest, Worker};

use std::path::PathBuf;

/// A file of the source. The order of files is the order in which they win over each other.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct FileId {
    /// 0: the user's directory, 1: applied policies.
    root: usize,
    /// The whole path.
    path: PathBuf,
}

/// The user's directory.
const USER: usize = 0;
/// What was applied through the API.
const APPLIED: usize = 1;

#[cfg(test)]
mod tests;
