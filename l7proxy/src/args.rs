//! What the proxy is told on its command line or in its environment.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use ipnet::IpNet;
use sluice_client::path;
use sluice_l7proxy::relay::Settings;

/// The proxy for HTTP flows that policies look into. Started by the agent.
#[derive(Clone, Debug, Parser)]
#[command(name = "sluice-l7proxy", version, about = "Judges the requests of redirected flows")]
pub(crate) struct Args {
    /// The port on the loopback to which the datapath redirects.
    #[arg(long, env = "SLUICE_L7_PORT", default_value_t = path::L7_PROXY_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Where the datapath's maps are pinned.
    #[arg(long, env = "SLUICE_PINS")]
    pub pins: PathBuf,
    /// The agent's state directory: rules are below it.
    #[arg(long, env = "SLUICE_STATE_DIR", default_value = path::DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
    /// The agent's socket, for records of requests.
    #[arg(long, env = path::SOCKET_ENV, default_value = path::DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Networks of pods, comma-separated: towards them clients keep their address. Elsewhere they have the node's.
    #[arg(long, env = "SLUICE_POD_NETWORKS", value_delimiter = ',')]
    pub pod_networks: Vec<IpNet>,
    /// What who is denied gets: two words, or JSON that names the policies because of which.
    #[arg(long, env = "SLUICE_DENY_BODY", default_value = "text")]
    pub deny_body: DenyBody,
    /// Seconds that a client may take for the head of a request.
    #[arg(long, env = "SLUICE_HEAD_TIMEOUT", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub head_timeout: u64,
    /// Seconds in which nothing may come or go on a connection.
    #[arg(long, env = "SLUICE_IDLE_TIMEOUT", default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(1..))]
    pub idle_timeout: u64,
    /// How many connections one endpoint may have open here.
    #[arg(long, env = "SLUICE_CONNECTIONS_PER_ENDPOINT", default_value_t = 16_384)]
    pub connections_per_endpoint: usize,
    /// How many records of requests go to the agent in a second; those of requests that passed first give way to others.
    #[arg(long, env = "SLUICE_RECORDS_PER_SECOND", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub records_per_second: u32,
    /// Seconds that a proxy which has handed over to another one gives its connections to come to their end.
    #[arg(long, env = "SLUICE_DRAIN_TIME", default_value_t = 300, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub drain_time: u64,
    /// What is logged, as the agent's `--log`.
    #[arg(long, env = "SLUICE_LOG", default_value = "info")]
    pub log: String,
}

/// `--deny-body`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum DenyBody {
    /// `Access denied`.
    Text,
    /// With policy and flow.
    Json,
}

impl Args {
    /// Limits of connections.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            head_timeout: Duration::from_secs(self.head_timeout),
            idle_timeout: Duration::from_secs(self.idle_timeout),
            ..Settings::default()
        }
    }
}
