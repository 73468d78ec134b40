//! What crosses the socket. Fields are added compatibly: readers ignore what they do not know.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use sluice_types::{Direction, EndpointId, Identity, Labels, RuleId};

/// An error as the API answers it, with an HTTP status of 4xx or 5xx.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ErrorBody {
    /// One sentence: what was attempted, on what, and why it failed.
    pub message: String,
    /// A word a program can test: `not-found`, `conflict`, `invalid`, `exhausted`, `not-ready`, `internal`.
    pub code: String,
}

/// The agent's state.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    /// `ok`, `degraded` (enforcing, but something needs a look) or `starting`.
    pub state: String,
    /// Build version.
    pub version: String,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// Where objects come from, `directory /etc/sluice/manifests`.
    pub source: String,
    /// Policy enforcement mode: `default`, `always`, `never`.
    pub enforcement: String,
    /// Whether agent-wide audit mode is on.
    pub audit: bool,
    /// Revision of the policy repository.
    pub revision: u64,
    /// Number of policies in force.
    pub policies: usize,
    /// Number of identities in use.
    pub identities: usize,
    /// Endpoints by state.
    pub endpoints: BTreeMap<String, usize>,
    /// The address pools of primary mode: pool, addresses in use, and free.
    pub ipam: Vec<PoolStatus>,
    /// The BPF maps: entries in use and room.
    pub maps: Vec<MapStatus>,
    /// Whether the node's own devices carry `from_netdev`, by name.
    pub devices: Vec<String>,
    /// What needs a look: refused manifests, maps near their limit, endpoints that fail. Empty when all is well.
    pub problems: Vec<Problem>,
}

/// One address pool.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PoolStatus {
    /// The prefix.
    pub pool: String,
    /// Leased addresses.
    pub used: u64,
    /// Released addresses that rest before they are handed out again.
    pub resting: u64,
    /// All addresses that can be leased.
    pub capacity: u64,
}

/// One BPF map.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MapStatus {
    /// The map's kernel name.
    pub name: String,
    /// Entries in use, if it is known without walking the map.
    pub used: Option<u64>,
    /// Room.
    pub capacity: u64,
}

/// Something that needs a look.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Problem {
    /// The object: a file with line, a policy, an endpoint, a map.
    pub object: String,
    /// What is wrong and what it means for traffic.
    pub message: String,
}

/// A request for addresses in primary mode.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct IpamRequest {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

/// Leased addresses. A repeated request of the same owner gets the same lease.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct IpamLease {
    /// The pod's IPv4 address, if there is an IPv4 pool.
    pub ipv4: Option<Ipv4Addr>,
    /// The pod's IPv6 address, if there is an IPv6 pool.
    pub ipv6: Option<Ipv6Addr>,
    /// The gateway that the pod's IPv4 default route names (link-local, answered by the host-side veth).
    pub gateway4: Option<Ipv4Addr>,
    /// The gateway that the pod's IPv6 default route names.
    pub gateway6: Option<Ipv6Addr>,
    /// MTU for the pod's interface.
    pub mtu: u32,
}

/// A new endpoint, as the CNI plugin sends it once the interface exists and the programs are attached.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EndpointRequest {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`: the name inside the pod.
    pub ifname: String,
    /// The pod's network namespace, a path.
    pub netns: String,
    /// `K8S_POD_NAMESPACE`, if given.
    pub pod_namespace: Option<String>,
    /// `K8S_POD_NAME`, if given.
    pub pod_name: Option<String>,
    /// `K8S_POD_UID`, if given. It must be that of the Pod the agent knows.
    pub pod_uid: Option<String>,
    /// Name of the host-side veth.
    pub host_ifname: String,
    /// Its interface index in the agent's namespace.
    pub host_ifindex: u32,
    /// The pod's MAC address, `02:…`.
    pub mac: String,
    /// The host-side veth's MAC address.
    pub host_mac: String,
    /// The pod's IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// The pod's IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Whether another plugin forwards for it (chained mode).
    pub chained: bool,
    /// Whether the addresses come from the agent's own IPAM.
    pub own_ipam: bool,
}

/// The state of an endpoint.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointState {
    /// Found after a restart, its policy not computed again yet; the kernel still enforces the last one.
    Restoring,
    /// Its labels are not known yet.
    WaitingForIdentity,
    /// Its policy must be computed.
    WaitingToRegenerate,
    /// Its policy is being computed and installed.
    Regenerating,
    /// The policy in the kernel is the wanted one.
    Ready,
    /// It is going away.
    Disconnecting,
    /// It is gone.
    Disconnected,
}

impl std::fmt::Display for EndpointState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Restoring => "restoring",
            Self::WaitingForIdentity => "waiting-for-identity",
            Self::WaitingToRegenerate => "waiting-to-regenerate",
            Self::Regenerating => "regenerating",
            Self::Ready => "ready",
            Self::Disconnecting => "disconnecting",
            Self::Disconnected => "disconnected",
        })
    }
}

/// Whether a direction is enforced.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum EnforcementState {
    /// No policy isolates it: everything passes.
    Disabled,
    /// Only what policy allows passes.
    Enabled,
    /// Policy is computed, but what it denies is reported and passes.
    #[serde(rename = "Disabled (Audit)")]
    Audit,
}

impl std::fmt::Display for EnforcementState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Disabled => "Disabled",
            Self::Enabled => "Enabled",
            Self::Audit => "Disabled (Audit)",
        })
    }
}

/// One endpoint.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Endpoint {
    /// Node-local number.
    pub id: EndpointId,
    /// Its state.
    pub state: EndpointState,
    /// Ingress enforcement.
    pub ingress: EnforcementState,
    /// Egress enforcement.
    pub egress: EnforcementState,
    /// Security identity.
    pub identity: Identity,
    /// Identity-relevant labels.
    pub labels: Labels,
    /// The request it was made from.
    pub attachment: EndpointRequest,
    /// The policy revision in the kernel.
    pub realized_revision: u64,
    /// The policy revision that is wanted.
    pub wanted_revision: u64,
    /// Number of entries of its policy map.
    pub policy_entries: usize,
    /// Options that can be set.
    pub options: EndpointOptions,
    /// Why it is not ready, if it is not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem: Option<String>,
    /// Policies that isolate it, per direction.
    #[serde(default)]
    pub isolated_by: BTreeMap<String, Vec<String>>,
    /// Policies in audit mode that are about it, per direction.
    #[serde(default)]
    pub audited_by: BTreeMap<String, Vec<String>>,
    /// Packets and bytes, per direction and outcome.
    #[serde(default)]
    pub counters: Vec<EndpointCounter>,
}

/// Packets of an endpoint with one outcome.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EndpointCounter {
    /// As seen from the endpoint.
    pub direction: Direction,
    /// `FORWARDED`, or the name of the drop reason.
    pub outcome: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Options of an endpoint; absent ones stay as they are in a `PATCH`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct EndpointOptions {
    /// Audit mode of this endpoint.
    #[serde(rename = "PolicyAuditMode", skip_serializing_if = "Option::is_none", default)]
    pub policy_audit_mode: Option<Toggle>,
}

/// `Enabled` or `Disabled`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Toggle {
    /// On.
    Enabled,
    /// Off.
    Disabled,
}

/// One line of an endpoint's history.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EndpointLogEntry {
    /// Wall clock, nanoseconds since 1970.
    pub time_unix_ns: u64,
    /// State after the event.
    pub state: EndpointState,
    /// What happened.
    pub message: String,
}

/// What the runtime still knows; everything else of this network may go.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CniGcRequest {
    /// The attachments that stay.
    pub valid: Vec<IpamRequest>,
}

/// What was removed.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CniGcResult {
    /// Endpoints and leases that nobody knew any more, `CONTAINER/IFNAME`.
    pub removed: Vec<String>,
    /// Host-side veths that belong to them, for the plugin to delete.
    pub host_ifnames: Vec<String>,
}

/// A deletion that the CNI plugin carried out while it could not tell the agent. One file
/// `<container>_<ifname>.json` each in [`crate::path::DELETE_QUEUE_DIR`], complete once it has that name; the agent
/// does what `DELETE` of [`crate::path::ATTACHMENT`] does and then removes the file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DeleteRecord {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// Name of the network.
    pub network: String,
    /// The name that the host-side veth has in primary mode. The plugin has deleted it.
    pub host_ifname: String,
    /// The addresses that the attachment had, if the runtime said so.
    pub addresses: Vec<IpAddr>,
}

/// One identity.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct IdentityInfo {
    /// The number.
    pub id: Identity,
    /// Its labels.
    pub labels: Labels,
    /// How many endpoints, prefixes or addresses use it.
    pub references: usize,
}

/// One policy as the agent has it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PolicyInfo {
    /// `CiliumNetworkPolicy`, `CiliumClusterwideNetworkPolicy` or `NetworkPolicy`.
    pub kind: String,
    /// Empty for cluster-wide ones.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it came from: a file with line.
    pub origin: String,
    /// Number of rules.
    pub rules: usize,
    /// Endpoints of this node that it selects.
    pub endpoints: Vec<EndpointId>,
    /// The last error of this object, if its newest version was refused (then the last good one is in force).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// What of it has no effect as it stands: names that stand for nothing, ports that two protocols claim.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<String>,
    /// The object itself, as JSON.
    pub object: serde_json::Value,
}

/// Manifests to apply.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PolicyDocument {
    /// YAML or JSON, one or more documents.
    pub text: String,
    /// What errors call it, for example the file's name.
    pub name: String,
}

/// What applying did.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PolicyApplied {
    /// `KIND/NAMESPACE/NAME created|configured|unchanged`, one per object.
    pub results: Vec<String>,
    /// The repository's revision afterwards.
    pub revision: u64,
}

/// The part of a policy map that an entry belongs to, in the order in which they are asked.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MapPlane {
    /// The administrators' policies of the admin tier.
    Admin,
    /// What is enforced.
    #[default]
    Normal,
    /// What would be enforced if the policies in audit mode were; only reported.
    Audit,
}

/// One row of an endpoint's policy map.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PolicyMapEntry {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The part of the map.
    #[serde(default)]
    pub plane: MapPlane,
    /// `Allow`, `Deny`, `Redirect`, or, in the admin plane, `Pass`.
    pub verdict: String,
    /// Direction.
    pub direction: Direction,
    /// Peer identity, 0 for any.
    pub identity: Identity,
    /// Labels of the peer identity.
    pub labels: Labels,
    /// `8080/TCP`, `1000-1007/UDP`, `8/ICMP`, `TCP`, or `ANY`.
    pub port: String,
    /// Proxy port, 0 if none.
    pub proxy_port: u16,
    /// Precedence: the highest that matches decides.
    pub precedence: u32,
    /// The rule it comes from.
    pub rule: RuleId,
    /// The rule by name, `cnp/shop/allow ingress[0]`.
    pub origin: String,
}

/// One connection.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ConntrackRow {
    /// `TCP` …
    pub protocol: String,
    /// Address and port of the opener.
    pub source: String,
    /// Address and port of the target.
    pub destination: String,
    /// Identity of the opener.
    pub source_identity: Identity,
    /// Identity of the target.
    pub destination_identity: Identity,
    /// Words: `egress-judged`, `ingress-judged`, `replied`, `fin`, `reset`, `audited`.
    pub flags: Vec<String>,
    /// Seconds until it expires.
    pub expires_s: u64,
    /// Packets from the opener and from the target.
    pub packets: [u32; 2],
    /// Bytes from the opener and from the target.
    pub bytes: [u64; 2],
    /// The rules that allowed it, egress then ingress; empty where not judged here.
    pub rules: [String; 2],
}

/// One ipcache entry.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct IpcacheRow {
    /// Address or prefix.
    pub prefix: String,
    /// Who that is.
    pub identity: Identity,
    /// Labels of the identity.
    pub labels: Labels,
    /// Local endpoint, 0 if none.
    pub endpoint: u16,
}
