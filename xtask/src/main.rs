//! Tasks of the workspace that are more than one cargo call. `make` is the front door; this is behind it.

mod ci;
mod ebpf;
mod fuzz;
mod tidy;

use anyhow::{Result, bail};

const USAGE: &str = "usage: cargo xtask ebpf | tidy | lint | ci | bench [FILTER] | fuzz [SECONDS [TARGET]]
  ebpf    build the kernel programs into target/ebpf/sluice.bpf.o
  tidy    check the structure: dependency directions, invariants, documents
  lint    formatting, clippy and tidy
  ci      everything: build, lint, all tests
  bench   measure against named peers, results in target/bench/
  fuzz    look for inputs that break the readers of the proxies, so long for each";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["ebpf"] => ebpf::build().map(drop),
        ["tidy"] => tidy::check(),
        ["lint"] => ci::lint(),
        ["ci"] => ci::all(),
        ["bench", rest @ ..] => ci::bench(rest),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        _ => bail!("{USAGE}"),
    }
}
