//! Services put together from their parts: the object, its slices, and the pods behind them.
//!
//! Slices say who is behind a Service as soon as one exists. Without any, as where nobody runs a controller, its
//! backends are the pods that its selector means. Every change says which Services it touches, and only those need to
//! be given to the repository again. Pure; the agent and tools that read manifests own one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use sluice_types::{Identity, Labels, Source};

use crate::{
    referents::{Backend, Service, ServiceName, ServicePort},
    rule::NamedPort,
    selector::{LabelKey, LabelSelector, Requirement},
};

/// A Service as its author describes it, without who is behind it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DeclaredService {
    /// Its name.
    pub name: ServiceName,
    /// Its labels, source `k8s`.
    pub labels: Labels,
    /// What its pods must have, all of it.
    pub selector: Option<BTreeMap<String, String>>,
    /// Its own addresses.
    pub cluster_ips: Vec<IpAddr>,
    /// Its ports and where they lead.
    pub ports: Vec<DeclaredPort>,
}

/// A port of a Service and the port behind it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeclaredPort {
    /// The Service's own.
    pub own: ServicePort,
    /// The pod's.
    pub target: TargetPort,
}

/// A port of a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name that the pod gives it.
    Name(String),
}

/// A part of the addresses behind a Service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Slice {
    /// For which Service it speaks; a slice may speak for none.
    pub service: Option<ServiceName>,
    /// The addresses that take connections.
    pub addresses: Vec<IpAddr>,
    /// The ports of each.
    pub ports: Vec<ServicePort>,
}

/// A pod that may be behind a Service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BackendPod {
    /// Its own labels, all of them: those that identities leave out select too.
    pub labels: BTreeMap<String, String>,
    /// Its addresses; none before it has started.
    pub addresses: Vec<IpAddr>,
    /// Who it is to policies.
    pub identity: Option<Identity>,
    /// The names of its ports ([`crate::parse::named_ports`]).
    pub named_ports: Vec<NamedPort>,
}

/// Where a pod or slice is, and a name that is unique among its kind there.
pub type ObjectName = (String, String);

/// All Services with their parts.
#[derive(Debug, Default)]
pub struct ServiceTable {
    services: BTreeMap<ServiceName, DeclaredService>,
    slices: BTreeMap<ObjectName, Slice>,
    slices_of: BTreeMap<ServiceName, BTreeSet<ObjectName>>,
    /// The Services that slices lead to an address.
    services_at: HashMap<IpAddr, BTreeSet<ServiceName>>,
    pods: BTreeMap<ObjectName, BackendPod>,
    pods_at: HashMap<IpAddr, BTreeSet<ObjectName>>,
}

impl ServiceTable {
    /// Makes a Service known or gives it another form. Returns the Services that may stand for something else now.
    pub fn set_service(&mut self, service: DeclaredService) -> BTreeSet<ServiceName> {
        let name = service.name.clone();
        if self.services.get(&name) == Some(&service) {
            return BTreeSet::new();
        }
        self.services.insert(name.clone(), service);
        BTreeSet::from([name])
    }

    /// Forgets a Service; its slices stay. Returns it if it was known.
    pub fn remove_service(&mut self, name: &ServiceName) -> BTreeSet<ServiceName> {
        self.services.remove(name).into_iter().map(|service| service.name).collect()
    }

    /// Makes a slice known or gives it another content. Returns the Services that may stand for something else now.
    pub fn set_slice(&mut self, name: ObjectName, slice: Slice) -> BTreeSet<ServiceName> {
        if self.slices.get(&name) == Some(&slice) {
            return BTreeSet::new();
        }
        let mut touched = self.remove_slice(&name);
        if let Some(service) = &slice.service {
            self.slices_of.entry(service.clone()).or_default().insert(name.clone());
            for address in &slice.addresses {
                self.services_at.entry(*address).or_default().insert(service.clone());
            }
            touched.extend(self.known(service));
        }
        self.slices.insert(name, slice);
        touched
    }

    /// Forgets a slice. Returns the Services that may stand for something else now.
    pub fn remove_slice(&mut self, name: &ObjectName) -> BTreeSet<ServiceName> {
        let Some(slice) = self.slices.remove(name) else { return BTreeSet::new() };
        let Some(service) = &slice.service else { return BTreeSet::new() };
        take(&mut self.slices_of, service, name);
        let others = self.slices_of.get(service).into_iter().flatten();
        let kept: BTreeSet<IpAddr> = others
            .filter_map(|other| self.slices.get(other))
            .flat_map(|slice| &slice.addresses)
            .copied()
            .collect();
        for address in slice.addresses.iter().filter(|address| !kept.contains(address)) {
            if let Some(services) = self.services_at.get_mut(address) {
                services.remove(service);
                if services.is_empty() {
                    self.services_at.remove(address);
                }
            }
        }
        self.known(service).into_iter().collect()
    }

    /// Makes a pod known or gives it other labels, addresses or ports. Returns the Services that may stand for
    /// something else now.
    pub fn set_pod(&mut self, name: ObjectName, pod: BackendPod) -> BTreeSet<ServiceName> {
        if self.pods.get(&name) == Some(&pod) {
            return BTreeSet::new();
        }
        let mut touched = self.remove_pod(&name);
        touched.extend(self.services_of(&name, &pod));
        for address in &pod.addresses {
            self.pods_at.entry(*address).or_default().insert(name.clone());
        }
        self.pods.insert(name, pod);
        touched
    }

    /// Forgets a pod. Returns the Services that may stand for something else now.
    pub fn remove_pod(&mut self, name: &ObjectName) -> BTreeSet<ServiceName> {
        let Some(pod) = self.pods.remove(name) else { return BTreeSet::new() };
        for address in &pod.addresses {
            if let Some(pods) = self.pods_at.get_mut(address) {
                pods.remove(name);
                if pods.is_empty() {
                    self.pods_at.remove(address);
                }
            }
        }
        self.services_of(name, &pod)
    }

    /// A pod as it was last made known.
    #[must_use]
    pub fn pod(&self, name: &ObjectName) -> Option<&BackendPod> {
        self.pods.get(name)
    }

    /// What a Service stands for now; `None` if there is none of this name.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<Service> {
        let declared = self.services.get(name)?;
        let mut backends: BTreeMap<IpAddr, BTreeSet<ServicePort>> = BTreeMap::new();
        if let Some(slices) = self.slices_of.get(name) {
            for slice in slices.iter().filter_map(|slice| self.slices.get(slice)) {
                for address in &slice.addresses {
                    backends.entry(*address).or_default().extend(slice.ports.iter().cloned());
                }
            }
        } else if let Some(selector) = &declared.selector {
            for pod in self.pods_in(&name.namespace).filter(|pod| selects(selector, pod)) {
                for address in &pod.addresses {
                    backends.entry(*address).or_default().extend(ports_of(&declared.ports, pod));
                }
            }
        }
        let backend = |(address, ports): (IpAddr, BTreeSet<ServicePort>)| Backend {
            address,
            identity: self.identity_at(address),
            ports: ports.into_iter().collect(),
        };
        Some(Service {
            labels: declared.labels.clone(),
            selector: declared.selector.as_ref().map(label_selector),
            cluster_ips: declared.cluster_ips.clone(),
            ports: declared.ports.iter().map(|port| port.own.clone()).collect(),
            backends: backends.into_iter().map(backend).collect(),
        })
    }

    /// The addresses that slices give a Service, whether the Service itself is known or not.
    #[must_use]
    pub fn slice_addresses(&self, name: &ServiceName) -> BTreeSet<IpAddr> {
        let slices = self.slices_of.get(name).into_iter().flatten();
        slices
            .filter_map(|slice| self.slices.get(slice))
            .flat_map(|slice| slice.addresses.iter().copied())
            .collect()
    }

    /// Who has an address. While two pods of different identity claim it, nobody has.
    fn identity_at(&self, address: IpAddr) -> Option<Identity> {
        let owners = self.pods_at.get(&address)?;
        let identities: BTreeSet<Option<Identity>> =
            owners.iter().filter_map(|owner| self.pods.get(owner)).map(|pod| pod.identity).collect();
        if identities.len() == 1 { identities.into_iter().next().flatten() } else { None }
    }

    fn known(&self, name: &ServiceName) -> Option<ServiceName> {
        self.services.contains_key(name).then(|| name.clone())
    }

    fn pods_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a BackendPod> {
        let pods = self.pods.range((namespace.to_owned(), String::new())..);
        pods.take_while(move |((own, _), _)| own == namespace).map(|(_, pod)| pod)
    }

    /// The Services that a pod is, or may be, behind.
    fn services_of(&self, (namespace, _): &ObjectName, pod: &BackendPod) -> BTreeSet<ServiceName> {
        let by_slice = pod.addresses.iter().filter_map(|address| self.services_at.get(address)).flatten();
        let by_slice = by_slice.filter(|name| self.services.contains_key(*name));
        let first = ServiceName { namespace: namespace.clone(), name: String::new() };
        let here = self.services.range(first..).take_while(|(name, _)| name.namespace == *namespace);
        let by_selector = here.filter(|(name, service)| {
            let selects = service.selector.as_ref().is_some_and(|selector| selects(selector, pod));
            selects && !self.slices_of.contains_key(*name)
        });
        by_slice.chain(by_selector.map(|(name, _)| name)).cloned().collect()
    }
}

fn take(lists: &mut BTreeMap<ServiceName, BTreeSet<ObjectName>>, service: &ServiceName, name: &ObjectName) {
    if let Some(list) = lists.get_mut(service) {
        list.remove(name);
        if list.is_empty() {
            lists.remove(service);
        }
    }
}

fn selects(selector: &BTreeMap<String, String>, pod: &BackendPod) -> bool {
    selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
}

/// The ports of a Service as this pod has them. A name that the pod does not give leads nowhere.
fn ports_of<'a>(ports: &'a [DeclaredPort], pod: &'a BackendPod) -> impl Iterator<Item = ServicePort> + 'a {
    ports.iter().filter_map(|declared| {
        let own = &declared.own;
        let port = match &declared.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => {
                let mut named = pod.named_ports.iter();
                named.find(|port| port.name == *name && port.protocol == own.protocol).map(|port| port.port)
            }
        };
        Some(ServicePort { port: port?, ..own.clone() })
    })
}

/// The selector as it is asked of identities. They leave some labels out (`statefulset.kubernetes.io/pod-name`); a
/// Service that selects by one of those selects no identity.
fn label_selector(selector: &BTreeMap<String, String>) -> LabelSelector {
    let key = |key: &String| LabelKey::new(Source::K8s, key);
    selector.iter().map(|(own, value)| Requirement::equals(key(own), value)).collect()
}

#[cfg(test)]
mod tests;
