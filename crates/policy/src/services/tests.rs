use sluice_api as api;
use sluice_types::Protocol;

use super::*;
use crate::parse;

fn object(text: &str) -> api::Object {
    let manifest = api::read_manifests(text).remove(0);
    manifest.content.unwrap_or_else(|error| panic!("{error}"))
}

/// A Service of the namespace `shop`.
fn declared(name: &str, spec: &str) -> DeclaredService {
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop, labels: {{team: a}}}}\nspec: {spec}"
    );
    let api::Object::Service(service) = object(&text) else { panic!("{text}") };
    parse::service(&service).unwrap()
}

fn slice_text(service: &str, rest: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s, namespace: shop, labels: {{{service}}}}}\n{rest}"
    )
}

/// A slice of the Service `shop/NAME`.
fn slice(service: &str, rest: &str) -> Slice {
    let text = slice_text(&format!("kubernetes.io/service-name: {service}"), rest);
    let api::Object::EndpointSlice(slice) = object(&text) else { panic!("{text}") };
    parse::endpoint_slice(&slice).unwrap()
}

fn pod(app: &str, address: &str, identity: u32) -> BackendPod {
    BackendPod {
        labels: BTreeMap::from([
            ("app".to_owned(), app.to_owned()),
            ("pod-template-hash".to_owned(), "1".to_owned()),
        ]),
        addresses: vec![address.parse().unwrap()],
        identity: Some(Identity::new(identity)),
        named_ports: Vec::new(),
    }
}

fn own(name: &str) -> ObjectName {
    ("shop".to_owned(), name.to_owned())
}

fn name(name: &str) -> ServiceName {
    ServiceName { namespace: "shop".to_owned(), name: name.to_owned() }
}

fn touched(names: &[&str]) -> BTreeSet<ServiceName> {
    names.iter().map(|own| name(own)).collect()
}

/// `ADDRESS IDENTITY NAME:PROTOCOL/PORT …` of each backend.
fn backends(table: &ServiceTable, service: &str) -> Vec<String> {
    let service = table.service(&name(service)).unwrap();
    let text = |backend: &Backend| {
        let identity = backend.identity.map_or(0, Identity::as_u32);
        let ports = backend.ports.iter().map(|port| format!("{}:{}/{}", port.name, port.protocol, port.port));
        let ports: Vec<String> = ports.collect();
        format!("{} {identity} {}", backend.address, ports.join(" "))
    };
    service.backends.iter().map(text).collect()
}

#[test]
fn without_slices_the_selected_pods_are_behind_it() {
    let mut table = ServiceTable::default();
    let spec = "{selector: {app: web, pod-template-hash: '1'}, clusterIP: 10.96.0.1, ports: [
        {name: http, port: 80, targetPort: web}, {name: dns, port: 53, protocol: UDP},
        {name: metrics, port: 9, targetPort: 9100}, {name: lost, port: 7, targetPort: nobody}]}";
    assert_eq!(table.set_service(declared("web", spec)), touched(&["web"]));
    assert_eq!(table.set_service(declared("web", spec)), touched(&[]), "nothing new");
    assert!(backends(&table, "web").is_empty());
    let named = |port| vec![NamedPort { name: "web".to_owned(), protocol: Protocol::Tcp, port }];
    let web = BackendPod { named_ports: named(8080), ..pod("web", "10.0.0.1", 300) };
    assert_eq!(table.set_pod(own("web-1"), web.clone()), touched(&["web"]));
    assert_eq!(table.set_pod(own("web-1"), web), touched(&[]), "nothing new");
    assert_eq!(table.set_pod(own("db"), pod("db", "10.0.0.2", 301)), touched(&[]));
    let elsewhere = ("shop2".to_owned(), "web".to_owned());
    assert_eq!(table.set_pod(elsewhere, pod("web", "10.0.0.3", 302)), touched(&[]));
    let other = BackendPod { named_ports: named(81), ..pod("web", "fd00::1", 300) };
    assert_eq!(table.set_pod(own("web-2"), other), touched(&["web"]));
    assert_eq!(
        backends(&table, "web"),
        [
            "10.0.0.1 300 dns:UDP/53 http:TCP/8080 metrics:TCP/9100",
            "fd00::1 300 dns:UDP/53 http:TCP/81 metrics:TCP/9100"
        ]
    );
    assert_eq!(table.set_pod(own("web-1"), pod("db", "10.0.0.1", 301)), touched(&["web"]), "it left");
    assert_eq!(table.remove_pod(&own("web-2")), touched(&["web"]));
    assert!(backends(&table, "web").is_empty());
    assert_eq!(table.remove_service(&name("web")), touched(&["web"]));
    assert_eq!(table.service(&name("web")), None);
    assert_eq!(table.remove_service(&name("web")), touched(&[]));
}

#[test]
fn slices_say_who_is_behind_it() {
    let mut table = ServiceTable::default();
    table.set_service(declared("web", "{selector: {app: web}, ports: [{port: 80}]}"));
    table.set_pod(own("web"), pod("web", "10.0.0.1", 300));
    assert_eq!(backends(&table, "web"), ["10.0.0.1 300 :TCP/80"]);
    let one = "addressType: IPv4\nports: [{port: 8080}]\nendpoints: [{addresses: [10.0.0.2, 10.0.0.3]}]";
    assert_eq!(table.set_slice(own("s1"), slice("web", one)), touched(&["web"]));
    let two = "addressType: IPv6\nports: [{port: 81, name: v6}]\nendpoints: [{addresses: ['fd00::2']}]";
    table.set_slice(own("s2"), slice("web", two));
    assert_eq!(
        backends(&table, "web"),
        ["10.0.0.2 0 :TCP/8080", "10.0.0.3 0 :TCP/8080", "fd00::2 0 v6:TCP/81"]
    );

    // Pods matter now by their addresses only.
    assert_eq!(table.remove_pod(&own("web")), touched(&[]));
    assert_eq!(table.set_pod(own("any"), pod("other", "10.0.0.3", 301)), touched(&["web"]));
    assert_eq!(backends(&table, "web")[1], "10.0.0.3 301 :TCP/8080");
    table.set_pod(own("twin"), pod("other", "10.0.0.3", 302));
    assert_eq!(backends(&table, "web")[1], "10.0.0.3 0 :TCP/8080", "two claim the address");

    assert_eq!(table.remove_slice(&own("s1")), touched(&["web"]));
    assert_eq!(
        table.set_pod(own("any"), pod("web", "10.0.0.3", 303)),
        touched(&[]),
        "no slice has it any more"
    );
    let empty = "addressType: IPv6";
    assert_eq!(table.set_slice(own("s2"), slice("web", empty)), touched(&["web"]));
    assert!(backends(&table, "web").is_empty(), "an empty slice says that nobody is");
    assert_eq!(table.remove_slice(&own("s2")), touched(&["web"]));
    assert_eq!(backends(&table, "web").len(), 1, "without slices the selector counts again");
    assert_eq!(table.remove_slice(&own("s2")), touched(&[]));
}

#[test]
fn a_slice_may_come_before_its_service() {
    let mut table = ServiceTable::default();
    let content = "addressType: IPv4\nports: [{port: 6443}]\nendpoints: [{addresses: [192.0.2.1]}]";
    assert_eq!(table.set_slice(own("s"), slice("kubernetes", content)), touched(&[]));
    assert_eq!(table.slice_addresses(&name("kubernetes")).len(), 1);
    table.set_service(declared("kubernetes", "{clusterIP: 10.96.0.1, ports: [{port: 443}]}"));
    assert_eq!(backends(&table, "kubernetes"), ["192.0.2.1 0 :TCP/6443"]);
    assert_eq!(table.service(&name("kubernetes")).unwrap().selector, None);
    // The slice goes over to another Service.
    table.set_service(declared("other", "{ports: [{port: 443}]}"));
    assert_eq!(table.set_slice(own("s"), slice("other", content)), touched(&["kubernetes", "other"]));
    assert!(backends(&table, "kubernetes").is_empty());
}

#[test]
fn who_takes_connections() {
    let cases = [
        ("{}", true),
        ("{ready: true}", true),
        ("{ready: false}", false),
        ("{ready: false, serving: false}", false),
        ("{ready: false, serving: true, terminating: true}", true),
        ("{ready: false, serving: false, terminating: true}", false),
        // What publishNotReadyAddresses comes to.
        ("{ready: true, serving: false}", true),
    ];
    for (conditions, want) in cases {
        let text =
            format!("addressType: IPv4\nendpoints: [{{addresses: [10.0.0.1], conditions: {conditions}}}]");
        assert_eq!(!slice("web", &text).addresses.is_empty(), want, "{conditions}");
    }
}

#[test]
fn forms_of_services() {
    let ips =
        |spec: &str| declared("a", spec).cluster_ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(ips("{clusterIP: 10.96.0.1}"), ["10.96.0.1"]);
    assert_eq!(ips("{clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1']}"), ["10.96.0.1", "fd00::1"]);
    assert!(ips("{clusterIP: None, clusterIPs: [None]}").is_empty(), "headless");
    assert!(ips("{clusterIP: ''}").is_empty());
    assert_eq!(declared("a", "{selector: {}}").selector, None, "an empty selector is none");
    let external = declared(
        "a",
        "{type: ExternalName, externalName: example.com, selector: {app: web}, ports: [{port: 1}]}",
    );
    assert_eq!((external.selector, external.ports.len()), (None, 0));
    assert_eq!(external.labels.to_strings(), ["k8s:team=a"]);
    let ports = declared("a", "{ports: [{port: 80, targetPort: 0}, {port: 81, targetPort: ''}]}").ports;
    let targets: Vec<&TargetPort> = ports.iter().map(|port| &port.target).collect();
    assert_eq!(targets, [&TargetPort::Number(80), &TargetPort::Number(81)]);
}

#[test]
fn what_is_refused() {
    let service = |spec: &str| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {spec}");
    let slice = |rest: &str| slice_text("", rest);
    let group = |spec: &str| {
        format!("apiVersion: cilium.io/v2\nkind: CiliumCIDRGroup\nmetadata: {{name: a}}\nspec: {spec}")
    };
    let cases = [
        (service("{ports: [{port: 0}]}"), "spec.ports[0].port: port 0 is not in 1 to 65535"),
        (service("{ports: [{port: 1, protocol: XTP}]}"), "spec.ports[0].protocol: \"XTP\" is none of"),
        (service("{ports: [{port: 1, targetPort: 65536}]}"), "spec.ports[0].targetPort: port 65536"),
        (service("{ports: [{port: 1, targetPort: '80'}]}"), "spec.ports[0].targetPort: \"80\" is neither"),
        (service("{clusterIPs: [10.0.0.0/8]}"), "spec.clusterIPs[0]: \"10.0.0.0/8\" is no IP address"),
        (service("{clusterIP: x}"), "spec.clusterIP: \"x\" is no IP address"),
        (slice("addressType: X"), "addressType: \"X\" is none of"),
        (
            slice("addressType: IPv4\nendpoints: [{addresses: [a]}]"),
            "endpoints[0].addresses[0]: \"a\" is no IP",
        ),
        (slice("addressType: IPv4\nports: [{port: 0}]"), "ports[0].port: port 0"),
        (
            group("{externalCIDRs: [10.0.0.0/8, 10.0.0.1]}"),
            "spec.externalCIDRs[1]: \"10.0.0.1\" is no prefix",
        ),
    ];
    for (text, want) in cases {
        let object = object(&text);
        let errors = if let api::Object::Service(service) = &object {
            parse::service(service).map(drop)
        } else if let api::Object::EndpointSlice(slice) = &object {
            parse::endpoint_slice(slice).map(drop)
        } else if let api::Object::CiliumCidrGroup(group) = &object {
            parse::cidr_group(group).map(drop)
        } else {
            panic!("{text}")
        };
        let errors = errors.unwrap_err();
        assert!(errors.len() == 1 && errors[0].to_string().starts_with(want), "{text}\n{errors:?}");
    }
    let text = slice("addressType: IPv4\nports: [{name: any}]\nendpoints: [{addresses: [10.0.0.1]}]");
    let api::Object::EndpointSlice(every_port) = object(&text) else { panic!() };
    let slice = parse::endpoint_slice(&every_port).unwrap();
    assert_eq!((slice.service, slice.addresses.len(), slice.ports.len()), (None, 1, 0));
    let api::Object::CiliumCidrGroup(empty) = object(&group("{externalCIDRs: []}")) else { panic!() };
    assert!(parse::cidr_group(&empty).unwrap().prefixes.is_empty());
}
