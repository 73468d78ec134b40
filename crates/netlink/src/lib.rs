//! A small synchronous rtnetlink: links, addresses, routes, rules, neighbours, and network namespaces.
//!
//! A [`Netlink`] handle belongs to the network namespace it was opened in and can be used from any thread
//! afterwards; [`Netlink::open_in`] opens one in another namespace. Every call is one request and its answer,
//! errors say what was attempted on which object. Never caches, never watches, knows no policy. Used by the CNI
//! plugin, the agent and the command line.
//!
//! ```no_run
//! use sluice_netlink::{Netlink, VethSpec};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut netlink = Netlink::open()?;
//! netlink.create_veth(&VethSpec { name: "uplink", peer_name: "uplink-peer", ..VethSpec::default() })?;
//! let uplink = netlink.link("uplink")?;
//! netlink.add_address(uplink.index, "192.0.2.1/24".parse()?)?;
//! netlink.set_up(uplink.index)?;
//! # Ok(())
//! # }
//! ```

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enumerations of the kernel's attributes grow with every kernel: what was not asked for is skipped"
)]

mod address;
mod error;
mod link;
mod mac;
mod neighbour;
pub mod netns;
mod route;
mod rule;
mod socket;
pub mod sysctl;

pub use address::Address;
pub use error::Error;
pub use link::{Link, VethSpec};
pub use mac::{MacAddr, MacParseError};
pub use neighbour::Neighbour;
pub use netns::{Netns, NetnsError, NetnsId};
pub use route::Route;
pub use rule::LocalDelivery;
pub use socket::Netlink;
