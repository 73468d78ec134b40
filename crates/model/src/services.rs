//! Services and who is behind them now.

use std::{collections::BTreeSet, net::IpAddr, net::Ipv6Addr};

use sluice_policy::{BackendPod, ServiceName, ServicePort};
use sluice_types::Protocol;

use crate::{
    cluster::{Cluster, Known},
    flow::FlowPort,
    participant::Who,
};

/// Where pods get an address from that have none: only a Service can tell, which knows its pods by address.
const NOWHERE: Ipv6Addr = Ipv6Addr::new(0xfdff, 0x51, 0x1ce, 0, 0, 0, 0, 0);

/// Why a Service leads nowhere.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ServiceError {
    /// There is none of this name.
    #[error("there is no Service {0}")]
    Unknown(ServiceName),
    /// It does not have the port.
    #[error("the Service {service} has no {protocol} port {port}{known}")]
    Port {
        /// The Service.
        service: ServiceName,
        /// The protocol that was asked for.
        protocol: Protocol,
        /// The number or name that was asked for.
        port: String,
        /// The ports it has, as the end of a sentence.
        known: String,
    },
}

impl Cluster {
    /// The ends that a Service leads to through one of its ports, by name, and the port of each.
    ///
    /// # Errors
    /// There is no such Service, or no such port.
    pub fn backends(
        &mut self,
        service: &ServiceName,
        protocol: Protocol,
        port: &FlowPort,
    ) -> Result<Vec<(String, u16)>, ServiceError> {
        self.settle();
        let found = self.services.service(service).ok_or_else(|| ServiceError::Unknown(service.clone()))?;
        let is_meant = |own: &&ServicePort| {
            own.protocol == protocol
                && match port {
                    FlowPort::Number(number) => own.port == *number,
                    FlowPort::Named(name) => own.name == *name,
                }
        };
        let own = found
            .ports
            .iter()
            .find(is_meant)
            .ok_or_else(|| no_port(service, protocol, port, &found.ports))?;
        let ports = |ports: &[ServicePort]| {
            let port = ports.iter().find(|port| (&port.name, port.protocol) == (&own.name, protocol));
            port.map(|port| port.port)
        };
        let behind: Vec<(IpAddr, u16)> = found
            .backends
            .iter()
            .filter_map(|backend| Some((backend.address, ports(&backend.ports)?)))
            .collect();
        Ok(behind.into_iter().map(|(address, port)| (self.at(address), port)).collect())
    }

    /// The name of whoever has an address.
    fn at(&mut self, address: IpAddr) -> String {
        let known = self.known.values().find(|known| known.addresses.contains(&address));
        let text = address.to_string();
        match known {
            Some(known) => known.participant.name.clone(),
            // An address needs no introduction.
            None => self.end(&text).unwrap_or(text),
        }
    }

    /// Tells the engine about Services of which something changed.
    pub(crate) fn settle_services(&mut self) {
        let mut touched = std::mem::take(&mut self.touched_services);
        let pods: Vec<(String, BackendPod)> = self.known.values().filter_map(backend).collect();
        let gone = self.behind_services.iter().filter(|name| !pods.iter().any(|(pod, _)| pod == *name));
        for name in gone.cloned().collect::<Vec<String>>() {
            touched.extend(self.services.remove_pod(&object_name(&name)));
            self.behind_services.remove(&name);
        }
        for (name, pod) in pods {
            touched.extend(self.services.set_pod(object_name(&name), pod));
            self.behind_services.insert(name);
        }
        self.give(&touched);
    }

    fn give(&mut self, touched: &BTreeSet<ServiceName>) {
        for name in touched {
            drop(match self.services.service(name) {
                Some(service) => self.repository.set_service(name.clone(), service),
                None => self.repository.remove_service(name),
            });
        }
    }
}

fn no_port(
    service: &ServiceName,
    protocol: Protocol,
    port: &FlowPort,
    known: &[ServicePort],
) -> ServiceError {
    let shown: Vec<String> = known.iter().map(|own| format!("{}/{}", own.port, own.protocol)).collect();
    ServiceError::Port {
        service: service.clone(),
        protocol,
        port: match port {
            FlowPort::Number(number) => number.to_string(),
            FlowPort::Named(name) => format!("{name:?}"),
        },
        known: if shown.is_empty() { String::new() } else { format!("; it has {}", shown.join(", ")) },
    }
}

/// The addresses by which Services know somebody: its own, else one that nobody else has.
pub(crate) fn addresses(known: &[IpAddr], place: usize) -> Vec<IpAddr> {
    if known.is_empty() {
        let bits = NOWHERE.to_bits() | (place as u128 + 1);
        return vec![Ipv6Addr::from_bits(bits).into()];
    }
    known.to_vec()
}

fn backend(known: &Known) -> Option<(String, BackendPod)> {
    let Who::Pod { labels, .. } = &known.participant.who else { return None };
    let pod = BackendPod {
        labels: labels.clone(),
        addresses: known.addresses.clone(),
        identity: Some(known.identity),
        named_ports: known.participant.ports.clone(),
    };
    known.participant.name.contains('/').then(|| (known.participant.name.clone(), pod))
}

/// Namespace and name of a pod that is called `namespace/name`.
fn object_name(name: &str) -> (String, String) {
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    (namespace.to_owned(), name.to_owned())
}
