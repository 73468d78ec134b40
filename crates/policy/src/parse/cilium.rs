//! Rules of `CiliumNetworkPolicy` and `CiliumClusterwideNetworkPolicy`.

use sluice_api::{LabelSelector as Written, cilium::PolicyRule};
use sluice_types::{Direction, Source};

use super::{
    Path, Reason, Report,
    entry::Entry,
    l7::Place,
    peers::{self, PeerContext},
    ports,
    reason::Words,
    selectors::{self, Keys, PeerScope},
};
use crate::{
    config::Config,
    rule::{Action, Priority, Rule, RuleSubject, Tier},
};

const AUTHENTICATION_MODES: Words = Words(&["disabled", "required", "test-always-fail"]);
/// The longest text that is shown with flows.
const LOG_MAX: usize = 32;

/// Where a policy may reach.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope<'a> {
    /// The pods of this namespace.
    Namespace(&'a str),
    /// Everything.
    Cluster,
}

/// The rules of `spec` and `specs`, one after the other.
pub(super) fn rules(
    spec: Option<&PolicyRule>,
    specs: Option<&[PolicyRule]>,
    scope: Scope<'_>,
    config: &Config,
    report: &mut Report,
) -> Vec<Rule> {
    let several = Path::root("specs");
    let written = spec.map(|rule| (Path::root("spec"), rule)).into_iter().chain(several.items(specs));
    let rules: Vec<Vec<Rule>> =
        written.map(|(path, rule)| policy_rule(rule, &path, scope, config, report)).collect();
    if rules.is_empty() {
        report.refuse(&Path::root("spec"), Reason::EmptyPolicy);
    }
    rules.into_iter().flatten().collect()
}

fn policy_rule(
    written: &PolicyRule,
    path: &Path,
    scope: Scope<'_>,
    config: &Config,
    report: &mut Report,
) -> Vec<Rule> {
    let subject = subject(written, path, scope, config, report);
    let log = check_log(written, path, report);
    let ingress = || entries(written.ingress.as_deref());
    let lists = [
        ("ingress", Direction::Ingress, Action::Allow, ingress()),
        ("ingressDeny", Direction::Ingress, Action::Deny, entries(written.ingress_deny.as_deref())),
        ("egress", Direction::Egress, Action::Allow, entries(written.egress.as_deref())),
        ("egressDeny", Direction::Egress, Action::Deny, entries(written.egress_deny.as_deref())),
    ];
    if lists.iter().all(|(_, _, _, entries)| entries.is_empty()) {
        report.refuse(path, Reason::NoEntries);
    }
    let Some((subject, peer_scope)) = subject else { return Vec::new() };
    let frame = Frame { subject, peer_scope, config, written, log };
    let mut rules = Vec::new();
    for (list, direction, action, entries) in lists {
        for (path, entry) in path.field(list).items(Some(&entries)) {
            rules.push(frame.rule(entry, direction, action, &path, report));
        }
    }
    rules
}

fn entries<'a, T>(list: Option<&'a [T]>) -> Vec<Entry<'a>>
where
    Entry<'a>: From<&'a T>,
{
    list.unwrap_or_default().iter().map(Entry::from).collect()
}

/// Whom the rule applies to, and where its peers are looked for.
fn subject<'a>(
    written: &PolicyRule,
    path: &Path,
    scope: Scope<'a>,
    config: &Config,
    report: &mut Report,
) -> Option<(RuleSubject, PeerScope<'a>)> {
    match (&written.endpoint_selector, &written.node_selector) {
        (Some(endpoints), None) => {
            Some(endpoint_subject(endpoints, &path.field("endpointSelector"), scope, report))
        }
        (None, Some(nodes)) => {
            let path = path.field("nodeSelector");
            match scope {
                Scope::Namespace(_) => report.refuse(&path, Reason::NodeInNamespace),
                Scope::Cluster if !config.host_firewall => report.refuse(&path, Reason::NotSupported),
                Scope::Cluster => {}
            }
            let selector = selectors::read(nodes, Keys::Node, &path, report);
            Some((RuleSubject::Node(selector), PeerScope::AnyNamespace))
        }
        (None, None) => {
            report.refuse(path, Reason::NoSubject);
            None
        }
        (Some(_), Some(_)) => {
            report.refuse(path, Reason::TwoSubjects);
            None
        }
    }
}

fn endpoint_subject<'a>(
    written: &Written,
    path: &Path,
    scope: Scope<'a>,
    report: &mut Report,
) -> (RuleSubject, PeerScope<'a>) {
    match scope {
        Scope::Namespace(namespace) => {
            let subject = selectors::confined_subject(written, namespace, Keys::WithSource, path, report);
            (subject, PeerScope::Namespace(namespace))
        }
        Scope::Cluster => {
            let selector = selectors::read(written, Keys::WithSource, path, report);
            // Pods whose labels are not known yet are in no namespace yet, and so may be their peers.
            let means_init = selector.looks_at(|key| key.source == Source::Reserved && key.key == "init");
            let peers = if means_init { PeerScope::Anywhere } else { PeerScope::AnyNamespace };
            (RuleSubject::Endpoints(selector), peers)
        }
    }
}

fn check_log(written: &PolicyRule, path: &Path, report: &mut Report) -> Option<String> {
    let value = written.log.as_ref()?.value.as_ref().filter(|value| !value.is_empty())?;
    let printable = value.chars().count() <= LOG_MAX && !value.chars().any(char::is_control);
    let checked = if printable { Ok(value.clone()) } else { Err(Reason::NotPrintable(LOG_MAX)) };
    report.accept(&path.field("log").field("value"), checked)
}

/// What the entries of one rule share.
struct Frame<'a> {
    subject: RuleSubject,
    peer_scope: PeerScope<'a>,
    config: &'a Config,
    written: &'a PolicyRule,
    log: Option<String>,
}

impl Frame<'_> {
    fn rule(
        &self,
        entry: &Entry<'_>,
        direction: Direction,
        action: Action,
        path: &Path,
        report: &mut Report,
    ) -> Rule {
        let context = PeerContext { scope: self.peer_scope, config: self.config, action };
        let namespace = match self.peer_scope {
            PeerScope::Namespace(namespace) => Some(namespace),
            PeerScope::AnyNamespace | PeerScope::Anywhere => None,
        };
        let is_node = matches!(self.subject, RuleSubject::Node(_));
        let place = Place { direction, action, is_node, config: self.config };
        let ports = ports::parse(entry.to_ports, entry.icmps, place, namespace, path, report);
        let peers = peers::parse(entry, &ports, context, path, report);
        let requires = peers::requirements(entry, context, path, report);
        check_authentication(entry, action, path, report);
        let asked = self.written.enable_default_deny.unwrap_or_default();
        let default_deny = match direction {
            Direction::Ingress => asked.ingress,
            Direction::Egress => asked.egress,
        };
        Rule {
            path: path.0.strip_prefix("spec.").unwrap_or(&path.0).to_owned(),
            subject: self.subject.clone(),
            direction,
            tier: Tier::Normal,
            priority: Priority::default(),
            action,
            peers,
            ports,
            requires,
            default_deny: default_deny.unwrap_or(true),
            audit: false,
            description: self.written.description.clone(),
            log: self.log.clone(),
        }
    }
}

fn check_authentication(entry: &Entry<'_>, action: Action, path: &Path, report: &mut Report) {
    let Some(authentication) = entry.authentication else { return };
    let path = path.field("authentication");
    if action == Action::Deny {
        report.refuse(&path, Reason::NotInDenyRule);
    }
    match authentication.mode.as_str() {
        "disabled" => {}
        "required" | "test-always-fail" => report.refuse(&path.field("mode"), Reason::NotSupported),
        other => {
            let reason = Reason::NoneOf { found: other.to_owned(), known: AUTHENTICATION_MODES };
            report.refuse(&path.field("mode"), reason);
        }
    }
}
