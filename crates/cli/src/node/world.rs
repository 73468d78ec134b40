//! A machine to be a node, and a world around it: two namespaces and a cable between them.
//!
//! The world has addresses of documentation prefixes and the address where clouds serve their metadata.

use std::net::IpAddr;

use ipnet::IpNet;
use sluice_netlink::{Netlink, Netns, Route, VethSpec, netns, sysctl};

use super::layout::Layout;
use crate::failure::{Failure, io};

const UPLINK: &str = "uplink0";
const NODE_ADDRESSES: [&str; 2] = ["192.0.2.2/24", "2001:db8:2::2/64"];
const WORLD_ADDRESSES: [&str; 2] = ["192.0.2.1/24", "2001:db8:2::1/64"];
/// What else answers in the world, on its loopback device.
const WORLD_HOSTS: [&str; 7] = [
    "198.51.100.1/32",
    "198.51.100.2/32",
    "203.0.113.1/32",
    "169.254.169.254/32",
    "2001:db8:51::1/128",
    "2001:db8:113::1/128",
    "fd00:ec2::254/128",
];

/// Makes the node's namespace and the world's. Undone by [`remove`], also when it fails in between.
pub(super) fn make(layout: &Layout, pools: &[IpNet]) -> Result<Netns, Failure> {
    std::fs::create_dir_all("/run/netns").map_err(io("making /run/netns"))?;
    let node = Netns::create(layout.netns()).map_err(explain)?;
    let world = Netns::create(layout.world_netns()).map_err(explain)?;
    node.run(forward).map_err(explain)?.map_err(io("switching forwarding on"))?;
    wire(&node, &world, pools).map_err(io("connecting the node with the world"))?;
    Ok(node)
}

/// Removes what [`make`] made, whatever of it is there.
pub(super) fn remove(layout: &Layout) {
    for path in [layout.netns(), layout.world_netns()] {
        if path.exists() {
            // A namespace that cannot be removed is found again at the next start.
            let _kept = netns::remove(&path);
        }
    }
}

/// Switches the loopback device of a new namespace on.
pub(super) fn loopback_up(netns: &Netns) -> Result<(), Failure> {
    let up = || -> Result<(), Box<dyn std::error::Error>> {
        let mut netlink = Netlink::open_in(netns)?;
        let loopback = netlink.link("lo")?;
        Ok(netlink.set_up(loopback.index)?)
    };
    up().map_err(io("switching the loopback device on"))
}

fn explain(error: sluice_netlink::NetnsError) -> Failure {
    let denied = matches!(
        &error,
        sluice_netlink::NetnsError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied
    );
    let failure = io("making network namespaces")(&error);
    if denied { failure.hint("Run this as root.") } else { failure }
}

fn forward() -> Result<(), sysctl::SysctlError> {
    sysctl::write(&["net", "ipv4", "ip_forward"], "1")?;
    if_ipv6(sysctl::write(&["net", "ipv6", "conf", "all", "forwarding"], "1"))
}

/// A kernel without IPv6 has no such settings.
fn if_ipv6(result: Result<(), sysctl::SysctlError>) -> Result<(), sysctl::SysctlError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        result => result,
    }
}

fn wire(node: &Netns, world: &Netns, pools: &[IpNet]) -> Result<(), Box<dyn std::error::Error>> {
    use std::os::fd::AsFd;
    loopback_up(node)?;
    loopback_up(world)?;
    let mut ours = Netlink::open_in(node)?;
    let mut theirs = Netlink::open_in(world)?;
    let spec =
        VethSpec { name: UPLINK, peer_name: UPLINK, peer_netns: Some(world.as_fd()), ..VethSpec::default() };
    ours.create_veth(&spec)?;
    let (our_end, their_end) = (ours.link(UPLINK)?, theirs.link(UPLINK)?);
    let (near, far) = (our_end.index, their_end.index);
    let loopback = theirs.link("lo")?.index;
    for address in NODE_ADDRESSES {
        ours.add_address(near, address.parse()?)?;
    }
    for address in WORLD_ADDRESSES {
        theirs.add_address(far, address.parse()?)?;
    }
    for address in WORLD_HOSTS {
        theirs.add_address(loopback, address.parse()?)?;
    }
    ours.set_up(near)?;
    theirs.set_up(far)?;
    // Both ends know each other from the start: the first question for an IPv6 neighbour is lost on a device that has
    // just been switched on, and a second later is too late for a first impression.
    for (address, other) in NODE_ADDRESSES.into_iter().zip(WORLD_ADDRESSES) {
        if let (Some(our_mac), Some(their_mac)) = (our_end.mac, their_end.mac) {
            ours.set_neighbour(near, other.parse::<IpNet>()?.addr(), their_mac)?;
            theirs.set_neighbour(far, address.parse::<IpNet>()?.addr(), our_mac)?;
        }
    }
    for (everything, gateway) in [("0.0.0.0/0", WORLD_ADDRESSES[0]), ("::/0", WORLD_ADDRESSES[1])] {
        ours.replace_route(&route(everything.parse()?, gateway, near)?)?;
    }
    for pool in pools {
        let gateway = if pool.addr().is_ipv4() { NODE_ADDRESSES[0] } else { NODE_ADDRESSES[1] };
        theirs.replace_route(&route(*pool, gateway, far)?)?;
    }
    Ok(())
}

fn route(destination: IpNet, gateway: &str, ifindex: u32) -> Result<Route, ipnet::AddrParseError> {
    let gateway: IpAddr = gateway.parse::<IpNet>()?.addr();
    Ok(Route { destination, gateway: Some(gateway), ifindex, onlink: false, source: None, metric: None })
}
