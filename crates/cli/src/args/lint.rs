//! Arguments of `sluice policy lint`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

const EXIT_CODES: &str = "\
Exit codes:
  0  nothing is found, or nothing of the severity that --deny names
  1  something is found
  4  a file cannot be read";

#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct LintArgs {
    /// Files, directories, or - for standard input
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) paths: Vec<PathBuf>,
    /// Also say what other implementations would refuse or understand differently
    #[arg(long)]
    pub(crate) portable: bool,
    /// The least severity that makes the exit code 1
    #[arg(long, value_enum, default_value_t = Deny::Warnings, value_name = "SEVERITY")]
    pub(crate) deny: Deny,
    /// How many map entries the policy of one endpoint may have
    #[arg(long, default_value_t = sluice_lint::MAP_BUDGET, value_name = "ENTRIES")]
    pub(crate) map_budget: usize,
    /// Print what a code means, with an example and how to mend it
    #[arg(long, value_name = "CODE", conflicts_with_all = ["portable", "deny", "map_budget", "format"])]
    pub(crate) explain: Option<String>,
    /// Output format
    #[arg(short = 'o', long = "output", value_enum, default_value_t = LintFormat::Table, value_name = "FORMAT")]
    pub(crate) format: LintFormat,
}

/// What makes the exit code 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Deny {
    /// Everything that is found.
    Hints,
    /// Warnings and errors.
    Warnings,
    /// Errors.
    Errors,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum LintFormat {
    /// With the lines they are about, for people.
    Table,
    /// One JSON object.
    Json,
    /// SARIF 2.1.0, for code review tools.
    Sarif,
}
