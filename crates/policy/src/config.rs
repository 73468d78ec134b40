//! What the engine is told about its surroundings.

use sluice_types::ProxyPort;

use crate::l7::Parser;

/// When an endpoint's traffic is judged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Enforcement {
    /// A direction is open until a rule selects the endpoint in it.
    #[default]
    Default,
    /// Every direction is closed except for what rules allow.
    Always,
    /// Everything is open; rules are ignored.
    Never,
}

/// Where the proxies listen. What needs a proxy that is not there is refused.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Proxies {
    /// HTTP and gRPC.
    pub http: Option<ProxyPort>,
    /// Kafka.
    pub kafka: Option<ProxyPort>,
    /// DNS; without it no name is ever learnt, so `toFQDNs` needs it too.
    pub dns: Option<ProxyPort>,
    /// Server names of TLS.
    pub tls: Option<ProxyPort>,
}

impl Proxies {
    /// Whether there is none: then nothing is ever redirected.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        let Self { http, kafka, dns, tls } = self;
        http.is_none() && kafka.is_none() && dns.is_none() && tls.is_none()
    }

    /// Where the proxy that reads this protocol listens.
    #[must_use]
    pub const fn port(&self, parser: Parser) -> Option<ProxyPort> {
        match parser {
            Parser::Http => self.http,
            Parser::Kafka => self.kafka,
            Parser::Dns => self.dns,
            Parser::Tls => self.tls,
        }
    }
}

/// Options that change verdicts. The defaults are those under Kubernetes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// When traffic is judged.
    pub enforcement: Enforcement,
    /// Report instead of dropping, for every endpoint.
    pub audit: bool,
    /// The node reaches its own pods unless a rule denies it: probes need no rule.
    pub allow_localhost: bool,
    /// Prefixes in rules also select nodes.
    pub cidr_match_nodes: bool,
    /// Prefixes in rules also select pods.
    pub cidr_match_pods: bool,
    /// Accept rules with `nodeSelector`. Off until something enforces them.
    pub host_firewall: bool,
    /// Accept `fromNodes` and `toNodes`: identities of nodes carry the nodes' labels.
    pub node_selector_labels: bool,
    /// Accept rules that name Services or groups of prefixes: somebody says what these stand for.
    pub referents: bool,
    /// Accept `ClusterNetworkPolicy`: the datapath has an admin plane.
    pub admin_tiers: bool,
    /// Where the proxies listen.
    pub proxies: Proxies,
    /// The value of the cluster label of this cluster's pods.
    pub cluster_name: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enforcement: Enforcement::Default,
            audit: false,
            allow_localhost: true,
            cidr_match_nodes: false,
            cidr_match_pods: false,
            host_firewall: false,
            node_selector_labels: false,
            referents: false,
            admin_tiers: false,
            proxies: Proxies::default(),
            cluster_name: "default".to_owned(),
        }
    }
}

impl Config {
    /// With everything the language has, as tools use it that judge without a datapath.
    #[must_use]
    pub fn complete() -> Self {
        let port = |number| Some(ProxyPort(number));
        Self {
            host_firewall: true,
            node_selector_labels: true,
            referents: true,
            admin_tiers: true,
            proxies: Proxies { http: port(1), kafka: port(2), dns: port(3), tls: port(4) },
            ..Self::default()
        }
    }
}
