//! From a tree of values to the types, as strict as the API server.
//!
//! Differences to a plain YAML deserialiser: `null` is no empty list and no empty object, text is not made from
//! numbers, and every error carries its place and its path. Called by `object` only.

use std::fmt;

use serde::{
    Deserialize,
    de::{self, DeserializeSeed, IntoDeserializer, Visitor},
    forward_to_deserialize_any,
};

use crate::{
    document::{Key, Node, Value},
    manifest::DocumentError,
    place::Place,
    suggest::nearest,
};

/// What a `null` stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Nulls {
    /// An error: the custom resources' schemas allow none.
    Refuse,
    /// The same as an absent field, as for the built-in objects.
    Absent,
}

/// Fills a type from a tree.
pub(crate) fn decode<'de, T: Deserialize<'de>>(node: &'de Node, nulls: Nulls) -> Result<T, DocumentError> {
    T::deserialize(Reader { node, nulls }).map_err(|error| {
        let at = error.at.unwrap_or(node.at);
        DocumentError { line: at.line, column: at.column, path: error.path, reason: error.reason }
    })
}

/// An error on its way out; every level it passes adds its part of the path.
#[derive(Debug)]
struct Error {
    at: Option<Place>,
    path: String,
    reason: String,
}

impl Error {
    fn in_field(self, key: &Key, value: Place) -> Self {
        let field = if key.text.contains(['.', ':', '/', '[', ' ']) {
            format!("[{}]", key.text)
        } else {
            key.text.clone()
        };
        self.inside(&field, value)
    }

    fn inside(self, parent: &str, at: Place) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        Self { at: self.at.or(Some(at)), path: format!("{parent}{dot}{}", self.path), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self { at: None, path: String::new(), reason: reason.to_string() }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("the field {field} is required"))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        match nearest(field, expected) {
            Some(known) => Self::custom(format_args!("unknown field {field:?}; did you mean {known:?}?")),
            None => Self::custom(format_args!("unknown field {field:?}; known are {}", expected.join(", "))),
        }
    }

    fn unknown_variant(word: &str, expected: &'static [&'static str]) -> Self {
        match nearest(word, expected) {
            Some(known) => Self::custom(format_args!("unknown word {word:?}; did you mean {known:?}?")),
            None => Self::custom(format_args!("unknown word {word:?}; known are {}", expected.join(", "))),
        }
    }
}

struct Reader<'de> {
    node: &'de Node,
    nulls: Nulls,
}

impl<'de> Reader<'de> {
    fn mismatch(&self, wanted: &str) -> Error {
        let found = match self.node.value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Signed(_) | Value::Unsigned(_) => "integer",
            Value::Float(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let hint = match (wanted, &self.node.value) {
            ("string", Value::Bool(_) | Value::Signed(_) | Value::Unsigned(_) | Value::Float(_)) => {
                " (put it in quotes)"
            }
            _ => "",
        };
        de::Error::custom(format_args!("must be of type {wanted}: {found}{hint}"))
    }

    fn array<V: Visitor<'de>>(&self, items: &'de [Node], visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { items: items.iter().enumerate(), nulls: self.nulls })
    }

    fn object<V: Visitor<'de>>(&self, entries: &'de [(Key, Node)], visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Entries { entries: entries.iter(), open: None, nulls: self.nulls })
    }
}

impl<'de> de::Deserializer<'de> for Reader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Signed(value) => visitor.visit_i64(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(value) => visitor.visit_borrowed_str(value),
            Value::Array(items) => self.array(items, visitor),
            Value::Object(entries) => self.object(entries, visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match (&self.node.value, self.nulls) {
            (Value::Null, Nulls::Absent) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::Bool(value) = &self.node.value else { return Err(self.mismatch("boolean")) };
        visitor.visit_bool(*value)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if let Value::Unsigned(value) = &self.node.value {
            return visitor.visit_u64(*value);
        }
        let Value::Signed(value) = &self.node.value else { return Err(self.mismatch("integer")) };
        visitor.visit_i64(*value)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::String(value) = &self.node.value else { return Err(self.mismatch("string")) };
        visitor.visit_borrowed_str(value)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::Array(items) = &self.node.value else { return Err(self.mismatch("array")) };
        self.array(items, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::Object(entries) = &self.node.value else { return Err(self.mismatch("object")) };
        self.object(entries, visitor)
    }

    /// Words only: no format here has variants that hold something.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Value::String(word) = &self.node.value else { return Err(self.mismatch("string")) };
        visitor.visit_enum(word.as_str().into_deserializer())
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple
        tuple_struct identifier
    }
}

struct Items<'de> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
    nulls: Nulls,
}

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((nth, node)) = self.items.next() else { return Ok(None) };
        let value = seed.deserialize(Reader { node, nulls: self.nulls });
        value.map(Some).map_err(|error| error.inside(&format!("[{nth}]"), node.at))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Entries<'de> {
    entries: std::slice::Iter<'de, (Key, Node)>,
    open: Option<&'de (Key, Node)>,
    nulls: Nulls,
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.open = self.entries.next();
        let Some((key, _)) = self.open else { return Ok(None) };
        let read = seed.deserialize(key.text.as_str().into_deserializer());
        // The error is about the field itself, so the path stays that of the object.
        read.map(Some).map_err(|error: Error| Error { at: error.at.or(Some(key.at)), ..error })
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let Some((key, node)) = self.open.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(Reader { node, nulls: self.nulls }).map_err(|error| error.in_field(key, node.at))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::document::{read, split};

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Thing {
        name: String,
        #[serde(default)]
        to_ports: Option<Vec<Self>>,
        #[serde(default)]
        labels: Option<BTreeMap<String, String>>,
        #[serde(default)]
        count: Option<i64>,
    }

    fn parse(text: &str, nulls: Nulls) -> Result<Thing, String> {
        let tree = read(split(text)[0]).unwrap();
        decode(&tree, nulls).map_err(|error| error.to_string())
    }

    #[test]
    fn errors_name_place_and_path() {
        let cases = [
            ("name: a\ntoPort: []", "line 2 column 1: unknown field \"toPort\"; did you mean \"toPorts\"?"),
            (
                "name: a\nfoo: 1",
                "line 2 column 1: unknown field \"foo\"; known are name, toPorts, labels, count",
            ),
            ("toPorts: []", "line 1 column 1: the field name is required"),
            ("name: a\ntoPorts: ~", "line 2 column 10: toPorts: must be of type array: null"),
            ("name: a\ntoPorts: {}", "line 2 column 10: toPorts: must be of type array: object"),
            ("name: a\ntoPorts:\n- name: b\n- ", "line 4 column 3: toPorts[1]: must be of type object: null"),
            (
                "name: a\ntoPorts: [{name: 1}]",
                "line 2 column 18: toPorts[0].name: must be of type string: integer (put it in quotes)",
            ),
            (
                "name: a\nlabels: {k8s:app: 1}",
                "line 2 column 19: labels[k8s:app]: must be of type string: integer (put it in quotes)",
            ),
            ("name: a\nlabels: null", "line 2 column 9: labels: must be of type object: null"),
            ("name: a\ncount: 1.5", "line 2 column 8: count: must be of type integer: number"),
            ("[a]", "line 1 column 1: must be of type object: array"),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text, Nulls::Refuse).unwrap_err(), want, "{text}");
        }
    }

    #[test]
    fn absent_and_empty_stay_different() {
        let ports = |text| parse(text, Nulls::Refuse).unwrap().to_ports;
        assert_eq!(ports("name: a"), None);
        assert_eq!(ports("name: a\ntoPorts: []"), Some(vec![]));
        assert_eq!(parse("name: a\ntoPorts: null\nlabels:", Nulls::Absent).unwrap().to_ports, None);
    }
}
