//! Arguments of `sluice schema`.

use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  sluice schema                        which kinds there are
  sluice schema cnp                    the schema of CiliumNetworkPolicy
  sluice schema --dir .schema          one file per kind, and all.json, which picks by `kind`

In an editor with yaml-language-server, put this into the first line of a manifest:
  # yaml-language-server: $schema=.schema/all.json";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SchemaArgs {
    /// A kind, or its short name (cnp, ccnp, netpol, cnetpol, ...)
    #[arg(value_name = "KIND", conflicts_with = "dir")]
    pub(crate) kind: Option<String>,
    /// Write one file per kind into this directory, and all.json
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}
