//! CHECK: compares what ADD reported with what is there, and names every difference.

use sluice_client::model::EndpointState;
use sluice_netlink::{Link, MacAddr, Netlink, Netns, Route};

use crate::Request;
use crate::addresses::host_net;
use crate::agent::Agent;
use crate::attachment::Phase;
use crate::config::{Config, Ipam};
use crate::environment::Verb;
use crate::error::Error;
use crate::lock::Lock;
use crate::pod_link::PodState;
use crate::result::{CniResult, Interface};
use crate::{host_link, ipam, pod_link, programs};

/// Succeeds if the attachment is as ADD left it.
pub(crate) fn check(request: &Request) -> Result<(), Error> {
    let config = &request.config;
    let Some(previous) = &config.previous else {
        let reason = "it is missing, and CHECK compares with it".to_owned();
        return Err(Error::Config { key: "prevResult".to_owned(), reason });
    };
    let netns = pod_link::open_netns(request.environment.netns()?)?;
    let _lock = Lock::take(&request.attachment)?;
    let mut drift = Vec::new();
    let mut netlink = Netlink::open()?;
    let own_ifname = request.attachment.host_ifname();
    let is_primary = previous.result.interfaces.iter().any(|interface| interface.name == own_ifname);
    let host = if is_primary {
        check_own_pair(request, &mut netlink, &netns, &mut drift)?
    } else {
        find_other_pair(request, &mut netlink, &netns, &mut drift)?
    };
    let pod = check_pod(request, &netns, &previous.result, &mut drift)?;
    if let (Some(host), Some(pod)) = (&host, &pod) {
        if is_primary {
            check_ways(&mut netlink, host, pod, &previous.result, &request.environment.ifname, &mut drift)?;
        }
        check_host(host, &previous.result, &mut drift);
        check_programs(config, host, &mut drift)?;
    }
    check_endpoint(request, host.as_ref(), &mut drift)?;
    if !drift.is_empty() {
        return Err(Error::Drift(drift));
    }
    match &config.ipam {
        Ipam::Delegated(plugin) if is_primary => ipam::run(request, plugin, Verb::Check).map(drop),
        Ipam::Delegated(_) | Ipam::Own => Ok(()),
    }
}

/// The host-side veth that ADD made.
fn check_own_pair(
    request: &Request,
    netlink: &mut Netlink,
    netns: &Netns,
    drift: &mut Vec<String>,
) -> Result<Option<Link>, Error> {
    match host_link::find_own(netlink, &request.attachment) {
        Ok(Some((_, Phase::Added))) => find_other_pair(request, netlink, netns, drift),
        Ok(Some((link, Phase::Adding))) => {
            drift.push(format!("ADD did not come to its end for {}", link.name));
            Ok(None)
        }
        Ok(None) => {
            drift.push(format!("the node's interface {} is gone", request.attachment.host_ifname()));
            Ok(None)
        }
        Err(error @ Error::HostInterfaceTaken { .. }) => {
            drift.push(error.to_string());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The node's end of the container's veth, whoever made it.
fn find_other_pair(
    request: &Request,
    netlink: &mut Netlink,
    netns: &Netns,
    drift: &mut Vec<String>,
) -> Result<Option<Link>, Error> {
    match pod_link::find_pair(netlink, netns, &request.environment.ifname) {
        Ok((host, _)) => Ok(Some(host)),
        Err(error @ Error::UnsupportedInterface { .. }) => {
            drift.push(error.to_string());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn check_host(host: &Link, expected: &CniResult, drift: &mut Vec<String>) {
    let listed = expected.interfaces.iter().find(|one| one.sandbox.is_none() && one.name == host.name);
    match listed {
        Some(listed) => compare_link("the node's", host, listed, drift),
        None => drift.push(format!("the previous result does not list {}", host.name)),
    }
}

/// The container's interface, its addresses and the container's routes.
fn check_pod(
    request: &Request,
    netns: &Netns,
    expected: &CniResult,
    drift: &mut Vec<String>,
) -> Result<Option<PodState>, Error> {
    let ifname = &request.environment.ifname;
    let Some(pod) = pod_link::observe(netns, ifname)? else {
        drift.push(format!("the container's interface {ifname} is gone"));
        return Ok(None);
    };
    match expected.container_interface(ifname) {
        Some((_, listed)) => compare_link("the container's", &pod.link, listed, drift),
        None => drift.push(format!("the previous result does not list {ifname}")),
    }
    for ip in expected.ips_of_container(ifname) {
        if !pod.ips.contains(&ip.address) {
            drift.push(format!("the container has lost its address {}", ip.address));
        }
    }
    for route in &expected.routes {
        let is_it = |own: &&Route| {
            own.destination.trunc() == route.destination.trunc()
                && (route.gateway.is_none() || own.gateway == route.gateway)
        };
        if !pod.routes.iter().any(|own| is_it(&own)) {
            let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
            drift.push(format!("the container has lost its route to {}{via}", route.destination));
        }
    }
    Ok(Some(pod))
}

/// The node's routes to the pod, and who answers for the gateways in the pod.
fn check_ways(
    netlink: &mut Netlink,
    host: &Link,
    pod: &PodState,
    expected: &CniResult,
    ifname: &str,
    drift: &mut Vec<String>,
) -> Result<(), Error> {
    let routes = netlink.routes()?;
    for ip in expected.ips_of_container(ifname) {
        let net = host_net(ip.address.addr());
        if !routes.iter().any(|route| route.destination == net && route.ifindex == host.index) {
            drift.push(format!("the node has lost its route to {net} by {}", host.name));
        }
        if let (Some(gateway), Some(mac)) = (ip.gateway, host.mac)
            && !pod.gateways.contains(&(gateway, mac))
        {
            drift.push(format!("the container does not know that {gateway} is at {mac}"));
        }
    }
    Ok(())
}

fn check_programs(config: &Config, host: &Link, drift: &mut Vec<String>) -> Result<(), Error> {
    if !programs::is_attached(&config.pin_dir, &host.name, host.index)? {
        drift.push(format!("the datapath's programs are not attached to {}", host.name));
    }
    Ok(())
}

fn check_endpoint(request: &Request, host: Option<&Link>, drift: &mut Vec<String>) -> Result<(), Error> {
    let Some(endpoint) = Agent::new(&request.config).endpoint_of(&request.attachment)? else {
        drift.push("the agent does not know the endpoint".to_owned());
        return Ok(());
    };
    let enforces = match endpoint.state {
        // While a newer policy is computed, the last one is enforced.
        EndpointState::Ready
        | EndpointState::Regenerating
        | EndpointState::WaitingToRegenerate
        | EndpointState::WaitingForIdentity
        | EndpointState::Restoring => true,
        EndpointState::Disconnecting | EndpointState::Disconnected => false,
    };
    if !enforces {
        drift.push(format!("endpoint {} is {}", endpoint.id, endpoint.state));
    }
    let own = &endpoint.attachment;
    if let Some(host) = host.filter(|host| (own.host_ifindex, &own.host_ifname) != (host.index, &host.name)) {
        let known = format!("{} with index {}", own.host_ifname, own.host_ifindex);
        drift.push(format!("the agent knows {known}, the node has {} with index {}", host.name, host.index));
    }
    Ok(())
}

fn compare_link(whose: &str, link: &Link, expected: &Interface, drift: &mut Vec<String>) {
    let name = &link.name;
    if !link.is_up {
        drift.push(format!("{whose} interface {name} is down"));
    }
    let mac = expected.mac.as_deref().map(|text| (text, text.parse::<MacAddr>().ok()));
    if let Some((text, _)) = mac.filter(|(_, mac)| mac.is_none() || *mac != link.mac) {
        let found = link.mac.unwrap_or_default();
        drift.push(format!("{whose} interface {name} has the MAC address {found}, not {text}"));
    }
    if let Some(mtu) = expected.mtu.filter(|mtu| *mtu != link.mtu) {
        drift.push(format!("{whose} interface {name} has MTU {}, not {mtu}", link.mtu));
    }
}
