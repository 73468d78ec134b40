//! The agent's local API: the types that cross the unix socket, and a small blocking client.
//!
//! HTTP/1 with JSON bodies, so that `curl --unix-socket` works too. Used by the CNI plugin, the command line
//! and (the types) the agent itself. Knows no policy and no maps.

mod error;
pub mod exposition;
mod http;
pub mod model;
pub mod path;

pub use error::{ApiError, ClientError};
pub use http::{Client, Lines};
