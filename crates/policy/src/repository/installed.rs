//! A rule in force: with its number, and with its selectors in the cache.

use sluice_types::{Direction, Identity, RuleId};

use crate::{
    rule::{Peers, PolicyRef, Ports, Rule, RuleOrigin, Traffic},
    selector::Selector,
    selector_cache::{SelectorCache, SelectorId},
};

/// The other side, by place in the cache.
#[derive(Debug)]
pub(crate) enum PeerSet {
    /// Everybody, known or not.
    Any,
    /// Whoever one of these matches.
    Select(Vec<SelectorId>),
    /// The same, given as endpoint selectors, which `requires` narrows.
    Endpoints(Vec<SelectorId>),
}

/// A rule in force.
#[derive(Debug)]
pub(crate) struct InstalledRule {
    pub(crate) id: RuleId,
    pub(crate) rule: Rule,
    pub(crate) origin: RuleOrigin,
    pub(crate) peers: PeerSet,
    /// What peers of the subject's rules of this direction and action must match.
    pub(crate) requires: Vec<SelectorId>,
}

impl InstalledRule {
    /// Takes the rule's selectors into the cache; whoever drops the rule must release them.
    pub(crate) fn new(policy: &PolicyRef, rule: Rule, id: RuleId, cache: &mut SelectorCache) -> Self {
        let peers = match &rule.peers {
            Peers::Any => PeerSet::Any,
            Peers::Select(selectors) => {
                PeerSet::Select(selectors.iter().map(|selector| cache.acquire(selector)).collect())
            }
            Peers::Endpoints(selectors) => {
                let mut acquire = |selector| cache.acquire(&Selector::Labels(selector));
                PeerSet::Endpoints(selectors.iter().cloned().map(&mut acquire).collect())
            }
        };
        let requires =
            rule.requires.iter().map(|selector| cache.acquire(&Selector::Labels(selector.clone()))).collect();
        let origin = RuleOrigin {
            policy: policy.clone(),
            path: rule.path.clone(),
            description: rule.description.clone(),
            log: rule.log.clone(),
        };
        Self { id, rule, origin, peers, requires }
    }

    /// Every selector it uses, as often as it uses it.
    pub(crate) fn selectors(&self) -> impl Iterator<Item = SelectorId> {
        let peers = match &self.peers {
            PeerSet::Any => [].as_slice(),
            PeerSet::Select(selectors) | PeerSet::Endpoints(selectors) => selectors,
        };
        peers.iter().chain(&self.requires).copied()
    }

    /// Whether the port names of peers matter: those of the receiving side, which for egress is the peer.
    pub(crate) fn looks_at_peer_names(&self) -> bool {
        let Ports::Select(traffic) = &self.rule.ports else { return false };
        self.rule.direction == Direction::Egress
            && traffic.iter().any(|traffic| matches!(traffic, Traffic::NamedPort(..)))
    }

    /// Whether its peers may include this identity.
    pub(crate) fn may_select(&self, identity: Identity, cache: &SelectorCache) -> bool {
        match &self.peers {
            PeerSet::Any => true,
            PeerSet::Select(selectors) | PeerSet::Endpoints(selectors) => selectors
                .iter()
                .filter_map(|selector| cache.matches(*selector))
                .any(|matches| matches.contains(&identity)),
        }
    }
}
