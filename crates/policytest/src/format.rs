//! The policy test file as people write it (`sluice.dev/v1`, kind `PolicyTest`). Shape only.

use std::collections::BTreeMap;
use std::net::IpAddr;

#[cfg(feature = "schema")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What stands in `apiVersion`.
pub const API_VERSION: &str = "sluice.dev/v1";
/// What stands in `kind`.
pub const KIND: &str = "PolicyTest";

/// One test file.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct TestFile {
    #[expect(dead_code, reason = "checked before the rest is read")]
    pub(crate) api_version: String,
    #[expect(dead_code, reason = "checked before the rest is read")]
    pub(crate) kind: String,
    #[serde(default)]
    #[expect(dead_code, reason = "for people")]
    pub(crate) metadata: Metadata,
    /// Files or directories of manifests, relative to this file.
    #[serde(default)]
    pub(crate) policies: Vec<String>,
    /// Manifests in place.
    #[serde(default)]
    #[expect(dead_code, reason = "taken from the tree, which knows the places")]
    pub(crate) objects: Vec<Value>,
    #[serde(default)]
    pub(crate) config: Settings,
    /// Labels of namespaces.
    #[serde(default)]
    pub(crate) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Who takes part: `NAMESPACE/NAME` is a pod.
    #[serde(default)]
    pub(crate) endpoints: BTreeMap<String, Endpoint>,
    #[serde(default)]
    pub(crate) tests: Vec<Case>,
    /// Many questions at once.
    #[serde(default)]
    pub(crate) matrix: Vec<Matrix>,
    /// Documents that must be refused.
    #[serde(default)]
    pub(crate) invalid: Vec<Invalid>,
}

/// The file's name for itself, and whatever else Kubernetes' tools keep there.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
pub(crate) struct Metadata {
    #[serde(default)]
    #[expect(dead_code, reason = "for people")]
    pub(crate) name: String,
}

/// Options of the agent that change verdicts.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Settings {
    pub(crate) policy_enforcement: Option<Enforcement>,
    pub(crate) allow_localhost: Option<AllowLocalhost>,
    #[serde(rename = "policyCIDRMatchMode", default)]
    pub(crate) policy_cidr_match_mode: Vec<CidrMatch>,
    pub(crate) host_firewall: Option<bool>,
    pub(crate) node_selector_labels: Option<bool>,
    #[serde(default)]
    pub(crate) audit: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum Enforcement {
    Default,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum AllowLocalhost {
    Auto,
    Always,
    Policy,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum CidrMatch {
    Nodes,
    Pods,
}

/// Somebody who takes part: a pod, an address outside, or something with a fixed meaning.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Endpoint {
    /// Of the pod, or of the node.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) service_account: Option<String>,
    /// Names of ports, `8080/TCP`.
    #[serde(default)]
    pub(crate) ports: BTreeMap<String, PortNumber>,
    /// The address; makes it somebody outside unless it is a pod.
    pub(crate) ip: Option<IpAddr>,
    /// Names whose answers held the address.
    #[serde(default)]
    pub(crate) names: Vec<String>,
    /// What it is, of the identities with a fixed meaning.
    #[serde(default)]
    pub(crate) reserved: Vec<String>,
}

/// `8080`, `8080/TCP`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(untagged, expecting = "write a port as a number or as text")]
pub(crate) enum PortNumber {
    Number(u16),
    Text(String),
}

/// One question with its answer.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Case {
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) port: Option<PortNumber>,
    #[serde(default)]
    pub(crate) protocol: ProtocolName,
    pub(crate) icmp_type: Option<u8>,
    pub(crate) http: Option<Http>,
    pub(crate) grpc: Option<Grpc>,
    pub(crate) kafka: Option<Kafka>,
    pub(crate) dns: Option<String>,
    pub(crate) sni: Option<String>,
    pub(crate) expect: Expected,
    /// Which side decides first.
    pub(crate) at: Option<Side>,
    /// Policies that decide, or that isolate.
    #[serde(default)]
    pub(crate) by: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
pub(crate) enum ProtocolName {
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "UDP")]
    Udp,
    #[serde(rename = "SCTP")]
    Sctp,
    #[serde(rename = "ICMP")]
    Icmp,
    #[serde(rename = "ICMPv6")]
    Icmpv6,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Http {
    pub(crate) method: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) headers: BTreeMap<String, HeaderValue>,
}

/// A header's value, or several of the same name.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(untagged, expecting = "write a header's value as text, or several as a list")]
pub(crate) enum HeaderValue {
    One(String),
    Several(Vec<String>),
}

#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Grpc {
    pub(crate) service: String,
    pub(crate) method: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Kafka {
    pub(crate) api_key: Option<KafkaKey>,
    pub(crate) api_version: Option<i16>,
    #[serde(rename = "clientID")]
    pub(crate) client_id: Option<String>,
    pub(crate) topics: Vec<String>,
    /// The consumer group. Rules do not look at it.
    pub(crate) group: Option<String>,
}

/// A kind of request, by name or number.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(untagged, expecting = "write the kind of request as a name or a number")]
pub(crate) enum KafkaKey {
    Number(i16),
    Name(String),
}

/// The words of verdicts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Expected {
    Allow,
    Deny,
    L7Deny,
    DnsRefused,
    Audit,
}

impl Expected {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::L7Deny => "l7-deny",
            Self::DnsRefused => "dns-refused",
            Self::Audit => "audit",
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum Side {
    Egress,
    Ingress,
}

/// Who reaches whom on one port.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Matrix {
    pub(crate) port: Option<PortNumber>,
    #[serde(default)]
    pub(crate) protocol: ProtocolName,
    pub(crate) icmp_type: Option<u8>,
    /// The receivers.
    pub(crate) columns: Vec<String>,
    /// A character per receiver: `X` allow, `.` anything else, `-` not asked.
    pub(crate) rows: BTreeMap<String, String>,
}

/// A document that must be refused.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Invalid {
    pub(crate) name: String,
    #[expect(dead_code, reason = "taken from the tree, which knows the places")]
    pub(crate) object: Value,
    /// Part of the message, of either case.
    #[serde(default)]
    pub(crate) error: String,
}
