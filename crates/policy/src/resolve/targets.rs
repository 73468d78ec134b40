//! Whom and what one rule is about: peers, ports, and what Services add.

use sluice_types::{Direction, Identity, Protocol};

use super::{Resolver, Wanted};
use crate::{
    map_state::L4Match,
    referents::{Backend, Service, ServiceName, ServicePort},
    repository::{InstalledRule, PeerSet},
    rule::{Action, PortRange, PortRule, Traffic},
    selector_cache::IdentitySet,
};

/// Takes a peer (`None` is everybody), a block of ports, and whether a rule names exactly this port.
pub(super) type Put<'p> = dyn FnMut(Option<Identity>, L4Match, bool) + 'p;

impl Resolver<'_> {
    /// Every peer and block of ports that an element of a rule is about; `None` is all traffic.
    pub(super) fn each_target(
        &self,
        installed: &InstalledRule,
        ports: Option<&PortRule>,
        peers: &[Option<Identity>],
        wanted: Wanted,
        put: &mut Put<'_>,
    ) {
        let Some(ports) = ports else {
            peers.iter().for_each(|peer| put(*peer, L4Match::Any, false));
            return;
        };
        if let Some(service) = &ports.service {
            self.each_behind_service(installed, ports, service, peers, wanted, put);
            return;
        }
        for traffic in &ports.traffic {
            match traffic {
                Traffic::NamedPort(protocol, name) if installed.rule.direction == Direction::Egress => {
                    for peer in self.peers_with_names(installed, wanted).iter() {
                        for number in self.known.peer_names.numbers(peer, name, *protocol) {
                            put(Some(peer), L4Match::port(*protocol, number), true);
                        }
                    }
                }
                Traffic::Protocol(_) | Traffic::Ports(..) | Traffic::NamedPort(..) | Traffic::Icmp(..) => {
                    for (l4, exact) in self.matches(traffic) {
                        peers.iter().for_each(|peer| put(*peer, l4, exact));
                    }
                }
            }
        }
    }

    fn matches(&self, traffic: &Traffic) -> Vec<(L4Match, bool)> {
        let blocks = |protocol, range: PortRange| {
            let exact = range.bounds().start() == range.bounds().end();
            let block = move |(port, prefix)| match prefix {
                0 => (L4Match::Protocol(protocol), false),
                _ => (L4Match::Port { protocol, port, prefix }, exact),
            };
            range.blocks().map(block).collect()
        };
        match traffic {
            Traffic::Protocol(protocol) => vec![(L4Match::Protocol(*protocol), false)],
            Traffic::Ports(protocol, range) => blocks(*protocol, *range),
            Traffic::Icmp(protocol, kind) => vec![(L4Match::port(*protocol, u16::from(*kind)), true)],
            Traffic::NamedPort(protocol, name) => {
                let number = self.own_names.get(&(name.clone(), *protocol));
                number.map(|number| (L4Match::port(*protocol, *number), true)).into_iter().collect()
            }
        }
    }

    /// The peers of a rule; everybody is one entry, and nobody's in particular.
    pub(super) fn peers(&self, rule: &InstalledRule, wanted: Wanted) -> Vec<Option<Identity>> {
        match (&rule.peers, wanted) {
            (PeerSet::Any, Wanted::All) => vec![None],
            (PeerSet::Any, Wanted::One(_)) => Vec::new(),
            (PeerSet::Select(_) | PeerSet::Endpoints(_), _) => {
                self.selected(rule, wanted).iter().map(Some).collect()
            }
        }
    }

    /// The peers of a rule that give names to their ports. Nobody outside does, so "everybody" means those.
    fn peers_with_names(&self, rule: &InstalledRule, wanted: Wanted) -> IdentitySet {
        match (&rule.peers, wanted) {
            (PeerSet::Any, Wanted::All) => self.known.peer_names.identities().collect(),
            (PeerSet::Any, Wanted::One(identity)) => IdentitySet::from_iter([identity]),
            (PeerSet::Select(_) | PeerSet::Endpoints(_), _) => self.selected(rule, wanted),
        }
    }

    fn selected(&self, rule: &InstalledRule, wanted: Wanted) -> IdentitySet {
        let (selectors, required) = match &rule.peers {
            PeerSet::Any => return IdentitySet::default(),
            PeerSet::Select(selectors) => (selectors, None),
            PeerSet::Endpoints(selectors) => {
                (selectors, self.required.get(&(rule.rule.direction, rule.rule.action)))
            }
        };
        let selected = selectors.iter().filter_map(|selector| self.known.cache.matches(*selector));
        let fulfils = |identity: &Identity| {
            required.into_iter().flatten().all(|selector| {
                self.known.cache.matches(*selector).is_some_and(|matches| matches.contains(*identity))
            })
        };
        match wanted {
            Wanted::All => selected.flat_map(IdentitySet::iter).filter(fulfils).collect(),
            Wanted::One(identity) => {
                let mut selected = selected;
                let is_selected = selected.any(|matches| matches.contains(identity));
                (is_selected && fulfils(&identity)).then_some(identity).into_iter().collect()
            }
        }
    }

    /// An element that holds only behind a Service: for ingress the subject must be behind it, for egress the peer.
    fn each_behind_service(
        &self,
        installed: &InstalledRule,
        ports: &PortRule,
        name: &ServiceName,
        peers: &[Option<Identity>],
        wanted: Wanted,
        put: &mut Put<'_>,
    ) {
        let Some(service) = self.known.referents.services.get(name) else { return };
        match installed.rule.direction {
            Direction::Ingress => {
                let own = self.own_services.get(name).copied().unwrap_or_default();
                let named = |port: &ServicePort, name: &str| {
                    self.own_names.get(&(name.to_owned(), port.protocol)) == Some(&port.port)
                };
                let meant =
                    own.iter().filter(|port| means_port(ports, service, port, &|name| named(port, name)));
                for port in meant {
                    let l4 = L4Match::port(port.protocol, port.port);
                    peers.iter().for_each(|peer| put(*peer, l4, true));
                }
            }
            Direction::Egress => self.each_backend(installed, ports, service, wanted, put),
        }
    }

    fn each_backend(
        &self,
        installed: &InstalledRule,
        ports: &PortRule,
        service: &Service,
        wanted: Wanted,
        put: &mut Put<'_>,
    ) {
        let peers = self.selected(installed, Wanted::All);
        let is_peer =
            |identity: &Identity| matches!(installed.peers, PeerSet::Any) || peers.contains(*identity);
        for backend in &service.backends {
            for identity in self.identities_of(installed, backend).iter().filter(&is_peer) {
                if wanted.includes(identity) {
                    for port in backend.ports.iter().filter(|port| self.means(ports, service, port, identity))
                    {
                        put(Some(identity), L4Match::port(port.protocol, port.port), true);
                    }
                }
            }
        }
        // The packet may be seen before the Service's address is translated.
        for port in service.ports.iter().filter(|own| self.leads_to(installed, ports, service, own, &is_peer))
        {
            for address in &service.cluster_ips {
                for identity in installed.identities_at(*address, self.known.cache).iter() {
                    if wanted.includes(identity) {
                        put(Some(identity), L4Match::port(port.protocol, port.port), true);
                    }
                }
            }
        }
    }

    /// Whether traffic to a Service's own port is what the element is about. Where it goes is not known before
    /// translation: what is allowed must hold for every backend, and what is denied for one of them.
    fn leads_to(
        &self,
        installed: &InstalledRule,
        ports: &PortRule,
        service: &Service,
        own: &ServicePort,
        is_peer: &dyn Fn(&Identity) -> bool,
    ) -> bool {
        let behind = service.backends.iter().flat_map(|backend| {
            let same = move |port: &&ServicePort| port.name == own.name && port.protocol == own.protocol;
            backend.ports.iter().filter(same).map(move |port| (backend, port))
        });
        let mut meant = behind.map(|(backend, port)| {
            let identities = self.identities_of(installed, backend);
            let holds =
                |identity: &Identity| is_peer(identity) && self.means(ports, service, port, *identity);
            match installed.rule.action {
                Action::Allow => !identities.is_empty() && identities.iter().all(|identity| holds(&identity)),
                Action::Deny | Action::Pass => identities.iter().any(|identity| holds(&identity)),
            }
        });
        match installed.rule.action {
            Action::Allow => {
                let first = meant.next();
                first == Some(true) && meant.all(|meant| meant)
            }
            Action::Deny | Action::Pass => meant.any(|meant| meant),
        }
    }

    /// Whether an element means this port of a backend: by its own number or name, by those of the Service's port
    /// that leads to it, or by the name that the pod gives it.
    fn means(&self, ports: &PortRule, service: &Service, backend: &ServicePort, identity: Identity) -> bool {
        let named = |name: &str| {
            let mut numbers = self.known.peer_names.numbers(identity, name, backend.protocol);
            numbers.any(|number| number == backend.port)
        };
        means_port(ports, service, backend, &named)
    }

    /// Who a backend is: the pod that has the address, or whatever stands for the address outside of the cluster.
    fn identities_of(&self, installed: &InstalledRule, backend: &Backend) -> IdentitySet {
        match backend.identity {
            Some(identity) => IdentitySet::from_iter([identity]),
            None => installed.identities_at(backend.address, self.known.cache),
        }
    }
}

/// Whether an element means this port of a backend: by its own number or name, by those of the Service's port that
/// leads to it, or by a name that the pod itself gives it.
pub(crate) fn means_port(
    ports: &PortRule,
    service: &Service,
    backend: &ServicePort,
    is_named: &dyn Fn(&str) -> bool,
) -> bool {
    let is_same = |own: &&ServicePort| own.name == backend.name && own.protocol == backend.protocol;
    covers(ports, backend, is_named)
        || service.ports.iter().filter(is_same).any(|own| covers(ports, own, &|_| false))
}

fn covers(ports: &PortRule, port: &ServicePort, is_named: &dyn Fn(&str) -> bool) -> bool {
    let same = |protocol: Protocol| protocol == port.protocol;
    ports.traffic.iter().any(|traffic| match traffic {
        Traffic::Protocol(protocol) => same(*protocol),
        Traffic::Ports(protocol, range) => same(*protocol) && range.bounds().contains(&port.port),
        Traffic::NamedPort(protocol, name) => same(*protocol) && (*name == port.name || is_named(name)),
        Traffic::Icmp(..) => false,
    })
}
