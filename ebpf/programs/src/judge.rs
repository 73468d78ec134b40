//! The way of a packet through conntrack and policy, the same for both directions.
//!
//! `fast` passes a packet whose connection is known and judged under the policies of now. Everything else goes
//! through `slow`, which asks who the peer is and what the policies say, and writes the answer down.

use aya_ebpf::bindings::__sk_buff;
use sluice_ebpf_common::packet::protocol;
use sluice_ebpf_common::{
    ConfigFlags, ConntrackEntry, ConntrackFlags, EndpointInfo, EventAction, EventKind,
};
use sluice_types::{Direction, DropReason};

use crate::conntrack::{self, Known};
use crate::event::{self, Report};
use crate::family::Family;
use crate::ipcache::{self, Peer};
use crate::maps::QUOTA;
use crate::policy::{self, Answer, Port, Question};
use crate::scene::{DROP, Endpoint, PASS, Scene, endpoint};
use crate::{deliver, fragment};

/// Judges the packet and sends it on its way. Its source was checked before, as far as the hook can.
#[inline(always)]
pub(crate) fn handle<A: Family>(skb: *mut __sk_buff, scene: &mut Scene<A>) -> i32 {
    let packet = &mut scene.packet;
    let mut related = false;
    if fragment::is_later(packet) && (packet.has_ports() || packet.protocol == A::ICMP) {
        scene.ports_unknown =
            scene.config.flags.0 & ConfigFlags::TRACK_FRAGMENTS.0 == 0 || !fragment::recall(packet);
    }
    if !scene.ports_unknown
        && (packet.has_ports() || packet.is_echo_request() || packet.is_echo_reply())
    {
        (scene.key, scene.source_is_a) = A::key(packet);
        scene.tracked = true;
    } else if packet.is_icmp_error() {
        related = conntrack::quote(skb, scene);
    }
    if scene.tracked || related {
        match fast(skb, scene, related) {
            Way::Stack => return pass(skb, scene, None),
            Way::Pod(peer) => return pass(skb, scene, Some(peer)),
            Way::Refused => return DROP,
            Way::Unknown => {}
        }
    }
    match slow(skb, scene) {
        0 => pass(skb, scene, None),
        id if id > 0 => match endpoint(id as u32) {
            Some(peer) => pass(skb, scene, Some(peer)),
            None => DROP,
        },
        _ => DROP,
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
}

/// The packet passes: count it, and remember a first fragment.
#[inline(always)]
fn pass<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, to: Option<*const EndpointInfo>) -> i32 {
    let direction = if scene.egress { Direction::Egress } else { Direction::Ingress };
    event::count(skb, scene.own.id, 0, direction as u8);
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
fn is_direct<A: Family>(scene: &Scene<A>, peer: &Endpoint) -> bool {
    scene.egress && !scene.own.is_chained() && !peer.is_chained()
}

#[inline(always)]
fn fast<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>, related: bool) -> Way {
    let Some(known) = conntrack::find(scene) else { return Way::Unknown };
    // SAFETY: a map value; see `conntrack::find`.
    let entry = unsafe { &*known.entry };
    let needed = conntrack::own_flag(known.own_opened);
    if !entry.flags.contains(needed) || !conntrack::is_fresh_for_own(entry, scene, known.own_opened) {
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
                if !conntrack::is_fresh_for_peer(entry, &peer, known.own_opened) {
                    return Way::Unknown;
                }
                way = Way::Pod(info);
            } else if known.forward {
                return Way::Unknown;
            }
            // An answer whose opener was not judged here came by way of the stack (its address was translated):
            // the stack takes it back, and the opener's own hook has the last word.
        } else if !scene.egress
            && !related
            && !ipcache::is_plausible_endpoint(&peer, known.peer_id, came_in(skb))
        {
            return refuse(skb, scene, DropReason::InvalidSourceIp);
        }
    } else if !scene.egress
        && !related
        && entry.flags.contains(ConntrackFlags::NODE_LOCAL)
        && came_in(skb) != 0
    {
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

/// The interface through which the packet came to this node, 0 if the node made it.
#[inline(always)]
fn came_in(skb: *mut __sk_buff) -> u32 {
    // SAFETY: a field of the context.
    unsafe { (*skb).ingress_ifindex }
}

#[inline(always)]
fn is_source_plausible<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>) -> bool {
    let source = ipcache::lookup(&scene.packet.source);
    let info = ipcache::peer_endpoint(&source, &scene.packet.source);
    ipcache::is_plausible_source(&source, info, came_in(skb))
}

/// The verdicts about one connection.
#[derive(Clone, Copy)]
#[repr(C)]
struct Judgement {
    egress: Answer,
    ingress: Answer,
    /// Who is judged as opener and as target; [`Endpoint::NONE`] if not here.
    opener: Endpoint,
    target: Endpoint,
}

impl Judgement {
    #[inline(always)]
    fn passes(&self) -> bool {
        self.egress.passes() && self.ingress.passes()
    }
}

/// Returns the endpoint to deliver to, 0 for the stack, or -1 if the packet was dropped and reported.
#[inline(never)]
fn slow<A: Family>(skb: *mut __sk_buff, scene: &Scene<A>) -> i32 {
    let address = if scene.egress { scene.packet.destination } else { scene.packet.source };
    let peer = ipcache::lookup(&address);
    let info = ipcache::peer_endpoint(&peer, &address);
    if !scene.egress && !ipcache::is_plausible_source(&peer, info, came_in(skb)) {
        event::drop(skb, scene, DropReason::InvalidSourceIp, peer.identity);
        return -1;
    }
    let mut other = match info {
        Some(info) => Endpoint::read(info),
        None => Endpoint::NONE,
    };
    if scene.egress && peer.endpoint != 0 && (other.id == 0 || is_direct(scene, &other) && !other.is_ready()) {
        event::drop(skb, scene, DropReason::EndpointNotReady, peer.identity);
        return -1;
    }
    let direct = other.id != 0 && is_direct(scene, &other);
    let whole = other;
    if !direct {
        // Its own hook judges.
        other = Endpoint::NONE;
    }
    if is_excused(scene) {
        return other.id as i32;
    }
    if scene.tracked
        && let Some(known) = conntrack::find(scene)
        && (known.forward || has_flag(&known, known.own_opened))
    {
        // An answer whose opener was not judged here goes back the way it came, by the stack.
        let direct = direct && (known.forward || has_flag(&known, !known.own_opened));
        let other = if direct { other } else { Endpoint::NONE };
        let judgement = judge(scene, &peer, &other, known.own_opened, known.forward);
        if judgement.passes() {
            renew(scene, &known, &judgement, &peer, &whole);
            conntrack::advance(skb, scene, known.entry, known.forward);
            report_audit(skb, scene, &judgement, &peer, &whole, known.own_opened);
            return other.id as i32;
        }
        if known.forward {
            report_denial(skb, scene, &judgement, &peer, &whole, known.own_opened);
            return -1;
        }
        // A reply of a connection that is no longer allowed passes only in its own right.
    }
    let judgement = judge(scene, &peer, &other, scene.egress, true);
    if !judgement.passes() {
        report_denial(skb, scene, &judgement, &peer, &whole, scene.egress);
        return -1;
    }
    if scene.tracked && !scene.packet.is_echo_reply() {
        if let Err(reason) = open(skb, scene, &judgement, &peer, &whole) {
            event::drop(skb, scene, reason, peer.identity);
            return -1;
        }
        report_allowed(skb, scene, &judgement, &peer, &whole);
    }
    report_audit(skb, scene, &judgement, &peer, &whole, scene.egress);
    other.id as i32
}

/// Errors about the size of packets pass even unasked, if so configured: without them connections stall.
#[inline(always)]
fn is_excused<A: Family>(scene: &Scene<A>) -> bool {
    scene.config.flags.contains(ConfigFlags::ALLOW_FRAG_NEEDED) && scene.packet.is_packet_too_big()
}

/// Whether the entry holds the verdict of the opener (or of the target).
#[inline(always)]
fn has_flag(known: &Known, opener: bool) -> bool {
    // SAFETY: a map value.
    unsafe { (*known.entry).flags }.contains(conntrack::own_flag(opener))
}

/// Asks the policies of the opener and of the target, as far as they are endpoints to be judged here.
/// `forward`: the packet itself goes from the opener to the target.
#[inline(always)]
fn judge<A: Family>(
    scene: &Scene<A>,
    peer: &Peer,
    other: &Endpoint,
    own_opened: bool,
    forward: bool,
) -> Judgement {
    let (opener, target) = if own_opened { (scene.own, *other) } else { (*other, scene.own) };
    let (opener_identity, target_identity) =
        if own_opened { (scene.own.identity, peer.identity) } else { (peer.identity, scene.own.identity) };
    let question = question(scene, forward);
    let egress = if opener.id != 0 {
        policy::judge(opener.id, target_identity, question.egress())
    } else {
        Answer::ALLOW
    };
    let ingress = if target.id != 0 && egress.passes() {
        policy::judge(target.id, opener_identity, question)
    } else {
        Answer::ALLOW
    };
    Judgement { egress, ingress, opener, target }
}

/// What to ask about the connection: the target's port, wherever it stands in this packet.
#[inline(always)]
fn question<A: Family>(scene: &Scene<A>, forward: bool) -> Question {
    let packet = &scene.packet;
    let port = if scene.ports_unknown {
        Port::Unknown
    } else if packet.protocol == A::ICMP {
        Port::Number(if forward { packet.tcp_flags_or_icmp_type } else { A::ECHO_REQUEST } as u16)
    } else if packet.has_ports() {
        Port::Number(if forward { packet.destination_port } else { packet.source_port })
    } else {
        Port::None
    };
    Question::new(packet.protocol, port)
}

/// Writes a new verdict into an entry in place. Revisions and epoch are those read before the lookup, so that a
/// change in between leaves the entry stale.
#[inline(always)]
fn renew<A: Family>(scene: &Scene<A>, known: &Known, judgement: &Judgement, peer: &Peer, whole: &Endpoint) {
    // SAFETY: a map value; see `conntrack::find`.
    let entry = unsafe { &mut *known.entry };
    let mut flags = entry.flags;
    flags.0 &= !(ConntrackFlags::NODE_LOCAL.0 | ConntrackFlags::AUDITED.0);
    flags.0 |= judged_flags(judgement, peer);
    // A side that is judged elsewhere must not take the new epoch for its own.
    let same_epoch = entry.ipcache_epoch == scene.config.ipcache_epoch;
    if judgement.opener.id != 0 {
        entry.egress_revision = judgement.opener.revision;
        entry.egress_rule = judgement.egress.rule();
    } else if !same_epoch {
        entry.egress_revision = 0;
    }
    if judgement.target.id != 0 {
        entry.ingress_revision = judgement.target.revision;
        entry.ingress_rule = judgement.ingress.rule();
    } else if !same_epoch {
        entry.ingress_revision = 0;
    }
    let (source_identity, destination_identity) = identities(scene, peer, known.own_opened);
    entry.source_identity = source_identity;
    entry.destination_identity = destination_identity;
    if known.own_opened {
        entry.destination_endpoint = whole.id;
        entry.destination_generation = whole.generation;
    } else {
        entry.source_endpoint = whole.id;
        entry.source_generation = whole.generation;
    }
    entry.flags = flags;
    entry.ipcache_epoch = scene.config.ipcache_epoch;
}

#[inline(always)]
fn judged_flags(judgement: &Judgement, peer: &Peer) -> u16 {
    let mut flags = 0;
    if judgement.opener.id != 0 {
        flags |= ConntrackFlags::EGRESS_JUDGED.0;
    }
    if judgement.target.id != 0 {
        flags |= ConntrackFlags::INGRESS_JUDGED.0;
    }
    if judgement.egress.is_audited() || judgement.ingress.is_audited() {
        flags |= ConntrackFlags::AUDITED.0;
    }
    if peer.is_node_local() {
        flags |= ConntrackFlags::NODE_LOCAL.0;
    }
    flags
}

/// Identities of opener and target.
#[inline(always)]
fn identities<A: Family>(scene: &Scene<A>, peer: &Peer, own_opened: bool) -> (u32, u32) {
    if own_opened { (scene.own.identity, peer.identity) } else { (peer.identity, scene.own.identity) }
}

/// Makes the entry of a new connection that this packet opens.
#[inline(always)]
fn open<A: Family>(
    skb: *mut __sk_buff,
    scene: &Scene<A>,
    judgement: &Judgement,
    peer: &Peer,
    whole: &Endpoint,
) -> Result<(), DropReason> {
    let (source, destination) = if scene.egress { (&scene.own, whole) } else { (whole, &scene.own) };
    take_quota(scene, source)?;
    let (mut flags, expires) = conntrack::first(scene);
    flags.0 |= judged_flags(judgement, peer);
    let (source_identity, destination_identity) = identities(scene, peer, scene.egress);
    let entry = ConntrackEntry {
        expires,
        flags,
        proxy_port_be: [0; 2],
        source_identity,
        destination_identity,
        egress_revision: judgement.opener.revision,
        ingress_revision: judgement.target.revision,
        ipcache_epoch: scene.config.ipcache_epoch,
        source_generation: source.generation,
        destination_generation: destination.generation,
        source_endpoint: source.id,
        destination_endpoint: destination.id,
        egress_rule: judgement.egress.rule(),
        ingress_rule: judgement.ingress.rule(),
        packets: [1, 0],
        bytes: [crate::scene::length(skb) as u64, 0],
    };
    if A::insert(&scene.key, &entry) { Ok(()) } else { Err(DropReason::CtMapInsertionFailed) }
}

/// Takes one connection from the opener's share. One that replaces the opener's own entry is free.
#[inline(always)]
fn take_quota<A: Family>(scene: &Scene<A>, opener: &Endpoint) -> Result<(), DropReason> {
    if opener.id == 0 {
        return Ok(());
    }
    if let Some(old) = A::entry(&scene.key) {
        // SAFETY: a map value.
        let (endpoint, generation) = unsafe { ((*old).source_endpoint, (*old).source_generation) };
        if endpoint == opener.id && generation == opener.generation {
            return Ok(());
        }
    }
    let Some(count) = QUOTA.get_ptr_mut(opener.id as u32) else { return Err(DropReason::RateLimited) };
    // SAFETY: a map value. Two CPUs may lose each other's count; user space counts again from time to time.
    let count = unsafe { &mut *count };
    let limit = scene.config.conntrack_quota as u64;
    if limit != 0 && *count >= limit {
        return Err(DropReason::RateLimited);
    }
    *count += 1;
    Ok(())
}

/// A report about one side's verdict.
#[inline(always)]
fn report<A: Family>(
    scene: &Scene<A>,
    judgement: &Judgement,
    peer: &Peer,
    whole: &Endpoint,
    own_opened: bool,
    direction: Direction,
) -> Report {
    let (side, answer) = match direction {
        Direction::Egress => (&judgement.opener, judgement.egress),
        Direction::Ingress => (&judgement.target, judgement.ingress),
    };
    // As the packet goes, not as the connection does.
    let (source_identity, destination_identity) = identities(scene, peer, scene.egress);
    Report {
        kind: EventKind::PolicyVerdict as u8,
        reason: answer.reason(),
        action: EventAction::Allow as u8,
        direction: direction as u8,
        endpoint: side.id,
        peer_endpoint: if side.id == scene.own.id { whole.id } else { scene.own.id },
        source_identity,
        destination_identity,
        rule: answer.rule(),
        revision: side.revision,
        is_reply: (own_opened != scene.egress) as u8,
    }
}

/// Reports and counts the side that refused.
#[inline(always)]
fn report_denial<A: Family>(
    skb: *mut __sk_buff,
    scene: &Scene<A>,
    judgement: &Judgement,
    peer: &Peer,
    whole: &Endpoint,
    own_opened: bool,
) {
    let direction = if judgement.egress.passes() { Direction::Ingress } else { Direction::Egress };
    let mut report = report(scene, judgement, peer, whole, own_opened, direction);
    report.kind = EventKind::Drop as u8;
    report.action = EventAction::Deny as u8;
    let lost = report.reason == DropReason::FirstFragmentNotFound.number();
    if lost && !scene.config.flags.contains(ConfigFlags::TRACK_FRAGMENTS) {
        report.reason = DropReason::FragmentationNotSupported.number();
    }
    event::refuse(skb, scene, &report);
}

/// Reports the sides that let a new connection pass, if wanted.
#[inline(always)]
fn report_allowed<A: Family>(
    skb: *mut __sk_buff,
    scene: &Scene<A>,
    judgement: &Judgement,
    peer: &Peer,
    whole: &Endpoint,
) {
    if !scene.config.flags.contains(ConfigFlags::VERDICT_EVENTS) {
        return;
    }
    for (side, answer, direction) in [
        (judgement.opener.id, judgement.egress, Direction::Egress),
        (judgement.target.id, judgement.ingress, Direction::Ingress),
    ] {
        if side != 0 && answer.reason() == 0 {
            event::tell(skb, scene, &report(scene, judgement, peer, whole, scene.egress, direction));
        }
    }
}

/// Reports the sides that only let the packet pass because they are in audit mode.
#[inline(always)]
fn report_audit<A: Family>(
    skb: *mut __sk_buff,
    scene: &Scene<A>,
    judgement: &Judgement,
    peer: &Peer,
    whole: &Endpoint,
    own_opened: bool,
) {
    for (answer, direction) in
        [(judgement.egress, Direction::Egress), (judgement.ingress, Direction::Ingress)]
    {
        if answer.is_audited() {
            let mut report = report(scene, judgement, peer, whole, own_opened, direction);
            report.action = EventAction::Audit as u8;
            event::tell(skb, scene, &report);
        }
    }
}

/// UDP source ports from which only a DHCP server speaks.
#[inline(always)]
pub(crate) fn is_dhcp_server<A: Family>(scene: &Scene<A>) -> bool {
    scene.packet.protocol == protocol::UDP
        && !fragment::is_later(&scene.packet)
        && scene.packet.source_port == if A::FAMILY == 4 { 67 } else { 547 }
}
