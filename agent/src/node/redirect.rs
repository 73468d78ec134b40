//! What the node needs so that redirected flows reach the proxies: routing by mark, and pods' interfaces that take
//! back what the datapath sends into them again.

use sluice_client::model::Problem;
use sluice_ebpf_common::{Mark, redirect_route};
use sluice_netlink::{Error, LocalDelivery, Netlink, sysctl};

use super::POD_LINK_PREFIX;
use crate::report::chain;

/// Packets for a proxy go to sockets of this node.
const DELIVERY: LocalDelivery = LocalDelivery {
    mark: Mark::TO_PROXY.0,
    mask: Mark::KIND,
    priority: redirect_route::RULE_PRIORITY,
    table: redirect_route::TABLE,
};

/// Sees to rule, table and interfaces. Says what redirected flows cannot do.
pub(super) fn set_up(netlink: &mut Netlink) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Err(error) = netlink.ensure_local_delivery(&DELIVERY) {
        problems.push(problem("routes to proxies", "redirected flows do not pass", &chain(&error)));
    }
    match netlink.links() {
        Ok(links) => {
            let pods = links.iter().filter(|link| link.name.starts_with(POD_LINK_PREFIX));
            problems.extend(pods.filter_map(|link| open_interface(&link.name)));
        }
        Err(error) => problems.push(problem("pods' interfaces", "they are not set up", &chain(&error))),
    }
    // The stricter of "all" and the interface's own setting counts.
    if sysctl::read(&["net", "ipv4", "conf", "all", "rp_filter"]).is_ok_and(|value| value != "0") {
        let effect = "redirected flows from the node and from outside do not reach the proxies; set it to 0 and the \
                      devices' own as wanted";
        problems.push(problem("net.ipv4.conf.all.rp_filter", effect, "it is not 0"));
    }
    problems
}

/// Removes rule and table.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn remove(netlink: &mut Netlink) -> Result<(), Error> {
    netlink.remove_local_delivery(&DELIVERY)
}

/// A packet for the pod that comes back for a proxy has a source that this interface does not lead to, perhaps even
/// the node's own. The hook on the interface has checked its source already.
fn open_interface(name: &str) -> Option<Problem> {
    for (setting, wanted) in [("accept_local", "1"), ("rp_filter", "0")] {
        let path = ["net", "ipv4", "conf", name, setting];
        if sysctl::read(&path).is_ok_and(|value| value == wanted) {
            continue;
        }
        match sysctl::write(&path, wanted) {
            // An interface that has just gone needs nothing.
            Err(error) if !error.is_not_found() => {
                let effect = "flows to the pod that a policy redirects do not pass";
                return Some(problem(name, effect, &chain(&error)));
            }
            _ => {}
        }
    }
    None
}

fn problem(object: &str, effect: &str, reason: &str) -> Problem {
    Problem { object: object.to_owned(), message: format!("{effect}: {reason}") }
}
