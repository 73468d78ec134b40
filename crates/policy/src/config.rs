//! What the engine is told about its surroundings.

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
            cluster_name: "default".to_owned(),
        }
    }
}
