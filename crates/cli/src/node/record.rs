//! What is remembered of a node and its pods, as JSON files below the node's directory.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::layout::Layout;
use super::process::ProcessId;
use crate::failure::{Failure, io};
use crate::pod_name::PodName;

/// A node.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct NodeRecord {
    /// The `sluice up` or `sluice demo` that runs it.
    pub(crate) owner: ProcessId,
    /// The directory of manifests.
    pub(crate) manifests: PathBuf,
    /// Whether it uses the namespace that `up` was started in.
    pub(crate) host: bool,
    /// The namespace the agent runs in.
    pub(crate) netns: PathBuf,
    /// The agent.
    pub(crate) agent: Option<ProcessId>,
    /// The agent's flags, which `sluice-agent cleanup` needs again.
    pub(crate) agent_flags: Vec<String>,
}

impl NodeRecord {
    pub(crate) fn load(layout: &Layout) -> Result<Self, Failure> {
        load(&layout.record_file())
    }

    pub(super) fn store(&self, layout: &Layout) -> Result<(), Failure> {
        store(&layout.record_file(), self)
    }
}

/// A pod that `pod run` made.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct PodRecord {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) container_id: String,
    pub(crate) uid: Option<String>,
    pub(crate) netns: PathBuf,
    /// The manifest that was written for it, to be removed with it.
    pub(crate) manifest: Option<PathBuf>,
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
    pub(crate) command: Vec<String>,
    /// The command's process, which leads a group of its own.
    pub(crate) process: Option<ProcessId>,
    pub(crate) log: Option<PathBuf>,
}

impl PodRecord {
    /// Its name.
    pub(crate) fn pod(&self) -> PodName {
        PodName { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// Every pod of the node, in order of their names.
    pub(crate) fn load_all(layout: &Layout) -> Vec<Self> {
        let entries = std::fs::read_dir(layout.pods_dir()).into_iter().flatten().flatten();
        let mut pods: Vec<Self> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .filter_map(|path| load(&path).ok())
            .collect();
        pods.sort_by_key(Self::pod);
        pods
    }

    pub(super) fn load(layout: &Layout, pod: &PodName) -> Result<Self, Failure> {
        let file = layout.pod_file(pod);
        if !file.exists() {
            return Err(Failure::not_found(format!("there is no pod {pod} on the node {}", layout.name()))
                .hint("`sluice pod list` shows those that exist."));
        }
        load(&file)
    }

    pub(super) fn store(&self, layout: &Layout) -> Result<(), Failure> {
        store(&layout.pod_file(&self.pod()), self)
    }
}

fn load<T: DeserializeOwned>(file: &Path) -> Result<T, Failure> {
    let text = std::fs::read_to_string(file).map_err(io(format!("reading {}", file.display())))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::error(format!("{} is damaged: {error}", file.display())))
}

/// Whole or not at all: a reader never sees half of it.
fn store<T: Serialize>(file: &Path, value: &T) -> Result<(), Failure> {
    let doing = || format!("writing {}", file.display());
    let text = serde_json::to_string_pretty(value).map_err(io(doing()))?;
    write_whole(file, &text)
}

/// Writes a file so that a reader sees the old content or the new one.
pub(super) fn write_whole(file: &Path, text: &str) -> Result<(), Failure> {
    let doing = || format!("writing {}", file.display());
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let next = file.with_file_name(format!(".{name}.new"));
    std::fs::write(&next, text).map_err(io(doing()))?;
    std::fs::rename(&next, file).map_err(io(doing()))
}
