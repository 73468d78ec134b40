//! Differences as programs read them.

use serde_json::{Value, json};
use sluice_model::{Felt, IsolationChange, PairChange, Passage, SpanChange};

use super::super::matrix::spans_json;
use super::Difference;
use super::flows::{FlowChanges, Seen};

pub(super) fn of(difference: &Difference) -> Value {
    let Difference { met, comparison, flows } = difference;
    json!({
        "different": !difference.is_empty(),
        "compared": met.names,
        "madeUp": met.made_up,
        "onlyOld": met.only_old,
        "onlyNew": met.only_new,
        "isolation": comparison.isolation.iter().map(isolation).collect::<Vec<Value>>(),
        "reachability": comparison.pairs.iter().flat_map(pair).collect::<Vec<Value>>(),
        "flows": flows.as_ref().map(recorded),
    })
}

fn isolation(change: &IsolationChange) -> Value {
    json!({
        "endpoints": change.subject.members,
        "direction": change.direction,
        "isolated": change.isolated,
        "by": change.by.iter().map(ToString::to_string).collect::<Vec<String>>(),
    })
}

fn pair(pair: &PairChange) -> impl Iterator<Item = Value> {
    pair.spans.iter().map(|change| {
        json!({
            "from": pair.from.members,
            "to": pair.to.members,
            "change": word(change.felt()),
            "ports": change.span.to_string(),
            "before": passage(change, &change.before),
            "after": passage(change, &change.span.passage),
        })
    })
}

const fn word(felt: Felt) -> &'static str {
    match felt {
        Felt::Opened => "opened",
        Felt::Closed => "closed",
        Felt::Requests => "requests",
        Felt::Audit => "audit",
    }
}

fn passage(change: &SpanChange, passage: &Passage) -> Value {
    let span = sluice_model::Span { passage: passage.clone(), ..change.span.clone() };
    spans_json([&span].into_iter()).get(0).cloned().unwrap_or_default()
}

fn recorded(flows: &FlowChanges) -> Value {
    let shown = |seen: &Seen, times: usize| json!({"from": seen.from, "to": seen.to, "port": seen.port, "times": times});
    let breaking = flows.breaking.iter().map(|(seen, (times, by))| {
        let mut flow = shown(seen, *times);
        if let Some(fields) = flow.as_object_mut() {
            fields.insert("by".to_owned(), json!(by));
        }
        flow
    });
    json!({
        "judged": flows.judged,
        "breaking": breaking.collect::<Vec<Value>>(),
        "opening": flows.opening.iter().map(|(seen, times)| shown(seen, *times)).collect::<Vec<Value>>(),
    })
}
