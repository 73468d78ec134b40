//! The canonical form of policy manifests.
//!
//! One layout for everybody: block style, the order of fields of [`order`], quotes only where they are needed. What is
//! read from a text stays exactly the same, comments stay with what they are about, documents keep their order, and
//! documents that are no policies are left as they stand. Each result is read again before it is handed out: a text
//! that would come out different in any value or comment is refused. Never does I/O; the command line calls this.

mod attach;
mod order;
mod print;
mod scalar;
mod stream;
mod tree;

use std::fmt;

use sluice_api::{DocumentError, Kind, read_trees};

use crate::stream::Part;

/// Why a text is not formatted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FormatError {
    /// From 1, counted from the start of the text.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// What stands there.
    pub reason: String,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}: {}", self.line, self.column, self.reason)
    }
}

impl std::error::Error for FormatError {}

impl FormatError {
    fn new(line: usize, column: usize, reason: impl Into<String>) -> Self {
        Self { line, column, reason: reason.into() }
    }

    /// The same, of a part of a text that begins on this line.
    fn below(mut self, first: usize) -> Self {
        self.line += first.saturating_sub(1);
        self
    }
}

impl From<DocumentError> for FormatError {
    fn from(error: DocumentError) -> Self {
        let number = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Self::new(number(error.line), number(error.column), error.reason)
    }
}

/// Brings the policies of a text into their canonical form.
///
/// ```
/// let text = "# Web only.\nkind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: 'web'}\n";
/// let want = "# Web only.\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: web\n";
/// assert_eq!(sluice_format::format(text).unwrap(), want);
/// ```
///
/// # Errors
/// The first thing that is no YAML, or that cannot be formatted without doing it harm: anchors, aliases and tags in a
/// policy, directives and document ends in the stream.
pub fn format(text: &str) -> Result<String, FormatError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut formatted = String::with_capacity(text.len());
    for part in stream::split(text)? {
        if part.text.trim().is_empty() {
            continue;
        }
        if part.marked {
            formatted.push_str("---\n");
        }
        formatted.push_str(&format_part(&part).map_err(|error| error.below(part.line))?);
    }
    Ok(formatted)
}

fn format_part(part: &Part<'_>) -> Result<String, FormatError> {
    let text = part.text.replace("\r\n", "\n");
    match read(&text)? {
        Some(value) if is_policy(&value) => {
            let formatted = format_policy(&text)?;
            verify(&text, &value, &formatted)?;
            Ok(formatted)
        }
        Some(_) | None => Ok(as_it_stands(part.text)),
    }
}

fn format_policy(text: &str) -> Result<String, FormatError> {
    let mut document = tree::parse(text)?;
    attach::attach(&mut document);
    order::sort(&mut document.root);
    Ok(print::print(&document))
}

/// The text with a line end, below its marker.
fn as_it_stands(text: &str) -> String {
    let text = match text.split_once('\n') {
        Some((first, rest)) if first.trim().is_empty() => rest,
        Some(_) | None => text.trim_start_matches([' ', '\t']),
    };
    let text = text.trim_end();
    text.to_owned() + "\n"
}

/// The value of one document; none if it holds nothing but comments.
fn read(text: &str) -> Result<Option<serde_json::Value>, FormatError> {
    let Some(tree) = read_trees(text).into_iter().next() else { return Ok(None) };
    Ok(Some(tree?.to_json()))
}

fn is_policy(value: &serde_json::Value) -> bool {
    let field = |key| value.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
    let group = field("apiVersion").split_once('/').map_or("", |(group, _)| group);
    Kind::find(group, field("kind")).is_some_and(|kind| match kind {
        Kind::CiliumNetworkPolicy
        | Kind::CiliumClusterwideNetworkPolicy
        | Kind::CiliumCidrGroup
        | Kind::NetworkPolicy
        | Kind::ClusterNetworkPolicy => true,
        Kind::Pod | Kind::Namespace | Kind::Node | Kind::Service | Kind::EndpointSlice | Kind::Secret => {
            false
        }
    })
}

/// Holds the result against the text: the same values, the same comments, and nothing left to format.
fn verify(text: &str, value: &serde_json::Value, formatted: &str) -> Result<(), FormatError> {
    let refused =
        |what: &str| FormatError::new(1, 1, format!("formatting would change {what}; it is left as it is"));
    if read(formatted).ok().flatten().as_ref() != Some(value) {
        return Err(refused("what the document says"));
    }
    let comments = |text: &str| {
        tree::parse(text).map(|document| {
            let mut comments: Vec<String> =
                document.comments.into_iter().map(|comment| comment.text).collect();
            comments.sort_unstable();
            comments
        })
    };
    if comments(text)? != comments(formatted)? {
        return Err(refused("its comments"));
    }
    if format_policy(formatted)? != formatted {
        return Err(refused("it each time anew"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
