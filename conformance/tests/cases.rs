//! All cases, one line each. Arguments choose by name: `cargo test -p sluice-conformance --test cases -- deny/`.
//! `SLUICE_CASES` names another directory of cases.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sluice_conformance::{case, clock, report};

fn main() -> ExitCode {
    // Flags are those that cargo hands to every test binary.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<String> =
        arguments.iter().filter(|argument| !argument.starts_with('-')).cloned().collect();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = std::env::var_os("SLUICE_CASES").map_or_else(|| here.join("cases"), PathBuf::from);
    let mut out = std::io::stdout();
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let start = clock::now();
    let summary = case::load_all(&root, &filters).and_then(report::run_all);
    let _unread = match &summary {
        Ok(summary) => writeln!(
            out,
            "\n{} passed, {} failed, {:.1} s",
            summary.passed,
            summary.failed,
            clock::now().saturating_duration_since(start).as_secs_f64()
        ),
        Err(error) => writeln!(out, "FAILED {error:#}"),
    };
    match summary {
        Ok(summary) if summary.failed == 0 && (summary.passed > 0 || !filters.is_empty()) => {
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    }
}
