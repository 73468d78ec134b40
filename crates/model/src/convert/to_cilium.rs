//! NetworkPolicy as CiliumNetworkPolicy: everything can be said.

use sluice_api::{
    CiliumNetworkPolicy, IntOrString, LabelSelector, LabelSelectorRequirement, NetworkPolicy,
    cilium::{CidrRule, EgressRule, IngressRule, PolicyRule, Port, PortRule},
    network_policy::{NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec},
};
use sluice_policy::labels::{NAMESPACE, NAMESPACE_LABEL_PREFIX};

use super::Inexpressible;

/// How many ports one element of `toPorts` may have.
const PORTS_MAX: usize = 40;

/// The same policy as a CiliumNetworkPolicy of the same name.
///
/// # Errors
/// The policy has no `spec`, or one of its peers says nothing.
pub fn to_cilium(policy: &NetworkPolicy) -> Result<CiliumNetworkPolicy, Inexpressible> {
    let Some(spec) = &policy.spec else { return Err(Inexpressible::new("spec", "is missing")) };
    let rules =
        |direction: &str, peers: &str, own: Option<Vec<Ends<'_>>>| -> Result<Vec<Rule>, Inexpressible> {
            let mut rules = Vec::new();
            for (nth, (own, ports)) in own.into_iter().flatten().enumerate() {
                rules.extend(rule(own, ports, &format!("spec.{direction}[{nth}].{peers}"))?);
            }
            Ok(rules)
        };
    let (has_ingress, has_egress) = directions(spec);
    let ingress = spec.ingress.as_ref().filter(|_| has_ingress);
    let ingress = ingress.map(|rules| rules.iter().map(|rule| (&rule.from, &rule.ports)).collect());
    let egress = spec.egress.as_ref().filter(|_| has_egress);
    let egress = egress.map(|rules| rules.iter().map(|rule| (&rule.to, &rule.ports)).collect());
    let (ingress, egress) = (rules("ingress", "from", ingress)?, rules("egress", "to", egress)?);
    let converted = PolicyRule {
        endpoint_selector: Some(pods(spec.pod_selector.as_ref().unwrap_or(&LabelSelector::default()))),
        ingress: has_ingress.then(|| closing(ingress.into_iter().map(Rule::ingress))),
        egress: has_egress.then(|| closing(egress.into_iter().map(Rule::egress))),
        ..PolicyRule::default()
    };
    Ok(CiliumNetworkPolicy {
        api_version: "cilium.io/v2".to_owned(),
        kind: "CiliumNetworkPolicy".to_owned(),
        metadata: policy.metadata.clone(),
        spec: Some(converted),
        ..CiliumNetworkPolicy::default()
    })
}

/// Peers and ports as written.
type Ends<'a> = (&'a Option<Vec<NetworkPolicyPeer>>, &'a Option<Vec<NetworkPolicyPort>>);

/// Which directions the policy is about: ingress always unless types say otherwise, egress if it has such rules.
fn directions(spec: &NetworkPolicySpec) -> (bool, bool) {
    match spec.policy_types.as_deref() {
        None | Some([]) => (true, spec.egress.as_ref().is_some_and(|rules| !rules.is_empty())),
        Some(types) => {
            let has = |wanted: &str| types.iter().any(|word| word == wanted);
            (has("Ingress"), has("Egress"))
        }
    }
}

/// Rules, or the one that allows nothing and closes the direction.
fn closing<T: Default>(rules: impl Iterator<Item = T>) -> Vec<T> {
    let rules: Vec<T> = rules.collect();
    if rules.is_empty() { vec![T::default()] } else { rules }
}

/// A rule of either direction.
#[derive(Clone, Debug, Default)]
struct Rule {
    endpoints: Option<Vec<LabelSelector>>,
    prefixes: Option<Vec<CidrRule>>,
    entities: Option<Vec<String>>,
    ports: Option<Vec<PortRule>>,
}

impl Rule {
    fn ingress(self) -> IngressRule {
        IngressRule {
            from_endpoints: self.endpoints,
            from_cidr_set: self.prefixes,
            from_entities: self.entities,
            to_ports: self.ports,
            ..IngressRule::default()
        }
    }

    fn egress(self) -> EgressRule {
        EgressRule {
            to_endpoints: self.endpoints,
            to_cidr_set: self.prefixes,
            to_entities: self.entities,
            to_ports: self.ports,
            ..EgressRule::default()
        }
    }
}

/// One rule, or two: pods and prefixes cannot stand in the same one. `path` is that of the peers.
fn rule(
    peers: &Option<Vec<NetworkPolicyPeer>>,
    own_ports: &Option<Vec<NetworkPolicyPort>>,
    path: &str,
) -> Result<Vec<Rule>, Inexpressible> {
    let ports = ports(own_ports.as_deref().unwrap_or_default());
    let peers = peers.as_deref().unwrap_or_default();
    if peers.is_empty() {
        return Ok(vec![Rule { entities: Some(vec!["all".to_owned()]), ports, ..Rule::default() }]);
    }
    let (mut endpoints, mut prefixes) = (Vec::new(), Vec::new());
    for (nth, peer) in peers.iter().enumerate() {
        match peer {
            NetworkPolicyPeer { ip_block: Some(block), pod_selector: None, namespace_selector: None } => {
                let except = block.except.clone().filter(|holes| !holes.is_empty());
                prefixes.push(CidrRule { cidr: Some(block.cidr.clone()), except, ..CidrRule::default() });
            }
            NetworkPolicyPeer { ip_block: None, pod_selector: None, namespace_selector: None } => {
                return Err(Inexpressible::new(format!("{path}[{nth}]"), "says nothing"));
            }
            NetworkPolicyPeer { ip_block: None, pod_selector, namespace_selector } => {
                endpoints.push(endpoint(pod_selector.as_ref(), namespace_selector.as_ref()));
            }
            NetworkPolicyPeer { ip_block: Some(_), .. } => {
                let reason = "has an ipBlock and a selector, which the API server refuses";
                return Err(Inexpressible::new(format!("{path}[{nth}]"), reason));
            }
        }
    }
    let of_endpoints = (!endpoints.is_empty()).then(|| Rule {
        endpoints: Some(endpoints),
        ports: ports.clone(),
        ..Rule::default()
    });
    let of_prefixes =
        (!prefixes.is_empty()).then(|| Rule { prefixes: Some(prefixes), ports, ..Rule::default() });
    Ok(of_endpoints.into_iter().chain(of_prefixes).collect())
}

/// Pods by their own labels and those of their namespaces; without a namespace selector those of the policy's.
fn endpoint(own: Option<&LabelSelector>, namespaces: Option<&LabelSelector>) -> LabelSelector {
    let mut selector = pods(own.unwrap_or(&LabelSelector::default()));
    let Some(namespaces) = namespaces else { return selector };
    let prefixed = |key: &str| format!("k8s:{NAMESPACE_LABEL_PREFIX}{key}");
    let labels = namespaces.match_labels.iter().flatten();
    selector
        .match_labels
        .get_or_insert_default()
        .extend(labels.map(|(key, value)| (prefixed(key), value.clone())));
    let mut expressions = selector.match_expressions.take().unwrap_or_default();
    expressions.extend(
        namespaces
            .match_expressions
            .iter()
            .flatten()
            .map(|own| LabelSelectorRequirement { key: prefixed(&own.key), ..own.clone() }),
    );
    // A selector that does not speak of the namespace means the policy's own.
    expressions.push(LabelSelectorRequirement {
        key: format!("k8s:{NAMESPACE}"),
        operator: "Exists".to_owned(),
        values: None,
    });
    selector.match_labels = selector.match_labels.filter(|labels| !labels.is_empty());
    selector.match_expressions = Some(expressions);
    selector
}

/// Labels of pods, and of nothing else that may have the same keys.
fn pods(selector: &LabelSelector) -> LabelSelector {
    let sourced = |key: &str| format!("k8s:{key}");
    let labels = selector
        .match_labels
        .as_ref()
        .map(|labels| labels.iter().map(|(key, value)| (sourced(key), value.clone())).collect());
    let expressions = selector.match_expressions.as_ref().map(|own| {
        let expression = |own: &LabelSelectorRequirement| LabelSelectorRequirement {
            key: sourced(&own.key),
            ..own.clone()
        };
        own.iter().map(expression).collect()
    });
    LabelSelector { match_labels: labels, match_expressions: expressions }
}

fn ports(own: &[NetworkPolicyPort]) -> Option<Vec<PortRule>> {
    if own.is_empty() {
        return None;
    }
    let port = |own: &NetworkPolicyPort| Port {
        // Port 0 is every port of the protocol.
        port: Some(IntOrString::String(
            own.port.as_ref().map_or_else(|| "0".to_owned(), ToString::to_string),
        )),
        end_port: own.end_port,
        protocol: Some(own.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
    };
    let all: Vec<Port> = own.iter().map(port).collect();
    let rule = |ports: &[Port]| PortRule { ports: Some(ports.to_vec()), ..PortRule::default() };
    Some(all.chunks(PORTS_MAX).map(rule).collect())
}
