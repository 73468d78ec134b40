//! GC: removes what the runtime no longer knows. Of links, only those that say they are ours.

use sluice_netlink::{Link, Netlink};

use crate::Request;
use crate::agent::Agent;
use crate::attachment::{Attachment, HOST_IFNAME_PREFIX};
use crate::config::{Config, Ipam};
use crate::environment::{Verb, check_ifname};
use crate::error::Error;
use crate::{host_link, ipam, programs, report};

/// Removes every attachment of this network that is not among the valid ones. Goes on after a failure and reports
/// the first.
pub(crate) fn gc(request: &Request) -> Result<(), Error> {
    let config = &request.config;
    let valid = &config.valid_attachments;
    let mut netlink = Netlink::open()?;
    let mut first_failure = Ok(());
    let mut keep_first = |outcome: Result<(), Error>| {
        if let Err(error) = &outcome {
            report::warn(error);
        }
        if first_failure.is_ok() {
            first_failure = outcome;
        }
    };
    let mut host_ifnames = Vec::new();
    // The agent keeps the attachments of all networks, and this call is about one of them.
    let mut stay = attachments_of_others(config, &mut netlink)?;
    stay.extend_from_slice(valid);
    match Agent::new(config).gc(&stay) {
        Ok(result) => host_ifnames = result.host_ifnames,
        Err(error) => keep_first(Err(error)),
    }
    keep_first(remove_links(config, &mut netlink, valid));
    for name in host_ifnames.iter().filter(|name| check_ifname(name).is_ok()) {
        keep_first(remove_leftover(config, &mut netlink, name));
    }
    if let Ipam::Delegated(plugin) = &config.ipam {
        keep_first(ipam::run_if_able(request, plugin, Verb::Gc));
    }
    first_failure
}

/// The attachments whose veths say that they are of other networks.
fn attachments_of_others(config: &Config, netlink: &mut Netlink) -> Result<Vec<Attachment>, Error> {
    let owners = netlink.links()?.into_iter().filter_map(|link| owner(&link));
    Ok(owners.filter(|owner| owner.network != config.name).collect())
}

/// The attachment that a veth says it belongs to.
fn owner(link: &Link) -> Option<Attachment> {
    let (owner, _) = Attachment::from_alias(link.alias.as_deref()?)?;
    (owner.host_ifname() == link.name).then_some(owner)
}

/// Deletes the veths whose alias says that they are of this network and of no valid attachment: those of ADDs that
/// were killed before the agent knew them, too.
fn remove_links(config: &Config, netlink: &mut Netlink, valid: &[Attachment]) -> Result<(), Error> {
    for link in netlink.links()? {
        let is_stale = |owner: Attachment| owner.network == config.name && !valid.contains(&owner);
        if owner(&link).is_some_and(is_stale) {
            host_link::delete(netlink, &link)?;
            programs::detach(&config.pin_dir, &link.name)?;
        }
    }
    Ok(())
}

/// Takes the programs from an interface whose endpoint the agent removed. The interface itself is deleted by
/// [`remove_links`] if it is ours; in chained mode it is another plugin's.
fn remove_leftover(config: &Config, netlink: &mut Netlink, name: &str) -> Result<(), Error> {
    let is_nameless = |alias: Option<&str>| alias.is_none_or(str::is_empty);
    if name.starts_with(HOST_IFNAME_PREFIX)
        && let Some(link) = netlink.find_link(name)?
        && link.kind.as_deref() == Some("veth")
        && is_nameless(link.alias.as_deref())
    {
        host_link::delete(netlink, &link)?;
    }
    programs::detach(&config.pin_dir, name)
}
