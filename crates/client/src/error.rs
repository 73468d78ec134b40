//! Why a call of the agent failed.

use std::path::PathBuf;

/// The agent answered, and the answer is no.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// A word a program can test; see [`crate::model::ErrorBody::code`].
    pub code: String,
    /// One sentence.
    pub message: String,
}

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens: the agent is not running.
    #[error("the agent is not running: cannot connect to {socket}")]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Sending or receiving failed, or took too long.
    #[error("talking to the agent failed: {operation}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The answer is not what this version understands.
    #[error("the agent's answer is not understood: {0}")]
    Protocol(String),
    /// The agent refused.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl ClientError {
    /// Whether the agent is down, as opposed to unwilling.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Io { .. })
    }
}
