//! The direction of a packet as seen from the endpoint that is judged.

use core::fmt;

/// `ingress` is what the endpoint receives, `egress` what it sends.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
#[repr(u8)]
pub enum Direction {
    /// What the endpoint receives.
    Ingress = 0,
    /// What the endpoint sends.
    Egress = 1,
}

impl Direction {
    /// Both directions, in the order in which they are printed.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The lower-case word used in policies, logs and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
