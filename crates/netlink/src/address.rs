//! Addresses of links.

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::socket::Task;
use crate::{Error, Netlink};

/// An address of a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Address {
    /// The link.
    pub ifindex: u32,
    /// Address and prefix length.
    pub net: IpNet,
    /// Whether it is valid on this link only (`fe80::…`, 169.254.…).
    pub is_link_local: bool,
    /// Whether duplicate address detection has not ended yet, or has failed (IPv6): it cannot be used.
    pub is_tentative: bool,
}

impl Netlink {
    /// The addresses of one link, or of all.
    ///
    /// # Errors
    /// [`Error`].
    pub fn addresses(&mut self, ifindex: Option<u32>) -> Result<Vec<Address>, Error> {
        let task = Task { operation: "list", object: &"addresses" };
        let mut message = AddressMessage::default();
        message.header.index = ifindex.unwrap_or(0);
        let answers = match self.list(task, &RouteNetlinkMessage::GetAddress(message)) {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            answers => answers?,
        };
        let all = answers.into_iter().filter_map(decode);
        Ok(all.filter(|address| ifindex.is_none_or(|ifindex| ifindex == address.ifindex)).collect())
    }

    /// Gives a link an address, without duplicate address detection.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_exists`] if the link has it already.
    pub fn add_address(&mut self, ifindex: u32, net: IpNet) -> Result<(), Error> {
        let mut message = message(ifindex, net);
        if net.addr().is_ipv6() {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let object = format!("address {net} to link with index {ifindex}");
        let task = Task { operation: "add", object: &object };
        self.request(task, RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Takes an address from a link.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_not_found`] if the link does not have it.
    pub fn delete_address(&mut self, ifindex: u32, net: IpNet) -> Result<(), Error> {
        let object = format!("address {net} from link with index {ifindex}");
        let task = Task { operation: "delete", object: &object };
        self.request(task, RouteNetlinkMessage::DelAddress(message(ifindex, net)), 0).map(drop)
    }
}

fn message(ifindex: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if net.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = net.prefix_len();
    message.header.index = ifindex;
    message.header.scope = if is_link_local(net) { AddressScope::Link } else { AddressScope::Universe };
    message.attributes.push(AddressAttribute::Address(net.addr()));
    message.attributes.push(AddressAttribute::Local(net.addr()));
    message
}

fn is_link_local(net: IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.addr().is_link_local(),
        IpNet::V6(net) => net.addr().is_unicast_link_local(),
    }
}

fn decode(message: RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let mut address = None;
    let mut local = None;
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(ip),
            AddressAttribute::Local(ip) => local = Some(ip),
            AddressAttribute::Flags(all) => flags |= all,
            _ => {}
        }
    }
    let unusable = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    Some(Address {
        ifindex: message.header.index,
        net: IpNet::new(local.or(address)?, message.header.prefix_len).ok()?,
        is_link_local: message.header.scope == AddressScope::Link,
        is_tentative: flags.bits() & u32::from(unusable.bits()) != 0,
    })
}
