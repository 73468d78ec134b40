//! Stage 6: to a proxy, and back from it.
//!
//! A redirected flow is two connections. The client's own goes to the proxy, which listens on the loopback and is
//! given the packets by mark and socket. The one that the proxy opens to the server, the leg, carries a mark that
//! says for whom it speaks and what was judged already; its entry has a key of its own, so that it may look like a
//! connection of the client's. What answers a leg is the proxy's again. Without a listener nothing passes.

use aya_ebpf::bindings::{__sk_buff, bpf_sock, bpf_sock_tuple};
use aya_ebpf::helpers::{
    bpf_redirect, bpf_sk_assign, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release, bpf_skb_change_type,
    bpf_skb_store_bytes,
};
use sluice_ebpf_common::packet::{Fragment, Packet, protocol, tcp_flag};
use sluice_ebpf_common::{ConntrackEntry, ConntrackFlags, EndpointInfo, EventAction, EventKind, Mark};
use sluice_types::{Direction, DropReason};

use crate::conntrack::{self, Known};
use crate::event::{self, Report};
use crate::family::{Aligned, Family};
use crate::ipcache;
use crate::judge::{self, way};
use crate::scene::{DROP, Endpoint, PASS, Scene, endpoint};

/// `BPF_F_CURRENT_NETNS`.
const THIS_NAMESPACE: u64 = u64::MAX;
/// `BPF_F_INGRESS`.
const INTO_INGRESS: u64 = 1;
/// `PACKET_HOST`.
const FOR_THIS_HOST: u32 = 0;
/// `TCP_LISTEN`.
const LISTENING: u32 = 10;

/// The packet's mark.
#[inline(always)]
pub(crate) fn mark(skb: *mut __sk_buff) -> Mark {
    // SAFETY: a field of the context.
    Mark(unsafe { (*skb).mark })
}

/// Takes a mark of ours off a packet that may not have one.
#[inline(always)]
pub(crate) fn forget_mark(skb: *mut __sk_buff, mark: Mark) {
    if mark.0 & Mark::KIND != 0 {
        // SAFETY: a field of the context that may be written.
        unsafe { (*skb).mark = mark.0 & !Mark::KIND };
    }
}

/// Whether a packet can be handed to a proxy, or why not.
#[inline(always)]
pub(crate) fn obstacle<A: Family>(scene: &Scene<A>) -> Option<DropReason> {
    match scene.packet.protocol {
        protocol::TCP if scene.tracked => None,
        // Reassembly would lose the socket.
        protocol::UDP if scene.packet.fragment as u8 != Fragment::Whole as u8 => {
            Some(DropReason::FragmentationNotSupported)
        }
        protocol::UDP if scene.tracked => None,
        _ => Some(DropReason::ProxyRedirectionNotSupportedForProtocol),
    }
}

/// Whether the listener takes the packet: what opens a TCP connection, and every datagram. The rest finds its socket.
#[inline(always)]
pub(crate) fn needs_listener<A: Family>(packet: &Packet<A>) -> bool {
    packet.protocol == protocol::UDP || packet.is_bare_syn()
}

/// Sends the packet to the proxy: to the socket that has the connection, or to the listener on `port` if that is not
/// 0. With `cut` the listener only refuses it, and it does not count as passed. `on_way_in` tells the hooks at which a
/// socket can be given from the one at which it cannot.
#[inline(always)]
pub(crate) fn to_proxy<A: Family>(
    skb: *mut __sk_buff,
    scene: &mut Scene<A>,
    port: u16,
    cut: bool,
    on_way_in: bool,
) -> i32 {
    let direction = if scene.egress { Direction::Egress } else { Direction::Ingress };
    if !on_way_in {
        if !cut {
            event::count_forwarded(skb, scene.own.id, direction);
        }
        // SAFETY: fields of the context, and a helper.
        return unsafe {
            (*skb).mark = Mark::returning(port).0;
            bpf_redirect((*skb).ifindex, INTO_INGRESS) as i32
        };
    }
    if port != 0 {
        let refused = give_to_listener(skb, kind::<A>(scene), port as u32);
        if refused != 0 {
            return if cut { DROP } else { refuse(skb, scene, refused) };
        }
    }
    if !cut {
        event::count_forwarded(skb, scene.own.id, direction);
    }
    to_this_host(skb, scene)
}

/// A packet for the pod that `to_container` sent back into the veth, to be given to the proxy.
#[inline(always)]
pub(crate) fn returned<A: Family>(skb: *mut __sk_buff, scene: &mut Scene<A>, mark: Mark) -> i32 {
    scene.egress = false;
    if mark.port() != 0 {
        let refused = give_to_listener(skb, kind::<A>(scene), mark.port() as u32);
        if refused != 0 {
            (scene.key, scene.source_is_a) = A::key(&scene.packet);
            return refuse(skb, scene, refused);
        }
    }
    to_this_host(skb, scene)
}

/// Lets the stack deliver the packet to a socket of this node, whatever its addresses say.
#[inline(always)]
fn to_this_host<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>) -> i32 {
    // SAFETY: a field of the context, and a helper.
    unsafe {
        (*skb).mark = Mark::TO_PROXY.0;
        bpf_skb_change_type(skb, FOR_THIS_HOST);
    }
    if scene.own.is_chained()
        && let Some(info) = endpoint(scene.own.id as u32)
    {
        // Behind a bridge the destination's MAC address decides whether the stack sees the packet at all.
        // SAFETY: a map value, and a helper that copies 6 bytes from the stack.
        let stored = unsafe {
            let host_mac = Aligned((*info).host_mac);
            bpf_skb_store_bytes(skb.cast(), 0, host_mac.0.as_ptr().cast(), 6, 0)
        };
        if stored != 0 {
            return event::drop(skb, scene, DropReason::ErrorWritingToPacket, 0);
        }
    }
    PASS
}

/// Family and protocol in one number.
#[inline(always)]
fn kind<A: Family>(scene: &Scene<A>) -> u32 {
    (A::FAMILY as u32) << 8 | scene.packet.protocol as u32
}

/// Gives the packet to the proxy's listener on the loopback: 0, or the number of the reason to drop it. A global
/// function, see [`crate::once`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn give_to_listener(skb: *mut __sk_buff, kind: u32, port: u32) -> u32 {
    // SAFETY: a plain structure of numbers.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let port_be = (port as u16).to_be();
    let size = if kind >> 8 == 4 {
        // SAFETY: either member is plain numbers.
        let ipv4 = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
        (ipv4.daddr, ipv4.dport) = (0x7f00_0001_u32.to_be(), port_be);
        size_of_val(ipv4)
    } else {
        // SAFETY: as above.
        let ipv6 = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
        (ipv6.daddr, ipv6.dport) = ([0, 0, 0, 1_u32.to_be()], port_be);
        size_of_val(ipv6)
    };
    let is_tcp = kind & 0xff == protocol::TCP as u32;
    let socket = lookup(skb, &mut tuple, size, is_tcp);
    if socket.is_null() {
        return DropReason::SocketLookupFailed.number() as u32;
    }
    // SAFETY: a socket of ours until it is released.
    unsafe {
        let is_listener =
            Mark((*socket).mark).is(Mark::LISTENER) && (!is_tcp || (*socket).state == LISTENING);
        let assigned = if is_listener { bpf_sk_assign(skb.cast(), socket.cast(), 0) } else { 0 };
        bpf_sk_release(socket.cast());
        if !is_listener {
            DropReason::SocketLookupFailed.number() as u32
        } else if assigned != 0 {
            DropReason::SocketAssignFailed.number() as u32
        } else {
            0
        }
    }
}

/// The socket for a packet with these addresses, or null. Whoever gets one must release it.
#[inline(always)]
fn lookup(skb: *mut __sk_buff, tuple: &mut bpf_sock_tuple, size: usize, is_tcp: bool) -> *mut bpf_sock {
    // SAFETY: helpers on the context that read `size` bytes of the tuple.
    unsafe {
        if is_tcp {
            bpf_sk_lookup_tcp(skb.cast(), tuple, size as u32, THIS_NAMESPACE, 0)
        } else {
            bpf_sk_lookup_udp(skb.cast(), tuple, size as u32, THIS_NAMESPACE, 0)
        }
    }
}

/// Drops a packet that its flow's proxy does not take, and reports it for the side that redirects.
#[inline(never)]
fn refuse<A: Family>(skb: *mut __sk_buff, scene: &mut Scene<A>, reason: u32) -> i32 {
    let mut report = Report {
        kind: EventKind::Drop as u8,
        reason: reason as u8,
        action: EventAction::Deny as u8,
        direction: if scene.egress { Direction::Egress as u8 } else { Direction::Ingress as u8 },
        endpoint: scene.own.id,
        peer_endpoint: 0,
        source_identity: 0,
        destination_identity: 0,
        rule: 0,
        revision: scene.own.revision,
        proxy_port: 0,
        is_reply: 0,
        reserved: 0,
    };
    if let Some(pointer) = redirecting(scene) {
        // SAFETY: a map value; see `conntrack::find`.
        let entry = unsafe { &*pointer };
        report.source_identity = entry.source_identity;
        report.destination_identity = entry.destination_identity;
        report.proxy_port = u16::from_be_bytes(entry.proxy_port_be);
        if entry.flags.contains(ConntrackFlags::EGRESS_REDIRECT) {
            report.direction = Direction::Egress as u8;
            (report.endpoint, report.peer_endpoint) = (entry.source_endpoint, entry.destination_endpoint);
            (report.rule, report.revision) = (entry.egress_rule, entry.egress_revision);
        } else {
            report.direction = Direction::Ingress as u8;
            (report.endpoint, report.peer_endpoint) = (entry.destination_endpoint, entry.source_endpoint);
            (report.rule, report.revision) = (entry.ingress_rule, entry.ingress_revision);
        }
    }
    event::refuse(skb, scene, &report)
}

/// The entry that says who redirects the packet's flow: its own, or that of a leg.
#[inline(always)]
fn redirecting<A: Family>(scene: &mut Scene<A>) -> Option<*mut ConntrackEntry> {
    for leg in [scene.mark.is_leg(), true] {
        A::set_leg(&mut scene.key, leg);
        if let Some(entry) = A::entry(&scene.key)
            // SAFETY: a map value.
            && unsafe { (*entry).flags }.0 & ConntrackFlags::REDIRECT != 0
        {
            return Some(entry);
        }
    }
    None
}

/// The endpoint for which a proxy opens a leg after its egress was judged, if the leg may speak for it: it comes
/// from that endpoint's address, or from one of the node's.
#[inline(always)]
pub(crate) fn client<A: Family>(scene: &Scene<A>) -> Option<*const EndpointInfo> {
    let info = endpoint(scene.mark.endpoint())?;
    let source = &scene.packet.source;
    let is_known = Endpoint::read(info).is_ready()
        && (source.belongs_to(info) || ipcache::exact(source).is_some_and(|owner| owner.is_node_local()));
    is_known.then_some(info)
}

/// The way of a packet in whose flow a proxy takes part, as [`way`] has it.
#[inline(always)]
pub(crate) fn follow<A: Family>(skb: *mut __sk_buff, scene: &mut Scene<A>, related: bool) -> i32 {
    if let Some(known) = conntrack::find(scene) {
        // SAFETY: a map value; see `conntrack::find`.
        if !unsafe { (*known.entry).flags }.is_proxied() {
            return way::UNKNOWN;
        }
        let way = connection(skb, scene, &known, related);
        if way != ELSEWHERE {
            return way;
        }
    }
    if scene.mark.is_leg() || !related && scene.packet.is_bare_syn() {
        return way::UNKNOWN;
    }
    A::set_leg(&mut scene.key, true);
    let way = leg(skb, scene, related);
    A::set_leg(&mut scene.key, false);
    way
}

/// The packet does not belong to this connection, although it looks like it.
const ELSEWHERE: i32 = -3;

/// A packet of a redirected connection, or one that a proxy sends on its leg.
#[inline(always)]
fn connection<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, known: &Known, related: bool) -> i32 {
    // SAFETY: a map value; see `conntrack::find`.
    let flags = unsafe { (*known.entry).flags };
    let to_target = if scene.egress {
        if !known.forward {
            // The pod is the target and saw nothing of it: what it has to say, it says on a leg.
            return ELSEWHERE;
        }
        opened_by_pod(skb, scene, known, related)
    } else if known.forward {
        opened_to_pod(skb, scene, known, related)
    } else if judge::came_in(skb) == 0 {
        // From the proxy, in the target's name.
        if flags.contains(conntrack::own_flag(true)) { way::STACK } else { way::UNKNOWN }
    } else {
        return ELSEWHERE;
    };
    if to_target >= 0 && !related {
        conntrack::advance(skb, scene, known.entry, known.forward);
    }
    to_target
}

/// What the pod sends on a connection that it opened.
#[inline(always)]
fn opened_by_pod<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, known: &Known, related: bool) -> i32 {
    // SAFETY: a map value; see `conntrack::find`.
    let entry = unsafe { &*known.entry };
    let is_own_judged = entry.flags.contains(conntrack::own_flag(true))
        && (related || conntrack::is_fresh_for_own(entry, scene, true));
    if !is_own_judged {
        return way::UNKNOWN;
    }
    if !entry.flags.contains(ConntrackFlags::EGRESS_REDIRECT) {
        let Some(info) = known.peer else { return way::STACK };
        let peer = Endpoint::read(info);
        if !judge::is_direct(scene, &peer) {
            // The target's own hook redirects.
            return way::STACK;
        }
        if !peer.is_ready() {
            return judge::dropped(skb, scene, DropReason::EndpointNotReady);
        }
        let is_peer_judged = entry.flags.contains(conntrack::own_flag(false))
            && (related || conntrack::is_fresh_for_peer(entry, &peer, true));
        if !is_peer_judged {
            return way::UNKNOWN;
        }
    }
    judge::way_to_proxy(scene, u16::from_be_bytes(entry.proxy_port_be), related)
}

/// What comes to the pod on a connection that another opened, or that a proxy did.
#[inline(always)]
fn opened_to_pod<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, known: &Known, related: bool) -> i32 {
    // SAFETY: a map value; see `conntrack::find`.
    let entry = unsafe { &*known.entry };
    if entry.flags.contains(ConntrackFlags::EGRESS_REDIRECT) {
        // It should have gone to the proxy.
        return judge::dropped(skb, scene, DropReason::UnknownConnectionTrackingState);
    }
    let is_judged = entry.flags.contains(conntrack::own_flag(false))
        && (related || conntrack::is_fresh_for_own(entry, scene, false));
    if !is_judged {
        return way::UNKNOWN;
    }
    if scene.mark.is_leg() {
        if scene.mark.is(Mark::EGRESS_LEG) && scene.mark.endpoint() != entry.source_endpoint as u32 {
            return way::UNKNOWN;
        }
    } else if !judge::is_peer_plausible(skb, scene, known) {
        return judge::dropped(skb, scene, DropReason::InvalidSourceIp);
    }
    if entry.flags.contains(ConntrackFlags::INGRESS_REDIRECT) {
        judge::way_to_proxy(scene, u16::from_be_bytes(entry.proxy_port_be), related)
    } else {
        way::STACK
    }
}

/// What answers a leg goes to the proxy. `scene.key` is the leg's.
#[inline(always)]
fn leg<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, related: bool) -> i32 {
    let Some(known) = conntrack::find(scene) else {
        return if scene.egress || related { way::UNKNOWN } else { adopt(skb, scene) };
    };
    // SAFETY: a map value; see `conntrack::find`.
    let flags = unsafe { (*known.entry).flags };
    if known.forward || !flags.contains(conntrack::own_flag(known.own_opened)) {
        return way::UNKNOWN;
    }
    if scene.egress && flags.contains(ConntrackFlags::INGRESS_REDIRECT) {
        // The pod saw nothing of this leg, and must not speak in the proxy's place.
        return judge::dropped(skb, scene, DropReason::UnknownConnectionTrackingState);
    }
    if !related {
        conntrack::advance(skb, scene, known.entry, known.forward);
    }
    way::PROXY
}

/// Makes the entry of a leg to a server that is not behind one of our hooks, when its first answer comes: the
/// proxy's socket says whose leg it is.
#[inline(always)]
fn adopt<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>) -> i32 {
    if obstacle(scene).is_some() {
        return way::UNKNOWN;
    }
    // SAFETY: a plain structure of numbers.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = A::fill_tuple(&scene.packet, &mut tuple);
    let socket = lookup(skb, &mut tuple, size, scene.packet.protocol == protocol::TCP);
    if socket.is_null() {
        return way::UNKNOWN;
    }
    // SAFETY: a socket of ours until it is released.
    let is_leg = unsafe {
        let mark = Mark((*socket).mark);
        let is_leg = mark.is(Mark::EGRESS_LEG)
            && mark.endpoint() == scene.own.id as u32
            && scene.packet.destination.is_bound(socket);
        bpf_sk_release(socket.cast());
        is_leg
    };
    if !is_leg {
        return way::UNKNOWN;
    }
    let refused = judge::adopt_leg(skb, scene);
    if refused != 0 {
        event::drop_for(skb, scene, refused, 0);
        return way::DROPPED;
    }
    way::PROXY
}

/// Whether the packet aborts a TCP connection.
#[inline(always)]
pub(crate) fn is_reset<A: Family>(packet: &Packet<A>) -> bool {
    packet.protocol == protocol::TCP && packet.tcp_flags_or_icmp_type & tcp_flag::RST != 0
}
