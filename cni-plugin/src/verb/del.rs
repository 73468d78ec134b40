//! DEL: succeeds when there is nothing left, whoever removed it, and works without the agent.

use std::net::IpAddr;

use sluice_netlink::Netlink;

use crate::Request;
use crate::agent::Agent;
use crate::attachment::HOST_IFNAME_PREFIX;
use crate::config::{Ipam, Previous};
use crate::environment::{Verb, check_ifname};
use crate::error::Error;
use crate::lock::Lock;
use crate::step::{self, Step};
use crate::verb::joined;
use crate::{delete_record, host_link, ipam, pod_link, programs, report};

/// Removes the attachment. Goes on after a failure and reports the first; asked again, it does what is left.
pub(crate) fn del(request: &Request) -> Result<(), Error> {
    let _lock = Lock::take(&request.attachment)?;
    let config = &request.config;
    let mut first_failure = Ok(());
    let mut keep_first = |outcome: Result<(), Error>| {
        if let Err(error) = &outcome {
            report::warn(error);
        }
        if first_failure.is_ok() {
            first_failure = outcome;
        }
    };
    let mut netlink = Netlink::open()?;
    let host_ifnames = host_ifnames(request, &mut netlink);
    // Both wait for the kernel most of the time. Without its endpoint an interface is closed, and without its
    // interface an endpoint is harmless: the order does not matter.
    let (told, deleted) = std::thread::scope(|scope| {
        let told = scope.spawn(|| tell_agent(request));
        (delete_link(request, &mut netlink), joined(told))
    });
    keep_first(told);
    keep_first(deleted);
    for name in &host_ifnames {
        keep_first(programs::detach(&config.pin_dir, name));
    }
    step::reached(Step::DelProgramsDetached);
    if let Ipam::Delegated(plugin) = &config.ipam {
        keep_first(ipam::run(request, plugin, Verb::Del).map(drop));
    }
    first_failure
}

/// Tells the agent, or leaves a record for it. What the agent refuses to delete is kept for it as well: the
/// runtime could do nothing about it but ask for ever.
fn tell_agent(request: &Request) -> Result<(), Error> {
    let config = &request.config;
    let told = Agent::new(config).delete_attachment(&request.attachment);
    step::reached(Step::DelAgentTold);
    match told {
        Ok(()) => delete_record::remove(config, &request.attachment),
        Err(error) => {
            report::warn_about("the deletion is recorded for the agent", &error);
            delete_record::write(config, &request.attachment, known_addresses(request))
        }
    }
}

fn delete_link(request: &Request, netlink: &mut Netlink) -> Result<(), Error> {
    match host_link::delete_own(netlink, &request.attachment) {
        // Not ours, so not to be deleted, and no reason to keep the container.
        Err(error @ Error::HostInterfaceTaken { .. }) => {
            report::warn(&error);
            Ok(())
        }
        deleted => {
            step::reached(Step::DelLinkDeleted);
            deleted.map(drop)
        }
    }
}

/// Names of the interfaces of the node that this attachment may have put under policy: its own veth, or in chained
/// mode another plugin's, as far as the namespace or the previous result still tells.
fn host_ifnames(request: &Request, netlink: &mut Netlink) -> Vec<String> {
    let own = request.attachment.host_ifname();
    if matches!(host_link::find_own(netlink, &request.attachment), Ok(Some(_))) {
        return vec![own];
    }
    let mut names = vec![own];
    let netns = request.environment.netns.as_deref().and_then(|path| pod_link::open_netns(path).ok());
    let pair = netns.and_then(|netns| pod_link::find_pair(netlink, &netns, &request.environment.ifname).ok());
    names.extend(pair.map(|(host, _)| host.name));
    let listed = request.config.previous.iter().flat_map(|Previous { result, .. }| &result.interfaces);
    let on_node =
        listed.filter(|interface| interface.sandbox.is_none()).map(|interface| interface.name.clone());
    names.extend(on_node.filter(|name| check_ifname(name).is_ok() && !name.starts_with(HOST_IFNAME_PREFIX)));
    names
}

fn known_addresses(request: &Request) -> Vec<IpAddr> {
    let previous = request.config.previous.as_ref();
    let ips = previous.map(|previous| previous.result.ips_of_container(&request.environment.ifname));
    ips.into_iter().flatten().map(|ip| ip.address.addr()).collect()
}
