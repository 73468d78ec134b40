//! What `sluice policy fmt` is asked.

use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
Only the layout changes: what a policy says, its comments and the order of documents stay. Documents of other kinds
are left as they stand, and files with anchors, aliases or tags in a policy are refused. docs/fmt.md describes the
layout.

Examples:
  sluice policy fmt policies/              every .yaml and .yml file of a directory, in place
  sluice policy fmt --diff web.yaml        show what would change, and change nothing
  sluice policy fmt --check policies/      for CI: list what is not formatted, exit 1 if there is any
  sluice policy fmt - < web.yaml           from standard input to standard output

Exit codes: 0 done, or nothing to do; 1 --check found something; 4 a file is no YAML or is refused; 5 there is no such
file.";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FmtArgs {
    /// Files, directories, or - for standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Change nothing; list the files that are not formatted, and exit 1 if there is any
    #[arg(long)]
    pub(crate) check: bool,
    /// Change nothing; print what would change
    #[arg(long)]
    pub(crate) diff: bool,
}
