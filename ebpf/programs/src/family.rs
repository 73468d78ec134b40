//! What the stages need to know of an address family, so that each is written once.

use aya_ebpf::bindings::{bpf_sock, bpf_sock_tuple};
use sluice_ebpf_common::packet::{Address, Ipv4, Ipv6, Packet};
use sluice_ebpf_common::{
    ConntrackEntry, ConntrackKey4, ConntrackKey6, EndpointInfo, IcmpSide, IpcacheEntry,
};
use sluice_types::Identity;

use crate::maps::{CIDR4, CIDR6, CONNTRACK4, CONNTRACK6, IPCACHE4, IPCACHE6};
use crate::once::Once;
use crate::scene::{Scene, Scratch};
use aya_ebpf::btf_maps::lpm_trie::Key;

/// A value with the alignment of a machine word, so that it is copied by words.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Aligned<T>(pub(crate) T);

pub(crate) trait Family: Address + Once + 'static {
    type Key: Copy;

    /// The family's scene.
    fn scene(scratch: &mut Scratch) -> &mut Scene<Self>;

    /// The canonical tuple of a packet, and whether its source is side A. The packet is TCP, UDP, SCTP or echo.
    fn key(packet: &Packet<Self>) -> (Self::Key, bool);
    /// Makes the key that of a proxy's connection to the server, or of an ordinary one.
    fn set_leg(key: &mut Self::Key, leg: bool);
    fn entry(key: &Self::Key) -> Option<*mut ConntrackEntry>;
    fn insert(key: &Self::Key, entry: &ConntrackEntry) -> bool;
    fn exact(&self) -> Option<IpcacheEntry>;
    fn prefix(&self) -> Option<IpcacheEntry>;
    /// Whether it is the endpoint's address. The zero address is nobody's.
    fn belongs_to(&self, endpoint: *const EndpointInfo) -> bool;
    /// The identity of an address that the ipcache does not know.
    fn unknown_identity(&self) -> u32;
    fn is_multicast_or_broadcast(&self) -> bool;
    fn is_loopback(&self) -> bool;
    /// The packet's addresses and ports as the socket lookup takes them, and the length of that.
    fn fill_tuple(packet: &Packet<Self>, tuple: &mut bpf_sock_tuple) -> usize;
    /// Whether a socket is bound to this address.
    fn is_bound(&self, socket: *const bpf_sock) -> bool;
}

#[inline(always)]
fn icmp_side<A: Address>(packet: &Packet<A>, source_is_a: bool) -> u8 {
    if packet.protocol != A::ICMP {
        IcmpSide::None as u8
    } else if packet.is_echo_request() == source_is_a {
        IcmpSide::RequestFromA as u8
    } else {
        IcmpSide::RequestFromB as u8
    }
}

/// Whether the packet's source is side A: the smaller (address, port).
#[inline(always)]
fn source_is_a<A: Address>(packet: &Packet<A>) -> bool {
    if packet.source == packet.destination {
        packet.source_port <= packet.destination_port
    } else {
        packet.source < packet.destination
    }
}

macro_rules! key {
    ($name:ident, $packet:expr, $source_is_a:expr) => {{
        let (a, b, a_port, b_port) = if $source_is_a {
            ($packet.source, $packet.destination, $packet.source_port, $packet.destination_port)
        } else {
            ($packet.destination, $packet.source, $packet.destination_port, $packet.source_port)
        };
        Aligned($name {
            a_be: a.octets(),
            b_be: b.octets(),
            a_port_be: a_port.to_be_bytes(),
            b_port_be: b_port.to_be_bytes(),
            protocol: $packet.protocol,
            icmp_side: icmp_side($packet, $source_is_a),
            leg: 0,
            reserved: 0,
        })
    }};
}

impl Family for Ipv4 {
    type Key = Aligned<ConntrackKey4>;

    #[inline(always)]
    fn scene(scratch: &mut Scratch) -> &mut Scene<Self> {
        scratch.ipv4()
    }

    #[inline(always)]
    fn key(packet: &Packet<Self>) -> (Self::Key, bool) {
        let source_is_a = source_is_a(packet);
        (key!(ConntrackKey4, packet, source_is_a), source_is_a)
    }

    #[inline(always)]
    fn set_leg(key: &mut Self::Key, leg: bool) {
        key.0.leg = leg as u8;
    }

    #[inline(always)]
    fn entry(key: &Self::Key) -> Option<*mut ConntrackEntry> {
        CONNTRACK4.get_ptr_mut(&key.0)
    }

    #[inline(always)]
    fn insert(key: &Self::Key, entry: &ConntrackEntry) -> bool {
        CONNTRACK4.insert(&key.0, entry, 0).is_ok()
    }

    #[inline(always)]
    fn exact(&self) -> Option<IpcacheEntry> {
        let address = Aligned(self.octets());
        // SAFETY: copied at once; the entry is replaced, never changed.
        unsafe { IPCACHE4.get(&address.0) }.copied()
    }

    #[inline(always)]
    fn prefix(&self) -> Option<IpcacheEntry> {
        CIDR4.get(&Key::new(32, self.octets())).copied()
    }

    #[inline(always)]
    fn belongs_to(&self, endpoint: *const EndpointInfo) -> bool {
        // SAFETY: a map value.
        let own = Self::new(unsafe { (*endpoint).ipv4_be });
        own == *self && own != Self::default()
    }

    #[inline(always)]
    fn unknown_identity(&self) -> u32 {
        // Broadcast and 224.0.0.0/24 are never forwarded: the only other party on a pod's link is the node.
        let link_local = matches!(self.octets(), [224, 0, 0, _] | [255, 255, 255, 255]);
        (if link_local { Identity::HOST } else { Identity::WORLD_IPV4 }).as_u32()
    }

    #[inline(always)]
    fn is_multicast_or_broadcast(&self) -> bool {
        self.octets()[0] & 0xf0 == 0xe0 || self.octets() == [255; 4]
    }

    #[inline(always)]
    fn is_loopback(&self) -> bool {
        self.octets()[0] == 127
    }

    #[inline(always)]
    fn fill_tuple(packet: &Packet<Self>, tuple: &mut bpf_sock_tuple) -> usize {
        // SAFETY: either member is plain numbers.
        let tuple = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
        tuple.saddr = u32::from_ne_bytes(packet.source.octets());
        tuple.daddr = u32::from_ne_bytes(packet.destination.octets());
        (tuple.sport, tuple.dport) = (packet.source_port.to_be(), packet.destination_port.to_be());
        size_of_val(tuple)
    }

    #[inline(always)]
    fn is_bound(&self, socket: *const bpf_sock) -> bool {
        // SAFETY: the caller holds the socket.
        unsafe { (*socket).src_ip4 == u32::from_ne_bytes(self.octets()) }
    }
}

impl Family for Ipv6 {
    type Key = Aligned<ConntrackKey6>;

    #[inline(always)]
    fn scene(scratch: &mut Scratch) -> &mut Scene<Self> {
        scratch.ipv6()
    }

    #[inline(always)]
    fn key(packet: &Packet<Self>) -> (Self::Key, bool) {
        let source_is_a = source_is_a(packet);
        (key!(ConntrackKey6, packet, source_is_a), source_is_a)
    }

    #[inline(always)]
    fn set_leg(key: &mut Self::Key, leg: bool) {
        key.0.leg = leg as u8;
    }

    #[inline(always)]
    fn entry(key: &Self::Key) -> Option<*mut ConntrackEntry> {
        CONNTRACK6.get_ptr_mut(&key.0)
    }

    #[inline(always)]
    fn insert(key: &Self::Key, entry: &ConntrackEntry) -> bool {
        CONNTRACK6.insert(&key.0, entry, 0).is_ok()
    }

    #[inline(always)]
    fn exact(&self) -> Option<IpcacheEntry> {
        let address = Aligned(self.octets());
        // SAFETY: copied at once; the entry is replaced, never changed.
        unsafe { IPCACHE6.get(&address.0) }.copied()
    }

    #[inline(always)]
    fn prefix(&self) -> Option<IpcacheEntry> {
        CIDR6.get(&Key::new(128, self.octets())).copied()
    }

    #[inline(always)]
    fn belongs_to(&self, endpoint: *const EndpointInfo) -> bool {
        // SAFETY: a map value.
        let own = Self::new(unsafe { (*endpoint).ipv6_be });
        own == *self && own != Self::default()
    }

    #[inline(always)]
    fn unknown_identity(&self) -> u32 {
        // Neither link-local addresses nor multicast of that scope leave a pod's link, whose other end is the node.
        (if self.is_link_local() || self.is_link_multicast() { Identity::HOST } else { Identity::WORLD_IPV6 })
            .as_u32()
    }

    #[inline(always)]
    fn is_multicast_or_broadcast(&self) -> bool {
        self.octets()[0] == 0xff
    }

    #[inline(always)]
    fn is_loopback(&self) -> bool {
        *self == Self::new([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
    }

    #[inline(always)]
    fn fill_tuple(packet: &Packet<Self>, tuple: &mut bpf_sock_tuple) -> usize {
        // SAFETY: either member is plain numbers.
        let tuple = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
        (tuple.saddr, tuple.daddr) = (words(packet.source), words(packet.destination));
        (tuple.sport, tuple.dport) = (packet.source_port.to_be(), packet.destination_port.to_be());
        size_of_val(tuple)
    }

    #[inline(always)]
    fn is_bound(&self, socket: *const bpf_sock) -> bool {
        let [a, b, c, d] = words(*self);
        // SAFETY: the caller holds the socket. Word by word, as the kernel lets programs read it.
        unsafe {
            let bound = core::ptr::addr_of!((*socket).src_ip6).cast::<u32>();
            bound.read_volatile() == a
                && bound.add(1).read_volatile() == b
                && bound.add(2).read_volatile() == c
                && bound.add(3).read_volatile() == d
        }
    }
}

/// An address as the kernel's structures hold it.
#[inline(always)]
fn words(address: Ipv6) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.octets();
    [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes)
}

/// Kinds of IPv6 addresses.
pub(crate) trait Scope {
    fn is_unspecified(&self) -> bool;
    fn is_link_local(&self) -> bool;
    /// Multicast of interface or link scope.
    fn is_link_multicast(&self) -> bool;
    /// Whether it is the link-local address made from this MAC address (EUI-64).
    fn is_link_local_of(&self, mac: [u8; 6]) -> bool;
}

impl Scope for Ipv6 {
    #[inline(always)]
    fn is_unspecified(&self) -> bool {
        *self == Self::default()
    }

    #[inline(always)]
    fn is_link_local(&self) -> bool {
        self.octets()[0] == 0xfe && self.octets()[1] & 0xc0 == 0x80
    }

    #[inline(always)]
    fn is_link_multicast(&self) -> bool {
        self.octets()[0] == 0xff && matches!(self.octets()[1] & 0xf, 1 | 2)
    }

    #[inline(always)]
    fn is_link_local_of(&self, mac: [u8; 6]) -> bool {
        let [a, b, c, d, e, f] = mac;
        *self == Self::new([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }
}
