//! The cluster that a test file describes.

use std::collections::BTreeMap;

use sluice_api::{Manifest, Object};
use sluice_model::{Cluster, Participant, Who};
use sluice_policy::{Config, Enforcement, NamedPort};
use sluice_types::{Identity, Protocol};

use crate::{
    coverage::Origins,
    format::{self, AllowLocalhost, CidrMatch, PortNumber, Settings},
    suite::{Mistake, Source, Suite},
};

impl Suite {
    /// The cluster as the file and the manifests it uses describe it.
    ///
    /// # Errors
    /// Everything that is wrong with the objects and with who takes part.
    pub fn scene(&self, sources: &[Source]) -> Result<Cluster, Vec<Mistake>> {
        self.scene_with(sources, &mut Origins::default())
    }

    pub(crate) fn scene_with(
        &self,
        sources: &[Source],
        origins: &mut Origins,
    ) -> Result<Cluster, Vec<Mistake>> {
        let mut cluster = Cluster::new(config(&self.format.config));
        let mut mistakes = Vec::new();
        for source in sources {
            for manifest in &source.manifests {
                mistakes.extend(apply(&mut cluster, &source.name, manifest, origins));
            }
        }
        for manifest in self.objects() {
            if manifest.content == Ok(Object::Ignored) {
                let at = manifest.place("kind");
                let message = format!("{} is no kind that is read", named(&manifest));
                let file = self.file.clone();
                mistakes.push(Mistake { file, line: at.line, column: at.column, message });
            }
            mistakes.extend(apply(&mut cluster, &self.file, &manifest, origins));
        }
        for (name, labels) in &self.format.namespaces {
            cluster.label_namespace(name, labels);
        }
        for (name, endpoint) in &self.format.endpoints {
            match participant(name, endpoint) {
                Ok(participant) => cluster.add(participant),
                Err((field, reason)) => {
                    let dot = if field.is_empty() { "" } else { "." };
                    mistakes.push(self.mistake(&format!("endpoints[{name}]{dot}{field}"), &reason));
                }
            }
        }
        if mistakes.is_empty() { Ok(cluster) } else { Err(mistakes) }
    }
}

fn named(manifest: &Manifest) -> String {
    format!("{:?} of {:?}", manifest.kind, manifest.api_version)
}

fn apply(cluster: &mut Cluster, file: &str, manifest: &Manifest, origins: &mut Origins) -> Vec<Mistake> {
    let object = match &manifest.content {
        Ok(object) => object,
        Err(error) => return vec![Mistake::of_document(file, error)],
    };
    match cluster.apply(object) {
        Ok(()) => {
            origins.add(file, manifest);
            Vec::new()
        }
        Err(errors) => errors.iter().map(|error| Mistake::of_object(file, manifest, error)).collect(),
    }
}

/// The engine's options.
pub(crate) fn config(settings: &Settings) -> Config {
    Config {
        enforcement: match settings.policy_enforcement {
            None | Some(format::Enforcement::Default) => Enforcement::Default,
            Some(format::Enforcement::Always) => Enforcement::Always,
            Some(format::Enforcement::Never) => Enforcement::Never,
        },
        allow_localhost: match settings.allow_localhost {
            None | Some(AllowLocalhost::Auto | AllowLocalhost::Always) => true,
            Some(AllowLocalhost::Policy) => false,
        },
        cidr_match_nodes: settings.policy_cidr_match_mode.contains(&CidrMatch::Nodes),
        cidr_match_pods: settings.policy_cidr_match_mode.contains(&CidrMatch::Pods),
        host_firewall: settings.host_firewall.unwrap_or(true),
        node_selector_labels: settings.node_selector_labels.unwrap_or(true),
        audit: settings.audit,
        ..Config::complete()
    }
}

/// Who takes part, or the field that is wrong and why.
fn participant(name: &str, written: &format::Endpoint) -> Result<Participant, (String, String)> {
    let (who, also) = who(name, written)?;
    Ok(Participant {
        addresses: written.ip.into_iter().collect(),
        names: written.names.iter().map(|name| name.trim_end_matches('.').to_ascii_lowercase()).collect(),
        ports: ports(&written.ports)?,
        also,
        ..Participant::new(name, who)
    })
}

fn who(name: &str, written: &format::Endpoint) -> Result<(Who, Vec<String>), (String, String)> {
    let wrong = |field: &str, reason: &str| Err((field.to_owned(), reason.to_owned()));
    if !written.reserved.is_empty() {
        return reserved(written);
    }
    if let Some((namespace, pod)) = name.split_once('/') {
        if namespace.is_empty() || pod.is_empty() || pod.contains('/') {
            return wrong("", "a pod is written NAMESPACE/NAME");
        }
        let service_account = written.service_account.clone().unwrap_or_else(|| "default".to_owned());
        let (namespace, labels) = (namespace.to_owned(), written.labels.clone());
        return Ok((Who::Pod { namespace, labels, service_account }, Vec::new()));
    }
    if written.ip.is_none() && written.names.is_empty() {
        return wrong("", "write a pod as NAMESPACE/NAME; anything else needs ip, names or reserved");
    }
    if !written.labels.is_empty() {
        return wrong("labels", "an address outside has no labels");
    }
    if written.service_account.is_some() {
        return wrong("serviceAccount", "an address outside has no service account");
    }
    Ok((Who::Outside, Vec::new()))
}

/// Somebody with a fixed meaning. Of several words the API server's is the label that is added to the other.
fn reserved(written: &format::Endpoint) -> Result<(Who, Vec<String>), (String, String)> {
    let words: Vec<&str> =
        written.reserved.iter().map(|word| word.strip_prefix("reserved:").unwrap_or(word)).collect();
    let identities: BTreeMap<&str, Identity> =
        Identity::reserved().map(|(identity, name)| (name, identity)).collect();
    for (nth, word) in words.iter().enumerate() {
        if !identities.contains_key(word) {
            let known: Vec<&str> = identities.keys().copied().collect();
            return Err((format!("reserved[{nth}]"), unknown(word, &known)));
        }
    }
    let is_server = |word: &&str| identities.get(word) == Some(&Identity::KUBE_APISERVER);
    let first = words.iter().find(|word| !is_server(word)).or(words.first()).copied().unwrap_or_default();
    let also = words.iter().filter(|word| **word != first).map(|word| (*word).to_owned()).collect();
    let labels = written.labels.clone();
    let who = match identities.get(first).copied() {
        Some(Identity::HOST) => Who::Host(labels),
        Some(Identity::WORLD) if written.ip.is_some() => Who::Outside,
        Some(identity) => Who::Reserved { identity, labels },
        None => Who::Outside,
    };
    Ok((who, also))
}

/// That a word is not known, with the one that was meant or with all.
pub(crate) fn unknown(word: &str, known: &[&str]) -> String {
    match sluice_api::nearest(word, known) {
        Some(meant) => format!("{word:?} is not known; did you mean {meant:?}?"),
        None => format!("{word:?} is not known; known are {}", known.join(", ")),
    }
}

fn ports(written: &BTreeMap<String, PortNumber>) -> Result<Vec<NamedPort>, (String, String)> {
    let port = |(name, number): (&String, &PortNumber)| {
        let wrong = || (format!("ports[{name}]"), "write the port as 8080 or 8080/TCP".to_owned());
        let (port, protocol) = match number {
            PortNumber::Number(port) => (*port, Protocol::Tcp),
            PortNumber::Text(text) => {
                let (port, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
                let protocol = match protocol {
                    "TCP" => Protocol::Tcp,
                    "UDP" => Protocol::Udp,
                    "SCTP" => Protocol::Sctp,
                    _ => return Err(wrong()),
                };
                // Only TCP, UDP and SCTP have ports.
                (port.parse().map_err(|_unparsable: std::num::ParseIntError| wrong())?, protocol)
            }
        };
        Ok(NamedPort { name: name.to_ascii_lowercase(), protocol, port })
    };
    written.iter().map(port).collect()
}
