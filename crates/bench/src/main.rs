//! `make bench`: measurements side by side with named peers, printed as ratios.
//!
//! One run, interleaved rounds, medians and spread. `docs/benchmarks.md` explains each row. Needs root, but for the
//! group `engine`; makes its own namespaces and removes them.

mod change;
mod cni;
mod datapath;
mod engine;
mod http;
mod lab;
mod netns;
mod network;
mod program;
mod report;
mod rounds;
mod traffic;

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::report::{Row, publish, write_out};

/// Some rows are about memory.
#[global_allocator]
static ALLOCATOR: engine::Counting = engine::Counting;

/// A group of rows that is measured together.
type Group = (&'static str, fn() -> Result<Vec<Row>>);

const GROUPS: &[Group] = &[
    ("network", network::measure),
    ("program", program::measure),
    ("change", change::measure),
    ("engine", engine::measure),
    ("cni", cni::measure),
    ("http", http::measure),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((_, rest)) = arguments.split_first().filter(|(first, _)| *first == "http-proxy") {
        return http::serve(rest);
    }
    let filter = arguments.into_iter().next().unwrap_or_default();
    if filter == "differential" {
        return http::differential();
    }
    let chosen: Vec<&Group> = GROUPS.iter().filter(|(name, _)| name.contains(&filter)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
        bail!("no group is called {filter}; there are {}", names.join(", "));
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    for (name, measure) in chosen {
        write_out(&format!("{name}\n"));
        let rows = measure().with_context(|| (*name).to_owned())?;
        publish(&directory, name, &rows)?;
    }
    Ok(())
}
