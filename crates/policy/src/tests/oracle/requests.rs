//! What policies say about requests.

use sluice_api::{
    IntOrString,
    cilium::{DnsRule, GrpcRule, HttpRule, KafkaRule, PortRule},
};

use super::peers::is_name;

/// A request as its sender wrote it.
#[derive(Clone, Copy, Debug)]
pub(in crate::tests) enum Request<'a> {
    Http { method: &'a str, path: &'a str, host: &'a str, headers: &'a [(&'a str, &'a str)] },
    Kafka { kind: &'a str, version: i16, client: Option<&'a str>, topics: &'a [&'a str] },
    Dns(&'a str),
    Tls(Option<&'a str>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Parser {
    Http,
    Kafka,
    Dns,
    Tls,
}

/// The rules of one port rule.
#[derive(Clone, Debug)]
pub(super) enum Rules<'a> {
    Http(&'a [HttpRule], &'a [GrpcRule]),
    Kafka(&'a [KafkaRule]),
    Dns(&'a [DnsRule]),
    Tls(&'a [String]),
    /// Names of administrators: `*.` in front is any number of labels.
    Names(Vec<&'a str>),
}

impl<'a> Rules<'a> {
    /// Lists without elements ask for nothing.
    pub(super) fn of(rule: &'a PortRule) -> Option<Self> {
        fn list<T>(list: Option<&Vec<T>>) -> &[T] {
            list.map(Vec::as_slice).unwrap_or_default()
        }
        let rules = rule.rules.as_ref();
        let http = list(rules.and_then(|rules| rules.http.as_ref()));
        let grpc = list(rules.and_then(|rules| rules.grpc.as_ref()));
        let kafka = list(rules.and_then(|rules| rules.kafka.as_ref()));
        let dns = list(rules.and_then(|rules| rules.dns.as_ref()));
        let names = list(rule.server_names.as_ref());
        if !http.is_empty() || !grpc.is_empty() {
            Some(Self::Http(http, grpc))
        } else if !kafka.is_empty() {
            Some(Self::Kafka(kafka))
        } else if !dns.is_empty() {
            Some(Self::Dns(dns))
        } else if !names.is_empty() {
            Some(Self::Tls(names))
        } else {
            None
        }
    }

    pub(super) const fn names(names: Vec<&'a str>) -> Self {
        Self::Names(names)
    }

    pub(super) const fn parser(&self) -> Parser {
        match self {
            Self::Http(..) => Parser::Http,
            Self::Kafka(_) => Parser::Kafka,
            Self::Dns(_) | Self::Names(_) => Parser::Dns,
            Self::Tls(_) => Parser::Tls,
        }
    }
}

/// Whether the rules that were heard so far name a request.
pub(super) fn named(heard: &[&Rules<'_>], request: &Request<'_>) -> bool {
    match *request {
        Request::Http { method, path, host, headers } => heard.iter().any(|rules| match rules {
            Rules::Http(http, grpc) => {
                http.iter().any(|rule| is_http(rule, method, path, host, headers))
                    || grpc.iter().any(|rule| is_grpc(rule, method, path, headers))
            }
            Rules::Kafka(_) | Rules::Dns(_) | Rules::Tls(_) | Rules::Names(_) => false,
        }),
        Request::Kafka { kind, version, client, topics } => {
            let all: Vec<&KafkaRule> = heard
                .iter()
                .flat_map(|rules| match rules {
                    Rules::Kafka(rules) => *rules,
                    Rules::Http(..) | Rules::Dns(_) | Rules::Tls(_) | Rules::Names(_) => &[],
                })
                .filter(|rule| is_kafka(rule, kind, version, client))
                .collect();
            let covered = |topic: &&str| {
                all.iter().any(|rule| rule.topic.as_deref().is_none_or(|own| own.is_empty() || own == *topic))
            };
            !all.is_empty() && topics.iter().all(covered)
        }
        Request::Dns(asked) => {
            let asked = asked.trim_end_matches('.').to_ascii_lowercase();
            let fits =
                |pattern: &Option<String>| pattern.as_deref().is_some_and(|pattern| is_name(pattern, &asked));
            heard.iter().any(|rules| match rules {
                Rules::Dns(rules) => {
                    rules.iter().any(|rule| fits(&rule.match_name) || fits(&rule.match_pattern))
                }
                Rules::Names(names) => names.iter().any(|name| match name.strip_prefix("*.") {
                    Some(rest) => {
                        asked.strip_suffix(rest).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
                    }
                    None => *name == asked,
                }),
                Rules::Http(..) | Rules::Kafka(_) | Rules::Tls(_) => false,
            })
        }
        Request::Tls(asked) => heard.iter().any(|rules| match rules {
            Rules::Tls(names) => {
                asked.is_some_and(|asked| names.iter().any(|name| is_name(name, &asked.to_ascii_lowercase())))
            }
            Rules::Http(..) | Rules::Kafka(_) | Rules::Dns(_) | Rules::Names(_) => false,
        }),
    }
}

fn is_http(rule: &HttpRule, method: &str, path: &str, host: &str, headers: &[(&str, &str)]) -> bool {
    let fits = |pattern: &Option<String>, text: &str| {
        pattern
            .as_ref()
            .is_none_or(|pattern| pattern.is_empty() || matches(pattern.as_bytes(), text.as_bytes()))
    };
    let has = |line: &String| match line.split_once(": ") {
        Some((name, value)) if value != ".*" => header(headers, name).as_deref() == Some(value),
        Some((name, _)) => header(headers, name).is_some(),
        None => header(headers, line).is_some(),
    };
    fits(&rule.method, method)
        && fits(&rule.path, path)
        && fits(&rule.host, host)
        && rule.headers.iter().flatten().all(has)
}

fn is_grpc(rule: &GrpcRule, method: &str, path: &str, headers: &[(&str, &str)]) -> bool {
    let kind = header(headers, "content-type").unwrap_or_default();
    let parts: Vec<&str> = path.split('/').collect();
    let [_, service, call] = parts.as_slice() else { return false };
    let is = |wanted: &Option<String>, found: &str| {
        wanted.as_deref().map_or(!found.is_empty(), |wanted| wanted == found)
    };
    method == "POST"
        && kind.starts_with("application/grpc")
        && path.starts_with('/')
        && is(&rule.service_name, service)
        && is(&rule.method_name, call)
}

/// All values of a header, with commas between them.
fn header(headers: &[(&str, &str)], name: &str) -> Option<String> {
    let values: Vec<&str> =
        headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| *value).collect();
    if values.is_empty() { None } else { Some(values.join(",")) }
}

fn is_kafka(rule: &KafkaRule, kind: &str, version: i16, client: Option<&str>) -> bool {
    let by_role = |role: &str| match role {
        "produce" => ["produce", "metadata", "apiversions"].contains(&kind),
        "consume" => ["fetch", "metadata", "apiversions"].contains(&kind),
        other => panic!("{other}"),
    };
    let wanted_version = rule.api_version.as_ref().map(|written| match written {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(text) => text.clone(),
    });
    rule.role.as_deref().is_none_or(by_role)
        && rule.api_key.as_deref().is_none_or(|key| key == kind)
        && wanted_version.is_none_or(|wanted| wanted == version.to_string())
        && rule.client_id.as_deref().is_none_or(|wanted| client == Some(wanted))
}

/// Matches all of a text with a pattern of letters, `.` and `*` behind one of them.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let Some(atom) = pattern.first() else { return text.is_empty() };
    let fits = text.first().is_some_and(|byte| *atom == b'.' || atom == byte);
    if pattern.get(1) == Some(&b'*') {
        return matches(&pattern[2..], text) || fits && matches(pattern, &text[1..]);
    }
    fits && matches(&pattern[1..], &text[1..])
}
