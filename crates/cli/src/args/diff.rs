//! What `sluice policy diff` is asked.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  sluice policy diff policies-now/ policies-new/
  sluice policy diff old.yaml new.yaml -f pods.yaml         pods, namespaces and Services of both sides
  sluice policy diff --live policies-new/                   against what the running agent enforces
  sluice policy diff --live policies-new/ --against flows.jsonl
                                                            recorded with `sluice monitor -t policy-verdict -o json`

Pods that only one side has are not compared. If there are none at all, pods are made up that the selectors mean.

Exit codes: 0 nothing is different, 1 something is, 2 trouble.";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DiffArgs {
    /// Policies as they are, and as they are to be: files or directories. With --live only the latter
    #[arg(required = true, num_args = 1..=2, value_name = "OLD NEW")]
    pub(crate) sides: Vec<PathBuf>,
    /// Manifests that hold for both sides: files, directories, or -; repeatable
    #[arg(short, long = "filename", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Compare with what the running agent enforces
    #[arg(long)]
    pub(crate) live: bool,
    /// Say of these recorded flows which would break or newly pass; - is standard input
    #[arg(long, value_name = "FLOWS")]
    pub(crate) against: Option<PathBuf>,
    /// Output format
    #[arg(short = 'o', long = "output", value_enum, default_value_t = DiffFormat::Table, value_name = "FORMAT")]
    pub(crate) format: DiffFormat,
}

/// How differences are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum DiffFormat {
    /// Aligned, for people.
    Table,
    /// One JSON object.
    Json,
}
