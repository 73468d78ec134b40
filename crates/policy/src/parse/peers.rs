//! Peers of Cilium rules: which kinds may stand together, and whom each selects.

use std::collections::BTreeSet;

use sluice_api::cilium::CidrRule;

use super::{
    Path, Reason, Report, cidr,
    entity::{self, Entity},
    entry::{Entry, Kind},
    selectors::{self, PeerScope},
};
use crate::{
    config::Config,
    rule::{Action, Peers, Ports},
    selector::{CidrSelector, LabelSelector, Selector},
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
    check_kinds(entry, context.action, path, report);
    if entry.kinds().all(|kind| kind.length.is_none()) {
        let required = entry.requires.list.is_some_and(|list| !list.is_empty());
        let nobody = required || *ports == Ports::Any;
        return if nobody { Peers::Select(Vec::new()) } else { Peers::Any };
    }
    if entry.endpoints.list.is_some_and(|list| !list.is_empty()) {
        let place = path.field(entry.endpoints.name);
        let selectors = place
            .items(entry.endpoints.list)
            .map(|(path, written)| selectors::peer(written, context.scope, context.config, &path, report))
            .collect();
        return Peers::Endpoints(selectors);
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

fn check_kinds(entry: &Entry<'_>, action: Action, path: &Path, report: &mut Report) {
    if action == Action::Deny {
        for kind in entry.allow_only.iter().filter(|kind| kind.length.is_some()) {
            report.refuse(&path.field(kind.name), Reason::NotInDenyRule);
        }
    }
    let mut used = entry.kinds().filter(Kind::is_used);
    if let (Some(first), Some(second)) = (used.next(), used.next()) {
        report.refuse(path, Reason::Combined(first.name, second.name));
    }
    for kind in entry.later.iter().filter(|kind| kind.is_used()) {
        report.refuse(&path.field(kind.name), Reason::NotSupported);
    }
}

/// Peers by prefix or entity.
fn others(entry: &Entry<'_>, config: &Config, path: &Path, report: &mut Report) -> Peers {
    let mut selectors = Vec::new();
    for (path, text) in path.field(entry.cidr.name).items(entry.cidr.list) {
        let prefix = report.accept(&path, cidr::prefix_or_address(text));
        selectors.extend(prefix.map(|prefix| cidr_selector(prefix, BTreeSet::new())));
    }
    for (path, written) in path.field(entry.cidr_set.name).items(entry.cidr_set.list) {
        selectors.extend(cidr_rule(written, &path, report));
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

fn cidr_rule(written: &CidrRule, path: &Path, report: &mut Report) -> Option<Selector> {
    let ways =
        [written.cidr.is_some(), written.cidr_group_ref.is_some(), written.cidr_group_selector.is_some()];
    match ways.iter().filter(|given| **given).count() {
        0 => report.refuse(path, Reason::NoCidr),
        1 => {}
        _ => report.refuse(path, Reason::SeveralCidrs),
    }
    if written.cidr_group_ref.is_some() {
        report.refuse(&path.field("cidrGroupRef"), Reason::NotSupported);
    }
    if written.cidr_group_selector.is_some() {
        report.refuse(&path.field("cidrGroupSelector"), Reason::NotSupported);
    }
    let prefix = report.accept(&path.field("cidr"), cidr::prefix(written.cidr.as_deref()?))?;
    let mut except = BTreeSet::new();
    for (path, text) in path.field("except").items(written.except.as_deref()) {
        let hole = cidr::prefix(text).and_then(|hole| cidr::check_hole(prefix, hole));
        except.extend(report.accept(&path, hole));
    }
    Some(cidr_selector(prefix, except))
}

const fn cidr_selector(prefix: ipnet::IpNet, except: BTreeSet<ipnet::IpNet>) -> Selector {
    Selector::Cidr(CidrSelector { prefix, except })
}
