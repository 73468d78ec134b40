//! What is done with a packet.

use core::fmt;

use crate::DropReason;

/// The decision about one packet. A denial is a value, not an error.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Verdict {
    /// Let it pass.
    Allow,
    /// Drop it, for this reason.
    Deny(DropReason),
    /// Let it pass although policy denies it, because the endpoint is in audit mode; the reason is reported.
    Audit(DropReason),
    /// Hand it to the proxy that listens on this port.
    Redirect(ProxyPort),
}

/// The port of a proxy's listener, in host order.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct ProxyPort(pub u16);

/// The number under which the datapath reports the rule that decided ("cookie"). 0 means no rule.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
#[repr(transparent)]
pub struct RuleId(pub u32);

impl RuleId {
    /// No rule: default deny, or a direction that is not enforced.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
