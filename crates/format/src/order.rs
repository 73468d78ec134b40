//! The order of fields.
//!
//! What an object is stands before what it does, whom a rule is for before what it says, peers before ports, ports
//! before requests. Fields that are not listed follow in the order in which they are written.

use crate::tree::{Node, Value};

/// One order for every kind: no two fields stand in different orders in two places, but for those of Kafka rules.
const FIELDS: &[&str] = &[
    "apiVersion kind metadata spec specs status",
    // Metadata and names.
    "name serviceName methodName selector namespace uid labels annotations",
    // Whom a rule is for.
    "description tier priority subject endpointSelector nodeSelector namespaces pods nodes namespaceSelector podSelector",
    "matchLabels matchExpressions key operator values policyTypes enableDefaultDeny action",
    // Peers.
    "ingress ingressDeny egress egressDeny log from to",
    "fromEndpoints fromRequires fromEntities fromNodes fromCIDR fromCIDRSet fromGroups",
    "toEndpoints toRequires toEntities toNodes toServices toFQDNs toCIDR toCIDRSet toGroups",
    "k8sService k8sServiceSelector matchName matchPattern",
    "ipBlock cidr cidrGroupRef cidrGroupSelector except externalCIDRs networks domainNames",
    "aws region securityGroupsIds securityGroupsNames",
    // Ports.
    "toPorts service ports port endPort protocol protocols tcp udp sctp destinationPort destinationNamedPort",
    "number range start end icmps fields family type",
    // Requests.
    "serverNames terminatingTLS originatingTLS secret trustedCA certificate privateKey listener envoyConfig",
    "rules http grpc kafka dns l7proto l7 method path host headers headerMatches mismatch source value",
    "authentication mode",
];

const KAFKA_FIELDS: &[&str] = &["role apiKey apiVersion clientID topic"];

/// Puts the fields of a value in order.
pub(crate) fn sort(root: &mut Node) {
    sort_below("", root);
}

fn sort_below(field: &str, node: &mut Node) {
    match &mut node.value {
        Value::Scalar(_) => {}
        // The elements of a list are what its field says.
        Value::List(list) if !is_free_list(field) => {
            list.children.iter_mut().for_each(|child| sort_below(field, &mut child.node));
        }
        Value::Map(map) if !is_free(field) => {
            let fields = if field == "kafka" { KAFKA_FIELDS } else { FIELDS };
            map.children
                .sort_by_cached_key(|child| child.key.as_ref().map_or(0, |key| rank(fields, &key.text)));
            for child in &mut map.children {
                let field = child.key.as_ref().map_or("", |key| key.text.as_str());
                sort_below(field, &mut child.node);
            }
        }
        Value::List(_) | Value::Map(_) => {}
    }
}

fn rank(fields: &[&str], key: &str) -> usize {
    let mut names = fields.iter().flat_map(|line| line.split(' '));
    names.position(|name| name == key).unwrap_or(usize::MAX)
}

/// Whether the keys below a field are people's own, whose order may mean something to them, or not ours to know.
fn is_free(field: &str) -> bool {
    ["labels", "annotations", "matchLabels", "status", "managedFields", "ownerReferences"].contains(&field)
}

/// The same of lists; rules have labels that are a list of fields known to all.
fn is_free_list(field: &str) -> bool {
    ["l7", "status", "managedFields", "ownerReferences"].contains(&field)
}

#[cfg(test)]
pub(crate) fn is_known(field: &str) -> bool {
    [FIELDS, KAFKA_FIELDS].iter().any(|fields| rank(fields, field) < usize::MAX)
}
