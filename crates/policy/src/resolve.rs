//! From the rules that select an endpoint to its decision table.
//!
//! Every rule becomes one entry per peer and block of ports. Entries are never left out because a wider one says the
//! same or the opposite: the decision looks at all widths and takes the highest precedence. The repository is the
//! only caller.

mod conflicts;
mod tables;
mod targets;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sluice_types::{Direction, Identity, Protocol};

pub use conflicts::Conflict;
pub(crate) use tables::remove_peer;
pub(crate) use targets::means_port;

use crate::{
    config::{Config, Enforcement},
    l7::Parser,
    map_state::{EntryVerdict, Key, L4Match, MapState},
    named_ports::{NamedPorts, unambiguous},
    precedence::Rank,
    referents::{Referents, ServiceName, ServicePort},
    repository::{DirectionState, EndpointPolicy, InstalledRule},
    requests::Says,
    rule::{Action, PolicyRef, PortRule, Ports, Priority, Subject, Tier},
    selector_cache::{SelectorCache, SelectorId},
};

use tables::{Ruling, Tables};

/// What the policies of all endpoints follow from.
#[derive(Clone, Copy)]
pub(crate) struct Knowledge<'a> {
    pub(crate) config: &'a Config,
    pub(crate) revision: u64,
    pub(crate) cache: &'a SelectorCache,
    pub(crate) peer_names: &'a NamedPorts,
    pub(crate) referents: &'a Referents,
}

/// Everything the policy of one endpoint follows from.
pub(crate) struct Resolver<'a> {
    known: Knowledge<'a>,
    /// Those of the rules that select the endpoint, ordered by policy and place.
    rules: Vec<&'a InstalledRule>,
    own_names: BTreeMap<(String, Protocol), u16>,
    /// The endpoint's ports by the Services that lead to them.
    own_services: BTreeMap<&'a ServiceName, &'a [ServicePort]>,
    /// What the rules of a direction and action require of each other's endpoint peers.
    required: BTreeMap<(Direction, Action), BTreeSet<SelectorId>>,
    /// The protocols that rules of a direction look into.
    parsers: BTreeMap<Direction, BTreeSet<Parser>>,
    /// The same with the rules of policies in audit mode, if there are any.
    staged: Option<Box<Self>>,
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

impl Wanted {
    fn includes(self, identity: Identity) -> bool {
        match self {
            Self::All => true,
            Self::One(wanted) => wanted == identity,
        }
    }
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(known: Knowledge<'a>, subject: &'a Subject, rules: Vec<&'a InstalledRule>) -> Self {
        if !rules.iter().any(|rule| rule.rule.audit) {
            return Self::enforcing(known, subject, rules);
        }
        let enforced = rules.iter().copied().filter(|rule| !rule.rule.audit).collect();
        let staged = Some(Box::new(Self::enforcing(known, subject, rules)));
        Self { staged, ..Self::enforcing(known, subject, enforced) }
    }

    /// Every one of the rules is enforced, in audit mode or not.
    fn enforcing(known: Knowledge<'a>, subject: &'a Subject, rules: Vec<&'a InstalledRule>) -> Self {
        let mut required: BTreeMap<_, BTreeSet<SelectorId>> = BTreeMap::new();
        let mut parsers: BTreeMap<_, BTreeSet<Parser>> = BTreeMap::new();
        for rule in &rules {
            if !rule.requires.is_empty() {
                required.entry((rule.rule.direction, rule.rule.action)).or_default().extend(&rule.requires);
            }
            let own = rule.rule.ports.rules().filter_map(|ports| ports.l7.as_ref());
            let own: Vec<Parser> = own.map(|rules| rules.parser()).collect();
            if !own.is_empty() {
                parsers.entry(rule.rule.direction).or_default().extend(own);
            }
        }
        let services = subject.services.iter();
        Self {
            known,
            rules,
            required,
            parsers,
            own_names: unambiguous(&subject.named_ports),
            own_services: services.map(|own| (&own.service, own.ports.as_slice())).collect(),
            staged: None,
            audit: known.config.audit || subject.audit,
            is_init: subject.labels.has_reserved("init"),
        }
    }

    /// The whole policy.
    pub(crate) fn policy(&self) -> EndpointPolicy {
        let mut tables = Tables::default();
        self.emit(Wanted::All, &mut tables);
        tables.settle();
        let conflicts = self.close_conflicts(&mut tables);
        self.finish(tables, conflicts)
    }

    /// The policy when only these peers changed since `before`.
    pub(crate) fn patch(&self, before: &EndpointPolicy, peers: &BTreeSet<Identity>) -> EndpointPolicy {
        if self.staged.is_some() || self.peers_depend_on_each_other() {
            return self.policy();
        }
        let map_state = &before.map_state;
        let mut tables =
            Tables::new(map_state.entries.clone(), map_state.admin.clone(), (*before.requests).clone());
        for peer in peers {
            tables.remove_peer(*peer);
            self.emit(Wanted::One(*peer), &mut tables);
        }
        tables.settle();
        self.finish(tables, Vec::new())
    }

    /// Whether the entries of one peer may follow from what another peer is: where protocols can conflict, and where
    /// the address of a Service is allowed because of somebody behind it.
    fn peers_depend_on_each_other(&self) -> bool {
        let by_service = |rule: &&InstalledRule| rule.rule.ports.rules().any(|ports| ports.service.is_some());
        self.parsers.values().any(|parsers| parsers.len() > 1) || self.rules.iter().any(by_service)
    }

    fn finish(&self, tables: Tables, conflicts: Vec<Conflict>) -> EndpointPolicy {
        let [ingress, egress] = Direction::ALL.map(|direction| self.direction_state(direction));
        let staged = self.staged_tables();
        let map_state = MapState {
            entries: tables.entries,
            admin: tables.admin,
            staged: staged.entries,
            staged_ingress: !ingress.staged_by.is_empty(),
            staged_egress: !egress.staged_by.is_empty(),
            audit_ingress: ingress.audit && ingress.enforced,
            audit_egress: egress.audit && egress.enforced,
        };
        EndpointPolicy {
            map_state: Arc::new(map_state),
            requests: Arc::new(tables.requests),
            staged_requests: Arc::new(staged.requests),
            revision: self.known.revision,
            ingress,
            egress,
            conflicts,
        }
    }

    /// What would be if the policies in audit mode were enforced, of the directions they are about.
    fn staged_tables(&self) -> Tables {
        let mut tables = Tables::default();
        if let Some(staged) = &self.staged {
            staged.emit(Wanted::All, &mut tables);
            tables.settle();
            staged.close_conflicts(&mut tables);
            let others = Direction::ALL.into_iter().filter(|own| self.staged_by(*own).next().is_none());
            for other in others {
                tables.entries.retain(|key, _| key.direction != other);
            }
        }
        tables
    }

    /// The policies in audit mode that are about a direction.
    fn staged_by(&self, direction: Direction) -> impl Iterator<Item = &'a PolicyRef> {
        let is_never = self.known.config.enforcement == Enforcement::Never;
        let staged = self.staged.as_ref().filter(|_| !is_never);
        let rules = staged.into_iter().flat_map(move |staged| staged.rules_of(direction));
        rules.filter(|rule| rule.rule.audit).map(|rule| &rule.origin.policy)
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
            staged_by: self.staged_by(direction).collect::<BTreeSet<_>>().into_iter().cloned().collect(),
        }
    }

    fn rules_of(&self, direction: Direction) -> impl Iterator<Item = &'a InstalledRule> {
        self.rules.iter().copied().filter(move |rule| rule.rule.direction == direction)
    }

    fn is_enforced(&self, direction: Direction) -> bool {
        match self.known.config.enforcement {
            Enforcement::Never => false,
            Enforcement::Always => true,
            Enforcement::Default => self.is_init || self.rules_of(direction).next().is_some(),
        }
    }

    /// Whether what no rule allows is denied.
    fn is_isolated(&self, direction: Direction) -> bool {
        let closed = match self.known.config.enforcement {
            Enforcement::Never => return false,
            Enforcement::Always => true,
            Enforcement::Default => self.is_init,
        };
        closed || self.has_isolating_rule(direction)
    }

    fn has_isolating_rule(&self, direction: Direction) -> bool {
        self.rules_of(direction).any(|rule| rule.rule.default_deny)
    }

    fn emit(&self, wanted: Wanted, tables: &mut Tables) {
        for direction in Direction::ALL {
            if self.is_enforced(direction) {
                // Where a policy isolates, everything is decided before the baseline is asked.
                let hides_baseline = self.has_isolating_rule(direction);
                for rule in self.rules_of(direction) {
                    if rule.rule.tier != Tier::Baseline || !hides_baseline {
                        self.emit_rule(rule, wanted, tables);
                    }
                }
            }
            self.emit_defaults(direction, wanted, tables);
        }
    }

    /// What holds when no rule says anything.
    fn emit_defaults(&self, direction: Direction, wanted: Wanted, tables: &mut Tables) {
        let peer = if !self.is_isolated(direction) {
            None
        } else if direction == Direction::Ingress
            && self.known.config.allow_localhost
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
            let ruling = Ruling::new(Tier::Default, Priority::default(), Rank::Allow, EntryVerdict::Allow);
            let says = self.judges_requests(direction).then_some(Says::Allow);
            tables.put(Key { direction, peer, l4: L4Match::Any }, &ruling, says, false);
        }
    }

    fn judges_requests(&self, direction: Direction) -> bool {
        self.parsers.contains_key(&direction)
    }

    fn emit_rule(&self, installed: &InstalledRule, wanted: Wanted, tables: &mut Tables) {
        let rule = &installed.rule;
        let direction = rule.direction;
        let peers = self.peers(installed, wanted);
        let mut emit = |ports: Option<&PortRule>| {
            let (ruling, says) = self.ruling(installed, ports);
            self.each_target(installed, ports, &peers, wanted, &mut |peer, l4, exact| {
                let key = Key { direction, peer, l4 };
                tables.put(key, &ruling, says.clone(), exact);
                // What does not isolate does not forbid either: requests that it does not name pass. Those that an
                // administrator's rule does not name are left to everybody else.
                let opens = rule.tier == Tier::Normal && !rule.default_deny;
                if matches!(says, Some(Says::Requests { .. })) && opens {
                    tables.requests.put(key, ruling.slot(Says::Allow, exact));
                }
            });
        };
        match &rule.ports {
            Ports::Any => emit(None),
            Ports::Select(rules) => rules.iter().for_each(|ports| emit(Some(ports))),
        }
    }

    /// What a rule does with the traffic of one of its elements, and what that means for requests.
    fn ruling(&self, installed: &InstalledRule, ports: Option<&PortRule>) -> (Ruling, Option<Says>) {
        let rule = &installed.rule;
        let l7 = ports.and_then(|ports| ports.l7.as_ref());
        let (rank, verdict, says) = match (rule.action, l7) {
            (Action::Deny, _) => (Rank::Deny, EntryVerdict::Deny, Says::Deny),
            (Action::Pass, _) if rule.tier == Tier::Admin => (Rank::Pass, EntryVerdict::Pass, Says::Pass),
            // After the baseline nothing is left but the default.
            (Action::Pass, _) if self.is_isolated(rule.direction) => {
                (Rank::Pass, EntryVerdict::Deny, Says::Deny)
            }
            // It is no leave for all queries, which rules about names would outweigh: it ends the tier.
            (Action::Pass, _) => (Rank::Pass, EntryVerdict::Allow, Says::Pass),
            (Action::Allow, None) => (Rank::Allow, EntryVerdict::Allow, Says::Allow),
            (Action::Allow, Some(rules)) => match self.known.config.proxies.port(rules.parser()) {
                Some(port) => {
                    let says = Says::Requests {
                        rules: Arc::clone(rules),
                        at: ports.map(|ports| ports.path.clone()),
                    };
                    (Rank::Redirect, EntryVerdict::Redirect(port), says)
                }
                // Nobody could look at the requests. Rules like this are refused before they come here.
                None => (Rank::Deny, EntryVerdict::Deny, Says::Deny),
            },
        };
        let ruling = Ruling { rule: installed.id, ..Ruling::new(rule.tier, rule.priority, rank, verdict) };
        (ruling, self.judges_requests(rule.direction).then_some(says))
    }
}
