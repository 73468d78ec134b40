//! Pod to pod on one node, with policy and connection tracking on, against the ways people connect pods today.

use std::time::Duration;

use anyhow::Result;

use crate::datapath::Enforced;
use crate::lab::{Kind, Lab};
use crate::report::{Aim, Row, warn_if_noisy};
use crate::rounds::{Scores, interleave};
use crate::traffic::Pattern;

const ROUNDS: usize = 11;
const SLICE: Duration = Duration::from_millis(700);
/// Ours first: the ratios are against it.
const KINDS: [Kind; 5] =
    [Kind::Sluice, Kind::Routed, Kind::BridgePlugin, Kind::Nftables(100), Kind::Nftables(1000)];

/// Every row of the group.
pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut labs = Vec::new();
    let mut enforced = Vec::new();
    for kind in KINDS {
        let lab = Lab::new(kind)?;
        if kind == Kind::Sluice {
            enforced.push(Enforced::new(&lab)?);
        }
        labs.push(lab);
    }
    let mut rows = Vec::new();
    for (pattern, id, what) in [
        (Pattern::RequestResponse, "tcp-rr", "TCP request/response"),
        (Pattern::ConnectRequestClose, "tcp-crr", "TCP connect/request/close"),
    ] {
        let scores = interleave(labs.len(), ROUNDS, |nth| path(&labs, nth)?.ping_pong(pattern, SLICE))?;
        warn_if_noisy(what, &scores);
        rows.extend(compare(id, what, "/s", &scores, |kind| match (pattern, kind) {
            (Pattern::RequestResponse, Kind::Routed) => Aim::AtLeast(1.05),
            (Pattern::RequestResponse, Kind::BridgePlugin) => Aim::AtLeast(1.08),
            (Pattern::ConnectRequestClose, Kind::Routed) => Aim::AtLeast(0.98),
            _ => Aim::None,
        }));
    }
    rows.extend(bulk(&labs)?);
    Ok(rows)
}

fn bulk(labs: &[Lab]) -> Result<Vec<Row>> {
    let mut cpu = vec![Vec::new(); labs.len()];
    let scores = interleave(labs.len(), ROUNDS, |nth| {
        let (gigabits, cpu_seconds) = path(labs, nth)?.bulk(SLICE)?;
        if let Some(list) = cpu.get_mut(nth) {
            list.push(cpu_seconds);
        }
        Ok(gigabits)
    })?;
    warn_if_noisy("single stream", &scores);
    let only_routed = |aim: Aim| move |kind| if kind == Kind::Routed { aim } else { Aim::None };
    let mut rows =
        compare("tcp-stream", "TCP single stream", " Gbit/s", &scores, only_routed(Aim::AtLeast(0.98)));
    let cpu = Scores::from_lists(cpu);
    rows.extend(compare("tcp-stream-cpu", "CPU per Gbit", " s", &cpu, only_routed(Aim::AtMost(1.0))));
    Ok(rows)
}

fn path(labs: &[Lab], nth: usize) -> Result<crate::traffic::Path<'_>> {
    use anyhow::Context;
    labs.get(nth).map(Lab::path).context("no such lab")
}

fn compare(id: &str, what: &str, unit: &str, scores: &Scores, aim: impl Fn(Kind) -> Aim) -> Vec<Row> {
    let mut rows = Vec::new();
    for (nth, kind) in KINDS.iter().copied().enumerate().skip(1) {
        let (ratio, spread) = scores.ratio(0, nth);
        rows.push(Row {
            id: format!("{id}/{}", kind.name().replace([' ', ','], "-")),
            what: what.to_owned(),
            against: kind.name(),
            ratio,
            spread,
            aim: aim(kind),
            note: format!("{:.3} to {:.3}{unit}", scores.median(0), scores.median(nth)),
        });
    }
    rows
}
