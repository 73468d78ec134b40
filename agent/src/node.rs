//! The node's own set-up: forwarding, router addresses, masquerading, devices.
//!
//! Everything happens in the network namespace in which the agent was started. What is made here is named so that
//! `cleanup` finds it; nothing else on the node is touched. Runs on a thread of its own that looks again every second
//! and tells the state what it found.

mod devices;
mod guard;
pub(crate) mod masquerade;
mod redirect;
mod routers;
mod watch;

pub(crate) use redirect::remove as remove_redirect_route;
pub(crate) use routers::remove_routers;
pub(crate) use watch::{NodeSettings, NodeWatch, links};

use sluice_client::model::Problem;
use sluice_netlink::sysctl;

use crate::report::chain;

/// Names of pods' host-side veths begin with this.
pub(crate) const POD_LINK_PREFIX: &str = "slu";

/// Lets the node forward packets of these families.
#[must_use]
pub(crate) fn enable_forwarding(has_ipv4: bool, has_ipv6: bool) -> Vec<Problem> {
    let settings = [
        (has_ipv4, ["net", "ipv4", "ip_forward"].as_slice()),
        (has_ipv6, ["net", "ipv6", "conf", "all", "forwarding"].as_slice()),
    ];
    let wanted = settings.into_iter().filter(|(is_wanted, _)| *is_wanted);
    wanted.filter_map(|(_, name)| set_to_one(name).err()).collect()
}

fn set_to_one(name: &[&str]) -> Result<(), Problem> {
    // Writing to a read-only mount of what is set already would be no problem.
    if sysctl::read(name).is_ok_and(|value| value == "1") {
        return Ok(());
    }
    sysctl::write(name, "1").map_err(|error| Problem {
        object: name.join("."),
        message: format!("packets between pods and the outside are not forwarded: {}", chain(&error)),
    })
}
