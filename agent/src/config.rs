//! What the agent is told on its command line or in its environment.
//!
//! Parsed once by `main`; everything else gets the finished values. Never reads a file.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sluice_client::path;
use sluice_types::ProxyPort;

/// The node's network policy agent.
#[derive(Debug, Parser)]
#[command(name = "sluice-agent", version, about = "Enforces Kubernetes network policy on one node")]
pub(crate) struct Cli {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings.
    #[command(flatten)]
    pub config: Config,
}

/// What the binary does besides running.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Command {
    /// Removes everything the agent made on this node: pins, links, the nftables table, routes, its pods' veths.
    Cleanup,
}

/// All settings. Each flag can also be given as `SLUICE_<FLAG>` in the environment.
#[derive(Args, Clone, Debug)]
pub(crate) struct Config {
    /// Directory with manifests (Pod, Namespace and policies), watched.
    #[arg(long, global = true, env = "SLUICE_MANIFESTS", default_value = "/etc/sluice/manifests")]
    pub manifests: PathBuf,
    /// The unix socket of the local API (mode 0600).
    #[arg(long, global = true, env = path::SOCKET_ENV, default_value = path::DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// What must survive a restart.
    #[arg(long, global = true, env = "SLUICE_STATE_DIR", default_value = path::DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
    /// Where bpffs is, or is to be mounted.
    #[arg(long, global = true, env = "SLUICE_BPFFS", default_value = path::DEFAULT_BPFFS)]
    pub bpffs: PathBuf,
    /// IPv4 addresses for pods; empty for none.
    #[arg(long, global = true, env = "SLUICE_POOL4", default_value = "10.244.0.0/24")]
    pub pool4: PoolSetting<Ipv4Net>,
    /// IPv6 addresses for pods; empty for none.
    #[arg(long, global = true, env = "SLUICE_POOL6", default_value = "fd00:10:244::/112")]
    pub pool6: PoolSetting<Ipv6Net>,
    /// MTU of the pods' interfaces.
    #[arg(long, global = true, env = "SLUICE_MTU", default_value_t = 1500, value_parser = clap::value_parser!(u32).range(1280..=65_535))]
    pub mtu: u32,
    /// Seconds that a released address rests before it is handed out again.
    #[arg(long, global = true, env = "SLUICE_RELEASE_REST", default_value_t = 60, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub release_rest: u64,
    /// Devices to the outside, comma-separated; without it those of the default routes.
    #[arg(long, global = true, env = "SLUICE_DEVICES", value_delimiter = ',')]
    pub devices: Vec<String>,
    /// Whether what pods send to the outside gets the node's address.
    #[arg(long, global = true, env = "SLUICE_MASQUERADE", default_value_t = true, action = ArgAction::Set)]
    pub masquerade: bool,
    /// Directory in which the network configuration for the container runtime is written; without it none is.
    #[arg(long, global = true, env = "SLUICE_CNI_CONF_DIR")]
    pub cni_conf_dir: Option<PathBuf>,
    /// Name of the network in that configuration.
    #[arg(long, global = true, env = "SLUICE_NETWORK_NAME", default_value = "sluice")]
    pub network_name: String,
    /// Which endpoints are isolated: those that a policy selects, all, or none.
    #[arg(long, global = true, env = "SLUICE_ENFORCEMENT", default_value = "default")]
    pub enforcement: EnforcementSetting,
    /// Report what policy denies, but let it pass.
    #[arg(long, global = true, env = "SLUICE_AUDIT", value_parser = clap::value_parser!(bool), num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub audit: bool,
    /// Whether the node itself always reaches its pods. `auto` is `always`, because the manifests are Kubernetes'.
    #[arg(long, global = true, env = "SLUICE_ALLOW_LOCALHOST", default_value = "auto")]
    pub allow_localhost: AllowLocalhost,
    /// The cluster's name, a label of every pod.
    #[arg(long, global = true, env = "SLUICE_CLUSTER_NAME", default_value = "default")]
    pub cluster_name: String,
    /// The proxy for HTTP rules, a program; without it policies with such rules are refused.
    #[arg(long, global = true, env = "SLUICE_L7_PROXY")]
    pub l7_proxy: Option<PathBuf>,
    /// The port on the loopback at which it listens.
    #[arg(long, global = true, env = "SLUICE_L7_PROXY_PORT", default_value_t = path::L7_PROXY_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub l7_proxy_port: u16,
    /// An argument for it; may be given more than once.
    #[arg(long, global = true, env = "SLUICE_L7_PROXY_ARGUMENT", allow_hyphen_values = true)]
    pub l7_proxy_argument: Vec<String>,
    /// Address and port at which metrics are served over HTTP, to everybody; without it only the socket has them.
    #[arg(long, global = true, env = "SLUICE_METRICS_ADDRESS")]
    pub metrics_address: Option<SocketAddr>,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or a filter like `sluice_agent=debug`.
    #[arg(long, global = true, env = "SLUICE_LOG", default_value = "info")]
    pub log: String,
}

/// An address pool, or none when the text is empty.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PoolSetting<N>(pub Option<N>);

impl FromStr for PoolSetting<Ipv4Net> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        parse_pool(text, 30).map(Self)
    }
}

impl FromStr for PoolSetting<Ipv6Net> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        parse_pool(text, 126).map(Self)
    }
}

/// A pool holds at least a network address, the router's and two more.
fn parse_pool<N>(text: &str, prefix_len_max: u8) -> Result<Option<N>, String>
where
    N: FromStr + Into<IpNet> + Copy,
    N::Err: std::fmt::Display,
{
    if text.is_empty() {
        return Ok(None);
    }
    let pool: N = text.parse().map_err(|error: N::Err| error.to_string())?;
    let net: IpNet = pool.into();
    if net.trunc() != net {
        return Err(format!("{net} has host bits set; write {}", net.trunc()));
    }
    if net.prefix_len() > prefix_len_max {
        return Err(format!("{net} is too small for a pool, the longest prefix is /{prefix_len_max}"));
    }
    Ok(Some(pool))
}

/// `--enforcement`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum EnforcementSetting {
    /// Endpoints that a policy selects are isolated.
    Default,
    /// Every endpoint is isolated.
    Always,
    /// None is.
    Never,
}

impl EnforcementSetting {
    /// The word of the command line and of `status`.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// `--allow-localhost`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum AllowLocalhost {
    /// As Kubernetes wants it, which is `always`.
    Auto,
    /// The node reaches its pods whatever policy says, unless a deny rule names the host.
    Always,
    /// Only if policy allows the host.
    Policy,
}

impl Config {
    /// The pools there are.
    #[must_use]
    pub(crate) fn pools(&self) -> Vec<IpNet> {
        let pool4 = self.pool4.0.map(IpNet::V4);
        let pool6 = self.pool6.0.map(IpNet::V6);
        pool4.into_iter().chain(pool6).collect()
    }

    /// The addresses under which the node is known to its pods: the first of each pool.
    #[must_use]
    pub(crate) fn routers(&self) -> Vec<IpAddr> {
        self.pools()
            .into_iter()
            .filter_map(|pool| pool.hosts().next().map(|first| router(pool, first)))
            .collect()
    }

    /// The policy engine's settings.
    #[must_use]
    pub(crate) fn policy(&self) -> sluice_policy::Config {
        sluice_policy::Config {
            enforcement: match self.enforcement {
                EnforcementSetting::Default => sluice_policy::Enforcement::Default,
                EnforcementSetting::Always => sluice_policy::Enforcement::Always,
                EnforcementSetting::Never => sluice_policy::Enforcement::Never,
            },
            audit: self.audit,
            allow_localhost: self.allow_localhost != AllowLocalhost::Policy,
            cluster_name: self.cluster_name.clone(),
            referents: true,
            admin_tiers: true,
            proxies: sluice_policy::Proxies {
                http: self.l7_proxy.as_ref().map(|_| ProxyPort(self.l7_proxy_port)),
                ..sluice_policy::Proxies::default()
            },
            ..sluice_policy::Config::default()
        }
    }
}

/// IPv6 has no broadcast address, but its first address is the anycast address of all routers: the next is ours.
fn router(pool: IpNet, first_host: IpAddr) -> IpAddr {
    match (pool, first_host) {
        (IpNet::V6(net), IpAddr::V6(first)) if first == net.network() => {
            IpAddr::V6(std::net::Ipv6Addr::from(u128::from(first) + 1))
        }
        (_, first) => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("sluice-agent").chain(arguments.iter().copied()))
    }

    #[test]
    fn defaults_and_routers() {
        let config = parse(&[]).unwrap().config;
        assert_eq!(config.socket, PathBuf::from("/run/sluice/agent.sock"));
        assert_eq!(
            config.routers(),
            ["10.244.0.1".parse::<IpAddr>().unwrap(), "fd00:10:244::1".parse().unwrap()]
        );
        assert!(config.masquerade && !config.audit && config.devices.is_empty());
    }

    #[test]
    fn pools() {
        assert_eq!(parse(&["--pool4", "", "--pool6", ""]).unwrap().config.pools(), []);
        for bad in ["10.0.0.1/24", "10.0.0.0/31", "10.0.0.0/33", "fd00::/64", "nonsense"] {
            assert!(parse(&["--pool4", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_work_after_the_subcommand_too() {
        let cli = parse(&["cleanup", "--bpffs", "/x", "--devices", "a,b"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Cleanup)));
        assert_eq!(cli.config.bpffs, PathBuf::from("/x"));
        assert_eq!(cli.config.devices, ["a", "b"]);
        assert!(parse(&["--audit"]).unwrap().config.audit);
        assert!(!parse(&["--audit", "false"]).unwrap().config.audit);
        assert!(parse(&["--mtu", "100"]).is_err());
    }
}
