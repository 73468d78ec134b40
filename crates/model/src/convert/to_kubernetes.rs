//! CiliumNetworkPolicy as NetworkPolicy: what is about pods, prefixes and ports can be said.

use serde::Serialize;
use sluice_api::{
    CiliumNetworkPolicy, IntOrString, LabelSelector, LabelSelectorRequirement, NetworkPolicy,
    cilium::{CidrRule, EgressRule, IngressRule, PolicyRule, PortRule},
    network_policy::{
        IpBlock, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
        NetworkPolicySpec,
    },
};
use sluice_policy::labels::{NAMESPACE, NAMESPACE_LABEL_PREFIX};

use super::Inexpressible;

/// The label that every namespace has with its own name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const ANY: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// The same policy as a NetworkPolicy of the same name.
///
/// # Errors
/// The first field that a NetworkPolicy cannot express.
pub fn to_kubernetes(policy: &CiliumNetworkPolicy) -> Result<NetworkPolicy, Inexpressible> {
    let (path, rule) = match (&policy.spec, policy.specs.as_deref().unwrap_or_default()) {
        (Some(rule), []) => ("spec".to_owned(), rule),
        (None, [rule]) => ("specs[0]".to_owned(), rule),
        (None, []) => return Err(Inexpressible::new("spec", "is missing")),
        _ => return Err(Inexpressible::new("specs", "a NetworkPolicy has one spec: write one for each")),
    };
    whole(rule, &path)?;
    let selector = rule.endpoint_selector.as_ref();
    let selector =
        selector.ok_or_else(|| Inexpressible::new(format!("{path}.endpointSelector"), "is missing"))?;
    let at = format!("{path}.endpointSelector");
    let (subject, namespaces) = split(selector, &at)?;
    if namespaces.is_some() {
        return Err(Inexpressible::new(at, "pods are those of the policy's own namespace"));
    }
    let mut types = Vec::new();
    let mut converted = NetworkPolicySpec { pod_selector: Some(subject), ..NetworkPolicySpec::default() };
    if let Some(rules) = rule.ingress.as_ref().filter(|rules| !rules.is_empty()) {
        types.push("Ingress".to_owned());
        let each =
            rules.iter().enumerate().map(|(nth, rule)| ingress(rule, &format!("{path}.ingress[{nth}]")));
        let found = each.collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
        converted.ingress =
            Some(found.map(|(from, ports)| NetworkPolicyIngressRule { from, ports }).collect());
    }
    if let Some(rules) = rule.egress.as_ref().filter(|rules| !rules.is_empty()) {
        types.push("Egress".to_owned());
        let each = rules.iter().enumerate().map(|(nth, rule)| egress(rule, &format!("{path}.egress[{nth}]")));
        let found = each.collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
        converted.egress = Some(found.map(|(to, ports)| NetworkPolicyEgressRule { to, ports }).collect());
    }
    if types.is_empty() {
        return Err(Inexpressible::new(path, "has no rules that allow something"));
    }
    converted.policy_types = Some(types);
    Ok(NetworkPolicy {
        api_version: "networking.k8s.io/v1".to_owned(),
        kind: "NetworkPolicy".to_owned(),
        metadata: policy.metadata.clone(),
        spec: Some(converted),
        ..NetworkPolicy::default()
    })
}

/// Peers and ports of a rule.
type Ends = (Option<Vec<NetworkPolicyPeer>>, Option<Vec<NetworkPolicyPort>>);

/// Nothing stands in a spec that has no counterpart.
fn whole(rule: &PolicyRule, path: &str) -> Result<(), Inexpressible> {
    only(rule, &["endpointSelector", "ingress", "egress", "enableDefaultDeny"], path)?;
    let asked = rule.enable_default_deny.unwrap_or_default();
    // What the rules do by themselves may be asked for.
    let is_open = |asked: Option<bool>, has_rules: bool| asked == Some(false) && has_rules;
    let has_ingress = rule.ingress.as_ref().is_some_and(|rules| !rules.is_empty());
    let has_egress = rule.egress.as_ref().is_some_and(|rules| !rules.is_empty());
    for (field, is_open) in
        [("ingress", is_open(asked.ingress, has_ingress)), ("egress", is_open(asked.egress, has_egress))]
    {
        if is_open {
            let reason = "a NetworkPolicy closes each direction that it is about";
            return Err(Inexpressible::new(format!("{path}.enableDefaultDeny.{field}"), reason));
        }
    }
    Ok(())
}

fn ingress(rule: &IngressRule, path: &str) -> Result<Vec<Ends>, Inexpressible> {
    let known = ["fromEndpoints", "fromCIDR", "fromCIDRSet", "fromEntities", "toPorts"];
    only(rule, &known, path)?;
    let peers = Peers {
        endpoints: (rule.from_endpoints.as_deref(), "fromEndpoints"),
        prefixes: (rule.from_cidr.as_deref(), "fromCIDR"),
        sets: (rule.from_cidr_set.as_deref(), "fromCIDRSet"),
        entities: (rule.from_entities.as_deref(), "fromEntities"),
    };
    ends(&peers, rule.to_ports.as_deref(), path)
}

fn egress(rule: &EgressRule, path: &str) -> Result<Vec<Ends>, Inexpressible> {
    let known = ["toEndpoints", "toCIDR", "toCIDRSet", "toEntities", "toPorts"];
    only(rule, &known, path)?;
    let peers = Peers {
        endpoints: (rule.to_endpoints.as_deref(), "toEndpoints"),
        prefixes: (rule.to_cidr.as_deref(), "toCIDR"),
        sets: (rule.to_cidr_set.as_deref(), "toCIDRSet"),
        entities: (rule.to_entities.as_deref(), "toEntities"),
    };
    ends(&peers, rule.to_ports.as_deref(), path)
}

/// No other fields may be there: a new one must not be lost.
fn only(rule: &impl Serialize, known: &[&str], path: &str) -> Result<(), Inexpressible> {
    let Ok(serde_json::Value::Object(written)) = serde_json::to_value(rule) else {
        return Err(Inexpressible::new(path, "cannot be written down"));
    };
    match written.keys().find(|key| !known.contains(&key.as_str())) {
        Some(field) => {
            Err(Inexpressible::new(format!("{path}.{field}"), "a NetworkPolicy has nothing like it"))
        }
        None => Ok(()),
    }
}

/// The peers of a rule, each list with the field it stands in.
struct Peers<'a> {
    endpoints: (Option<&'a [LabelSelector]>, &'static str),
    prefixes: (Option<&'a [String]>, &'static str),
    sets: (Option<&'a [CidrRule]>, &'static str),
    entities: (Option<&'a [String]>, &'static str),
}

/// None: the rule allows nothing, and only closes its direction.
fn ends(peers: &Peers<'_>, own_ports: Option<&[PortRule]>, path: &str) -> Result<Vec<Ends>, Inexpressible> {
    let lists = [
        peers.endpoints.0.map(<[_]>::len),
        peers.prefixes.0.map(<[_]>::len),
        peers.sets.0.map(<[_]>::len),
        peers.entities.0.map(<[_]>::len),
    ];
    let has_ports = own_ports.is_some_and(|ports| !ports.is_empty());
    let is_any = peers.entities.0.is_some_and(|words| words.iter().any(|word| word == "all"));
    if lists.contains(&Some(0)) || (lists == [None; 4] && !has_ports) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (nth, selector) in peers.endpoints.0.into_iter().flatten().enumerate() {
        found.push(endpoint(selector, &format!("{path}.{}[{nth}]", peers.endpoints.1))?);
    }
    found.extend(blocks(peers, path)?);
    if let Some((nth, word)) =
        peers.entities.0.into_iter().flatten().enumerate().find(|(_, word)| *word != "all")
    {
        let at = format!("{path}.{}[{nth}]", peers.entities.1);
        return Err(Inexpressible::new(at, format!("a NetworkPolicy cannot name {word}")));
    }
    let ports = ports(own_ports.unwrap_or_default(), path)?;
    if is_any || lists == [None; 4] {
        return Ok(vec![(None, ports)]);
    }
    // A list without peers would mean everybody.
    Ok(if found.is_empty() { Vec::new() } else { vec![(Some(found), ports)] })
}

/// The prefixes, without those that their own holes use up: a NetworkPolicy may not have such a block.
fn blocks(peers: &Peers<'_>, path: &str) -> Result<Vec<NetworkPolicyPeer>, Inexpressible> {
    let mut found = Vec::new();
    for cidr in peers.prefixes.0.into_iter().flatten() {
        found.push(IpBlock { cidr: in_full(cidr), except: None });
    }
    for (nth, set) in peers.sets.0.into_iter().flatten().enumerate() {
        let at = format!("{path}.{}[{nth}]", peers.sets.1);
        only(set, &["cidr", "except"], &at)?;
        let Some(cidr) = &set.cidr else { return Err(Inexpressible::new(at, "names no prefix")) };
        let holes: Vec<String> = set.except.iter().flatten().map(|hole| in_full(hole)).collect();
        let prefix = in_full(cidr);
        if !holes.iter().any(|hole| is_same_prefix(hole, &prefix)) {
            found.push(IpBlock { cidr: prefix, except: Some(holes).filter(|holes| !holes.is_empty()) });
        }
    }
    let peer = |block| NetworkPolicyPeer { ip_block: Some(block), ..NetworkPolicyPeer::default() };
    Ok(found.into_iter().map(peer).collect())
}

/// Whether two texts stand for the same addresses.
fn is_same_prefix(one: &str, other: &str) -> bool {
    let read = |text: &str| text.parse::<ipnet::IpNet>().map(|prefix| prefix.trunc());
    one == other || read(one).is_ok_and(|one| read(other) == Ok(one))
}

/// An address alone is a prefix of its whole length.
fn in_full(cidr: &str) -> String {
    match cidr.parse::<std::net::IpAddr>() {
        Ok(address) => ipnet::IpNet::from(address).to_string(),
        Err(_) => cidr.to_owned(),
    }
}

fn endpoint(selector: &LabelSelector, path: &str) -> Result<NetworkPolicyPeer, Inexpressible> {
    let (own, namespaces) = split(selector, path)?;
    let is_empty = own == LabelSelector::default();
    let pod_selector = Some(own).filter(|_| !is_empty || namespaces.is_none());
    Ok(NetworkPolicyPeer { pod_selector, namespace_selector: namespaces, ip_block: None })
}

/// A selector as those of pods and of namespaces.
fn split(
    selector: &LabelSelector,
    path: &str,
) -> Result<(LabelSelector, Option<LabelSelector>), Inexpressible> {
    let (mut own, mut namespaces) = (LabelSelector::default(), LabelSelector::default());
    let mut speaks_of_namespaces = false;
    for (key, value) in selector.match_labels.iter().flatten() {
        let part = match whose(key, &format!("{path}.matchLabels[{key}]"))? {
            Whose::Pod(key) => own.match_labels.get_or_insert_default().insert(key, value.clone()),
            Whose::Namespace(key) => {
                speaks_of_namespaces = true;
                namespaces.match_labels.get_or_insert_default().insert(key, value.clone())
            }
        };
        if part.is_some_and(|other| other != *value) {
            return Err(Inexpressible::new(
                format!("{path}.matchLabels[{key}]"),
                "the same label is there twice",
            ));
        }
    }
    for (nth, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let at = format!("{path}.matchExpressions[{nth}]");
        let moved = |key: String| LabelSelectorRequirement { key, ..expression.clone() };
        match whose(&expression.key, &at)? {
            Whose::Pod(key) => own.match_expressions.get_or_insert_default().push(moved(key)),
            // Every pod has a namespace.
            Whose::Namespace(key) if key == NAME_LABEL && expression.operator == "Exists" => {
                speaks_of_namespaces = true
            }
            Whose::Namespace(key) => {
                speaks_of_namespaces = true;
                namespaces.match_expressions.get_or_insert_default().push(moved(key));
            }
        }
    }
    Ok((own, speaks_of_namespaces.then_some(namespaces)))
}

enum Whose {
    Pod(String),
    Namespace(String),
}

fn whose(key: &str, path: &str) -> Result<Whose, Inexpressible> {
    let plain = match key.split_once(':') {
        Some(("k8s" | "any", plain)) => plain,
        Some((source, _)) => {
            return Err(Inexpressible::new(
                path,
                format!("a NetworkPolicy knows no labels of the source {source}"),
            ));
        }
        None => key,
    };
    if plain == NAMESPACE {
        return Ok(Whose::Namespace(NAME_LABEL.to_owned()));
    }
    if let Some(label) = plain.strip_prefix(NAMESPACE_LABEL_PREFIX) {
        return Ok(Whose::Namespace(label.to_owned()));
    }
    if plain.starts_with("io.cilium.") {
        return Err(Inexpressible::new(path, format!("pods have no label {plain} of their own")));
    }
    Ok(Whose::Pod(plain.to_owned()))
}

fn ports(rules: &[PortRule], path: &str) -> Result<Option<Vec<NetworkPolicyPort>>, Inexpressible> {
    if rules.is_empty() {
        return Ok(None);
    }
    let mut found = Vec::new();
    for (nth, rule) in rules.iter().enumerate() {
        let at = format!("{path}.toPorts[{nth}]");
        only(rule, &["ports"], &at)?;
        let Some(ports) = rule.ports.as_ref().filter(|ports| !ports.is_empty()) else {
            return Err(Inexpressible::new(at, "names no ports"));
        };
        for (nth, port) in ports.iter().enumerate() {
            let at = format!("{at}.ports[{nth}]");
            only(port, &["port", "endPort", "protocol"], &at)?;
            let number = port.port.as_ref().map(ToString::to_string).unwrap_or_default();
            let word = port.protocol.as_deref().unwrap_or("ANY").to_ascii_uppercase();
            let is_all = number.is_empty() || number == "0";
            if is_all && word == "ANY" {
                return Err(Inexpressible::new(at, "a NetworkPolicy cannot name all protocols beside ports"));
            }
            let protocols: Vec<&str> = match word.as_str() {
                "ANY" => ANY.to_vec(),
                "TCP" | "UDP" | "SCTP" => vec![word.as_str()],
                other => return Err(Inexpressible::new(at, format!("a NetworkPolicy cannot name {other}"))),
            };
            let number = (!is_all).then(|| match number.parse() {
                Ok(number) => IntOrString::Int(number),
                Err(_) => IntOrString::String(number),
            });
            let end_port = port.end_port.filter(|_| !is_all);
            found.extend(protocols.iter().map(|protocol| NetworkPolicyPort {
                protocol: Some((*protocol).to_owned()),
                port: number.clone(),
                end_port,
            }));
        }
    }
    Ok(Some(found))
}
