//! Where things are, in one place: the socket, the state directory, and the API's paths.

/// The agent's socket unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/sluice/agent.sock";
/// The environment variable that names another socket.
pub const SOCKET_ENV: &str = "SLUICE_SOCKET";
/// Where the agent and the CNI plugin keep what must survive a restart.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/sluice";
/// Below the state directory: delete records the CNI plugin left while the agent was down, one file each.
pub const DELETE_QUEUE_DIR: &str = "delete-queue";
/// Below the state directory: locked by the proxy for HTTP while it runs, and holds its process id.
pub const L7_PROXY_LOCK: &str = "proxy/l7proxy.lock";
/// Below the state directory: the socket at which that proxy hands over to the next one.
pub const L7_PROXY_HANDOVER: &str = "proxy/handover.sock";
/// Below the state directory: the socket at which that proxy says what it counted, `GET /metrics`.
pub const L7_PROXY_METRICS: &str = "proxy/metrics.sock";
/// The port on the loopback at which that proxy listens unless told otherwise.
pub const L7_PROXY_PORT: u16 = 15_001;
/// Where bpffs is expected or mounted; pins stand below it in `ebpf_common::PIN_SUBDIR`.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf";

/// `GET`: [`crate::model::Status`].
pub const STATUS: &str = "/v1/status";
/// `POST` [`crate::model::IpamRequest`] → [`crate::model::IpamLease`].
pub const IPAM: &str = "/v1/ipam";
/// `DELETE /v1/ipam/{container-id}/{ifname}`: idempotent.
pub const IPAM_OWNER: &str = "/v1/ipam/{container_id}/{ifname}";
/// `GET`: list of [`crate::model::Endpoint`]. `POST` [`crate::model::EndpointRequest`] → [`crate::model::Endpoint`],
/// answered once its policy is in the kernel.
pub const ENDPOINTS: &str = "/v1/endpoints";
/// `GET`: [`crate::model::Endpoint`] by id.
pub const ENDPOINT: &str = "/v1/endpoints/{id}";
/// `PATCH` [`crate::model::EndpointOptions`] → [`crate::model::Endpoint`].
pub const ENDPOINT_CONFIG: &str = "/v1/endpoints/{id}/config";
/// `GET`: list of [`crate::model::EndpointLogEntry`], oldest first.
pub const ENDPOINT_LOG: &str = "/v1/endpoints/{id}/log";
/// `DELETE /v1/attachments/{container-id}/{ifname}`: removes the endpoint and its address; idempotent.
pub const ATTACHMENT: &str = "/v1/attachments/{container_id}/{ifname}";
/// `POST` [`crate::model::CniGcRequest`] → [`crate::model::CniGcResult`].
pub const CNI_GC: &str = "/v1/cni/gc";
/// `GET`: list of [`crate::model::IdentityInfo`].
pub const IDENTITIES: &str = "/v1/identities";
/// `GET`: what policies can be about, as users write it: Namespaces, Pods, Services, EndpointSlices, CiliumCIDRGroups.
pub const OBJECTS: &str = "/v1/objects";
/// `GET`: list of [`crate::model::PolicyInfo`].
pub const POLICIES: &str = "/v1/policies";
/// `POST` [`crate::model::PolicyDocument`] → [`crate::model::PolicyApplied`]: applies manifests and keeps them.
pub const POLICY_APPLY: &str = "/v1/policies/apply";
/// `DELETE /v1/policies/{kind}/{namespace}/{name}` (`namespace` is `-` for cluster-wide ones).
pub const POLICY: &str = "/v1/policies/{kind}/{namespace}/{name}";
/// `GET ?endpoint=ID` (all without): list of [`crate::model::PolicyMapEntry`].
pub const BPF_POLICY: &str = "/v1/bpf/policy";
/// `GET`: list of [`crate::model::ConntrackRow`].
pub const BPF_CT: &str = "/v1/bpf/ct";
/// `GET`: list of [`crate::model::IpcacheRow`].
pub const BPF_IPCACHE: &str = "/v1/bpf/ipcache";
/// `GET`: what was counted on this node, as Prometheus reads it.
pub const METRICS: &str = "/v1/metrics";
/// `POST` list of [`sluice_flow::ProxyRecord`]: what a proxy saw.
pub const PROXY_RECORDS: &str = "/v1/proxy/records";
/// `GET ?verdicts=true&last=COUNT&follow=false`: endless unless `follow=false` stream of [`sluice_flow::Flow`], one JSON object a line.
pub const MONITOR: &str = "/v1/monitor";
/// `GET`: the last flows that were not simply allowed, as [`MONITOR`] has them, oldest first; then it ends.
pub const RECENT_FLOWS: &str = "/v1/monitor?last=4096&follow=false";

/// Fills the `{…}` parts of a path template, in order. Values must not hold `/`, `?` or spaces.
#[must_use]
pub fn fill(template: &str, values: &[&str]) -> String {
    let mut values = values.iter();
    let mut path = String::with_capacity(template.len() + 32);
    for (nth, part) in template.split('/').enumerate() {
        if nth > 0 {
            path.push('/');
        }
        path.push_str(if part.starts_with('{') { values.next().copied().unwrap_or_default() } else { part });
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_order() {
        assert_eq!(fill(ATTACHMENT, &["abc", "eth0"]), "/v1/attachments/abc/eth0");
    }
}
