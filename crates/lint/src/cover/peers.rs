//! Coverage between the peers of two rules.

use std::{borrow::Cow, collections::BTreeSet};

use ipnet::IpNet;
use sluice_policy::{
    labels::{CLUSTER, NAMESPACE},
    rule::{Peers, PrefixPeer, PrefixSource, ServicePeer},
    selector::{CidrSelector, LabelKey, LabelSelector, Requirement, Selector},
};
use sluice_types::Source;

use super::labels::implies;

/// One peer of a rule.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Peer<'a> {
    Labels(&'a LabelSelector),
    Prefix(Cow<'a, CidrSelector>),
    /// Prefixes of a group, whatever these are.
    Group(&'a PrefixPeer),
    Service(&'a ServicePeer),
}

/// The peers of a rule; `None` for everybody.
pub(crate) fn peers_of(peers: &Peers) -> Option<Vec<Peer<'_>>> {
    Some(match peers {
        Peers::Any => return None,
        Peers::Select(selectors) => selectors.iter().map(of_selector).collect(),
        Peers::Endpoints(selectors) => selectors.iter().map(Peer::Labels).collect(),
        Peers::Prefixes(prefixes) => prefixes.iter().map(of_prefix).collect(),
        Peers::Services(services) => services.iter().map(Peer::Service).collect(),
    })
}

/// Whether a rule is for nobody.
pub(crate) fn select_nobody(peers: &Peers) -> bool {
    peers_of(peers).is_some_and(|peers| peers.is_empty())
}

fn of_selector(selector: &Selector) -> Peer<'_> {
    match selector {
        Selector::Labels(labels) => Peer::Labels(labels),
        Selector::Cidr(cidr) => Peer::Prefix(Cow::Borrowed(cidr)),
    }
}

fn of_prefix(peer: &PrefixPeer) -> Peer<'_> {
    match &peer.source {
        PrefixSource::Prefix(prefix) => {
            Peer::Prefix(Cow::Owned(CidrSelector { prefix: *prefix, except: peer.except.clone() }))
        }
        PrefixSource::Group(_) | PrefixSource::Groups(_) => Peer::Group(peer),
    }
}

/// Whether everybody among `narrow` is among `wide`.
pub(crate) fn peers_cover(wide: &Peers, narrow: &Peers) -> bool {
    let Some(wide) = peers_of(wide) else { return true };
    let Some(narrow) = peers_of(narrow) else { return false };
    narrow.iter().all(|peer| wide.iter().any(|wide| wide.covers(peer)))
}

impl Peer<'_> {
    /// Whether everybody among `narrow` is meant.
    pub(crate) fn covers(&self, narrow: &Self) -> bool {
        match (self, narrow) {
            (Self::Labels(wide), Self::Labels(narrow)) => {
                implies(narrow, wide) || (is_world(wide) && means_names(narrow))
            }
            (Self::Labels(wide), Self::Prefix(narrow)) => {
                is_world(wide) || family_of_world(wide) == Some(is_ipv4(&narrow.prefix))
            }
            (Self::Labels(wide), Self::Group(_)) => is_world(wide),
            (Self::Prefix(wide), Self::Prefix(narrow)) => prefix_covers(wide, narrow),
            (Self::Group(_), Self::Group(_)) | (Self::Service(_), Self::Service(_)) => self == narrow,
            (Self::Labels(_), Self::Service(_))
            | (Self::Prefix(_), Self::Labels(_) | Self::Group(_) | Self::Service(_))
            | (Self::Group(_), Self::Labels(_) | Self::Prefix(_) | Self::Service(_))
            | (Self::Service(_), Self::Labels(_) | Self::Prefix(_) | Self::Group(_)) => false,
        }
    }

    /// In words, as people write about peers.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Labels(labels) => describe_labels(labels),
            Self::Prefix(prefix) => prefix.to_string(),
            Self::Group(peer) => match &peer.source {
                PrefixSource::Group(name) => format!("the group {name}"),
                PrefixSource::Groups(labels) => format!("groups with {labels}"),
                PrefixSource::Prefix(prefix) => prefix.to_string(),
            },
            Self::Service(service) => format!("the Service {service}"),
        }
    }
}

/// `app=web of shop`, `every pod`, `world`: without what was added so that a selector stays where it belongs.
fn describe_labels(selector: &LabelSelector) -> String {
    let mut what = Vec::new();
    let mut place = String::new();
    for requirement in selector.requirements() {
        let key = requirement.key();
        match (key.key.as_str(), requirement) {
            (CLUSTER, _) | (NAMESPACE, Requirement::Exists(_)) => {}
            (NAMESPACE, Requirement::In(_, names)) => {
                place = format!(" of {}", names.iter().cloned().collect::<Vec<_>>().join(" or "));
            }
            (name, Requirement::Exists(_)) if matches!(key.source, Source::Reserved | Source::Fqdn) => {
                what.push(name.to_owned());
            }
            (_, requirement) => {
                let text = requirement.to_string();
                let plain = text.strip_prefix("any:").or_else(|| text.strip_prefix("k8s:"));
                what.push(plain.unwrap_or(&text).to_owned());
            }
        }
    }
    let what = if what.is_empty() { "every pod".to_owned() } else { what.join(" and ") };
    format!("{what}{place}")
}

fn prefix_covers(wide: &CidrSelector, narrow: &CidrSelector) -> bool {
    let is_left_out = |hole: &IpNet| narrow.except.iter().any(|own| own.contains(hole));
    let outside = |hole: &IpNet| !hole.contains(&narrow.prefix) && !narrow.prefix.contains(hole);
    wide.prefix.contains(&narrow.prefix) && wide.except.iter().all(|hole| outside(hole) || is_left_out(hole))
}

/// Whether it means everything outside of the cluster and nothing less.
fn is_world(selector: &LabelSelector) -> bool {
    is_just(selector, &Requirement::reserved("world"))
}

/// Whether it means all of one family outside of the cluster: `Some(true)` for IPv4.
fn family_of_world(selector: &LabelSelector) -> Option<bool> {
    let families = [("world-ipv4", true), ("world-ipv6", false)];
    families
        .into_iter()
        .find(|(name, _)| is_just(selector, &Requirement::reserved(name)))
        .map(|(_, ipv4)| ipv4)
}

fn is_just(selector: &LabelSelector, requirement: &Requirement) -> bool {
    selector.requirements().collect::<BTreeSet<_>>() == BTreeSet::from([requirement])
}

/// Whether it selects addresses by DNS name: these stand for something outside of the cluster.
fn means_names(selector: &LabelSelector) -> bool {
    let is_name = |key: &LabelKey| key.source == Source::Fqdn;
    selector.requirements().any(|requirement| {
        matches!(requirement, Requirement::In(..) | Requirement::Exists(_)) && is_name(requirement.key())
    })
}

const fn is_ipv4(prefix: &IpNet) -> bool {
    matches!(prefix, IpNet::V4(_))
}
