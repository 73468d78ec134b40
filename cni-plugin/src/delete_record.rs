//! Deletions the agent has not heard of: one durable file each, which the agent replays when it starts.
//!
//! There is no limit to their number: each stands for an address that would be lost without it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sluice_client::model::DeleteRecord;
use sluice_client::path::DELETE_QUEUE_DIR;

use crate::attachment::Attachment;
use crate::config::Config;
use crate::error::Error;
use crate::step::{self, Step};

/// Leaves a record. When this returns it survives a power cut; a reader sees all of it or nothing.
pub(crate) fn write(config: &Config, attachment: &Attachment, addresses: Vec<IpAddr>) -> Result<(), Error> {
    let (dir, name) = place(config, attachment);
    let record = DeleteRecord {
        container_id: attachment.container_id.clone(),
        ifname: attachment.ifname.clone(),
        network: attachment.network.clone(),
        host_ifname: attachment.host_ifname(),
        addresses,
    };
    store(&dir, &name, &record).map_err(|source| Error::Io {
        operation: "write",
        object: format!("the delete record {}", dir.join(&name).display()),
        source,
    })
}

/// Whether there is a record of this attachment.
pub(crate) fn exists(config: &Config, attachment: &Attachment) -> bool {
    let (dir, name) = place(config, attachment);
    dir.join(name).exists()
}

/// Removes the record of this attachment, whole or half-written, if there is one.
pub(crate) fn remove(config: &Config, attachment: &Attachment) -> Result<(), Error> {
    let (dir, name) = place(config, attachment);
    for path in [dir.join(&name), draft(&dir, &name)] {
        match std::fs::remove_file(&path) {
            Err(error)
                if ![io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) =>
            {
                let object = format!("the delete record {}", path.display());
                return Err(Error::Io { operation: "remove", object, source: error });
            }
            _ => {}
        }
    }
    Ok(())
}

fn place(config: &Config, attachment: &Attachment) -> (PathBuf, String) {
    let name = format!("{}_{}.json", attachment.container_id, attachment.ifname);
    (config.state_dir.join(DELETE_QUEUE_DIR), name)
}

/// Always the same name, so that a killed writer's draft is overwritten by the next: the attachment is locked.
fn draft(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!(".{name}.tmp"))
}

fn store(dir: &Path, name: &str, record: &DeleteRecord) -> io::Result<()> {
    if !dir.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        dir.parent().map(|parent| File::open(parent)?.sync_all()).transpose()?;
    }
    let bytes = serde_json::to_vec_pretty(record).map_err(io::Error::from)?;
    let draft = draft(dir, name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    step::reached(Step::DelRecordWritten);
    std::fs::rename(&draft, dir.join(name))?;
    File::open(dir)?.sync_all()?;
    step::reached(Step::DelRecordNamed);
    Ok(())
}
