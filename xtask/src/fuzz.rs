//! Runs the fuzzer's targets: `libFuzzer` with the instruments that a stable compiler has.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// What `libFuzzer` is told of each branch and comparison (the flags of `cargo fuzz`, without a sanitizer: everything but
/// the compiler's own library is safe code).
const INSTRUMENTS: &str = "--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
const DEFAULT_SECONDS: u32 = 60;
/// The longest input: several heads.
const INPUT_BYTES: u32 = 4_096;

/// `[SECONDS [TARGET]]`: every target, or one, for so long each.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let (seconds, wanted) = match arguments {
        [] => (DEFAULT_SECONDS, None),
        [seconds] => (seconds.parse().context("SECONDS")?, None),
        [seconds, target] => (seconds.parse().context("SECONDS")?, Some(*target)),
        _ => bail!("usage: cargo xtask fuzz [SECONDS [TARGET]]"),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no parent of xtask")?;
    let known = targets(&root.join("fuzz/targets"))?;
    let chosen: Vec<&String> = known.iter().filter(|name| wanted.is_none_or(|own| own == *name)).collect();
    ensure!(!chosen.is_empty(), "no such target; there are {}", known.join(", "));
    let results = root.join("target/fuzz");
    let programs = build(root, &results)?;
    for target in chosen {
        let corpus = results.join("corpus").join(target);
        fs::create_dir_all(&corpus)?;
        eprintln!("── {target}, {seconds} s");
        let status = Command::new(programs.join(target))
            .arg(&corpus)
            .arg(root.join("fuzz/seeds").join(target))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={INPUT_BYTES}"))
            .args(["-timeout=10", "-print_final_stats=1"])
            .arg(format!("-artifact_prefix={}/{target}-", results.display()))
            .status()
            .with_context(|| format!("cannot start {target}"))?;
        ensure!(status.success(), "{target} found something: see {}", results.display());
    }
    Ok(())
}

/// The names of the targets, in order.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Builds all of them, and says where they are. With a target named, what runs while building is left without
/// instruments.
fn build(root: &Path, results: &Path) -> Result<std::path::PathBuf> {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "-q", "--release", "--locked", "--target", &host, "--manifest-path"])
        .arg(root.join("fuzz/Cargo.toml"))
        .arg("--target-dir")
        .arg(results)
        .env("RUSTFLAGS", INSTRUMENTS)
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the targets cannot be built");
    Ok(results.join(host).join("release"))
}
