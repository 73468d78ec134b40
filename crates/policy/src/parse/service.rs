//! Services and their slices, each read on its own; [`crate::services`] puts them together.

use std::net::IpAddr;

use sluice_api::{
    self as api, IntOrString,
    service::{ServicePort as WrittenPort, SliceConditions, SlicePort},
};
use sluice_types::Protocol;

use super::{
    ParseError, Path, Reason, Report, check_name, collect, namespace_of, ports::port_name,
    ports::port_number, reason::Words,
};
use crate::{
    labels::object_labels,
    referents::{ServiceName, ServicePort},
    services::{DeclaredPort, DeclaredService, Slice, TargetPort},
};

/// The label of a slice that names its Service (`discovery.k8s.io`, `LabelServiceName`).
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const PROTOCOLS: Words = Words(&["TCP", "UDP", "SCTP"]);
const ADDRESS_TYPES: Words = Words(&["IPv4", "IPv6", "FQDN"]);

/// A Service as its author describes it. One of type `ExternalName` stands for a name and leads nowhere.
///
/// # Errors
/// Everything that is wrong with it, in the order of the document.
pub fn service(service: &api::Service) -> Result<DeclaredService, Vec<ParseError>> {
    collect(|report| {
        check_name(&service.metadata, report);
        let name = ServiceName {
            namespace: namespace_of(&service.metadata).to_owned(),
            name: service.metadata.name.clone(),
        };
        let labels = object_labels(service.metadata.labels.as_ref());
        let spec = &service.spec;
        if spec.kind.as_deref() == Some("ExternalName") {
            return DeclaredService { name, labels, ..DeclaredService::default() };
        }
        let path = Path::root("spec");
        let cluster_ips = cluster_ips(spec, &path, report);
        let listed = path.field("ports");
        let ports =
            listed.items(spec.ports.as_deref()).filter_map(|(path, port)| declared(port, &path, report));
        let ports = ports.collect();
        // An empty selector is none (`pkg/apis/core/types.go`, `ServiceSpec.Selector`).
        let selector = spec.selector.clone().filter(|selector| !selector.is_empty());
        DeclaredService { name, labels, selector, cluster_ips, ports }
    })
}

/// A slice: for which Service it speaks, and what it says.
///
/// Addresses that take connections count: those that are ready, and those on their way out that still serve, as
/// upstream (`pkg/k8s/endpoints.go`, `ParseEndpointSliceV1`). A port without number is every port, which no rule can
/// mean, and is left out.
///
/// # Errors
/// Everything that is wrong with it, in the order of the document.
pub fn endpoint_slice(slice: &api::EndpointSlice) -> Result<Slice, Vec<ParseError>> {
    collect(|report| {
        check_name(&slice.metadata, report);
        let labels = slice.metadata.labels.as_ref();
        let name = labels.and_then(|labels| labels.get(SERVICE_NAME)).filter(|name| !name.is_empty());
        let service = name.map(|name| ServiceName {
            namespace: namespace_of(&slice.metadata).to_owned(),
            name: name.clone(),
        });
        let addresses = match slice.address_type.as_str() {
            "IPv4" | "IPv6" => slice_addresses(slice, report),
            "FQDN" => Vec::new(),
            other => {
                let reason = Reason::NoneOf { found: other.to_owned(), known: ADDRESS_TYPES };
                report.refuse(&Path::root("addressType"), reason);
                Vec::new()
            }
        };
        let path = Path::root("ports");
        let ports = path.items(slice.ports.as_deref());
        let ports = ports.filter_map(|(path, port)| slice_port(port, &path, report)).collect();
        Slice { service, addresses, ports }
    })
}

/// The addresses of the Service itself; a headless one has none.
fn cluster_ips(spec: &api::service::ServiceSpec, path: &Path, report: &mut Report) -> Vec<IpAddr> {
    let all = path.field("clusterIPs");
    let listed = all.items(spec.cluster_ips.as_deref().filter(|list| !list.is_empty()));
    let mut written: Vec<(Path, &String)> = listed.collect();
    if written.is_empty() {
        written.extend(spec.cluster_ip.as_ref().map(|text| (path.field("clusterIP"), text)));
    }
    written.retain(|(_, text)| !text.is_empty() && *text != "None");
    written.into_iter().filter_map(|(path, text)| report.accept(&path, address(text))).collect()
}

fn declared(port: &WrittenPort, path: &Path, report: &mut Report) -> Option<DeclaredPort> {
    let protocol = report.accept(&path.field("protocol"), protocol(port.protocol.as_deref()));
    let number = report.accept(&path.field("port"), port_number(port.port));
    let target = report.accept(&path.field("targetPort"), target(port.target_port.as_ref()))?;
    let number = number?;
    let own = ServicePort { name: port.name.clone().unwrap_or_default(), protocol: protocol?, port: number };
    Some(DeclaredPort { own, target: target.unwrap_or(TargetPort::Number(number)) })
}

/// `None` stands for the Service's own number (`pkg/apis/core/v1/defaults.go`, `SetDefaults_Service`).
fn target(written: Option<&IntOrString>) -> Result<Option<TargetPort>, Reason> {
    match written {
        None | Some(IntOrString::Int(0)) => Ok(None),
        Some(IntOrString::String(text)) if text.is_empty() => Ok(None),
        Some(IntOrString::Int(number)) => port_number(*number).map(TargetPort::Number).map(Some),
        Some(IntOrString::String(text)) => port_name(text).map(TargetPort::Name).map(Some),
    }
}

fn slice_addresses(slice: &api::EndpointSlice, report: &mut Report) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for (path, endpoint) in Path::root("endpoints").items(slice.endpoints.as_deref()) {
        let takes = endpoint.conditions.is_none_or(takes_connections);
        for (path, text) in path.field("addresses").items(endpoint.addresses.as_deref()) {
            let address = report.accept(&path, address(text));
            addresses.extend(address.filter(|_| takes));
        }
    }
    addresses
}

fn takes_connections(conditions: SliceConditions) -> bool {
    conditions.ready.unwrap_or(true) || conditions.serving.unwrap_or(false)
}

fn slice_port(port: &SlicePort, path: &Path, report: &mut Report) -> Option<ServicePort> {
    let protocol = report.accept(&path.field("protocol"), protocol(port.protocol.as_deref()));
    let number = report.accept(&path.field("port"), port.port.map(port_number).transpose());
    Some(ServicePort { name: port.name.clone().unwrap_or_default(), protocol: protocol?, port: number?? })
}

fn protocol(name: Option<&str>) -> Result<Protocol, Reason> {
    match name.filter(|name| !name.is_empty()).unwrap_or("TCP") {
        "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        "SCTP" => Ok(Protocol::Sctp),
        other => Err(Reason::NoneOf { found: other.to_owned(), known: PROTOCOLS }),
    }
}

/// A single address; one with a prefix length is none.
fn address(text: &str) -> Result<IpAddr, Reason> {
    match super::cidr::prefix_or_address(text) {
        Ok(prefix) if !text.contains('/') => Ok(prefix.addr()),
        Ok(_) => Err(Reason::NoAddress(text.to_owned())),
        Err(reason) => Err(reason),
    }
}
