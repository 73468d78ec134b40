//! The record of one packet's fate.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use sluice_types::{Direction, DropReason, EndpointId, Identity, Labels, RuleId};

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
    /// It passed, but its request was not answered by the server.
    Error,
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
    /// The interface of the hook (index); 0 where a proxy decided.
    pub ifindex: u32,
    /// The request, where a proxy decided about one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub http: Option<HttpRecord>,
}

/// An HTTP request or gRPC call.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HttpRecord {
    /// Its id, which a refusal names to the client.
    pub flow: String,
    /// The method.
    pub method: String,
    /// The path with its query, in the form that was judged.
    pub path: String,
    /// Host and port that the client asked for.
    pub authority: String,
    /// The status of the answer; none if there was none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// From the head of the request to the head of the answer, nanoseconds.
    pub latency_ns: u64,
}

/// What a proxy tells the agent about one request. The agent makes a [`Flow`] of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ProxyRecord {
    /// Wall clock, nanoseconds since 1970.
    pub time_unix_ns: u64,
    /// What happened.
    pub verdict: FlowVerdict,
    /// The direction as seen from the endpoint that decided.
    pub direction: Direction,
    /// The endpoint that decided.
    pub endpoint: EndpointId,
    /// The client.
    pub source: SocketAddr,
    /// Its identity.
    pub source_identity: Identity,
    /// The server.
    pub destination: SocketAddr,
    /// Its identity.
    pub destination_identity: Identity,
    /// The rule that decided, [`RuleId::NONE`] if none did.
    pub rule: RuleId,
    /// Where in it, `toPorts[0].http[1]`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub part: Option<String>,
    /// The revision of the endpoint's policy under which the connection came.
    pub revision: u32,
    /// Records that were lost before this one.
    pub lost: u32,
    /// The request.
    pub http: HttpRecord,
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
