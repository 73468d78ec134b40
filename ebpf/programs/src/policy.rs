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

/// The answer in one word: rule (bits 0 to 31), drop reason or 0 (32 to 39), audited (40).
#[derive(Clone, Copy)]
pub(crate) struct Answer(u64);

impl Answer {
    const AUDITED: u64 = 1 << 40;
    /// For a side that is not judged here.
    pub(crate) const ALLOW: Self = Self(0);

    #[inline(always)]
    fn deny(reason: DropReason, rule: u32) -> Self {
        Self((reason.number() as u64) << 32 | rule as u64)
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
    let Some(header) = find(map, PolicyKey::HEADER) else { return Answer::deny(DropReason::NoPolicy, 0) };
    // SAFETY: this key holds a header, which has the size and no more than the alignment of an entry.
    let header = unsafe { *header.cast::<PolicyHeader>() };
    let (of_identity, of_any) = if question & Question::EGRESS == 0 {
        (header.ingress_identity.0, header.ingress_any.0)
    } else {
        (header.egress_identity.0, header.egress_any.0)
    };
    let audit = of_any & TierMask::AUDIT != 0;
    let verdict = if question & Question::PORT_LOST != 0 && (of_identity | of_any) & PORT_TIERS != 0 {
        Answer::deny(DropReason::FirstFragmentNotFound, 0)
    } else {
        verdict(search(map, identity, of_identity, of_any, question))
    };
    let redirected = verdict.reason() == DropReason::ProxyRedirectionNotSupportedForProtocol.number();
    if audit && verdict.reason() != 0 && !redirected { Answer(verdict.0 | Answer::AUDITED) } else { verdict }
}

/// Tiers that look at a port: prefixes of 1 to 16 bits.
const PORT_TIERS: u32 = 0x1_fffe;

/// The entry of the highest precedence so far.
#[derive(Clone, Copy)]
struct Best {
    precedence: u32,
    rule: u32,
    /// An entry's flags, with [`Best::FOUND`].
    flags: u32,
}

impl Best {
    const FOUND: u32 = 0x100;
    const NONE: Self = Self { precedence: 0, rule: 0, flags: 0 };
}

/// Looks at every tier that has entries, the narrowest first: among equals the first one found is reported.
#[inline(always)]
fn search(map: &PolicyMap, identity: u32, of_identity: u32, of_any: u32, question: u32) -> Best {
    let protocol = question as u8;
    let port = (question >> 8) as u16;
    let egress = question & Question::EGRESS != 0;
    let tier = |best: Best, bit: u32, protocol: u8, prefix: u8| {
        let mut best = best;
        if of_identity >> bit & 1 != 0 {
            best = better(map, PolicyKey::new(identity, protocol, port, prefix, egress), best);
        }
        if of_any >> bit & 1 != 0 {
            best = better(map, PolicyKey::new(0, protocol, port, prefix, egress), best);
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
    Best { precedence: entry.precedence, rule: entry.rule, flags: entry.flags.0 as u32 | Best::FOUND }
}

#[inline(always)]
fn verdict(best: Best) -> Answer {
    if best.flags & Best::FOUND == 0 {
        return Answer::deny(DropReason::PolicyDenied, 0);
    }
    let flags = EntryFlags(best.flags as u8);
    if flags.contains(EntryFlags::DENY) {
        let audited = if flags.contains(EntryFlags::AUDIT) { Answer::AUDITED } else { 0 };
        return Answer(Answer::deny(DropReason::PolicyDeny, best.rule).0 | audited);
    }
    if flags.contains(EntryFlags::REDIRECT) {
        // No proxy takes the packet yet; letting it pass would skip the rules that only the proxy knows.
        return Answer::deny(DropReason::ProxyRedirectionNotSupportedForProtocol, best.rule);
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
