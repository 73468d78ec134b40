//! Entities: fixed names for groups of identities (semantics of `pkg/policy/api/entity.go`).

use sluice_types::Source;

use super::Reason;
use crate::{
    labels::CLUSTER,
    selector::{LabelKey, LabelSelector, Requirement, Selector},
};

/// Whom an entity stands for.
#[derive(Debug)]
pub(super) enum Entity {
    /// Everybody, known or not.
    Everybody,
    /// Whoever one of these selects.
    Select(Vec<Selector>),
}

/// What `cluster` holds beside this cluster's pods. The API server counts even where it stands outside.
const CLUSTER_MEMBERS: [&str; 7] =
    ["host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver"];

/// Reads an entity. `cluster_name` is the value of the cluster label of this cluster's pods.
pub(super) fn parse(name: &str, cluster_name: &str) -> Result<Entity, Reason> {
    let select = |names: &[&str]| Ok(Entity::Select(names.iter().copied().map(reserved).collect()));
    let cluster_key = || LabelKey::new(Source::K8s, CLUSTER);
    let members = |pods: Requirement| {
        let pods = Selector::Labels(LabelSelector::from_iter([pods]));
        Ok(Entity::Select(CLUSTER_MEMBERS.into_iter().map(reserved).chain([pods]).collect()))
    };
    match name {
        "all" => Ok(Entity::Everybody),
        "world" => select(&["world", "world-ipv4", "world-ipv6"]),
        "cluster" => members(Requirement::equals(cluster_key(), cluster_name)),
        "cluster-mesh" => members(Requirement::Exists(cluster_key())),
        "none" => Ok(Entity::Select(Vec::new())),
        "world-ipv4" | "world-ipv6" | "host" | "remote-node" | "kube-apiserver" | "ingress" | "init"
        | "health" | "unmanaged" => select(&[name]),
        unknown => Err(Reason::UnknownEntity(unknown.to_owned())),
    }
}

fn reserved(name: &str) -> Selector {
    Selector::Labels(LabelSelector::from_iter([Requirement::reserved(name)]))
}
