//! Label selectors: what may be written, and what is added so that they stay where they belong.

use std::collections::BTreeSet;

use sluice_api::{LabelSelector as Written, LabelSelectorRequirement};
use sluice_types::Source;

use super::{Path, Reason, Report, reason::Words};
use crate::{
    config::Config,
    labels::{CLUSTER, NAMESPACE, NAMESPACE_LABEL_PREFIX},
    rule::RuleSubject,
    selector::{LabelKey, LabelSelector, Requirement},
};

const OPERATORS: Words = Words(&["In", "NotIn", "Exists", "DoesNotExist"]);
/// The longest key: a DNS name, a slash, a name.
const KEY_MAX: usize = 253 + 1 + 63;
const NAME_MAX: usize = 63;

/// How the keys of a selector are read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keys<'a> {
    /// `source:key`, or `key` for any source.
    WithSource,
    /// Kubernetes keys, with this put in front.
    Kubernetes(&'a str),
    /// Node labels: every source.
    Node,
}

impl Keys<'_> {
    fn read(self, text: &str) -> Result<LabelKey, Reason> {
        let refused = || Reason::NoLabelKey(text.to_owned());
        let key = match self {
            Self::Kubernetes(_) => LabelKey::new(Source::K8s, text),
            Self::WithSource => LabelKey::parse(text),
            Self::Node => LabelKey { source: Source::Any, ..LabelKey::parse(text) },
        };
        let valid = match key.source {
            Source::Any | Source::K8s | Source::Node | Source::Container | Source::Unspec => {
                is_qualified_name(&key.key)
            }
            // Prefixes and names of our own making: `cidr:10.0.0.0/8`.
            Source::Reserved | Source::Cidr | Source::Fqdn | Source::CidrGroup | Source::Other(_) => {
                !key.key.is_empty()
                    && key.key.len() <= KEY_MAX
                    && key.key.bytes().all(|byte| byte.is_ascii_graphic())
            }
        };
        if !valid {
            return Err(refused());
        }
        Ok(match self {
            Self::Kubernetes(prefix) => LabelKey::new(Source::K8s, format!("{prefix}{text}")),
            Self::WithSource | Self::Node => key,
        })
    }
}

/// The requirements of a selector as written.
pub(super) fn read(written: &Written, keys: Keys<'_>, path: &Path, report: &mut Report) -> LabelSelector {
    let mut selector: LabelSelector = match_labels(written, keys, path, report).collect();
    match_expressions(written, keys, path, report, &mut selector);
    selector
}

fn match_labels<'a>(
    written: &'a Written,
    keys: Keys<'a>,
    path: &Path,
    report: &'a mut Report,
) -> impl Iterator<Item = Requirement> {
    let path = path.field("matchLabels");
    written.match_labels.iter().flatten().filter_map(move |(key, value)| {
        let place = Path::root(&format!("{path}[{key}]"));
        let value = check_value(value).map(str::to_owned);
        let (key, value) = (report.accept(&place, keys.read(key)), report.accept(&place, value));
        Some(Requirement::equals(key?, value?))
    })
}

fn match_expressions(
    written: &Written,
    keys: Keys<'_>,
    path: &Path,
    report: &mut Report,
    selector: &mut LabelSelector,
) {
    for (path, expression) in path.field("matchExpressions").items(written.match_expressions.as_deref()) {
        let key = report.accept(&path.field("key"), keys.read(&expression.key));
        let requirement = key.and_then(|key| requirement(key, expression, &path, report));
        if let Some(requirement) = requirement {
            selector.require(requirement);
        }
    }
}

fn requirement(
    key: LabelKey,
    expression: &LabelSelectorRequirement,
    path: &Path,
    report: &mut Report,
) -> Option<Requirement> {
    let listed = expression.values.as_deref().unwrap_or_default();
    let at_values = path.field("values");
    let mut values = BTreeSet::new();
    for (path, value) in at_values.items(Some(listed)) {
        values.extend(report.accept(&path, check_value(value)).map(str::to_owned));
    }
    let needed = if listed.is_empty() { Err(Reason::ValuesMissing) } else { Ok(()) };
    let forbidden = if listed.is_empty() { Ok(()) } else { Err(Reason::ValuesForbidden) };
    match expression.operator.as_str() {
        "In" => report.accept(&at_values, needed).map(|()| Requirement::In(key, values)),
        "NotIn" => report.accept(&at_values, needed).map(|()| Requirement::NotIn(key, values)),
        "Exists" => report.accept(&at_values, forbidden).map(|()| Requirement::Exists(key)),
        "DoesNotExist" => report.accept(&at_values, forbidden).map(|()| Requirement::DoesNotExist(key)),
        other => {
            let found = other.to_owned();
            report.accept(&path.field("operator"), Err(Reason::NoneOf { found, known: OPERATORS }))
        }
    }
}

/// The subject of a rule that lives in a namespace: never anything outside of it.
///
/// A namespace in `matchLabels` gives way to the policy's own, as upstream; every expression stays and can only
/// narrow what is selected.
pub(super) fn confined_subject(
    written: &Written,
    namespace: &str,
    keys: Keys<'_>,
    path: &Path,
    report: &mut Report,
) -> RuleSubject {
    let elsewhere = |requirement: &Requirement| is_namespace_key(requirement.key());
    let mut selector: LabelSelector =
        match_labels(written, keys, path, report).filter(|requirement| !elsewhere(requirement)).collect();
    match_expressions(written, keys, path, report, &mut selector);
    selector.require(Requirement::equals(namespace_key(), namespace));
    RuleSubject::Endpoints(selector)
}

/// Where peers without a namespace of their own are looked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum PeerScope<'a> {
    /// In this namespace.
    Namespace(&'a str),
    /// In every namespace.
    AnyNamespace,
    /// Anywhere: also among pods whose labels are not known yet.
    Anywhere,
}

/// A peer of a Cilium rule, kept to pods of its scope and of this cluster unless it says otherwise itself.
///
/// A selector that looks at `reserved:` labels means more than pods, and nothing is added to it.
pub(super) fn peer(
    written: &Written,
    scope: PeerScope<'_>,
    config: &Config,
    path: &Path,
    report: &mut Report,
) -> LabelSelector {
    let mut selector = read(written, Keys::WithSource, path, report);
    let means_reserved = selector.looks_at(|key| key.source == Source::Reserved);
    if means_reserved || matches!(scope, PeerScope::Anywhere) {
        return selector;
    }
    let names_namespace = selector.looks_at(is_namespace_key);
    let names_namespace_labels = selector.looks_at(|key| {
        matches!(key.source, Source::K8s | Source::Any) && key.key.starts_with(NAMESPACE_LABEL_PREFIX)
    });
    match scope {
        PeerScope::Namespace(namespace) if !names_namespace && !names_namespace_labels => {
            selector.require(Requirement::equals(namespace_key(), namespace));
        }
        PeerScope::AnyNamespace if !names_namespace => selector.require(Requirement::Exists(namespace_key())),
        PeerScope::Namespace(_) | PeerScope::AnyNamespace | PeerScope::Anywhere => {}
    }
    keep_to_cluster(&mut selector, config);
    selector
}

/// Adds this cluster, unless the selector looks at clusters itself.
pub(super) fn keep_to_cluster(selector: &mut LabelSelector, config: &Config) {
    if !selector.looks_at(|key| key.key == CLUSTER) {
        selector.require(Requirement::equals(LabelKey::new(Source::K8s, CLUSTER), &*config.cluster_name));
    }
}

/// What confines a selector to the pods of one namespace of this cluster.
pub(crate) fn namespace_requirement(namespace: &str, cluster: &str) -> [Requirement; 2] {
    let cluster = Requirement::equals(LabelKey::new(Source::K8s, CLUSTER), cluster);
    [Requirement::equals(namespace_key(), namespace), cluster]
}

pub(super) fn namespace_key() -> LabelKey {
    LabelKey::new(Source::K8s, NAMESPACE)
}

fn is_namespace_key(key: &LabelKey) -> bool {
    matches!(key.source, Source::K8s | Source::Any) && key.key == NAMESPACE
}

/// `[DNS name/]name` as Kubernetes has it.
fn is_qualified_name(key: &str) -> bool {
    let (prefix, name) = match key.rsplit_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let is_dns = |prefix: &str| {
        prefix.len() <= 253
            && prefix.split('.').all(|label| {
                is_bounded_by_alphanumerics(label)
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            })
    };
    is_label_text(name) && prefix.is_none_or(is_dns)
}

fn check_value(value: &str) -> Result<&str, Reason> {
    if value.is_empty() || is_label_text(value) {
        Ok(value)
    } else {
        // What is too long to be a value is too long to be repeated.
        Err(Reason::NoLabelValue(value.chars().take(NAME_MAX).collect()))
    }
}

/// The text of a name or value: at most 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends.
fn is_label_text(text: &str) -> bool {
    text.len() <= NAME_MAX
        && is_bounded_by_alphanumerics(text)
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn is_bounded_by_alphanumerics(text: &str) -> bool {
    let alphanumeric = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    alphanumeric(text.bytes().next()) && alphanumeric(text.bytes().last())
}
