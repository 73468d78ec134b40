//! A decision table in the words of the kernel's policy map, and back. The only place that knows both.

use sluice_ebpf_common::{EntryFlags, PolicyEntry, PolicyHeader, PolicyKey, TierMask};
use sluice_policy::map_state::{Entry, EntryVerdict, Key, L4Match, MapState};
use sluice_types::{Direction, Identity, Protocol, ProxyPort, RuleId};

/// The bit of a tier mask for an entry.
fn tier(l4: L4Match) -> u32 {
    match l4 {
        L4Match::Any => TierMask::ANY_PROTOCOL,
        L4Match::Protocol(_) => 1,
        L4Match::Port { prefix, .. } => 1 << prefix.min(16),
    }
}

/// The kernel's key.
pub(crate) fn key(key: &Key) -> PolicyKey {
    let identity = key.peer.map_or(0, Identity::as_u32);
    let egress = key.direction == Direction::Egress;
    match key.l4 {
        L4Match::Any => PolicyKey::new(identity, 0, 0, 0, egress),
        L4Match::Protocol(protocol) => PolicyKey::new(identity, protocol.number(), 0, 0, egress),
        L4Match::Port { protocol, port, prefix } => {
            PolicyKey::new(identity, protocol.number(), port, prefix.min(16), egress)
        }
    }
}

/// The kernel's entry.
pub(crate) fn entry(entry: &Entry) -> PolicyEntry {
    let (flags, proxy_port_be) = match entry.verdict {
        EntryVerdict::Allow => (EntryFlags::default(), [0; 2]),
        EntryVerdict::Deny => (EntryFlags::DENY, [0; 2]),
        EntryVerdict::Redirect(port) => (EntryFlags::REDIRECT, port.0.to_be_bytes()),
        EntryVerdict::Pass => (EntryFlags::PASS, [0; 2]),
    };
    PolicyEntry { precedence: entry.precedence, rule: entry.rule.0, proxy_port_be, flags, reserved: [0; 5] }
}

/// Everything that a policy map with this table holds: its planes and their headers.
pub(crate) fn all(state: &MapState) -> Vec<(PolicyKey, PolicyEntry)> {
    let normal = state.entries.iter().map(|(k, e)| (key(k), entry(e)));
    let admin = state.admin.iter().map(|(k, e)| (key(k).in_admin_plane(), entry(e)));
    let staged = state.staged.iter().map(|(k, e)| (key(k).in_staged_plane(), entry(e)));
    let mut all: Vec<_> = normal.chain(admin).chain(staged).collect();
    all.push((PolicyKey::HEADER, stored(header(state))));
    if !state.admin.is_empty() {
        all.push((PolicyKey::ADMIN_HEADER, stored(tiers(state.admin.keys()))));
    }
    if state.staged_ingress || state.staged_egress {
        all.push((PolicyKey::STAGED_HEADER, stored(tiers(state.staged.keys()))));
    }
    all
}

/// The tiers of one plane.
fn tiers<'a>(keys: impl Iterator<Item = &'a Key>) -> PolicyHeader {
    let mut header = PolicyHeader::default();
    for key in keys {
        *mask(&mut header, key) |= tier(key.l4);
    }
    header
}

/// The header of the normal plane: which tiers it has, which directions have other planes and are audited.
pub(crate) fn header(state: &MapState) -> PolicyHeader {
    let mut header = tiers(state.entries.keys());
    for key in state.admin.keys() {
        match key.direction {
            Direction::Ingress => header.ingress_any.0 |= TierMask::ADMIN,
            Direction::Egress => header.egress_any.0 |= TierMask::ADMIN,
        }
    }
    let bits =
        |audit, staged| (if audit { TierMask::AUDIT } else { 0 }) | if staged { TierMask::STAGED } else { 0 };
    header.ingress_any.0 |= bits(state.audit_ingress, state.staged_ingress);
    header.egress_any.0 |= bits(state.audit_egress, state.staged_egress);
    header
}

/// Whether the kernel would look at this key under `header`.
pub(crate) fn is_covered(header: &PolicyHeader, key: &Key) -> bool {
    let mut header = *header;
    *mask(&mut header, key) & tier(key.l4) != 0
}

fn mask<'a>(header: &'a mut PolicyHeader, key: &Key) -> &'a mut u32 {
    let mask = match (key.direction, key.peer) {
        (Direction::Ingress, Some(_)) => &mut header.ingress_identity,
        (Direction::Ingress, None) => &mut header.ingress_any,
        (Direction::Egress, Some(_)) => &mut header.egress_identity,
        (Direction::Egress, None) => &mut header.egress_any,
    };
    &mut mask.0
}

/// The header as it is stored: in place of an entry.
pub(crate) fn stored(header: PolicyHeader) -> PolicyEntry {
    // SAFETY: both are `repr(C)` without padding, of the same size (asserted where they are defined), and every bit
    // pattern is a value of either.
    unsafe { std::mem::transmute::<PolicyHeader, PolicyEntry>(header) }
}

/// The header that is stored in an entry.
pub(crate) fn read_header(entry: PolicyEntry) -> PolicyHeader {
    // SAFETY: as in `stored`.
    unsafe { std::mem::transmute::<PolicyEntry, PolicyHeader>(entry) }
}

/// The table that a dump of a policy map stands for. What the kernel could not have from us is left out.
pub(crate) fn read(dump: &[(PolicyKey, PolicyEntry)]) -> MapState {
    let mut state = MapState::default();
    for (key, entry) in dump {
        if [PolicyKey::ADMIN_HEADER, PolicyKey::STAGED_HEADER].contains(key) {
            // They say nothing that their entries do not.
        } else if *key == PolicyKey::HEADER {
            let header = read_header(*entry);
            state.audit_ingress = header.ingress_any.0 & TierMask::AUDIT != 0;
            state.audit_egress = header.egress_any.0 & TierMask::AUDIT != 0;
            state.staged_ingress = header.ingress_any.0 & TierMask::STAGED != 0;
            state.staged_egress = header.egress_any.0 & TierMask::STAGED != 0;
        } else {
            let plane = match key.direction_and_prefix & (PolicyKey::ADMIN | PolicyKey::STAGED) {
                0 => &mut state.entries,
                PolicyKey::ADMIN => &mut state.admin,
                _ => &mut state.staged,
            };
            plane.insert(read_key(key), read_entry(entry));
        }
    }
    state
}

fn read_key(key: &PolicyKey) -> Key {
    let prefix = key.direction_and_prefix & 0x1f;
    let protocol = Protocol::from_number(key.protocol);
    Key {
        direction: if key.direction_and_prefix & PolicyKey::EGRESS == 0 {
            Direction::Ingress
        } else {
            Direction::Egress
        },
        peer: (key.identity != 0).then(|| Identity::new(key.identity)),
        l4: match (key.protocol, prefix) {
            (0, _) => L4Match::Any,
            (_, 0) => L4Match::Protocol(protocol),
            _ => L4Match::Port { protocol, port: u16::from_be_bytes(key.port_be), prefix },
        },
    }
}

fn read_entry(entry: &PolicyEntry) -> Entry {
    Entry {
        precedence: entry.precedence,
        verdict: if entry.flags.contains(EntryFlags::DENY) {
            EntryVerdict::Deny
        } else if entry.flags.contains(EntryFlags::PASS) {
            EntryVerdict::Pass
        } else if entry.flags.contains(EntryFlags::REDIRECT) {
            EntryVerdict::Redirect(ProxyPort(u16::from_be_bytes(entry.proxy_port_be)))
        } else {
            EntryVerdict::Allow
        },
        rule: RuleId(entry.rule),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> MapState {
        let entry = |verdict| Entry { precedence: 7, verdict, rule: RuleId(9) };
        let peer = Some(Identity::new(4711));
        let cases = [
            (Direction::Ingress, peer, L4Match::Any, entry(EntryVerdict::Allow)),
            (Direction::Ingress, None, L4Match::Protocol(Protocol::Udp), entry(EntryVerdict::Deny)),
            (
                Direction::Egress,
                peer,
                L4Match::Port { protocol: Protocol::Tcp, port: 0x1f90, prefix: 12 },
                entry(EntryVerdict::Redirect(ProxyPort(10_000))),
            ),
            (Direction::Egress, None, L4Match::port(Protocol::Icmp, 8), entry(EntryVerdict::Deny)),
        ];
        MapState {
            entries: cases
                .into_iter()
                .map(|(direction, peer, l4, entry)| (Key { direction, peer, l4 }, entry))
                .collect(),
            audit_ingress: true,
            ..MapState::default()
        }
    }

    #[test]
    fn a_table_survives_the_way_into_the_kernel() {
        let table = table();
        assert_eq!(read(&all(&table)), table);
    }

    #[test]
    fn an_admin_plane_stands_beside_the_normal_one() {
        let mut table = table();
        let (at, below) = table.entries.iter().next().map(|(key, entry)| (*key, *entry)).unwrap();
        table.admin.insert(at, Entry { verdict: EntryVerdict::Pass, ..below });
        let all = all(&table);
        assert_eq!(read(&all), table);
        let find = |wanted: PolicyKey| all.iter().find(|(key, _)| *key == wanted).map(|(_, entry)| *entry);
        assert!(find(key(&at).in_admin_plane()).unwrap().flags.contains(EntryFlags::PASS));
        assert_eq!(find(key(&at)).unwrap(), entry(&below));
        let header = header(&table);
        assert_ne!(header.ingress_any.0 & TierMask::ADMIN, 0);
        assert_eq!(header.egress_any.0 & TierMask::ADMIN, 0);
        let admin = read_header(find(PolicyKey::ADMIN_HEADER).unwrap());
        assert_eq!(admin.ingress_identity.0 | admin.ingress_any.0, tier(at.l4));
        assert_eq!(admin.egress_identity.0 | admin.egress_any.0, 0);
    }

    #[test]
    fn the_header_names_exactly_the_tiers_in_use() {
        let header = header(&table());
        assert_eq!(header.ingress_identity.0, TierMask::ANY_PROTOCOL);
        assert_eq!(header.ingress_any.0, 1 | TierMask::AUDIT);
        assert_eq!(header.egress_identity.0, 1 << 12);
        assert_eq!(header.egress_any.0, 1 << 16);
        assert_eq!(read_header(stored(header)), header);
        for key in table().entries.keys() {
            assert!(is_covered(&header, key), "{key:?}");
        }
    }

    #[test]
    fn keys_as_the_kernel_reads_them() {
        let key = key(&Key {
            direction: Direction::Egress,
            peer: Some(Identity::new(300)),
            l4: L4Match::Port { protocol: Protocol::Tcp, port: 0x1f90, prefix: 12 },
        });
        assert_eq!(key.identity, 300);
        assert_eq!(key.port_be, [0x1f, 0x90]);
        assert_eq!(key.protocol, 6);
        assert_eq!(key.direction_and_prefix, 0x80 | 12);
    }
}
