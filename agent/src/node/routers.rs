//! The node's address in each pool, on the loopback device.

use std::net::IpAddr;

use ipnet::IpNet;
use sluice_netlink::{Error, Netlink};

/// Gives the loopback device the router addresses, and sets it up.
///
/// # Errors
/// The kernel refuses.
pub(super) fn set_up_routers(netlink: &mut Netlink, routers: &[IpAddr]) -> Result<(), Error> {
    let loopback = netlink.link("lo")?;
    if !loopback.is_up {
        netlink.set_up(loopback.index)?;
    }
    for router in routers {
        match netlink.add_address(loopback.index, IpNet::from(*router)) {
            Err(error) if !error.is_exists() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Takes them away again. Those that are not there are no error.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn remove_routers(netlink: &mut Netlink, routers: &[IpAddr]) -> Result<(), Error> {
    let loopback = netlink.link("lo")?;
    for router in routers {
        match netlink.delete_address(loopback.index, IpNet::from(*router)) {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
