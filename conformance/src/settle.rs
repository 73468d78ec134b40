//! Waiting for the agent: when has it taken in what was written, and when is that in the kernel.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::Value;

use crate::agent::{Agent, Endpoint, PATIENCE};
use crate::case::Policy;
use crate::clock;
use crate::topology::{Labels, PodSpec};

/// What the agent must have taken in.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// The pods that run.
    pub(crate) pods: BTreeMap<String, PodSpec>,
    /// Labels of namespaces.
    pub(crate) namespaces: BTreeMap<String, Labels>,
    /// Policies, by file.
    pub(crate) policies: BTreeMap<String, Vec<Policy>>,
    /// Those among them that must be refused; an older version may stay in force.
    pub(crate) refused: BTreeSet<String>,
}

impl Wanted {
    /// Waits until the agent has taken it in and the kernel enforces it.
    pub(crate) fn wait(&self, agent: &Agent) -> Result<()> {
        clock::wait_for("the agent's policies and endpoints", PATIENCE, || {
            let policies: Vec<Value> = agent.fetch("/v1/policies").map_err(|error| format!("{error:#}"))?;
            self.are_policies_known(&policies).map_err(|why| format!("{why}; {}", problems(agent)))?;
            let endpoints = agent.endpoints().map_err(|error| format!("{error:#}"))?;
            self.pods.iter().try_for_each(|(pod, spec)| self.is_endpoint_ready(&endpoints, pod, spec))
        })
    }

    fn are_policies_known(&self, policies: &[Value]) -> Result<(), String> {
        let is_refused = |name: &str| self.refused.contains(name);
        let wanted: BTreeMap<&str, &Policy> = self
            .policies
            .values()
            .flatten()
            .filter(|policy| !is_refused(&policy.name))
            .map(|policy| (policy.name.as_str(), policy))
            .collect();
        let known: BTreeMap<String, &Value> = policies.iter().map(|info| (policy_name(info), info)).collect();
        for (name, policy) in &wanted {
            let info = known.get(*name).ok_or_else(|| format!("{name} is not known"))?;
            if let Some(error) = info.get("error").filter(|error| !error.is_null()) {
                return Err(format!("{name} was refused: {error}"));
            }
            let theirs = info.get("object").unwrap_or(&Value::Null);
            if !["spec", "specs"].iter().all(|key| theirs.get(key) == policy.object.get(key)) {
                return Err(format!("{name} is known in another version"));
            }
        }
        match known.keys().find(|name| !wanted.contains_key(name.as_str()) && !is_refused(name)) {
            Some(name) => Err(format!("{name} is still known")),
            None => Ok(()),
        }
    }

    fn is_endpoint_ready(&self, endpoints: &[Endpoint], pod: &str, spec: &PodSpec) -> Result<(), String> {
        let endpoint = endpoints
            .iter()
            .find(|endpoint| endpoint.pod() == pod)
            .ok_or_else(|| format!("{pod} has no endpoint"))?;
        if endpoint.state != "ready" || endpoint.realized_revision != endpoint.wanted_revision {
            return Err(format!(
                "{pod} is {}, at revision {} of {}",
                endpoint.state, endpoint.realized_revision, endpoint.wanted_revision
            ));
        }
        let wanted = self.labels_of(pod, spec);
        let has: BTreeSet<String> =
            endpoint.labels.iter().filter(|label| is_of_metadata(label)).cloned().collect();
        if wanted == has {
            Ok(())
        } else {
            Err(format!("{pod} has the labels {has:?} instead of {wanted:?}"))
        }
    }

    fn labels_of(&self, pod: &str, spec: &PodSpec) -> BTreeSet<String> {
        let namespace = pod.split('/').next().unwrap_or_default();
        let text = |prefix: &str, (key, value): (&String, &String)| {
            if value.is_empty() { format!("k8s:{prefix}{key}") } else { format!("k8s:{prefix}{key}={value}") }
        };
        let own =
            spec.labels.iter().filter(|(key, _)| is_identity_relevant(key)).map(|label| text("", label));
        let inherited = self.namespaces.get(namespace).into_iter().flatten();
        own.chain(inherited.map(|label| text("io.cilium.k8s.namespace.labels.", label))).collect()
    }
}

/// Why the agent refuses a policy, if it does.
pub(crate) fn refusal(agent: &Agent, policy: &str) -> Result<Option<String>> {
    let policies: Vec<Value> = agent.fetch("/v1/policies")?;
    let infos = policies.iter().filter(|info| policy_name(info) == policy);
    if let Some(error) = infos.filter_map(|info| info.get("error")).find_map(Value::as_str) {
        return Ok(Some(error.to_owned()));
    }
    let status: Value = agent.fetch("/v1/status")?;
    let problems = status.get("problems").and_then(Value::as_array);
    let object = |problem: &Value| problem.get("object").map(ToString::to_string).unwrap_or_default();
    let names_it = |problem: &&Value| object(problem).contains(policy);
    Ok(problems.into_iter().flatten().find(names_it).map(ToString::to_string))
}

fn problems(agent: &Agent) -> String {
    let status: Result<Value> = agent.fetch("/v1/status");
    let problems = status.ok().and_then(|status| status.get("problems").map(ToString::to_string));
    format!("the agent's problems: {}", problems.unwrap_or_default())
}

fn policy_name(info: &Value) -> String {
    let text = |key: &str| info.get(key).and_then(Value::as_str).unwrap_or_default();
    match text("kind") {
        "CiliumClusterwideNetworkPolicy" => format!("ccnp/{}", text("name")),
        "ClusterNetworkPolicy" => format!("kcnp/{}", text("name")),
        "NetworkPolicy" => format!("knp/{}/{}", text("namespace"), text("name")),
        _ => format!("cnp/{}/{}", text("namespace"), text("name")),
    }
}

/// Whether a label comes from the pod's own metadata or its namespace's, and not from the agent.
fn is_of_metadata(label: &str) -> bool {
    let Some(rest) = label.strip_prefix("k8s:") else { return false };
    let given = ["io.kubernetes.", "io.cilium.k8s.policy.", "io.cilium.k8s.namespace.labels.kubernetes.io/"];
    !given.iter().any(|prefix| rest.starts_with(prefix))
}

/// Whether a pod's label is part of its identity.
fn is_identity_relevant(key: &str) -> bool {
    let reserved = ["io.kubernetes", "io.cilium", "pod-template-hash"];
    key.starts_with("app.kubernetes.io")
        || !(key.contains("kubernetes.io") || reserved.iter().any(|prefix| key.starts_with(prefix)))
}
