//! The way of a packet through conntrack and policy, the same for both directions.
//!
//! `fast` passes what belongs to a known connection: a packet from its opener while both verdicts are of the policies
//! of now, an answer or a related error as soon as the side it passes was ever judged. Everything else goes through
//! `slow`, which asks who the peer is and what the policies say, and writes the answer down.

use aya_ebpf::bindings::__sk_buff;
use sluice_ebpf_common::packet::protocol;
use sluice_ebpf_common::{
    ConfigFlags, ConntrackEntry, ConntrackFlags, EndpointInfo, EventAction, EventKind, IpcacheFlags, Mark,
};
use sluice_types::{Direction, DropReason};

use crate::conntrack::{self, Known};
use crate::event::{self, Report};
use crate::family::Family;
use crate::ipcache::{self, Peer};
use crate::maps::QUOTA;
use crate::policy::{self, Answer, Port, Question};
use crate::scene::{DROP, Endpoint, PASS, Scene, endpoint, length};
use crate::{deliver, fragment, redirect};

/// Where a packet goes, as the global functions return it: 0 for the stack, the id of an endpoint to deliver to, or
/// one of these.
pub(crate) mod way {
    /// Not decided.
    pub(crate) const UNKNOWN: i32 = -2;
    /// Dropped and reported.
    pub(crate) const DROPPED: i32 = -1;
    /// To the stack.
    pub(crate) const STACK: i32 = 0;
    /// To the proxy; in the lower 16 bits the listener's port, 0 for a connection that it has.
    pub(crate) const PROXY: i32 = 1 << 16;
    /// Dropped and reported; the listener, whose port is in the lower 16 bits, may tell the sender.
    pub(crate) const CUT: i32 = 1 << 17;
}

/// Judges the packet and sends it on its way. Its source was checked before, as far as the hook can.
#[inline(always)]
pub(crate) fn handle<A: Family>(skb: *mut __sk_buff, scene: &mut Scene<A>) -> i32 {
    let packet = &mut scene.packet;
    let mut related = false;
    if fragment::is_later(packet) && (packet.has_ports() || packet.protocol == A::ICMP) {
        scene.ports_unknown =
            scene.config.flags.0 & ConfigFlags::TRACK_FRAGMENTS.0 == 0 || !fragment::recall(packet);
    }
    if !scene.ports_unknown && (packet.has_ports() || packet.is_echo_request() || packet.is_echo_reply()) {
        (scene.key, scene.source_is_a) = A::key(packet);
        scene.tracked = true;
    } else if packet.is_icmp_error() {
        related = conntrack::quote(skb, scene);
    }
    if scene.mark.is_leg() {
        A::set_leg(&mut scene.key, true);
    }
    if scene.tracked || related {
        let is_known = match fast(skb, scene, related) {
            Way::Stack => return pass(skb, scene, None),
            Way::Pod(peer) => return pass(skb, scene, Some(peer)),
            Way::Refused => return DROP,
            Way::Unknown => false,
            Way::Proxied => true,
            Way::New => related || !scene.packet.is_bare_syn(),
        };
        if is_known {
            let way = A::follow_proxy(skb, scene, related);
            if way != way::UNKNOWN {
                return go(skb, scene, way);
            }
        }
    }
    let way = A::judge_slowly(skb, scene);
    go(skb, scene, way)
}

/// Sends the packet on its way.
#[inline(always)]
fn go<A: Family>(skb: *mut __sk_buff, scene: &mut Scene<A>, way: i32) -> i32 {
    if way < 0 {
        return DROP;
    }
    if way & (way::PROXY | way::CUT) != 0 {
        return redirect::to_proxy(skb, scene, way as u16, way & way::CUT != 0, scene.egress);
    }
    if way == way::STACK {
        return pass(skb, scene, None);
    }
    match endpoint(way as u32) {
        Some(peer) => pass(skb, scene, Some(peer)),
        None => DROP,
    }
}

/// Gives the proxy what comes from outside for a pod and belongs to one of the proxy's connections. It must be done
/// before the stack looks for sockets: a packet that has one and is not for this node is dropped on the way to the pod.
/// Everything else goes on to the pod's own hook.
#[inline(always)]
pub(crate) fn divert<A: Family>(skb: *mut __sk_buff, scene: &mut Scene<A>) -> i32 {
    scene.tracked = true;
    (scene.key, scene.source_is_a) = A::key(&scene.packet);
    if redirect::obstacle(scene).is_some() {
        return PASS;
    }
    let is_redirected = match conntrack::find(scene) {
        // SAFETY: a map value; see `conntrack::find`.
        Some(known) if unsafe { (*known.entry).flags }.is_proxied() => known.forward,
        None if !scene.packet.is_bare_syn() => false,
        _ => return PASS,
    };
    let mut way = A::follow_proxy(skb, scene, false);
    if way == way::UNKNOWN && is_redirected {
        way = A::judge_slowly(skb, scene);
    }
    match way {
        way::UNKNOWN | way::STACK => PASS,
        way if way < 0 => DROP,
        way => redirect::to_proxy(skb, scene, way as u16, way & way::CUT != 0, true),
    }
}

/// What to do with a packet.
enum Way {
    /// Leave it to the stack.
    Stack,
    /// Deliver it to this endpoint.
    Pod(*const EndpointInfo),
    /// It was dropped and reported.
    Refused,
    /// Not decided here.
    Unknown,
    /// Not decided here: a proxy takes part.
    Proxied,
    /// Not decided here: the connection is not known.
    New,
}

/// The packet passes: count it, and remember a first fragment.
#[inline(always)]
fn pass<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, to: Option<*const EndpointInfo>) -> i32 {
    let direction = if scene.egress { Direction::Egress } else { Direction::Ingress };
    event::count_forwarded(skb, scene.own.id, direction);
    if fragment::is_first(&scene.packet) {
        fragment::remember(&scene.packet);
    }
    match to {
        Some(to) => deliver::deliver(skb, scene, to),
        None => PASS,
    }
}

/// Whether a packet to this endpoint goes straight there.
#[inline(always)]
pub(crate) fn is_direct<A: Family>(scene: &Scene<A>, peer: &Endpoint) -> bool {
    scene.egress && !scene.own.is_chained() && !peer.is_chained()
}

#[inline(always)]
fn fast<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, related: bool) -> Way {
    let Some(known) = conntrack::find(scene) else { return Way::New };
    // SAFETY: a map value; see `conntrack::find`.
    let entry = unsafe { &*known.entry };
    if entry.flags.is_proxied() {
        return Way::Proxied;
    }
    let must_be_fresh = known.forward && !related;
    if !entry.flags.contains(conntrack::own_flag(known.own_opened))
        || must_be_fresh && !conntrack::is_fresh_for_own(entry, scene, known.own_opened)
    {
        return Way::Unknown;
    }
    let mut way = Way::Stack;
    if let Some(info) = known.peer {
        let peer = Endpoint::read(info);
        if is_direct(scene, &peer) {
            if !peer.is_ready() {
                return refuse(skb, scene, DropReason::EndpointNotReady);
            }
            if entry.flags.contains(conntrack::own_flag(!known.own_opened)) {
                if must_be_fresh && !conntrack::is_fresh_for_peer(entry, &peer, known.own_opened) {
                    return Way::Unknown;
                }
                way = Way::Pod(info);
            } else if known.forward {
                return Way::Unknown;
            }
            // An answer whose opener was not judged here came by way of the stack (its address was translated):
            // the stack takes it back, and the opener's own hook has the last word.
        } else if !related && !is_peer_plausible(skb, scene, &known) {
            return refuse(skb, scene, DropReason::InvalidSourceIp);
        }
    } else if !related && !is_peer_plausible(skb, scene, &known) {
        return refuse(skb, scene, DropReason::InvalidSourceIp);
    }
    if related {
        // The sender of an error need not be the other end.
        if !scene.egress && !is_source_plausible(skb, scene) {
            return refuse(skb, scene, DropReason::InvalidSourceIp);
        }
    } else {
        conntrack::advance(skb, scene, known.entry, known.forward);
    }
    way
}

#[inline(always)]
fn refuse<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, reason: DropReason) -> Way {
    event::drop(skb, scene, reason, 0);
    Way::Refused
}

/// The same for a global function.
#[inline(always)]
pub(crate) fn dropped<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, reason: DropReason) -> i32 {
    event::drop(skb, scene, reason, 0);
    way::DROPPED
}

/// Whether a packet that comes to the pod may come from the other end of this connection.
#[inline(always)]
pub(crate) fn is_peer_plausible<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, known: &Known) -> bool {
    if scene.egress || came_in(skb) == 0 && redirect::is_reset(&scene.packet) {
        // A reset by this node is how a connection learns that it was cut.
        return true;
    }
    match known.peer {
        Some(info) => ipcache::is_plausible_endpoint(&Endpoint::read(info), known.peer_id, came_in(skb)),
        // SAFETY: a map value; see `conntrack::find`.
        None => !unsafe { (*known.entry).flags }.contains(ConntrackFlags::NODE_LOCAL) || came_in(skb) == 0,
    }
}

/// The way of a packet whose flow is redirected to the listener on `port`.
#[inline(always)]
pub(crate) fn way_to_proxy<A: Family>(scene: &Scene<A>, port: u16, related: bool) -> i32 {
    let takes = !related && redirect::needs_listener(&scene.packet);
    way::PROXY | if takes { port as i32 } else { 0 }
}

/// The interface through which the packet came to this node, 0 if the node made it.
#[inline(always)]
pub(crate) fn came_in(skb: *mut __sk_buff) -> u32 {
    // SAFETY: a field of the context.
    unsafe { (*skb).ingress_ifindex }
}

#[inline(always)]
fn is_source_plausible<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>) -> bool {
    let source = ipcache::lookup(&scene.packet.source);
    let info = ipcache::peer_endpoint(&source, &scene.packet.source);
    ipcache::is_plausible_source(&source, info, came_in(skb))
}

/// What the slow way finds out about a packet.
#[repr(C)]
struct Case {
    peer: Peer,
    /// The peer, if it is an endpoint of this node; [`Endpoint::NONE`] if not.
    other: Endpoint,
    /// Whether the peer's policy is asked here too, and the packet delivered straight to it.
    direct: bool,
    /// Whether the endpoint at the hook is the opener: only packets that open or go on in its direction are judged.
    own_opened: bool,
    egress: Answer,
    ingress: Answer,
}

impl Case {
    /// Where the packet goes, see [`way`].
    #[inline(always)]
    fn way<A: Family>(&self, scene: &Scene<A>) -> i32 {
        if self.redirect().0 != 0 {
            way_to_proxy(scene, self.proxy_port(), false)
        } else if self.direct {
            self.other.id as i32
        } else {
            way::STACK
        }
    }

    /// Which side redirects: the opener's first, for then the target is asked about the proxy's leg.
    #[inline(always)]
    fn redirect(&self) -> ConntrackFlags {
        if self.egress.is_redirected() {
            ConntrackFlags::EGRESS_REDIRECT
        } else if self.ingress.is_redirected() {
            ConntrackFlags::INGRESS_REDIRECT
        } else {
            ConntrackFlags(0)
        }
    }

    /// The listener's port, 0 without a redirect.
    #[inline(always)]
    fn proxy_port(&self) -> u16 {
        if self.egress.is_redirected() { self.egress.proxy_port() } else { self.ingress.proxy_port() }
    }

    /// Whether the connection stays with the proxy, or without one, as its entry has it. Another hook may have its
    /// own say: only what is decided here counts.
    #[inline(always)]
    fn agrees_with(&self, entry: &ConntrackEntry) -> bool {
        let decided = match (self.own_opened, self.direct) {
            (true, true) => ConntrackFlags::REDIRECT,
            (true, false) => ConntrackFlags::EGRESS_REDIRECT.0,
            (false, _) => ConntrackFlags::INGRESS_REDIRECT.0,
        };
        let redirect = self.redirect().0;
        entry.flags.0 & decided == redirect
            && (redirect == 0 || entry.proxy_port_be == self.proxy_port().to_be_bytes())
    }

    #[inline(always)]
    fn passes(&self) -> bool {
        self.egress.passes() && self.ingress.passes()
    }

    /// Whether the opener, and whether the target, is asked here.
    #[inline(always)]
    fn asked(&self) -> (bool, bool) {
        if self.own_opened {
            (true, self.direct && !self.egress.is_redirected())
        } else {
            (self.direct, true)
        }
    }

    /// Opener and target, [`Endpoint::NONE`] where that is no endpoint of this node.
    #[inline(always)]
    fn ends<'a, A: Family>(&'a self, scene: &'a Scene<A>) -> (&'a Endpoint, &'a Endpoint) {
        if self.own_opened { (&scene.own, &self.other) } else { (&self.other, &scene.own) }
    }

    /// Identities of opener and target.
    #[inline(always)]
    fn identities<A: Family>(&self, scene: &Scene<A>) -> (u32, u32) {
        if self.own_opened {
            (scene.own.identity, self.peer.identity)
        } else {
            (self.peer.identity, scene.own.identity)
        }
    }

    /// The conntrack flags that say what was judged, and how.
    #[inline(always)]
    fn flags<A: Family>(&self, scene: &Scene<A>) -> ConntrackFlags {
        let (opener, target) = self.asked();
        let audited = self.egress.is_audited() || self.ingress.is_audited();
        let mut flags = self.redirect();
        for (holds, flag) in [
            (opener, ConntrackFlags::EGRESS_JUDGED),
            (target, ConntrackFlags::INGRESS_JUDGED),
            (audited, ConntrackFlags::AUDITED),
            (self.peer.is_node_local(), ConntrackFlags::NODE_LOCAL),
            (scene.mark.is_leg(), ConntrackFlags::LEG),
            // The client's side was judged before the proxy opened its leg.
            (scene.mark.is_leg(), ConntrackFlags::EGRESS_JUDGED),
        ] {
            if holds {
                flags = flags.with(flag);
            }
        }
        flags
    }
}

/// The other party, and its entry in the endpoint table if it is one of this node; or why the packet cannot be from
/// there. On a proxy's leg it is the client for whom the proxy speaks.
#[inline(always)]
fn party<A: Family>(
    skb: *mut __sk_buff,
    scene: &Scene<A>,
    peer: &mut Peer,
) -> Result<Option<*const EndpointInfo>, DropReason> {
    if scene.mark.is(Mark::EGRESS_LEG) {
        let Some(info) = redirect::client(scene) else { return Err(DropReason::InvalidIdentity) };
        let client = Endpoint::read(info);
        *peer = Peer { identity: client.identity, endpoint: client.id, flags: IpcacheFlags(0) };
        return Ok(Some(info));
    }
    let address = if scene.egress { scene.packet.destination } else { scene.packet.source };
    *peer = ipcache::lookup(&address);
    let info = ipcache::peer_endpoint(peer, &address);
    if scene.mark.is(Mark::INGRESS_LEG) {
        let is_here = scene.mark.endpoint() == scene.own.id as u32;
        return if is_here { Ok(info) } else { Err(DropReason::InvalidIdentity) };
    }
    if !scene.egress && !ipcache::is_plausible_source(peer, info, came_in(skb)) {
        return Err(DropReason::InvalidSourceIp);
    }
    Ok(info)
}

/// Judges by ipcache and policy, and answers as [`way`] has it.
#[inline(always)]
pub(crate) fn slow<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>) -> i32 {
    let mut peer = Peer { identity: 0, endpoint: 0, flags: IpcacheFlags(0) };
    let info = match party(skb, scene, &mut peer) {
        Ok(info) => info,
        Err(reason) => {
            event::drop(skb, scene, reason, peer.identity);
            return way::DROPPED;
        }
    };
    let other = info.map_or(Endpoint::NONE, Endpoint::read);
    let direct = other.id != 0 && is_direct(scene, &other);
    if scene.egress && peer.endpoint != 0 && (other.id == 0 || direct && !other.is_ready()) {
        event::drop(skb, scene, DropReason::EndpointNotReady, peer.identity);
        return way::DROPPED;
    }
    let mut case =
        Case { peer, other, direct, own_opened: scene.egress, egress: Answer::ALLOW, ingress: Answer::ALLOW };
    if is_excused(scene) {
        return case.way(scene);
    }
    judge(scene, &mut case);
    if !case.passes() {
        report_denial(skb, scene, &case);
        return way::DROPPED;
    }
    if scene.tracked
        && let Some(known) = conntrack::find(scene)
        && known.forward
    {
        // SAFETY: a map value; see `conntrack::find`.
        let entry = unsafe { &*known.entry };
        if case.agrees_with(entry) {
            renew(scene, &known, &case);
            conntrack::advance(skb, scene, known.entry, known.forward);
            report_audit(skb, scene, &case);
            return case.way(scene);
        }
        if !redirect::needs_listener(&scene.packet) {
            let port =
                if case.redirect().0 != 0 { case.proxy_port().to_be_bytes() } else { entry.proxy_port_be };
            return cut(skb, scene, u16::from_be_bytes(port));
        }
    } else if case.redirect().0 != 0 && !redirect::needs_listener(&scene.packet) {
        return cut(skb, scene, case.proxy_port());
    }
    // An echo reply that nobody asked for opens nothing: an entry would let requests pass as its answers.
    if scene.tracked && !scene.packet.is_echo_reply() {
        let refused = open(skb, scene, &case);
        if refused != 0 {
            event::drop_for(skb, scene, refused, peer.identity);
            return way::DROPPED;
        }
        report_allowed(skb, scene, &case);
    }
    report_audit(skb, scene, &case);
    case.way(scene)
}

/// Drops a packet of a TCP connection that began without the proxy and now needs it, or the other way round: nobody
/// has read its beginning. If a listener is there, it resets the connection.
#[inline(always)]
fn cut<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, port: u16) -> i32 {
    event::drop(skb, scene, DropReason::UnknownConnectionTrackingState, 0);
    let can_be_told = scene.packet.protocol == protocol::TCP && !redirect::is_reset(&scene.packet);
    if can_be_told { way::CUT | port as i32 } else { way::DROPPED }
}

/// Errors about the size of packets pass even unasked, if so configured: without them connections stall.
#[inline(always)]
fn is_excused<A: Family>(scene: &Scene<A>) -> bool {
    scene.config.flags.contains(ConfigFlags::ALLOW_FRAG_NEEDED) && scene.packet.is_packet_too_big()
}

/// Asks the policies of opener and target, as far as they are asked here.
#[inline(never)]
fn judge<A: Family>(scene: &Scene<A>, case: &mut Case) {
    let (asks_opener, asks_target) = case.asked();
    let (opener_identity, target_identity) = case.identities(scene);
    let question = question(scene);
    let (opener, target) = case.ends(scene);
    let (opener, target) = (opener.id, target.id);
    case.egress =
        if asks_opener { policy::judge(opener, target_identity, question.egress()) } else { Answer::ALLOW };
    case.egress = feasible(scene, case.egress);
    // Behind an egress redirect the target is asked about the proxy's leg, and not again about one that the proxy
    // opened on its behalf.
    let asks_target = asks_target && case.egress.passes() && !case.egress.is_redirected();
    case.ingress = if asks_target && !scene.mark.is(Mark::INGRESS_LEG) {
        feasible(scene, policy::judge(target, opener_identity, question))
    } else {
        Answer::ALLOW
    };
}

/// The answer, or a denial if it wants to redirect what cannot be.
#[inline(always)]
fn feasible<A: Family>(scene: &Scene<A>, answer: Answer) -> Answer {
    match redirect::obstacle(scene) {
        Some(reason) if answer.is_redirected() => Answer::deny(reason, answer.rule()),
        _ => answer,
    }
}

/// What to ask about the packet.
#[inline(always)]
fn question<A: Family>(scene: &Scene<A>) -> Question {
    let packet = &scene.packet;
    let port = if scene.ports_unknown {
        Port::Unknown
    } else if packet.protocol == A::ICMP {
        Port::Number(packet.tcp_flags_or_icmp_type as u16)
    } else if packet.has_ports() {
        Port::Number(packet.destination_port)
    } else {
        Port::None
    };
    Question::new(packet.protocol, port)
}

/// Writes a new verdict into an entry in place. Revisions and epoch are those read before the lookup, so that a
/// change in between leaves the entry stale.
#[inline(always)]
fn renew<A: Family>(scene: &Scene<A>, known: &Known, case: &Case) {
    // SAFETY: a map value; see `conntrack::find`.
    let entry = unsafe { &mut *known.entry };
    let (asked_opener, asked_target) = case.asked();
    let (opener, target) = case.ends(scene);
    // A side that is judged elsewhere must not take the new epoch for its own.
    let same_epoch = entry.ipcache_epoch == scene.config.ipcache_epoch;
    if asked_opener {
        entry.egress_revision = opener.revision;
        entry.egress_rule = case.egress.rule();
    } else if !same_epoch {
        entry.egress_revision = 0;
    }
    if asked_target {
        entry.ingress_revision = target.revision;
        entry.ingress_rule = case.ingress.rule();
    } else if !same_epoch {
        entry.ingress_revision = 0;
    }
    (entry.source_identity, entry.destination_identity) = case.identities(scene);
    (entry.source_endpoint, entry.source_generation) = (opener.id, opener.generation);
    (entry.destination_endpoint, entry.destination_generation) = (target.id, target.generation);
    let kept = entry.flags.0 & !(ConntrackFlags::NODE_LOCAL.0 | ConntrackFlags::AUDITED.0);
    entry.flags = ConntrackFlags(kept | case.flags(scene).0);
    entry.ipcache_epoch = scene.config.ipcache_epoch;
}

/// Makes the entry of a new connection that this packet opens. Returns 0, or the number of a drop reason.
#[inline(never)]
fn open<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, case: &Case) -> u32 {
    let (opener, target) = case.ends(scene);
    if conntrack::is_taken(scene) {
        return DropReason::UnknownConnectionTrackingState.number() as u32;
    }
    if !take_quota(scene, opener) {
        return DropReason::RateLimited.number() as u32;
    }
    let (asked_opener, asked_target) = case.asked();
    let (source_identity, destination_identity) = case.identities(scene);
    let (flags, expires) = conntrack::first(scene);
    let entry = ConntrackEntry {
        expires,
        flags: flags.with(case.flags(scene)),
        proxy_port_be: case.proxy_port().to_be_bytes(),
        source_identity,
        destination_identity,
        egress_revision: if asked_opener { opener.revision } else { 0 },
        ingress_revision: if asked_target { target.revision } else { 0 },
        ipcache_epoch: scene.config.ipcache_epoch,
        source_generation: opener.generation,
        destination_generation: target.generation,
        source_endpoint: opener.id,
        destination_endpoint: target.id,
        egress_rule: case.egress.rule(),
        ingress_rule: case.ingress.rule(),
        packets: [1, 0],
        bytes: [length(skb) as u64, 0],
    };
    if A::insert(&scene.key, &entry) { 0 } else { DropReason::CtMapInsertionFailed.number() as u32 }
}

/// Makes the entry of a proxy's leg that the pod is the client of, from the server's first answer. Returns 0, or the
/// number of a drop reason.
#[inline(never)]
pub(crate) fn adopt_leg<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>) -> u32 {
    if !take_quota(scene, &scene.own) {
        return DropReason::RateLimited.number() as u32;
    }
    let server = ipcache::lookup(&scene.packet.source);
    let (answered, expires) = conntrack::first(scene);
    let opener = answered.0 ^ ConntrackFlags::OPENED_BY_A.0;
    let flags = ConntrackFlags(opener)
        .with(ConntrackFlags::LEG)
        .with(ConntrackFlags::EGRESS_JUDGED)
        .with(ConntrackFlags::REPLIED);
    let entry = ConntrackEntry {
        expires,
        flags,
        proxy_port_be: [0; 2],
        source_identity: scene.own.identity,
        destination_identity: server.identity,
        egress_revision: scene.own.revision,
        ingress_revision: 0,
        ipcache_epoch: scene.config.ipcache_epoch,
        source_generation: scene.own.generation,
        destination_generation: 0,
        source_endpoint: scene.own.id,
        destination_endpoint: 0,
        egress_rule: 0,
        ingress_rule: 0,
        packets: [0, 1],
        bytes: [0, length(skb) as u64],
    };
    if A::insert(&scene.key, &entry) { 0 } else { DropReason::CtMapInsertionFailed.number() as u32 }
}

/// Takes one connection from the opener's share. One that replaces the opener's own entry is free.
#[inline(always)]
fn take_quota<A: Family>(scene: &Scene<A>, opener: &Endpoint) -> bool {
    if opener.id == 0 {
        return true;
    }
    if let Some(old) = A::entry(&scene.key) {
        // SAFETY: a map value.
        let (endpoint, generation) = unsafe { ((*old).source_endpoint, (*old).source_generation) };
        if endpoint == opener.id && generation == opener.generation {
            return true;
        }
    }
    let Some(count) = QUOTA.get_ptr_mut(opener.id as u32) else { return false };
    // SAFETY: a map value. Two CPUs may lose each other's count; user space counts again from time to time.
    let count = unsafe { &mut *count };
    let limit = scene.config.conntrack_quota as u64;
    if limit != 0 && *count >= limit {
        return false;
    }
    *count += 1;
    true
}

/// A report about one side's verdict.
#[inline(always)]
fn report<A: Family>(scene: &Scene<A>, case: &Case, direction: Direction) -> Report {
    let (opener, target) = case.ends(scene);
    let (side, peer, answer) = match direction {
        Direction::Egress => (opener, target, case.egress),
        Direction::Ingress => (target, opener, case.ingress),
    };
    // Without tracking nobody looked for the first fragment.
    let lost = answer.reason() == DropReason::FirstFragmentNotFound.number();
    let reason = if lost && !scene.config.flags.contains(ConfigFlags::TRACK_FRAGMENTS) {
        DropReason::FragmentationNotSupported.number()
    } else {
        answer.reason()
    };
    // As the packet goes, not as the connection does.
    let (source_identity, destination_identity) = if scene.egress {
        (scene.own.identity, case.peer.identity)
    } else {
        (case.peer.identity, scene.own.identity)
    };
    Report {
        kind: EventKind::PolicyVerdict as u8,
        reason,
        action: EventAction::Allow as u8,
        direction: direction as u8,
        endpoint: side.id,
        peer_endpoint: peer.id,
        source_identity,
        destination_identity,
        rule: answer.rule(),
        revision: side.revision,
        proxy_port: answer.proxy_port(),
        is_reply: 0,
        reserved: 0,
    }
}

/// Reports and counts the side that refused.
#[inline(never)]
fn report_denial<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, case: &Case) {
    let direction = if case.egress.passes() { Direction::Ingress } else { Direction::Egress };
    let mut report = report(scene, case, direction);
    report.kind = EventKind::Drop as u8;
    report.action = EventAction::Deny as u8;
    event::refuse(skb, scene, &report);
}

/// Reports the sides that let a new connection pass, if wanted.
#[inline(always)]
fn report_allowed<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, case: &Case) {
    if !scene.config.flags.contains(ConfigFlags::VERDICT_EVENTS) {
        return;
    }
    let (asked_opener, asked_target) = case.asked();
    if asked_opener && case.egress.reason() == 0 {
        tell(skb, scene, case, Direction::Egress, passing(case.egress));
    }
    // A leg was told about when its flow was redirected.
    if asked_target && case.ingress.reason() == 0 && !scene.mark.is(Mark::INGRESS_LEG) {
        tell(skb, scene, case, Direction::Ingress, passing(case.ingress));
    }
}

#[inline(always)]
fn passing(answer: Answer) -> EventAction {
    if answer.is_redirected() { EventAction::Redirect } else { EventAction::Allow }
}

/// Reports the sides that only let the packet pass because they are in audit mode.
#[inline(always)]
fn report_audit<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, case: &Case) {
    if case.egress.is_audited() {
        tell(skb, scene, case, Direction::Egress, EventAction::Audit);
    }
    if case.ingress.is_audited() {
        tell(skb, scene, case, Direction::Ingress, EventAction::Audit);
    }
}

#[inline(never)]
fn tell<A: Family>(
    skb: *mut __sk_buff,
    scene: &Scene<A>,
    case: &Case,
    direction: Direction,
    action: EventAction,
) {
    let mut report = report(scene, case, direction);
    report.action = action as u8;
    A::tell(skb, scene, &report);
}

/// UDP source ports from which only a DHCP server speaks.
#[inline(always)]
pub(crate) fn is_dhcp_server<A: Family>(scene: &Scene<A>) -> bool {
    scene.packet.protocol == protocol::UDP
        && !fragment::is_later(&scene.packet)
        && scene.packet.source_port == if A::FAMILY == 4 { 67 } else { 547 }
}
