//! Labels with their source, `k8s:app=web`, and sets of them.

use alloc::{
    borrow::ToOwned,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::{fmt, str::FromStr};

/// Who says that a label holds. Policies may leave it out, which means [`Source::Any`].
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Source {
    /// Any source; only in selectors, never on an endpoint.
    Any,
    /// A pod's or namespace's metadata.
    K8s,
    /// Fixed meaning, given by us alone.
    Reserved,
    /// A prefix that covers the address.
    Cidr,
    /// A `toFQDNs` selector that the name matches.
    Fqdn,
    /// A named group of prefixes.
    CidrGroup,
    /// A node's metadata.
    Node,
    /// The container runtime.
    Container,
    /// Given without a source.
    Unspec,
    /// A source we do not know; it matches only itself.
    Other(String),
}

impl Source {
    /// The word before the colon.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Any => "any",
            Self::K8s => "k8s",
            Self::Reserved => "reserved",
            Self::Cidr => "cidr",
            Self::Fqdn => "fqdn",
            Self::CidrGroup => "cidrgroup",
            Self::Node => "node",
            Self::Container => "container",
            Self::Unspec => "unspec",
            Self::Other(word) => word,
        }
    }

    /// The source for the word before the colon. Never fails: an unknown word is [`Source::Other`].
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        match word {
            "any" => Self::Any,
            "k8s" => Self::K8s,
            "reserved" => Self::Reserved,
            "cidr" => Self::Cidr,
            "fqdn" => Self::Fqdn,
            "cidrgroup" => Self::CidrGroup,
            "node" => Self::Node,
            "container" => Self::Container,
            "unspec" => Self::Unspec,
            other => Self::Other(other.to_owned()),
        }
    }

    /// Whether a selector with this source accepts a label of `other`.
    #[must_use]
    pub fn accepts(&self, other: &Self) -> bool {
        *self == Self::Any || self == other
    }
}

/// One label: `source:key=value`. The value may be empty.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Label {
    /// Who says so.
    pub source: Source,
    /// The key, without the source.
    pub key: String,
    /// The value, possibly empty.
    pub value: String,
}

impl Label {
    /// A label from its three parts.
    #[must_use]
    pub fn new(source: Source, key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { source, key: key.into(), value: value.into() }
    }

    /// A label of the Kubernetes source.
    #[must_use]
    pub fn k8s(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::new(Source::K8s, key, value)
    }

    /// A `reserved:` label.
    #[must_use]
    pub fn reserved(name: impl Into<String>) -> Self {
        Self::new(Source::Reserved, name, "")
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source.as_str(), self.key)?;
        if self.value.is_empty() { Ok(()) } else { write!(f, "={}", self.value) }
    }
}

/// The text is not `source:key[=value]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LabelParseError(String);

impl fmt::Display for LabelParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "label {:?} has no key", self.0)
    }
}

impl core::error::Error for LabelParseError {}

impl FromStr for Label {
    type Err = LabelParseError;

    /// Reads `source:key=value`, `source:key`, or `key=value` (source `unspec`).
    fn from_str(text: &str) -> Result<Self, LabelParseError> {
        let (head, value) = text.split_once('=').unwrap_or((text, ""));
        let (source, key) = match head.split_once(':') {
            Some((word, key)) => (Source::from_word(word), key),
            None => (Source::Unspec, head),
        };
        if key.is_empty() {
            return Err(LabelParseError(text.to_owned()));
        }
        Ok(Self::new(source, key, value))
    }
}

/// A set of labels in a fixed order: one value per (source, key).
///
/// Copies share their labels, and different sets can share equal ones ([`Labels::share`]): a cluster has many sets of
/// few labels.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Labels(Arc<[Arc<Label>]>);

impl Labels {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a label; one with the same source and key is replaced.
    pub fn insert(&mut self, label: Label) {
        self.extend([label]);
    }

    /// The value of the label with this source and key.
    #[must_use]
    pub fn value(&self, source: &Source, key: &str) -> Option<&str> {
        let place = self.0.binary_search_by(|label| (&label.source, &*label.key).cmp(&(source, key)));
        place.ok().and_then(|place| self.0.get(place)).map(|label| label.value.as_str())
    }

    /// The values of the labels with `key` whose source `source` accepts (`any` accepts all).
    pub fn values_of<'a>(&'a self, source: &'a Source, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter()
            .filter(move |label| label.key == key && source.accepts(&label.source))
            .map(|label| label.value.as_str())
    }

    /// Whether it holds `reserved:name`.
    #[must_use]
    pub fn has_reserved(&self, name: &str) -> bool {
        self.value(&Source::Reserved, name).is_some()
    }

    /// All labels, ordered by source, key.
    pub fn iter(&self) -> impl Iterator<Item = &Label> {
        self.0.iter().map(|label| &**label)
    }

    /// How many labels there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each label as `source:key=value`, sorted.
    #[must_use]
    pub fn to_strings(&self) -> Vec<String> {
        self.iter().map(ToString::to_string).collect()
    }

    /// The same set, each label of which is the one that `known` gives for it: an equal one that is there already.
    #[must_use]
    pub fn share(&self, known: impl FnMut(&Arc<Label>) -> Arc<Label>) -> Self {
        Self(self.0.iter().map(known).collect())
    }

    /// Sorts, and keeps the last of those with the same source and key.
    fn of(mut labels: Vec<Arc<Label>>) -> Self {
        labels.sort_by(|one, other| (&one.source, &one.key).cmp(&(&other.source, &other.key)));
        labels.dedup_by(|next, kept| {
            let same = next.source == kept.source && next.key == kept.key;
            if same {
                core::mem::swap(next, kept);
            }
            same
        });
        Self(labels.into())
    }
}

impl FromIterator<Label> for Labels {
    fn from_iter<T: IntoIterator<Item = Label>>(labels: T) -> Self {
        Self::of(labels.into_iter().map(Arc::new).collect())
    }
}

impl Extend<Label> for Labels {
    fn extend<T: IntoIterator<Item = Label>>(&mut self, labels: T) {
        *self = Self::of(self.0.iter().cloned().chain(labels.into_iter().map(Arc::new)).collect());
    }
}

impl IntoIterator for Labels {
    type Item = Label;
    type IntoIter = LabelsIntoIter;
    fn into_iter(self) -> LabelsIntoIter {
        LabelsIntoIter { labels: self, next: 0 }
    }
}

/// Iterator over the labels of a set, by value.
#[derive(Debug)]
pub struct LabelsIntoIter {
    labels: Labels,
    next: usize,
}

impl Iterator for LabelsIntoIter {
    type Item = Label;
    fn next(&mut self) -> Option<Label> {
        let label = self.labels.0.get(self.next)?;
        self.next += 1;
        Some((**label).clone())
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, label) in self.iter().enumerate() {
            if nth > 0 {
                f.write_str(",")?;
            }
            label.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(feature = "serde")]
mod as_strings {
    use super::{Label, Labels};
    use alloc::{string::String, vec::Vec};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    impl Serialize for Labels {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(self.to_strings())
        }
    }

    impl<'de> Deserialize<'de> for Labels {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let texts = Vec::<String>::deserialize(deserializer)?;
            texts.iter().map(|text| text.parse::<Label>()).collect::<Result<_, _>>().map_err(D::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for text in ["k8s:app=web", "reserved:host", "unspec:a=b=c", "cidr:10.0.0.0/8"] {
            assert_eq!(text.parse::<Label>().unwrap().to_string(), text);
        }
        assert_eq!("app=web".parse::<Label>().unwrap(), Label::new(Source::Unspec, "app", "web"));
        assert!("k8s:=x".parse::<Label>().is_err());
    }

    #[test]
    fn a_set_has_one_value_per_source_and_key() {
        let mut labels: Labels = ["k8s:b=1", "k8s:a=1", "any:b=2", "k8s:b=3"]
            .into_iter()
            .map(|text| text.parse::<Label>().unwrap())
            .collect();
        assert_eq!(labels.to_strings(), ["any:b=2", "k8s:a=1", "k8s:b=3"]);
        labels.insert(Label::k8s("a", "4"));
        labels.insert(Label::reserved("host"));
        assert_eq!(labels.to_strings(), ["any:b=2", "k8s:a=4", "k8s:b=3", "reserved:host"]);
        assert_eq!(labels.value(&Source::K8s, "b"), Some("3"));
        assert_eq!(labels.value(&Source::K8s, "c"), None);
        assert!(labels.has_reserved("host") && !labels.has_reserved("world"));
        assert_eq!(labels.clone().into_iter().collect::<Labels>(), labels);
        assert_eq!(labels.share(Arc::clone), labels);
    }

    #[test]
    fn any_accepts_every_source() {
        let labels: Labels = [Label::k8s("app", "web")].into_iter().collect();
        assert_eq!(labels.values_of(&Source::Any, "app").next(), Some("web"));
        assert_eq!(labels.values_of(&Source::Container, "app").next(), None);
    }
}
