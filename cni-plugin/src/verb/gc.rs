//! GC: removes what the runtime no longer knows. Of links, only those that say they are ours.

use sluice_netlink::Netlink;

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
    let Some(valid) = &config.valid_attachments else {
        let reason = "it is missing, and without it everything would go".to_owned();
        return Err(Error::Config { key: "cni.dev/valid-attachments".to_owned(), reason });
    };
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
    match Agent::new(config).gc(valid) {
        Ok(result) => host_ifnames = result.host_ifnames,
        Err(error) => keep_first(Err(error)),
    }
    keep_first(remove_links(config, valid));
    for name in host_ifnames.iter().filter(|name| check_ifname(name).is_ok()) {
        keep_first(remove_leftover(config, name));
    }
    if let Ipam::Delegated(plugin) = &config.ipam {
        keep_first(ipam::run_if_able(request, plugin, Verb::Gc));
    }
    first_failure
}

/// Deletes the veths whose alias says that they are of this network and of no valid attachment: those of ADDs that
/// were killed before the agent knew them, too.
fn remove_links(config: &Config, valid: &[Attachment]) -> Result<(), Error> {
    let mut netlink = Netlink::open()?;
    for link in netlink.links()? {
        let owner = link.alias.as_deref().and_then(Attachment::from_alias).map(|(owner, _)| owner);
        let is_stale = |owner: &Attachment| {
            owner.network == config.name && owner.host_ifname() == link.name && !valid.contains(owner)
        };
        if owner.as_ref().is_some_and(is_stale) {
            host_link::delete(&mut netlink, &link)?;
            programs::detach(&config.pin_dir, &link.name)?;
        }
    }
    Ok(())
}

/// Takes the programs from an interface whose endpoint the agent removed. The interface itself is deleted by
/// [`remove_links`] if it is ours; in chained mode it is another plugin's.
fn remove_leftover(config: &Config, name: &str) -> Result<(), Error> {
    let mut netlink = Netlink::open()?;
    let is_nameless = |alias: Option<&str>| alias.is_none_or(str::is_empty);
    if name.starts_with(HOST_IFNAME_PREFIX)
        && let Some(link) = netlink.find_link(name)?
        && link.kind.as_deref() == Some("veth")
        && is_nameless(link.alias.as_deref())
    {
        host_link::delete(&mut netlink, &link)?;
    }
    programs::detach(&config.pin_dir, name)
}
