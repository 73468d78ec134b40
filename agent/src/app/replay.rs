//! Deletions that the CNI plugin carried out while no agent was running.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sluice_client::model::DeleteRecord;

use super::Agent;
use crate::event::Request;
use crate::ipam::Owner;
use crate::report::chain;
use crate::store;

/// The largest record; one is some hundred bytes.
const RECORD_BYTES_MAX: u64 = 64 << 10;

/// How many deletions are on their way together.
const AT_ONCE: usize = 256;

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
    let paths: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    let is_record = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let records: Vec<&PathBuf> = paths.iter().filter(is_record).collect();
    for chunk in records.chunks(AT_ONCE) {
        carry_out(agent, chunk);
    }
    Ok(())
}

/// Asks for all deletions before it waits for the first: the state carries them out together.
fn carry_out(agent: &Agent, paths: &[&PathBuf]) {
    let mut begun = Vec::with_capacity(paths.len());
    for path in paths {
        match read(path) {
            Ok(record) => {
                let owner = Owner { container_id: record.container_id, ifname: record.ifname };
                let answer = agent.begin(Request::DeleteAttachment(owner.clone()));
                begun.push((path, owner, answer));
            }
            Err(error) => {
                // Without it the endpoint goes when its interface is missed.
                tracing::error!(%error, record = %path.display(), "delete record not usable; it is removed");
                remove(path);
            }
        }
    }
    for (path, owner, answer) in begun {
        match answer.and_then(|wait| wait()) {
            Ok(_) => {
                tracing::info!(%owner, "deletion replayed");
                remove(path);
            }
            Err(refusal) => {
                tracing::error!(%owner, %refusal, "deletion not replayed; the next start tries again");
            }
        }
    }
}

fn read(path: &Path) -> io::Result<DeleteRecord> {
    if fs::metadata(path)?.len() > RECORD_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
    }
    serde_json::from_slice(&fs::read(path)?).map_err(io::Error::from)
}

fn remove(path: &Path) {
    if let Err(error) = store::remove_file(path) {
        tracing::error!(error = chain(&error), "delete record stays");
    }
}
