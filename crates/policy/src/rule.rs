//! One rule in the engine's own words: what every kind of policy object becomes.
//!
//! `parse` makes rules and has checked everything; `resolve` turns them into map entries. A rule stands for one entry
//! of `ingress`, `egress`, `ingressDeny` or `egressDeny`.

use std::{collections::BTreeSet, fmt, ops::RangeInclusive, sync::Arc};

use ipnet::IpNet;
use sluice_types::{Direction, Identity, Labels, Protocol, Source};

use crate::{
    l7::L7Rules,
    labels::NAMESPACE,
    referents::{Membership, ServiceName},
    selector::{LabelKey, LabelSelector, Requirement, Selector},
};

/// The kind of a policy object.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum PolicyKind {
    /// `CiliumNetworkPolicy`.
    Cnp,
    /// `CiliumClusterwideNetworkPolicy`.
    Ccnp,
    /// `NetworkPolicy` of Kubernetes.
    Knp,
    /// `ClusterNetworkPolicy` of Kubernetes.
    Kcnp,
}

impl PolicyKind {
    /// The short word, `cnp`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cnp => "cnp",
            Self::Ccnp => "ccnp",
            Self::Knp => "knp",
            Self::Kcnp => "kcnp",
        }
    }
}

/// Names a policy object.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PolicyRef {
    /// What it is.
    pub kind: PolicyKind,
    /// Where it is; empty for a clusterwide policy.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl PolicyRef {
    /// The policy of this kind, namespace and name.
    #[must_use]
    pub fn new(kind: PolicyKind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        if !self.namespace.is_empty() {
            write!(f, "/{}", self.namespace)?;
        }
        write!(f, "/{}", self.name)
    }
}

/// Which group of policies a rule belongs to; an earlier tier is decided before a later one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Tier {
    /// The cluster's administrators, before everybody else.
    Admin,
    /// CNP, CCNP and NetworkPolicy.
    Normal,
    /// The cluster's administrators, after everybody else.
    Baseline,
    /// What holds when no rule says anything.
    Default,
}

/// The order of rules inside a tier: the lowest number is decided first.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Priority(u32);

impl Priority {
    /// The last priority of a tier.
    pub const MAX: Self = Self(0xF_FFFF);

    /// The priority with this number, if it is not above [`Priority::MAX`].
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number <= Self::MAX.0 { Some(Self(number)) } else { None }
    }

    /// The plain number.
    #[must_use]
    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

/// What a rule does with the traffic it matches.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Action {
    /// Let it pass.
    Allow,
    /// Drop it, whatever other rules of the tier allow.
    Deny,
    /// Leave it to the next tier, whatever later rules of this one say.
    Pass,
}

/// Whom a rule applies to.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum RuleSubject {
    /// Endpoints with these labels; never the node.
    Endpoints(LabelSelector),
    /// The local node, if its labels match.
    Node(LabelSelector),
}

impl RuleSubject {
    /// Whether the endpoint with these labels is meant.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let is_node = labels.has_reserved("host");
        match self {
            Self::Endpoints(selector) => !is_node && selector.matches(labels),
            Self::Node(selector) => is_node && selector.matches(labels),
        }
    }

    /// The one namespace it is confined to, if any: lets the repository look at that namespace's rules only.
    pub(crate) fn namespace(&self) -> Option<&str> {
        let Self::Endpoints(selector) = self else { return None };
        let home = LabelKey::new(Source::K8s, NAMESPACE);
        selector.requirements().find_map(|requirement| match requirement {
            Requirement::In(key, values) if *key == home && values.len() == 1 => {
                values.first().map(String::as_str)
            }
            Requirement::In(..)
            | Requirement::NotIn(..)
            | Requirement::Exists(_)
            | Requirement::DoesNotExist(_) => None,
        })
    }
}

/// The other side of the traffic.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Peers {
    /// Everybody, known or not.
    Any,
    /// Whoever one of these selects; nobody if there is none.
    Select(Vec<Selector>),
    /// Like `Select`, for peers given as endpoint selectors: what `requires` of the subject's rules asks for must
    /// hold as well.
    Endpoints(Vec<LabelSelector>),
    /// Prefixes, some of which are known by the name of their group only.
    Prefixes(Vec<PrefixPeer>),
    /// Whoever is behind one of these Services.
    Services(Vec<ServicePeer>),
}

/// Prefixes with holes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct PrefixPeer {
    /// Where they come from.
    pub source: PrefixSource,
    /// What is left out.
    pub except: BTreeSet<IpNet>,
}

/// Where prefixes come from.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum PrefixSource {
    /// The rule itself.
    Prefix(IpNet),
    /// The `CiliumCIDRGroup` of this name.
    Group(String),
    /// Every `CiliumCIDRGroup` with these labels.
    Groups(LabelSelector),
}

/// Names Services.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ServicePeer {
    /// The namespace they are in; `None` is any.
    pub namespace: Option<String>,
    /// Which of them.
    pub which: WhichServices,
}

/// Which Services of a namespace are meant.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum WhichServices {
    /// The one of this name.
    Named(String),
    /// Those with these labels.
    Labelled(LabelSelector),
}

impl fmt::Display for ServicePeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = self.namespace.as_deref().unwrap_or("*");
        match &self.which {
            WhichServices::Named(name) => write!(f, "{namespace}/{name}"),
            WhichServices::Labelled(selector) => write!(f, "{namespace}/* with {selector}"),
        }
    }
}

/// Destination ports, both ends included, the first not above the last.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports from `first` to `last`, if that is not empty.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first <= last { Some(Self { first, last }) } else { None }
    }

    /// One port.
    #[must_use]
    pub const fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Both ends.
    #[must_use]
    pub const fn bounds(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// The fewest aligned blocks that make up the range, as (first port, fixed leading bits); at most 30.
    pub fn blocks(self) -> impl Iterator<Item = (u16, u8)> {
        let mut next = Some(self.first);
        std::iter::from_fn(move || {
            let first = next?;
            let left = u32::from(self.last) - u32::from(first) + 1;
            // The block may be as long as its start is aligned, and must fit into what is left.
            let bits = first.trailing_zeros().min(16).min(left.ilog2());
            next = u16::try_from(u32::from(first) + (1 << bits)).ok().filter(|port| *port <= self.last);
            u8::try_from(16 - bits).ok().map(|prefix| (first, prefix))
        })
    }
}

/// Traffic at layer 4.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Traffic {
    /// Every port of a protocol.
    Protocol(Protocol),
    /// Some ports of a protocol.
    Ports(Protocol, PortRange),
    /// The port to which the receiving pod gives this name.
    NamedPort(Protocol, String),
    /// One type of ICMP or ICMPv6.
    Icmp(Protocol, u8),
}

/// What traffic a rule applies to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ports {
    /// All of it, ICMP included.
    Any,
    /// What one of these describes; nothing if there is none.
    Select(Vec<PortRule>),
}

impl Ports {
    /// The elements; none for everything.
    pub fn rules(&self) -> impl Iterator<Item = &PortRule> {
        let rules = match self {
            Self::Any => [].as_slice(),
            Self::Select(rules) => rules,
        };
        rules.iter()
    }
}

/// One element of `toPorts`, `icmps` or `ports`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PortRule {
    /// Where it stands in the rule, `toPorts[0]`.
    pub path: String,
    /// The traffic: any of these.
    pub traffic: Vec<Traffic>,
    /// The destination must be behind this Service.
    pub service: Option<ServiceName>,
    /// The requests that may pass; without, all may.
    pub l7: Option<Arc<L7Rules>>,
}

impl PortRule {
    /// Traffic without further conditions.
    #[must_use]
    pub fn new(path: impl Into<String>, traffic: Vec<Traffic>) -> Self {
        Self { path: path.into(), traffic, service: None, l7: None }
    }
}

/// One rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// Where it stands in its object, `ingress[0]` or `specs[1].egressDeny[0]`.
    pub path: String,
    /// Whom it applies to.
    pub subject: RuleSubject,
    /// As seen from the subject.
    pub direction: Direction,
    /// The group of policies it belongs to.
    pub tier: Tier,
    /// The order inside the tier.
    pub priority: Priority,
    /// What it does.
    pub action: Action,
    /// The other side.
    pub peers: Peers,
    /// The traffic.
    pub ports: Ports,
    /// What peers of the subject's rules of this direction and action must fulfil, if those name endpoints.
    pub requires: Vec<LabelSelector>,
    /// Whether the subject is closed in this direction except for what rules allow.
    pub default_deny: bool,
    /// Its policy is in audit mode: it changes nothing, and what it would deny is reported.
    pub audit: bool,
    /// The object's own words about itself.
    pub description: Option<String>,
    /// Shown with every flow that the rule decides.
    pub log: Option<String>,
}

/// Where a rule comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuleOrigin {
    /// The object.
    pub policy: PolicyRef,
    /// Where in the object, `ingress[0]`.
    pub path: String,
    /// The object's own words about itself.
    pub description: Option<String>,
    /// Shown with every flow that the rule decides.
    pub log: Option<String>,
}

impl fmt::Display for RuleOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.policy, self.path)
    }
}

/// A name a pod gives to one of its ports.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NamedPort {
    /// The name, in lower case.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// The endpoint whose policy is asked for.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Subject {
    /// Its identity.
    pub identity: Identity,
    /// Its labels.
    pub labels: Labels,
    /// The names of its ports.
    pub named_ports: Vec<NamedPort>,
    /// The Services it is behind, as far as rules ask ([`crate::Repository::memberships`]).
    pub services: Vec<Membership>,
    /// Report instead of dropping.
    pub audit: bool,
}
