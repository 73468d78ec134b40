//! A small cluster for tests: pods, nodes and addresses by name, policies as text.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use sluice_api::{Object, read_manifests};
use sluice_types::{Direction, DropReason, Identity, Label, Labels, Protocol, RuleId, Verdict};

use crate::{
    Backend, CidrGroup, Config, Decision, NamedPort, PolicyRef, Query, Repository, Rule, Service,
    ServiceName, ServicePort, Subject,
    l7::FqdnSelector,
    labels::{cidr_labels, pod_labels, reserved_labels},
    parse::{self, ParseError},
};

/// What was decided, by the side that decided first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// Both sides allow.
    Allow,
    /// A deny rule.
    Deny,
    /// No rule allows it.
    Default,
    /// It passes, and is reported as what would have been denied.
    Audit,
    /// A proxy decides about the requests in it.
    Proxied,
    /// A proxy refuses the request.
    Refused,
}

/// A cluster with its policies.
pub(super) struct Scene {
    pub(super) repository: Repository,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pods: BTreeMap<String, Subject>,
    /// The addresses of pods, as far as Services lead to them.
    addresses: BTreeMap<String, IpAddr>,
    identities: BTreeMap<Labels, Identity>,
    prefixes: BTreeMap<IpNet, Identity>,
    also: BTreeMap<IpNet, Labels>,
    /// The names that addresses were learnt for.
    names: BTreeMap<IpAddr, Vec<String>>,
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

impl Scene {
    pub(super) fn new(config: Config) -> Self {
        let mut repository = Repository::new(config);
        for (identity, _) in Identity::reserved() {
            drop(repository.set_identity(identity, reserved_labels(identity)));
        }
        Self {
            repository,
            namespaces: BTreeMap::new(),
            pods: BTreeMap::new(),
            addresses: BTreeMap::new(),
            identities: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            also: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    /// Namespaces `shop` (team a), `pay` (team b) with pods `frontend`, `backend`, `db`, and DNS in `kube-system`.
    pub(super) fn shop() -> Self {
        Self::shop_with(Config::default())
    }

    pub(super) fn shop_with(config: Config) -> Self {
        let mut scene = Self::new(config);
        scene.namespace("shop", &[("team", "a")]);
        scene.namespace("pay", &[("team", "b")]);
        scene.namespace("kube-system", &[]);
        for namespace in ["shop", "pay"] {
            for app in ["frontend", "backend", "db"] {
                let tier = if app == "frontend" { "web" } else { "inner" };
                scene.pod(&format!("{namespace}/{app}"), &[("app", app), ("tier", tier)], &[]);
            }
        }
        scene.pod("kube-system/dns", &[("k8s-app", "kube-dns")], &[("dns", Protocol::Udp, 53)]);
        scene
    }

    pub(super) fn namespace(&mut self, name: &str, labels: &[(&str, &str)]) {
        self.namespaces.insert(name.to_owned(), map(labels));
    }

    pub(super) fn pod(&mut self, name: &str, labels: &[(&str, &str)], ports: &[(&str, Protocol, u16)]) {
        let (namespace, _) = name.split_once('/').unwrap();
        let of_namespace = self.namespaces.entry(namespace.to_owned()).or_default().clone();
        let labels = pod_labels(&map(labels), namespace, &of_namespace, "default", "default");
        self.endpoint(name, labels, ports);
    }

    /// An endpoint with exactly these labels.
    pub(super) fn endpoint(&mut self, name: &str, labels: Labels, ports: &[(&str, Protocol, u16)]) {
        let next = Identity::new(u32::try_from(256 + self.identities.len()).unwrap());
        let identity = *self.identities.entry(labels.clone()).or_insert(next);
        drop(self.repository.set_identity(identity, labels.clone()));
        let named_ports: Vec<NamedPort> = ports
            .iter()
            .map(|(name, protocol, port)| NamedPort {
                name: (*name).to_owned(),
                protocol: *protocol,
                port: *port,
            })
            .collect();
        drop(self.repository.set_named_ports(name, identity, named_ports.clone()));
        let before = self.pods.insert(
            name.to_owned(),
            Subject { identity, labels, named_ports, services: Vec::new(), audit: false },
        );
        let in_use = |identity| self.pods.values().any(|pod| pod.identity == identity);
        if let Some(before) = before.filter(|before| !in_use(before.identity)) {
            drop(self.repository.remove_identity(before.identity));
        }
    }

    /// Gives the addresses of a prefix one more label, as the API server's address has.
    pub(super) fn also(&mut self, prefix: &str, label: &str) {
        self.also.entry(prefix.parse().unwrap()).or_default().insert(label.parse().unwrap());
        self.sync_prefixes();
    }

    /// An answer of the DNS: these names have the address.
    pub(super) fn learn(&mut self, address: &str, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.names.insert(address.parse().unwrap(), names);
        self.sync_prefixes();
    }

    /// What the agent does: a label for every rule about names that means one of an address's.
    fn name_labels(&self, address: IpAddr) -> Labels {
        let wanted = self.repository.selectors().filter_map(|view| FqdnSelector::of_selector(view.selector));
        let known = self.names.get(&address).map(Vec::as_slice).unwrap_or_default();
        wanted
            .filter(|wanted| known.iter().any(|name| wanted.matches(name)))
            .map(|wanted| wanted.label())
            .collect()
    }

    pub(super) fn subject(&self, name: &str) -> &Subject {
        &self.pods[name]
    }

    pub(super) fn subject_mut(&mut self, name: &str) -> &mut Subject {
        self.pods.get_mut(name).unwrap()
    }

    /// Brings policies into force; other objects are left out.
    pub(super) fn apply(&mut self, text: &str) {
        for manifest in read_manifests(text).into_iter().filter(|manifest| manifest.kind.ends_with("Policy"))
        {
            let (name, rules) = parse_object(manifest.content.unwrap(), self.repository.config());
            drop(self.repository.upsert(name, rules.unwrap()));
        }
        self.sync_prefixes();
    }

    /// Brings a `CiliumNetworkPolicy` named `name` of namespace `shop` into force.
    pub(super) fn cnp(&mut self, name: &str, spec: &str) {
        self.apply(&policy_text("CiliumNetworkPolicy", "shop", name, spec));
    }

    pub(super) fn ccnp(&mut self, name: &str, spec: &str) {
        self.apply(&policy_text("CiliumClusterwideNetworkPolicy", "", name, spec));
    }

    pub(super) fn kcnp(&mut self, name: &str, spec: &str) {
        self.apply(&policy_text("ClusterNetworkPolicy", "", name, spec));
    }

    pub(super) fn knp(&mut self, name: &str, spec: &str) {
        self.apply(&policy_text("NetworkPolicy", "shop", name, spec));
    }

    /// Says what the Service `namespace/name` is. `ports` are its own with the number they lead to, `behind` are pods
    /// and addresses.
    pub(super) fn service(
        &mut self,
        name: &str,
        form: Service,
        ports: &[(&str, Protocol, u16, u16)],
        behind: &[&str],
    ) {
        let port = |name: &str, protocol, port| ServicePort { name: name.to_owned(), protocol, port };
        let own = ports.iter().map(|(name, protocol, own, _)| port(name, *protocol, *own)).collect();
        let targets: Vec<ServicePort> =
            ports.iter().map(|(name, protocol, _, target)| port(name, *protocol, *target)).collect();
        let backends = behind.iter().map(|name| Backend {
            address: self.address(name),
            identity: self.pods.get(*name).map(|pod| pod.identity),
            ports: targets.clone(),
        });
        let service = Service { ports: own, backends: backends.collect(), ..form };
        drop(self.repository.set_service(service_name(name), service));
        self.sync_prefixes();
    }

    pub(super) fn remove_service(&mut self, name: &str) {
        drop(self.repository.remove_service(&service_name(name)));
        self.sync_prefixes();
    }

    pub(super) fn group(&mut self, name: &str, labels: &[&str], prefixes: &[&str]) {
        let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
        drop(self.repository.set_cidr_group(name, CidrGroup { labels: self::labels(labels), prefixes }));
        self.sync_prefixes();
    }

    pub(super) fn remove_group(&mut self, name: &str) {
        drop(self.repository.remove_cidr_group(name));
        self.sync_prefixes();
    }

    /// Gives a reserved identity more labels, as nodes have their own.
    pub(super) fn relabel(&mut self, identity: Identity, more: &[&str]) {
        let mut all = reserved_labels(identity);
        all.extend(labels(more));
        drop(self.repository.set_identity(identity, all));
    }

    /// What rules name without anybody knowing it.
    pub(super) fn unresolved(&self) -> Vec<String> {
        let mut found: Vec<String> = self
            .repository
            .unresolved()
            .map(|(id, what)| format!("{}: {what}", self.repository.rule(id).unwrap()))
            .collect();
        found.sort();
        found
    }

    /// A pod's address, or the address that is written.
    fn address(&mut self, name: &str) -> IpAddr {
        if !self.pods.contains_key(name) {
            return name.parse().unwrap();
        }
        let next = u8::try_from(self.addresses.len() + 1).unwrap();
        *self.addresses.entry(name.to_owned()).or_insert(IpAddr::V4(Ipv4Addr::new(10, 244, 0, next)))
    }

    pub(super) fn remove(&mut self, policy: &PolicyRef) {
        drop(self.repository.remove(policy));
        self.sync_prefixes();
    }

    /// What the agent does: an identity for every prefix that a rule names, and the Services of every pod.
    pub(super) fn sync_prefixes(&mut self) {
        let mut known = self.repository.prefixes();
        known.extend(self.also.keys().copied());
        known.extend(self.names.keys().map(|address| IpNet::from(*address)));
        let gone: Vec<IpNet> =
            self.prefixes.keys().filter(|prefix| !known.contains(prefix)).copied().collect();
        for prefix in gone {
            let identity = self.prefixes.remove(&prefix).unwrap();
            drop(self.repository.remove_identity(identity));
        }
        for prefix in &known {
            let free = (1..).map(|offset| Identity::new(Identity::LOCAL_MIN.as_u32() + offset));
            let identity = match self.prefixes.get(prefix) {
                Some(identity) => *identity,
                None => free.into_iter().find(|id| !self.prefixes.values().any(|used| used == id)).unwrap(),
            };
            self.prefixes.insert(*prefix, identity);
            let mut labels = cidr_labels(*prefix, &known);
            labels.extend(self.also.get(prefix).cloned().into_iter().flatten());
            labels.extend(self.name_labels(prefix.addr()));
            drop(self.repository.set_identity(identity, labels));
        }
        for (name, pod) in &mut self.pods {
            let address = self.addresses.get(name).copied();
            pod.services = self.repository.memberships(&address.into_iter().collect::<Vec<_>>());
        }
    }

    /// The identity behind a name: a pod, a reserved name, or an address by its longest prefix.
    pub(super) fn identity(&self, name: &str) -> Identity {
        if let Some(pod) = self.pods.get(name) {
            return pod.identity;
        }
        if let Some((identity, _)) = Identity::reserved().find(|(_, reserved)| *reserved == name) {
            return identity;
        }
        let address: IpNet = IpNet::from(name.parse::<std::net::IpAddr>().unwrap());
        let covering = self.prefixes.iter().filter(|(prefix, _)| prefix.contains(&address));
        match (covering.max_by_key(|(prefix, _)| prefix.prefix_len()), address) {
            (Some((_, identity)), _) => *identity,
            (None, IpNet::V4(_)) => Identity::WORLD_IPV4,
            (None, IpNet::V6(_)) => Identity::WORLD_IPV6,
        }
    }

    pub(super) fn decide(&self, subject: &str, direction: Direction, peer: &str, traffic: &str) -> Decision {
        let policy = self.repository.resolve(&self.pods[subject]);
        let (protocol, port) = parse_traffic(traffic);
        policy.map_state.decide(&Query { direction, peer: self.identity(peer), protocol, port: Some(port) })
    }

    /// The rule that decided, `cnp/shop/p ingress[0]`.
    pub(super) fn decided_by(
        &self,
        subject: &str,
        direction: Direction,
        peer: &str,
        traffic: &str,
    ) -> String {
        let decision = self.decide(subject, direction, peer, traffic);
        match self.repository.rule(decision.rule) {
            Some(origin) => origin.to_string(),
            None => {
                assert_eq!(decision.rule, RuleId::NONE);
                "nobody".to_owned()
            }
        }
    }

    /// Sends `traffic` (`TCP/80`, `ICMP/8`) and says what happens to it. Only pods judge.
    pub(super) fn send(&self, from: &str, to: &str, traffic: &str) -> Outcome {
        let sides = [(from, Direction::Egress, to), (to, Direction::Ingress, from)];
        let mut audited = false;
        for (subject, direction, peer) in sides {
            if !self.pods.contains_key(subject) {
                continue;
            }
            match self.decide(subject, direction, peer, traffic).verdict {
                Verdict::Allow => {}
                Verdict::Deny(DropReason::PolicyDeny) => return Outcome::Deny,
                Verdict::Deny(DropReason::PolicyDenied) => return Outcome::Default,
                Verdict::Audit(_) => audited = true,
                Verdict::Redirect(_) => return Outcome::Proxied,
                other @ Verdict::Deny(_) => panic!("{other:?}"),
            }
        }
        if audited { Outcome::Audit } else { Outcome::Allow }
    }

    /// Asserts one line per case: `from -> to TRAFFIC [TRAFFIC…]: allow|deny|default|audit`.
    pub(super) fn check(&self, table: &str) {
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (case, want) = line.rsplit_once(": ").unwrap();
            let words: Vec<&str> = case.split_whitespace().collect();
            let [from, "->", to, traffic @ ..] = words.as_slice() else { panic!("{line}") };
            let want = match want {
                "allow" => Outcome::Allow,
                "deny" => Outcome::Deny,
                "default" => Outcome::Default,
                "audit" => Outcome::Audit,
                other => panic!("{other}"),
            };
            assert!(!traffic.is_empty(), "{line}");
            for traffic in traffic {
                assert_eq!(self.send(from, to, traffic), want, "{from} -> {to} {traffic}");
            }
        }
    }
}

fn service_name(text: &str) -> ServiceName {
    let (namespace, name) = text.split_once('/').unwrap();
    ServiceName { namespace: namespace.to_owned(), name: name.to_owned() }
}

pub(super) fn parse_traffic(text: &str) -> (Protocol, u16) {
    let (protocol, port) = text.split_once('/').unwrap();
    let protocol = match protocol {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        "ICMP" => Protocol::Icmp,
        "ICMPv6" => Protocol::Icmpv6,
        number => Protocol::from_number(number.parse().unwrap()),
    };
    (protocol, port.parse().unwrap())
}

pub(super) fn policy_text(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    let group = match kind {
        "NetworkPolicy" => "networking.k8s.io/v1",
        "ClusterNetworkPolicy" => "policy.networking.k8s.io/v1alpha2",
        _ => "cilium.io/v2",
    };
    let namespace = if namespace.is_empty() { String::new() } else { format!(", namespace: {namespace}") };
    format!("apiVersion: {group}\nkind: {kind}\nmetadata: {{name: {name}{namespace}}}\nspec: {spec}\n")
}

pub(super) fn parse_object(
    object: Object,
    config: &Config,
) -> (PolicyRef, Result<Vec<Rule>, Vec<ParseError>>) {
    parse::object(&object, config).unwrap()
}

/// What is wrong with a policy, one line per error; empty if nothing is.
pub(super) fn errors(kind: &str, spec: &str) -> Vec<String> {
    errors_with(kind, spec, &Config { referents: true, ..Config::default() })
}

pub(super) fn errors_with(kind: &str, spec: &str, config: &Config) -> Vec<String> {
    let namespace = if kind.starts_with('C') && kind != "CiliumNetworkPolicy" { "" } else { "shop" };
    let text = policy_text(kind, namespace, "p", spec);
    let manifest = read_manifests(&text).remove(0);
    match manifest.content {
        Err(error) => vec![error.to_string()],
        Ok(object) => match parse_object(object, config).1 {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        },
    }
}

pub(super) fn labels(texts: &[&str]) -> Labels {
    texts.iter().map(|text| text.parse::<Label>().unwrap()).collect()
}

#[test]
fn the_scene_knows_its_cast() {
    let scene = Scene::shop();
    let identities: BTreeSet<Identity> = scene.pods.values().map(|pod| pod.identity).collect();
    assert_eq!(identities.len(), scene.pods.len());
    scene.check("shop/frontend -> pay/db TCP/1 UDP/2 ICMP/8 47/0: allow");
    assert_eq!(scene.identity("192.0.2.1"), Identity::WORLD_IPV4);
    assert_eq!(scene.identity("2001:db8::1"), Identity::WORLD_IPV6);
    assert_eq!(scene.identity("host"), Identity::HOST);
}
