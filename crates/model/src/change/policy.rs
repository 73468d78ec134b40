//! A policy of its own that allows one flow on one side.

use serde_json::{Map, Value, json};
use sluice_policy::{PolicyKind, PolicyRef, explain::Explanation, parse::AUDIT_ANNOTATION};
use sluice_types::{Direction, Identity, Labels, Source};

use super::{Proposal, Step, peer_of, words};
use crate::{cluster::Cluster, flow::Flow, participant::Who, trace::Side};

/// The longest name that is given.
const NAME_MAX: usize = 120;

impl Cluster {
    /// Policies that allow a flow on a side: the plain one, and one that closes nobody. Whoever is not closed yet
    /// must not be by what is meant to open.
    pub(super) fn policies_for(&self, flow: &Flow, port: u16, side: &Side) -> Vec<Proposal> {
        let direction = side.explanation.direction;
        let both = (self.known.get(&side.subject), self.known.get(peer_of(flow, direction)));
        let (Some(subject), Some(peer)) = both else { return Vec::new() };
        let home = words::namespace(&subject.labels);
        let mut rule = Map::new();
        // An entity that means the peer, as `world`, also means others; what it opens is told.
        let Some((field, element)) = words::cilium_peer(peer, direction, home) else { return Vec::new() };
        rule.insert(field, json!([element]));
        let Some((field, element)) = words::cilium_ports(flow, port) else { return Vec::new() };
        rule.insert(field.to_owned(), json!([element]));
        let is_host = matches!(subject.participant.who, Who::Host(_));
        let selector = if is_host {
            ("nodeSelector", node_selector(&subject.labels))
        } else {
            ("endpointSelector", endpoint_selector(subject.identity, &subject.labels))
        };
        let policy = self.free_name(flow, port, direction, home);
        let proposal = |open: bool| {
            let spec = spec(selector.clone(), open, direction, Value::Object(rule.clone()));
            let object = object(&policy, spec, side.explanation.is_staged);
            let step = Step::Create { policy: policy.clone(), object: object.clone() };
            Proposal { step, policy: policy.clone(), object }
        };
        if is_closed(&side.explanation) {
            vec![proposal(false), proposal(true)]
        } else {
            vec![proposal(true)]
        }
    }

    /// A name that says what it is for and that nobody has.
    fn free_name(&self, flow: &Flow, port: u16, direction: Direction, home: Option<&str>) -> PolicyRef {
        let (from, to) = (self.short(&flow.from), self.short(&flow.to));
        let stem = plain(&format!("allow-{from}-to-{to}-{port}-{direction}"));
        let kind = if home.is_some() { PolicyKind::Cnp } else { PolicyKind::Ccnp };
        let named = |name: String| PolicyRef::new(kind, home.unwrap_or_default(), name);
        let mut policy = named(stem.clone());
        let mut number = 2;
        while self.policies.contains_key(&policy) {
            policy = named(format!("{stem}-{number}"));
            number += 1;
        }
        policy
    }

    /// What somebody is called in the name of a policy: one given by labels by the first of their values.
    fn short(&self, name: &str) -> String {
        let known = self.known.get(name).filter(|_| name.contains('='));
        let labels = known.map(|known| words::own_labels(&known.labels));
        let value = labels.and_then(|labels| labels.into_values().find(|value| !value.is_empty()));
        value.unwrap_or_else(|| name.rsplit('/').next().unwrap_or(name).to_owned())
    }
}

/// Whether a policy of the same tier already closes the direction.
fn is_closed(explanation: &Explanation) -> bool {
    explanation.isolated_by.iter().any(|policy| policy.kind != PolicyKind::Kcnp)
}

fn node_selector(labels: &Labels) -> Value {
    let own = labels.iter().filter(|label| label.source == Source::Node);
    let own: Map<String, Value> = own.map(|label| (label.key.clone(), json!(label.value))).collect();
    if own.is_empty() { json!({}) } else { json!({ "matchLabels": own }) }
}

fn endpoint_selector(identity: Identity, labels: &Labels) -> Value {
    let mut own = words::own_labels(labels);
    if let Some(name) = identity.reserved_name() {
        own.insert(format!("reserved:{name}"), String::new());
    }
    if own.is_empty() { json!({}) } else { json!({ "matchLabels": own }) }
}

fn spec(selector: (&str, Value), is_open: bool, direction: Direction, rule: Value) -> Value {
    let mut spec = Map::new();
    spec.insert(selector.0.to_owned(), selector.1);
    if is_open {
        spec.insert("enableDefaultDeny".to_owned(), json!({ direction.as_str(): false }));
    }
    spec.insert(direction.as_str().to_owned(), json!([rule]));
    Value::Object(spec)
}

/// In audit mode beside policies in audit mode: enforced, it would close what they only report.
fn object(policy: &PolicyRef, spec: Value, is_staged: bool) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(policy.name));
    if !policy.namespace.is_empty() {
        metadata.insert("namespace".to_owned(), json!(policy.namespace));
    }
    if is_staged {
        metadata.insert("annotations".to_owned(), json!({ AUDIT_ANNOTATION: "true" }));
    }
    let kind =
        if policy.namespace.is_empty() { "CiliumClusterwideNetworkPolicy" } else { "CiliumNetworkPolicy" };
    json!({ "apiVersion": "cilium.io/v2", "kind": kind, "metadata": metadata, "spec": spec })
}

/// The text as an object's name.
fn plain(text: &str) -> String {
    let mut name = String::new();
    for character in text.chars().take(NAME_MAX) {
        let character = character.to_ascii_lowercase();
        if character.is_ascii_alphanumeric() {
            name.push(character);
        } else if !name.ends_with('-') {
            name.push('-');
        }
    }
    name.trim_end_matches('-').to_owned()
}
