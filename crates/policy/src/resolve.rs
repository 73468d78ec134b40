//! From the rules that select an endpoint to its decision table.
//!
//! Every rule becomes one entry per peer and block of ports. Entries are never left out because a wider one says the
//! same or the opposite: the decision looks at all widths and takes the highest precedence. The repository is the
//! only caller.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    ops::Bound,
    sync::Arc,
};

use sluice_types::{Direction, Identity, Protocol, RuleId};

use crate::{
    config::{Config, Enforcement},
    map_state::{Entry, EntryVerdict, Key, L4Match, MapState},
    named_ports::{NamedPorts, unambiguous},
    precedence::precedence,
    repository::{DirectionState, EndpointPolicy, InstalledRule, PeerSet},
    rule::{Action, PolicyRef, PortRange, Ports, Priority, Subject, Tier, Traffic},
    selector_cache::{SelectorCache, SelectorId},
};

type Entries = BTreeMap<Key, Entry>;

/// Everything the policy of one endpoint follows from.
pub(crate) struct Resolver<'a> {
    config: &'a Config,
    revision: u64,
    /// Those of the rules that select the endpoint, ordered by policy and place.
    rules: Vec<&'a InstalledRule>,
    cache: &'a SelectorCache,
    peer_names: &'a NamedPorts,
    own_names: BTreeMap<(String, Protocol), u16>,
    /// What the rules of a direction and action require of each other's endpoint peers.
    required: BTreeMap<(Direction, Action), BTreeSet<SelectorId>>,
    audit: bool,
    /// Labels are not known yet: closed in every mode but `never`.
    is_init: bool,
}

/// Which peers' entries are wanted.
#[derive(Clone, Copy)]
enum Wanted {
    All,
    One(Identity),
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(
        config: &'a Config,
        revision: u64,
        subject: &Subject,
        rules: Vec<&'a InstalledRule>,
        cache: &'a SelectorCache,
        peer_names: &'a NamedPorts,
    ) -> Self {
        let mut required: BTreeMap<_, BTreeSet<SelectorId>> = BTreeMap::new();
        for rule in rules.iter().filter(|rule| !rule.requires.is_empty()) {
            required.entry((rule.rule.direction, rule.rule.action)).or_default().extend(&rule.requires);
        }
        Self {
            config,
            revision,
            rules,
            required,
            cache,
            peer_names,
            own_names: unambiguous(&subject.named_ports),
            audit: config.audit || subject.audit,
            is_init: subject.labels.has_reserved("init"),
        }
    }

    /// The whole policy.
    pub(crate) fn policy(&self) -> EndpointPolicy {
        let mut entries = Entries::new();
        self.emit(Wanted::All, &mut entries);
        self.finish(entries)
    }

    /// The policy when only these peers changed since `before`.
    pub(crate) fn patch(&self, before: &EndpointPolicy, peers: &BTreeSet<Identity>) -> EndpointPolicy {
        let mut entries = before.map_state.entries.clone();
        for peer in peers {
            remove_peer(&mut entries, *peer);
            self.emit(Wanted::One(*peer), &mut entries);
        }
        self.finish(entries)
    }

    fn finish(&self, entries: Entries) -> EndpointPolicy {
        let [ingress, egress] = Direction::ALL.map(|direction| self.direction_state(direction));
        let map_state = MapState {
            entries,
            admin: Entries::new(),
            audit_ingress: ingress.audit && ingress.enforced,
            audit_egress: egress.audit && egress.enforced,
        };
        EndpointPolicy { map_state: Arc::new(map_state), revision: self.revision, ingress, egress }
    }

    fn direction_state(&self, direction: Direction) -> DirectionState {
        let isolating: BTreeSet<&PolicyRef> = self
            .rules_of(direction)
            .filter(|rule| rule.rule.default_deny)
            .map(|rule| &rule.origin.policy)
            .collect();
        let enforced = self.is_enforced(direction);
        DirectionState {
            enforced,
            audit: self.audit,
            isolated_by: isolating.into_iter().filter(|_| enforced).cloned().collect(),
        }
    }

    fn rules_of(&self, direction: Direction) -> impl Iterator<Item = &'a InstalledRule> {
        self.rules.iter().copied().filter(move |rule| rule.rule.direction == direction)
    }

    fn is_enforced(&self, direction: Direction) -> bool {
        match self.config.enforcement {
            Enforcement::Never => false,
            Enforcement::Always => true,
            Enforcement::Default => self.is_init || self.rules_of(direction).next().is_some(),
        }
    }

    /// Whether what no rule allows is denied.
    fn is_isolated(&self, direction: Direction) -> bool {
        let closed = match self.config.enforcement {
            Enforcement::Never => return false,
            Enforcement::Always => true,
            Enforcement::Default => self.is_init,
        };
        closed || self.rules_of(direction).any(|rule| rule.rule.default_deny)
    }

    fn emit(&self, wanted: Wanted, entries: &mut Entries) {
        for direction in Direction::ALL {
            if self.is_enforced(direction) {
                for rule in self.rules_of(direction) {
                    self.emit_rule(rule, wanted, entries);
                }
            }
            self.emit_defaults(direction, wanted, entries);
        }
    }

    /// What holds when no rule says anything.
    fn emit_defaults(&self, direction: Direction, wanted: Wanted, entries: &mut Entries) {
        let peer = if !self.is_isolated(direction) {
            None
        } else if direction == Direction::Ingress
            && self.config.allow_localhost
            && self.rules_of(direction).next().is_some()
        {
            // The node reaches its own pods, or probes would need rules. A mode that closes everything without any
            // rule closes this too, as upstream.
            Some(Identity::HOST)
        } else {
            return;
        };
        let asked_for = match wanted {
            Wanted::All => true,
            Wanted::One(identity) => peer == Some(identity),
        };
        if asked_for {
            let entry = Entry {
                precedence: precedence(Tier::Default, Priority::default(), Action::Allow),
                verdict: EntryVerdict::Allow,
                audit: false,
                rule: RuleId::NONE,
            };
            insert(entries, Key { direction, peer, l4: L4Match::Any }, entry);
        }
    }

    fn emit_rule(&self, installed: &InstalledRule, wanted: Wanted, entries: &mut Entries) {
        let rule = &installed.rule;
        let entry = Entry {
            precedence: precedence(rule.tier, rule.priority, rule.action),
            verdict: match rule.action {
                Action::Allow => EntryVerdict::Allow,
                Action::Deny => EntryVerdict::Deny,
            },
            audit: false,
            rule: installed.id,
        };
        let peers = self.peers(installed, wanted);
        for traffic in Self::traffic(&rule.ports) {
            match traffic {
                Some(Traffic::NamedPort(protocol, name)) if rule.direction == Direction::Egress => {
                    for peer in self.peers_with_names(installed, wanted) {
                        for number in self.peer_names.numbers(peer, name, *protocol) {
                            let l4 = L4Match::port(*protocol, number);
                            insert(entries, Key { direction: rule.direction, peer: Some(peer), l4 }, entry);
                        }
                    }
                }
                traffic => {
                    for l4 in self.matches(traffic) {
                        for peer in &peers {
                            insert(entries, Key { direction: rule.direction, peer: *peer, l4 }, entry);
                        }
                    }
                }
            }
        }
    }

    /// What a rule applies to; `None` is everything.
    fn traffic(ports: &Ports) -> impl Iterator<Item = Option<&Traffic>> {
        let (any, some) = match ports {
            Ports::Any => (Some(None), [].as_slice()),
            Ports::Select(traffic) => (None, traffic.as_slice()),
        };
        any.into_iter().chain(some.iter().map(Some))
    }

    fn matches(&self, traffic: Option<&Traffic>) -> Vec<L4Match> {
        let blocks = |protocol, range: PortRange| {
            let block = |(port, prefix)| match prefix {
                0 => L4Match::Protocol(protocol),
                _ => L4Match::Port { protocol, port, prefix },
            };
            range.blocks().map(block).collect()
        };
        match traffic {
            None => vec![L4Match::Any],
            Some(Traffic::Protocol(protocol)) => vec![L4Match::Protocol(*protocol)],
            Some(Traffic::Ports(protocol, range)) => blocks(*protocol, *range),
            Some(Traffic::Icmp(protocol, kind)) => vec![L4Match::port(*protocol, u16::from(*kind))],
            Some(Traffic::NamedPort(protocol, name)) => {
                let number = self.own_names.get(&(name.clone(), *protocol));
                number.map(|number| L4Match::port(*protocol, *number)).into_iter().collect()
            }
        }
    }

    fn peers(&self, rule: &InstalledRule, wanted: Wanted) -> Vec<Option<Identity>> {
        match (&rule.peers, wanted) {
            (PeerSet::Any, Wanted::All) => vec![None],
            // The entry for everybody is nobody's in particular.
            (PeerSet::Any, Wanted::One(_)) => Vec::new(),
            (PeerSet::Select(_) | PeerSet::Endpoints(_), _) => {
                self.selected(rule, wanted).into_iter().map(Some).collect()
            }
        }
    }

    /// The peers of a rule that give names to their ports. Nobody outside does, so "everybody" means those.
    fn peers_with_names(&self, rule: &InstalledRule, wanted: Wanted) -> BTreeSet<Identity> {
        match (&rule.peers, wanted) {
            (PeerSet::Any, Wanted::All) => self.peer_names.identities().collect(),
            (PeerSet::Any, Wanted::One(identity)) => BTreeSet::from([identity]),
            (PeerSet::Select(_) | PeerSet::Endpoints(_), _) => self.selected(rule, wanted),
        }
    }

    fn selected(&self, rule: &InstalledRule, wanted: Wanted) -> BTreeSet<Identity> {
        let (selectors, required) = match &rule.peers {
            PeerSet::Any => return BTreeSet::new(),
            PeerSet::Select(selectors) => (selectors, None),
            PeerSet::Endpoints(selectors) => {
                (selectors, self.required.get(&(rule.rule.direction, rule.rule.action)))
            }
        };
        let selected = selectors.iter().filter_map(|selector| self.cache.matches(*selector));
        let fulfils = |identity: &Identity| {
            required.into_iter().flatten().all(|selector| {
                self.cache.matches(*selector).is_some_and(|matches| matches.contains(identity))
            })
        };
        match wanted {
            Wanted::All => selected.flatten().copied().filter(fulfils).collect(),
            Wanted::One(identity) => {
                let mut selected = selected;
                let is_selected = selected.any(|matches| matches.contains(&identity));
                (is_selected && fulfils(&identity)).then_some(identity).into_iter().collect()
            }
        }
    }
}

/// Of two rules for one key the higher precedence stays; between equals the first, in the order of the policies.
fn insert(entries: &mut Entries, key: Key, entry: Entry) {
    match entries.entry(key) {
        btree_map::Entry::Vacant(place) => {
            place.insert(entry);
        }
        btree_map::Entry::Occupied(mut place) => {
            if entry.precedence > place.get().precedence {
                place.insert(entry);
            }
        }
    }
}

fn remove_peer(entries: &mut Entries, peer: Identity) {
    for direction in Direction::ALL {
        let first = Key { direction, peer: Some(peer), l4: L4Match::Any };
        let from_here = entries.range((Bound::Included(first), Bound::Unbounded));
        let own = from_here.take_while(|(key, _)| key.direction == direction && key.peer == Some(peer));
        let gone: Vec<Key> = own.map(|(key, _)| *key).collect();
        for key in gone {
            entries.remove(&key);
        }
    }
}
