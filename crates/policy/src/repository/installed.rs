//! A rule in force: with its number, and with its selectors in the cache.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use sluice_types::{Direction, Identity, RuleId};

use crate::{
    referents::{CidrGroup, Referents, Service, ServiceName, means},
    rule::{Peers, PolicyRef, PrefixSource, Rule, RuleOrigin, RuleSubject, Traffic},
    selector::Selector,
    selector_cache::{IdentitySet, SelectorCache, SelectorId},
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
    /// Where it stands among the rules of its policy.
    pub(crate) place: usize,
    /// Whom it applies to, and the one namespace they are in if there is one.
    pub(crate) subject: Arc<RuleSubject>,
    pub(crate) home: Option<Arc<str>>,
    pub(crate) rule: Rule,
    pub(crate) origin: RuleOrigin,
    pub(crate) peers: PeerSet,
    /// What peers of the subject's rules of this direction and action must match.
    pub(crate) requires: Vec<SelectorId>,
    /// The addresses outside of the cluster that Services of `ports` stand for: each needs an identity of its own.
    addresses: BTreeMap<IpAddr, SelectorId>,
}

impl InstalledRule {
    /// Takes the rule's selectors into the cache; whoever drops the rule must release them.
    pub(crate) fn new(
        policy: &PolicyRef,
        rule: Rule,
        place: usize,
        id: RuleId,
        cache: &mut SelectorCache,
        referents: &Referents,
        cluster: &str,
    ) -> Self {
        let select = |cache: &mut SelectorCache, selectors: &[Selector]| {
            PeerSet::Select(selectors.iter().map(|selector| cache.acquire(selector)).collect())
        };
        let peers = match &rule.peers {
            Peers::Any => PeerSet::Any,
            Peers::Select(selectors) => select(cache, selectors),
            Peers::Endpoints(selectors) => {
                let mut acquire = |selector| cache.acquire(&Selector::Labels(selector));
                PeerSet::Endpoints(selectors.iter().cloned().map(&mut acquire).collect())
            }
            named @ (Peers::Prefixes(_) | Peers::Services(_)) => {
                select(cache, &referents.expand(named, cluster).unwrap_or_default())
            }
        };
        let requires =
            rule.requires.iter().map(|selector| cache.acquire(&Selector::Labels(selector.clone()))).collect();
        let addresses = service_addresses(&rule, referents)
            .into_iter()
            .map(|address| (address, cache.acquire(&Selector::prefix(address.into()))))
            .collect();
        let origin = RuleOrigin {
            policy: policy.clone(),
            path: rule.path.clone(),
            description: rule.description.clone(),
            log: rule.log.clone(),
        };
        let subject = Arc::new(rule.subject.clone());
        let home = subject.namespace().map(Arc::from);
        Self { id, place, subject, home, rule, origin, peers, requires, addresses }
    }

    /// Every selector it uses, as often as it uses it.
    pub(crate) fn selectors(&self) -> impl Iterator<Item = SelectorId> {
        let peers = match &self.peers {
            PeerSet::Any => [].as_slice(),
            PeerSet::Select(selectors) | PeerSet::Endpoints(selectors) => selectors,
        };
        peers.iter().chain(&self.requires).chain(self.addresses.values()).copied()
    }

    /// Who stands for an address that a Service of this rule has outside of the cluster.
    pub(crate) fn identities_at(&self, address: IpAddr, cache: &SelectorCache) -> IdentitySet {
        let selector = self.addresses.get(&address);
        selector.and_then(|selector| cache.matches(*selector)).cloned().unwrap_or_default()
    }

    /// Whether it refers to anything by name.
    pub(crate) fn has_referents(&self) -> bool {
        let by_peer = matches!(self.rule.peers, Peers::Services(_))
            || matches!(&self.rule.peers, Peers::Prefixes(peers)
                if peers.iter().any(|peer| !matches!(peer.source, PrefixSource::Prefix(_))));
        by_peer || self.rule.ports.rules().any(|ports| ports.service.is_some())
    }

    /// Whether a change of this Service, which is or was so, can change what the rule means.
    pub(crate) fn mentions_service(&self, name: &ServiceName, forms: [Option<&Service>; 2]) -> bool {
        let by_peer = match &self.rule.peers {
            Peers::Services(peers) => peers
                .iter()
                .any(|peer| forms.into_iter().flatten().any(|service| means(peer, name, &service.labels))),
            Peers::Any | Peers::Select(_) | Peers::Endpoints(_) | Peers::Prefixes(_) => false,
        };
        by_peer || self.rule.ports.rules().any(|ports| ports.service.as_ref() == Some(name))
    }

    /// Whether a change of this group, which is or was so, can change what the rule means.
    pub(crate) fn mentions_group(&self, name: &str, forms: [Option<&CidrGroup>; 2]) -> bool {
        let Peers::Prefixes(peers) = &self.rule.peers else { return false };
        peers.iter().any(|peer| match &peer.source {
            PrefixSource::Prefix(_) => false,
            PrefixSource::Group(wanted) => wanted == name,
            PrefixSource::Groups(selector) => {
                forms.into_iter().flatten().any(|group| selector.matches(&group.labels))
            }
        })
    }

    /// What it refers to that stands for nothing now, in words.
    pub(crate) fn unresolved(&self, referents: &Referents) -> Vec<String> {
        let mut missing = Vec::new();
        if let Peers::Prefixes(peers) = &self.rule.peers {
            for peer in peers {
                match &peer.source {
                    PrefixSource::Group(name) if !referents.groups.contains_key(name) => {
                        missing.push(format!("there is no CiliumCIDRGroup {name}"));
                    }
                    PrefixSource::Groups(selector)
                        if !referents.groups.values().any(|group| selector.matches(&group.labels)) =>
                    {
                        missing.push(format!("no CiliumCIDRGroup has the labels {selector}"));
                    }
                    PrefixSource::Prefix(_) | PrefixSource::Group(_) | PrefixSource::Groups(_) => {}
                }
            }
        }
        if let Peers::Services(peers) = &self.rule.peers {
            let is_known = |peer| referents.services.iter().any(|(name, own)| means(peer, name, &own.labels));
            let unknown = peers.iter().filter(|peer| !is_known(peer));
            missing.extend(unknown.map(|peer| format!("there is no Service {peer}")));
        }
        let names = self.rule.ports.rules().filter_map(|ports| ports.service.as_ref());
        for name in names {
            match referents.services.get(name) {
                None => missing.push(format!("there is no Service {name}")),
                Some(service) if service.backends.is_empty() => {
                    missing.push(format!("the Service {name} has no backends"));
                }
                Some(_) => {}
            }
        }
        missing
    }

    /// Whether the port names of peers matter: those of the receiving side, which for egress is the peer.
    pub(crate) fn looks_at_peer_names(&self) -> bool {
        let mut traffic = self.rule.ports.rules().flat_map(|ports| &ports.traffic);
        self.rule.direction == Direction::Egress
            && traffic.any(|traffic| matches!(traffic, Traffic::NamedPort(..)))
    }

    /// Whether its peers may include this identity.
    pub(crate) fn may_select(&self, identity: Identity, cache: &SelectorCache) -> bool {
        match &self.peers {
            PeerSet::Any => true,
            PeerSet::Select(selectors) | PeerSet::Endpoints(selectors) => selectors
                .iter()
                .filter_map(|selector| cache.matches(*selector))
                .any(|matches| matches.contains(identity)),
        }
    }
}

/// The addresses without a pod that an egress rule's Services have: their own, and backends outside of the cluster.
fn service_addresses(rule: &Rule, referents: &Referents) -> BTreeSet<IpAddr> {
    if rule.direction == Direction::Ingress {
        return BTreeSet::new();
    }
    let names = rule.ports.rules().filter_map(|ports| ports.service.as_ref());
    let services = names.filter_map(|name| referents.services.get(name));
    let addresses = |service: &Service| {
        let outside = service.backends.iter().filter(|backend| backend.identity.is_none());
        let outside = outside.map(|backend| backend.address);
        service.cluster_ips.iter().copied().chain(outside).collect::<Vec<_>>()
    };
    services.flat_map(addresses).collect()
}
