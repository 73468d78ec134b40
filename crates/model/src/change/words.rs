//! Peers, ports and requests in the words of policies.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde_json::{Map, Value, json};
use sluice_policy::{
    l7::kafka::api_name,
    labels::{CLUSTER, NAMESPACE, NAMESPACE_LABEL_PREFIX, SERVICE_ACCOUNT},
};
use sluice_types::{Direction, Labels, Protocol, Source};

use crate::{
    cluster::Known,
    flow::{Flow, FlowRequest},
    participant::Who,
};

/// Adds every port number that stands in a policy.
pub(super) fn ports(object: &Value, found: &mut BTreeSet<u16>) {
    match object {
        Value::Object(fields) => {
            for (key, value) in fields {
                if key == "port" || key == "endPort" {
                    let text = value.as_str().map(str::to_owned).unwrap_or_else(|| value.to_string());
                    found.extend(text.parse::<u16>().ok().filter(|port| *port != 0));
                }
                ports(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| ports(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The namespace of a pod.
pub(super) fn namespace(labels: &Labels) -> Option<&str> {
    labels.value(&Source::K8s, NAMESPACE)
}

/// The labels by which a pod is told from others of its namespace: its own, and what it runs as if that says more.
pub(super) fn own_labels(labels: &Labels) -> BTreeMap<String, String> {
    let given = |key: &str| {
        [NAMESPACE, CLUSTER, SERVICE_ACCOUNT].contains(&key) || key.starts_with(NAMESPACE_LABEL_PREFIX)
    };
    let own = labels.iter().filter(|label| label.source == Source::K8s && !given(&label.key));
    let mut own: BTreeMap<String, String> =
        own.map(|label| (label.key.clone(), label.value.clone())).collect();
    let account = labels.value(&Source::K8s, SERVICE_ACCOUNT);
    if let Some(account) = account.filter(|account| own.is_empty() || *account != "default") {
        own.insert(SERVICE_ACCOUNT.to_owned(), account.to_owned());
    }
    own
}

/// A peer of a rule of Cilium's language: the field it belongs into, and the element.
pub(super) fn cilium_peer(peer: &Known, direction: Direction, home: Option<&str>) -> Option<(String, Value)> {
    let side = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let field = |name: &str| format!("{side}{name}");
    if let Some(of) = namespace(&peer.labels) {
        let mut labels = own_labels(&peer.labels);
        if home != Some(of) {
            labels.insert(format!("k8s:{NAMESPACE}"), of.to_owned());
        }
        return Some((field("Endpoints"), json!({ "matchLabels": labels })));
    }
    let is_outside = matches!(peer.participant.who, Who::Outside | Who::Seen(_));
    if let Some(entity) = entity(&peer.labels).filter(|entity| !is_outside || *entity != "world") {
        return Some((field("Entities"), json!(entity)));
    }
    let name = peer.participant.names.first().filter(|_| direction == Direction::Egress);
    if let Some(name) = name {
        return Some((field("FQDNs"), json!({ "matchName": name })));
    }
    address(peer).map(|prefix| (field("CIDR"), json!(prefix)))
}

/// A peer of a rule of a NetworkPolicy; entities and names cannot be said there.
pub(super) fn kubernetes_peer(peer: &Known, home: &str) -> Option<Value> {
    let Some(of) = namespace(&peer.labels) else {
        return address(peer).map(|prefix| json!({ "ipBlock": { "cidr": prefix } }));
    };
    // Its selectors see the pod's own labels and nothing else.
    let mut labels = own_labels(&peer.labels);
    labels.remove(SERVICE_ACCOUNT);
    let mut element = Map::new();
    if of != home {
        let name = json!({ "matchLabels": { "kubernetes.io/metadata.name": of } });
        element.insert("namespaceSelector".to_owned(), name);
    }
    element.insert("podSelector".to_owned(), json!({ "matchLabels": labels }));
    Some(Value::Object(element))
}

fn entity(labels: &Labels) -> Option<&'static str> {
    let known = ["kube-apiserver", "host", "remote-node", "health", "init", "ingress", "unmanaged"];
    known.into_iter().chain(["world"]).find(|name| labels.has_reserved(name))
}

/// The prefix that is one address outside.
fn address(peer: &Known) -> Option<String> {
    let outside = matches!(peer.participant.who, Who::Outside | Who::Seen(_));
    let address = peer.participant.addresses.first().filter(|_| outside)?;
    Some(IpNet::from(*address).to_string())
}

/// An element of `toPorts` or `icmps` that means exactly the traffic of a flow: the field and the element.
pub(super) fn cilium_ports(flow: &Flow, port: u16) -> Option<(&'static str, Value)> {
    let family = match flow.protocol {
        Protocol::Tcp | Protocol::Udp | Protocol::Sctp => {
            let mut element = Map::new();
            let protocol = flow.protocol.to_string();
            element.insert("ports".to_owned(), json!([{ "port": port.to_string(), "protocol": protocol }]));
            element.extend(flow.request.as_ref().and_then(rules));
            return Some(("toPorts", Value::Object(element)));
        }
        Protocol::Icmp => "IPv4",
        Protocol::Icmpv6 => "IPv6",
        Protocol::Other(_) => return None,
    };
    Some(("icmps", json!({ "fields": [{ "type": port, "family": family }] })))
}

/// What an element of `toPorts` says so that a request passes and others do not: a field of it.
fn rules(request: &FlowRequest) -> Option<(String, Value)> {
    let (list, elements) = request_rules(request)?;
    Some(if list == "serverNames" {
        (list.to_owned(), Value::Array(elements))
    } else {
        ("rules".to_owned(), json!({ list: elements }))
    })
}

/// The list that rules about such requests stand in, and the elements that name this one.
pub(super) fn request_rules(request: &FlowRequest) -> Option<(&'static str, Vec<Value>)> {
    Some(match request {
        FlowRequest::Http(call) => {
            ("http", vec![json!({ "method": literal(&call.method), "path": literal(&call.path) })])
        }
        FlowRequest::Kafka(call) => {
            let kind = api_name(call.api_key)?;
            let rule = |topic: &String| json!({ "apiKey": kind, "topic": topic });
            let elements: Vec<Value> = call.topics.iter().map(rule).collect();
            ("kafka", if elements.is_empty() { vec![json!({ "apiKey": kind })] } else { elements })
        }
        FlowRequest::Dns(name) => ("dns", vec![json!({ "matchName": name })]),
        FlowRequest::Tls(name) => ("serverNames", vec![json!(name.as_ref()?)]),
    })
}

/// A pattern that means this text and no other.
fn literal(text: &str) -> String {
    let mut pattern = String::new();
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}
