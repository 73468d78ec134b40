//! Reading JSON values with errors that name the place.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::error::Error;

/// Parses `bytes` as one JSON document, which `what` names in errors.
pub(crate) fn parse(what: &str, bytes: &[u8]) -> Result<Value, Error> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::Decode { what: what.to_owned(), reason: "it is empty".to_owned() });
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Decode { what: what.to_owned(), reason: error.to_string() })
}

/// A value and where it stands, `prevResult.ips[0]`.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Node<'a> {
    /// The root, called `path` in errors.
    pub(crate) fn new(path: &str, value: &'a Value) -> Self {
        Self { path: path.to_owned(), value }
    }

    /// The value itself.
    pub(crate) fn value(&self) -> &'a Value {
        self.value
    }

    /// The member `key`; absent and null are the same, as in the reference implementation.
    pub(crate) fn member(&self, key: &str) -> Result<Option<Self>, Error> {
        let value = self.object()?.get(key).filter(|value| !value.is_null());
        Ok(value.map(|value| Self { path: self.join(key), value }))
    }

    /// All members, which makes this an object.
    pub(crate) fn object(&self) -> Result<&'a Map<String, Value>, Error> {
        self.value.as_object().ok_or_else(|| self.wrong("an object"))
    }

    /// The elements of the list at `key`; none if it is absent. At most `most`.
    pub(crate) fn list(&self, key: &str, most: usize) -> Result<Vec<Self>, Error> {
        let Some(list) = self.member(key)? else { return Ok(Vec::new()) };
        let values = list.value.as_array().ok_or_else(|| list.wrong("a list"))?;
        if values.len() > most {
            return Err(list.invalid(&format!("it has more than {most} elements")));
        }
        let elements = values
            .iter()
            .enumerate()
            .map(|(nth, value)| Self { path: format!("{}[{nth}]", list.path), value });
        Ok(elements.collect())
    }

    /// This value as text.
    pub(crate) fn text(&self) -> Result<&'a str, Error> {
        self.value.as_str().ok_or_else(|| self.wrong("text"))
    }

    /// The text at `key`, if there is one; empty text counts as absent.
    pub(crate) fn text_at(&self, key: &str) -> Result<Option<&'a str>, Error> {
        let text = self.member(key)?.map(|node| node.text()).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    /// The number at `key`, if there is one.
    pub(crate) fn number_at(&self, key: &str) -> Result<Option<u32>, Error> {
        let Some(node) = self.member(key)? else { return Ok(None) };
        let number = node.value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.map(Some).ok_or_else(|| node.wrong("a number from 0 to 4294967295"))
    }

    /// The address at `key`, if there is one.
    pub(crate) fn ip_at(&self, key: &str) -> Result<Option<IpAddr>, Error> {
        let Some(text) = self.text_at(key)? else { return Ok(None) };
        let ip = text.parse().ok().map(Some);
        ip.ok_or_else(|| self.invalid(&format!("{key}: `{text}` is not an IP address")))
    }

    /// The address with prefix length at `key`.
    pub(crate) fn net_at(&self, key: &str) -> Result<IpNet, Error> {
        let Some(text) = self.text_at(key)? else { return Err(self.invalid(&format!("{key} is missing"))) };
        net(text)
            .ok_or_else(|| self.invalid(&format!("{key}: `{text}` is not an IP address with prefix length")))
    }

    /// The error that this value is not of the `expected` type.
    pub(crate) fn wrong(&self, expected: &str) -> Error {
        self.invalid(&format!("it is not {expected}"))
    }

    /// The error that this value is not right.
    pub(crate) fn invalid(&self, reason: &str) -> Error {
        Error::Decode { what: self.path.clone(), reason: reason.to_owned() }
    }

    fn join(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }
}

/// An address with prefix length. Not `IpNet`'s own parser, which takes leading zeros: whether `010.0.0.1` is 10 or
/// 8 is a question on which two parsers disagree.
fn net(text: &str) -> Option<IpNet> {
    let (ip, len) = text.split_once('/')?;
    let is_plain = len.bytes().all(|digit| digit.is_ascii_digit()) && (len == "0" || !len.starts_with('0'));
    IpNet::new(ip.parse().ok()?, len.parse().ok().filter(|_| is_plain)?).ok()
}
