//! Services and who is behind them now.

use std::{collections::BTreeSet, net::IpAddr, net::Ipv6Addr};

use sluice_policy::{BackendPod, ServiceName};

use crate::{
    cluster::{Cluster, Known},
    participant::Who,
};

/// Where pods get an address from that have none: only a Service can tell, which knows its pods by address.
const NOWHERE: Ipv6Addr = Ipv6Addr::new(0xfdff, 0x51, 0x1ce, 0, 0, 0, 0, 0);

impl Cluster {
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
