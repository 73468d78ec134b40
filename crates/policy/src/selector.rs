//! What a rule selects: identities by their labels, or by the prefix they stand for.
//!
//! A selector is a value without state; which identities match is the selector cache's knowledge. The semantics are
//! upstream's (`pkg/policy/api/selector.go`): requirements are ANDed, values inside one are ORed, `NotIn` and
//! `DoesNotExist` hold when the key is absent, and a key without a source means any source.

use std::{collections::BTreeSet, fmt};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sluice_types::{Labels, Source};

/// A label key with the source it must come from.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LabelKey {
    /// [`Source::Any`] accepts every source.
    pub source: Source,
    /// The key without its source.
    pub key: String,
}

impl LabelKey {
    /// The key `key` of `source`.
    #[must_use]
    pub fn new(source: Source, key: impl Into<String>) -> Self {
        Self { source, key: key.into() }
    }

    /// Reads `source:key`, or `key` for any source.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((word, key)) => Self::new(Source::from_word(word), key),
            None => Self::new(Source::Any, text),
        }
    }

    /// The values of this key in `labels`; several when several sources carry it.
    fn values<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = &'a str> {
        labels.values_of(&self.source, &self.key)
    }
}

impl fmt::Display for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source.as_str(), self.key)
    }
}

/// One condition on a set of labels.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Requirement {
    /// The key has one of these values.
    In(LabelKey, BTreeSet<String>),
    /// The key is absent or has none of these values.
    NotIn(LabelKey, BTreeSet<String>),
    /// The key is present.
    Exists(LabelKey),
    /// The key is absent.
    DoesNotExist(LabelKey),
}

impl Requirement {
    /// The key must have this value.
    #[must_use]
    pub fn equals(key: LabelKey, value: impl Into<String>) -> Self {
        Self::In(key, BTreeSet::from([value.into()]))
    }

    /// It is what the `reserved:` label of this name says.
    #[must_use]
    pub fn reserved(name: &str) -> Self {
        Self::Exists(LabelKey::new(Source::Reserved, name))
    }

    /// The key it looks at.
    #[must_use]
    pub const fn key(&self) -> &LabelKey {
        match self {
            Self::In(key, _) | Self::NotIn(key, _) | Self::Exists(key) | Self::DoesNotExist(key) => key,
        }
    }

    /// Whether `labels` fulfil it.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => key.values(labels).any(|value| values.contains(value)),
            Self::NotIn(key, values) => !key.values(labels).any(|value| values.contains(value)),
            Self::Exists(key) => key.values(labels).next().is_some(),
            Self::DoesNotExist(key) => key.values(labels).next().is_none(),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(",");
        match self {
            Self::In(key, values) if values.len() == 1 => write!(f, "{key}={}", list(values)),
            Self::In(key, values) => write!(f, "{key} in ({})", list(values)),
            Self::NotIn(key, values) => write!(f, "{key} notin ({})", list(values)),
            Self::Exists(key) => write!(f, "{key}"),
            Self::DoesNotExist(key) => write!(f, "!{key}"),
        }
    }
}

/// Requirements that must all hold; none of them holds for everything.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LabelSelector(BTreeSet<Requirement>);

impl LabelSelector {
    /// Whether `labels` fulfil every requirement.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }

    /// The requirements in a fixed order.
    pub fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.0.iter()
    }

    /// Adds a requirement.
    pub fn require(&mut self, requirement: Requirement) {
        self.0.insert(requirement);
    }

    /// Whether some requirement looks at a key that `wanted` accepts.
    #[must_use]
    pub fn looks_at(&self, wanted: impl Fn(&LabelKey) -> bool) -> bool {
        self.0.iter().any(|requirement| wanted(requirement.key()))
    }
}

impl FromIterator<Requirement> for LabelSelector {
    fn from_iter<T: IntoIterator<Item = Requirement>>(requirements: T) -> Self {
        Self(requirements.into_iter().collect())
    }
}

impl Extend<Requirement> for LabelSelector {
    fn extend<T: IntoIterator<Item = Requirement>>(&mut self, requirements: T) {
        self.0.extend(requirements);
    }
}

impl IntoIterator for LabelSelector {
    type Item = Requirement;
    type IntoIter = std::collections::btree_set::IntoIter<Requirement>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("everything");
        }
        for (nth, requirement) in self.0.iter().enumerate() {
            if nth > 0 {
                f.write_str(" and ")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

/// A prefix with holes.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CidrSelector {
    /// What is selected; no host bits are set.
    pub prefix: IpNet,
    /// What is left out, each inside `prefix`.
    pub except: BTreeSet<IpNet>,
}

impl CidrSelector {
    /// Whether all of `prefix` is selected: inside, and in none of the holes.
    #[must_use]
    pub fn covers(&self, prefix: &IpNet) -> bool {
        self.prefix.contains(prefix) && !self.except.iter().any(|hole| hole.contains(prefix))
    }
}

impl fmt::Display for CidrSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.prefix)?;
        for (nth, hole) in self.except.iter().enumerate() {
            write!(f, "{}{hole}", if nth == 0 { " except " } else { "," })?;
        }
        Ok(())
    }
}

/// Selects identities.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Selector {
    /// By labels.
    Labels(LabelSelector),
    /// By the prefix the identity stands for.
    Cidr(CidrSelector),
}

impl Selector {
    /// All of a prefix.
    #[must_use]
    pub const fn prefix(prefix: IpNet) -> Self {
        Self::Cidr(CidrSelector { prefix, except: BTreeSet::new() })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Labels(selector) => selector.fmt(f),
            Self::Cidr(selector) => selector.fmt(f),
        }
    }
}

/// The prefixes an identity stands for: those of its `cidr:` labels that contain no other of them. The world
/// identities stand for all addresses of their family that no other identity has.
#[must_use]
pub fn most_specific_prefixes(labels: &Labels) -> Vec<IpNet> {
    let own: Vec<IpNet> = labels
        .iter()
        .filter(|label| label.source == Source::Cidr)
        .filter_map(|label| label.key.parse().ok())
        .collect();
    let holds_another = |wide: &IpNet| own.iter().any(|other| other != wide && wide.contains(other));
    let specific: Vec<IpNet> = own.iter().filter(|prefix| !holds_another(prefix)).copied().collect();
    if !specific.is_empty() {
        return specific;
    }
    let ipv4 = labels.has_reserved("world-ipv4").then(|| IpNet::V4(Ipv4Net::default()));
    let ipv6 = labels.has_reserved("world-ipv6").then(|| IpNet::V6(Ipv6Net::default()));
    ipv4.into_iter().chain(ipv6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_types::Label;

    fn labels(texts: &[&str]) -> Labels {
        texts.iter().map(|text| text.parse::<Label>().unwrap()).collect()
    }

    fn set(values: &[&str]) -> BTreeSet<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn requirements() {
        let key = || LabelKey::parse("app");
        let k8s = || LabelKey::parse("k8s:app");
        let container = || LabelKey::parse("container:app");
        let both = labels(&["k8s:app=web", "container:app=db"]);
        let cases = [
            ("in", Requirement::In(key(), set(&["web", "x"])), labels(&["k8s:app=web"]), true),
            ("in, other value", Requirement::In(key(), set(&["x"])), labels(&["k8s:app=web"]), false),
            ("in, absent", Requirement::In(key(), set(&["x"])), labels(&[]), false),
            ("in, empty value", Requirement::equals(key(), ""), labels(&["k8s:app"]), true),
            ("not in", Requirement::NotIn(key(), set(&["x"])), labels(&["k8s:app=web"]), true),
            ("not in, has it", Requirement::NotIn(key(), set(&["web"])), labels(&["k8s:app=web"]), false),
            ("not in, absent", Requirement::NotIn(key(), set(&["web"])), labels(&[]), true),
            ("exists", Requirement::Exists(key()), labels(&["k8s:app=web"]), true),
            ("exists, absent", Requirement::Exists(key()), labels(&["k8s:application=web"]), false),
            ("does not exist", Requirement::DoesNotExist(key()), labels(&["k8s:app=web"]), false),
            ("does not exist, absent", Requirement::DoesNotExist(key()), labels(&[]), true),
            ("another source", Requirement::equals(container(), "web"), labels(&["k8s:app=web"]), false),
            (
                "another source, absent",
                Requirement::DoesNotExist(container()),
                labels(&["k8s:app=web"]),
                true,
            ),
            ("any source, second value", Requirement::equals(key(), "db"), both.clone(), true),
            ("own source only", Requirement::equals(k8s(), "db"), both.clone(), false),
            ("not in, any source", Requirement::NotIn(key(), set(&["db"])), both, false),
        ];
        for (name, requirement, labels, want) in cases {
            assert_eq!(requirement.matches(&labels), want, "{name}");
        }
    }

    #[test]
    fn an_identity_stands_for_its_most_specific_prefixes() {
        let cases = [
            (labels(&["cidr:10.0.0.0/8", "cidr:10.1.0.0/16", "reserved:world-ipv4"]), vec!["10.1.0.0/16"]),
            (labels(&["reserved:world", "reserved:world-ipv4"]), vec!["0.0.0.0/0"]),
            (labels(&["reserved:world", "reserved:world-ipv6"]), vec!["::/0"]),
            (
                labels(&["cidr:192.0.2.1/32", "cidr:192.0.0.0/8", "cidr:fd00::1/128"]),
                vec!["192.0.2.1/32", "fd00::1/128"],
            ),
            (labels(&["reserved:world"]), vec![]),
            (labels(&["k8s:app=web"]), vec![]),
        ];
        for (labels, want) in cases {
            let found: Vec<_> = most_specific_prefixes(&labels).iter().map(IpNet::to_string).collect();
            assert_eq!(found, want, "{labels}");
        }
    }

    #[test]
    fn holes() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let selector =
            CidrSelector { prefix: net("10.0.0.0/8"), except: BTreeSet::from([net("10.96.0.0/12")]) };
        for (prefix, want) in [
            ("10.0.0.0/8", true),
            ("10.1.0.0/16", true),
            ("10.96.0.0/12", false),
            ("10.97.0.0/16", false),
            ("0.0.0.0/0", false),
            ("fd00::/8", false),
        ] {
            assert_eq!(selector.covers(&net(prefix)), want, "{prefix}");
        }
    }
}
