//! The policy engine on a large cluster: 20,000 identities, 10,000 policies, a node with 50 endpoints.
//!
//! The peer is the plain way: every selector against every identity, with the same selectors, labels and table.

mod cluster;
mod memory;
mod plain;

use std::{sync::Arc, time::Instant};

use anyhow::{Result, ensure};
use sluice_policy::{Changed, EndpointPolicy, Repository, Subject};
use sluice_types::{Identity, Labels};

use crate::{
    report::{Aim, Row},
    rounds::{Scores, interleave, quantile},
};
use cluster::Cluster;
use plain::Plain;

pub(crate) use memory::Counting;

/// How often the node is resolved.
const ROUNDS: usize = 7;
/// How many identities come one by one.
const ARRIVALS: u32 = 3_000;
/// How many changes are made at once before endpoints are resolved again, as an agent does under load.
const BATCH: usize = 100;

/// The aims, in seconds, changes per second and bytes.
const RESOLVE_SECONDS: f64 = 0.050;
const ADD_SECONDS: f64 = 0.001;
const CHANGES_PER_SECOND: f64 = 10_000.0;
const BYTES_PER_POD: f64 = 256.0;

/// Every row of the group.
pub(crate) fn measure() -> Result<Vec<Row>> {
    let cluster = Cluster::new();
    let (mut node, bytes) = Node::new(&cluster);
    let mut plain = Plain::new(&cluster);
    let mut rows = resolve(&cluster, &plain)?;
    rows.extend(arrivals(&mut node, &mut plain, &cluster)?);
    rows.extend(churn(&mut node, &cluster));
    rows.extend(memory_rows(bytes, &cluster));
    Ok(rows)
}

/// The repository of a node, and its endpoints.
struct Node {
    repository: Repository,
    endpoints: Vec<Subject>,
    policies: Vec<Arc<EndpointPolicy>>,
}

impl Node {
    /// Also says how many bytes one remote pod takes, each with an identity of its own.
    fn new(cluster: &Cluster) -> (Self, f64) {
        let mut repository = cluster.repository();
        let before = memory::allocated();
        for (identity, labels) in &cluster.identities {
            // Labels of its own, as they come from the API server: nothing is shared with those of the cluster.
            let labels: Labels = labels.iter().cloned().collect();
            drop(repository.set_identity(*identity, labels));
        }
        let bytes = (memory::allocated() - before) as f64 / cluster.identities.len() as f64;
        let endpoints = cluster.endpoints();
        let policies = endpoints.iter().map(|subject| repository.resolve(subject)).collect();
        (Self { repository, endpoints, policies }, bytes)
    }

    /// Resolves anew for whoever a change affects.
    fn follow(&mut self, changed: &Changed) {
        for (subject, policy) in self.endpoints.iter().zip(&mut self.policies) {
            if changed.affects(&subject.labels) {
                *policy = self.repository.resolve(subject);
            }
        }
    }
}

/// Every endpoint from nothing: nobody holds what was resolved before.
fn resolve(cluster: &Cluster, plain: &Plain) -> Result<Vec<Row>> {
    let (Node { repository, endpoints, policies }, _) = Node::new(cluster);
    drop(policies);
    let mut entries = 0;
    let scores = interleave(2, ROUNDS, |subject| {
        let (seconds, all) = seconds(|| match subject {
            0 => endpoints
                .iter()
                .map(|subject| repository.resolve(subject).map_state.entries.len())
                .sum::<usize>(),
            _ => endpoints.iter().map(|subject| plain.resolve(subject).len()).sum(),
        });
        ensure!(entries == 0 || entries == all, "{all} entries are not the {entries} of the other");
        entries = all;
        Ok(seconds)
    })?;
    let note = format!(
        "{:.1} ms to {:.0} ms; {} endpoints, {entries} entries",
        scores.median(0) * 1e3,
        scores.median(1) * 1e3,
        endpoints.len()
    );
    Ok(compared(
        "engine-resolve",
        "resolution of all endpoints of a node",
        &scores,
        RESOLVE_SECONDS,
        "50 ms",
        &note,
    ))
}

/// Identities that come one by one, until every endpoint's policy knows them.
fn arrivals(node: &mut Node, plain: &mut Plain, cluster: &Cluster) -> Result<Vec<Row>> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for (identity, labels) in cluster.newcomers(ARRIVALS) {
        let (taken, ()) = seconds(|| {
            let changed = node.repository.set_identity(identity, labels.clone());
            node.follow(&changed);
        });
        ours.push(taken);
        if theirs.len() < 300 {
            let (taken, matched) = seconds(|| plain.add(&labels));
            ensure!(matched > 0, "nobody selects {labels}");
            theirs.push(taken);
        }
    }
    let (p50, p99) = (quantile(&ours, 0.5), quantile(&ours, 0.99));
    let peer = quantile(&theirs, 0.99);
    let note = format!("p50 {:.0} us, p99 {:.0} us to {:.0} us", p50 * 1e6, p99 * 1e6, peer * 1e6);
    let spread = |peer: f64| (p50 / peer, quantile(&ours, 0.999) / peer);
    let row = |id: &str, against: &str, peer: f64, aim| Row {
        id: id.to_owned(),
        what: "one more identity, p99".to_owned(),
        against: against.to_owned(),
        ratio: p99 / peer,
        spread: spread(peer),
        aim,
        note: note.clone(),
    };
    Ok(vec![
        row("engine-add-1ms", "1 ms", ADD_SECONDS, Aim::AtMost(1.0)),
        row("engine-add-plain", "every selector", peer, Aim::AtMost(1.0)),
    ])
}

/// Identities that come, change and go, as fast as one core takes them.
fn churn(node: &mut Node, cluster: &Cluster) -> Vec<Row> {
    let known: Vec<(Identity, Labels)> = cluster.identities.iter().step_by(7).cloned().collect();
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let mut changes = 0;
        let (taken, ()) = seconds(|| {
            for batch in known.chunks(BATCH) {
                let mut all = Changed::default();
                for (identity, labels) in batch {
                    all.merge(node.repository.remove_identity(*identity));
                    all.merge(node.repository.set_identity(*identity, labels.clone()));
                    changes += 2;
                }
                node.follow(&all);
            }
        });
        rates.push(f64::from(changes) / taken);
    }
    let rate = quantile(&rates, 0.5);
    vec![Row {
        id: "engine-churn".to_owned(),
        what: "changes of identities per second".to_owned(),
        against: "10,000 per second".to_owned(),
        ratio: rate / CHANGES_PER_SECOND,
        spread: (quantile(&rates, 0.25) / CHANGES_PER_SECOND, quantile(&rates, 0.75) / CHANGES_PER_SECOND),
        aim: Aim::AtLeast(1.0),
        note: format!("{rate:.0} per second, endpoints resolved after every {} changes", BATCH * 2),
    }]
}

fn memory_rows(bytes: f64, cluster: &Cluster) -> Vec<Row> {
    let before = memory::allocated();
    let plain: Vec<(Identity, Vec<(String, String)>)> = cluster.identities.iter().map(owned).collect();
    let peer = (memory::allocated() - before) as f64 / plain.len() as f64;
    let row = |id: &str, against: &str, peer: f64, aim| Row {
        id: id.to_owned(),
        what: "bytes per remote pod".to_owned(),
        against: against.to_owned(),
        ratio: bytes / peer,
        spread: (bytes / peer, bytes / peer),
        aim,
        note: format!("{bytes:.0} bytes to {peer:.0}; one identity per pod"),
    };
    vec![
        row("engine-memory-256", "256 bytes", BYTES_PER_POD, Aim::AtMost(1.0)),
        row("engine-memory-plain", "its labels as strings", peer, Aim::AtMost(1.0)),
    ]
}

fn owned((identity, labels): &(Identity, Labels)) -> (Identity, Vec<(String, String)>) {
    let text = |label: &sluice_types::Label| {
        (format!("{}:{}", label.source.as_str(), label.key), label.value.clone())
    };
    (*identity, labels.iter().map(text).collect())
}

/// Two rows: against what is aimed at, and against the peer of the same rounds.
fn compared(id: &str, what: &str, scores: &Scores, aim: f64, aim_text: &str, note: &str) -> Vec<Row> {
    let ours = scores.median(0);
    let (ratio, spread) = scores.ratio(0, 1);
    let row = |id: String, against: &str, ratio, spread, aim| Row {
        id,
        what: what.to_owned(),
        against: against.to_owned(),
        ratio,
        spread,
        aim,
        note: note.to_owned(),
    };
    vec![
        row(format!("{id}-aim"), aim_text, ours / aim, (ours / aim, ours / aim), Aim::AtMost(1.0)),
        row(format!("{id}-plain"), "every selector, every identity", ratio, spread, Aim::AtMost(1.0)),
    ]
}

fn seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    #[expect(clippy::disallowed_methods, reason = "measuring is this program's purpose")]
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_secs_f64(), result)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_plain_way_comes_to_the_same_table() {
        let cluster = Cluster::small();
        let (node, _) = Node::new(&cluster);
        let plain = Plain::new(&cluster);
        let mut kinds = BTreeSet::new();
        for (subject, policy) in node.endpoints.iter().zip(&node.policies) {
            let keys: Vec<_> =
                policy.map_state.entries.iter().map(|(key, entry)| (*key, entry.verdict)).collect();
            assert_eq!(
                keys,
                plain.resolve(subject).into_iter().map(|(key, entry)| (key, entry.0)).collect::<Vec<_>>()
            );
            kinds.insert(keys.len());
        }
        assert!(kinds.len() > 3, "{kinds:?}");
    }
}
