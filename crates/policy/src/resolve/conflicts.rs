//! Two protocols on one port: nobody could read the connection, so it is closed.

use std::collections::{BTreeMap, BTreeSet};

use sluice_types::{Direction, Identity, RuleId};

use super::{Resolver, tables::Tables};
use crate::{
    l7::Parser,
    map_state::{Entry, EntryVerdict, Key, L4Match},
    precedence::{Rank, same_priority},
    requests::{Says, Slot},
};

/// Two rules that want the same traffic read as two protocols.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Conflict {
    /// As seen from the endpoint.
    pub direction: Direction,
    /// The rule of the protocol that comes first in the order of protocols.
    pub one: RuleId,
    /// What it reads.
    pub reads: Parser,
    /// The other rule.
    pub other: RuleId,
    /// What that reads.
    pub other_reads: Parser,
}

/// What asks for a protocol under a block of ports, and for whom.
type Readers = BTreeMap<L4Match, Vec<Reader>>;

struct Reader {
    peer: Option<Identity>,
    parser: Parser,
    precedence: u32,
    rule: RuleId,
}

impl Resolver<'_> {
    /// Closes the traffic that two rules of one priority want read as two protocols, and says which rules those are.
    pub(super) fn close_conflicts(&self, tables: &mut Tables) -> Vec<Conflict> {
        let mut conflicts = BTreeSet::new();
        for (direction, parsers) in &self.parsers {
            if parsers.len() > 1 {
                close(*direction, tables, &mut conflicts);
            }
        }
        self.in_order(conflicts)
    }

    /// In the order of their rules' places, not of the rules' numbers: those tell which policy came first.
    fn in_order(&self, conflicts: BTreeSet<Conflict>) -> Vec<Conflict> {
        let places: BTreeMap<RuleId, usize> =
            self.rules.iter().enumerate().map(|(place, rule)| (rule.id, place)).collect();
        let place = |rule| places.get(&rule).copied();
        let mut conflicts: Vec<Conflict> = conflicts.into_iter().collect();
        conflicts.sort_by_key(|own| (own.direction, place(own.one), place(own.other)));
        conflicts
    }
}

fn close(direction: Direction, tables: &mut Tables, conflicts: &mut BTreeSet<Conflict>) {
    let readers = readers(direction, tables);
    let blocks: Vec<&L4Match> = readers.keys().collect();
    for one in &blocks {
        for other in blocks.iter().filter(|other| one.contains(other)) {
            let (Some(wide), Some(narrow)) = (readers.get(*one), readers.get(*other)) else { continue };
            for (first, second) in pairs(wide, narrow) {
                let peer = first.peer.or(second.peer);
                conflicts.insert(conflict(direction, first, second));
                shut(tables, Key { direction, peer, l4: **other }, first);
            }
        }
    }
}

/// Those of both lists that can meet and do not agree.
fn pairs<'a>(wide: &'a [Reader], narrow: &'a [Reader]) -> impl Iterator<Item = (&'a Reader, &'a Reader)> {
    wide.iter().flat_map(move |one| {
        narrow.iter().filter_map(move |other| {
            let meet = one.peer.is_none() || other.peer.is_none() || one.peer == other.peer;
            let differ = one.parser != other.parser && same_priority(one.precedence, other.precedence);
            (meet && differ).then_some((one, other))
        })
    })
}

fn readers(direction: Direction, tables: &Tables) -> Readers {
    let mut readers = Readers::new();
    for (key, slot) in tables.requests.iter().filter(|(key, _)| key.direction == direction) {
        if let Says::Requests { rules, .. } = &slot.says {
            let reader = Reader {
                peer: key.peer,
                parser: rules.parser(),
                precedence: slot.precedence,
                rule: slot.rule,
            };
            readers.entry(key.l4).or_default().push(reader);
        }
    }
    readers
}

fn conflict(direction: Direction, first: &Reader, second: &Reader) -> Conflict {
    let (one, other) = if first.parser < second.parser { (first, second) } else { (second, first) };
    Conflict { direction, one: one.rule, reads: one.parser, other: other.rule, other_reads: other.parser }
}

/// A denial of their own priority, stronger than whatever the two rules allow. Of requests as well: where this is only
/// reported, a proxy sees them all the same, for rules that are in force.
fn shut(tables: &mut Tables, key: Key, reader: &Reader) {
    let precedence = (reader.precedence & !0xFF) | Rank::Deny as u32;
    let entry = Entry { precedence, verdict: EntryVerdict::Deny, rule: reader.rule };
    let place = tables.entries.entry(key).or_insert(entry);
    if place.precedence < precedence {
        *place = entry;
    }
    tables.requests.put(key, Slot { precedence, rule: reader.rule, exact: false, says: Says::Deny });
}
