//! Whatever happened before: a policy that was patched again and again is the one that a repository comes to which
//! sees only the last state of everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use proptest::{collection::vec, prelude::*};
use sluice_api::read_manifests;
use sluice_types::{Identity, Labels, Protocol, RuleId};

use super::scene::{labels, parse_object, policy_text};
use crate::{
    Backend, CidrGroup, Config, EndpointPolicy, NamedPort, PolicyKind, PolicyRef, Repository, Rule, Service,
    ServiceName, ServicePort, Subject,
    rule::{Action, Priority, Tier},
    selector::{LabelKey, LabelSelector, Requirement},
};

const SUBJECTS: [(u32, &str, &str); 3] =
    [(300, "k8s:app=web", "10.0.0.1"), (301, "k8s:app=db", "10.0.0.2"), (302, "k8s:app=api", "10.0.0.3")];
const NAMESPACE: &str = "k8s:io.kubernetes.pod.namespace=shop";
const CLUSTER: &str = "k8s:io.cilium.k8s.policy.cluster=default";

/// Each way to depend on something that changes.
const SPECS: [&str; 16] = [
    "{endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {app: web}}, {matchLabels: {tier: t}}]}]}",
    "{endpointSelector: {}, egress: [{toEndpoints: [{matchExpressions: [{key: app, operator: NotIn, values: [db]}]}], toPorts: [{ports: [{port: http}]}]}]}",
    "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: 80, protocol: TCP}], service: api}]}]}",
    "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: 80, protocol: TCP}], service: api}]}]}",
    "{endpointSelector: {matchLabels: {app: web}}, egress: [{toEndpoints: [{matchLabels: {tier: t}}], toPorts: [{ports: [{port: http}], service: api}]}],
      egressDeny: [{toServices: [{k8sService: {serviceName: api}}], toPorts: [{ports: [{port: 90, endPort: 99}]}]}]}",
    "{endpointSelector: {}, egress: [{toServices: [{k8sServiceSelector: {selector: {matchLabels: {team: a}}}}]}]}",
    "{endpointSelector: {}, egress: [{toCIDRSet: [{cidrGroupRef: g, except: [10.1.0.0/16]}]}], ingress: [{}]}",
    "{endpointSelector: {}, ingressDeny: [{fromCIDRSet: [{cidrGroupSelector: {matchLabels: {kind: bad}}}]}]}",
    "{endpointSelector: {}, ingress: [{fromEntities: [cluster]}, {fromEntities: [world], toPorts: [{ports: [{port: 1, endPort: 99}]}]}]}",
    "{endpointSelector: {}, ingress: [{fromRequires: [{matchLabels: {tier: t}}]}, {fromEndpoints: [{}]}]}",
    "{endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {tier: t}}], toPorts: [{ports: [{port: 80, protocol: TCP}], rules: {http: [{method: GET}]}}]}]}",
    "{endpointSelector: {matchLabels: {app: db}}, ingress: [{toPorts: [{ports: [{port: 80, endPort: 99, protocol: TCP}], rules: {kafka: [{topic: t}]}}]}]}",
    "{endpointSelector: {}, enableDefaultDeny: {egress: false}, egress: [{toEndpoints: [{matchLabels: {app: api}}], toPorts: [{ports: [{port: 53}], rules: {dns: [{matchPattern: '*'}]}}]},
      {toFQDNs: [{matchName: a.example}]}]}",
    "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: http, protocol: TCP}, {port: dns}]}]}]}",
    "{endpointSelector: {}, egress: [{toNodes: [{matchLabels: {zone: a}}]}], egressDeny: [{toEndpoints: [{matchLabels: {app: db}}]}]}",
    "{endpointSelector: {matchLabels: {tier: t}}, ingress: [{toPorts: [{ports: [{port: http, protocol: TCP}]}]}]}",
];

const FORMS: [&[&str]; 8] = [
    &["k8s:app=web", NAMESPACE, CLUSTER],
    &["k8s:app=db", "k8s:tier=t", NAMESPACE, CLUSTER],
    &["k8s:app=api", "k8s:tier=t", NAMESPACE, CLUSTER],
    &["k8s:app=api", "k8s:io.kubernetes.pod.namespace=pay", CLUSTER],
    &["reserved:world", "reserved:world-ipv4", "cidr:10.0.0.0/8", "cidr:10.1.0.0/16"],
    &["reserved:world", "reserved:world-ipv4", "cidr:10.0.0.0/8", "cidr:10.96.0.1/32", "fqdn:a.example"],
    &["reserved:remote-node", "node:zone=a"],
    &["reserved:host"],
];

#[derive(Clone, Debug)]
enum Step {
    /// A policy gets the rules of a specification, in a tier.
    Policy(u32, usize, usize),
    RemovePolicy(u32),
    Identity(u32, usize),
    RemoveIdentity(u32),
    /// The Service `api` of one of two namespaces: labelled or not, with or without selector, these backends.
    Service(bool, bool, bool, Vec<(u8, u16)>),
    RemoveService(bool),
    Group(bool, bool, usize),
    RemoveGroup(bool),
    Names(u8, u32, u16),
    RemoveNames(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let identity = || 300..308u32;
    prop_oneof![
        6 => (0..6u32, 0..SPECS.len(), 0..5usize).prop_map(|(name, spec, tier)| Step::Policy(name, spec, tier)),
        1 => (0..6u32).prop_map(Step::RemovePolicy),
        6 => (identity(), 0..FORMS.len()).prop_map(|(identity, form)| Step::Identity(identity, form)),
        2 => identity().prop_map(Step::RemoveIdentity),
        4 => (any::<bool>(), any::<bool>(), any::<bool>(), vec((0..5u8, 88..93u16), 0..3))
            .prop_map(|(shop, labelled, selector, backends)| Step::Service(shop, labelled, selector, backends)),
        1 => any::<bool>().prop_map(Step::RemoveService),
        3 => (any::<bool>(), any::<bool>(), 0..4usize).prop_map(|(name, bad, prefixes)| Step::Group(name, bad, prefixes)),
        1 => any::<bool>().prop_map(Step::RemoveGroup),
        3 => (0..3u8, identity(), 89..92u16).prop_map(|(owner, identity, port)| Step::Names(owner, identity, port)),
        1 => (0..3u8).prop_map(Step::RemoveNames),
    ]
}

fn config() -> Config {
    Config::complete()
}

/// The rules of a specification: a plain policy, or the same as an administrator's.
fn rules(spec: usize, tier: usize) -> Vec<Rule> {
    let text = policy_text("CiliumNetworkPolicy", "shop", "p", SPECS[spec]);
    let mut rules = parse_object(read_manifests(&text).remove(0).content.unwrap(), &config()).1.unwrap();
    let (tier, action) = match tier {
        0 | 1 => return rules,
        2 => (Tier::Admin, Some(Action::Pass)),
        3 => (Tier::Admin, None),
        _ => (Tier::Baseline, None),
    };
    for (nth, rule) in rules.iter_mut().enumerate() {
        rule.tier = tier;
        rule.default_deny = false;
        rule.action = action.unwrap_or(rule.action);
        rule.priority = Priority::new(u32::try_from(nth).unwrap()).unwrap();
        // Administrators have no rules about requests.
        if let crate::rule::Ports::Select(ports) = &mut rule.ports {
            ports.iter_mut().for_each(|ports| ports.l7 = None);
        }
    }
    rules
}

/// The last state of everything.
#[derive(Default)]
struct Last {
    policies: BTreeMap<u32, Vec<Rule>>,
    identities: BTreeMap<u32, Labels>,
    services: BTreeMap<ServiceName, Service>,
    groups: BTreeMap<&'static str, CidrGroup>,
    names: BTreeMap<String, (Identity, Vec<NamedPort>)>,
}

fn policy_name(nth: u32) -> PolicyRef {
    PolicyRef::new(PolicyKind::Cnp, "shop", format!("p{nth}"))
}

fn service_name(shop: bool) -> ServiceName {
    let namespace = if shop { "shop" } else { "pay" };
    ServiceName { namespace: namespace.to_owned(), name: "api".to_owned() }
}

fn service(labelled: bool, selector: bool, backends: &[(u8, u16)]) -> Service {
    let port = |port| ServicePort { name: "http".to_owned(), protocol: Protocol::Tcp, port };
    let backend = |(nth, number): &(u8, u16)| Backend {
        address: IpAddr::from([10, 0, 0, *nth]),
        identity: SUBJECTS
            .get(usize::from(*nth).wrapping_sub(1))
            .map(|(identity, _, _)| Identity::new(*identity)),
        ports: vec![port(*number)],
    };
    let api = || LabelSelector::from_iter([Requirement::equals(LabelKey::parse("k8s:app"), "api")]);
    Service {
        labels: if labelled { labels(&["k8s:team=a"]) } else { Labels::default() },
        selector: selector.then(api),
        cluster_ips: vec![IpAddr::from([10, 96, 0, 1])],
        ports: vec![port(80)],
        backends: backends.iter().map(backend).collect(),
    }
}

fn group(bad: bool, prefixes: usize) -> CidrGroup {
    let lists: [&[&str]; 4] =
        [&[], &["10.0.0.0/8"], &["10.1.0.0/16", "10.96.0.1/32"], &["10.0.0.0/8", "10.1.0.0/16"]];
    CidrGroup {
        labels: labels(&[if bad { "k8s:kind=bad" } else { "k8s:kind=good" }]),
        prefixes: lists[prefixes].iter().map(|prefix| prefix.parse().unwrap()).collect(),
    }
}

const fn group_name(first: bool) -> &'static str {
    if first { "g" } else { "h" }
}

/// Takes one step in both.
fn take(step: Step, last: &mut Last, repository: &mut Repository) {
    match step {
        Step::Policy(nth, spec, tier) => {
            drop(repository.upsert(policy_name(nth), rules(spec, tier)));
            last.policies.insert(nth, rules(spec, tier));
        }
        Step::RemovePolicy(nth) => {
            drop(repository.remove(&policy_name(nth)));
            last.policies.remove(&nth);
        }
        Step::Identity(identity, form) => {
            drop(repository.set_identity(Identity::new(identity), labels(FORMS[form])));
            last.identities.insert(identity, labels(FORMS[form]));
        }
        Step::RemoveIdentity(identity) => {
            drop(repository.remove_identity(Identity::new(identity)));
            last.identities.remove(&identity);
        }
        Step::Service(shop, labelled, selector, backends) => {
            let form = service(labelled, selector, &backends);
            drop(repository.set_service(service_name(shop), form.clone()));
            last.services.insert(service_name(shop), form);
        }
        Step::RemoveService(shop) => {
            drop(repository.remove_service(&service_name(shop)));
            last.services.remove(&service_name(shop));
        }
        Step::Group(first, bad, prefixes) => {
            drop(repository.set_cidr_group(group_name(first), group(bad, prefixes)));
            last.groups.insert(group_name(first), group(bad, prefixes));
        }
        Step::RemoveGroup(first) => {
            drop(repository.remove_cidr_group(group_name(first)));
            last.groups.remove(group_name(first));
        }
        Step::Names(owner, identity, port) => {
            let names = vec![NamedPort { name: "http".to_owned(), protocol: Protocol::Tcp, port }];
            let owner = format!("shop/{owner}");
            drop(repository.set_named_ports(&owner, Identity::new(identity), names.clone()));
            last.names.insert(owner, (Identity::new(identity), names));
        }
        Step::RemoveNames(owner) => {
            let owner = format!("shop/{owner}");
            drop(repository.remove_named_ports(&owner));
            last.names.remove(&owner);
        }
    }
}

impl Last {
    /// A repository that never saw anything else, in another order.
    fn repository(&self) -> Repository {
        let mut repository = Repository::new(config());
        for (nth, rules) in self.policies.iter().rev() {
            drop(repository.upsert(policy_name(*nth), rules.clone()));
        }
        for (owner, (identity, names)) in &self.names {
            drop(repository.set_named_ports(owner, *identity, names.clone()));
        }
        for (name, service) in &self.services {
            drop(repository.set_service(name.clone(), service.clone()));
        }
        for (name, group) in &self.groups {
            drop(repository.set_cidr_group(name, group.clone()));
        }
        for (identity, labels) in self.identities.iter().rev() {
            drop(repository.set_identity(Identity::new(*identity), labels.clone()));
        }
        repository
    }
}

fn subject(nth: usize, repository: &Repository) -> Subject {
    let (identity, app, address) = SUBJECTS[nth];
    Subject {
        identity: Identity::new(identity),
        labels: labels(&[app, "k8s:tier=t", NAMESPACE, CLUSTER]),
        named_ports: vec![NamedPort { name: "http".to_owned(), protocol: Protocol::Tcp, port: 90 }],
        services: repository.memberships(&[address.parse().unwrap()]),
        audit: false,
    }
}

/// Everything a policy says, with rules by their place instead of their number, one line per fact.
fn told(repository: &Repository, policy: &EndpointPolicy) -> Vec<String> {
    let rule = |id: RuleId| repository.rule(id).map_or_else(|| format!("{id:?}"), ToString::to_string);
    let mut lines = Vec::new();
    for (plane, entries) in [("entry", &policy.map_state.entries), ("admin", &policy.map_state.admin)] {
        for (key, entry) in entries {
            lines.push(format!(
                "{plane} {key:?} {:x} {:?} {}",
                entry.precedence,
                entry.verdict,
                rule(entry.rule)
            ));
        }
    }
    for (key, slot) in policy.requests.iter() {
        lines.push(format!(
            "{key:?} {:x} {} {:?} {}",
            slot.precedence,
            slot.exact,
            slot.says,
            rule(slot.rule)
        ));
    }
    for conflict in &policy.conflicts {
        let (one, other) = (rule(conflict.one), rule(conflict.other));
        lines.push(format!(
            "{} {one} {:?} {other} {:?}",
            conflict.direction, conflict.reads, conflict.other_reads
        ));
    }
    lines.push(format!("{:?} {:?}", policy.ingress, policy.egress));
    lines
}

fn selectors(repository: &Repository) -> BTreeSet<String> {
    repository
        .selectors()
        .map(|view| format!("{} {} {:?}", view.selector, view.users, view.identities))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_patched_is_what_is_resolved_anew(steps in vec(step(), 1..50)) {
        let mut repository = Repository::new(config());
        let mut last = Last::default();
        let mut held: Vec<Arc<EndpointPolicy>> = Vec::new();
        for (nth, step) in steps.into_iter().enumerate() {
            take(step, &mut last, &mut repository);
            // Some changes come together before anybody asks.
            if nth % 3 == 1 {
                continue;
            }
            let fresh = last.repository();
            prop_assert_eq!(selectors(&repository), selectors(&fresh));
            prop_assert_eq!(repository.prefixes(), fresh.prefixes());
            let mut now = Vec::new();
            for nth in 0..SUBJECTS.len() {
                let patched = repository.resolve(&subject(nth, &repository));
                let anew = fresh.resolve(&subject(nth, &fresh));
                prop_assert_eq!(told(&repository, &patched), told(&fresh, &anew));
                now.push(patched);
            }
            held = now;
        }
        drop(held);
    }
}
