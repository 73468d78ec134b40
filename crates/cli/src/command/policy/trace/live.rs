//! The cluster as a running agent sees it: its policies, endpoints, what these are about, addresses and settings.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use sluice_api::workload::{PodIp, PodStatus};
use sluice_api::{Object, read_manifests};
use sluice_client::model::{Endpoint, IpcacheRow, PolicyInfo, Status, Toggle};
use sluice_client::{Client, path};
use sluice_model::{Cluster, Participant, Who};
use sluice_policy::labels::CLUSTER;
use sluice_types::{Identity, Source};

use super::{Stage, config};
use crate::args::Scene;
use crate::documents::{self, Document};
use crate::failure::Failure;
use crate::policy_name::PolicyName;

/// Asks the agent for everything and puts it together.
pub(super) fn build(scene: &Scene, client: &Client) -> Result<Stage, Failure> {
    let status: Status = client.fetch(path::STATUS)?;
    let policies: Vec<PolicyInfo> = client.fetch(path::POLICIES)?;
    let endpoints: Vec<Endpoint> = client.fetch(path::ENDPOINTS)?;
    let addresses: Vec<IpcacheRow> = client.fetch(path::BPF_IPCACHE)?;
    let objects: Vec<Value> = client.fetch(path::OBJECTS)?;
    let enforcement = scene.enforcement.as_deref().unwrap_or(&status.enforcement);
    let mut config = config(enforcement, scene.audit || status.audit);
    let mut names = endpoints.iter().filter_map(|endpoint| endpoint.labels.value(&Source::K8s, CLUSTER));
    if let Some(name) = names.next() {
        name.clone_into(&mut config.cluster_name);
    }
    let mut cluster = Cluster::new(config);
    let documents = policies.iter().map(document).collect::<Result<Vec<_>, _>>()?;
    let documents: Vec<Document> = documents.into_iter().flatten().collect();
    documents::apply_all(&documents, &mut cluster)?;
    add_objects(&objects, &endpoints, &mut cluster)?;
    for row in addresses.iter().filter(|row| row.endpoint == 0) {
        if let Some(participant) = elsewhere(row) {
            cluster.add(participant);
        }
    }
    Ok(Stage { documents, cluster })
}

/// A policy as `sluice policy get` prints it, so that lines have the same numbers.
fn document(policy: &PolicyInfo) -> Result<Vec<Document>, Failure> {
    let yaml = serde_saphyr::to_string(&policy.object)
        .map_err(|error| Failure::error(format!("cannot write {} as YAML: {error}", policy.name)))?;
    let text: std::sync::Arc<str> = format!("# {}\n{yaml}", policy.origin).into();
    let file = shown_name(policy);
    let document = |manifest| Document { file: file.clone(), text: std::sync::Arc::clone(&text), manifest };
    Ok(read_manifests(&text).into_iter().map(document).collect())
}

fn shown_name(policy: &PolicyInfo) -> String {
    PolicyName::new(&policy.kind, &policy.namespace, &policy.name)
        .map_or_else(|_| format!("{}/{}", policy.kind, policy.name), |name| name.to_string())
}

/// Adds the endpoints, with what their pods' manifests say where there are any, and what policies refer to. Pods without
/// an endpoint are not there for the agent either.
fn add_objects(objects: &[Value], endpoints: &[Endpoint], cluster: &mut Cluster) -> Result<(), Failure> {
    let mut without: BTreeMap<String, &Endpoint> = endpoints.iter().map(|own| (name_of(own), own)).collect();
    for manifest in objects.iter().flat_map(|object| read_manifests(&object.to_string())) {
        let unreadable = |reason: String| Failure::error(format!("the agent's {}: {reason}", manifest.name));
        let mut object = manifest.content.clone().map_err(|error| unreadable(error.to_string()))?;
        if let Object::Pod(pod) = &mut object {
            let namespace = manifest.namespace.as_deref().filter(|own| !own.is_empty()).unwrap_or("default");
            let Some(endpoint) = without.remove(&format!("{namespace}/{}", manifest.name)) else { continue };
            let ips = addresses_of(endpoint).map(|own| PodIp { ip: own.to_string() }).collect();
            pod.status = Some(PodStatus { pod_ips: Some(ips), ..PodStatus::default() });
        }
        cluster.apply(&object).map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            unreadable(errors.join("; "))
        })?;
    }
    for (name, endpoint) in without {
        let who = Who::Labelled(endpoint.labels.clone());
        cluster
            .add(Participant { addresses: addresses_of(endpoint).collect(), ..Participant::new(name, who) });
    }
    for endpoint in endpoints {
        if let Some(toggle) = endpoint.options.policy_audit_mode {
            cluster.set_audit(&name_of(endpoint), toggle == Toggle::Enabled);
        }
    }
    Ok(())
}

fn name_of(endpoint: &Endpoint) -> String {
    match (&endpoint.attachment.pod_namespace, &endpoint.attachment.pod_name) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        _ => format!("endpoint-{}", endpoint.id),
    }
}

fn addresses_of(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    let ipv4 = endpoint.attachment.ipv4.map(IpAddr::from);
    ipv4.into_iter().chain(endpoint.attachment.ipv6.map(IpAddr::from))
}

/// Who has an address that is no pod of this node. Prefixes follow from the policies.
fn elsewhere(row: &IpcacheRow) -> Option<Participant> {
    let prefix: IpNet =
        row.prefix.parse().or_else(|_| row.prefix.parse::<std::net::IpAddr>().map(IpNet::from)).ok()?;
    if prefix.prefix_len() != prefix.max_prefix_len() {
        return None;
    }
    let address = prefix.addr();
    let is_pod = row.labels.iter().any(|label| label.source == Source::K8s);
    let who = if row.identity == Identity::HOST {
        Who::Host(
            row.labels
                .iter()
                .filter(|label| label.source == Source::Node)
                .map(|label| (label.key.clone(), label.value.clone()))
                .collect(),
        )
    } else if is_pod {
        Who::Labelled(row.labels.clone())
    } else {
        Who::Seen(row.labels.clone())
    };
    Some(Participant { addresses: vec![address], ..Participant::new(address.to_string(), who) })
}
