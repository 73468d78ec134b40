//! HTTP requests and gRPC calls (semantics of upstream's `pkg/policy/api/http.go` and its proxy filter).
//!
//! Method, path and host are patterns for the whole text; the path holds the query. Header values are literals. A
//! gRPC call is a POST to `/service/method` whose content type begins with `application/grpc`.

mod set;

use std::fmt;

use sluice_api::cilium as api;

pub use set::HttpRuleSet;

use super::{Mismatch, Pattern, PatternError};

/// The value that seeds and users write for "any value".
const ANY_VALUE: &str = ".*";
const CONTENT_TYPE: &str = "content-type";
const HOST: &str = "host";
/// Headers whose values are passwords as a rule: reports leave them out.
const SENSITIVE: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];
const GRPC: &[u8] = b"application/grpc";

/// A request as it is judged and forwarded.
#[derive(Clone, Copy)]
pub struct HttpRequest<'a> {
    /// As sent; methods are case-sensitive.
    pub method: &'a str,
    /// The normal form of the path, with the query.
    pub path: &'a str,
    /// Host and, if it was sent, port. Stands for the header `host` as well, which need not be in `headers`.
    pub authority: &'a str,
    /// Names of either case and values, in order.
    pub headers: &'a [(&'a str, &'a [u8])],
}

impl HttpRequest<'_> {
    /// The values of a header joined by commas, as recipients may join them (RFC 9110, section 5.3).
    fn header(&self, name: &str) -> Option<Vec<u8>> {
        if name.eq_ignore_ascii_case(HOST) {
            return Some(self.authority.as_bytes().to_vec());
        }
        let mut values = self.headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        let mut joined = values.next()?.1.to_vec();
        for (_, value) in values {
            joined.push(b',');
            joined.extend_from_slice(value);
        }
        Some(joined)
    }
}

impl fmt::Debug for HttpRequest<'_> {
    /// Without the values of headers, which may be somebody's password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("authority", &self.authority)
            .field("headers", &names)
            .finish()
    }
}

/// What secrets hold.
pub trait Secrets {
    /// The value of a secret, if there is one.
    fn value(&self, namespace: Option<&str>, name: &str) -> Option<Vec<u8>>;
}

/// There are no secrets.
impl Secrets for () {
    fn value(&self, _: Option<&str>, _: &str) -> Option<Vec<u8>> {
        None
    }
}

/// One element of `http` or `grpc`: all its parts must hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpRule {
    /// Where it stands, `http[1]`.
    pub part: String,
    /// The method.
    pub method: Option<Pattern>,
    /// Path and query.
    pub path: Option<Pattern>,
    /// The authority.
    pub host: Option<Pattern>,
    /// Whether it must be a gRPC call.
    pub grpc: bool,
    /// Headers.
    pub headers: Vec<HeaderRule>,
}

/// A condition on a header, with what to do where it does not hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeaderRule {
    /// The name, in either case.
    pub name: String,
    /// The value; `None` is any.
    pub value: Option<String>,
    /// Where the value is kept: it counts before `value`.
    pub secret: Option<(Option<String>, String)>,
    /// What happens where the header is different; `None` refuses the request.
    pub mismatch: Option<HeaderAction>,
}

/// What is done about a header that is different.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeaderAction {
    /// Only written down.
    Log,
    /// The expected value is added.
    Add,
    /// The header is taken out.
    Delete,
    /// The header gets the expected value.
    Replace,
}

/// What is done to one header of a request that passes.
#[derive(Clone, Eq, PartialEq)]
pub struct HeaderEffect {
    /// What is done.
    pub action: HeaderAction,
    /// The header.
    pub name: String,
    /// The value, for [`HeaderAction::Add`] and [`HeaderAction::Replace`]. May be a secret, so it is never printed.
    pub value: Vec<u8>,
}

impl fmt::Debug for HeaderEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeaderEffect")
            .field("action", &self.action)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What is done to a request that passes, in order.
pub type Effects = Vec<HeaderEffect>;

impl HttpRule {
    /// A gRPC call of this service and method; what is absent may be anything.
    ///
    /// # Errors
    /// A name is too long for a path.
    pub fn grpc(part: String, service: Option<&str>, method: Option<&str>) -> Result<Self, PatternError> {
        let segment = |name: Option<&str>| name.map_or_else(|| "[^/]+".to_owned(), regex::escape);
        let path = Pattern::new(&format!("/{}/{}", segment(service), segment(method)))?;
        Ok(Self {
            part,
            method: Some(Pattern::new("POST")?),
            path: Some(path),
            host: None,
            grpc: true,
            headers: Vec::new(),
        })
    }

    /// Whether the rule names the request: what is then done to it, or what is different.
    ///
    /// # Errors
    /// The first part that does not hold.
    pub fn check(&self, request: &HttpRequest<'_>, secrets: &dyn Secrets) -> Result<Effects, Mismatch> {
        let fields = [
            ("method", &self.method, request.method),
            ("path", &self.path, request.path),
            ("host", &self.host, request.authority),
        ];
        for (field, pattern, got) in fields {
            if let Some(pattern) = pattern.as_ref().filter(|pattern| !pattern.matches(got)) {
                return Err(Mismatch::new(field, pattern.to_string(), Some(got)));
            }
        }
        self.check_headers(request, secrets)
    }

    /// The part of a check that no pattern decides.
    fn check_headers(&self, request: &HttpRequest<'_>, secrets: &dyn Secrets) -> Result<Effects, Mismatch> {
        if self.grpc {
            check_grpc(request)?;
        }
        let mut effects = Effects::new();
        for header in &self.headers {
            effects.extend(header.check(request, secrets)?);
        }
        Ok(effects)
    }
}

/// In one line: `GET /a|/b host example.com header X-Token`. Values that may be passwords are left out, so two rules
/// that differ in nothing else look the same.
impl fmt::Display for HttpRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let any = "any";
        match &self.method {
            Some(method) => f.write_str(method.as_str())?,
            None => f.write_str(any)?,
        }
        write!(f, " {}", self.path.as_ref().map_or(any, Pattern::as_str))?;
        if let Some(host) = &self.host {
            write!(f, " host {}", host.as_str())?;
        }
        if self.grpc {
            f.write_str(" as gRPC")?;
        }
        self.headers.iter().try_for_each(|header| write!(f, " {header}"))
    }
}

impl fmt::Display for HeaderRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "header {}", self.name)?;
        match (&self.secret, &self.value) {
            (Some((namespace, name)), _) => {
                write!(f, " as in secret {}/{name}", namespace.as_deref().unwrap_or("default"))?;
            }
            (None, Some(_)) if self.is_sensitive() => f.write_str("=(not shown)")?,
            (None, Some(value)) => write!(f, "={value}")?,
            (None, None) => {}
        }
        match self.mismatch {
            None => Ok(()),
            Some(HeaderAction::Log) => f.write_str(", else log"),
            Some(HeaderAction::Add) => f.write_str(", else add"),
            Some(HeaderAction::Delete) => f.write_str(", else delete"),
            Some(HeaderAction::Replace) => f.write_str(", else replace"),
        }
    }
}

fn check_grpc(request: &HttpRequest<'_>) -> Result<(), Mismatch> {
    let kind = request.header(CONTENT_TYPE);
    let is_grpc = kind
        .as_ref()
        .is_some_and(|kind| kind.get(..GRPC.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC)));
    if is_grpc {
        return Ok(());
    }
    let got = kind.map(|kind| String::from_utf8_lossy(&kind).into_owned());
    Err(Mismatch::new("content type", "application/grpc", got.as_deref()))
}

impl HeaderRule {
    /// Reads `Name: value`, or `Name` for any value: everything up to the first space is the name.
    #[must_use]
    pub fn from_line(line: &str) -> Self {
        let (name, value) = match line.split_once(' ') {
            Some((name, value)) => (name.strip_suffix(':').unwrap_or(name), Some(value)),
            None => (line, None),
        };
        let value = value.filter(|value| *value != ANY_VALUE).map(str::to_owned);
        Self { name: name.to_owned(), value, secret: None, mismatch: None }
    }

    /// Reads an element of `headerMatches`; the word of its action has been checked.
    #[must_use]
    pub fn from_match(written: &api::HeaderMatch, mismatch: Option<HeaderAction>) -> Self {
        let secret = written.secret.as_ref();
        let value = written.value.clone().filter(|value| *value != ANY_VALUE || mismatch.is_some());
        Self {
            name: written.name.clone(),
            value,
            secret: secret.map(|secret| (secret.namespace.clone(), secret.name.clone())),
            mismatch,
        }
    }

    /// The value that is expected, `Some(None)` if any is: `None` if it is in a secret that is not there.
    fn expected(&self, secrets: &dyn Secrets) -> Option<Option<Vec<u8>>> {
        let written = || self.value.as_ref().map(|value| value.clone().into_bytes());
        match &self.secret {
            Some((namespace, name)) => secrets.value(namespace.as_deref(), name).or_else(written).map(Some),
            None => Some(written()),
        }
    }

    fn check(
        &self,
        request: &HttpRequest<'_>,
        secrets: &dyn Secrets,
    ) -> Result<Option<HeaderEffect>, Mismatch> {
        let found = request.header(&self.name);
        // Nobody can say whether it holds, whatever is to be done where it does not.
        let Some(expected) = self.expected(secrets) else { return Err(self.differs(found)) };
        let holds = match (&expected, self.mismatch) {
            (None, None) => found.is_some(),
            // With an action, no value means the empty one.
            (None, Some(_)) => found.as_deref() == Some(b"".as_slice()),
            (Some(expected), _) => found.as_ref().is_some_and(|found| is_same(found, expected)),
        };
        if holds {
            return Ok(None);
        }
        let Some(action) = self.mismatch else { return Err(self.differs(found)) };
        let effect = HeaderEffect { action, name: self.name.clone(), value: expected.unwrap_or_default() };
        // What is not there cannot be taken out.
        Ok(Some(effect).filter(|_| action != HeaderAction::Delete || found.is_some()))
    }

    /// Whether its values are passwords as a rule.
    fn is_sensitive(&self) -> bool {
        SENSITIVE.iter().any(|name| name.eq_ignore_ascii_case(&self.name))
    }

    fn differs(&self, found: Option<Vec<u8>>) -> Mismatch {
        let is_secret = self.secret.is_some();
        let wanted = if is_secret { "" } else { self.value.as_deref().unwrap_or_default() };
        let is_hidden = is_secret || self.is_sensitive();
        let got = found.map(|found| match is_hidden {
            true => "(not shown)".to_owned(),
            false => String::from_utf8_lossy(&found).into_owned(),
        });
        Mismatch::new(format!("header {}", self.name), wanted, got.as_deref())
    }
}

/// Compares in a time that does not depend on where the two differ.
fn is_same(found: &[u8], expected: &[u8]) -> bool {
    let differing = found.iter().zip(expected).fold(0, |all, (one, other)| all | (one ^ other));
    found.len() == expected.len() && differing == 0
}

#[cfg(test)]
mod tests;
