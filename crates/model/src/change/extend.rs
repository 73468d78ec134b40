//! One more element in a rule that almost allows a flow.

use serde_json::{Value, json};
use sluice_policy::{NearMiss, Obstacle, PolicyKind};
use sluice_types::Direction;

use super::{Proposal, Step, is_cilium, peer_of, words};
use crate::{
    cluster::{Cluster, Known},
    flow::Flow,
    trace::Side,
};

impl Cluster {
    /// What could be added to the rules that came nearest, if only one thing stands in the way.
    pub(super) fn extensions(&self, flow: &Flow, port: u16, side: &Side) -> Vec<Proposal> {
        let Some(peer) = self.known.get(peer_of(flow, side.explanation.direction)) else { return Vec::new() };
        let misses = side.explanation.nearest.iter();
        misses.filter_map(|miss| self.extension(flow, port, side.explanation.direction, peer, miss)).collect()
    }

    fn extension(
        &self,
        flow: &Flow,
        port: u16,
        direction: Direction,
        peer: &Known,
        miss: &NearMiss,
    ) -> Option<Proposal> {
        let [obstacle] = miss.obstacles.as_slice() else { return None };
        let policy = &miss.rule.policy;
        let mut object = self.policies.get(policy)?.to_value();
        let rule = full_path(&miss.rule.path);
        let (list, element) = match obstacle {
            Obstacle::Request { part, .. } => request_element(flow, &rule, part)?,
            Obstacle::Port(_) if is_cilium(policy.kind) => {
                let (field, element) = words::cilium_ports(flow, port)?;
                (format!("{rule}.{field}"), element)
            }
            Obstacle::Port(_) if policy.kind == PolicyKind::Knp => {
                let element = json!({ "protocol": flow.protocol.to_string(), "port": port });
                (format!("{rule}.ports"), element)
            }
            Obstacle::Peer { .. } if is_cilium(policy.kind) => {
                let home = Some(policy.namespace.as_str()).filter(|home| !home.is_empty());
                let (field, element) = words::cilium_peer(peer, direction, home)?;
                (format!("{rule}.{field}"), element)
            }
            Obstacle::Peer { .. } if policy.kind == PolicyKind::Knp => {
                let field = if direction == Direction::Ingress { "from" } else { "to" };
                (format!("{rule}.{field}"), words::kubernetes_peer(peer, &policy.namespace)?)
            }
            Obstacle::Port(_) | Obstacle::Peer { .. } | Obstacle::Requires(_) | Obstacle::Service(_) => {
                return None;
            }
        };
        let Value::Array(elements) = object.pointer_mut(&pointer(&list))? else { return None };
        elements.push(element.clone());
        let step = Step::Extend { policy: policy.clone(), list, element };
        Some(Proposal { step, policy: policy.clone(), object })
    }
}

/// Where a rule stands in its object; the engine leaves out `spec`.
fn full_path(rule: &str) -> String {
    if rule.starts_with("specs[") { rule.to_owned() } else { format!("spec.{rule}") }
}

/// The list and the element by which the request is named; `part` is `toPorts[0].http[1]`.
fn request_element(flow: &Flow, rule: &str, part: &str) -> Option<(String, Value)> {
    let (list, elements) = words::request_rules(flow.request.as_ref()?)?;
    let [element] = elements.as_slice() else { return None };
    let (ports, own) = part.rsplit_once('.')?;
    own.starts_with(list).then_some(())?;
    let inside = if list == "serverNames" { list.to_owned() } else { format!("rules.{list}") };
    Some((format!("{rule}.{ports}.{inside}"), element.clone()))
}

/// A path such as `spec.ingress[0].toPorts` as a JSON pointer.
fn pointer(path: &str) -> String {
    let mut pointer = String::from("/");
    for character in path.chars() {
        match character {
            '.' | '[' => pointer.push('/'),
            ']' => {}
            _ => pointer.push(character),
        }
    }
    pointer
}
