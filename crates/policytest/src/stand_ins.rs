//! A test file as manifests, for tools that take manifests (`sluice policy trace -f shop.yaml`).

use serde_json::{Value, json};
use sluice_api::{Manifest, read_manifests};

use crate::{
    format::{Endpoint, PortNumber},
    suite::Suite,
};

impl Suite {
    /// The objects of the file, and Namespaces, Pods and Nodes for what it says about them in its own words. Addresses
    /// outside and what else has a fixed meaning need no object. What `policies` names is not among them.
    #[must_use]
    pub fn manifests(&self) -> Vec<Manifest> {
        let namespaces = self.format.namespaces.iter().map(|(name, labels)| {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        });
        let endpoints = self.format.endpoints.iter().filter_map(|(name, endpoint)| object(name, endpoint));
        let mut manifests = self.objects();
        // JSON is YAML: the reader of manifests knows the rest.
        manifests.extend(namespaces.chain(endpoints).flat_map(|object| read_manifests(&object.to_string())));
        manifests
    }

    /// How somebody of the file is called where only its manifests are known.
    pub(crate) fn known_as(&self, name: &str) -> String {
        let Some(endpoint) = self.format.endpoints.get(name) else { return name.to_owned() };
        if object(name, endpoint).is_some() {
            return name.to_owned();
        }
        let address = endpoint.ip.map(|address| address.to_string());
        let known =
            endpoint.names.first().cloned().or(address).or_else(|| endpoint.reserved.first().cloned());
        known.unwrap_or_else(|| name.to_owned())
    }
}

/// The pod or node that an endpoint is.
fn object(name: &str, endpoint: &Endpoint) -> Option<Value> {
    let metadata = |name: &str| json!({"name": name, "labels": endpoint.labels});
    if endpoint.reserved == ["remote-node"] {
        let addresses: Vec<Value> =
            endpoint.ip.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
        let status = json!({"addresses": addresses});
        return Some(
            json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata(name), "status": status}),
        );
    }
    let (namespace, pod) = name.split_once('/').filter(|_| endpoint.reserved.is_empty())?;
    let ports: Vec<Value> = endpoint.ports.iter().map(|(name, port)| container_port(name, port)).collect();
    let mut metadata = metadata(pod);
    metadata.as_object_mut()?.insert("namespace".to_owned(), namespace.into());
    let account = endpoint.service_account.as_deref().unwrap_or("default");
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"serviceAccountName": account, "containers": [{"name": "main", "ports": ports}]},
    });
    if let (Some(address), Some(object)) = (endpoint.ip, object.as_object_mut()) {
        object.insert("status".to_owned(), json!({"podIP": address}));
    }
    Some(object)
}

fn container_port(name: &str, port: &PortNumber) -> Value {
    let (number, protocol) = match port {
        PortNumber::Number(number) => (*number, "TCP"),
        PortNumber::Text(text) => {
            let (number, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
            (number.parse().unwrap_or_default(), protocol)
        }
    };
    json!({"name": name, "containerPort": number, "protocol": protocol})
}
