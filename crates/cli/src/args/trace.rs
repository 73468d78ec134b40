//! What `sluice policy trace` is asked.

use std::path::PathBuf;

use clap::Args;

use super::Out;

const EXAMPLES: &str = "\
Ends are pods (NAMESPACE/NAME), labels (app=web,io.kubernetes.pod.namespace=shop), addresses, DNS names, entities
(world, host, kube-apiserver, ...), names of nodes, and, as --dst, Services (svc:NAMESPACE/NAME).

Examples:
  sluice policy trace -f policies/ --src shop/web --dst shop/db --dport 5432
  sluice policy trace -f policies/ --src shop/web --dst svc:shop/orders --dport 80 --http 'DELETE /admin'
  sluice policy trace -f policies/ --src shop/web --dst api.example.com --dport 443/TCP --suggest

Exit codes: 0 it passes, 1 it does not, 4 a manifest or a value is not valid, 5 an end is not known.";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TraceArgs {
    #[command(flatten)]
    pub(crate) scene: Scene,
    /// Who sends
    #[arg(long, value_name = "END")]
    pub(crate) src: String,
    /// Who receives
    #[arg(long, value_name = "END")]
    pub(crate) dst: String,
    /// The port: 8080, 53/UDP, or a name of the receiver's ports. 53/UDP with --dns
    #[arg(long, value_name = "PORT[/PROTOCOL]", required_unless_present_any = ["icmp", "dns"], conflicts_with = "icmp")]
    pub(crate) dport: Option<String>,
    /// ICMP of this type instead of a port; ICMPv6 if an end is an IPv6 address, or as 128/ICMPv6
    #[arg(long, value_name = "TYPE")]
    pub(crate) icmp: Option<String>,
    /// An HTTP request: 'GET /path'
    #[arg(long, value_name = "METHOD PATH", group = "request")]
    pub(crate) http: Option<String>,
    /// A header of the request, 'Name: value'; repeatable
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,
    /// The host the request is for
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// A gRPC call: 'package.Service/Method'
    #[arg(long, value_name = "SERVICE/METHOD", group = "request")]
    pub(crate) grpc: Option<String>,
    /// A Kafka request: produce:TOPIC, fetch:TOPIC,TOPIC, metadata
    #[arg(long, value_name = "KIND[:TOPICS]", group = "request")]
    pub(crate) kafka: Option<String>,
    /// A DNS query for this name
    #[arg(long, value_name = "NAME", group = "request")]
    pub(crate) dns: Option<String>,
    /// A TLS handshake that asks for this name
    #[arg(long, value_name = "NAME", group = "request")]
    pub(crate) sni: Option<String>,
    /// Print nothing but the policies that would allow it, as YAML
    #[arg(long, conflicts_with = "format")]
    pub(crate) suggest: bool,
    #[command(flatten)]
    pub(crate) out: Out,
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  sluice explain --last-drop                        the newest packet that was dropped
  sluice explain --last-drop --pod shop/web         the newest one of a pod
  sluice explain 18a3f0c2b1d4e5f6                   the one that `sluice monitor` shows with this id
  sluice explain -f policies/ --flow drops.jsonl    recorded with `sluice monitor -o json`, judged by manifests";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXPLAIN_EXAMPLES)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) scene: Scene,
    /// The id that `sluice monitor` shows
    #[arg(value_name = "FLOW", required_unless_present_any = ["last_drop", "pod", "flow"])]
    pub(crate) id: Option<String>,
    /// The newest packet that was dropped, or would be without audit mode
    #[arg(long, conflicts_with = "id")]
    pub(crate) last_drop: bool,
    /// Only with this sender or receiver: NAMESPACE/POD, NAMESPACE/, an address, or a reserved name
    #[arg(long, value_name = "PEER")]
    pub(crate) pod: Option<String>,
    /// Flows as `sluice monitor -o json` writes them instead of those that the agent keeps; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) flow: Option<PathBuf>,
    /// Print nothing but the policies that would allow it, as YAML
    #[arg(long, conflicts_with = "format")]
    pub(crate) suggest: bool,
    #[command(flatten)]
    pub(crate) out: Out,
}

/// What is judged: manifests, and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct Scene {
    /// Manifests instead of a running agent: files, directories, or - for standard input; repeatable
    #[arg(short, long = "filename", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Policy enforcement: default, always, never
    #[arg(long, value_name = "MODE", value_parser = ["default", "always", "never"])]
    pub(crate) enforcement: Option<String>,
    /// Judge as in audit mode: what policy denies passes, and is reported
    #[arg(long)]
    pub(crate) audit: bool,
}
