//! Unicast routes of the main table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use crate::socket::Task;
use crate::{Error, Netlink};

/// A unicast route of the main table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Route {
    /// Where to; a default route has prefix length 0.
    pub destination: IpNet,
    /// The next hop, or none if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The link it leaves by.
    pub ifindex: u32,
    /// The gateway is taken to be on the link although no other route says so.
    pub onlink: bool,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    /// Metric: the lowest wins. Absent: the kernel's default.
    pub metric: Option<u32>,
}

impl Route {
    /// A route to what is directly on the link.
    #[must_use]
    pub const fn on_link(destination: IpNet, ifindex: u32) -> Self {
        Self { destination, gateway: None, ifindex, onlink: false, source: None, metric: None }
    }

    /// A default route of the gateway's address family, through a gateway that needs no route of its own.
    #[must_use]
    pub const fn default_via(gateway: IpAddr, ifindex: u32) -> Self {
        let destination = match gateway {
            IpAddr::V4(_) => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
            IpAddr::V6(_) => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
        };
        Self { destination, gateway: Some(gateway), ifindex, onlink: true, source: None, metric: None }
    }

    /// Whether it is a default route.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0
    }
}

impl Netlink {
    /// All unicast routes of the main table, IPv4 first. A route with several next hops gives several entries.
    ///
    /// # Errors
    /// [`Error`].
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.attributes.push(RouteAttribute::Table(u32::from(RouteHeader::RT_TABLE_MAIN)));
            let task = Task { operation: "list", object: &"routes" };
            match self.list(task, &RouteNetlinkMessage::GetRoute(message)) {
                Ok(answers) => routes.extend(answers.into_iter().flat_map(decode)),
                // There is no main table before its first route.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(routes)
    }

    /// The links that default routes leave by, each once, in the order of the routes.
    ///
    /// # Errors
    /// [`Error`].
    pub fn default_route_links(&mut self) -> Result<Vec<u32>, Error> {
        let mut links = Vec::new();
        for route in self.routes()? {
            if route.is_default() && !links.contains(&route.ifindex) {
                links.push(route.ifindex);
            }
        }
        Ok(links)
    }

    /// Whether this namespace takes packets to `address` for its own. An address that was just added need not be:
    /// the kernel makes the local route of an IPv6 address some time after it has acknowledged the address.
    ///
    /// # Errors
    /// [`Error`].
    pub fn is_local(&mut self, address: IpAddr) -> Result<bool, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family =
            if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.destination_prefix_length = IpNet::from(address).prefix_len();
        message.attributes.push(RouteAttribute::Destination(address.into()));
        let task = Task { operation: "look up the route to", object: &address };
        match self.request(task, RouteNetlinkMessage::GetRoute(message), 0) {
            Ok(answers) => Ok(answers.iter().any(|answer| {
                matches!(answer, RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Local)
            })),
            Err(error) if error.is_not_found() || error.errno() == Some(Errno::NETUNREACH) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds a route.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_exists`] if there is one to the same destination with the same metric.
    pub fn add_route(&mut self, route: &Route) -> Result<(), Error> {
        self.change_route("add", route, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Adds a route, in place of one to the same destination with the same metric if there is one.
    ///
    /// # Errors
    /// [`Error`].
    pub fn replace_route(&mut self, route: &Route) -> Result<(), Error> {
        self.change_route("replace", route, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Deletes a route.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_not_found`] if there is none like it.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), Error> {
        let mut message = message(route);
        message.header.scope = RouteScope::NoWhere;
        message.header.protocol = RouteProtocol::Unspec;
        let object = describe(route);
        let task = Task { operation: "delete", object: &object };
        self.request(task, RouteNetlinkMessage::DelRoute(message), 0).map(drop)
    }

    fn change_route(&mut self, operation: &'static str, route: &Route, flags: u16) -> Result<(), Error> {
        let object = describe(route);
        let task = Task { operation, object: &object };
        self.request(task, RouteNetlinkMessage::NewRoute(message(route)), flags).map(drop)
    }
}

fn describe(route: &Route) -> String {
    let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    format!("route {}{via} by link with index {}", route.destination, route.ifindex)
}

fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let is_ipv4 = route.destination.addr().is_ipv4();
    message.header.address_family = if is_ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    // IPv6 has no scopes: the kernel keeps every route as universe.
    message.header.scope =
        if is_ipv4 && route.gateway.is_none() { RouteScope::Link } else { RouteScope::Universe };
    if route.onlink {
        message.header.flags = RouteFlags::Onlink;
    }
    if !route.is_default() {
        message.attributes.push(RouteAttribute::Destination(route.destination.network().into()));
    }
    message.attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    message.attributes.push(RouteAttribute::Oif(route.ifindex));
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    message.attributes.extend(route.metric.map(RouteAttribute::Priority));
    message
}

/// One route for each next hop.
fn decode(message: RouteNetlinkMessage) -> Vec<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return Vec::new() };
    if message.header.kind != RouteType::Unicast || message.header.table != RouteHeader::RT_TABLE_MAIN {
        return Vec::new();
    }
    let unspecified = if message.header.address_family == AddressFamily::Inet {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    let mut destination = unspecified;
    let mut route = Route::on_link(IpNet::from(unspecified), 0);
    route.onlink = message.header.flags.contains(RouteFlags::Onlink);
    let mut hops = Vec::new();
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(&address).unwrap_or(unspecified),
            RouteAttribute::Gateway(address) => route.gateway = ip(&address),
            RouteAttribute::Via(via) => route.gateway = via_ip(&via),
            RouteAttribute::PrefSource(address) => route.source = ip(&address),
            RouteAttribute::Oif(index) => route.ifindex = index,
            RouteAttribute::Priority(metric) => route.metric = Some(metric),
            RouteAttribute::MultiPath(next_hops) => hops = next_hops,
            _ => {}
        }
    }
    let Ok(net) = IpNet::new(destination, message.header.destination_prefix_length) else {
        return Vec::new();
    };
    route.destination = net;
    if hops.is_empty() {
        return vec![route];
    }
    let each = hops.into_iter().map(|hop| Route {
        ifindex: hop.interface_index,
        gateway: hop.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(address) => ip(address),
            RouteAttribute::Via(via) => via_ip(via),
            _ => None,
        }),
        ..route
    });
    each.collect()
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn via_ip(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteVia::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}
