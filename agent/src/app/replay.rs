//! Deletions that the CNI plugin carried out while no agent was running.

use std::fs;
use std::io;
use std::path::Path;

use sluice_client::model::DeleteRecord;

use super::Agent;
use crate::event::Request;
use crate::ipam::Owner;
use crate::report::chain;
use crate::store;

/// The largest record; one is some hundred bytes.
const RECORD_BYTES_MAX: u64 = 64 << 10;

/// Replays every record in `directory` and removes it. Done before anybody is served: an ADD of the same container
/// must not find its new endpoint deleted by the old record.
pub(super) fn all(agent: &Agent, directory: &Path) {
    if let Err(error) = replay(agent, directory) {
        tracing::error!(%error, directory = %directory.display(), "delete records cannot be read");
    }
}

fn replay(agent: &Agent, directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read(&path) {
            Ok(record) => carry_out(agent, &path, record),
            Err(error) => {
                // Without it the endpoint goes when its interface is missed.
                tracing::error!(%error, record = %path.display(), "delete record not usable; it is removed");
                remove(&path);
            }
        }
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<DeleteRecord> {
    if fs::metadata(path)?.len() > RECORD_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
    }
    serde_json::from_slice(&fs::read(path)?).map_err(io::Error::from)
}

fn carry_out(agent: &Agent, path: &Path, record: DeleteRecord) {
    let owner = Owner { container_id: record.container_id, ifname: record.ifname };
    match agent.ask_blocking(Request::DeleteAttachment(owner.clone())) {
        Ok(_) => {
            tracing::info!(%owner, "deletion replayed");
            remove(path);
        }
        Err(refusal) => {
            tracing::error!(%owner, %refusal, "deletion not replayed; the next start tries again")
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = store::remove_file(path) {
        tracing::error!(error = chain(&error), "delete record stays");
    }
}
