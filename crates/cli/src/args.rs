//! The command line as clap reads it. Says what exists; does nothing.

mod convert;
mod diff;
mod fmt;
mod lint;
mod matrix;
mod schema;
mod test;
mod trace;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use convert::{ConvertArgs, Language};
pub(crate) use diff::{DiffArgs, DiffFormat};
pub(crate) use fmt::FmtArgs;
pub(crate) use lint::{Deny, LintArgs, LintFormat};
pub(crate) use matrix::{MatrixArgs, MatrixFormat, SelectorsArgs};
pub(crate) use schema::SchemaArgs;
pub(crate) use test::{TestArgs, TestFormat};
pub(crate) use trace::{ExplainArgs, Scene, TraceArgs};

use crate::pod_name::PodName;
use crate::policy_name::PolicyName;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it failed
  2  the command line makes no sense
  3  the agent is not running
  4  a manifest or a value is not valid
  5  what was asked for does not exist

The agent is looked for at --socket, else at the socket of --node, else at /run/sluice/agent.sock, else, if exactly
one node made by `sluice up` runs here, there. NO_COLOR switches colour off.";

const EXAMPLES: &str = "\
Examples:
  sluice demo                                          see it work, with real pods and real traffic
  sluice up ./manifests                                a node of your own, in the foreground
  sluice pod run shop/web --labels app=web -- python3 -m http.server 8080
  sluice endpoint list                                 who is there, and what is enforced
  sluice monitor                                       what is dropped, and why
  sluice policy apply -f policy.yaml";

/// Network policy for pods, enforced in the kernel.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, about, after_help = EXIT_CODES, before_long_help = "", after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
#[command(disable_help_subcommand = true, arg_required_else_help = true, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// The agent's socket
    #[arg(
        long,
        global = true,
        env = "SLUICE_SOCKET",
        value_name = "PATH",
        conflicts_with = "node",
        hide_env_values = true
    )]
    pub(crate) socket: Option<PathBuf>,
    /// A node made by `sluice up`, by name
    #[arg(long, global = true, env = "SLUICE_NODE", value_name = "NAME", hide_env_values = true)]
    pub(crate) node: Option<String>,
    /// Seconds to wait for the agent's answer
    #[arg(long, global = true, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600), hide = true)]
    pub(crate) timeout: u64,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN", hide = true)]
    pub(crate) color: Color,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns, for people.
    Table,
    /// JSON, as the agent's API has it.
    Json,
    /// The same as YAML.
    Yaml,
}

/// The option `-o`.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Out {
    /// Output format
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub(crate) format: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The agent's state, and what needs a look
    Status(StatusArgs),
    /// Endpoints: the pods of this node as the datapath knows them
    #[command(subcommand, visible_alias = "ep")]
    Endpoint(EndpointCommand),
    /// Identities: the numbers that stand for label sets
    #[command(subcommand, visible_alias = "id")]
    Identity(IdentityCommand),
    /// Policies: list, apply, delete; trace, test, lint, fmt
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// The kernel's tables: policy, connections, addresses
    #[command(subcommand)]
    Bpf(BpfCommand),
    /// Follow what is dropped, and why
    #[command(visible_alias = "observe")]
    Monitor(MonitorArgs),
    /// What was counted on this node, as Prometheus reads it
    Metrics,
    /// Say of a packet that was dropped why, and what would allow it
    Explain(Box<ExplainArgs>),
    /// Start a node on a directory of manifests, in the foreground
    Up(UpArgs),
    /// Pods on a node made by `sluice up`: network namespaces with an endpoint
    #[command(subcommand)]
    Pod(PodCommand),
    /// Show the main job on real traffic, in about half a minute
    Demo(DemoArgs),
    /// JSON Schema of what is read, for editors
    Schema(SchemaArgs),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
    /// Answer on TCP and UDP ports with one's own name
    #[command(hide = true)]
    Serve(ServeArgs),
    /// Connect once and say what happened
    #[command(hide = true)]
    Probe(ProbeArgs),
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Print one word, exit 1 unless it is `ok`
    #[arg(long)]
    pub(crate) brief: bool,
    /// Wait up to this many seconds until the agent serves
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) wait: Option<u64>,
    #[command(flatten)]
    pub(crate) out: Out,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// One row per endpoint
    List(Out),
    /// Everything about one endpoint
    Get {
        /// Number, or NAMESPACE/POD
        #[arg(value_name = "ENDPOINT")]
        endpoint: String,
        #[command(flatten)]
        out: Out,
    },
    /// Show or set options, for example PolicyAuditMode=Enabled
    Config {
        /// Number, or NAMESPACE/POD
        #[arg(value_name = "ENDPOINT")]
        endpoint: String,
        /// Options to set
        #[arg(value_name = "OPTION=VALUE")]
        options: Vec<String>,
        #[command(flatten)]
        out: Out,
    },
    /// What happened to one endpoint
    Log {
        /// Number, or NAMESPACE/POD
        #[arg(value_name = "ENDPOINT")]
        endpoint: String,
        #[command(flatten)]
        out: Out,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// One row per identity
    List(Out),
    /// One identity, by number or reserved name (host, world, ...)
    Get {
        /// Number or reserved name
        #[arg(value_name = "IDENTITY")]
        identity: String,
        #[command(flatten)]
        out: Out,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// List policies, or show one as YAML
    Get {
        /// KIND/NAMESPACE/NAME (cnp/shop/web), or ccnp/NAME
        #[arg(value_name = "POLICY")]
        policy: Option<PolicyName>,
        #[command(flatten)]
        out: Out,
    },
    /// Create or change policies from manifests
    Apply {
        /// Files, directories, or - for standard input
        #[arg(short, long = "filename", required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Delete policies by name or by manifest
    Delete {
        /// KIND/NAMESPACE/NAME (cnp/shop/web), or ccnp/NAME
        #[arg(value_name = "POLICY", required_unless_present = "files")]
        policies: Vec<PolicyName>,
        /// Files, directories, or - for standard input
        #[arg(short, long = "filename", value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Say what happens to a flow, why, and what would allow it
    Trace(Box<TraceArgs>),
    /// Write NetworkPolicies as CiliumNetworkPolicies, and the other way around
    Convert(ConvertArgs),
    /// Say what a change of policies changes
    Diff(DiffArgs),
    /// Show who can reach whom, and on which ports
    Matrix(Box<MatrixArgs>),
    /// Show what each selector matches now
    Selectors(SelectorsArgs),
    /// Bring manifests into one layout, with their comments; needs no agent
    Fmt(FmtArgs),
    /// Find what is probably not meant in manifests; needs no agent
    Lint(LintArgs),
    /// Hold policies against tests of what they must do
    Test(Box<TestArgs>),
}

#[derive(Debug, Subcommand)]
pub(crate) enum BpfCommand {
    /// The policy maps
    #[command(subcommand)]
    Policy(BpfPolicyCommand),
    /// The connection table
    #[command(subcommand)]
    Ct(BpfListCommand),
    /// Addresses and their identities
    #[command(subcommand)]
    Ipcache(BpfListCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum BpfPolicyCommand {
    /// The entries of one endpoint, or of all
    Get {
        /// Number, or NAMESPACE/POD
        #[arg(value_name = "ENDPOINT", required_unless_present = "all", conflicts_with = "all")]
        endpoint: Option<String>,
        /// Every endpoint
        #[arg(long)]
        all: bool,
        /// Identities as numbers instead of labels
        #[arg(short, long)]
        numeric: bool,
        #[command(flatten)]
        out: Out,
    },
    /// The entries of every endpoint
    List {
        /// Identities as numbers instead of labels
        #[arg(short, long)]
        numeric: bool,
        #[command(flatten)]
        out: Out,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BpfListCommand {
    /// All entries
    List(Out),
}

/// What `monitor` shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum MonitorType {
    /// Packets that were dropped, or would be without audit mode.
    Drop,
    /// Every decision about a new connection, allowed ones too.
    PolicyVerdict,
}

#[derive(Args, Debug)]
pub(crate) struct MonitorArgs {
    /// What to show
    #[arg(short = 't', long = "type", value_enum, default_value_t = MonitorType::Drop, value_name = "TYPE")]
    pub(crate) kind: MonitorType,
    /// Only this protocol: http (requests, those that pass too), tcp, udp, sctp, icmp
    #[arg(long, value_enum, ignore_case = true, value_name = "PROTOCOL")]
    pub(crate) protocol: Option<MonitorProtocol>,
    /// Only from this sender: NAMESPACE/POD, NAMESPACE/, an address, or a reserved name (world, host)
    #[arg(long, value_name = "PEER")]
    pub(crate) from: Option<String>,
    /// Only to this receiver
    #[arg(long, value_name = "PEER")]
    pub(crate) to: Option<String>,
    /// Only with this sender or receiver
    #[arg(long, value_name = "PEER")]
    pub(crate) pod: Option<String>,
    /// Stop after this many
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Output format
    #[arg(short = 'o', long = "output", value_enum, default_value_t = MonitorFormat::Line, value_name = "FORMAT")]
    pub(crate) format: MonitorFormat,
}

/// What `monitor` can be limited to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum MonitorProtocol {
    /// Requests that the proxy judged.
    Http,
    /// Segments.
    Tcp,
    /// Datagrams.
    Udp,
    /// The same of SCTP.
    Sctp,
    /// ICMP and ICMPv6.
    Icmp,
}

/// How `monitor` prints.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum MonitorFormat {
    /// A sentence per packet.
    Line,
    /// A JSON object per line.
    Json,
}

/// Settings of a node that `up` makes.
#[derive(Args, Clone, Debug)]
pub(crate) struct UpArgs {
    /// The directory of manifests: pods, namespaces, policies
    #[arg(value_name = "DIR")]
    pub(crate) manifests: PathBuf,
    /// The node's name
    #[arg(long, default_value = "node")]
    pub(crate) name: String,
    /// Use this network namespace instead of making one; nothing plays the outside world then
    #[arg(long)]
    pub(crate) host: bool,
    /// IPv4 pool for pods, `off` for none
    #[arg(long, default_value = "10.244.0.0/24", value_name = "CIDR")]
    pub(crate) pool4: String,
    /// IPv6 pool for pods, `off` for none
    #[arg(long, default_value = "fd00:10:244::/112", value_name = "CIDR")]
    pub(crate) pool6: String,
    /// Policy enforcement: default, always, never
    #[arg(long, default_value = "default", value_parser = ["default", "always", "never"])]
    pub(crate) enforcement: String,
    /// Report what policy denies, but let it pass
    #[arg(long)]
    pub(crate) audit: bool,
    /// Further flags of sluice-agent, after --
    #[arg(last = true, value_name = "AGENT-FLAG")]
    pub(crate) agent_flags: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PodCommand {
    /// Make a pod and start a command in it, in the background unless -i is given
    Run(PodRunArgs),
    /// The pods that `pod run` made
    List(Out),
    /// Run a command in a pod's network namespace
    Exec {
        /// NAMESPACE/NAME
        pod: PodName,
        /// The command
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Remove pods: their processes, endpoint and namespace
    Rm {
        /// NAMESPACE/NAME
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        pods: Vec<PodName>,
        /// Every pod of the node
        #[arg(long)]
        all: bool,
    },
}

#[derive(Args, Clone, Debug)]
pub(crate) struct PodRunArgs {
    /// NAMESPACE/NAME
    pub(crate) pod: PodName,
    /// Labels, KEY=VALUE separated by commas; repeatable. Without any, a manifest of the pod is used if there is one
    #[arg(short, long, value_name = "LABELS", value_delimiter = ',')]
    pub(crate) labels: Vec<String>,
    /// The pod's service account
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub(crate) service_account: String,
    /// Named ports, NAME=PORT or NAME=PORT/PROTOCOL; repeatable
    #[arg(long = "port", value_name = "NAME=PORT", value_delimiter = ',')]
    pub(crate) ports: Vec<String>,
    /// Run the command in the foreground and remove the pod when it ends
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// The command; without one the pod is an empty namespace
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Leave the node running afterwards, until Ctrl-C
    #[arg(long)]
    pub(crate) keep: bool,
    /// No pauses for reading
    #[arg(long)]
    pub(crate) fast: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// Shells with a completion script.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// The name to answer with
    #[arg(long, default_value = "sluice")]
    pub(crate) name: String,
    /// Ports, TCP and UDP
    #[arg(required = true)]
    pub(crate) ports: Vec<u16>,
}

#[derive(Args, Debug)]
pub(crate) struct ProbeArgs {
    /// Address and port
    pub(crate) target: std::net::SocketAddr,
    /// UDP instead of TCP
    #[arg(long)]
    pub(crate) udp: bool,
    /// Milliseconds to wait for an answer
    #[arg(long, default_value_t = 1000, value_name = "MILLISECONDS")]
    pub(crate) timeout_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
