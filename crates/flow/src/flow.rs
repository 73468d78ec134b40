//! The record of one packet's fate.

use serde::{Deserialize, Serialize};
use sluice_types::{Direction, DropReason, Identity, Labels};

/// What happened to the packet. The words are those of the flow API, of `policy trace` and of metrics.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum FlowVerdict {
    /// It passed.
    Forwarded,
    /// It was dropped.
    Dropped,
    /// It passed only because of audit mode.
    Audit,
    /// It was handed to a proxy.
    Redirected,
}

/// One packet, who sent it to whom, and what was decided.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Flow {
    /// Wall clock, nanoseconds since 1970.
    pub time_unix_ns: u64,
    /// What happened.
    pub verdict: FlowVerdict,
    /// Why, for drops and audited packets.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drop_reason: Option<DropReason>,
    /// The direction as seen from the endpoint that decided.
    pub direction: Direction,
    /// The endpoint (node-local id) that decided, 0 if none.
    pub endpoint: u16,
    /// The sender.
    pub source: FlowEnd,
    /// The receiver.
    pub destination: FlowEnd,
    /// Layer 4.
    pub l4: L4,
    /// Whether it is a reply.
    pub is_reply: bool,
    /// The policies and rules that decided: the one that allowed or denied, or, for a default deny, those that
    /// isolate the endpoint.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub policies: Vec<PolicyOrigin>,
    /// The revision of the endpoint's policy that decided.
    pub revision: u32,
    /// Length of the packet in bytes.
    pub length: u32,
    /// Events that were not reported before this one.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub lost: u32,
    /// The interface of the hook (index).
    pub ifindex: u32,
}

impl Flow {
    /// A name for it among those that an agent keeps: the moment it was seen.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{:x}", self.time_unix_ns)
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// One end of a flow.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct FlowEnd {
    /// The address, empty when the packet is not IP.
    pub ip: String,
    /// Source or destination port; 0 if the protocol has none or it is not known.
    pub port: u16,
    /// The security identity.
    pub identity: Identity,
    /// Labels of the identity.
    #[serde(skip_serializing_if = "Labels::is_empty", default)]
    pub labels: Labels,
    /// Namespace of the pod, if it is one of this node.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub namespace: String,
    /// Name of the pod, if it is one of this node.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub pod: String,
}

/// Layer 4 of a flow.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct L4 {
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6`, a number, or empty.
    pub protocol: String,
    /// TCP flags (`SYN`, `SYN,ACK`), empty for others.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub tcp_flags: String,
    /// ICMP type.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub icmp_type: Option<u8>,
}

/// A rule by its origin.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct PolicyOrigin {
    /// `cnp/NAMESPACE/NAME`, `ccnp/NAME` or `knp/NAMESPACE/NAME`.
    pub policy: String,
    /// Path of the rule inside the policy, `ingress[0]`; empty when the whole policy isolates.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub rule: String,
}
