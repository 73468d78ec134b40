//! Local delivery by mark: packets that carry it are for sockets of this node, whatever their destination.

use std::net::{Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::socket::Task;
use crate::{Error, Netlink};

/// A rule for a mark, and a table of its own with nothing but a local default route by the loopback device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LocalDelivery {
    /// The mark, among the bits of `mask`.
    pub mark: u32,
    /// Which bits of a packet's mark count.
    pub mask: u32,
    /// The rule's preference: the lowest is looked at first.
    pub priority: u32,
    /// The table.
    pub table: u32,
}

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

impl Netlink {
    /// Sees to it that rule and route are there, for both families. What is there already stays as it is.
    ///
    /// # Errors
    /// [`Error`].
    pub fn ensure_local_delivery(&mut self, delivery: &LocalDelivery) -> Result<(), Error> {
        let loopback = self.link("lo")?.index;
        for family in FAMILIES {
            let object = describe(delivery, family);
            let task = Task { operation: "add", object: &object };
            // The route first: a rule without it would let packets go on to the main table.
            let route = RouteNetlinkMessage::NewRoute(route(delivery, family, loopback));
            self.request(task, route, NLM_F_CREATE | NLM_F_REPLACE)?;
            let rule = RouteNetlinkMessage::NewRule(rule(delivery, family));
            match self.request(task, rule, NLM_F_CREATE | NLM_F_EXCL) {
                Err(error) if !error.is_exists() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes rule and route of both families. None there is no error.
    ///
    /// # Errors
    /// [`Error`].
    pub fn remove_local_delivery(&mut self, delivery: &LocalDelivery) -> Result<(), Error> {
        let loopback = self.link("lo")?.index;
        for family in FAMILIES {
            let object = describe(delivery, family);
            let task = Task { operation: "delete", object: &object };
            let rule = RouteNetlinkMessage::DelRule(rule(delivery, family));
            let route = RouteNetlinkMessage::DelRoute(route(delivery, family, loopback));
            for message in [rule, route] {
                match self.request(task, message, 0) {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn describe(delivery: &LocalDelivery, family: AddressFamily) -> String {
    let LocalDelivery { mark, mask, table, .. } = delivery;
    let family = if family == AddressFamily::Inet { "IPv4" } else { "IPv6" };
    format!("{family} rule for mark {mark:#x}/{mask:#x} and table {table}")
}

fn rule(delivery: &LocalDelivery, family: AddressFamily) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(delivery.priority),
        RuleAttribute::FwMark(delivery.mark),
        RuleAttribute::FwMask(delivery.mask),
        RuleAttribute::Table(delivery.table),
        RuleAttribute::Protocol(RouteProtocol::Static),
    ];
    message
}

fn route(delivery: &LocalDelivery, family: AddressFamily, loopback: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Local;
    message.header.scope = RouteScope::Host;
    let default = if family == AddressFamily::Inet {
        RouteAttribute::Destination(Ipv4Addr::UNSPECIFIED.into())
    } else {
        RouteAttribute::Destination(Ipv6Addr::UNSPECIFIED.into())
    };
    message.attributes = vec![default, RouteAttribute::Table(delivery.table), RouteAttribute::Oif(loopback)];
    message
}
