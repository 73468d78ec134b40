//! Text to documents to trees of values that know their line and column.
//!
//! YAML is read once into a plain tree; the types are filled from the tree by `decode`, which can therefore be as
//! strict as the API server about nulls and types, and name the place of every error. Size, nesting and aliases are
//! bounded here.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer};
use serde_saphyr::{Spanned, options::DuplicateKeyPolicy};

use crate::{manifest::DocumentError, place::Place};

/// The longest document that is read, in bytes. The API server's own limit for an object is of this order.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;
/// How deeply values may be nested; the deepest policy field needs 12.
const MAX_DEPTH: usize = 48;
const MAX_NODES: usize = 200_000;
const MAX_ALIASES: usize = 1_000;
/// How many values all aliases together may stand for.
const MAX_REPLAYED: usize = 100_000;

/// One value and where it stands.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) at: Place,
    pub(crate) value: Value,
}

/// A value as JSON knows it.
#[derive(Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    String(String),
    Array(Vec<Node>),
    Object(Vec<(Key, Node)>),
}

#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) at: Place,
    pub(crate) text: String,
}

impl Node {
    /// The value of a key of an object.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Value::Object(entries) = &self.value else { return None };
        entries.iter().find(|(own, _)| own.text == key).map(|(_, node)| node)
    }

    /// Its text, if it is a string.
    pub(crate) const fn as_str(&self) -> Option<&str> {
        if let Value::String(text) = &self.value { Some(text.as_str()) } else { None }
    }

    /// The value without its places.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Signed(value) => (*value).into(),
            Value::Unsigned(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::String(text) => text.as_str().into(),
            Value::Array(items) => items.iter().map(Self::to_json).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(key, value)| (key.text.clone(), value.to_json())).collect()
            }
        }
    }
}

/// A stretch of the text that holds one document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk<'a> {
    /// The line of the text on which it begins, from 1.
    pub(crate) line: u32,
    pub(crate) text: &'a str,
}

/// Cuts a stream at its document markers. Stretches without content are left out.
///
/// A line that begins with `---` or `...` is a marker wherever it stands, so one broken document cannot swallow the
/// next.
pub(crate) fn split(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let mut open = Chunk { line: 1, text: "" };
    let mut offset = 0;
    let mut start = 0;
    for (line, full) in (1..).zip(text.split_inclusive('\n')) {
        if let Some(skip) = marker(full) {
            open.text = text.get(start..offset).unwrap_or_default();
            chunks.push(open);
            start = offset + skip;
            open = Chunk { line, text: "" };
        }
        offset += full.len();
    }
    open.text = text.get(start..).unwrap_or_default();
    chunks.push(open);
    chunks.retain(|chunk| has_content(chunk.text));
    chunks
}

/// How many bytes the marker at the start of this line takes, if there is one.
fn marker(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."))?;
    matches!(rest.chars().next(), None | Some(' ' | '\t' | '\r' | '\n')).then_some(3)
}

fn has_content(text: &str) -> bool {
    text.trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim)
        .any(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with('%'))
}

/// Reads one document.
pub(crate) fn read(chunk: Chunk<'_>) -> Result<Node, DocumentError> {
    if chunk.text.len() > MAX_DOCUMENT_BYTES {
        let reason =
            format!("the document has {} bytes, at most {MAX_DOCUMENT_BYTES} are read", chunk.text.len());
        return Err(DocumentError { line: chunk.line, column: 1, path: String::new(), reason });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
        duplicate_keys: DuplicateKeyPolicy::Error,
        // YAML 1.2: `namespace: y` is text, as people mean it.
        strict_booleans: true,
        with_snippet: false,
    };
    let first = chunk.line;
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(chunk.text, options) {
        Ok(spanned) => Ok(node(spanned, first)),
        Err(error) => {
            let at = error.location().map_or(Place { line: first, column: 1 }, |at| place(at, first));
            Err(DocumentError {
                line: at.line,
                column: at.column,
                path: String::new(),
                reason: reason(&error),
            })
        }
    }
}

/// The message without the place, which is reported beside it.
fn reason(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let first = text.lines().next().unwrap_or_default();
    let end = first.find(" at line ").or_else(|| first.find(" (line ")).unwrap_or(first.len());
    first.get(..end).unwrap_or(first).to_owned()
}

fn place(at: serde_saphyr::Location, first_line: u32) -> Place {
    let line = u32::try_from(at.line()).unwrap_or(u32::MAX);
    Place {
        line: first_line.saturating_add(line.saturating_sub(1)),
        column: u32::try_from(at.column()).unwrap_or(u32::MAX),
    }
}

/// A value while it is read, before lines are counted from the start of the stream.
struct Raw(RawValue);

enum RawValue {
    Plain(Value),
    Array(Vec<Spanned<Raw>>),
    Object(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn node(spanned: Spanned<Raw>, first_line: u32) -> Node {
    let at = place(spanned.referenced, first_line);
    let value = match spanned.value.0 {
        RawValue::Plain(value) => value,
        RawValue::Array(items) => {
            Value::Array(items.into_iter().map(|item| node(item, first_line)).collect())
        }
        RawValue::Object(entries) => Value::Object(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let at = place(key.referenced, first_line);
                    (Key { at, text: key.value }, node(value, first_line))
                })
                .collect(),
        ),
    };
    Node { at, value }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl RawVisitor {
    fn plain<E>(value: Value) -> Result<Raw, E> {
        Ok(Raw(RawValue::Plain(value)))
    }
}

impl<'de> de::Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Self::plain(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Self::plain(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Self::plain(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Self::plain(Value::Signed(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Self::plain(Value::Unsigned(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Self::plain(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Self::plain(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Self::plain(Value::String(value))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Raw(RawValue::Array(array)))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut object = Vec::new();
        while let Some(key) = entries.next_key()? {
            object.push((key, entries.next_value()?));
        }
        Ok(Raw(RawValue::Object(object)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_cut_at_their_markers() {
        let text =
            "# nothing\n---\na: 1\n--- # second\nb: |\n  ---x\n  --- y\n...\n%YAML 1.2\n---\nc: 3\n---\n";
        let chunks: Vec<_> = split(text).iter().map(|chunk| (chunk.line, chunk.text.trim())).collect();
        assert_eq!(chunks, [(2, "a: 1"), (4, "# second\nb: |\n  ---x\n  --- y"), (10, "c: 3")]);
        assert!(split("").is_empty());
        assert!(split("---\n---\n# x\n").is_empty());
    }

    #[test]
    fn places_count_from_the_start_of_the_stream() {
        let text = "---\na: 1\n---\nb:\n  - {c: x}\n  - y\n";
        let chunk = split(text)[1];
        let tree = read(chunk).unwrap();
        let list = tree.get("b").unwrap();
        let Value::Array(items) = &list.value else { panic!("{list:?}") };
        assert_eq!(items[0].get("c").unwrap().at, Place { line: 5, column: 9 });
        assert_eq!(items[1].at, Place { line: 6, column: 5 });
    }

    #[test]
    fn scalars_have_the_types_that_kubernetes_sees() {
        let text = "{a: 1, b: -1, c: 1.5, d: true, e: ~, f: '1', g: x, h: , i: \"null\"}";
        let tree = read(split(text)[0]).unwrap();
        let value = |key| &tree.get(key).unwrap().value;
        assert!(matches!(value("a"), Value::Unsigned(1)));
        assert!(matches!(value("b"), Value::Signed(-1)));
        assert!(matches!(value("c"), Value::Float(_)));
        assert!(matches!(value("d"), Value::Bool(true)));
        assert!(matches!(value("e"), Value::Null));
        assert!(matches!(value("f"), Value::String(_)));
        assert!(matches!(value("g"), Value::String(_)));
        assert!(matches!(value("h"), Value::Null));
        assert!(matches!(value("i"), Value::String(_)));
    }

    #[test]
    fn hostile_documents_are_refused() {
        let nested = "[".repeat(1_000) + &"]".repeat(1_000);
        let block: String = (0..200).map(|depth| " ".repeat(depth) + "a:\n").collect();
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for nth in 1..10 {
            let previous = nth - 1;
            bomb += &format!("a{nth}: &a{nth} [{}]\n", vec![format!("*a{previous}"); 9].join(","));
        }
        let long = format!("a: {}", "x".repeat(MAX_DOCUMENT_BYTES));
        let cases = [
            ("deep flow", nested.as_str()),
            ("deep block", block.as_str()),
            ("alias bomb", bomb.as_str()),
            ("too long", long.as_str()),
            ("duplicate key", "a: 1\na: 2\n"),
            ("unknown alias", "a: *b\n"),
            ("not closed", "a: [1, 2\n"),
            ("tab", "a:\n\tb: 1\n"),
        ];
        for (name, text) in cases {
            let error = read(split(text)[0]).map(|_| ()).expect_err(name);
            assert!(!error.reason.is_empty() && error.line >= 1, "{name}: {error}");
        }
    }
}
