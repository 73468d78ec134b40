//! ADD: all or nothing. Before either end of the veth is up, the datapath's programs are attached, and they drop
//! everything until the agent says that the endpoint's policy is in the kernel.

use std::net::IpAddr;

use serde_json::Value;
use sluice_client::model::{EndpointRequest, EndpointState};
use sluice_netlink::{Link, MacAddr, Netlink, Netns};

use crate::Request;
use crate::addresses::{Addresses, PodAddress, host_net};
use crate::agent::Agent;
use crate::attachment::Phase;
use crate::config::{Ipam, Previous};
use crate::error::Error;
use crate::lock::Lock;
use crate::result::{CniResult, Interface, IpConfig, RouteConfig};
use crate::step::{self, Step};
use crate::undo::{Done, Undo};
use crate::verb::joined;
use crate::{delete_record, host_link, ipam, pod_link, programs, report};

/// Adds the attachment and returns the result, and with it how to take everything back should the result not
/// reach the runtime.
pub(crate) fn add(request: &Request) -> Result<(Value, Undo<'_>), Error> {
    let netns = pod_link::open_netns(request.environment.netns()?)?;
    let lock = Lock::take(&request.attachment)?;
    step::reached(Step::AddLocked);
    let mut undo = Undo::new(request, lock);
    let result = match &request.config.previous {
        None => primary(request, &netns, &mut undo)?,
        Some(previous) => chained(request, &netns, previous, &mut undo)?,
    };
    step::reached(Step::AddDone);
    Ok((result, undo))
}

/// First in the list: the interface is ours.
fn primary(request: &Request, netns: &Netns, undo: &mut Undo<'_>) -> Result<Value, Error> {
    let attachment = &request.attachment;
    let mut netlink = Netlink::open()?;
    clear_leftovers(request, &mut netlink)?;
    let addresses = get_addresses(request, &mut netlink, undo)?;
    step::reached(Step::AddLeased);

    undo.push(Done::HostLink);
    let mtu = request.config.mtu.or(addresses.mtu);
    let host = host_link::create(&mut netlink, attachment, netns, mtu)?;
    undo.push(Done::Programs(host.name.clone()));
    undo.push(Done::Endpoint);
    let wanted = endpoint_request(request, &host, attachment.pod_mac(), &addresses)?;
    // Both sides wait for the kernel most of the time, and neither needs the other: whoever is first, nothing
    // passes before the programs are attached and the endpoint's policy is there.
    let (pod, endpoint) = std::thread::scope(|scope| {
        let endpoint = scope.spawn(|| create_endpoint(request, &wanted));
        (connect(request, &mut netlink, netns, &host, &addresses), joined(endpoint))
    });
    let pod = pod?;
    endpoint?;
    netlink.set_alias(host.index, &attachment.alias(Phase::Added))?;
    Ok(result(request, &host, &pod, &addresses).to_json(request.config.version))
}

/// Attaches the programs, and only then sets both ends up, with addresses and routes. Returns the container's end.
fn connect(
    request: &Request,
    netlink: &mut Netlink,
    netns: &Netns,
    host: &Link,
    addresses: &Addresses,
) -> Result<Link, Error> {
    let attachment = &request.attachment;
    host_link::apply_settings(&host.name, addresses)?;
    step::reached(Step::AddHostSettings);
    programs::attach(&request.config.pin_dir, &host.name, host.index)?;
    step::reached(Step::AddProgramsAttached);
    netlink.set_up(host.index)?;
    step::reached(Step::AddHostUp);
    let pod = pod_link::set_up(netns, &attachment.ifname, addresses, attachment.host_mac())?;
    step::reached(Step::AddPodSetUp);
    let ips = addresses.each().map(|address| address.ip);
    host_link::add_routes(netlink, host, ips, attachment.pod_mac())?;
    step::reached(Step::AddHostRoutes);
    Ok(pod)
}

/// After another plugin: its interface is put under policy, and its result is the result.
fn chained(
    request: &Request,
    netns: &Netns,
    previous: &Previous,
    undo: &mut Undo<'_>,
) -> Result<Value, Error> {
    let config = &request.config;
    if config.ipam != Ipam::Own {
        let reason = "after another plugin, addresses are that plugin's; remove `ipam`".to_owned();
        return Err(Error::Config { key: "ipam".to_owned(), reason });
    }
    let agent = Agent::new(config);
    agent.check_runs()?;
    let ifname = &request.environment.ifname;
    let unusable = |reason| Error::Config { key: "prevResult.ips".to_owned(), reason };
    let addresses = Addresses::from_ips(previous.result.ips_of_container(ifname)).map_err(unusable)?;
    let (host, pod) = pod_link::find_pair(&mut Netlink::open()?, netns, ifname)?;
    if delete_record::exists(config, &request.attachment) {
        agent.delete_attachment(&request.attachment)?;
        delete_record::remove(config, &request.attachment)?;
    }
    undo.push(Done::Programs(host.name.clone()));
    programs::attach(&config.pin_dir, &host.name, host.index)?;
    step::reached(Step::AddProgramsAttached);
    undo.push(Done::Endpoint);
    let wanted = endpoint_request(request, &host, pod.mac.unwrap_or_default(), &addresses)?;
    create_endpoint(request, &wanted)?;
    let mut result = previous.document.clone();
    if let Some(result) = result.as_object_mut() {
        result.insert("cniVersion".to_owned(), config.version.as_str().into());
    }
    Ok(result)
}

/// Removes what an ADD that was killed left behind. An attachment that is complete stays, and ADD fails.
fn clear_leftovers(request: &Request, netlink: &mut Netlink) -> Result<(), Error> {
    let (config, attachment) = (&request.config, &request.attachment);
    let own = host_link::find_own(netlink, attachment)?;
    if let Some((_, Phase::Added)) = own {
        let (container_id, ifname) = (attachment.container_id.clone(), attachment.ifname.clone());
        return Err(Error::AlreadyAdded { container_id, ifname });
    }
    // A record would make the agent delete the new attachment when it starts again.
    if own.is_some() || delete_record::exists(config, attachment) {
        Agent::new(config).delete_attachment(attachment)?;
        delete_record::remove(config, attachment)?;
    }
    if let Some((link, _)) = own {
        host_link::delete(netlink, &link)?;
    }
    programs::detach(&config.pin_dir, &attachment.host_ifname())
}

fn get_addresses(request: &Request, netlink: &mut Netlink, undo: &mut Undo<'_>) -> Result<Addresses, Error> {
    let agent = Agent::new(&request.config);
    match &request.config.ipam {
        Ipam::Own => {
            let lease = agent.lease(&request.attachment).inspect_err(|error| {
                if may_have_arrived(error) {
                    undo.push(Done::Lease);
                }
            })?;
            undo.push(Done::Lease);
            Addresses::from_lease(&lease)
                .map_err(|reason| Error::Decode { what: "the agent's lease".to_owned(), reason })
        }
        Ipam::Delegated(plugin) => {
            agent.check_runs()?;
            let addresses = ipam::add(request, plugin)?;
            undo.push(Done::DelegatedLease);
            let ips = addresses.each().map(|address| address.ip);
            host_link::refuse_own_addresses(netlink, ips)
                .map_err(|reason| Error::IpamResult { plugin: plugin.clone(), reason })?;
            Ok(addresses)
        }
    }
}

/// Whether the agent may have done what it was asked although there is no answer.
fn may_have_arrived(error: &Error) -> bool {
    !matches!(
        error,
        Error::AgentUnreachable { source: sluice_client::ClientError::Connect { .. }, .. }
            | Error::Exhausted(_)
    )
}

fn endpoint_request(
    request: &Request,
    host: &Link,
    pod_mac: MacAddr,
    addresses: &Addresses,
) -> Result<EndpointRequest, Error> {
    let environment = &request.environment;
    Ok(EndpointRequest {
        container_id: environment.container_id.clone(),
        ifname: environment.ifname.clone(),
        netns: environment.netns()?.to_string_lossy().into_owned(),
        pod_namespace: environment.pod.namespace.clone(),
        pod_name: environment.pod.name.clone(),
        pod_uid: environment.pod.uid.clone(),
        host_ifname: host.name.clone(),
        host_ifindex: host.index,
        mac: pod_mac.to_string(),
        host_mac: host.mac.unwrap_or_default().to_string(),
        ipv4: addresses.ipv4.map(|address| address.ip),
        ipv6: addresses.ipv6.map(|address| address.ip),
        chained: request.config.previous.is_some(),
        own_ipam: request.config.previous.is_none() && request.config.ipam == Ipam::Own,
    })
}

/// When this returns, the endpoint's policy is in the kernel.
fn create_endpoint(request: &Request, wanted: &EndpointRequest) -> Result<(), Error> {
    let endpoint = Agent::new(&request.config).create_endpoint(wanted)?;
    step::reached(Step::AddEndpointCreated);
    if matches!(endpoint.state, EndpointState::Disconnecting | EndpointState::Disconnected) {
        let reason = format!("the endpoint is {}", endpoint.state);
        return Err(Error::Decode { what: "the agent's answer".to_owned(), reason });
    }
    if let Some(problem) = endpoint.problem {
        report::note(&format!("endpoint {}: {problem}", endpoint.id));
    }
    Ok(())
}

fn result(request: &Request, host: &Link, pod: &Link, addresses: &Addresses) -> CniResult {
    let interface = |link: &Link, sandbox: Option<String>| Interface {
        name: link.name.clone(),
        mac: link.mac.map(|mac| mac.to_string()),
        sandbox,
        mtu: Some(link.mtu),
    };
    let sandbox = request.environment.netns.as_ref().map(|path| path.to_string_lossy().into_owned());
    let ip = |PodAddress { ip, gateway }: PodAddress<IpAddr>| IpConfig {
        address: host_net(ip),
        gateway: Some(gateway),
        interface: Some(1),
    };
    let route = |PodAddress { gateway, .. }: PodAddress<IpAddr>| RouteConfig {
        destination: sluice_netlink::Route::default_via(gateway, 0).destination,
        gateway: Some(gateway),
    };
    CniResult {
        interfaces: vec![interface(host, None), interface(pod, sandbox)],
        ips: addresses.each().map(ip).collect(),
        routes: addresses.each().map(route).collect(),
        dns: addresses.dns.clone().or_else(|| request.config.dns.clone()),
    }
}
