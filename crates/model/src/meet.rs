//! Brings the same participants into two clusters, so that their policies can be compared.
//!
//! Pods that both know are compared. Where only one side knows any pods, they stand for the other side too; where
//! nobody does, pods are made up that the selectors of both mean. Prefixes and DNS names of rules and the entities
//! are there always.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use sluice_policy::{
    Rule,
    l7::FqdnSelector,
    labels::{CLUSTER, NAMESPACE, NAMESPACE_LABEL_PREFIX, SERVICE_ACCOUNT},
    rule::{Peers, RuleSubject},
    selector::{LabelSelector, Requirement},
};
use sluice_types::Source;

use crate::{
    cluster::Cluster,
    participant::{Participant, Who},
};

/// The entities that take part.
const ENTITIES: [&str; 5] = ["host", "kube-apiserver", "remote-node", "world", "ingress"];
/// How a made-up pod is called that no selector asks for.
const ANY: &str = "(any other)";
/// The namespace of pods that no policy names a namespace for.
const ELSEWHERE: &str = "(elsewhere)";

/// Who takes part in a comparison.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Met {
    /// Who is in both, by name.
    pub names: Vec<String>,
    /// Pods that only the old side knows.
    pub only_old: Vec<String>,
    /// Pods that only the new side knows.
    pub only_new: Vec<String>,
    /// Whether the pods were made up.
    pub made_up: bool,
}

/// Makes the participants of both the same, as far as they can be compared.
pub fn meet(old: &mut Cluster, new: &mut Cluster) -> Met {
    let mut met = share_pods(old, new);
    if met.names.is_empty() && met.only_old.is_empty() && met.only_new.is_empty() {
        met.made_up = true;
        met.names = make_up(old, new);
    }
    let known: BTreeSet<String> = both(old, new, |cluster| cluster.participants.keys().cloned().collect());
    for entity in ENTITIES {
        for cluster in [&mut *old, &mut *new] {
            // An entity needs no introduction.
            drop(cluster.end(entity));
        }
        met.names.push(entity.to_owned());
    }
    let outside = outside(old, new);
    for participant in outside.into_iter().filter(|own| !known.contains(&own.name)) {
        met.names.push(participant.name.clone());
        new.add(participant.clone());
        old.add(participant);
    }
    met
}

fn both<T: Ord>(old: &mut Cluster, new: &mut Cluster, of: impl Fn(&Cluster) -> BTreeSet<T>) -> BTreeSet<T> {
    for cluster in [&mut *old, &mut *new] {
        cluster.settle();
    }
    let mut all = of(old);
    all.append(&mut of(new));
    all
}

fn pods(cluster: &Cluster) -> BTreeSet<String> {
    cluster.participants.values().filter(|own| own.who.is_pod()).map(|own| own.name.clone()).collect()
}

fn share_pods(old: &mut Cluster, new: &mut Cluster) -> Met {
    let (before, after) = (pods(old), pods(new));
    match (before.is_empty(), after.is_empty()) {
        (true, false) => lend(new, old),
        (false, true) => lend(old, new),
        (true, true) | (false, false) => {}
    }
    let (before, after) = (pods(old), pods(new));
    Met {
        names: before.intersection(&after).cloned().collect(),
        only_old: before.difference(&after).cloned().collect(),
        only_new: after.difference(&before).cloned().collect(),
        made_up: false,
    }
}

/// Participants and namespaces of one also stand for the other.
fn lend(from: &Cluster, to: &mut Cluster) {
    for (name, labels) in &from.namespaces {
        to.label_namespace(name, labels);
    }
    for participant in from.participants.values() {
        if !to.participants.contains_key(&participant.name) {
            to.add(participant.clone());
        }
    }
}

/// A pod for each selector of either, and one for each namespace that no selector means.
fn make_up(old: &mut Cluster, new: &mut Cluster) -> Vec<String> {
    let selectors: BTreeSet<LabelSelector> = both(old, new, |cluster| {
        cluster.rules().flat_map(|(_, rules)| rules).flat_map(selectors_of).collect()
    });
    let mut made: BTreeMap<String, (Participant, BTreeMap<String, String>)> = BTreeMap::new();
    let mut namespaces = BTreeSet::from([ELSEWHERE.to_owned()]);
    for selector in &selectors {
        let Some((pod, of_namespace)) = example(selector) else { continue };
        if let Who::Pod { namespace, .. } = &pod.who {
            namespaces.insert(namespace.clone());
        }
        made.insert(pod.name.clone(), (pod, of_namespace));
    }
    for namespace in namespaces {
        let pod = Participant::pod(&namespace, ANY, BTreeMap::new(), "default");
        made.entry(pod.name.clone()).or_insert((pod, BTreeMap::new()));
    }
    let names = made.keys().cloned().collect();
    for (pod, of_namespace) in made.into_values() {
        for cluster in [&mut *old, &mut *new] {
            if let Who::Pod { namespace, .. } = &pod.who {
                cluster.label_namespace(namespace, &of_namespace);
            }
            cluster.add(pod.clone());
        }
    }
    names
}

fn selectors_of(rule: Rule) -> impl Iterator<Item = LabelSelector> {
    let (RuleSubject::Endpoints(subject) | RuleSubject::Node(subject)) = rule.subject;
    let peers = match rule.peers {
        Peers::Endpoints(selectors) => selectors,
        Peers::Any | Peers::Select(_) | Peers::Prefixes(_) | Peers::Services(_) => Vec::new(),
    };
    [subject].into_iter().chain(peers).chain(rule.requires)
}

/// A pod that a selector means, with the labels of its namespace; none if only nodes and entities could be meant.
fn example(selector: &LabelSelector) -> Option<(Participant, BTreeMap<String, String>)> {
    let mut own = BTreeMap::new();
    let mut of_namespace = BTreeMap::new();
    let (mut namespace, mut account) = (None, "default".to_owned());
    for requirement in selector.requirements() {
        let (key, value) = match requirement {
            Requirement::In(key, values) => (key, values.first()?.clone()),
            Requirement::Exists(key) => (key, "any".to_owned()),
            Requirement::NotIn(..) | Requirement::DoesNotExist(_) => continue,
        };
        if !matches!(key.source, Source::K8s | Source::Any) {
            return None;
        }
        match key.key.as_str() {
            NAMESPACE => namespace = Some(value),
            CLUSTER => {}
            SERVICE_ACCOUNT => account = value,
            other => match other.strip_prefix(NAMESPACE_LABEL_PREFIX) {
                Some(label) => drop(of_namespace.insert(label.to_owned(), value)),
                None => drop(own.insert(other.to_owned(), value)),
            },
        }
    }
    let words = |labels: &BTreeMap<String, String>| {
        labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    };
    let namespace = namespace.unwrap_or_else(|| match of_namespace.is_empty() {
        true => ELSEWHERE.to_owned(),
        false => format!("({})", words(&of_namespace)),
    });
    let mut name = words(&own);
    if account != "default" {
        name = format!("{name}@{account}");
    }
    let name = if name.is_empty() { ANY } else { &name };
    Some((Participant::pod(&namespace, name, own, &account), of_namespace))
}

/// Somebody in each prefix and behind each DNS name that a rule of either names.
fn outside(old: &mut Cluster, new: &mut Cluster) -> Vec<Participant> {
    let prefixes = both(old, new, |cluster| cluster.repository.prefixes());
    let mut found: Vec<Participant> = prefixes
        .iter()
        .filter_map(|prefix| Some(Participant::outside(prefix.to_string(), free_address(prefix, &prefixes)?)))
        .collect();
    let names: BTreeSet<String> = both(old, new, |cluster| {
        let wanted =
            cluster.repository.selectors().filter_map(|view| FqdnSelector::of_selector(view.selector));
        wanted.map(|wanted| wanted.as_str().to_owned()).collect()
    });
    for pattern in names {
        // A name that the pattern means, and as few others as can be.
        let name = pattern.replace("**", "x.x").replace('*', "x");
        found.push(Participant { names: vec![name], ..Participant::new(pattern, Who::Outside) });
    }
    found
}

/// An address of the prefix that is in none of the narrower ones, if there is one.
fn free_address(prefix: &IpNet, all: &BTreeSet<IpNet>) -> Option<IpAddr> {
    let narrower: Vec<&IpNet> =
        all.iter().filter(|other| *other != prefix && prefix.contains(*other)).collect();
    let mut address = prefix.network();
    loop {
        let covering = narrower.iter().filter(|other| other.contains(&address));
        // The widest one is left behind whole.
        let Some(taken) = covering.min_by_key(|other| other.prefix_len()) else { return Some(address) };
        address = next(taken.broadcast())?;
        if !prefix.contains(&address) {
            return None;
        }
    }
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address).checked_add(1).map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(address) => u128::from(address).checked_add(1).map(|next| IpAddr::V6(next.into())),
    }
}
