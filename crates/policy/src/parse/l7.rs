//! What stands beside the ports of a rule: requests, server names, TLS, listeners.
//!
//! Lists without elements ask for nothing. What no proxy can do is refused by its field.

use sluice_api::cilium::{
    DnsRule as WrittenDns, FqdnSelector as WrittenName, HttpRule as WrittenHttp, KafkaRule as WrittenKafka,
    L7Rules as Written, Listener, PortRule, TlsContext,
};
use sluice_types::{Direction, Protocol};

use super::{Path, Reason, Report, reason::Words};
use crate::{
    config::Config,
    l7::{
        DnsRule, FqdnSelector, HeaderAction, HttpRule, KafkaRule, L7Rules, NameError, Parser, Pattern,
        ServerName, http::HeaderRule, kafka::Kinds,
    },
    rule::{Action, Traffic},
};

const MISMATCH_ACTIONS: Words = Words(&["LOG", "ADD", "DELETE", "REPLACE"]);
const ROLES: Words = Words(&["produce", "consume"]);
/// The longest name of a topic, client or header.
const WORD_MAX: usize = 255;

/// Headers that frame or route a request: changed, the server would see another request than the one judged.
const UNCHANGEABLE: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Where a port rule stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) direction: Direction,
    pub(super) action: Action,
    /// Whether the rule is about the node, not about pods.
    pub(super) is_node: bool,
    pub(super) config: &'a Config,
}

/// The requests that a port rule lets pass; `None` if it says nothing about requests.
pub(super) fn parse(
    rule: &PortRule,
    traffic: &[Traffic],
    place: Place<'_>,
    path: &Path,
    report: &mut Report,
) -> Option<L7Rules> {
    if place.action != Action::Allow {
        refuse_all(rule, path, report);
        return None;
    }
    check_tls(rule, place, path, report);
    let listed = rule.rules.as_ref().and_then(|rules| requests(rules, &path.field("rules"), report));
    let names = server_names(rule, listed.is_some(), path, report);
    let rules = listed.or(names)?;
    let at = field_of(&rules, path);
    check_place(&rules, traffic, place, &at, report);
    Some(rules)
}

/// Deny rules have none of these fields (their schema lacks them).
fn refuse_all(rule: &PortRule, path: &Path, report: &mut Report) {
    let used = [
        ("rules", rule.rules.is_some()),
        ("serverNames", rule.server_names.is_some()),
        ("terminatingTLS", rule.terminating_tls.is_some()),
        ("originatingTLS", rule.originating_tls.is_some()),
        ("listener", rule.listener.is_some()),
    ];
    for (field, _) in used.into_iter().filter(|(_, used)| *used) {
        report.refuse(&path.field(field), Reason::NotInDenyRule);
    }
}

fn field_of(rules: &L7Rules, path: &Path) -> Path {
    let rules_path = path.field("rules");
    match rules {
        L7Rules::Http(rules) if rules.iter().all(|rule| rule.grpc) && !rules.is_empty() => {
            rules_path.field("grpc")
        }
        L7Rules::Http(_) => rules_path.field("http"),
        L7Rules::Kafka(_) => rules_path.field("kafka"),
        L7Rules::Dns(_) => rules_path.field("dns"),
        L7Rules::Tls(_) => path.field("serverNames"),
    }
}

/// Whether requests of this protocol can be looked at there.
fn check_place(rules: &L7Rules, traffic: &[Traffic], place: Place<'_>, path: &Path, report: &mut Report) {
    let parser = rules.parser();
    if place.is_node && (parser != Parser::Dns || place.direction == Direction::Ingress) {
        report.refuse(path, Reason::RequestsOfNode);
    }
    if place.config.proxies.port(parser).is_none() {
        report.refuse(path, Reason::NotSupported);
    }
    if parser == Parser::Dns {
        if place.direction == Direction::Ingress {
            report.refuse(path, Reason::DnsOnIngress);
        }
        let is_single = |traffic: &Traffic| match traffic {
            Traffic::Ports(_, range) => range.bounds().start() == range.bounds().end(),
            Traffic::NamedPort(..) => true,
            Traffic::Protocol(_) | Traffic::Icmp(..) => false,
        };
        if !traffic.iter().all(is_single) {
            report.refuse(path, Reason::DnsNeedsOnePort);
        }
        return;
    }
    let protocol = |traffic: &Traffic| match traffic {
        Traffic::Protocol(protocol)
        | Traffic::Ports(protocol, _)
        | Traffic::NamedPort(protocol, _)
        | Traffic::Icmp(protocol, _) => *protocol,
    };
    if traffic.iter().any(|traffic| protocol(traffic) != Protocol::Tcp) {
        report.refuse(path, Reason::RequestsNeedTcp);
    } else if traffic.iter().any(|traffic| matches!(traffic, Traffic::Protocol(_))) {
        report.refuse(path, Reason::RequestsNeedPort);
    }
}

/// The one kind of rules that has elements.
fn requests(written: &Written, path: &Path, report: &mut Report) -> Option<L7Rules> {
    if written.l7proto.is_some() {
        report.refuse(&path.field("l7proto"), Reason::NotSupported);
    }
    if written.l7.as_ref().is_some_and(|list| !list.is_empty()) {
        report.refuse(&path.field("l7"), Reason::NotSupported);
    }
    let http = written.http.as_deref().unwrap_or_default();
    let grpc = written.grpc.as_deref().unwrap_or_default();
    let kafka = written.kafka.as_deref().unwrap_or_default();
    let dns = written.dns.as_deref().unwrap_or_default();
    let used = [!http.is_empty() || !grpc.is_empty(), !kafka.is_empty(), !dns.is_empty()];
    if used.iter().filter(|used| **used).count() > 1 {
        report.refuse(path, Reason::SeveralProtocols);
    }
    if !http.is_empty() || !grpc.is_empty() {
        let calls = path.field("grpc");
        let mut rules: Vec<HttpRule> = path
            .field("http")
            .items(Some(http))
            .filter_map(|(at, rule)| http_rule(rule, at.below(path), &at, report))
            .collect();
        for (at, rule) in calls.items(Some(grpc)) {
            let names = [("serviceName", &rule.service_name), ("methodName", &rule.method_name)];
            for (field, name) in names {
                report.accept(&at.field(field), check_call_name(name.as_deref()));
            }
            let read =
                HttpRule::grpc(at.below(path), rule.service_name.as_deref(), rule.method_name.as_deref());
            rules.extend(report.accept(&at, read.map_err(Reason::Pattern)));
        }
        return Some(L7Rules::Http(rules));
    }
    if !kafka.is_empty() {
        let listed = path.field("kafka");
        let rules =
            listed.items(Some(kafka)).filter_map(|(at, rule)| kafka_rule(rule, at.below(path), &at, report));
        return Some(L7Rules::Kafka(rules.collect()));
    }
    if !dns.is_empty() {
        let listed = path.field("dns");
        let rules =
            listed.items(Some(dns)).filter_map(|(at, rule)| dns_rule(rule, at.below(path), &at, report));
        return Some(L7Rules::Dns(rules.collect()));
    }
    None
}

fn http_rule(written: &WrittenHttp, part: String, path: &Path, report: &mut Report) -> Option<HttpRule> {
    let mut pattern = |field: &str, text: &Option<String>| {
        // An empty text is what clients send for "none".
        let text = text.as_ref().filter(|text| !text.is_empty());
        let read = text.map(|text| Pattern::new(text)).transpose();
        report.accept(&path.field(field), read.map_err(Reason::Pattern))
    };
    let method = pattern("method", &written.method);
    let path_pattern = pattern("path", &written.path);
    let host = pattern("host", &written.host);
    let mut headers = Vec::new();
    for (at, line) in path.field("headers").items(written.headers.as_deref()) {
        let rule = HeaderRule::from_line(line);
        let checked = check_header_name(&rule.name).and_then(|()| check_header_value(rule.value.as_deref()));
        headers.extend(report.accept(&at, checked).map(|()| rule));
    }
    for (at, header) in path.field("headerMatches").items(written.header_matches.as_deref()) {
        let action = match header.mismatch.as_deref() {
            None | Some("") => Ok(None),
            Some("LOG") => Ok(Some(HeaderAction::Log)),
            Some("ADD") => Ok(Some(HeaderAction::Add)),
            Some("DELETE") => Ok(Some(HeaderAction::Delete)),
            Some("REPLACE") => Ok(Some(HeaderAction::Replace)),
            Some(other) => Err(Reason::NoneOf { found: other.to_owned(), known: MISMATCH_ACTIONS }),
        };
        let action = report.accept(&at.field("mismatch"), action);
        let checked = check_header_name(&header.name).and_then(|()| check_change(&header.name, action));
        let named = report.accept(&at.field("name"), checked);
        report.accept(&at.field("value"), check_header_value(header.value.as_deref()));
        headers.extend(named.zip(action).map(|((), action)| HeaderRule::from_match(header, action)));
    }
    Some(HttpRule { part, method: method?, path: path_pattern?, host: host?, grpc: false, headers })
}

/// A header's name as HTTP has it (RFC 9110, section 5.6.2). `Name:value` without a space is taken for a name by
/// upstream and can never match; here it is refused.
fn check_header_name(name: &str) -> Result<(), Reason> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !name.is_empty() && name.len() <= WORD_MAX && name.bytes().all(is_token) {
        Ok(())
    } else {
        Err(Reason::NoHeaderName(name.chars().take(WORD_MAX).collect()))
    }
}

/// The name of a service or method is one segment of a path as it is.
fn check_call_name(name: Option<&str>) -> Result<(), Reason> {
    let Some(name) = name else { return Ok(()) };
    let reserved = |byte: u8| matches!(byte, b'/' | b'?' | b'#' | b'%' | b'\\');
    let is_segment = name.bytes().all(|byte| byte.is_ascii_graphic() && !reserved(byte));
    if is_segment && !matches!(name, "" | "." | "..") {
        Ok(())
    } else {
        Err(Reason::NoGrpcName(name.chars().take(WORD_MAX).collect()))
    }
}

/// A value that no request can have never matches, and one with a line break would be a second header if it were
/// put into a request.
fn check_header_value(value: Option<&str>) -> Result<(), Reason> {
    let Some(value) = value else { return Ok(()) };
    let is_trimmed = value.trim_matches([' ', '\t']).len() == value.len();
    if is_trimmed && !value.chars().any(|c| c.is_control() && c != '\t') {
        Ok(())
    } else {
        Err(Reason::NoHeaderValue(value.chars().take(WORD_MAX).collect()))
    }
}

/// Whether an action may change a header.
fn check_change(name: &str, action: Option<Option<HeaderAction>>) -> Result<(), Reason> {
    let changes = match action.flatten() {
        Some(HeaderAction::Add | HeaderAction::Delete | HeaderAction::Replace) => true,
        Some(HeaderAction::Log) | None => false,
    };
    if changes && UNCHANGEABLE.iter().any(|fixed| fixed.eq_ignore_ascii_case(name)) {
        Err(Reason::UnchangeableHeader(name.to_owned()))
    } else {
        Ok(())
    }
}

fn kafka_rule(written: &WrittenKafka, part: String, path: &Path, report: &mut Report) -> Option<KafkaRule> {
    let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (role, api_key) = (some(&written.role), some(&written.api_key));
    let kinds = match (role, api_key) {
        (Some(_), Some(_)) => Err((path.clone(), Reason::RoleAndKey)),
        (Some(role), None) => Kinds::role(&role.to_ascii_lowercase())
            .map(Some)
            .ok_or_else(|| (path.field("role"), Reason::NoKafkaRole { found: role, known: ROLES })),
        (None, Some(key)) => {
            Kinds::named(&key).map(Some).ok_or_else(|| (path.field("apiKey"), Reason::NoKafkaKey(key)))
        }
        (None, None) => Ok(None),
    };
    let kinds = kinds.map_err(|(at, reason)| report.refuse(&at, reason)).ok();
    let version = written.api_version.as_ref().map(ToString::to_string).filter(|text| !text.is_empty());
    let version = version.map(|text| {
        let number = text.parse::<i16>().ok().filter(|number| *number >= 0 && number.to_string() == text);
        number.ok_or(Reason::NoKafkaVersion(text))
    });
    let api_version = report.accept(&path.field("apiVersion"), version.transpose());
    let topic = some(&written.topic);
    if let Some(topic) = topic.as_ref().filter(|topic| !is_topic(topic)) {
        report.refuse(&path.field("topic"), Reason::NoTopic(topic.chars().take(WORD_MAX).collect()));
    }
    let client_id = some(&written.client_id);
    Some(KafkaRule { part, kinds: kinds?, api_version: api_version?, client_id, topic })
}

fn is_topic(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.len() <= WORD_MAX && text.bytes().all(known)
}

fn dns_rule(written: &WrittenDns, part: String, path: &Path, report: &mut Report) -> Option<DnsRule> {
    let field = name_field(written.match_name.as_deref(), written.match_pattern.as_deref());
    report.accept(&path.field(field), DnsRule::parse(part, written).map_err(Reason::Name))
}

/// The field that an error is about: the name if it is wrong, else the pattern.
fn name_field(name: Option<&str>, pattern: Option<&str>) -> &'static str {
    match (name.map(FqdnSelector::name), pattern) {
        (Some(Err(_)), _) | (_, None) => "matchName",
        (Some(Ok(_)) | None, Some(_)) => "matchPattern",
    }
}

/// One element of `toFQDNs`: a name or a pattern.
pub(super) fn fqdn(written: &WrittenName, path: &Path, report: &mut Report) -> Option<FqdnSelector> {
    let read = match (written.match_name.as_deref(), written.match_pattern.as_deref()) {
        (Some(_), Some(_)) => return report.accept(path, Err(Reason::NameAndPattern)),
        (Some(name), None) => FqdnSelector::name(name),
        (None, Some(pattern)) => FqdnSelector::pattern(pattern),
        (None, None) => Err(NameError::Empty),
    };
    let field = if written.match_pattern.is_some() { "matchPattern" } else { "matchName" };
    report.accept(&path.field(field), read.map_err(Reason::Name))
}

fn server_names(rule: &PortRule, has_requests: bool, path: &Path, report: &mut Report) -> Option<L7Rules> {
    let names = rule.server_names.as_deref()?;
    let listed = path.field("serverNames");
    if names.is_empty() {
        report.refuse(&listed, Reason::Empty);
        return None;
    }
    if has_requests && rule.terminating_tls.is_none() {
        report.refuse(&listed, Reason::NamesAndRequests);
    }
    let read = listed.items(Some(names)).filter_map(|(at, text)| {
        report.accept(&at, ServerName::parse(at.below(path), text).map_err(Reason::Name))
    });
    Some(L7Rules::Tls(read.collect()))
}

/// TLS contexts and listeners are read, so that what is wrong in them is said, and then refused: nothing opens
/// connections or runs listeners of others.
fn check_tls(rule: &PortRule, place: Place<'_>, path: &Path, report: &mut Report) {
    let contexts = [
        ("terminatingTLS", rule.terminating_tls.as_ref()),
        ("originatingTLS", rule.originating_tls.as_ref()),
    ];
    for (field, context) in contexts {
        let Some(context) = context else { continue };
        let path = path.field(field);
        check_context(context, &path, report);
        report.refuse(&path, Reason::NotSupported);
    }
    if let Some(listener) = &rule.listener {
        let path = path.field("listener");
        check_listener(listener, place, rule, &path, report);
        report.refuse(&path, Reason::NotSupported);
    }
}

fn check_context(context: &TlsContext, path: &Path, report: &mut Report) {
    let named = context.secret.as_ref().is_some_and(|secret| !secret.name.is_empty());
    if !named {
        report.refuse(&path.field("secret"), Reason::Required);
    }
}

fn check_listener(listener: &Listener, place: Place<'_>, rule: &PortRule, path: &Path, report: &mut Report) {
    if place.direction == Direction::Ingress {
        report.refuse(path, Reason::ListenerOnIngress);
    }
    if rule.rules.is_some() {
        report.refuse(path, Reason::ListenerAndRequests);
    }
    if let Some(priority) = listener.priority.filter(|priority| !(0..=100).contains(priority)) {
        report.refuse(&path.field("priority"), Reason::ListenerPriority(priority));
    }
}
