//! Pods of one namespace and policies that change: what tests need that are no cases.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::agent::PATIENCE;
use crate::clock::wait_for;
use crate::netns::{Netns, hide_mounts};
use crate::node::{Node, NodeConfig};
use crate::topology::PodSpec;

/// A node with pods, each with the label `app`, which is its name.
#[derive(Debug)]
pub struct Scene {
    /// The node.
    pub node: Node,
}

impl Scene {
    /// Makes it, with pods `NAMESPACE/NAME` of one namespace, and puts policies in force.
    ///
    /// # Errors
    /// As [`Node::start`]; the plugin's; and a policy that is refused.
    pub fn new(config: &NodeConfig, pods: &[&str], manifest: &str) -> Result<Self> {
        hide_mounts()?;
        let mut node = Node::start(config)?;
        for pod in pods {
            let (namespace, app) = pod.split_once('/').context("a pod without namespace")?;
            node.write_namespace(namespace, &BTreeMap::new())?;
            let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
            node.write_pod(pod, &PodSpec { labels, ports: BTreeMap::new() })?;
        }
        node.add_pods(pods.iter().copied())?;
        let scene = Self { node };
        scene.put(manifest)?;
        if config.l7 {
            wait_for("the proxy", PATIENCE, || {
                scene.node.agent.proxy_pid().ok_or_else(|| "none".to_owned())
            })?;
        }
        Ok(scene)
    }

    /// Puts the policies in the place of those before, and waits until they are in force.
    ///
    /// # Errors
    /// One is refused, or they are not in force in time.
    pub fn put(&self, manifest: &str) -> Result<()> {
        let before = self.revision()?;
        self.node.write_manifest("p.yaml", manifest)?;
        wait_for("the policies read", PATIENCE, || {
            let now = self.revision().map_err(|error| format!("{error:#}"))?;
            if now > before { Ok(()) } else { Err(format!("still at revision {now}")) }
        })?;
        wait_for("the policies in force", PATIENCE, || {
            let endpoints = self.node.agent.endpoints().map_err(|error| format!("{error:#}"))?;
            let is_done = endpoints
                .iter()
                .all(|own| own.state == "ready" && own.realized_revision == own.wanted_revision);
            if is_done { Ok(()) } else { Err(format!("{endpoints:?}")) }
        })
    }

    fn revision(&self) -> Result<u64> {
        let status: Value = self.node.agent.fetch("/v1/status")?;
        let problems = status.get("problems");
        ensure!(problems == Some(&json!([])), "the agent has problems: {problems:?}");
        status.get("revision").and_then(Value::as_u64).context("a status without revision")
    }

    /// Where a pod lives.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn netns(&self, pod: &str) -> Result<&Netns> {
        Ok(&self.node.pod(pod)?.netns)
    }

    /// A pod's addresses with a port, IPv4 first.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn places(&self, pod: &str, port: u16) -> Result<Vec<SocketAddr>> {
        let place = |address: &IpAddr| SocketAddr::new(*address, port);
        Ok(self.node.pod(pod)?.addresses.iter().map(place).collect())
    }
}
