//! The pods of the documents, as the engine sees them.

use std::{collections::BTreeMap, net::IpAddr};

use sluice_api::workload::{Container, PodStatus};
use sluice_policy::{Config, NamedPort, labels::pod_labels};
use sluice_types::{Labels, Protocol};

use crate::Document;

/// A pod with a network of its own.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// What selectors look at.
    pub(crate) labels: Labels,
    /// Its own labels as written.
    pub(crate) own: BTreeMap<String, String>,
    pub(crate) named_ports: Vec<NamedPort>,
    /// The TCP ports that its containers declare.
    pub(crate) tcp_ports: Vec<u16>,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Pod {
    /// The pod, unless it uses the node's network or has ended.
    pub(super) fn new(
        document: &Document,
        pod: &sluice_api::Pod,
        namespace: &str,
        namespace_labels: &BTreeMap<String, String>,
        config: &Config,
    ) -> Option<Self> {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if pod.spec.host_network == Some(true) || matches!(phase, Some("Succeeded" | "Failed")) {
            return None;
        }
        let own = pod.metadata.labels.clone().unwrap_or_default();
        let account = pod.spec.service_account_name.as_deref().unwrap_or("default");
        let mut tcp_ports = Vec::new();
        let mut named_ports = Vec::new();
        let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers).flatten();
        for (name, protocol, port) in containers.flat_map(ports) {
            if protocol == Protocol::Tcp {
                tcp_ports.push(port);
            }
            named_ports.extend(name.map(|name| NamedPort {
                name: name.to_ascii_lowercase(),
                protocol,
                port,
            }));
        }
        Some(Self {
            namespace: namespace.to_owned(),
            name: document.manifest.name.clone(),
            labels: pod_labels(&own, namespace, namespace_labels, account, &config.cluster_name),
            own,
            named_ports,
            tcp_ports,
            addresses: pod.status.as_ref().map(addresses).unwrap_or_default(),
        })
    }

    /// `shop/web`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

fn ports(container: &Container) -> impl Iterator<Item = (Option<&str>, Protocol, u16)> {
    container.ports.iter().flatten().filter_map(|port| {
        let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => return None,
        };
        Some((port.name.as_deref(), protocol, u16::try_from(port.container_port).ok()?))
    })
}

fn addresses(status: &PodStatus) -> Vec<IpAddr> {
    let several = status.pod_ips.iter().flatten().map(|address| address.ip.as_str());
    let all = status.pod_ip.as_deref().into_iter().chain(several);
    all.filter_map(|text| text.parse().ok()).collect()
}
