//! The policy tests of `conformance/policy-tests` through real packets, as far as this node can do them. Arguments
//! choose by name.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use sluice_conformance::case::Ask;
use sluice_conformance::{clock, policy_test, report};

/// So many tests must be asked, and so many of them in requests: what cannot be done must not become most of it unnoticed.
const ASKED_MIN: usize = 1_000;
const REQUESTS_MIN: usize = 55;

fn main() -> ExitCode {
    // Flags are those that cargo hands to every test binary.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    match run(&filters) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _unread = writeln!(std::io::stdout(), "FAILED {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(filters: &[&String]) -> Result<bool> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("policy-tests");
    let start = clock::now();
    let mut cases = Vec::new();
    let mut left_out: BTreeMap<String, usize> = BTreeMap::new();
    for file in policy_test::files(&root)? {
        for taken in policy_test::read(&file).with_context(|| file.display().to_string())? {
            for (reason, tests) in taken.left_out {
                *left_out.entry(reason).or_default() += tests;
            }
            cases.extend(taken.case);
        }
    }
    cases.retain(|case| {
        filters.is_empty() || filters.iter().any(|filter| case.name.contains(filter.as_str()))
    });
    let asks: Vec<&Ask> = cases.iter().flat_map(|case| &case.steps).flat_map(|step| &step.asks).collect();
    let (asked, requests) = (asks.len(), asks.iter().filter(|ask| ask.request.is_some()).count());
    let are_many = asked >= ASKED_MIN && requests >= REQUESTS_MIN;
    ensure!(
        !filters.is_empty() || are_many,
        "only {asked} tests can be asked, {requests} in requests: {left_out:#?}"
    );
    let summary = report::run_all(cases)?;
    let mut out = std::io::stdout();
    writeln!(out, "\n{asked} tests were asked, {requests} in requests. Left out:")?;
    for (reason, tests) in left_out {
        writeln!(out, "{tests:5}  {reason}")?;
    }
    let seconds = clock::now().saturating_duration_since(start).as_secs_f64();
    writeln!(out, "\n{} passed, {} failed, {seconds:.1} s", summary.passed, summary.failed)?;
    Ok(summary.failed == 0 && (summary.passed > 0 || !filters.is_empty()))
}
