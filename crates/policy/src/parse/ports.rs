//! Ports of Cilium rules.

use std::sync::Arc;

use sluice_api::{
    IntOrString,
    cilium::{IcmpRule, Port, PortRule},
};
use sluice_types::Protocol;

use super::{Path, Reason, Report, icmp, l7, l7::Place, reason::Words};
use crate::{
    referents::ServiceName,
    rule::{self, PortRange, Ports, Traffic},
};

/// How many ports or ICMP types one list may hold.
const LIST_MAX: usize = 40;
const PROTOCOLS: Words = Words(&["TCP", "UDP", "SCTP", "ANY"]);
/// Protocols of the schema that are not judged yet.
const EXTENDED: [&str; 7] = ["VRRP", "IGMP", "GRE", "IPIP", "IPV6", "ESP", "AH"];

/// What `toPorts` and `icmps` of one entry select; an absent list and an empty one both mean everything.
///
/// `namespace` is where Services without a namespace of their own are.
pub(super) fn parse(
    to_ports: Option<&[PortRule]>,
    icmps: Option<&[IcmpRule]>,
    place: Place<'_>,
    namespace: Option<&str>,
    entry: &Path,
    report: &mut Report,
) -> Ports {
    let to_ports = to_ports.filter(|list| !list.is_empty());
    let icmps = icmps.filter(|list| !list.is_empty());
    if to_ports.is_some() && icmps.is_some() {
        report.refuse(&entry.field("icmps"), Reason::IcmpWithPorts);
    }
    if to_ports.is_none() && icmps.is_none() {
        return Ports::Any;
    }
    let mut rules = Vec::new();
    for (path, rule) in entry.field("toPorts").items(to_ports) {
        let traffic = port_rule(rule, &path.field("ports"), report);
        let l7 = l7::parse(rule, &traffic, place, &path, report).map(Arc::new);
        if rule.service.is_some() && !place.config.referents {
            report.refuse(&path.field("service"), Reason::NotSupported);
        }
        let service = rule.service.as_deref();
        let service =
            service.and_then(|text| report.accept(&path.field("service"), service_name(text, namespace)));
        rules.push(rule::PortRule { path: path.below(entry), traffic, service, l7 });
    }
    for (path, rule) in entry.field("icmps").items(icmps) {
        let fields = path.field("fields");
        check_length(rule.fields.as_deref(), "ICMP fields", &fields, report);
        let types = fields.items(rule.fields.as_deref());
        let traffic = types.filter_map(|(path, field)| report.accept(&path, icmp::field(field))).collect();
        rules.push(rule::PortRule::new(path.below(entry), traffic));
    }
    Ports::Select(rules)
}

fn port_rule(rule: &PortRule, path: &Path, report: &mut Report) -> Vec<Traffic> {
    let mut traffic = Vec::new();
    check_length(rule.ports.as_deref(), "ports", path, report);
    for (path, port) in path.items(rule.ports.as_deref()) {
        let protocols = report.accept(&path.field("protocol"), protocols(port.protocol.as_deref()));
        let wanted = match &port.port {
            Some(port) => report.accept(&path.field("port"), number_or_name(port)),
            None => report.accept(&path.field("port"), Err(Reason::Required)),
        };
        let (Some(protocols), Some(wanted)) = (protocols, wanted) else { continue };
        let found = selected(&wanted, port);
        let Some(found) = report.accept(&path.field("endPort"), found) else { continue };
        traffic.extend(protocols.iter().map(|protocol| found.of(*protocol)));
    }
    traffic
}

/// Reads `NAME`, a Service of `namespace`, or `NAMESPACE/NAME`.
fn service_name(text: &str, namespace: Option<&str>) -> Result<ServiceName, Reason> {
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (namespace, text),
    };
    let namespace = namespace.ok_or_else(|| Reason::ServiceWithoutNamespace(text.to_owned()))?;
    if is_dns_label(namespace) && is_dns_label(name) {
        Ok(ServiceName { namespace: namespace.to_owned(), name: name.to_owned() })
    } else {
        Err(Reason::NoServiceName(text.to_owned()))
    }
}

/// The name of a namespace or Service (RFC 1123): at most 63 lower-case letters, digits and dashes.
pub(super) fn is_dns_label(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    plain && (1..=63).contains(&text.len()) && !text.starts_with('-') && !text.ends_with('-')
}

fn check_length<T>(list: Option<&[T]>, what: &'static str, path: &Path, report: &mut Report) {
    if list.is_some_and(|list| list.len() > LIST_MAX) {
        report.refuse(path, Reason::TooMany { what, max: LIST_MAX });
    }
}

fn protocols(name: Option<&str>) -> Result<&'static [Protocol], Reason> {
    match name.unwrap_or("ANY") {
        "TCP" => Ok(&[Protocol::Tcp]),
        "UDP" => Ok(&[Protocol::Udp]),
        "SCTP" => Ok(&[Protocol::Sctp]),
        "ANY" => Ok(&[Protocol::Tcp, Protocol::Udp, Protocol::Sctp]),
        extended if EXTENDED.contains(&extended) => Err(Reason::NotSupported),
        other => Err(Reason::NoneOf { found: other.to_owned(), known: PROTOCOLS }),
    }
}

/// A port as written.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum NumberOrName {
    Number(u16),
    Name(String),
}

/// Reads a port. Text of digits is a number, anything else a name; `0x50` is a name, as it is upstream.
pub(super) fn number_or_name(port: &IntOrString) -> Result<NumberOrName, Reason> {
    let number = |number: i64| {
        let port = u16::try_from(number).ok().map(NumberOrName::Number);
        port.ok_or(Reason::PortOutOfRange(number, 0))
    };
    match port {
        IntOrString::Int(written) => number(*written),
        IntOrString::String(text) if text.is_empty() => Err(Reason::Required),
        IntOrString::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            let leading_zero = text.len() > 1 && text.starts_with('0');
            let written = text.parse().ok().filter(|_| !leading_zero);
            written.map_or_else(|| Err(Reason::NoPort(text.clone())), number)
        }
        IntOrString::String(text) => port_name(text).map(NumberOrName::Name),
    }
}

/// A port by number, from 1 on.
pub(super) fn port_number(number: i64) -> Result<u16, Reason> {
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or(Reason::PortOutOfRange(number, 1))
}

/// Reads the name of a service as IANA allows it (RFC 6335, section 5.1).
pub(super) fn port_name(text: &str) -> Result<String, Reason> {
    let name = text.to_ascii_lowercase();
    let letter = name.bytes().any(|byte| byte.is_ascii_lowercase());
    let known = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let dashes = name.starts_with('-') || name.ends_with('-') || name.contains("--");
    if letter && known && !dashes && name.len() <= 15 {
        Ok(name)
    } else {
        Err(Reason::NoPort(text.to_owned()))
    }
}

/// What a port element selects of a protocol.
enum Selected<'a> {
    All,
    Range(PortRange),
    Name(&'a str),
}

impl Selected<'_> {
    fn of(&self, protocol: Protocol) -> Traffic {
        match self {
            Self::All => Traffic::Protocol(protocol),
            Self::Range(range) => Traffic::Ports(protocol, *range),
            Self::Name(name) => Traffic::NamedPort(protocol, (*name).to_owned()),
        }
    }
}

fn selected<'a>(wanted: &'a NumberOrName, port: &Port) -> Result<Selected<'a>, Reason> {
    // 0 is what the schema's clients send for "none".
    let end = port.end_port.filter(|end| *end != 0);
    match wanted {
        // A name is one port, whatever comes after it.
        NumberOrName::Name(name) => Ok(Selected::Name(name)),
        NumberOrName::Number(0) if end.is_some() => Err(Reason::RangeWithoutStart),
        NumberOrName::Number(0) => Ok(Selected::All),
        NumberOrName::Number(first) => range(*first, end).map(Selected::Range),
    }
}

/// The ports from `first` to `last`, or `first` alone.
pub(super) fn range(first: u16, last: Option<i64>) -> Result<PortRange, Reason> {
    let Some(last) = last else { return Ok(PortRange::single(first)) };
    let last = u16::try_from(last).ok().ok_or(Reason::PortOutOfRange(last, 1))?;
    PortRange::new(first, last).ok_or(Reason::RangeReversed { first, last })
}
