//! What `sluice policy matrix` and `selectors` are asked.

use clap::{Args, ValueEnum};

use super::{Out, Scene};

const EXAMPLES: &str = "\
Examples:
  sluice policy matrix -f policies/                          every pod, and the world
  sluice policy matrix -f policies/ --namespace shop --port 8080/TCP
  sluice policy matrix -f policies/ -o svg > matrix.svg
  sluice policy matrix --with kube-apiserver,10.0.0.7        of the running node

Pods that no policy can tell apart share a row.";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MatrixArgs {
    #[command(flatten)]
    pub(crate) scene: Scene,
    /// Only pods of this namespace; repeatable
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Vec<String>,
    /// Others that have a row and a column: entities, addresses, DNS names
    #[arg(long, value_name = "END", value_delimiter = ',', default_value = "world")]
    pub(crate) with: Vec<String>,
    /// Only whether this port is reached
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    pub(crate) port: Option<String>,
    /// Output format
    #[arg(short = 'o', long = "output", value_enum, default_value_t = MatrixFormat::Table, value_name = "FORMAT")]
    pub(crate) format: MatrixFormat,
}

/// How a matrix is printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum MatrixFormat {
    /// Aligned columns.
    Table,
    /// A Markdown table, for descriptions of changes.
    Md,
    /// A graph for Graphviz.
    Dot,
    /// A picture.
    Svg,
    /// Every span of ports of every pair.
    Json,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct SelectorsArgs {
    #[command(flatten)]
    pub(crate) scene: Scene,
    /// Only those that match nothing
    #[arg(long)]
    pub(crate) empty: bool,
    #[command(flatten)]
    pub(crate) out: Out,
}
