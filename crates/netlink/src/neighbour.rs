//! Permanent neighbours: addresses whose Ethernet address is known without asking.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::socket::Task;
use crate::{Error, MacAddr, Netlink};

/// A neighbour of a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Neighbour {
    /// The link.
    pub ifindex: u32,
    /// Its address.
    pub ip: IpAddr,
    /// Its Ethernet address, once known.
    pub mac: Option<MacAddr>,
    /// Whether it was set by hand and never expires.
    pub is_permanent: bool,
}

impl Netlink {
    /// Says that `ip` is reached by `ifindex` at `mac`, for good; replaces what the kernel knew.
    ///
    /// # Errors
    /// [`Error`].
    pub fn set_neighbour(&mut self, ifindex: u32, ip: IpAddr, mac: MacAddr) -> Result<(), Error> {
        let mut message = message(ifindex, ip);
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        let object = format!("neighbour {ip} at {mac} of link with index {ifindex}");
        let task = Task { operation: "set", object: &object };
        self.request(task, RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE).map(drop)
    }

    /// Forgets a neighbour.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_not_found`] if there is none.
    pub fn delete_neighbour(&mut self, ifindex: u32, ip: IpAddr) -> Result<(), Error> {
        let object = format!("neighbour {ip} of link with index {ifindex}");
        let task = Task { operation: "delete", object: &object };
        self.request(task, RouteNetlinkMessage::DelNeighbour(message(ifindex, ip)), 0).map(drop)
    }

    /// The neighbours of one link, or of all.
    ///
    /// # Errors
    /// [`Error`].
    pub fn neighbours(&mut self, ifindex: Option<u32>) -> Result<Vec<Neighbour>, Error> {
        let task = Task { operation: "list", object: &"neighbours" };
        let mut message = NeighbourMessage::default();
        message.attributes.extend(ifindex.map(NeighbourAttribute::IfIndex));
        let answers = self.list(task, &RouteNetlinkMessage::GetNeighbour(message))?;
        let all = answers.into_iter().filter_map(decode);
        Ok(all.filter(|neighbour| ifindex.is_none_or(|ifindex| ifindex == neighbour.ifindex)).collect())
    }
}

fn message(ifindex: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    let (family, address) = match ip {
        IpAddr::V4(ip) => (AddressFamily::Inet, NeighbourAddress::Inet(ip)),
        IpAddr::V6(ip) => (AddressFamily::Inet6, NeighbourAddress::Inet6(ip)),
    };
    message.header.family = family;
    message.attributes.push(NeighbourAttribute::Destination(address));
    message
}

fn decode(message: RouteNetlinkMessage) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    let mut ip = None;
    let mut mac = None;
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => ip = Some(address.into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => ip = Some(address.into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(MacAddr);
            }
            _ => {}
        }
    }
    let is_permanent = message.header.state == NeighbourState::Permanent;
    Some(Neighbour { ifindex: message.header.ifindex, ip: ip?, mac, is_permanent })
}
