//! Where the things of a node are.

use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::pod_name::{PodName, check_dns_label};

use super::record::NodeRecord;

/// Nodes stand below this directory, one each.
const NODES: &str = "/run/sluice";
/// Where `ip netns` looks for namespaces.
const NETNS: &str = "/run/netns";
/// Longest name of a node: it is part of the names of its namespaces.
const NAME_LEN_MAX: usize = 20;
/// Longest name of a file.
const FILE_NAME_LEN_MAX: usize = 255;

/// The places of one node.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    name: String,
}

impl Layout {
    /// The places of the node `name`.
    pub(crate) fn of(name: &str) -> Result<Self, Failure> {
        if name.len() > NAME_LEN_MAX {
            return Err(Failure::usage(format!(
                "a node's name has at most {NAME_LEN_MAX} characters: {name:?}"
            )));
        }
        check_dns_label(name)
            .map_err(|reason| Failure::usage(format!("the node's name {name:?} {reason}")))?;
        Ok(Self { name: name.to_owned() })
    }

    /// Every node that has a directory, running or not.
    pub(crate) fn all() -> Vec<Self> {
        let entries = std::fs::read_dir(NODES).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
            .iter()
            .filter_map(|name| Self::of(name).ok())
            .filter(|layout| layout.record_file().exists())
            .collect()
    }

    /// The nodes whose `sluice up` is alive.
    pub(crate) fn running() -> Vec<Self> {
        let is_running = |layout: &Self| NodeRecord::load(layout).is_ok_and(|record| record.owner.is_alive());
        Self::all().into_iter().filter(is_running).collect()
    }

    /// The node's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Everything but the namespaces.
    pub(crate) fn dir(&self) -> PathBuf {
        Path::new(NODES).join(&self.name)
    }

    /// Held by the process that runs the node. Beside the directory, because that comes and goes.
    pub(crate) fn lock_file(&self) -> PathBuf {
        Path::new(NODES).join(format!(".{}.lock", self.name))
    }

    pub(super) fn record_file(&self) -> PathBuf {
        self.dir().join("node.json")
    }

    /// The agent's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir().join("agent.sock")
    }

    pub(super) fn state_dir(&self) -> PathBuf {
        self.dir().join("state")
    }

    pub(super) fn bpffs(&self) -> PathBuf {
        self.dir().join("bpf")
    }

    /// Where the agent pins for this layout version; the CNI plugin takes programs from there.
    pub(super) fn pin_dir(&self) -> PathBuf {
        self.bpffs().join("sluice/v1")
    }

    /// The agent's log, when it does not go to the terminal.
    pub(crate) fn agent_log(&self) -> PathBuf {
        self.dir().join("agent.log")
    }

    pub(super) fn pods_dir(&self) -> PathBuf {
        self.dir().join("pods")
    }

    pub(super) fn pod_file(&self, pod: &PodName) -> PathBuf {
        self.pods_dir().join(format!("{}.json", plain(pod)))
    }

    pub(super) fn pod_log(&self, pod: &PodName) -> PathBuf {
        self.dir().join("logs").join(format!("{}.log", plain(pod)))
    }

    /// The node's own namespace.
    pub(crate) fn netns(&self) -> PathBuf {
        Path::new(NETNS).join(self.netns_name())
    }

    /// Its name for `ip netns exec`.
    pub(crate) fn netns_name(&self) -> String {
        format!("sluice-{}", self.name)
    }

    /// The namespace that plays the outside world.
    pub(crate) fn world_netns(&self) -> PathBuf {
        Path::new(NETNS).join(format!("sluice-{}-world", self.name))
    }

    /// A pod's namespace. The underscores cannot stand in names, so no two pods share one.
    pub(super) fn pod_netns(&self, pod: &PodName) -> Result<PathBuf, Failure> {
        let name = format!("sluice-{}_{}", self.name, plain(pod));
        if name.len() + ".json".len() > FILE_NAME_LEN_MAX {
            return Err(Failure::invalid(format!(
                "the name of the pod {pod} is too long for a network namespace"
            )));
        }
        Ok(Path::new(NETNS).join(name))
    }
}

fn plain(pod: &PodName) -> String {
    format!("{}_{}", pod.namespace, pod.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place() {
        for name in ["", "..", "a/b", "A", "x_y", "-a", "a-name-that-is-much-too-long"] {
            assert!(Layout::of(name).is_err(), "{name:?}");
        }
        let layout = Layout::of("demo").unwrap();
        let pod: PodName = "shop/web".parse().unwrap();
        assert_eq!(layout.pod_netns(&pod).unwrap(), Path::new("/run/netns/sluice-demo_shop_web"));
        let long: PodName = format!("shop/{}", vec!["a".repeat(60); 4].join(".")).parse().unwrap();
        assert_eq!(layout.pod_netns(&long).unwrap_err().exit.code(), 4);
    }
}
