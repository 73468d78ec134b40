//! What a proxy may know of the flows that the datapath hands to it.
//!
//! For another process than the agent: opens the pinned maps for reading only, parses no object, changes nothing. The
//! datapath decided who the client is, not what the client says; a connection that it does not know is nobody's and
//! must be refused.
//!
//! A proxy listens on the loopback of both families, transparent, with the mark [`LISTENER_MARK`]. Of an accepted
//! connection the peer's address is the client's, and its own the destination that the client asked for. The
//! connection to the server is transparent too, bound to the client's address with a port of the proxy's own choice,
//! and carries [`RedirectFacts::upstream_mark`] from before it is connected. Where the client's address cannot be
//! kept ([`RedirectFacts::destination_is_node`], or what leaves is masqueraded), it is left unbound: the mark says who
//! it is all the same.

mod socket;
mod time_wait;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use sluice_ebpf_common::{
    ConntrackEntry, ConntrackFlags, ConntrackKey4, ConntrackKey6, EndpointFlags, EndpointInfo, IcmpSide,
    Mark, map_name,
};
use sluice_types::{Direction, EndpointId, Identity, Protocol, ProxyPort, RuleId};

use crate::conntrack;
use crate::error::LoaderError;
use crate::map::Map;
use crate::sys;

pub use socket::{Family, leg, listener};
pub use time_wait::{TimeWaits, cookie};

/// The mark (`SO_MARK`) that a proxy's listeners carry: without it they are given nothing.
pub const LISTENER_MARK: u32 = Mark::LISTENER.0;

/// The pinned maps, as far as a proxy reads them.
#[derive(Clone, Debug)]
pub struct ProxyView {
    table4: Map<ConntrackKey4, ConntrackEntry>,
    table6: Map<ConntrackKey6, ConntrackEntry>,
    endpoints: Map<u32, EndpointInfo>,
}

/// Why a flow came to the proxy, and whose it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RedirectFacts {
    /// Which side's policy redirects it, as seen from `endpoint`.
    pub direction: Direction,
    /// The endpoint whose policy redirects it: for egress the client, for ingress the server.
    pub endpoint: EndpointId,
    /// The life of that endpoint; the id may be another's later.
    pub generation: u32,
    /// Identity of `endpoint`.
    pub own_identity: Identity,
    /// Identity of the other side.
    pub peer_identity: Identity,
    /// The revision of the endpoint's policy that the flow was last judged by.
    pub revision: u32,
    /// The rule that redirects it.
    pub rule: RuleId,
    /// The listener it was redirected to.
    pub proxy_port: ProxyPort,
    /// The destination is an address of this node, which answers only to addresses of its own.
    pub destination_is_node: bool,
}

impl RedirectFacts {
    /// The mark (`SO_MARK`) of the proxy's connection to the server: for whom it speaks, and what was judged.
    #[must_use]
    pub const fn upstream_mark(&self) -> u32 {
        Mark::leg(self.direction, self.endpoint).0
    }

    /// Identities of client and server.
    #[must_use]
    pub const fn identities(&self) -> (Identity, Identity) {
        match self.direction {
            Direction::Egress => (self.own_identity, self.peer_identity),
            Direction::Ingress => (self.peer_identity, self.own_identity),
        }
    }
}

impl ProxyView {
    /// Opens the maps pinned below `pins`.
    ///
    /// # Errors
    /// There are none (no agent has run), or the kernel refuses.
    pub fn open(pins: &Path) -> Result<Self, LoaderError> {
        Ok(Self {
            table4: open(pins, map_name::CONNTRACK4)?,
            table6: open(pins, map_name::CONNTRACK6)?,
            endpoints: open(pins, map_name::ENDPOINT)?,
        })
    }

    /// What the datapath knows of a flow that a listener accepted: `client` is the peer's address of the accepted
    /// connection, `original_destination` its own. `None`: it was not redirected, or is so no longer.
    ///
    /// # Errors
    /// The kernel refuses. Nothing is known then, and the flow must be refused.
    pub fn facts(
        &self,
        protocol: Protocol,
        client: SocketAddr,
        original_destination: SocketAddr,
    ) -> Result<Option<RedirectFacts>, LoaderError> {
        // Sockets of IPv6 that also take IPv4 show its addresses as mapped ones.
        let [client, destination] = [client, original_destination]
            .map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()));
        // The client's own connection, or one that a proxy opened to a server that redirects again.
        for leg in [false, true] {
            let Some(entry) = self.entry(protocol, client, destination, leg)? else { continue };
            let client_is_a = is_a(client, destination);
            if entry.flags.contains(ConntrackFlags::OPENED_BY_A) == client_is_a
                && entry.expires > conntrack::now()
                && let Some(facts) = of_entry(&entry)
                && self.is_current(&facts)?
            {
                return Ok(Some(facts));
            }
        }
        Ok(None)
    }

    /// Whether the endpoint still lives the life in which the flow was redirected. Ask before a connection to the
    /// server is opened long after the flow was accepted.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn is_current(&self, facts: &RedirectFacts) -> Result<bool, LoaderError> {
        let info = self.endpoints.get(&u32::from(facts.endpoint.as_u16()))?;
        Ok(info.is_some_and(|info| {
            info.generation == facts.generation && info.flags.contains(EndpointFlags::READY)
        }))
    }

    fn entry(
        &self,
        protocol: Protocol,
        client: SocketAddr,
        destination: SocketAddr,
        leg: bool,
    ) -> Result<Option<ConntrackEntry>, LoaderError> {
        let (a, b) = if is_a(client, destination) { (client, destination) } else { (destination, client) };
        let (a_port_be, b_port_be) = (a.port().to_be_bytes(), b.port().to_be_bytes());
        let (protocol, icmp_side, leg) = (protocol.number(), IcmpSide::None as u8, u8::from(leg));
        match (a.ip(), b.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let (a_be, b_be) = (a.octets(), b.octets());
                let key =
                    ConntrackKey4 { a_be, b_be, a_port_be, b_port_be, protocol, icmp_side, leg, reserved: 0 };
                self.table4.get(&key)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let (a_be, b_be) = (a.octets(), b.octets());
                let key =
                    ConntrackKey6 { a_be, b_be, a_port_be, b_port_be, protocol, icmp_side, leg, reserved: 0 };
                self.table6.get(&key)
            }
            _ => Ok(None),
        }
    }
}

fn open<K: crate::plain::Plain, V: crate::plain::Plain>(
    pins: &Path,
    name: &'static str,
) -> Result<Map<K, V>, LoaderError> {
    let path = pins.join(name);
    let fd = sys::open_pin_to_read(&path).map_err(|source| LoaderError::Pin {
        operation: "open",
        path: path.clone(),
        source,
    })?;
    Ok(Map::new(fd, name))
}

/// Whether the first address is side A of the canonical tuple: the smaller one.
fn is_a(first: SocketAddr, second: SocketAddr) -> bool {
    if first.ip() == second.ip() { first.port() <= second.port() } else { first.ip() < second.ip() }
}

fn of_entry(entry: &ConntrackEntry) -> Option<RedirectFacts> {
    let (direction, endpoint, generation) = if entry.flags.contains(ConntrackFlags::EGRESS_REDIRECT) {
        (Direction::Egress, entry.source_endpoint, entry.source_generation)
    } else if entry.flags.contains(ConntrackFlags::INGRESS_REDIRECT) {
        (Direction::Ingress, entry.destination_endpoint, entry.destination_generation)
    } else {
        return None;
    };
    let (source, destination) =
        (Identity::new(entry.source_identity), Identity::new(entry.destination_identity));
    let (own_identity, peer_identity, revision, rule) = match direction {
        Direction::Egress => (source, destination, entry.egress_revision, entry.egress_rule),
        Direction::Ingress => (destination, source, entry.ingress_revision, entry.ingress_rule),
    };
    Some(RedirectFacts {
        direction,
        endpoint: EndpointId::new(endpoint)?,
        generation,
        own_identity,
        peer_identity,
        revision,
        rule: RuleId(rule),
        proxy_port: ProxyPort(u16::from_be_bytes(entry.proxy_port_be)),
        destination_is_node: direction == Direction::Egress
            && entry.flags.contains(ConntrackFlags::NODE_LOCAL),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(flags: ConntrackFlags) -> ConntrackEntry {
        ConntrackEntry {
            flags: flags.with(ConntrackFlags::OPENED_BY_A),
            proxy_port_be: 15_001_u16.to_be_bytes(),
            source_identity: 1_001,
            destination_identity: 1_002,
            egress_revision: 7,
            ingress_revision: 8,
            source_generation: 70,
            destination_generation: 80,
            source_endpoint: 17,
            destination_endpoint: 18,
            egress_rule: 700,
            ingress_rule: 800,
            ..ConntrackEntry::default()
        }
    }

    #[test]
    fn facts_are_those_of_the_side_that_redirects() {
        let client = (Identity::new(1_001), Identity::new(1_002));
        let egress = of_entry(&entry(ConntrackFlags::EGRESS_REDIRECT)).unwrap();
        assert_eq!((egress.endpoint.as_u16(), egress.generation), (17, 70));
        assert_eq!((egress.revision, egress.rule), (7, RuleId(700)));
        assert_eq!((egress.own_identity, egress.peer_identity), client);
        assert_eq!(egress.identities(), client);
        assert_eq!(egress.upstream_mark(), 0x0011_0a00);
        let ingress = of_entry(&entry(ConntrackFlags::INGRESS_REDIRECT)).unwrap();
        assert_eq!((ingress.endpoint.as_u16(), ingress.generation), (18, 80));
        assert_eq!((ingress.revision, ingress.rule), (8, RuleId(800)));
        assert_eq!((ingress.peer_identity, ingress.own_identity), client);
        assert_eq!(ingress.identities(), client);
        assert_eq!(ingress.upstream_mark(), 0x0012_0b00);
        assert_eq!(of_entry(&entry(ConntrackFlags::LEG)), None);
        assert_eq!(of_entry(&entry(ConntrackFlags::default())), None);
    }

    #[test]
    fn side_a_is_the_smaller_address_then_the_smaller_port() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(is_a(address("10.0.0.2:9"), address("10.0.0.10:1")));
        assert!(!is_a(address("[fd00::2]:1"), address("[fd00::1]:9")));
        assert!(is_a(address("10.0.0.1:1"), address("10.0.0.1:2")));
    }
}
