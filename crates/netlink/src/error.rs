//! Why a request failed.

use std::io;

use rustix::io::Errno;

/// A netlink request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The netlink socket could not be opened or set up.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// The kernel refused.
    #[error("cannot {operation} {object}{}", explained(.explanation))]
    Refused {
        /// What was attempted, `create veth`.
        operation: &'static str,
        /// On what, `slu0123456789ab`.
        object: String,
        /// The kernel's own words, if it had any.
        explanation: Option<String>,
        /// The error number.
        #[source]
        source: io::Error,
    },
    /// There is no such link. The kernel's answer to a question by name or index.
    #[error("there is no link {0}")]
    NoLink(String),
    /// Sending the request or receiving the answer failed.
    #[error("cannot {operation} {object}: the netlink socket failed")]
    Transfer {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        object: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel's answer could not be read.
    #[error("cannot {operation} {object}: the kernel's answer is not understood: {reason}")]
    Answer {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        object: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A listing was interrupted by changes again and again.
    #[error("cannot {operation} {object}: the kernel's tables changed during each of {attempts} attempts")]
    Unstable {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        object: String,
        /// How often it was tried.
        attempts: u32,
    },
}

impl Error {
    /// Whether the object does not exist: no such device, address, route or file.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NoLink(_) => true,
            Self::Refused { .. } => self.errno().is_some_and(|errno| {
                [Errno::NODEV, Errno::NOENT, Errno::SRCH, Errno::ADDRNOTAVAIL, Errno::NXIO].contains(&errno)
            }),
            Self::Open(_) | Self::Transfer { .. } | Self::Answer { .. } | Self::Unstable { .. } => false,
        }
    }

    /// Whether the object exists already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EXIST)
    }

    /// The kernel's error number, if it refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { source, .. } => Errno::from_io_error(source),
            Self::Open(_)
            | Self::NoLink(_)
            | Self::Transfer { .. }
            | Self::Answer { .. }
            | Self::Unstable { .. } => None,
        }
    }
}

fn explained(explanation: &Option<String>) -> String {
    explanation.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
}
