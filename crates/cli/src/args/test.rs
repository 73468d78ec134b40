//! What `sluice policy test` is asked.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use regex::Regex;

const EXAMPLES: &str = "\
A test says who reaches whom and what must come of it; docs/policy-test.md describes the format, and
`sluice schema policytest` prints its schema. No agent is needed.

Examples:
  sluice policy test tests/                        every policy test below a directory
  sluice policy test tests/ --filter DELETE        only tests whose name holds DELETE
  sluice policy test tests/ --coverage             and say which rules no test meets
  sluice policy test tests/ --watch                again whenever a test or a policy changes
  sluice policy test tests/ -o junit > tests.xml   for a CI server

Exit codes: 0 all passed, 1 a test failed, 4 a file could not be read or is not valid.";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TestArgs {
    /// Test files, or directories with test files anywhere below
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Only tests whose name this regular expression matches somewhere
    #[arg(long, value_name = "REGEX")]
    pub(crate) filter: Option<Regex>,
    /// Run again whenever a test file or a policy it uses changes
    #[arg(long)]
    pub(crate) watch: bool,
    /// Say which parts of rules no test meets
    #[arg(long)]
    pub(crate) coverage: bool,
    /// Output format
    #[arg(short = 'o', long = "output", value_enum, default_value_t = TestFormat::Table, value_name = "FORMAT")]
    pub(crate) format: TestFormat,
}

/// How the results are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum TestFormat {
    /// A line per file, and what failed, for people.
    Table,
    /// One JSON object.
    Json,
    /// JUnit's XML.
    Junit,
    /// The Test Anything Protocol.
    Tap,
    /// SARIF 2.1.0, for code hosts.
    Sarif,
}
