//! What `sluice policy convert` is asked.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  sluice policy convert networkpolicy.yaml > cilium.yaml
  sluice policy convert --to kubernetes policies/
  kubectl get netpol -A -o yaml | sluice policy convert -

The meaning stays exactly the same. What the other language cannot say is an error with the field's path, and nothing
is printed. `sluice policy diff BEFORE AFTER` shows that nothing changed.

Exit codes: 0 everything is converted, 4 something cannot be said or read, 5 there is no such file or no policy in it.";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConvertArgs {
    /// Files, directories, or - for standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Only into this language; policies that are in it already stay. Without it each becomes the other
    #[arg(long, value_enum, value_name = "LANGUAGE")]
    pub(crate) to: Option<Language>,
}

/// A language of policies.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Language {
    /// CiliumNetworkPolicy.
    Cilium,
    /// NetworkPolicy.
    Kubernetes,
}
