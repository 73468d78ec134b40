//! A text, cut at its document markers.

use crate::FormatError;

/// One document, with the comments around it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    /// The line of the text on which it begins, from 1.
    pub(crate) line: usize,
    /// Whether `---` stands before it.
    pub(crate) marked: bool,
    /// What follows the marker.
    pub(crate) text: &'a str,
}

/// Cuts a text at the lines that begin with `---`, as its readers do.
pub(crate) fn split(text: &str) -> Result<Vec<Part<'_>>, FormatError> {
    let mut parts = Vec::new();
    let mut open = Part { line: 1, marked: false, text: "" };
    let (mut start, mut offset) = (0, 0);
    for (line, full) in (1..).zip(text.split_inclusive('\n')) {
        if full.starts_with('%') || is_marker(full, "...") {
            return Err(FormatError::new(line, 1, "directives and document ends are not formatted"));
        }
        if is_marker(full, "---") {
            open.text = text.get(start..offset).unwrap_or_default();
            parts.push(open);
            start = offset + 3;
            open = Part { line, marked: true, text: "" };
        }
        offset += full.len();
    }
    open.text = text.get(start..).unwrap_or_default();
    parts.push(open);
    Ok(parts)
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| matches!(rest.chars().next(), None | Some(' ' | '\t' | '\r' | '\n')))
}
