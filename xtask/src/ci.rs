//! The order in which everything is built and tested, cheapest failure first.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{ebpf, tidy};

/// Formatting, clippy with warnings as errors, structure.
pub(crate) fn lint() -> Result<()> {
    step("structure", tidy::check)?;
    step("formatting", || cargo(&["fmt", "--all", "--check"]))?;
    step("kernel programs", || ebpf::build().map(drop))?;
    step("clippy", || cargo(&["clippy", "-q", "--all-targets", "--", "-D", "warnings"]))
}

/// Everything a change must pass.
pub(crate) fn all() -> Result<()> {
    ensure!(
        effective_uid() == Some(0),
        "the tests make network namespaces and load programs into the kernel: run them as root"
    );
    lint()?;
    step("build", || cargo(&["build", "-q"]))?;
    step("tests", || cargo(&["test", "--no-fail-fast"]))
}

/// Runs the measurements with the release profile.
pub(crate) fn bench(filter: &[&str]) -> Result<()> {
    step("build", || cargo(&["build", "-q", "--release"]))?;
    let mut arguments = vec!["run", "-q", "--release", "-p", "sluice-bench", "--"];
    arguments.extend(filter);
    cargo(&arguments)
}

fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "an edge: how long a step took is for people")]
    let start = Instant::now();
    eprintln!("── {name}");
    run().with_context(|| format!("{name} failed"))?;
    eprintln!("── {name}: ok, {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(arguments).status().context("cannot start cargo")?;
    ensure!(status.success(), "cargo {} failed", arguments.join(" "));
    Ok(())
}

/// The effective user id, from the kernel's own account of this process.
fn effective_uid() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
