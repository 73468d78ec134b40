//! A large cluster: namespaces of teams, apps in several versions, policies as such clusters have them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use sluice_policy::{
    Config, PolicyKind, PolicyRef, Repository, Rule, Subject,
    labels::{cidr_labels, pod_labels, reserved_labels},
    parse,
};
use sluice_types::{Identity, Labels};

const NAMESPACES: usize = 200;
const APPS: usize = 25;
const VERSIONS: usize = 4;
/// Of each namespace; the rest up to 10,000 is clusterwide.
const POLICIES: usize = 49;
const CLUSTERWIDE: usize = 200;
const ENDPOINTS: usize = 50;
const TEAMS: usize = 20;

/// Everything that the engine is told.
pub(crate) struct Cluster {
    namespaces: usize,
    /// 20,000 of pods, and those of prefixes.
    pub(crate) identities: Vec<(Identity, Labels)>,
    pub(crate) fixed: Vec<(Identity, Labels)>,
    pub(crate) policies: Vec<(PolicyRef, Vec<Rule>)>,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self::with(NAMESPACES)
    }

    #[cfg(test)]
    pub(crate) fn small() -> Self {
        Self::with(6)
    }

    fn with(namespaces: usize) -> Self {
        let mut policies = Vec::new();
        for namespace in 0..namespaces {
            policies.extend((0..POLICIES).map(|nth| namespaced(namespace, nth, namespaces)));
        }
        policies.extend((0..CLUSTERWIDE).map(clusterwide));
        let mut identities = Vec::new();
        for nth in 0..namespaces * APPS * VERSIONS {
            identities.push((Identity::new(number(256, nth)), pod(nth)));
        }
        let mut known = Repository::new(Config::default());
        for (policy, rules) in &policies {
            drop(known.upsert(policy.clone(), rules.clone()));
        }
        let prefixes: BTreeSet<IpNet> = known.prefixes();
        let local = prefixes.iter().enumerate().map(|(nth, prefix)| {
            (Identity::new(number(Identity::LOCAL_MIN.as_u32(), nth)), cidr_labels(*prefix, &prefixes))
        });
        let reserved = Identity::reserved().map(|(identity, _)| (identity, reserved_labels(identity)));
        let fixed = reserved.chain(local).collect();
        Self { namespaces, identities, fixed, policies }
    }

    /// A repository that knows policies, prefixes and what is reserved, and no pod.
    pub(crate) fn repository(&self) -> Repository {
        let mut repository = Repository::new(Config::default());
        for (policy, rules) in &self.policies {
            drop(repository.upsert(policy.clone(), rules.clone()));
        }
        for (identity, labels) in &self.fixed {
            drop(repository.set_identity(*identity, labels.clone()));
        }
        repository
    }

    /// The pods of one node: of many namespaces, each of another kind.
    pub(crate) fn endpoints(&self) -> Vec<Subject> {
        let step = (self.identities.len() / ENDPOINTS).max(1) | 1;
        let chosen = self.identities.iter().step_by(step).take(ENDPOINTS);
        let subject = |(identity, labels): &(Identity, Labels)| Subject {
            identity: *identity,
            labels: labels.clone(),
            named_ports: Vec::new(),
            services: Vec::new(),
            audit: false,
        };
        chosen.map(subject).collect()
    }

    /// Identities of new versions of apps.
    pub(crate) fn newcomers(&self, count: u32) -> impl Iterator<Item = (Identity, Labels)> {
        let all = self.namespaces * APPS * VERSIONS;
        (0..count as usize).map(move |nth| {
            let labels = labels(nth * 7 % all, VERSIONS + nth / all);
            (Identity::new(number(100_000, nth)), labels)
        })
    }
}

fn number(first: u32, nth: usize) -> u32 {
    first + u32::try_from(nth).unwrap_or(u32::MAX)
}

fn pod(nth: usize) -> Labels {
    labels(nth, nth % VERSIONS)
}

fn labels(nth: usize, version: usize) -> Labels {
    let (namespace, app) = (nth / VERSIONS / APPS, nth / VERSIONS % APPS);
    let text = |pairs: &[(&str, String)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
    };
    let own = text(&[
        ("app", app_name(app)),
        ("tier", tier(app).to_owned()),
        ("version", format!("v{version}")),
        ("app.kubernetes.io/part-of", format!("product-{}", namespace % 30)),
    ]);
    let of_namespace = text(&[("team", team(namespace)), ("env", env(namespace).to_owned())]);
    pod_labels(&own, &namespace_name(namespace), &of_namespace, &app_name(app), "default")
}

fn namespace_name(nth: usize) -> String {
    format!("namespace-{nth:03}")
}

fn app_name(nth: usize) -> String {
    format!("app-{nth:02}")
}

fn tier(app: usize) -> &'static str {
    match app % 3 {
        0 => "frontend",
        1 => "backend",
        _ => "storage",
    }
}

fn team(namespace: usize) -> String {
    format!("team-{:02}", namespace % TEAMS)
}

fn env(namespace: usize) -> &'static str {
    if namespace.is_multiple_of(4) { "staging" } else { "production" }
}

/// One of the policies of a namespace.
fn namespaced(namespace: usize, nth: usize, namespaces: usize) -> (PolicyRef, Vec<Rule>) {
    let app = app_name(nth % APPS);
    let caller = app_name((nth * 7 + 3) % APPS);
    let elsewhere = namespace_name((namespace + nth + 1) % namespaces);
    let team = team(namespace + nth);
    let spec = match nth {
        0 => "{endpointSelector: {}, ingress: [{}], egress: [{}]}".to_owned(),
        1 => "{endpointSelector: {}, egress: [{toEndpoints: [{matchLabels: {'k8s:io.kubernetes.pod.namespace': kube-system, k8s-app: kube-dns}}],
                toPorts: [{ports: [{port: 53, protocol: ANY}]}]}]}".to_owned(),
        2 => format!(
            "{{endpointSelector: {{}}, ingress: [{{fromEndpoints: [{{matchLabels: {{'k8s:io.kubernetes.pod.namespace': {}, app: app-00}}}}],
                toPorts: [{{ports: [{{port: 9090, protocol: TCP}}]}}]}}]}}",
            namespace_name(0)
        ),
        3 => "{endpointSelector: {}, egressDeny: [{toCIDR: [169.254.169.254/32]}]}".to_owned(),
        4 => "{endpointSelector: {matchLabels: {tier: storage}}, ingress: [{fromEndpoints: [{matchLabels: {tier: backend}}],
                toPorts: [{ports: [{port: 5432, protocol: TCP}]}]}]}".to_owned(),
        5..=9 => format!(
            "{{endpointSelector: {{matchLabels: {{app: {app}}}}}, egress: [{{toCIDRSet: [{{cidr: 10.{}.0.0/16, except: [10.{}.{}.0/24]}}],
                toPorts: [{{ports: [{{port: 443, protocol: TCP}}]}}]}}]}}",
            namespace % 200, namespace % 200, nth
        ),
        10..=14 => format!(
            "{{endpointSelector: {{matchLabels: {{app: {app}}}}}, ingress: [{{fromEndpoints: [{{matchLabels: {{
                'k8s:io.cilium.k8s.namespace.labels.team': {team}, tier: frontend}}}}], toPorts: [{{ports: [{{port: 8443, protocol: TCP}}]}}]}}]}}"
        ),
        15..=19 => format!(
            "{{endpointSelector: {{matchLabels: {{app: {app}}}}}, egress: [{{toEndpoints: [{{matchLabels: {{
                'k8s:io.kubernetes.pod.namespace': {elsewhere}, app: {caller}}}}}], toPorts: [{{ports: [{{port: 8000, endPort: 8099, protocol: TCP}}]}}]}}]}}"
        ),
        20 => format!("{{endpointSelector: {{matchLabels: {{app: {app}}}}}, ingressDeny: [{{fromEndpoints: [{{matchExpressions: [
                {{key: env, operator: In, values: [staging]}}]}}]}}]}}"),
        _ => format!(
            "{{endpointSelector: {{matchLabels: {{app: {app}}}}}, ingress: [{{fromEndpoints: [{{matchLabels: {{app: {caller}}}}}],
                toPorts: [{{ports: [{{port: 8080, protocol: TCP}}]}}]}}], egress: [{{toEndpoints: [{{matchLabels: {{app: {caller}}}}}],
                toPorts: [{{ports: [{{port: 8080, protocol: TCP}}]}}]}}]}}"
        ),
    };
    read("CiliumNetworkPolicy", &namespace_name(namespace), &format!("policy-{nth:02}"), &spec)
}

/// A policy of the administrators: few for everybody, most for pods with a certain label.
fn clusterwide(nth: usize) -> (PolicyRef, Vec<Rule>) {
    let spec = match nth {
        0 => "{endpointSelector: {}, enableDefaultDeny: {egress: false}, egressDeny: [{toEntities: [world], toPorts: [{ports: [{port: 25, protocol: TCP}]}]}]}".to_owned(),
        1 => "{endpointSelector: {}, ingress: [{fromEntities: [host, remote-node, health]}]}".to_owned(),
        2 => format!("{{endpointSelector: {{}}, ingress: [{{fromEndpoints: [{{matchLabels: {{'k8s:io.kubernetes.pod.namespace': {}, tier: frontend}}}}]}}]}}", namespace_name(1)),
        _ => format!(
            "{{endpointSelector: {{matchLabels: {{compliance: level-{nth}}}}}, ingressDeny: [{{fromEntities: [world]}}]}}"
        ),
    };
    read("CiliumClusterwideNetworkPolicy", "", &format!("clusterwide-{nth:03}"), &spec)
}

fn read(kind: &str, namespace: &str, name: &str, spec: &str) -> (PolicyRef, Vec<Rule>) {
    let place = if namespace.is_empty() { String::new() } else { format!(", namespace: {namespace}") };
    let text =
        format!("apiVersion: cilium.io/v2\nkind: {kind}\nmetadata: {{name: {name}{place}}}\nspec: {spec}\n");
    let content = sluice_api::read_manifests(&text).into_iter().next().map(|manifest| manifest.content);
    let config = Config::default();
    let (policy, rules) = match content {
        Some(Ok(sluice_api::Object::CiliumNetworkPolicy(policy))) => {
            (PolicyRef::new(PolicyKind::Cnp, namespace, name), parse::cilium_network_policy(&policy, &config))
        }
        Some(Ok(sluice_api::Object::CiliumClusterwideNetworkPolicy(policy))) => (
            PolicyRef::new(PolicyKind::Ccnp, "", name),
            parse::cilium_clusterwide_network_policy(&policy, &config),
        ),
        other => unreachable!("{other:?}: {text}"),
    };
    (policy, rules.unwrap_or_else(|errors| unreachable!("{errors:?}: {text}")))
}
