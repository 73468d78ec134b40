//! Links: network devices.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};

use crate::socket::Task;
use crate::{Error, MacAddr, Netlink};

/// A network device.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Kind of a virtual device, `veth`, `bridge` …; none for hardware and loopback.
    pub kind: Option<String>,
    /// Ethernet address.
    pub mac: Option<MacAddr>,
    /// Largest packet.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub is_up: bool,
    /// Whether it is the loopback device.
    pub is_loopback: bool,
    /// For a veth, the index of its peer, in the peer's namespace.
    pub peer_index: Option<u32>,
    /// The number by which this namespace knows the peer's namespace; none if the peer is in this one.
    pub peer_netns_id: Option<i32>,
    /// Index of the bridge or bond it belongs to.
    pub controller: Option<u32>,
    /// The alias: free text that stays with the device.
    pub alias: Option<String>,
}

/// A pair of veths to create.
#[derive(Clone, Copy, Debug, Default)]
pub struct VethSpec<'a> {
    /// Name of the end that stays in this namespace.
    pub name: &'a str,
    /// Its Ethernet address; the kernel's choice if none.
    pub mac: Option<MacAddr>,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// The other end's Ethernet address; the kernel's choice if none.
    pub peer_mac: Option<MacAddr>,
    /// The namespace of the other end; this one if none.
    pub peer_netns: Option<BorrowedFd<'a>>,
    /// Largest packet of both ends; the kernel's choice if none.
    pub mtu: Option<u32>,
}

impl Netlink {
    /// All links of the namespace.
    ///
    /// # Errors
    /// [`Error`].
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let task = Task { operation: "list", object: &"links" };
        let request = RouteNetlinkMessage::GetLink(question());
        let answers = self.list(task, &request)?;
        Ok(answers.into_iter().filter_map(decode).collect())
    }

    /// The link `name`.
    ///
    /// # Errors
    /// [`Error`]; [`Error::NoLink`] if there is none.
    pub fn link(&mut self, name: &str) -> Result<Link, Error> {
        let mut message = question();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(message, name.to_owned())
    }

    /// The link with `index`.
    ///
    /// # Errors
    /// [`Error`]; [`Error::NoLink`] if there is none.
    pub fn link_by_index(&mut self, index: u32) -> Result<Link, Error> {
        let mut message = question();
        message.header.index = index;
        self.one_link(message, format!("with index {index}"))
    }

    /// The link `name`, or none if there is no such link.
    ///
    /// # Errors
    /// [`Error`], but not because it does not exist.
    pub fn find_link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        match self.link(name) {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates both ends of a veth in one step, both down.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_exists`] if one of the names is taken.
    pub fn create_veth(&mut self, spec: &VethSpec<'_>) -> Result<(), Error> {
        let mut peer = end(spec.peer_name, spec.peer_mac, spec.mtu);
        if let Some(netns) = spec.peer_netns {
            peer.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
        }
        let mut message = end(spec.name, spec.mac, spec.mtu);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let object = format!("{} with peer {}", spec.name, spec.peer_name);
        let task = Task { operation: "create veth", object: &object };
        self.request(task, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)?;
        Ok(())
    }

    /// Sets a link up.
    ///
    /// # Errors
    /// [`Error`].
    pub fn set_up(&mut self, index: u32) -> Result<(), Error> {
        self.set_flags("set up link with index", index, LinkFlags::Up)
    }

    /// Sets a link down.
    ///
    /// # Errors
    /// [`Error`].
    pub fn set_down(&mut self, index: u32) -> Result<(), Error> {
        self.set_flags("set down link with index", index, LinkFlags::empty())
    }

    /// Renames a link, which must be down on older kernels.
    ///
    /// # Errors
    /// [`Error`].
    pub fn rename(&mut self, index: u32, name: &str) -> Result<(), Error> {
        self.change("rename link with index", index, LinkAttribute::IfName(name.to_owned()))
    }

    /// Sets a link's alias, at most 255 bytes.
    ///
    /// # Errors
    /// [`Error`].
    pub fn set_alias(&mut self, index: u32, alias: &str) -> Result<(), Error> {
        self.change("set the alias of link with index", index, LinkAttribute::IfAlias(alias.to_owned()))
    }

    /// Sets a link's Ethernet address.
    ///
    /// # Errors
    /// [`Error`].
    pub fn set_mac(&mut self, index: u32, mac: MacAddr) -> Result<(), Error> {
        self.change(
            "set the Ethernet address of link with index",
            index,
            LinkAttribute::Address(mac.0.to_vec()),
        )
    }

    /// Sets a link's MTU.
    ///
    /// # Errors
    /// [`Error`].
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), Error> {
        self.change("set the MTU of link with index", index, LinkAttribute::Mtu(mtu))
    }

    /// Moves a link into another namespace.
    ///
    /// # Errors
    /// [`Error`].
    pub fn move_to_netns(&mut self, index: u32, netns: BorrowedFd<'_>) -> Result<(), Error> {
        self.change(
            "move to another namespace link with index",
            index,
            LinkAttribute::NetNsFd(netns.as_raw_fd()),
        )
    }

    /// Deletes the link with `index`; a veth's peer goes with it.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_not_found`] if there is none.
    pub fn delete_link(&mut self, index: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let task = Task { operation: "delete link with index", object: &index };
        self.request(task, RouteNetlinkMessage::DelLink(message), 0).map(drop)
    }

    /// The number by which this namespace knows the namespace `netns`, if it has given it one. Comparable with
    /// [`Link::peer_netns_id`].
    ///
    /// # Errors
    /// [`Error`].
    pub fn netns_id(&mut self, netns: BorrowedFd<'_>) -> Result<Option<i32>, Error> {
        let task = Task { operation: "look up", object: &"the number of a network namespace" };
        let mut message = NsidMessage::default();
        message.attributes.push(NsidAttribute::Fd(netns.as_raw_fd().cast_unsigned()));
        let answers = self.request(task, RouteNetlinkMessage::GetNsId(message), 0)?;
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewNsId(message) => {
                message.attributes.into_iter().find_map(|attribute| match attribute {
                    NsidAttribute::Id(id) if id >= 0 => Some(id),
                    _ => None,
                })
            }
            _ => None,
        }))
    }

    fn one_link(&mut self, message: LinkMessage, object: String) -> Result<Link, Error> {
        let task = Task { operation: "look up link", object: &object };
        match self.request(task, RouteNetlinkMessage::GetLink(message), 0) {
            Ok(answers) => answers.into_iter().find_map(decode).ok_or(Error::NoLink(object)),
            Err(error) if error.is_not_found() => Err(Error::NoLink(object)),
            Err(error) => Err(error),
        }
    }

    fn set_flags(&mut self, operation: &'static str, index: u32, flags: LinkFlags) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
        let task = Task { operation, object: &index };
        self.request(task, RouteNetlinkMessage::SetLink(message), 0).map(drop)
    }

    fn change(&mut self, operation: &'static str, index: u32, attribute: LinkAttribute) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(attribute);
        let task = Task { operation, object: &index };
        self.request(task, RouteNetlinkMessage::SetLink(message), 0).map(drop)
    }
}

fn end(name: &str, mac: Option<MacAddr>, mtu: Option<u32>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message
}

/// A question about links; counters are left out because nobody here reads them.
fn question() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

fn decode(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link = Link {
        index: message.header.index,
        is_up: message.header.flags.contains(LinkFlags::Up),
        is_loopback: message.header.flags.contains(LinkFlags::Loopback),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok().map(MacAddr),
            LinkAttribute::Link(index) => link.peer_index = Some(index).filter(|index| *index != 0),
            LinkAttribute::LinkNetNsId(id) => link.peer_netns_id = Some(id),
            LinkAttribute::Controller(index) => link.controller = Some(index),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(link)
}
