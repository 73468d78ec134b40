//! The cluster as a running agent sees it: its policies, endpoints, addresses and settings.
//!
//! The agent tells nothing of Services, groups of prefixes and names of ports. Policies that use them are named on
//! standard error: an answer may then miss what they allow.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::Value;

use sluice_api::read_manifests;
use sluice_client::model::{Endpoint, IpcacheRow, PolicyInfo, Status};
use sluice_client::{Client, path};
use sluice_model::{Cluster, Participant, Who};
use sluice_policy::labels::CLUSTER;
use sluice_types::{Identity, Source};

use super::{Stage, config};
use crate::args::{Color, Scene};
use crate::documents::{self, Document};
use crate::failure::Failure;
use crate::output::Output;
use crate::policy_name::PolicyName;

/// Fields whose meaning the agent does not tell.
const UNTOLD: [&str; 4] = ["toServices", "cidrGroupRef", "cidrGroupSelector", "service"];

/// Asks the agent for everything and puts it together.
pub(super) fn build(scene: &Scene, client: &Client) -> Result<Stage, Failure> {
    let status: Status = client.fetch(path::STATUS)?;
    let policies: Vec<PolicyInfo> = client.fetch(path::POLICIES)?;
    let endpoints: Vec<Endpoint> = client.fetch(path::ENDPOINTS)?;
    let addresses: Vec<IpcacheRow> = client.fetch(path::BPF_IPCACHE)?;
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
    for endpoint in &endpoints {
        cluster.add(pod(endpoint));
    }
    for row in addresses.iter().filter(|row| row.endpoint == 0) {
        if let Some(participant) = elsewhere(row) {
            cluster.add(participant);
        }
    }
    tell_blind_spots(&policies);
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

fn pod(endpoint: &Endpoint) -> Participant {
    let attachment = &endpoint.attachment;
    let name = match (&attachment.pod_namespace, &attachment.pod_name) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        _ => format!("endpoint-{}", endpoint.id),
    };
    let ipv4 = attachment.ipv4.map(Into::into);
    let ipv6 = attachment.ipv6.map(Into::into);
    Participant {
        addresses: ipv4.into_iter().chain(ipv6).collect(),
        ..Participant::new(name, Who::Labelled(endpoint.labels.clone()))
    }
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

/// Says which policies rest on something that the agent does not tell.
fn tell_blind_spots(policies: &[PolicyInfo]) {
    let blind: BTreeSet<String> =
        policies.iter().filter(|policy| rests_on_untold(&policy.object)).map(shown_name).collect();
    if blind.is_empty() {
        return;
    }
    let names: Vec<String> = blind.into_iter().collect();
    let mut stderr = Output::stderr(Color::Auto);
    let note = stderr.warn("note:");
    // A note that cannot be printed changes no answer.
    let _unprinted = std::io::Write::write_fmt(
        &mut stderr,
        format_args!(
            "{note} the agent does not tell about Services, groups of prefixes and names of ports, on which {} may rest\n",
            names.join(", ")
        ),
    );
}

fn rests_on_untold(object: &Value) -> bool {
    match object {
        Value::Object(fields) => fields.iter().any(|(key, value)| {
            let is_name = key == "port" && value.as_str().is_some_and(|port| port.parse::<u16>().is_err());
            UNTOLD.contains(&key.as_str()) || is_name || rests_on_untold(value)
        }),
        Value::Array(items) => items.iter().any(rests_on_untold),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
