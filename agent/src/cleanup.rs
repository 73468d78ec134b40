//! `sluice-agent cleanup`: removes everything the agent made on this node, also what only the kernel remembers.
//!
//! Policies that were applied through the API are left: they are the user's. Goes on after a failure and says at the
//! end what could not be removed.

use std::fs;
use std::io;
use std::path::Path;

use sluice_client::path::DELETE_QUEUE_DIR;
use sluice_ebpf_loader::attach;
use sluice_ebpf_loader::common::PIN_SUBDIR;
use sluice_netlink::Netlink;

use crate::config::Config;
use crate::datapath::file;
use crate::lock::Lock;
use crate::node::{POD_LINK_PREFIX, masquerade, remove_redirect_route, remove_routers};
use crate::proxy;
use crate::report::chain;

/// Removes pins, pods' veths, router addresses, the nftables table and the state files.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    let lock = if config.state_dir.exists() {
        Some(Lock::take(&config.state_dir, Some("agent.lock"))?)
    } else {
        None
    };
    let pins = config.bpffs.join(PIN_SUBDIR);
    let mut left = Vec::new();
    note(proxy::end(&config.state_dir), &mut left);
    let names = attach::pinned_interfaces(&pins).unwrap_or_default();
    remove_links(&names, &mut left);
    remove_pins(&pins, &mut left);
    match Netlink::open() {
        Ok(mut netlink) => {
            note(remove_routers(&mut netlink, &config.routers()), &mut left);
            note(remove_redirect_route(&mut netlink), &mut left);
        }
        Err(error) => left.push(chain(&error)),
    }
    note(masquerade::remove(), &mut left);
    drop(lock);
    for directory in [file::ENDPOINTS, DELETE_QUEUE_DIR, "last-good", "proxy"] {
        note(remove_tree(&config.state_dir.join(directory)), &mut left);
    }
    for file in [file::IPAM, file::IDENTITIES, file::NUMBERS] {
        note(remove_one(&config.state_dir.join(file)), &mut left);
    }
    note(remove_one(&config.socket), &mut left);
    if let Some(directory) = &config.cni_conf_dir {
        tracing::info!(directory = %directory.display(), "the network configuration is left: pods may still need a DEL");
    }
    if left.is_empty() {
        Ok(())
    } else {
        anyhow::bail!("not everything could be removed: {}", left.join("; "))
    }
}

/// Only veths of ours: named so, and with our programs' pins or our plugin's alias.
fn remove_links(pinned: &[String], left: &mut Vec<String>) {
    let mut netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(error) => return left.push(chain(&error)),
    };
    let links = match netlink.links() {
        Ok(links) => links,
        Err(error) => return left.push(chain(&error)),
    };
    for link in links {
        let is_veth = link.kind.as_deref() == Some("veth");
        if !is_veth || !is_pod_link(&link.name) || !pinned.contains(&link.name) {
            continue;
        }
        match netlink.delete_link(link.index) {
            Err(error) if !error.is_not_found() => left.push(chain(&error)),
            _ => tracing::info!(link = link.name, "removed"),
        }
    }
}

/// `slu` and twelve hexadecimal digits.
fn is_pod_link(name: &str) -> bool {
    name.strip_prefix(POD_LINK_PREFIX)
        .is_some_and(|rest| rest.len() == 12 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn remove_pins(pins: &Path, left: &mut Vec<String>) {
    let entries = match fs::read_dir(pins) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return left.push(format!("{}: {error}", pins.display())),
        Ok(entries) => entries,
    };
    for entry in entries.flatten() {
        note(remove_one(&entry.path()), left);
    }
    // The directories are removed if nobody else has something in them.
    for directory in [Some(pins), pins.parent()].into_iter().flatten() {
        if fs::remove_dir(directory).is_err() {
            return;
        }
    }
}

fn remove_one(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn note<E: std::error::Error + 'static>(result: Result<(), E>, left: &mut Vec<String>) {
    if let Err(error) = result {
        left.push(chain(&error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names() {
        assert!(is_pod_link("slu0123456789ab"));
        for other in ["slu0", "slug", "slu0123456789ag", "eth0", "slu0123456789abc"] {
            assert!(!is_pod_link(other), "{other}");
        }
    }
}
