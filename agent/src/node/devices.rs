//! The node's own devices, which carry `from_netdev`.

use std::path::Path;

use sluice_client::model::Problem;
use sluice_ebpf_loader::attach;
use sluice_netlink::{Link, Netlink};

use super::POD_LINK_PREFIX;
use crate::report::chain;

/// Attaches the program to every device that should have it. Says which have it, and what is wrong.
pub(super) fn attach_all(
    netlink: &mut Netlink,
    pins: &Path,
    named: &[String],
) -> (Vec<String>, Vec<Problem>) {
    let mut problems = Vec::new();
    let links = match chosen(netlink, named, &mut problems) {
        Ok(links) => links,
        Err(error) => {
            let message = format!("devices cannot be listed: {}", chain(&error));
            problems.push(Problem { object: "devices".to_owned(), message });
            Vec::new()
        }
    };
    let mut attached = Vec::new();
    for link in links {
        let result = match attach::is_netdev_attached(pins, &link.name, link.index) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => attach::attach_netdev(pins, &link.name, link.index),
        };
        match result {
            Ok(()) => attached.push(link.name),
            Err(error) => problems.push(Problem {
                message: format!("what comes from outside by it is not looked at: {}", chain(&error)),
                object: format!("device {}", link.name),
            }),
        }
    }
    (attached, problems)
}

fn chosen(
    netlink: &mut Netlink,
    named: &[String],
    problems: &mut Vec<Problem>,
) -> Result<Vec<Link>, sluice_netlink::Error> {
    if named.is_empty() {
        let indices = netlink.default_route_links()?;
        let links = netlink.links()?;
        let is_chosen = |link: &Link| {
            indices.contains(&link.index) && !link.is_loopback && !link.name.starts_with(POD_LINK_PREFIX)
        };
        return Ok(links.into_iter().filter(is_chosen).collect());
    }
    let mut chosen = Vec::new();
    for name in named.iter().filter(|name| !name.is_empty()) {
        match netlink.find_link(name)? {
            Some(link) => chosen.push(link),
            None => problems.push(Problem {
                object: format!("device {name}"),
                message: "there is no such device; it is looked for again".to_owned(),
            }),
        }
    }
    Ok(chosen)
}
