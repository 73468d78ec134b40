//! Runs all cases on a few nodes side by side and says what came of each.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::case::Case;
use crate::clock;
use crate::netns::hide_mounts;
use crate::node::{Node, NodeConfig};
use crate::run::{clear_topology, run};
use crate::topology::Topology;

/// Nodes at work at a time.
const NODES: usize = 2;
/// Cases on one topology are shared out in portions of this size.
const PORTION: usize = 8;

/// What came of all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Cases that hold.
    pub passed: usize,
    /// Cases that do not.
    pub failed: usize,
}

/// Cases that share a node's settings and pods.
struct Portion {
    config: NodeConfig,
    cases: Vec<Case>,
}

/// Runs the cases and prints one line for each.
///
/// # Errors
/// Not root: then nothing is run.
pub fn run_all(cases: Vec<Case>) -> Result<Summary> {
    hide_mounts()?;
    let portions = Mutex::new(portions(cases));
    let summary = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..NODES {
            scope.spawn(|| work(&portions, &summary));
        }
    });
    let summary = *summary.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(summary)
}

fn portions(cases: Vec<Case>) -> VecDeque<Portion> {
    let mut groups: BTreeMap<(NodeConfig, Topology), Vec<Case>> = BTreeMap::new();
    for case in cases {
        groups.entry((case.config.clone(), case.topology.clone())).or_default().push(case);
    }
    let mut portions = VecDeque::new();
    for ((config, _), cases) in groups {
        for cases in cases.chunks(PORTION) {
            portions.push_back(Portion { config: config.clone(), cases: cases.to_vec() });
        }
    }
    portions
}

fn work(portions: &Mutex<VecDeque<Portion>>, summary: &Mutex<Summary>) {
    let mut node: Option<(NodeConfig, Node)> = None;
    loop {
        let portion = portions.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(Portion { config, cases }) = portion else { return };
        if node.as_ref().is_some_and(|(own, _)| *own != config) {
            node = None;
        }
        for case in &cases {
            let start = clock::now();
            let result = match &mut node {
                Some((_, node)) => run(node, case),
                None => Node::start(&config).context("starting a node").and_then(|started| {
                    let (_, started) = node.insert((config.clone(), started));
                    run(started, case)
                }),
            };
            let failed = result.is_err();
            tell(case, result, clock::now().saturating_duration_since(start), summary);
            if failed {
                // What a failed case left behind must not fail the next one.
                node = None;
            }
        }
        if let Some((_, used)) = &mut node
            && clear_topology(used).is_err()
        {
            node = None;
        }
    }
}

fn tell(case: &Case, result: Result<()>, took: Duration, summary: &Mutex<Summary>) {
    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
    let mut out = std::io::stdout().lock();
    let seconds = took.as_secs_f64();
    let written = match result {
        Ok(()) => {
            summary.passed += 1;
            writeln!(out, "ok     {:<58} {seconds:6.2} s", case.name)
        }
        Err(error) => {
            summary.failed += 1;
            let text = format!("{error:#}").replace('\n', "\n       ");
            writeln!(out, "FAILED {:<58} {seconds:6.2} s\n       {}\n       {text}", case.name, case.holds)
        }
    };
    // Nobody reads any more: the exit code still tells.
    let _unread = written.and_then(|()| out.flush());
}
