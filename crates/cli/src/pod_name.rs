//! Names of pods and namespaces, and labels, as Kubernetes allows them.

use std::fmt;
use std::str::FromStr;

/// `NAMESPACE/NAME` of a pod.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct PodName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl FromStr for PodName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, name) = text
            .split_once('/')
            .ok_or_else(|| format!("write NAMESPACE/NAME, for example default/{text}"))?;
        check_dns_label(namespace).map_err(|reason| format!("the namespace {namespace:?} {reason}"))?;
        check_dns_subdomain(name).map_err(|reason| format!("the name {name:?} {reason}"))?;
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// At most 63 lower-case letters, digits and hyphens, a letter or digit at both ends.
pub(crate) fn check_dns_label(text: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.is_empty() || text.len() > 63 {
        return Err("must have 1 to 63 characters".to_owned());
    }
    if !text.bytes().all(allowed) || text.starts_with('-') || text.ends_with('-') {
        return Err("may hold lower-case letters, digits and, inside, hyphens".to_owned());
    }
    Ok(())
}

/// Labels joined by dots, at most 253 characters.
fn check_dns_subdomain(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > 253 {
        return Err("must have 1 to 253 characters".to_owned());
    }
    text.split('.').try_for_each(check_dns_label)
}

/// Reads `KEY=VALUE`.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("the label {text:?} is not KEY=VALUE"))?;
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            check_dns_subdomain(prefix)
                .map_err(|reason| format!("the label key {key:?}: its prefix {reason}"))?;
            name
        }
        None => key,
    };
    if name.is_empty() {
        return Err(format!("the label {text:?} has no key"));
    }
    check_label_text(name).map_err(|reason| format!("the label key {key:?} {reason}"))?;
    check_label_text(value).map_err(|reason| format!("the label value {value:?} {reason}"))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn check_label_text(text: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends_well = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    if bytes.len() > 63 {
        return Err("is longer than 63 characters".to_owned());
    }
    if !bytes.iter().copied().all(allowed) || !ends_well(bytes.first()) || !ends_well(bytes.last()) {
        return Err("may hold letters, digits and, inside, '-', '_' and '.'".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let cases = [
            ("shop/web", true),
            ("shop/web-0.a", true),
            ("web", false),
            ("/web", false),
            ("shop/", false),
            ("Shop/web", false),
            ("shop/web_1", false),
            ("shop/-web", false),
            ("shop/a..b", false),
            ("shop/a/b", false),
            ("shop/../../etc", false),
        ];
        for (text, want) in cases {
            assert_eq!(text.parse::<PodName>().is_ok(), want, "{text}");
        }
        assert!(format!("{}/a", "n".repeat(64)).parse::<PodName>().is_err());
        assert!(format!("n/{}", "a".repeat(254)).parse::<PodName>().is_err());
    }

    #[test]
    fn labels() {
        let cases = [
            ("app=web", true),
            ("app=", true),
            ("example.com/app=web", true),
            ("app", false),
            ("=web", false),
            ("app=we b", false),
            ("app=-web", false),
            ("a b=web", false),
            ("/app=web", false),
            ("reserved:host=", false),
        ];
        for (text, want) in cases {
            assert_eq!(parse_label(text).is_ok(), want, "{text}");
        }
        assert!(parse_label(&format!("app={}", "x".repeat(64))).is_err());
    }
}
