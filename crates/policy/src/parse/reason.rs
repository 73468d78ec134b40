//! Why a field is refused, as the author of the policy reads it.

use std::fmt;

use ipnet::IpNet;

/// Why a field is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Reason {
    /// It belongs to the language, and a later version will do what it says.
    #[error("not supported yet by this version")]
    NotSupported,
    /// Administrators' policies decide before and after all others: what would be without one is another question.
    #[error("a ClusterNetworkPolicy cannot be in audit mode")]
    AuditOfTier,
    /// It needs an option that is off.
    #[error("needs the option {0}, which is off")]
    NeedsOption(&'static str),
    /// Deny rules have no such field.
    #[error("a deny rule cannot have this field")]
    NotInDenyRule,
    /// It must be given.
    #[error("is required")]
    Required,
    /// There is nothing in the whole object.
    #[error("empty policy: spec or specs is required")]
    EmptyPolicy,
    /// Nothing is said about either direction.
    #[error(
        "rule must have at least one of ingress, ingressDeny, egress, egressDeny, and the list must not be empty"
    )]
    NoEntries,
    /// Whom does it apply to?
    #[error("rule must have one of endpointSelector or nodeSelector")]
    NoSubject,
    /// Both selectors.
    #[error("rule cannot have both endpointSelector and nodeSelector")]
    TwoSubjects,
    /// Nodes are not in a namespace.
    #[error("rule cannot have nodeSelector: only a clusterwide policy selects nodes")]
    NodeInNamespace,
    /// Two kinds of peers in one entry.
    #[error("combining {0} and {1} is not supported: use two entries")]
    Combined(&'static str, &'static str),
    /// Ports and ICMP types in one entry.
    #[error("the icmps block may only be present without toPorts: use two entries")]
    IcmpWithPorts,
    /// A fixed name we do not know.
    #[error("unsupported entity: {0}")]
    UnknownEntity(String),
    /// A word out of a fixed set.
    #[error("{found:?} is none of {known}")]
    NoneOf {
        /// What was written.
        found: String,
        /// What may be written.
        known: Words,
    },
    /// More elements than the schema allows.
    #[error("too many {what}, the max is {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        max: usize,
    },
    /// A list that must have elements.
    #[error("must not be empty")]
    Empty,
    /// Text that is longer than it may be, or holds what cannot be printed.
    #[error("must be at most {0} printable characters")]
    NotPrintable(usize),
    /// No IP address.
    #[error("{0:?} is no IP address")]
    NoAddress(String),
    /// No prefix.
    #[error("{0:?} is no prefix: an address, a slash and a length are needed")]
    NoPrefix(String),
    /// An IPv4 address in IPv6 clothes.
    #[error("{0:?} is an IPv4 address mapped to IPv6: write it as IPv4")]
    MappedAddress(String),
    /// A hole that is not in the prefix.
    #[error("allow CIDR prefix {prefix} does not contain exclude CIDR prefix {hole}")]
    HoleOutside {
        /// The prefix.
        prefix: IpNet,
        /// The hole.
        hole: IpNet,
    },
    /// A hole that leaves nothing.
    #[error("exclude CIDR prefix {0} must be smaller than the prefix")]
    HoleIsAll(IpNet),
    /// None of the ways to name prefixes.
    #[error("one of cidr, cidrGroupRef, or cidrGroupSelector is required")]
    NoCidr,
    /// Several ways to name prefixes.
    #[error("more than one of cidr, cidrGroupRef, or cidrGroupSelector may not be set")]
    SeveralCidrs,
    /// Outside of what a port can be.
    #[error("port {0} is not in {1} to 65535")]
    PortOutOfRange(i64, u16),
    /// Neither a port number nor a name.
    #[error(
        "{0:?} is neither a port number nor a port name (at most 15 lower-case letters, digits and single dashes, with a letter)"
    )]
    NoPort(String),
    /// A range that ends before it begins.
    #[error("endPort {last} is below port {first}")]
    RangeReversed {
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
    },
    /// A range without a first port.
    #[error("endPort needs a port number from 1 on")]
    RangeWithoutStart,
    /// Neither a type number nor a name of this family.
    #[error("ICMP type {name} not found in {family}")]
    UnknownIcmpType {
        /// What was written.
        name: String,
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// A Service without saying where.
    #[error("{0:?} needs a namespace here: write NAMESPACE/{0}")]
    ServiceWithoutNamespace(String),
    /// No name of a Service.
    #[error("{0:?} is no Service: write NAME or NAMESPACE/NAME")]
    NoServiceName(String),
    /// A Service peer that names none.
    #[error("one of k8sService or k8sServiceSelector is required")]
    NoService,
    /// Rules about requests of several protocols in one place.
    #[error("multiple L7 protocol rule types specified in single rule")]
    SeveralProtocols,
    /// Rules about requests where there may be something else than TCP.
    #[error("L7 rules can only apply to TCP (not ANY) except for DNS rules")]
    RequestsNeedTcp,
    /// Rules about requests on every port.
    #[error("L7 rules can not be used when a port is 0")]
    RequestsNeedPort,
    /// Queries that arrive.
    #[error("L7 protocol DNS is not supported on ingress yet")]
    DnsOnIngress,
    /// Queries without a port, or with a range of ports.
    #[error("DNS rules need single ports, usually 53")]
    DnsNeedsOnePort,
    /// Requests of the node itself.
    #[error("a rule for nodes cannot have this field (only DNS rules on egress)")]
    RequestsOfNode,
    /// A regular expression that cannot be used.
    #[error("{0}")]
    Pattern(crate::l7::PatternError),
    /// A name that cannot be one.
    #[error("{0}")]
    Name(crate::l7::NameError),
    /// Both ways to give a name.
    #[error("only one of MatchName or MatchPattern is allowed in an FQDNSelector")]
    NameAndPattern,
    /// No name of a header.
    #[error("{0:?} is no header name: write \"Name: value\" with a space, or the name alone for any value")]
    NoHeaderName(String),
    /// No header can have such a value.
    #[error("{0:?} is no header value: it begins or ends with a space, or holds control characters")]
    NoHeaderValue(String),
    /// No name of a gRPC service or method.
    #[error("{0:?} is no gRPC name: it must not be empty, nor hold spaces, / ? # % or a backslash")]
    NoGrpcName(String),
    /// A header that is not a rule's to change.
    #[error("header {0} frames or routes the request, and a rule cannot change it")]
    UnchangeableHeader(String),
    /// Both ways to give kinds of Kafka requests.
    #[error("cannot set both Role and APIKey together")]
    RoleAndKey,
    /// No role of Kafka clients.
    #[error("invalid Kafka Role {found:?}: it is none of {known}")]
    NoKafkaRole {
        /// What was written.
        found: String,
        /// What may be written.
        known: Words,
    },
    /// No kind of Kafka requests.
    #[error("invalid Kafka APIKey {0:?}")]
    NoKafkaKey(String),
    /// No version.
    #[error("invalid Kafka APIVersion {0:?}: it is not in 0 to 32767")]
    NoKafkaVersion(String),
    /// No topic.
    #[error("invalid Kafka topic {0:?}: at most 255 letters, digits, '.', '_' and '-'")]
    NoTopic(String),
    /// Names of handshakes where requests are looked at.
    #[error("serverNames and rules cannot stand together without terminatingTLS")]
    NamesAndRequests,
    /// Listeners are for what goes out.
    #[error("a listener is not supported on ingress")]
    ListenerOnIngress,
    /// A listener brings its own rules.
    #[error("a listener cannot stand together with rules")]
    ListenerAndRequests,
    /// The order of listeners.
    #[error("priority {0} is not in 0 to 100")]
    ListenerPriority(i64),
    /// No label key.
    #[error("{0:?} is no label key")]
    NoLabelKey(String),
    /// No label value.
    #[error("{0:?} is no label value")]
    NoLabelValue(String),
    /// `In` and `NotIn` compare with values.
    #[error("must be given when operator is In or NotIn")]
    ValuesMissing,
    /// `Exists` and `DoesNotExist` do not.
    #[error("must not be given when operator is Exists or DoesNotExist")]
    ValuesForbidden,
    /// Several or none of fields that exclude each other.
    #[error("exactly one of {0} must be given")]
    NotExactlyOne(Words),
    /// A priority that no policy may have.
    #[error("priority {0} is not in 0 to 1000")]
    PolicyPriority(i64),
    /// A range of ports that is no range.
    #[error("the end {end} of the range must be above its start {start}")]
    RangeEmpty {
        /// The first port.
        start: u16,
        /// The last port.
        end: u16,
    },
    /// Names in a rule that does not accept.
    #[error("only a rule with action Accept can have domainNames")]
    NamesAreOnlyAccepted,
    /// The name of a port beside peers that give no names to ports.
    #[error("only pods give names to ports: use numbers beside nodes, networks and domainNames")]
    NamedPortBeyondPods,
    /// A peer of a Kubernetes policy without anything in it.
    #[error("must specify a peer")]
    NoPeer,
    /// A peer of a Kubernetes policy that is both pods and addresses.
    #[error("may not be specified when ipBlock is specified")]
    IpBlockAndPods,
}

/// Words that may be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Words(pub &'static [&'static str]);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}
