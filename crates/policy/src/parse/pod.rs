//! What policies need to know of a pod besides its labels.

use std::collections::BTreeMap;

use sluice_api as api;
use sluice_types::Protocol;

use crate::rule::NamedPort;

/// The names of a pod's ports. One that makes no sense, or comes again with another number, names nothing: a policy
/// that uses it then matches nothing.
#[must_use]
pub fn named_ports(spec: &api::workload::PodSpec) -> Vec<NamedPort> {
    let containers = [&spec.containers, &spec.init_containers];
    let ports =
        containers.into_iter().flatten().flatten().filter_map(|container| container.ports.as_ref()).flatten();
    let mut names: BTreeMap<(String, Protocol), Option<u16>> = BTreeMap::new();
    for port in ports {
        let Some(name) = port.name.as_ref().filter(|name| !name.is_empty()) else { continue };
        let protocol = match port.protocol.as_deref() {
            None | Some("TCP" | "") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(_) => continue,
        };
        let number = u16::try_from(port.container_port).ok().filter(|number| *number != 0);
        names
            .entry((name.to_ascii_lowercase(), protocol))
            .and_modify(|known| *known = known.filter(|known| Some(*known) == number))
            .or_insert(number);
    }
    names
        .into_iter()
        .filter_map(|((name, protocol), port)| Some(NamedPort { name, protocol, port: port? }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_and_nonsense_name_nothing() {
        let text = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  initContainers:
  - name: sidecar
    ports: [{name: admin, containerPort: 9000}, {name: http, containerPort: 80}]
  containers:
  - name: c
    ports:
    - {name: HTTP, containerPort: 80}
    - {name: dns, containerPort: 53, protocol: UDP}
    - {name: twice, containerPort: 1}
    - {name: twice, containerPort: 2}
    - {name: big, containerPort: 70000}
    - {name: none, containerPort: 0}
    - {name: odd, containerPort: 7, protocol: XTP}
    - {containerPort: 9}
";
        let Ok(api::Object::Pod(pod)) = api::read_manifests(text).remove(0).content else { panic!() };
        let ports: Vec<_> =
            named_ports(&pod.spec).into_iter().map(|port| (port.name, port.protocol, port.port)).collect();
        let want = [("admin", Protocol::Tcp, 9000), ("dns", Protocol::Udp, 53), ("http", Protocol::Tcp, 80)];
        assert_eq!(ports, want.map(|(name, protocol, port)| (name.to_owned(), protocol, port)));
    }
}
