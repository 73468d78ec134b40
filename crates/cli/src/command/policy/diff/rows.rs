//! Differences gathered into as few rows as say them.

use std::collections::BTreeMap;

use sluice_model::{Comparison, Felt, PROTOCOLS, Passage, SpanChange};

use super::super::matrix::pieces;

/// A row: everybody in `from` towards everybody in `to`.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) felt: Felt,
    pub(super) from: Vec<String>,
    pub(super) to: Vec<String>,
    /// `all`, or ports.
    pub(super) ports: String,
    pub(super) layer: &'static str,
    /// Before and now, where more than a word is to be said.
    pub(super) detail: String,
}

/// What happens to the traffic of a row.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct What {
    felt: Felt,
    ports: String,
    layer: &'static str,
    detail: String,
}

/// Rows with the same traffic share their receivers, then their senders.
pub(super) fn rows(comparison: &Comparison) -> Vec<Row> {
    let mut by_sender: BTreeMap<(String, What), Vec<String>> = BTreeMap::new();
    for pair in &comparison.pairs {
        for what in traffic(&pair.spans) {
            by_sender.entry((pair.from.label(), what)).or_default().push(pair.to.label());
        }
    }
    let mut by_receivers: BTreeMap<(What, Vec<String>), Vec<String>> = BTreeMap::new();
    for ((from, what), to) in by_sender {
        by_receivers.entry((what, to)).or_default().push(from);
    }
    let row = |((what, to), from): ((What, Vec<String>), Vec<String>)| Row {
        felt: what.felt,
        from,
        to,
        ports: what.ports,
        layer: what.layer,
        detail: what.detail,
    };
    by_receivers.into_iter().map(row).collect()
}

fn traffic(spans: &[SpanChange]) -> Vec<What> {
    let mut kinds: BTreeMap<(Felt, String), Vec<&SpanChange>> = BTreeMap::new();
    for change in spans {
        kinds.entry((change.felt(), detail(change))).or_default().push(change);
    }
    let what = |((felt, detail), changes): ((Felt, String), Vec<&SpanChange>)| {
        let everything = changes.iter().filter(|change| change.span.is_whole()).count() == PROTOCOLS.len();
        let ports = match everything {
            true => "all".to_owned(),
            false => pieces(changes.iter().map(|change| &change.span)).join(" "),
        };
        let layer = match (felt, everything) {
            (Felt::Requests, _) => "L7",
            (Felt::Audit, _) => "audit",
            (Felt::Opened | Felt::Closed, true) => "L3",
            (Felt::Opened | Felt::Closed, false) => "L4",
        };
        What { felt, ports, layer, detail }
    };
    kinds.into_iter().map(what).collect()
}

fn detail(change: &SpanChange) -> String {
    let is_requests = |passage: &Passage| matches!(passage, Passage::Requests(_));
    match (change.felt(), is_requests(&change.span.passage)) {
        (Felt::Requests, _) | (Felt::Opened, true) | (Felt::Audit, _) => {
            format!("{} → {}", words(&change.before), words(&change.span.passage))
        }
        (Felt::Opened, false) | (Felt::Closed, _) => String::new(),
    }
}

fn words(passage: &Passage) -> String {
    match passage {
        Passage::Closed => "nothing".to_owned(),
        Passage::Open => "everything".to_owned(),
        Passage::Audited => "everything, reported".to_owned(),
        Passage::Requests(requests) => requests.words().join(", "),
    }
}
