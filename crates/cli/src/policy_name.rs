//! How people name a policy on the command line.

use std::fmt;
use std::str::FromStr;

/// A policy by kind, namespace and name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PolicyName {
    /// The kind in full.
    pub(crate) kind: &'static str,
    /// Empty for cluster-wide ones.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

const KINDS: &[(&str, &str, &[&str])] = &[
    ("CiliumNetworkPolicy", "cnp", &["ciliumnetworkpolicies"]),
    ("CiliumClusterwideNetworkPolicy", "ccnp", &["ciliumclusterwidenetworkpolicies"]),
    ("NetworkPolicy", "knp", &["netpol", "networkpolicies"]),
];

/// The kind in full, from any of its names, whatever the case.
pub(crate) fn kind_in_full(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    KINDS
        .iter()
        .find(|(kind, short, others)| {
            kind.to_ascii_lowercase() == word || *short == word || others.contains(&word.as_str())
        })
        .map(|(kind, ..)| *kind)
}

impl PolicyName {
    /// A policy of this kind; cluster-wide kinds have no namespace.
    pub(crate) fn new(kind: &str, namespace: &str, name: &str) -> Result<Self, String> {
        let kind = kind_in_full(kind)
            .ok_or_else(|| format!("{kind:?} is no kind of policy: write cnp, ccnp or knp"))?;
        let cluster_wide = kind == "CiliumClusterwideNetworkPolicy";
        if cluster_wide != namespace.is_empty() {
            let needed = if cluster_wide { "has no namespace: write ccnp/NAME" } else { "needs a namespace" };
            return Err(format!("a {kind} {needed}"));
        }
        let proper =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if name.is_empty() || !proper(name) || !proper(namespace) {
            return Err(format!("{namespace:?}, {name:?}: names hold letters, digits, '-' and '.'"));
        }
        Ok(Self { kind, namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl FromStr for PolicyName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split('/').collect::<Vec<_>>().as_slice() {
            [kind, namespace, name] => Self::new(kind, if *namespace == "-" { "" } else { namespace }, name),
            [kind, name] if kind_in_full(kind).is_some() => Self::new(kind, "", name),
            _ => Err("write KIND/NAMESPACE/NAME, for example cnp/shop/web, or ccnp/NAME".to_owned()),
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short =
            KINDS.iter().find(|(kind, ..)| *kind == self.kind).map_or(self.kind, |(_, short, _)| short);
        if self.namespace.is_empty() {
            write!(f, "{short}/{}", self.name)
        } else {
            write!(f, "{short}/{}/{}", self.namespace, self.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back() {
        let cases = [
            ("cnp/shop/web", Some("cnp/shop/web")),
            ("CiliumNetworkPolicy/shop/web", Some("cnp/shop/web")),
            ("NetworkPolicy/shop/web", Some("knp/shop/web")),
            ("ccnp/base", Some("ccnp/base")),
            ("ccnp/-/base", Some("ccnp/base")),
            ("ccnp/shop/base", None),
            ("cnp/web", None),
            ("cnp/-/web", None),
            ("web", None),
            ("pod/shop/web", None),
            ("cnp/shop/", None),
            ("cnp/shop/a b", None),
            ("cnp/shop/a?x", None),
        ];
        for (text, want) in cases {
            let got = text.parse::<PolicyName>().ok().map(|name| name.to_string());
            assert_eq!(got.as_deref(), want, "{text}");
        }
    }
}
