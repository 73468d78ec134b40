//! The decision table of one endpoint: what the kernel's policy map holds, and the decision it takes.
//!
//! [`MapState::decide`] is the reference for the kernel program: both look at every entry that matches a packet and
//! let the highest precedence win. Never knows rules or selectors; `resolve` fills it, the loader installs it.

use std::collections::BTreeMap;

use sluice_types::{Direction, DropReason, Identity, Protocol, ProxyPort, RuleId, Verdict};

/// The layer 4 part of a key.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum L4Match {
    /// Every protocol, ICMP included.
    Any,
    /// One protocol with any port or type.
    Protocol(Protocol),
    /// A block of destination ports, or one ICMP type.
    Port {
        /// TCP, UDP, SCTP, ICMP or ICMPv6.
        protocol: Protocol,
        /// The first port of the block; an ICMP type with `prefix` 16.
        port: u16,
        /// How many leading bits of the port are fixed, 1 to 16.
        prefix: u8,
    },
}

impl L4Match {
    /// The match for exactly one port or ICMP type.
    #[must_use]
    pub const fn port(protocol: Protocol, port: u16) -> Self {
        Self::Port { protocol, port, prefix: 16 }
    }

    /// Whether everything that `other` covers is covered too.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        match (*self, *other) {
            (Self::Any, _) => true,
            (_, Self::Any) => false,
            (Self::Protocol(own), Self::Protocol(its) | Self::Port { protocol: its, .. }) => own == its,
            (Self::Port { .. }, Self::Protocol(_)) => false,
            (
                Self::Port { protocol: own, port: first, prefix },
                Self::Port { protocol: its, port, prefix: its_prefix },
            ) => own == its && prefix <= its_prefix && masked(port, prefix) == first,
        }
    }

    /// Whether a packet of `protocol` with destination port (or ICMP type) `port` is covered.
    #[must_use]
    pub fn covers(&self, protocol: Protocol, port: u16) -> bool {
        match *self {
            Self::Any => true,
            Self::Protocol(own) => own == protocol,
            Self::Port { protocol: own, port: first, prefix } => {
                own == protocol && masked(port, prefix) == first
            }
        }
    }
}

/// `port` with all but its first `prefix` bits cleared.
pub(crate) const fn masked(port: u16, prefix: u8) -> u16 {
    match prefix {
        0 => 0,
        1..=15 => port & (u16::MAX << (16 - prefix)),
        _ => port,
    }
}

/// What an entry applies to.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// As seen from the endpoint that owns the map.
    pub direction: Direction,
    /// The other side; `None` is any peer.
    pub peer: Option<Identity>,
    /// Protocol and destination port.
    pub l4: L4Match,
}

/// What an entry says.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EntryVerdict {
    /// Let it pass.
    Allow,
    /// Drop it.
    Deny,
    /// Hand it to the proxy that listens on this port.
    Redirect(ProxyPort),
    /// Only in the admin plane: the other entries decide.
    Pass,
}

/// One entry of the table.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Entry {
    /// The highest precedence among the matching entries decides. Entries of equal precedence agree in `verdict`.
    pub precedence: u32,
    /// What it says.
    pub verdict: EntryVerdict,
    /// The rule it stands for, [`RuleId::NONE`] for what no rule asked for.
    pub rule: RuleId,
}

/// The decision table of one endpoint, both directions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MapState {
    /// Sorted, so that two tables can be compared and merged in one pass.
    pub entries: BTreeMap<Key, Entry>,
    /// The admin plane: what the cluster's administrators decide before everybody else. It is asked first; where it
    /// says nothing, or [`EntryVerdict::Pass`], `entries` decide. A plane of its own, because a pass at one key must
    /// not hide what others say at the same key.
    pub admin: BTreeMap<Key, Entry>,
    /// The staged plane: what `entries` would be if the policies in audit mode were enforced. What the entries let
    /// pass and this plane denies passes and is reported; what it would hand to a proxy is handed to it, which lets
    /// all requests pass and reports. Only of the directions that are staged.
    pub staged: BTreeMap<Key, Entry>,
    /// Ingress has a staged plane.
    pub staged_ingress: bool,
    /// Egress has a staged plane.
    pub staged_egress: bool,
    /// What ingress denies is reported and passes.
    pub audit_ingress: bool,
    /// What egress denies is reported and passes.
    pub audit_egress: bool,
}

/// A part of a decision table. In the order in which they are asked.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Plane {
    /// [`MapState::admin`].
    Admin,
    /// [`MapState::entries`].
    Normal,
    /// [`MapState::staged`].
    Staged,
}

/// What is known about a packet when its policy is asked.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Query {
    /// As seen from the endpoint that owns the table.
    pub direction: Direction,
    /// The other side.
    pub peer: Identity,
    /// The layer 4 protocol.
    pub protocol: Protocol,
    /// Destination port, or ICMP type. `None`: a fragment that does not carry it. Protocols without ports have 0.
    pub port: Option<u16>,
}

/// How specific the entry was that decided; numbered as the flow API numbers it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum MatchType {
    /// No entry.
    None = 0,
    /// Peer, any protocol.
    L3Only = 1,
    /// Peer and port.
    L3L4 = 2,
    /// Any peer, port.
    L4Only = 3,
    /// Any peer, any protocol.
    All = 4,
    /// Peer and protocol.
    L3Proto = 5,
    /// Any peer, protocol.
    ProtoOnly = 6,
}

impl MatchType {
    /// The word that monitors print, `L3-L4`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::L3Only => "L3-Only",
            Self::L3L4 => "L3-L4",
            Self::L4Only => "L4-Only",
            Self::All => "all",
            Self::L3Proto => "L3-Proto",
            Self::ProtoOnly => "Proto-Only",
        }
    }

    /// The type of the entry under `key`.
    #[must_use]
    pub const fn of(key: &Key) -> Self {
        match (key.peer, key.l4) {
            (Some(_), L4Match::Any) => Self::L3Only,
            (Some(_), L4Match::Protocol(_)) => Self::L3Proto,
            (Some(_), L4Match::Port { .. }) => Self::L3L4,
            (None, L4Match::Any) => Self::All,
            (None, L4Match::Protocol(_)) => Self::ProtoOnly,
            (None, L4Match::Port { .. }) => Self::L4Only,
        }
    }
}

/// The answer, with what it rests on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Decision {
    /// What is done with the packet.
    pub verdict: Verdict,
    /// The rule that decided, [`RuleId::NONE`] when none did.
    pub rule: RuleId,
    /// How specific the deciding entry was.
    pub match_type: MatchType,
}

impl MapState {
    /// Decides about one packet. Total: what no entry allows is denied.
    ///
    /// Of all entries of a plane that match, the highest precedence decides; between equals the narrower port block,
    /// then the entry that names the peer, is the one reported. A fragment without its port is denied as soon as this
    /// direction looks at ports anywhere, as the kernel does, which cannot know whether that entry would match.
    #[must_use]
    pub fn decide(&self, query: &Query) -> Decision {
        let (decision, is_final) = self.enforced(query);
        match decision.verdict {
            Verdict::Allow if !is_final => self.staged(query).unwrap_or(decision),
            Verdict::Allow | Verdict::Audit(_) | Verdict::Deny(_) | Verdict::Redirect(_) => decision,
        }
    }

    /// Decides without the policies in audit mode, and says whether those have no part in it, because an administrator
    /// decided before everybody else or because there are none.
    #[must_use]
    pub fn enforced(&self, query: &Query) -> (Decision, bool) {
        let port = match query.port {
            Some(port) => port,
            None if looks_at_ports(self.admin.keys().chain(self.entries.keys()), query.direction) => {
                let reason = DropReason::FirstFragmentNotFound;
                let verdict = self.denial(query.direction, reason);
                return (Decision { verdict, rule: RuleId::NONE, match_type: MatchType::None }, true);
            }
            None => 0,
        };
        let by_admin = strongest(&self.admin, query, port);
        if let Some((key, entry)) = by_admin.filter(|(_, entry)| entry.verdict != EntryVerdict::Pass) {
            return (self.decision(query.direction, Some((key, entry))), true);
        }
        let decision = self.decision(query.direction, strongest(&self.entries, query, port));
        (decision, !self.is_staged(query.direction))
    }

    /// What the entry that was found says.
    fn decision(&self, direction: Direction, found: Option<(Key, Entry)>) -> Decision {
        let denied = self.denial(direction, DropReason::PolicyDenied);
        let Some((key, entry)) = found else {
            return Decision { verdict: denied, rule: RuleId::NONE, match_type: MatchType::None };
        };
        let verdict = match entry.verdict {
            EntryVerdict::Allow => Verdict::Allow,
            EntryVerdict::Redirect(port) => Verdict::Redirect(port),
            EntryVerdict::Deny => self.denial(direction, DropReason::PolicyDeny),
            // Only in the admin plane. Closed all the same.
            EntryVerdict::Pass => denied,
        };
        Decision { verdict, rule: entry.rule, match_type: MatchType::of(&key) }
    }

    /// What the staged plane has to say of a packet that passes: it is reported, or a proxy looks whether its requests
    /// are. Of a fragment without its port nothing is said where that plane looks at ports.
    pub(crate) fn staged(&self, query: &Query) -> Option<Decision> {
        if query.port.is_none() && looks_at_ports(self.staged.keys(), query.direction) {
            return None;
        }
        let found = strongest(&self.staged, query, query.port.unwrap_or_default());
        let decision = self.decision(query.direction, found);
        match decision.verdict {
            Verdict::Deny(reason) | Verdict::Audit(reason) => {
                Some(Decision { verdict: Verdict::Audit(reason), ..decision })
            }
            Verdict::Redirect(_) => Some(decision),
            Verdict::Allow => None,
        }
    }

    /// Every entry with its plane and key.
    pub fn iter(&self) -> impl Iterator<Item = (Plane, &Key, &Entry)> {
        let planes =
            [(Plane::Admin, &self.admin), (Plane::Normal, &self.entries), (Plane::Staged, &self.staged)];
        planes
            .into_iter()
            .flat_map(|(plane, entries)| entries.iter().map(move |(key, entry)| (plane, key, entry)))
    }

    /// Whether policies in audit mode are asked about what passes in `direction`.
    #[must_use]
    pub const fn is_staged(&self, direction: Direction) -> bool {
        match direction {
            Direction::Ingress => self.staged_ingress,
            Direction::Egress => self.staged_egress,
        }
    }

    /// Whether what `direction` denies is only reported.
    #[must_use]
    pub const fn audit(&self, direction: Direction) -> bool {
        match direction {
            Direction::Ingress => self.audit_ingress,
            Direction::Egress => self.audit_egress,
        }
    }

    fn denial(&self, direction: Direction, reason: DropReason) -> Verdict {
        if self.audit(direction) { Verdict::Audit(reason) } else { Verdict::Deny(reason) }
    }
}

fn looks_at_ports<'a>(mut keys: impl Iterator<Item = &'a Key>, direction: Direction) -> bool {
    keys.any(|key| key.direction == direction && matches!(key.l4, L4Match::Port { .. }))
}

/// The entry of one plane that decides: the highest precedence, of equals the narrowest.
fn strongest(plane: &BTreeMap<Key, Entry>, query: &Query, port: u16) -> Option<(Key, Entry)> {
    if plane.is_empty() {
        return None;
    }
    candidates(query.direction, query.peer, query.protocol, port)
        .filter_map(|key| plane.get(&key).map(|entry| (key, *entry)))
        .reduce(|best, next| if next.1.precedence > best.1.precedence { next } else { best })
}

/// Every key under which an entry for this packet can stand, the narrowest first.
pub(crate) fn candidates(
    direction: Direction,
    peer: Identity,
    protocol: Protocol,
    port: u16,
) -> impl Iterator<Item = Key> {
    let blocks =
        (1..=16).rev().map(move |prefix| L4Match::Port { protocol, port: masked(port, prefix), prefix });
    let wide = [L4Match::Protocol(protocol), L4Match::Any];
    blocks.chain(wide).flat_map(move |l4| [Some(peer), None].map(|peer| Key { direction, peer, l4 }))
}

#[cfg(test)]
mod tests;
