//! Random clusters and policies: the engine against the oracle, and laws that hold for all policies.

mod laws;

use std::collections::BTreeMap;

use proptest::prelude::*;
use sluice_arbitrary::{
    ADDRESSES, GROUPS, Group, NAMES, NAMESPACES, NODES, PODS, Pod, Policy, RESERVED, SERVICES, Svc, policies,
};
use sluice_types::{Direction, DropReason, Protocol, Verdict};

use super::{
    oracle::{Packet, Peer, Request, World},
    scene::{Outcome, Scene},
};
use crate::{
    Asked, Config, EndpointPolicy, Enforcement, PolicyRef, Query, Rule, Service,
    l7::{HttpRequest, KafkaRequest, Request as Read, kafka::api_key},
    parse::{self, ParseError},
    requests::{Admission, Admitted, RequestJudge},
    selector::{LabelKey, LabelSelector, Requirement},
};

const TRAFFIC: [(Protocol, u16); 15] = [
    (Protocol::Tcp, 80),
    (Protocol::Tcp, 81),
    (Protocol::Tcp, 8080),
    (Protocol::Tcp, 9092),
    (Protocol::Tcp, 53),
    (Protocol::Tcp, 65535),
    (Protocol::Udp, 80),
    (Protocol::Udp, 53),
    (Protocol::Sctp, 80),
    (Protocol::Icmp, 8),
    (Protocol::Icmp, 0),
    (Protocol::Icmpv6, 128),
    (Protocol::Icmpv6, 8),
    (Protocol::Other(47), 0),
    (Protocol::Tcp, 100),
];
const REQUESTS: [Request<'static>; 18] = [
    Request::Http { method: "GET", path: "/a", host: "web", headers: &[] },
    Request::Http { method: "GET", path: "/a/b?c=d", host: "web:80", headers: &[("X-Token", "a")] },
    Request::Http { method: "POST", path: "/a", host: "web", headers: &[("x-token", "a"), ("X-Token", "b")] },
    Request::Http { method: "DELETE", path: "/", host: "db", headers: &[("x-token", "")] },
    Request::Http {
        method: "POST",
        path: "/s.S/M",
        host: "web",
        headers: &[("content-type", "application/grpc+proto")],
    },
    Request::Http {
        method: "POST",
        path: "/s.S/N",
        host: "web",
        headers: &[("content-type", "application/json")],
    },
    Request::Kafka { kind: "produce", version: 9, client: Some("c"), topics: &["t"] },
    Request::Kafka { kind: "produce", version: 3, client: None, topics: &["t", "u"] },
    Request::Kafka { kind: "fetch", version: 9, client: Some("d"), topics: &["u"] },
    Request::Kafka { kind: "metadata", version: 1, client: None, topics: &[] },
    Request::Kafka { kind: "createtopics", version: 1, client: Some("c"), topics: &["t", "v"] },
    Request::Dns("api.example.com."),
    Request::Dns("A.b.Example.com"),
    Request::Dns("example.com"),
    Request::Dns("example.org."),
    Request::Tls(Some("api.example.com")),
    Request::Tls(Some("example.com")),
    Request::Tls(None),
];
/// How many random clusters the engine and the oracle judge.
const CASES: u32 = 450;
/// How many packets are judged in each: every pod, in both directions, with everybody.
const PACKETS: usize =
    PODS.len() * 2 * (PODS.len() + RESERVED.len() + NODES.len() + ADDRESSES.len()) * TRAFFIC.len();
const _: () = assert!(PACKETS * CASES as usize >= 1_000_000);

fn config() -> impl Strategy<Value = Config> {
    let enforcement = prop_oneof![
        6 => Just(Enforcement::Default),
        2 => Just(Enforcement::Always),
        1 => Just(Enforcement::Never),
    ];
    (enforcement, prop::bool::weighted(0.8)).prop_map(|(enforcement, allow_localhost)| Config {
        enforcement,
        allow_localhost,
        ..Config::complete()
    })
}

/// What one run is about.
struct Setting<'a> {
    config: &'a Config,
    policies: &'a [Policy],
    /// The Services and groups that are known.
    services: &'a [Svc],
    groups: &'a [Group],
}

fn namespaces() -> BTreeMap<&'static str, Vec<(&'static str, &'static str)>> {
    NAMESPACES.iter().map(|(name, labels)| (*name, labels.to_vec())).collect()
}

fn cast() -> Vec<(String, Peer)> {
    let pods = PODS.iter().map(|pod| (pod.name.to_owned(), Peer::Pod(pod.clone())));
    let reserved = RESERVED.into_iter().map(|name| (name.to_owned(), Peer::Reserved(name)));
    let nodes = NODES.into_iter().map(|(name, labels)| (name.to_owned(), Peer::Node(labels)));
    let addresses = ADDRESSES.into_iter().map(|text| (text.to_owned(), Peer::Address(text.parse().unwrap())));
    pods.chain(reserved).chain(nodes).chain(addresses).collect()
}

fn add_everybody(scene: &mut Scene, services: &[Svc], groups: &[Group]) {
    for (namespace, labels) in namespaces() {
        scene.namespace(namespace, &labels);
    }
    for pod in PODS {
        scene.pod(pod.name, pod.labels, pod.ports);
    }
    for (name, own) in NODES {
        let own = own.iter().map(|(key, value)| format!("node:{key}={value}"));
        let all: Vec<String> = own.chain(["reserved:remote-node".to_owned()]).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        scene.endpoint(name, super::scene::labels(&all), &[]);
    }
    for (address, names) in NAMES {
        scene.learn(address, names);
    }
    for service in services {
        let all: Vec<String> =
            service.labels.iter().map(|(key, value)| format!("k8s:{key}={value}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let form = Service {
            labels: super::scene::labels(&all),
            selector: service.selector.map(|(key, value)| {
                let key = LabelKey::new(sluice_types::Source::K8s, key);
                LabelSelector::from_iter([Requirement::equals(key, value)])
            }),
            cluster_ips: vec![service.cluster_ip.parse().unwrap()],
            ..Service::default()
        };
        scene.service(service.name, form, service.ports, service.behind);
    }
    for group in groups {
        let all: Vec<String> = group.labels.iter().map(|(key, value)| format!("k8s:{key}={value}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        scene.group(group.name, &all, group.prefixes);
    }
}

fn read(policy: &Policy, config: &Config) -> (PolicyRef, Result<Vec<Rule>, Vec<ParseError>>) {
    match policy {
        Policy::Cnp(policy) => (PolicyRef::from(policy), parse::cilium_network_policy(policy, config)),
        Policy::Ccnp(policy) => {
            (PolicyRef::from(policy), parse::cilium_clusterwide_network_policy(policy, config))
        }
        Policy::Knp(policy) => (PolicyRef::from(policy), parse::network_policy(policy, config)),
        Policy::Kcnp(policy) => (PolicyRef::from(policy), parse::cluster_network_policy(policy, config)),
    }
}

fn put(scene: &mut Scene, policy: &Policy) {
    let (name, rules) = read(policy, scene.repository.config());
    let rules = rules.unwrap_or_else(|errors| panic!("{errors:?}: {policy:?}"));
    drop(scene.repository.upsert(name, rules));
}

fn scene_of(setting: &Setting<'_>) -> Scene {
    let mut scene = Scene::new(setting.config.clone());
    add_everybody(&mut scene, setting.services, setting.groups);
    for policy in setting.policies {
        put(&mut scene, policy);
    }
    scene.sync_prefixes();
    scene
}

/// What the engine says about a packet, and the request in it.
fn engine(policy: &EndpointPolicy, query: &Query, request: Option<&Request<'_>>) -> Outcome {
    let outcome = match request {
        None => policy.judge(query, None).0,
        Some(request) => {
            with_read(request, |read| policy.judge(query, Some(Asked { request: &read, secrets: &() })).0)
        }
    };
    match outcome {
        crate::Outcome::Allow => Outcome::Allow,
        crate::Outcome::Deny(DropReason::PolicyDeny) => Outcome::Deny,
        crate::Outcome::Deny(DropReason::PolicyDenied) => Outcome::Default,
        crate::Outcome::Refuse => Outcome::Refused,
        crate::Outcome::Depends => Outcome::Proxied,
        crate::Outcome::Audit => Outcome::Audit,
        other @ crate::Outcome::Deny(_) => panic!("{other:?}"),
    }
}

/// The compiled form of a table decides as the table does.
fn check_compiled(policy: &EndpointPolicy, query: &Query) {
    for table in [&policy.requests, &policy.staged_requests] {
        let admission = Admission::new(table, query);
        for request in REQUESTS.iter().filter(|request| matches!(request, Request::Http { .. })) {
            with_read(request, |read| {
                let Read::Http(http) = read else { return };
                let (got, want) = (admission.decide(&http, &()), table.decide(query, &read, &()));
                let part = want.parts.into_iter().next().map(|(_, part)| part);
                let want = Admitted { allowed: want.allowed, rule: want.rule, part, effects: want.effects };
                assert_eq!(got, want, "{query:?} {request:?}");
            });
        }
    }
    let is_staged = match query.direction {
        Direction::Ingress => policy.map_state.staged_ingress,
        Direction::Egress => policy.map_state.staged_egress,
    };
    let staged = is_staged.then_some(&*policy.staged_requests);
    let judge = RequestJudge::new(&policy.requests, staged, policy.map_state.audit(query.direction), query);
    let is_redirected = matches!(policy.map_state.enforced(query).0.verdict, Verdict::Redirect(_));
    let is_reported =
        matches!(policy.map_state.staged(query), Some(own) if matches!(own.verdict, Verdict::Audit(_)));
    for request in REQUESTS.iter().filter(|request| matches!(request, Request::Http { .. })) {
        with_read(request, |read| {
            let Read::Http(http) = read else { return };
            let want = policy.judge(query, Some(Asked { request: &read, secrets: &() })).0;
            // Packets that nobody in force looks into were reported as they came; a request may be so as well.
            if !is_reported || is_redirected {
                assert_eq!(judge.judge(&http, &()).0, want, "{query:?} {request:?}");
            }
        });
    }
}

/// A request as a proxy reads it.
fn with_read<T>(request: &Request<'_>, then: impl FnOnce(Read<'_>) -> T) -> T {
    match *request {
        Request::Http { method, path, host, headers } => {
            let headers: Vec<(&str, &[u8])> =
                headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
            then(Read::Http(HttpRequest { method, path, authority: host, headers: &headers }))
        }
        Request::Kafka { kind, version, client, topics } => then(Read::Kafka(KafkaRequest {
            api_key: api_key(kind).unwrap(),
            api_version: version,
            client_id: client,
            topics,
            unknown_topics: 0,
        })),
        Request::Dns(name) => then(Read::Dns(name)),
        Request::Tls(name) => then(Read::Tls(name)),
    }
}

/// Every packet that can be sent, in a fixed order.
fn packets() -> Vec<(&'static Pod, Direction, String, Protocol, u16)> {
    let mut packets = Vec::with_capacity(PACKETS);
    for pod in PODS {
        for (name, _) in cast() {
            for direction in Direction::ALL {
                packets.extend(
                    TRAFFIC.iter().map(|(protocol, port)| (pod, direction, name.clone(), *protocol, *port)),
                );
            }
        }
    }
    packets
}

/// What the engine says about every packet.
fn answers(scene: &Scene) -> Vec<Outcome> {
    let policies: BTreeMap<&str, _> =
        PODS.iter().map(|pod| (pod.name, scene.repository.resolve(scene.subject(pod.name)))).collect();
    let ask = |(pod, direction, peer, protocol, port): (&Pod, Direction, String, Protocol, u16)| {
        let query = Query { direction, peer: scene.identity(&peer), protocol, port: Some(port) };
        engine(&policies[pod.name], &query, None)
    };
    packets().into_iter().map(ask).collect()
}

/// Asserts that engine and oracle agree about every packet and request. Says how many they judged.
fn compare(scene: &Scene, setting: &Setting<'_>) -> usize {
    let namespace_labels = &namespaces();
    let Setting { config, policies, services, groups } = *setting;
    let enforced: Vec<Policy> = policies.iter().filter(|policy| !policy.is_staged()).cloned().collect();
    let enforced = enforced.as_slice();
    let world =
        World { config, namespace_labels, pods: PODS, policies, enforced, services, groups, names: &NAMES };
    let mut judged = 0;
    for subject in PODS {
        let policy = scene.repository.resolve(scene.subject(subject.name));
        for (name, peer) in &cast() {
            let identity = scene.identity(name);
            for direction in Direction::ALL {
                for (protocol, port) in TRAFFIC {
                    let query = Query { direction, peer: identity, protocol, port: Some(port) };
                    let packet = Packet { subject, direction, peer, protocol, port };
                    let want = world.judge(packet, None);
                    let text = || format!("{} {direction} {name} {protocol}/{port}", subject.name);
                    assert_eq!(engine(&policy, &query, None), want, "{}", text());
                    judged += 1;
                    let is_looked_into = world.is_looked_into(packet);
                    if is_looked_into {
                        check_compiled(&policy, &query);
                    }
                    for request in REQUESTS.iter().filter(|_| is_looked_into) {
                        let want = world.judge(packet, Some(request));
                        let got = engine(&policy, &query, Some(request));
                        assert_eq!(got, want, "{} {request:?}", text());
                        judged += 1;
                    }
                }
            }
        }
    }
    judged
}

/// The random policies decide every way, or the comparison with the oracle would show nothing.
#[test]
fn random_policies_are_worth_comparing() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let config = Config::complete();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..60 {
        let policies = policies().new_tree(&mut runner).unwrap().current();
        let setting = Setting { config: &config, policies: &policies, services: SERVICES, groups: GROUPS };
        let scene = scene_of(&setting);
        for subject in PODS {
            let policy = scene.repository.resolve(scene.subject(subject.name));
            for (name, _) in cast() {
                for (direction, (protocol, port)) in Direction::ALL
                    .into_iter()
                    .flat_map(|direction| TRAFFIC.map(|traffic| (direction, traffic)))
                {
                    let query = Query { direction, peer: scene.identity(&name), protocol, port: Some(port) };
                    let outcome = engine(&policy, &query, None);
                    *counts.entry(format!("{outcome:?}")).or_default() += 1;
                    let is_looked_into =
                        matches!(policy.map_state.decide(&query).verdict, Verdict::Redirect(_));
                    for request in REQUESTS.iter().filter(|_| is_looked_into) {
                        let outcome = engine(&policy, &query, Some(request));
                        *counts.entry(format!("request {outcome:?}")).or_default() += 1;
                    }
                }
            }
        }
    }
    let all: usize =
        counts.iter().filter(|(name, _)| !name.starts_with("request")).map(|(_, count)| count).sum();
    let requests: usize =
        counts.iter().filter(|(name, _)| name.starts_with("request")).map(|(_, count)| count).sum();
    let is_frequent = |name: &str, of: usize| counts.get(name).copied().unwrap_or_default() * 50 > of;
    let frequent = ["Allow", "Deny", "Default", "Audit"].iter().all(|name| is_frequent(name, all))
        && counts.get("Proxied").copied().unwrap_or_default() * 300 > all
        && ["request Allow", "request Refused", "request Audit"]
            .iter()
            .all(|name| is_frequent(name, requests));
    assert!(frequent, "{counts:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_agrees_with_the_oracle(
        config in config(),
        policies in policies(),
        known_services in proptest::sample::subsequence(SERVICES, 0..=SERVICES.len()),
        known_groups in proptest::sample::subsequence(GROUPS, 0..=GROUPS.len()),
    ) {
        let setting =
            Setting { config: &config, policies: &policies, services: &known_services, groups: &known_groups };
        let judged = compare(&scene_of(&setting), &setting);
        prop_assert!(judged >= PACKETS);
    }
}
