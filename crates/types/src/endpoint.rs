//! The node-local number of an endpoint.

use core::fmt;

/// The number of a workload on this node, `1..=4095`. It indexes the kernel's endpoint table, so it is small.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "u16", into = "u16")
)]
#[repr(transparent)]
pub struct EndpointId(u16);

impl EndpointId {
    /// One more than the highest id: the length of the kernel's endpoint table. Slot 0 stands for "no endpoint".
    pub const TABLE_LEN: u16 = 4096;

    /// The id for `raw`, if it is in `1..=4095`.
    #[must_use]
    pub const fn new(raw: u16) -> Option<Self> {
        if raw == 0 || raw >= Self::TABLE_LEN { None } else { Some(Self(raw)) }
    }

    /// The plain number.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        self.0
    }
}

impl From<EndpointId> for u16 {
    fn from(id: EndpointId) -> Self {
        id.0
    }
}

impl TryFrom<u16> for EndpointId {
    type Error = EndpointIdError;
    fn try_from(raw: u16) -> Result<Self, EndpointIdError> {
        Self::new(raw).ok_or(EndpointIdError(raw))
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number is no endpoint id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EndpointIdError(u16);

impl fmt::Display for EndpointIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not an endpoint id (1 to 4095)", self.0)
    }
}

impl core::error::Error for EndpointIdError {}
