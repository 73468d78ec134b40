//! Stage 4: the verdict of one endpoint's policy map.
//!
//! The map says everything, including what a direction without enforcement lets through; nothing is decided here.

use aya_ebpf::btf_maps::HashMap;
use sluice_ebpf_common::{EntryFlags, PolicyEntry, PolicyHeader, PolicyKey, TierMask};
use sluice_types::DropReason;

use crate::maps::{POLICY, PolicyMap};

/// What is asked: protocol, destination port or ICMP type, direction.
#[derive(Clone, Copy)]
pub(crate) struct Question(u32);

impl Question {
    const EGRESS: u32 = 1 << 24;
    const HAS_PORT: u32 = 1 << 25;
    const PORT_LOST: u32 = 1 << 26;
    /// The admin plane is asked.
    const ADMIN: u32 = 1 << 27;
    /// The staged plane is asked.
    const STAGED: u32 = 1 << 28;

    #[inline(always)]
    pub(crate) fn new(protocol: u8, port: Port) -> Self {
        Self(match port {
            Port::Number(port) => protocol as u32 | (port as u32) << 8 | Self::HAS_PORT,
            Port::None => protocol as u32,
            Port::Unknown => protocol as u32 | Self::PORT_LOST,
        })
    }

    #[inline(always)]
    pub(crate) fn egress(self) -> Self {
        Self(self.0 | Self::EGRESS)
    }
}

/// The port a question is about.
#[derive(Clone, Copy)]
pub(crate) enum Port {
    /// A destination port, or an ICMP type.
    Number(u16),
    /// The protocol has none.
    None,
    /// There is one, in a fragment that was not seen.
    Unknown,
}

/// The answer in one word: rule (bits 0 to 31), drop reason or 0 (32 to 39), audited (40), redirected (41), the
/// listener's port (48 to 63).
#[derive(Clone, Copy)]
pub(crate) struct Answer(u64);

impl Answer {
    const AUDITED: u64 = 1 << 40;
    const REDIRECTED: u64 = 1 << 41;
    /// Of the admin plane alone: it leaves the decision to others. No rule's answer has this bit.
    const UNDECIDED: Self = Self(1 << 42);
    /// For a side that is not judged here.
    pub(crate) const ALLOW: Self = Self(0);

    #[inline(always)]
    pub(crate) fn deny(reason: DropReason, rule: u32) -> Self {
        Self((reason.number() as u64) << 32 | rule as u64)
    }

    #[inline(always)]
    fn redirect(port: u16, rule: u32) -> Self {
        Self((port as u64) << 48 | Self::REDIRECTED | rule as u64)
    }

    #[inline(always)]
    pub(crate) fn rule(self) -> u32 {
        self.0 as u32
    }

    /// The drop reason's number, or 0. An audited packet has a reason and passes.
    #[inline(always)]
    pub(crate) fn reason(self) -> u8 {
        (self.0 >> 32) as u8
    }

    #[inline(always)]
    pub(crate) fn is_audited(self) -> bool {
        self.0 & Self::AUDITED != 0
    }

    #[inline(always)]
    pub(crate) fn passes(self) -> bool {
        self.reason() == 0 || self.is_audited()
    }

    /// Whether the flow passes only by way of a proxy.
    #[inline(always)]
    pub(crate) fn is_redirected(self) -> bool {
        self.0 & Self::REDIRECTED != 0
    }

    /// The port of the proxy's listener.
    #[inline(always)]
    pub(crate) fn proxy_port(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// Asks the policy of `endpoint` about traffic with `identity`.
#[inline(always)]
pub(crate) fn judge(endpoint: u16, identity: u32, question: Question) -> Answer {
    Answer(policy_lookup(endpoint as u32, identity, question.0))
}

/// A global function: the verifier looks at it once, on its own, and not again for each place it is called from.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn policy_lookup(endpoint: u32, identity: u32, question: u32) -> u64 {
    answer(endpoint, identity, question).0
}

#[inline(always)]
fn answer(endpoint: u32, identity: u32, question: u32) -> Answer {
    let Some(map) = POLICY.get(endpoint) else { return Answer::deny(DropReason::NoPolicy, 0) };
    let Some((of_identity, of_any)) = masks(map, PolicyKey::HEADER, question) else {
        return Answer::deny(DropReason::NoPolicy, 0);
    };
    let audit = of_any & TierMask::AUDIT != 0;
    let tiers = of_identity | of_any;
    let mut verdict = Answer::UNDECIDED;
    if of_any & TierMask::ADMIN != 0 {
        let Some((of_identity, of_any)) = masks(map, PolicyKey::ADMIN_HEADER, question) else {
            return Answer::deny(DropReason::NoPolicy, 0);
        };
        verdict = if is_port_lost(of_identity | of_any | tiers, question) {
            Answer::deny(DropReason::FirstFragmentNotFound, 0)
        } else {
            Answer(ask_plane(map, identity, of_identity, of_any, question | Question::ADMIN))
        };
    }
    if verdict.0 == Answer::UNDECIDED.0 {
        verdict = if is_port_lost(tiers, question) {
            Answer::deny(DropReason::FirstFragmentNotFound, 0)
        } else {
            Answer(ask_plane(map, identity, of_identity, of_any, question))
        };
        if of_any & TierMask::STAGED != 0 && verdict.reason() == 0 && !verdict.is_redirected() {
            return staged(map, identity, question, verdict);
        }
    }
    if audit && verdict.reason() != 0 { Answer(verdict.0 | Answer::AUDITED) } else { verdict }
}

/// What is said of a packet that `verdict` lets pass: it passes, and is reported if the staged plane denies it. Where that
/// plane redirects, a proxy looks at the requests. Of a fragment without its port nothing is said, where it looks at ports.
#[inline(always)]
fn staged(map: &PolicyMap, identity: u32, question: u32, verdict: Answer) -> Answer {
    let Some((of_identity, of_any)) = masks(map, PolicyKey::STAGED_HEADER, question) else {
        return Answer::deny(DropReason::NoPolicy, 0);
    };
    if is_port_lost(of_identity | of_any, question) {
        return verdict;
    }
    let staged = Answer(ask_plane(map, identity, of_identity, of_any, question | Question::STAGED));
    if staged.reason() != 0 {
        Answer(staged.0 | Answer::AUDITED)
    } else if staged.is_redirected() {
        staged
    } else {
        verdict
    }
}

/// Which tiers of a plane have entries: those that name an identity, and those for any.
#[inline(always)]
fn masks(map: &PolicyMap, header: PolicyKey, question: u32) -> Option<(u32, u32)> {
    // SAFETY: this key holds a header, which has the size and no more than the alignment of an entry.
    let header = unsafe { *find(map, header)?.cast::<PolicyHeader>() };
    Some(if question & Question::EGRESS == 0 {
        (header.ingress_identity.0, header.ingress_any.0)
    } else {
        (header.egress_identity.0, header.egress_any.0)
    })
}

/// What one plane says, as a word. Not inlined, for there is one stack for all that call each other.
#[inline(never)]
fn ask_plane(map: &PolicyMap, identity: u32, of_identity: u32, of_any: u32, question: u32) -> u64 {
    let best = search(map, identity, of_identity, of_any, question);
    let flags = EntryFlags(best.flags as u8);
    let is_undecided = best.flags & Best::FOUND == 0 || flags.contains(EntryFlags::PASS);
    if question & Question::ADMIN != 0 && is_undecided { Answer::UNDECIDED.0 } else { verdict(best).0 }
}

/// Whether an entry could look at a port that is not known.
#[inline(always)]
fn is_port_lost(tiers: u32, question: u32) -> bool {
    question & Question::PORT_LOST != 0 && tiers & PORT_TIERS != 0
}

/// Tiers that look at a port: prefixes of 1 to 16 bits.
const PORT_TIERS: u32 = 0x1_fffe;

/// The entry of the highest precedence so far.
#[derive(Clone, Copy)]
struct Best {
    precedence: u32,
    rule: u32,
    /// An entry's flags, with [`Best::FOUND`]; the proxy's port in the upper half.
    flags: u32,
}

impl Best {
    const FOUND: u32 = 0x100;
    const NONE: Self = Self { precedence: 0, rule: 0, flags: 0 };
}

/// Looks at every tier of a plane that has entries, the narrowest first: among equals the first one found is reported.
#[inline(always)]
fn search(map: &PolicyMap, identity: u32, of_identity: u32, of_any: u32, question: u32) -> Best {
    let protocol = question as u8;
    let port = (question >> 8) as u16;
    let plane_and_direction = (if question & Question::EGRESS != 0 { PolicyKey::EGRESS } else { 0 })
        | (if question & Question::ADMIN != 0 { PolicyKey::ADMIN } else { 0 })
        | if question & Question::STAGED != 0 { PolicyKey::STAGED } else { 0 };
    let tier = |best: Best, bit: u32, protocol: u8, prefix: u8| {
        let mut key = PolicyKey::new(identity, protocol, port, prefix, false);
        key.direction_and_prefix |= plane_and_direction;
        let mut best = best;
        if of_identity >> bit & 1 != 0 {
            best = better(map, key, best);
        }
        if of_any >> bit & 1 != 0 {
            best = better(map, PolicyKey { identity: 0, ..key }, best);
        }
        best
    };
    let mut best = Best::NONE;
    if question & Question::HAS_PORT != 0 {
        best = tier(best, 16, protocol, 16);
        if (of_identity | of_any) & PORT_TIERS & !(1 << 16) != 0 {
            let mut prefix = 15;
            while prefix > 0 {
                best = tier(best, prefix, protocol, prefix as u8);
                prefix -= 1;
            }
        }
    }
    best = tier(best, 0, protocol, 0);
    tier(best, ANY_PROTOCOL_BIT, 0, 0)
}

const ANY_PROTOCOL_BIT: u32 = TierMask::ANY_PROTOCOL.trailing_zeros();

#[inline(always)]
fn better(map: &PolicyMap, key: PolicyKey, best: Best) -> Best {
    let Some(entry) = find(map, key) else { return best };
    // SAFETY: a map value that stays valid for the run of the program.
    let entry = unsafe { &*entry };
    if best.flags & Best::FOUND != 0 && entry.precedence <= best.precedence {
        return best;
    }
    let port = u16::from_be_bytes(entry.proxy_port_be) as u32;
    Best {
        precedence: entry.precedence,
        rule: entry.rule,
        flags: entry.flags.0 as u32 | Best::FOUND | port << 16,
    }
}

#[inline(always)]
fn verdict(best: Best) -> Answer {
    if best.flags & Best::FOUND == 0 {
        return Answer::deny(DropReason::PolicyDenied, 0);
    }
    let flags = EntryFlags(best.flags as u8);
    if flags.contains(EntryFlags::DENY) {
        return Answer::deny(DropReason::PolicyDeny, best.rule);
    }
    if flags.contains(EntryFlags::PASS) {
        // Not an entry of this plane.
        return Answer::deny(DropReason::PolicyDenied, 0);
    }
    if flags.contains(EntryFlags::REDIRECT) {
        return Answer::redirect((best.flags >> 16) as u16, best.rule);
    }
    Answer(best.rule as u64)
}

#[inline(always)]
fn find<const SIZE: usize, const FLAGS: usize>(
    map: &HashMap<PolicyKey, PolicyEntry, SIZE, FLAGS>,
    key: PolicyKey,
) -> Option<*const PolicyEntry> {
    map.get_ptr(&key)
}
