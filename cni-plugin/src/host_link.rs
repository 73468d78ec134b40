//! The node's end of a pod's veth.

use std::net::IpAddr;
use std::os::fd::AsFd;

use sluice_netlink::{Link, MacAddr, Netlink, Netns, Route, VethSpec, sysctl};

use crate::addresses::{Addresses, host_net};
use crate::attachment::{Attachment, Phase};
use crate::error::Error;
use crate::step::{self, Step};

/// Kernel settings of the host-side veth. The pod is on the link by its route alone, and nobody on it may configure
/// the node; `addr_gen_mode` 1 leaves it without a link-local address, which would only make noise.
const SETTINGS4: &[(&str, &str)] = &[("rp_filter", "0")];
const SETTINGS6: &[(&str, &str)] = &[("accept_ra", "0"), ("autoconf", "0"), ("addr_gen_mode", "1")];

/// The host-side veth of the attachment and how far ADD came with it, if it exists.
///
/// # Errors
/// [`Error::HostInterfaceTaken`]: the name belongs to something else.
pub(crate) fn find_own(
    netlink: &mut Netlink,
    attachment: &Attachment,
) -> Result<Option<(Link, Phase)>, Error> {
    let Some(link) = netlink.find_link(&attachment.host_ifname())? else { return Ok(None) };
    let taken = |what: String| Error::HostInterfaceTaken { name: link.name.clone(), what };
    if link.kind.as_deref() != Some("veth") {
        return Err(taken("it is not a veth".to_owned()));
    }
    // Between its creation and its naming a veth has no alias; whoever died there was us.
    let Some(alias) = link.alias.as_deref().filter(|alias| !alias.is_empty()) else {
        return Ok(Some((link, Phase::Adding)));
    };
    match Attachment::from_alias(alias) {
        Some((owner, phase)) if owner == *attachment => Ok(Some((link, phase))),
        _ => Err(taken(format!("its alias is `{}`", alias.escape_default()))),
    }
}

/// Deletes the host-side veth of the attachment if it exists, and says whether it did.
pub(crate) fn delete_own(netlink: &mut Netlink, attachment: &Attachment) -> Result<bool, Error> {
    match find_own(netlink, attachment)? {
        Some((link, _)) => delete(netlink, &link),
        None => Ok(false),
    }
}

/// Deletes `link`; it is no failure if somebody was faster, for example the end of the pod's namespace.
pub(crate) fn delete(netlink: &mut Netlink, link: &Link) -> Result<bool, Error> {
    match netlink.delete_link(link.index) {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Creates both ends, both down, and marks the node's end as begun.
pub(crate) fn create(
    netlink: &mut Netlink,
    attachment: &Attachment,
    netns: &Netns,
    mtu: Option<u32>,
) -> Result<Link, Error> {
    let name = attachment.host_ifname();
    let spec = VethSpec {
        name: &name,
        mac: Some(attachment.host_mac()),
        peer_name: &attachment.ifname,
        peer_mac: Some(attachment.pod_mac()),
        peer_netns: Some(netns.as_fd()),
        mtu,
    };
    match netlink.create_veth(&spec) {
        // The node's name was free a moment ago, under the attachment's lock.
        Err(error) if error.is_exists() => return Err(Error::InterfaceTaken(attachment.ifname.clone())),
        created => created?,
    }
    step::reached(Step::AddVethCreated);
    let link = netlink.link(&name)?;
    netlink.set_alias(link.index, &attachment.alias(Phase::Adding))?;
    step::reached(Step::AddVethNamed);
    Ok(link)
}

/// Applies the kernel settings of the node's end.
pub(crate) fn apply_settings(name: &str, addresses: &Addresses) -> Result<(), Error> {
    for (key, value) in SETTINGS4 {
        sysctl::write(&["net", "ipv4", "conf", name, key], value)?;
    }
    if addresses.ipv6.is_some() {
        sysctl::write(&["net", "ipv6", "conf", name, "disable_ipv6"], "0")?;
    }
    for (key, value) in SETTINGS6 {
        match sysctl::write(&["net", "ipv6", "conf", name, key], value) {
            Err(error) if error.is_not_found() && addresses.ipv6.is_none() => {}
            written => written?,
        }
    }
    Ok(())
}

/// Leads the pod's addresses to its veth. An address that leads elsewhere already is a duplicate and refused.
pub(crate) fn add_routes(
    netlink: &mut Netlink,
    link: &Link,
    ips: impl IntoIterator<Item = IpAddr>,
    pod_mac: MacAddr,
) -> Result<(), Error> {
    for ip in ips {
        netlink.add_route(&Route::on_link(host_net(ip), link.index))?;
        netlink.set_neighbour(link.index, ip, pod_mac)?;
    }
    Ok(())
}

/// Refuses an address that the node itself has.
pub(crate) fn refuse_own_addresses(
    netlink: &mut Netlink,
    ips: impl IntoIterator<Item = IpAddr>,
) -> Result<(), String> {
    let own = netlink.addresses(None).map_err(|error| error.to_string())?;
    for ip in ips {
        if own.iter().any(|address| address.net.addr() == ip) {
            return Err(format!("{ip} is an address of the node"));
        }
    }
    Ok(())
}
