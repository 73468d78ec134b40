//! What the documents say together: policies with their meaning, and the cluster they are for.

mod engine;
mod pods;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use sluice_api::{DocumentError, Object};
use sluice_policy::{
    ParseError, PolicyRef, Rule, ServiceName,
    labels::{NAMESPACE, pod_labels},
    parse,
    rule::RuleSubject,
    selector::Requirement,
};
use sluice_types::{Labels, Source};

pub(crate) use engine::{Engine, example_of};
pub(crate) use pods::Pod;

use crate::{
    Document, Options,
    cover::subject_covers,
    report::{At, Report, policy_name},
    rules::{DUPLICATE_OBJECT, INVALID_DOCUMENT, INVALID_POLICY},
    written::{Entry, Spec, Written},
};

/// The namespace of the cluster's own pods, and the label of its name servers.
const SYSTEM_NAMESPACE: &str = "kube-system";
const NAME_SERVER: (&str, &str) = ("k8s-app", "kube-dns");

/// A policy that was understood.
#[derive(Clone, Debug)]
pub(crate) struct Policy<'a> {
    pub(crate) document: &'a Document,
    pub(crate) name: PolicyRef,
    pub(crate) written: Written<'a>,
    pub(crate) rules: Vec<Rule>,
    /// For each rule, the places of the pods that its subject selects.
    pods: Vec<Arc<[usize]>>,
}

impl<'a> Policy<'a> {
    /// Its rules, each with what is known about it.
    pub(crate) fn placed<'s>(&'s self) -> impl Iterator<Item = Placed<'s, 'a>> {
        self.rules.iter().zip(&self.pods).map(move |(rule, pods)| Placed { policy: self, rule, pods })
    }

    pub(crate) fn at(&self, path: impl Into<String>) -> At<'a> {
        At::new(self.document, path)
    }

    /// Where one of its rules stands.
    pub(crate) fn at_rule(&self, rule: &Rule) -> At<'a> {
        self.at(rule_path(rule))
    }

    /// The elements of `spec` and `specs`; none for policies of Kubernetes.
    pub(crate) fn specs(&self) -> Vec<Spec<'a>> {
        self.written.specs()
    }

    /// The entries of Cilium rules; none for policies of Kubernetes.
    pub(crate) fn entries(&self) -> Vec<Entry<'a>> {
        self.written.entries()
    }

    /// What an entry means.
    pub(crate) fn rule_of<'s>(&'s self, entry: &Entry<'_>) -> Option<Placed<'s, 'a>> {
        self.placed().find(|placed| rule_path(placed.rule) == entry.path)
    }

    /// The rules of one element of `spec` and `specs`.
    pub(crate) fn rules_of<'s>(&'s self, spec: &Spec<'_>) -> impl Iterator<Item = Placed<'s, 'a>> {
        let inside = format!("{}.", spec.path);
        self.placed().filter(move |placed| rule_path(placed.rule).starts_with(&inside))
    }
}

/// The path of a rule from the start of its object, which rules of `spec` leave out.
pub(crate) fn rule_path(rule: &Rule) -> String {
    if rule.path.starts_with("specs[") { rule.path.clone() } else { format!("spec.{}", rule.path) }
}

/// One rule with the policy it belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed<'s, 'a> {
    pub(crate) policy: &'s Policy<'a>,
    pub(crate) rule: &'s Rule,
    /// The places of the pods that its subject selects, in order.
    pods: &'s [usize],
}

impl<'a> Placed<'_, 'a> {
    pub(crate) fn at(&self) -> At<'a> {
        self.policy.at_rule(self.rule)
    }

    /// `cnp/shop/web ingress[0]`.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.policy.name, self.rule.path)
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.rule, other.rule)
    }

    /// Whether the rule holds for everybody whom `narrow` selects: for certain, or for every pod there is.
    pub(crate) fn holds_for_all_of(&self, narrow: &Placed<'_, '_>) -> bool {
        let selects = |pod: &usize| self.pods.binary_search(pod).is_ok();
        subject_covers(&self.rule.subject, &narrow.rule.subject)
            || (!narrow.pods.is_empty() && narrow.pods.iter().all(selects))
    }
}

/// Everything the documents say.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) documents: &'a [Document],
    pub(crate) options: &'a Options,
    /// In the order of the documents; of policies with one name the last.
    pub(crate) policies: Vec<Policy<'a>>,
    /// Pods that are endpoints: those with a network of their own that have not ended.
    pub(crate) pods: Vec<Pod>,
    /// Labels of namespaces. Those that pods are in are here even if no document is about them.
    pub(crate) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) services: BTreeMap<ServiceName, &'a sluice_api::Service>,
    pub(crate) groups: BTreeMap<&'a str, &'a sluice_api::CiliumCidrGroup>,
    pub(crate) nodes: Vec<&'a sluice_api::Node>,
    /// The labels of the cluster's name servers: those of the pods, or else as distributions install them.
    pub(crate) name_servers: BTreeSet<Labels>,
    /// The policies and places of rules by the one namespace whose pods they select; `None` for all namespaces.
    by_home: BTreeMap<Option<String>, Vec<(usize, usize)>>,
}

impl<'a> Scene<'a> {
    /// Reads all documents. What is wrong with one of them is a finding.
    pub(crate) fn new(documents: &'a [Document], options: &'a Options, report: &mut Report) -> Self {
        let mut scene = Self {
            documents,
            options,
            policies: Vec::new(),
            pods: Vec::new(),
            namespaces: BTreeMap::new(),
            services: BTreeMap::new(),
            groups: BTreeMap::new(),
            nodes: Vec::new(),
            name_servers: BTreeSet::new(),
            by_home: BTreeMap::new(),
        };
        let repeated = repeated(documents, report);
        for (nth, document) in documents.iter().enumerate() {
            match &document.manifest.content {
                Err(error) => invalid_document(document, error, report),
                Ok(object) if !repeated.contains(&nth) => scene.take(document, object, report),
                Ok(_) => {}
            }
        }
        scene.take_pods();
        scene.find_name_servers();
        scene.find_subjects();
        scene
    }

    /// Every rule with its policy.
    pub(crate) fn rules(&self) -> impl Iterator<Item = Placed<'_, 'a>> {
        self.policies.iter().flat_map(Policy::placed)
    }

    /// The rules that may select some endpoint that `placed` selects.
    pub(crate) fn rules_near(&self, placed: &Placed<'_, '_>) -> impl Iterator<Item = Placed<'_, 'a>> {
        let home = home(&placed.rule.subject);
        let homes = self
            .by_home
            .iter()
            .filter(move |(own, _)| home.is_none() || own.is_none() || own.as_deref() == home);
        homes
            .flat_map(|(_, rules)| rules)
            .filter_map(|(policy, nth)| self.policies.get(*policy)?.placed().nth(*nth))
    }

    /// The pods that the subject of a rule selects.
    pub(crate) fn pods_of(&self, placed: &Placed<'_, '_>) -> impl Iterator<Item = &Pod> {
        placed.pods.iter().filter_map(|place| self.pods.get(*place))
    }

    /// Whether some pod of the documents is in this namespace.
    pub(crate) fn knows_pods_of(&self, namespace: &str) -> bool {
        self.pods.iter().any(|pod| pod.namespace == namespace)
    }

    fn take(&mut self, document: &'a Document, object: &'a Object, report: &mut Report) {
        let config = &self.options.config;
        let (written, rules) = match object {
            Object::CiliumNetworkPolicy(policy) => (
                cilium(policy.spec.as_ref(), policy.specs.as_ref()),
                parse::cilium_network_policy(policy, config),
            ),
            Object::CiliumClusterwideNetworkPolicy(policy) => (
                cilium(policy.spec.as_ref(), policy.specs.as_ref()),
                parse::cilium_clusterwide_network_policy(policy, config),
            ),
            Object::NetworkPolicy(policy) => {
                (Written::Kubernetes(policy.spec.as_ref()), parse::network_policy(policy, config))
            }
            Object::ClusterNetworkPolicy(policy) => {
                (Written::Administrator(&policy.spec), parse::cluster_network_policy(policy, config))
            }
            Object::Namespace(namespace) => {
                let labels = namespace.metadata.labels.clone().unwrap_or_default();
                self.namespaces.insert(namespace.metadata.name.clone(), labels);
                return;
            }
            Object::Service(service) => {
                let namespace = namespace_of(&service.metadata).to_owned();
                let name = ServiceName { namespace, name: service.metadata.name.clone() };
                self.services.insert(name, service);
                return;
            }
            Object::CiliumCidrGroup(group) => {
                self.groups.insert(&group.metadata.name, group);
                return;
            }
            Object::Node(node) => {
                self.nodes.push(node);
                return;
            }
            Object::Pod(_) | Object::EndpointSlice(_) | Object::Secret(_) | Object::Ignored => return,
        };
        match (policy_name(document), rules) {
            (Some(name), Ok(rules)) => {
                self.policies.push(Policy { document, name, written, rules, pods: Vec::new() });
            }
            (None, Ok(_)) => {}
            (_, Err(errors)) => errors.iter().for_each(|error| invalid_policy(document, error, report)),
        }
    }

    /// Namespaces must be known before pods get their labels.
    fn take_pods(&mut self) {
        for document in self.documents {
            if let Ok(Object::Pod(pod)) = &document.manifest.content {
                let namespace = namespace_of(&pod.metadata);
                let labels = self.namespaces.entry(namespace.to_owned()).or_default();
                self.pods.extend(Pod::new(document, pod, namespace, labels, &self.options.config));
            }
        }
    }

    fn find_name_servers(&mut self) {
        let (key, app) = NAME_SERVER;
        let known = self.pods.iter().map(|pod| &pod.labels);
        let known = known.filter(|labels| labels.value(&Source::K8s, key) == Some(app));
        self.name_servers.extend(known.cloned());
        if self.name_servers.is_empty() {
            let own = BTreeMap::from([(key.to_owned(), app.to_owned())]);
            let namespace = self.namespaces.get(SYSTEM_NAMESPACE).cloned().unwrap_or_default();
            let cluster = &self.options.config.cluster_name;
            self.name_servers.insert(pod_labels(&own, SYSTEM_NAMESPACE, &namespace, app, cluster));
        }
    }

    /// Looks up the pods of every subject once.
    fn find_subjects(&mut self) {
        let mut by_namespace: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (place, pod) in self.pods.iter().enumerate() {
            by_namespace.entry(&pod.namespace).or_default().push(place);
        }
        let all: Vec<usize> = (0..self.pods.len()).collect();
        let mut known: HashMap<RuleSubject, Arc<[usize]>> = HashMap::new();
        for (nth_policy, policy) in self.policies.iter_mut().enumerate() {
            for (nth, rule) in policy.rules.iter().enumerate() {
                let own = home(&rule.subject);
                let among = own.map_or(Some(&all), |namespace| by_namespace.get(namespace));
                let selects = |place: &&usize| {
                    self.pods.get(**place).is_some_and(|pod| rule.subject.matches(&pod.labels))
                };
                let find = || among.into_iter().flatten().filter(selects).copied().collect();
                policy.pods.push(Arc::clone(known.entry(rule.subject.clone()).or_insert_with(find)));
                self.by_home.entry(own.map(str::to_owned)).or_default().push((nth_policy, nth));
            }
        }
    }

    /// How many different identities the pods have.
    pub(crate) fn identities(&self) -> BTreeSet<&Labels> {
        self.pods.iter().map(|pod| &pod.labels).collect()
    }
}

/// The one namespace that a subject is confined to, if any.
fn home(subject: &RuleSubject) -> Option<&str> {
    let RuleSubject::Endpoints(selector) = subject else { return None };
    selector.requirements().find_map(|requirement| match requirement {
        Requirement::In(key, values)
            if key.key == NAMESPACE && key.source == Source::K8s && values.len() == 1 =>
        {
            values.first().map(String::as_str)
        }
        Requirement::In(..)
        | Requirement::NotIn(..)
        | Requirement::Exists(_)
        | Requirement::DoesNotExist(_) => None,
    })
}

/// The namespace an object lives in: `default` when it names none.
pub(crate) fn namespace_of(metadata: &sluice_api::Metadata) -> &str {
    metadata.namespace.as_deref().filter(|name| !name.is_empty()).unwrap_or("default")
}

fn cilium<'a>(
    spec: Option<&'a sluice_api::cilium::PolicyRule>,
    specs: Option<&'a Vec<sluice_api::cilium::PolicyRule>>,
) -> Written<'a> {
    Written::Cilium { spec, specs: specs.map(Vec::as_slice).unwrap_or_default() }
}

fn invalid_document(document: &Document, error: &DocumentError, report: &mut Report) {
    let help = "Nothing of the document counts until it can be read.";
    let finding = report.add(&INVALID_DOCUMENT, &At::new(document, &*error.path), &*error.reason, help);
    (finding.line, finding.column) = (error.line, error.column);
}

fn invalid_policy(document: &Document, error: &ParseError, report: &mut Report) {
    let help = "The whole object would be refused, and nothing of it enforced. `sluice schema` shows what may stand \
                there.";
    report.add(&INVALID_POLICY, &At::new(document, &*error.path), error.reason.to_string(), help);
}

/// The documents that a later one of the same kind and name replaces.
fn repeated(documents: &[Document], report: &mut Report) -> BTreeSet<usize> {
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    let mut repeated = BTreeSet::new();
    for (nth, document) in documents.iter().enumerate() {
        let manifest = &document.manifest;
        let known = manifest.content.as_ref().is_ok_and(|object| *object != Object::Ignored);
        if !known {
            continue;
        }
        // Objects of the namespace `default` may leave it out.
        let namespace = manifest.namespace.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
        let key = format!("{}/{namespace}/{}", manifest.kind, manifest.name);
        if let Some(before) = last.insert(key, nth)
            && let Some(earlier) = documents.get(before)
        {
            repeated.insert(before);
            let message = format!("{} is defined again, and this definition is lost", manifest.name);
            let help = "Give one of the two another name, or remove it: the last one applied is the only one in force.";
            report
                .add(&DUPLICATE_OBJECT, &At::new(earlier, "metadata.name"), message, help)
                .also(&At::new(document, "metadata.name"), "the definition that counts");
        }
    }
    repeated
}
