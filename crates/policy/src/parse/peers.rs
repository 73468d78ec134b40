//! Peers of Cilium rules: which kinds may stand together, and whom each selects.

use std::collections::BTreeSet;

use sluice_api::cilium::{CidrRule, ServiceSelector};

use super::{
    Path, Reason, Report, cidr,
    entity::{self, Entity},
    entry::{Entry, Kind},
    l7,
    selectors::{self, Keys, PeerScope},
};
use crate::{
    config::Config,
    rule::{Action, Peers, Ports, PrefixPeer, PrefixSource, ServicePeer, WhichServices},
    selector::{LabelSelector, Requirement, Selector},
};

/// Where the peers of a rule are looked for, and by which options.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerContext<'a> {
    pub(super) scope: PeerScope<'a>,
    pub(super) config: &'a Config,
    pub(super) action: Action,
}

/// Whom one entry selects.
///
/// Without any kind of peers an entry with ports means everybody and one without means nobody; a kind with an empty
/// list means nobody. Requirements alone grant nothing.
pub(super) fn parse(
    entry: &Entry<'_>,
    ports: &Ports,
    context: PeerContext<'_>,
    path: &Path,
    report: &mut Report,
) -> Peers {
    check_kinds(entry, context, path, report);
    if entry.kinds().all(|kind| kind.length.is_none()) {
        let required = entry.requires.list.is_some_and(|list| !list.is_empty());
        let nobody = required || *ports == Ports::Any;
        return if nobody { Peers::Select(Vec::new()) } else { Peers::Any };
    }
    if entry.endpoints.kind().is_used() {
        let place = path.field(entry.endpoints.name);
        let selectors = place
            .items(entry.endpoints.list)
            .map(|(path, written)| selectors::peer(written, context.scope, context.config, &path, report))
            .collect();
        return Peers::Endpoints(selectors);
    }
    if entry.cidr_set.kind().is_used() {
        let place = path.field(entry.cidr_set.name);
        let prefixes = place.items(entry.cidr_set.list);
        let prefixes = prefixes.filter_map(|(path, rule)| cidr_rule(rule, context.config, &path, report));
        return Peers::Prefixes(prefixes.collect());
    }
    if entry.services.kind().is_used() {
        let place = path.field(entry.services.name);
        let services = place.items(entry.services.list);
        return Peers::Services(
            services.filter_map(|(path, written)| service(written, &path, report)).collect(),
        );
    }
    others(entry, context.config, path, report)
}

/// What `fromRequires` or `toRequires` asks of peers.
pub(super) fn requirements(
    entry: &Entry<'_>,
    context: PeerContext<'_>,
    path: &Path,
    report: &mut Report,
) -> Vec<LabelSelector> {
    let place = path.field(entry.requires.name);
    place
        .items(entry.requires.list)
        .map(|(path, written)| selectors::peer(written, context.scope, context.config, &path, report))
        .collect()
}

fn check_kinds(entry: &Entry<'_>, context: PeerContext<'_>, path: &Path, report: &mut Report) {
    let mut used = entry.kinds().filter(Kind::is_used);
    if let (Some(first), Some(second)) = (used.next(), used.next()) {
        report.refuse(path, Reason::Combined(first.name, second.name));
    }
    let names = entry.names.kind();
    if names.length.is_some() && context.action == Action::Deny {
        report.refuse(&path.field(names.name), Reason::NotInDenyRule);
    }
    if names.is_used() && context.config.proxies.dns.is_none() {
        // Names are learnt from the answers that the proxy sees.
        report.refuse(&path.field(names.name), Reason::NotSupported);
    }
    if entry.nodes.kind().is_used() && !context.config.node_selector_labels {
        report.refuse(&path.field(entry.nodes.name), Reason::NeedsOption("enable-node-selector-labels"));
    }
    if entry.services.kind().is_used() && !context.config.referents {
        report.refuse(&path.field(entry.services.name), Reason::NotSupported);
    }
    if entry.groups.is_used() {
        report.refuse(&path.field(entry.groups.name), Reason::NotSupported);
    }
}

/// Peers by address, entity, node or name.
fn others(entry: &Entry<'_>, config: &Config, path: &Path, report: &mut Report) -> Peers {
    let mut selectors = Vec::new();
    for (path, text) in path.field(entry.cidr.name).items(entry.cidr.list) {
        let prefix = report.accept(&path, cidr::prefix_or_address(text));
        selectors.extend(prefix.map(Selector::prefix));
    }
    for (path, written) in path.field(entry.nodes.name).items(entry.nodes.list) {
        let mut nodes = selectors::read(written, Keys::Node, &path, report);
        nodes.require(Requirement::reserved("remote-node"));
        selectors.push(Selector::Labels(nodes));
    }
    for (path, written) in path.field(entry.names.name).items(entry.names.list) {
        selectors.extend(l7::fqdn(written, &path, report).map(|name| name.selector()));
    }
    let mut everybody = false;
    for (path, name) in path.field(entry.entities.name).items(entry.entities.list) {
        match report.accept(&path, entity::parse(name, &config.cluster_name)) {
            Some(Entity::Everybody) => everybody = true,
            Some(Entity::Select(group)) => selectors.extend(group),
            None => {}
        }
    }
    if everybody { Peers::Any } else { Peers::Select(selectors) }
}

fn cidr_rule(written: &CidrRule, config: &Config, path: &Path, report: &mut Report) -> Option<PrefixPeer> {
    let ways =
        [written.cidr.is_some(), written.cidr_group_ref.is_some(), written.cidr_group_selector.is_some()];
    match ways.iter().filter(|given| **given).count() {
        0 => report.refuse(path, Reason::NoCidr),
        1 => {}
        _ => report.refuse(path, Reason::SeveralCidrs),
    }
    let groups = [
        ("cidrGroupRef", written.cidr_group_ref.is_some()),
        ("cidrGroupSelector", written.cidr_group_selector.is_some()),
    ];
    for (field, _) in groups.into_iter().filter(|(_, used)| *used && !config.referents) {
        report.refuse(&path.field(field), Reason::NotSupported);
    }
    let source = if let Some(text) = &written.cidr {
        report.accept(&path.field("cidr"), cidr::prefix(text)).map(PrefixSource::Prefix)
    } else if let Some(name) = &written.cidr_group_ref {
        let checked = if name.is_empty() { Err(Reason::Required) } else { Ok(name.clone()) };
        report.accept(&path.field("cidrGroupRef"), checked).map(PrefixSource::Group)
    } else {
        let path = path.field("cidrGroupSelector");
        let selector = written.cidr_group_selector.as_ref();
        selector
            .map(|labels| selectors::read(labels, Keys::Kubernetes(""), &path, report))
            .map(PrefixSource::Groups)
    };
    let mut except = BTreeSet::new();
    for (path, text) in path.field("except").items(written.except.as_deref()) {
        let hole = cidr::prefix(text).and_then(|hole| match source {
            Some(PrefixSource::Prefix(prefix)) => cidr::check_hole(prefix, hole),
            // What a group holds is not known here.
            Some(PrefixSource::Group(_) | PrefixSource::Groups(_)) | None => Ok(hole),
        });
        except.extend(report.accept(&path, hole));
    }
    source.map(|source| PrefixPeer { source, except })
}

/// An absent or empty namespace means every namespace; of a name and labels the labels count.
fn service(written: &ServiceSelector, path: &Path, report: &mut Report) -> Option<ServicePeer> {
    let namespace = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(labels) = &written.k8s_service_selector {
        let place = path.field("k8sServiceSelector").field("selector");
        let selector = selectors::read(&labels.selector, Keys::Kubernetes(""), &place, report);
        return Some(ServicePeer {
            namespace: namespace(&labels.namespace),
            which: WhichServices::Labelled(selector),
        });
    }
    let Some(named) = &written.k8s_service else {
        report.refuse(path, Reason::NoService);
        return None;
    };
    let place = path.field("k8sService").field("serviceName");
    let name = named.service_name.clone().filter(|name| !name.is_empty()).ok_or(Reason::Required);
    let name = report.accept(&place, name)?;
    Some(ServicePeer { namespace: namespace(&named.namespace), which: WhichServices::Named(name) })
}
