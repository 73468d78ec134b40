//! How people name the ends of a flow: pods, addresses, DNS names, entities, labels.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use sluice_policy::labels::NAMESPACE;
use sluice_types::{Identity, Label, Source};

use crate::{
    cluster::{Cluster, Known},
    participant::{Participant, Who},
};

/// How many names an error lists.
const LISTED_MAX: usize = 6;

/// Nobody is called that.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnknownEnd {
    /// What was written.
    pub text: String,
    /// Names that look like it, else the first ones that exist.
    pub known: Vec<String>,
}

impl fmt::Display for UnknownEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nobody is called {:?}", self.text)?;
        match self.known.as_slice() {
            [] => f.write_str("; no pods are known"),
            [only] => write!(f, "; did you mean {only}?"),
            several => write!(f, "; known are {}", several.join(", ")),
        }
    }
}

impl std::error::Error for UnknownEnd {}

impl Cluster {
    /// The name of the participant that `text` means. One that needs no introduction is added: an address
    /// (`192.0.2.7`), a DNS name (`api.example.com`), an entity (`world`, `reserved:host`), or any pod with given labels
    /// (`app=web,io.kubernetes.pod.namespace=shop`, of namespace `default` unless they say otherwise).
    ///
    /// # Errors
    /// `text` is none of these.
    pub fn end(&mut self, text: &str) -> Result<String, UnknownEnd> {
        if self.participants.contains_key(text) {
            return Ok(text.to_owned());
        }
        if let Some(known) = self.having(text) {
            return Ok(known);
        }
        let Some(participant) = introduce(text) else { return Err(self.unknown(text)) };
        self.add(participant);
        Ok(text.to_owned())
    }

    pub(crate) fn known_end(&self, name: &str) -> Result<&Known, UnknownEnd> {
        self.known.get(name).ok_or_else(|| self.unknown(name))
    }

    /// Who has this address or DNS name.
    fn having(&self, text: &str) -> Option<String> {
        let address: Option<IpAddr> = text.parse().ok();
        let lower = text.to_ascii_lowercase();
        let found = self.participants.values().find(|own| match address {
            Some(address) => own.addresses.contains(&address),
            None => own.names.iter().any(|name| name.eq_ignore_ascii_case(&lower)),
        });
        found.map(|own| own.name.clone())
    }

    fn unknown(&self, text: &str) -> UnknownEnd {
        let short = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
        let wanted = short(text);
        let mut known: Vec<String> =
            self.participants.keys().filter(|name| short(name) == wanted).cloned().collect();
        if known.is_empty() {
            known = self.participants.keys().filter(|name| short(name).contains(&wanted)).cloned().collect();
        }
        if known.is_empty() {
            known = self.participants.keys().cloned().collect();
        }
        known.truncate(LISTED_MAX);
        UnknownEnd { text: text.to_owned(), known }
    }
}

/// Somebody who is known by description alone.
fn introduce(text: &str) -> Option<Participant> {
    if let Ok(address) = text.parse() {
        return Some(Participant::outside(text, address));
    }
    if let Some(who) = reserved(text.strip_prefix("reserved:").unwrap_or(text)) {
        return Some(Participant::new(text, who));
    }
    if text.contains(['=', ':']) {
        return labelled(text);
    }
    let is_name = text.contains('.') && !text.contains('/') && !text.contains(char::is_whitespace);
    is_name.then(|| Participant {
        names: vec![text.to_ascii_lowercase()],
        ..Participant::new(text, Who::Outside)
    })
}

fn reserved(word: &str) -> Option<Who> {
    let (identity, _) = Identity::reserved().find(|(_, name)| *name == word)?;
    Some(if identity == Identity::HOST {
        Who::Host(BTreeMap::new())
    } else {
        Who::Reserved { identity, labels: BTreeMap::new() }
    })
}

/// A pod with the labels of a list, `k8s:app=web,io.kubernetes.pod.namespace=shop`.
fn labelled(text: &str) -> Option<Participant> {
    let mut own = BTreeMap::new();
    let mut namespace = "default".to_owned();
    for word in text.split(',').map(str::trim) {
        let label: Label = word.parse().ok()?;
        if !matches!(label.source, Source::K8s | Source::Any | Source::Unspec) {
            return None;
        }
        if label.key == NAMESPACE {
            namespace.clone_from(&label.value);
        } else {
            own.insert(label.key.clone(), label.value.clone());
        }
    }
    let who = Who::Pod { namespace, labels: own, service_account: "default".to_owned() };
    Some(Participant::new(text, who))
}
