use std::collections::BTreeSet;

use sluice_policy::Config;
use sluice_types::Protocol;

use super::{Comparison, Felt, compare};
use crate::{Cluster, Flow, FlowPort, Met, meet, tests::apply};

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, namespace: shop, labels: {app: web}}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
---
apiVersion: v1
kind: Pod
metadata: {name: job, namespace: batch, labels: {app: job}}
---
";

const SPECS: [&str; 8] = [
    "{endpointSelector: {matchLabels: {app: none}}, ingress: [{}]}",
    "{endpointSelector: {matchLabels: {app: db}}, ingress: [{fromEndpoints: [{matchLabels: {app: web}}], toPorts: [{ports: [{port: '80', endPort: 90, protocol: TCP}]}]}]}",
    "{endpointSelector: {matchLabels: {app: db}}, ingress: [{fromEndpoints: [{matchLabels: {app: web}}], toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{method: GET}]}}]}]}",
    "{endpointSelector: {matchLabels: {app: db}}, ingressDeny: [{fromEndpoints: [{matchLabels: {app: web}}], toPorts: [{ports: [{port: '85', protocol: TCP}]}]}], enableDefaultDeny: {ingress: false}}",
    "{endpointSelector: {matchLabels: {app: web}}, egress: [{toCIDR: [10.0.0.0/8]}]}",
    "{endpointSelector: {matchLabels: {app: web}}, egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.96.0.0/12]}]}, {toFQDNs: [{matchPattern: '*.example.com'}]}]}",
    "{endpointSelector: {}, ingress: [{fromEntities: [cluster]}]}",
    "{endpointSelector: {}, egressDeny: [{toEntities: [world]}], enableDefaultDeny: {egress: false}}",
];

fn cluster(pods: &str, spec: &str) -> Cluster {
    let policy = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    );
    let mut cluster = Cluster::new(Config::complete());
    apply(&mut cluster, &format!("{pods}{policy}"));
    cluster
}

fn compared(pods: &str, old: &str, new: &str) -> (Cluster, Cluster, Met, Comparison) {
    let (mut old, mut new) = (cluster(pods, old), cluster(pods, new));
    let met = meet(&mut old, &mut new);
    let comparison = compare(&old.judges(), &new.judges(), &met.names).unwrap();
    (old, new, met, comparison)
}

fn words(comparison: &Comparison) -> Vec<String> {
    let isolation = comparison.isolation.iter().map(|change| {
        let now = if change.isolated { "closed" } else { "not closed" };
        format!("{} {} {now}", change.subject.label(), change.direction)
    });
    let pairs = comparison.pairs.iter().flat_map(|pair| {
        pair.spans.iter().map(move |change| {
            format!("{} -> {} {} {:?}", pair.from.label(), pair.to.label(), change.span, change.felt())
        })
    });
    isolation.chain(pairs).collect()
}

#[test]
fn what_changes_is_told_once_for_pods_that_are_alike() {
    let (.., comparison) = compared(PODS, SPECS[1], SPECS[2]);
    assert_eq!(
        words(&comparison),
        ["shop/web +1 -> shop/db 80/TCP Requests", "shop/web +1 -> shop/db 81-90/TCP Closed"]
    );
    let (.., comparison) = compared(PODS, SPECS[3], SPECS[0]);
    assert_eq!(words(&comparison), ["shop/web +1 -> shop/db 85/TCP Opened"]);
    let (.., comparison) = compared(PODS, SPECS[0], SPECS[4]);
    let told = words(&comparison);
    assert_eq!(told[0], "shop/web +1 egress closed");
    assert!(told.contains(&"shop/web +1 -> shop/db TCP Closed".to_owned()), "{told:?}");
    assert!(told.contains(&"shop/web +1 -> world UDP Closed".to_owned()), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("10.0.0.0/8")), "{told:?}");
}

#[test]
fn prefixes_and_names_of_either_side_take_part() {
    let (.., met, comparison) = compared(PODS, SPECS[4], SPECS[5]);
    assert!(met.names.contains(&"10.96.0.0/12".to_owned()), "{met:?}");
    let told: BTreeSet<String> =
        words(&comparison).iter().filter(|line| line.contains(" TCP ")).cloned().collect();
    let wanted = ["shop/web +1 -> *.example.com TCP Opened", "shop/web +1 -> 10.96.0.0/12 TCP Closed"];
    assert_eq!(told, wanted.map(str::to_owned).into());
}

#[test]
fn pods_of_one_side_stand_for_the_other_and_are_made_up_where_there_are_none() {
    let (mut old, mut new) = (cluster(PODS, SPECS[1]), cluster("", SPECS[2]));
    let met = meet(&mut old, &mut new);
    assert!(!met.made_up && met.names.contains(&"batch/job".to_owned()), "{met:?}");
    let (.., met, comparison) = compared("", SPECS[1], SPECS[2]);
    assert!(met.made_up);
    assert_eq!(
        words(&comparison),
        ["shop/app=web -> shop/app=db 80/TCP Requests", "shop/app=web -> shop/app=db 81-90/TCP Closed"]
    );
    let fewer =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop, labels: {app: web}}\n---\n";
    let (mut old, mut new) = (cluster(PODS, SPECS[1]), cluster(fewer, SPECS[1]));
    assert_eq!(meet(&mut old, &mut new).only_old, ["batch/job", "shop/db", "shop/web-2"]);
}

/// A difference is told exactly where traces differ.
#[test]
fn differences_are_where_traces_differ() {
    let ports = [1, 79, 80, 81, 84, 85, 86, 90, 91, 65535];
    let mut differing = 0;
    for (old, new) in SPECS.iter().flat_map(|old| SPECS.iter().map(move |new| (*old, *new))) {
        let (mut before, mut after, met, comparison) = compared(PODS, old, new);
        if old == new {
            assert!(comparison.is_empty(), "{old}: {:?}", words(&comparison));
        }
        for (from, to) in met.names.iter().flat_map(|from| met.names.iter().map(move |to| (from, to))) {
            if from == to {
                continue;
            }
            for (protocol, port) in
                [Protocol::Tcp, Protocol::Udp].iter().flat_map(|protocol| ports.map(|port| (*protocol, port)))
            {
                let flow = Flow {
                    from: from.clone(),
                    to: to.clone(),
                    protocol,
                    port: FlowPort::Number(port),
                    request: None,
                };
                let outcome = |cluster: &mut Cluster| {
                    let trace = cluster.trace(&flow).unwrap();
                    (trace.word().passes(), trace.word().passes() && trace.is_proxied())
                };
                let differs = outcome(&mut before) != outcome(&mut after);
                let told = comparison
                    .pairs
                    .iter()
                    .filter(|pair| pair.from.members.contains(from) && pair.to.members.contains(to));
                let found = told.flat_map(|pair| &pair.spans).any(|change| {
                    change.span.protocol == protocol
                        && (change.span.first..=change.span.last).contains(&port)
                        && change.felt() != Felt::Audit
                });
                assert_eq!(found, differs, "{old} -> {new}: {flow:?}");
                differing += usize::from(differs);
            }
        }
    }
    assert!(differing > 1_000, "{differing}");
}
