//! Coverage between rules about requests.

use sluice_policy::{
    Rule,
    l7::{DnsRule, HttpRule, KafkaRule, L7Rules, ServerName},
    rule::Tier,
};

use super::ports::PortSet;

/// Whether every request that `narrow` names is named by `wide`: each of its elements is one of `wide`.
pub(crate) fn requests_cover(wide: &L7Rules, narrow: &L7Rules) -> bool {
    match (wide, narrow) {
        (L7Rules::Http(wide), L7Rules::Http(narrow)) => all_in(narrow, wide, http),
        (L7Rules::Kafka(wide), L7Rules::Kafka(narrow)) => all_in(narrow, wide, kafka),
        (L7Rules::Dns(wide), L7Rules::Dns(narrow)) => all_in(narrow, wide, dns),
        (L7Rules::Tls(wide), L7Rules::Tls(narrow)) => all_in(narrow, wide, tls),
        (L7Rules::Http(_) | L7Rules::Kafka(_) | L7Rules::Dns(_) | L7Rules::Tls(_), _) => false,
    }
}

/// Whether a rule changes or reports the requests that pass. That happens beside whatever other rules say.
pub(crate) fn has_effects(rules: &L7Rules) -> bool {
    match rules {
        L7Rules::Http(rules) => {
            rules.iter().flat_map(|rule| &rule.headers).any(|header| header.mismatch.is_some())
        }
        L7Rules::Kafka(_) | L7Rules::Dns(_) | L7Rules::Tls(_) => false,
    }
}

/// Whether the requests that a rule does not name pass as well: it does not close its direction.
pub(crate) fn refuses_nothing(rule: &Rule) -> bool {
    rule.tier == Tier::Normal && !rule.default_deny
}

/// The traffic of a rule of which every request passes, whatever Services there are.
pub(crate) fn open_ports(rule: &Rule) -> PortSet {
    PortSet::of_rules(&rule.ports, |ports| {
        (ports.l7.is_none() || refuses_nothing(rule)) && ports.service.is_none()
    })
}

fn all_in<T: PartialEq + Clone>(narrow: &[T], wide: &[T], without_place: impl Fn(&T) -> T) -> bool {
    let wide: Vec<T> = wide.iter().map(&without_place).collect();
    narrow.iter().all(|rule| wide.contains(&without_place(rule)))
}

fn http(rule: &HttpRule) -> HttpRule {
    HttpRule { part: String::new(), ..rule.clone() }
}

fn kafka(rule: &KafkaRule) -> KafkaRule {
    KafkaRule { part: String::new(), ..rule.clone() }
}

fn dns(rule: &DnsRule) -> DnsRule {
    let mut rule = rule.clone();
    rule.part.clear();
    rule
}

fn tls(rule: &ServerName) -> ServerName {
    let mut rule = rule.clone();
    rule.part.clear();
    rule
}
