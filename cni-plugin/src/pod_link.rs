//! The container's end of the veth, and the namespace it is in.

use std::net::IpAddr;
use std::time::Duration;

use sluice_netlink::{Link, MacAddr, Netlink, Netns, NetnsError, Route, sysctl};

use crate::addresses::{Addresses, PodAddress, host_net};
use crate::error::Error;

/// Kernel settings of the container's interface: nobody but us configures it, and its address is usable at once.
const SETTINGS6: &[(&str, &str)] = &[("accept_ra", "0"), ("accept_dad", "0")];

/// How long the kernel may take to use an address. Some milliseconds are needed; a hundred pods at once on a busy machine
/// wait seconds for the one lock under which it does it.
const LOCAL_WAIT: Duration = Duration::from_secs(20);
/// How long after the first question the second comes; then twice as long each time, up to the longest.
const LOCAL_INTERVAL: Duration = Duration::from_millis(1);
const LOCAL_INTERVAL_MAX: Duration = Duration::from_millis(64);

/// Opens the container's namespace, which must not be the node's own.
pub(crate) fn open_netns(path: &std::path::Path) -> Result<Netns, Error> {
    let netns = Netns::open(path).map_err(|error| match error {
        // Whatever keeps us from opening it (permission, too many links) is wrong with the path.
        NetnsError::Io { .. } => Error::NetnsRefused(error),
        NetnsError::Missing(_) | NetnsError::NotNetns { .. } | NetnsError::Netlink(_) => Error::from(error),
    })?;
    let is_node = |other: Result<Netns, _>| other.is_ok_and(|other| other.id() == netns.id());
    // The second one matters where the agent has a namespace of its own: the machine's is not for it either.
    if Netns::current()?.id() == netns.id() || is_node(Netns::open("/proc/1/ns/net")) {
        return Err(Error::NetnsOfNode(path.to_owned()));
    }
    Ok(netns)
}

/// Gives the interface its settings, addresses, gateways and default routes, and sets it and loopback up.
pub(crate) fn set_up(
    netns: &Netns,
    ifname: &str,
    addresses: &Addresses,
    host_mac: MacAddr,
) -> Result<Link, Error> {
    netns.run(|| {
        apply_settings(ifname, addresses)?;
        let mut netlink = Netlink::open()?;
        let loopback = netlink.link("lo")?;
        let link = netlink.link(ifname)?;
        for PodAddress { ip, .. } in addresses.each() {
            netlink.add_address(link.index, host_net(ip))?;
        }
        netlink.set_up(loopback.index)?;
        netlink.set_up(link.index)?;
        for PodAddress { gateway, .. } in addresses.each() {
            netlink.set_neighbour(link.index, gateway, host_mac)?;
            netlink.add_route(&Route::default_via(gateway, link.index))?;
        }
        for PodAddress { ip, .. } in addresses.each() {
            wait_until_local(&mut netlink, ip)?;
        }
        Ok(link)
    })?
}

/// Until then the container drops what is sent to the address, and whoever was told that ADD is done sees a pod that
/// does not answer.
fn wait_until_local(netlink: &mut Netlink, ip: IpAddr) -> Result<(), Error> {
    let (mut waited, mut interval) = (Duration::ZERO, LOCAL_INTERVAL);
    while !netlink.is_local(ip)? {
        if waited > LOCAL_WAIT {
            return Err(Error::AddressUnusable(ip));
        }
        std::thread::sleep(interval);
        waited += interval;
        interval = (interval * 2).min(LOCAL_INTERVAL_MAX);
    }
    Ok(())
}

/// The node's end of the container's veth `ifname`, and the container's end. For veths that another plugin made.
pub(crate) fn find_pair(netlink: &mut Netlink, netns: &Netns, ifname: &str) -> Result<(Link, Link), Error> {
    use std::os::fd::AsFd;

    let unsupported = |reason: String| Error::UnsupportedInterface { ifname: ifname.to_owned(), reason };
    let Some(pod) = Netlink::open_in(netns)?.find_link(ifname)? else {
        return Err(unsupported("the container has no such interface".to_owned()));
    };
    let (Some("veth"), Some(peer)) = (pod.kind.as_deref(), pod.peer_index) else {
        let kind = pod.kind.as_deref().unwrap_or("a device without a kind");
        return Err(unsupported(format!("it is {kind}, not a veth")));
    };
    let host = match netlink.link_by_index(peer) {
        Err(error) if error.is_not_found() => None,
        host => Some(host?),
    };
    let netns_id = netlink.netns_id(netns.as_fd())?;
    // Indices repeat between namespaces: the peer must point back, into this very namespace.
    let is_peer = |host: &Link| {
        host.kind.as_deref() == Some("veth")
            && host.peer_index == Some(pod.index)
            && host.peer_netns_id.is_some()
            && host.peer_netns_id == netns_id
    };
    let host = host.filter(is_peer);
    let host = host.ok_or_else(|| unsupported("its other end is not in the node's namespace".to_owned()))?;
    Ok((host, pod))
}

/// Every address of the container's interface and every route of the container, for comparison.
pub(crate) fn observe(netns: &Netns, ifname: &str) -> Result<Option<PodState>, Error> {
    let mut netlink = Netlink::open_in(netns)?;
    let Some(link) = netlink.find_link(ifname)? else { return Ok(None) };
    let addresses = netlink.addresses(Some(link.index))?;
    let neighbours = netlink.neighbours(Some(link.index))?;
    Ok(Some(PodState {
        ips: addresses.iter().map(|address| address.net).collect(),
        gateways: neighbours.iter().filter_map(|one| Some((one.ip, one.mac?))).collect(),
        routes: netlink.routes()?,
        link,
    }))
}

/// What is in the container.
#[derive(Clone, Debug)]
pub(crate) struct PodState {
    pub(crate) link: Link,
    pub(crate) ips: Vec<ipnet::IpNet>,
    pub(crate) gateways: Vec<(IpAddr, MacAddr)>,
    pub(crate) routes: Vec<Route>,
}

fn apply_settings(ifname: &str, addresses: &Addresses) -> Result<(), Error> {
    if addresses.ipv6.is_some() {
        sysctl::write(&["net", "ipv6", "conf", ifname, "disable_ipv6"], "0")?;
    }
    for (key, value) in SETTINGS6 {
        match sysctl::write(&["net", "ipv6", "conf", ifname, key], value) {
            Err(error) if error.is_not_found() && addresses.ipv6.is_none() => {}
            written => written?,
        }
    }
    Ok(())
}
