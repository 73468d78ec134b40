//! Every rule: its stable code, its name, how bad what it finds is, and its page.
//!
//! A code is never given to another rule. Codes are grouped by what they are about; the gaps are for later ones.

use crate::finding::Severity;

/// A rule of the linter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rule {
    /// `SL001`.
    pub code: &'static str,
    /// `fqdn-without-dns-rule`.
    pub name: &'static str,
    /// How bad it usually is.
    pub severity: Severity,
    /// What it finds, in half a sentence.
    pub summary: &'static str,
    /// What, why, an example and how to mend it, as Markdown (`docs/lint`).
    pub page: &'static str,
}

macro_rules! rules {
    ($($constant:ident = $code:literal $severity:ident $name:literal, $summary:literal;)*) => {
        $(pub(crate) const $constant: Rule = Rule {
            code: $code,
            name: $name,
            severity: Severity::$severity,
            summary: $summary,
            page: include_str!(concat!("../../../docs/lint/", $code, ".md")),
        };)*

        /// Every rule, ordered by code.
        pub const RULES: &[Rule] = &[$($constant),*];
    };
}

/// The rule with this code, in either case, or with this name.
#[must_use]
pub fn find(code_or_name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.code.eq_ignore_ascii_case(code_or_name) || rule.name == code_or_name)
}

rules! {
    // DNS names.
    FQDN_WITHOUT_DNS_RULE = "SL001" Error "fqdn-without-dns-rule",
        "toFQDNs whose names no DNS rule lets the pod ask for";
    DNS_ONLY_OVER_UDP = "SL002" Hint "dns-only-over-udp",
        "port 53 is open for UDP and not for TCP";
    FQDN_IN_CLUSTER = "SL003" Error "fqdn-in-cluster",
        "toFQDNs for a name of the cluster itself";
    FQDN_PATTERN_TOO_WIDE = "SL004" Warning "fqdn-pattern-too-wide",
        "a pattern that means names of other owners";
    EGRESS_WITHOUT_DNS = "SL005" Warning "egress-without-dns",
        "egress is closed and no rule lets the pod resolve names";
    FQDN_OF_A_CDN = "SL006" Hint "fqdn-of-a-cdn",
        "one name of a network that changes its addresses all the time";

    // Selectors and what rules refer to by name.
    SUBJECT_SELECTS_NOTHING = "SL010" Warning "subject-selects-nothing",
        "a policy that applies to none of the pods";
    PEER_SELECTS_NOTHING = "SL011" Warning "peer-selects-nothing",
        "a peer selector that matches none of the pods";
    SELECTOR_CONTRADICTS_ITSELF = "SL012" Error "selector-contradicts-itself",
        "a selector that no pod can ever match";
    NAMESPACE_OF_SUBJECT_IGNORED = "SL013" Warning "namespace-of-subject-ignored",
        "a namespaced policy that names another namespace as its subject";
    LABEL_NEVER_ON_A_POD = "SL014" Warning "label-never-on-a-pod",
        "a label that is no part of any pod's identity";
    UNKNOWN_SERVICE = "SL015" Warning "unknown-service",
        "a Service that does not exist";
    UNKNOWN_CIDR_GROUP = "SL016" Warning "unknown-cidr-group",
        "a CiliumCIDRGroup that does not exist";
    UNKNOWN_PORT_NAME = "SL017" Warning "unknown-port-name",
        "a port name that none of the pods has";
    EMPTY_PEER_IS_OWN_NAMESPACE = "SL018" Hint "empty-peer-is-own-namespace",
        "an empty destination selector, which means the policy's own namespace";
    PEERS_ARE_ALTERNATIVES = "SL019" Warning "peers-are-alternatives",
        "namespaceSelector and podSelector as two peers instead of one";

    // What a policy closes and opens.
    DENY_ONLY_ISOLATES = "SL020" Warning "deny-only-isolates",
        "deny rules alone, which close the direction for everybody";
    EMPTY_RULE_ALLOWS_NOTHING = "SL021" Hint "empty-rule-allows-nothing",
        "an empty rule in a Cilium policy, which allows nothing";
    EMPTY_LIST_RESTRICTS_NOTHING = "SL022" Warning "empty-list-restricts-nothing",
        "an empty list that allows all ports or all requests";
    EMPTY_LIST_SELECTS_NOTHING = "SL023" Warning "empty-list-selects-nothing",
        "an empty list that makes the rest of its rule void";
    DEFAULT_DENY_WITHOUT_RULES = "SL024" Warning "default-deny-without-rules",
        "enableDefaultDeny for a direction without any rule";
    OTHER_DIRECTION_OPEN = "SL025" Hint "other-direction-open",
        "pods that are closed in one direction and open in the other";
    EXCEPT_ALLOWED_ELSEWHERE = "SL026" Warning "except-allowed-elsewhere",
        "an excepted prefix that another rule allows";
    PREFIX_OF_PODS = "SL027" Warning "prefix-of-pods",
        "a prefix of pods or Services, which never matches them";
    DIRECTION_NOT_IN_POLICY_TYPES = "SL028" Warning "direction-not-in-policy-types",
        "rules for a direction that policyTypes leaves out";
    DENY_LEAVES_PROTOCOLS = "SL029" Warning "deny-leaves-protocols",
        "a deny rule for every port of one protocol only";

    // Requests.
    L7_WITHOUT_PEER = "SL030" Warning "l7-without-peer",
        "rules about requests from or to anybody";
    L7_VOIDED = "SL031" Warning "l7-voided",
        "rules about requests that another rule makes void";
    HEADER_VALUE_IS_LITERAL = "SL032" Warning "header-value-is-literal",
        "a header value that looks like a pattern and is none";
    UNESCAPED_DOT = "SL033" Warning "unescaped-dot",
        "a dot in a pattern that means any character";
    UNANCHORED_HABIT = "SL034" Hint "unanchored-habit",
        "a pattern written as if a part of the text could match";
    GLOB_IN_PATTERN = "SL035" Warning "glob-in-pattern",
        "a star that is meant as in file names";
    PATTERN_NEVER_MATCHES = "SL036" Error "pattern-never-matches",
        "a method or path that no request has";
    HTTP_ON_TLS_PORT = "SL037" Warning "http-on-tls-port",
        "HTTP rules on a port that carries TLS";
    L7_FILTERS_NOTHING = "SL038" Hint "l7-filters-nothing",
        "traffic through a proxy that lets everything pass, or from everywhere";
    KAFKA_WITHOUT_METADATA = "SL039" Warning "kafka-without-metadata",
        "Kafka rules without the requests that every client sends first";

    // Rules against rules.
    RULE_IS_SHADOWED = "SL040" Warning "rule-is-shadowed",
        "a rule that decides nothing that others do not decide the same way";
    RULE_IS_VOID = "SL041" Warning "rule-is-void",
        "a rule that a stronger one contradicts in everything it says";
    MIXED_POLICY_KINDS = "SL042" Hint "mixed-policy-kinds",
        "NetworkPolicy and CiliumNetworkPolicy for the same pods";
    EQUAL_PRIORITY = "SL043" Warning "equal-priority",
        "two ClusterNetworkPolicies of one priority that contradict each other";
    CONFLICTING_PROTOCOLS = "SL044" Error "conflicting-protocols",
        "rules that expect two protocols on one port";

    // What must go on working.
    SYSTEM_NAMESPACE_CLOSED = "SL050" Warning "system-namespace-closed",
        "a whole namespace that the cluster itself depends on is closed";
    CLUSTERWIDE_CLOSES_EVERYTHING = "SL051" Warning "clusterwide-closes-everything",
        "a clusterwide policy that closes every pod, the system's too";
    NAME_SERVER_CLOSED = "SL052" Error "name-server-closed",
        "the cluster's name servers are closed for questions";
    NODE_LOCKED_OUT = "SL053" Error "node-locked-out",
        "a policy for nodes that cuts SSH, the kubelet or the API server";
    NODE_POLICY_UNTESTED = "SL054" Hint "node-policy-untested",
        "a policy for nodes that was not in audit mode first";
    PROBES_CUT = "SL055" Error "probes-cut",
        "a deny rule that cuts the kubelet's probes";

    // Size.
    MAP_OVER_BUDGET = "SL060" Warning "map-over-budget",
        "a policy that needs more map entries than there may be";
    IDENTITY_PER_POD = "SL061" Hint "identity-per-pod",
        "a label by which every pod is an identity of its own";

    // Documents.
    INVALID_DOCUMENT = "SL070" Error "invalid-document",
        "a document that cannot be read";
    INVALID_POLICY = "SL071" Error "invalid-policy",
        "a policy that would be refused";
    DUPLICATE_OBJECT = "SL072" Error "duplicate-object",
        "the same object twice";
    NAMESPACE_MISSING = "SL073" Hint "namespace-missing",
        "a namespaced policy that does not say where it belongs";
    UNKNOWN_ANNOTATION = "SL074" Warning "unknown-annotation",
        "an annotation of ours that means nothing";

    // Other implementations.
    REFUSED_ELSEWHERE = "SL080" Hint "refused-elsewhere",
        "a field that Cilium does not have";
    DIFFERENT_ELSEWHERE = "SL081" Warning "different-elsewhere",
        "something that Cilium understands differently (with --portable)";
}
