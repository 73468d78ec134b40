//! Where the values of a document stand, kept without the values.

use crate::document::{Node, Value};

/// Line and column, both counted from 1; 0 when unknown.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Place {
    /// Counted from the start of the text, whichever document of it is meant.
    pub line: u32,
    /// In characters.
    pub column: u32,
}

/// The places of a tree: every value before what is in it, parents before children.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Places {
    start: Place,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    /// The key of its parent it stands under; none for an element of a list.
    key: Option<Box<str>>,
    at: Place,
    /// How many entries follow that are inside of it.
    inside: u32,
}

impl Places {
    /// Of a document that could not be read.
    pub(crate) const fn unknown(start: Place) -> Self {
        Self { start, entries: Vec::new() }
    }

    pub(crate) fn of(root: &Node) -> Self {
        let mut entries = Vec::new();
        collect(root, &mut entries);
        Self { start: root.at, entries }
    }

    /// The place of the deepest value that exists along a path.
    ///
    /// A key is written after a dot or in brackets, whatever is in it: `matchLabels[a.b/c]` as well as
    /// `matchLabels.a.b/c`. Where several keys fit, the longest is meant.
    pub(crate) fn find(&self, path: &str) -> Place {
        let mut found = self.start;
        let mut inside = self.entries.as_slice();
        let mut rest = path;
        while let Some((entry, children, after)) = step(inside, rest) {
            (found, inside, rest) = (entry.at, children, after);
        }
        found
    }
}

fn collect(node: &Node, entries: &mut Vec<Entry>) {
    match &node.value {
        Value::Array(items) => items.iter().for_each(|item| collect_child(None, item, entries)),
        Value::Object(fields) => fields
            .iter()
            .for_each(|(key, value)| collect_child(Some(key.text.as_str().into()), value, entries)),
        Value::Null
        | Value::Bool(_)
        | Value::Signed(_)
        | Value::Unsigned(_)
        | Value::Float(_)
        | Value::String(_) => {}
    }
}

fn collect_child(key: Option<Box<str>>, node: &Node, entries: &mut Vec<Entry>) {
    let own = entries.len();
    entries.push(Entry { key, at: node.at, inside: 0 });
    collect(node, entries);
    // A document holds far fewer values than this counts.
    let inside = u32::try_from(entries.len() - own - 1).unwrap_or(u32::MAX);
    if let Some(entry) = entries.get_mut(own) {
        entry.inside = inside;
    }
}

/// The child that the path goes to, what is inside of it, and the path from there on.
fn step<'a, 'p>(siblings: &'a [Entry], path: &'p str) -> Option<(&'a Entry, &'a [Entry], &'p str)> {
    let mut best: Option<(&Entry, &[Entry], &str)> = None;
    let mut rest = siblings;
    let mut nth = 0;
    while let Some((entry, later)) = rest.split_first() {
        let (inside, next) = later.split_at_checked(entry.inside as usize)?;
        let after = match &entry.key {
            Some(key) => after_key(key, path),
            None => after_index(nth, path),
        };
        if let Some(after) = after
            && best.is_none_or(|(_, _, shortest)| after.len() < shortest.len())
        {
            best = Some((entry, inside, after));
        }
        nth += 1;
        rest = next;
    }
    best
}

fn after_index(nth: usize, path: &str) -> Option<&str> {
    let (index, after) = path.strip_prefix('[')?.split_once(']')?;
    (index.parse() == Ok(nth)).then_some(after)
}

fn after_key<'p>(key: &str, path: &'p str) -> Option<&'p str> {
    let ends = |after: &&str| after.is_empty() || after.starts_with(['.', '[']);
    let bracketed = path.strip_prefix('[').and_then(|path| path.strip_prefix(key)?.strip_prefix(']'));
    let dotted = || path.strip_prefix('.').unwrap_or(path).strip_prefix(key).filter(|_| !key.is_empty());
    bracketed.filter(ends).or_else(|| dotted().filter(ends))
}

#[cfg(test)]
mod tests;
