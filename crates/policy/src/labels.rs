//! The labels of identities that code makes: pods, prefixes, reserved identities.
//!
//! A pod's owner chooses only the pod's own labels. Everything that says where a pod lives or what it runs as is
//! written here over whatever the pod claims. Which labels count is upstream's default filter
//! (`pkg/labelsfilter/filter.go`). Never allocates numbers; the agent calls it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use sluice_types::{Identity, Label, Labels, Source};

/// The namespace a pod lives in.
pub const NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Before the key of each label of the pod's namespace.
pub const NAMESPACE_LABEL_PREFIX: &str = "io.cilium.k8s.namespace.labels.";
/// The cluster a pod lives in.
pub const CLUSTER: &str = "io.cilium.k8s.policy.cluster";
/// The service account a pod runs as.
pub const SERVICE_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";
/// The label that Kubernetes gives every namespace.
const METADATA_NAME: &str = "kubernetes.io/metadata.name";

/// Keys that begin with one of these change without a change of what the workload is.
const IGNORED_PREFIXES: [&str; 12] = [
    "io.kubernetes",
    "kubernetes.io",
    "k8s.io",
    "topology.kubernetes.io",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/controller-uid",
    "pod-template-generation",
    "pod-template-hash",
    "controller-revision-hash",
    "controller-uid",
];
const IGNORED_WORDS: [&str; 2] = ["annotation", "etcd_node"];
/// Keys that only this module may write.
const OURS_PREFIXES: [&str; 3] =
    ["io.kubernetes.pod.namespace", "io.cilium.k8s.namespace.labels", "io.cilium.k8s.policy."];

/// The identity-relevant labels of a pod.
///
/// `own` and `namespace_labels` are the labels of the pod and of its namespace. Labels of the pod that claim a
/// namespace, a service account, a cluster or a source of their own (`reserved:host`) are left out.
#[must_use]
pub fn pod_labels(
    own: &BTreeMap<String, String>,
    namespace: &str,
    namespace_labels: &BTreeMap<String, String>,
    service_account: &str,
    cluster: &str,
) -> Labels {
    let mut labels: Labels =
        own.iter().filter(|(key, _)| is_relevant(key)).map(|(key, value)| Label::k8s(key, value)).collect();
    let of_namespace = namespace_labels
        .iter()
        .filter(|(key, _)| is_plain(key))
        .map(|(key, value)| Label::k8s(format!("{NAMESPACE_LABEL_PREFIX}{key}"), value));
    labels.extend(of_namespace);
    labels.insert(Label::k8s(format!("{NAMESPACE_LABEL_PREFIX}{METADATA_NAME}"), namespace));
    labels.insert(Label::k8s(NAMESPACE, namespace));
    labels.insert(Label::k8s(CLUSTER, cluster));
    if !service_account.is_empty() {
        labels.insert(Label::k8s(SERVICE_ACCOUNT, service_account));
    }
    labels
}

/// The labels of an object that is no pod, as selectors look at them.
pub(crate) fn object_labels(own: Option<&BTreeMap<String, String>>) -> Labels {
    let plain = own.into_iter().flatten().filter(|(key, _)| is_plain(key));
    plain.map(|(key, value)| Label::k8s(key, value)).collect()
}

/// The labels of the identity that stands for `prefix`: `cidr:<p>` for itself and every prefix in `known` that
/// covers it, and the world labels of its family.
#[must_use]
pub fn cidr_labels(prefix: IpNet, known: &BTreeSet<IpNet>) -> Labels {
    let prefix = prefix.trunc();
    let covering = known.iter().map(IpNet::trunc).filter(|wide| wide.contains(&prefix));
    let world = match prefix {
        IpNet::V4(_) => Identity::WORLD_IPV4,
        IpNet::V6(_) => Identity::WORLD_IPV6,
    };
    let mut labels = reserved_labels(world);
    labels.extend(covering.chain([prefix]).map(|net| Label::new(Source::Cidr, net.to_string(), "")));
    labels
}

/// The labels of an identity with a fixed meaning; empty for any other number.
#[must_use]
pub fn reserved_labels(identity: Identity) -> Labels {
    let also = match identity {
        Identity::WORLD_IPV4 | Identity::WORLD_IPV6 => Some("world"),
        // The number stands for API servers on other nodes.
        Identity::KUBE_APISERVER => Some("remote-node"),
        _ => None,
    };
    identity.reserved_name().into_iter().chain(also).map(Label::reserved).collect()
}

/// Whether these are the labels of a pod: every pod is in a namespace.
pub(crate) fn is_pod(labels: &Labels) -> bool {
    labels.value(&Source::K8s, NAMESPACE).is_some()
}

fn is_relevant(key: &str) -> bool {
    is_plain(key)
        && !OURS_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
        && !IGNORED_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
        && !IGNORED_WORDS.iter().any(|word| key.starts_with(word))
        && !key.contains("beta.kubernetes.io")
}

/// A Kubernetes label key has no colon: one that has would read as another source.
fn is_plain(key: &str) -> bool {
    !key.is_empty() && !key.contains([':', '='])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_pod_cannot_claim_what_is_not_its_own() {
        let own = map(&[
            ("app", "web"),
            ("app.kubernetes.io/name", "web"),
            ("io.kubernetes.pod.namespace", "kube-system"),
            ("io.cilium.k8s.namespace.labels.team", "admins"),
            ("io.cilium.k8s.policy.serviceaccount", "root"),
            ("io.cilium.k8s.policy.cluster", "other"),
            ("reserved:host", ""),
            ("cidr:10.0.0.0/8", ""),
            ("k8s:io.kubernetes.pod.namespace", "kube-system"),
        ]);
        let labels = pod_labels(
            &own,
            "shop",
            &map(&[("team", "a"), ("kubernetes.io/metadata.name", "x")]),
            "sa",
            "default",
        );
        assert_eq!(
            labels.to_strings(),
            [
                "k8s:app=web",
                "k8s:app.kubernetes.io/name=web",
                "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop",
                "k8s:io.cilium.k8s.namespace.labels.team=a",
                "k8s:io.cilium.k8s.policy.cluster=default",
                "k8s:io.cilium.k8s.policy.serviceaccount=sa",
                "k8s:io.kubernetes.pod.namespace=shop",
            ]
        );
    }

    #[test]
    fn labels_that_change_without_meaning_are_left_out() {
        let own = map(&[
            ("pod-template-hash", "5d4"),
            ("controller-revision-hash", "x"),
            ("statefulset.kubernetes.io/pod-name", "db-0"),
            ("apps.kubernetes.io/pod-index", "0"),
            ("batch.kubernetes.io/controller-uid", "1"),
            ("topology.kubernetes.io/zone", "a"),
            ("failure-domain.beta.kubernetes.io/zone", "a"),
            ("kubernetes.io/os", "linux"),
            ("tier", "db"),
        ]);
        let labels = pod_labels(&own, "n", &BTreeMap::new(), "", "default");
        assert_eq!(labels.value(&Source::K8s, "tier"), Some("db"));
        assert_eq!(labels.len(), 4, "{labels}");
    }

    #[test]
    fn a_prefix_carries_every_known_prefix_around_it() {
        let known =
            ["10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16", "fd00::/8"].map(|text| text.parse().unwrap());
        let labels = cidr_labels("10.1.2.0/24".parse().unwrap(), &BTreeSet::from(known));
        assert_eq!(
            labels.to_strings(),
            [
                "reserved:world",
                "reserved:world-ipv4",
                "cidr:10.0.0.0/8",
                "cidr:10.1.0.0/16",
                "cidr:10.1.2.0/24"
            ]
        );
    }

    #[test]
    fn reserved() {
        let cases = [
            (Identity::HOST, vec!["reserved:host"]),
            (Identity::WORLD, vec!["reserved:world"]),
            (Identity::WORLD_IPV6, vec!["reserved:world", "reserved:world-ipv6"]),
            (Identity::KUBE_APISERVER, vec!["reserved:kube-apiserver", "reserved:remote-node"]),
            (Identity::new(300), vec![]),
        ];
        for (identity, want) in cases {
            assert_eq!(reserved_labels(identity).to_strings(), want);
        }
    }
}
