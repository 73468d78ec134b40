//! A document as it is written: values with their places and styles, and the comments beside them.

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, Span, StructureStyle};

use crate::{FormatError, scalar};

/// How deeply values may be nested; the reader of policies refuses more.
const DEPTH_MAX: usize = 64;
/// How many comments may stand between two values.
const COMMENTS_MAX: usize = 10_000;

/// Where something stands in the text of its document.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Mark {
    /// In bytes.
    pub(crate) offset: usize,
    /// From 1.
    pub(crate) line: usize,
    /// In characters, from 0.
    pub(crate) column: usize,
}

/// One comment.
#[derive(Clone, Debug)]
pub(crate) struct Comment {
    pub(crate) at: Mark,
    /// With the `#`, without blanks at its end.
    pub(crate) text: String,
    /// Whether nothing stands before it on its line.
    pub(crate) own_line: bool,
    /// Whether the line above is empty.
    pub(crate) blank_before: bool,
}

/// A document.
#[derive(Debug)]
pub(crate) struct Document {
    /// In the order of the text, until they are attached.
    pub(crate) comments: Vec<Comment>,
    /// The comments before everything else.
    pub(crate) header: Vec<Comment>,
    /// Whether an empty line ends them.
    pub(crate) gap_after_header: bool,
    pub(crate) root: Node,
}

/// A value.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) start: Mark,
    /// Exclusive.
    pub(crate) end: Mark,
    pub(crate) value: Value,
}

#[derive(Debug)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Collection),
    Map(Collection),
}

/// Text, and how it is written.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) style: ScalarStyle,
    /// The lines of folded text as they are written, without their indentation.
    pub(crate) folded: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Collection {
    pub(crate) flow: bool,
    pub(crate) children: Vec<Child>,
    /// Comments after the last child that are still inside.
    pub(crate) closing: Vec<Comment>,
}

/// An element of a list, or an entry of a map.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) key: Option<Scalar>,
    /// Of the key; of the dash in front of an element.
    pub(crate) start: Mark,
    pub(crate) blank_before: bool,
    /// Comments above.
    pub(crate) leading: Vec<Comment>,
    /// The comment at the end of its first line.
    pub(crate) beside: Option<Comment>,
    pub(crate) node: Node,
}

/// Reads one document.
pub(crate) fn parse(text: &str) -> Result<Document, FormatError> {
    let lines = text.lines().collect();
    let options = serde_saphyr::granit_parser::options! {
        max_buffered_comment_events: COMMENTS_MAX,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    let mut comments = Vec::new();
    let mut events = Vec::new();
    let source = Source { text, lines };
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| {
            FormatError::new(error.marker().line(), error.marker().col() + 1, error.info().to_owned())
        })?;
        match event {
            Event::Comment(..) => comments.push(source.comment(&span)),
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) | Event::DocumentEnd => {}
            Event::Alias(_)
            | Event::Anchor(..)
            | Event::UnresolvedAlias(_)
            | Event::Scalar(..)
            | Event::SequenceStart(..)
            | Event::SequenceEnd
            | Event::MappingStart(..)
            | Event::MappingEnd
            | _ => events.push((event, span)),
        }
    }
    comments.sort_by_key(|comment| comment.at);
    let mut reader = Reader { source, events: events.into_iter() };
    let root = reader.node(Mark { offset: 0, line: 1, column: 0 })?;
    Ok(Document { comments, header: Vec::new(), gap_after_header: false, root })
}

struct Source<'a> {
    text: &'a str,
    lines: Vec<&'a str>,
}

impl Source<'_> {
    fn line(&self, number: usize) -> &str {
        number.checked_sub(1).and_then(|index| self.lines.get(index)).copied().unwrap_or_default()
    }

    fn is_first_on_line(&self, at: Mark) -> bool {
        self.line(at.line).chars().take(at.column).all(char::is_whitespace)
    }

    fn is_below_blank(&self, at: Mark) -> bool {
        at.line > 1 && self.line(at.line - 1).trim().is_empty() && self.is_first_on_line(at)
    }

    fn comment(&self, span: &Span) -> Comment {
        let at = mark(span.start);
        let text = self.text.get(at.offset..mark(span.end).offset).unwrap_or_default().trim_end().to_owned();
        Comment { at, text, own_line: self.is_first_on_line(at), blank_before: self.is_below_blank(at) }
    }

    fn child(&self, key: Option<Scalar>, start: Mark, node: Node) -> Child {
        let blank_before = self.is_below_blank(start);
        Child { key, start, blank_before, leading: Vec::new(), beside: None, node }
    }

    /// The lines of a block scalar without their indentation.
    fn block_lines(&self, span: &Span) -> Vec<String> {
        let start = mark(span.start);
        let text = self.text.get(start.offset..mark(span.end).offset).unwrap_or_default().trim_end();
        let indentation = " ".repeat(start.column);
        text.lines()
            .map(|line| line.strip_prefix(&indentation).unwrap_or(line).trim_end().to_owned())
            .collect()
    }

    /// The dash of the next element at or after a place: only blanks, comments and the colon of the list's field stand
    /// before it.
    fn dash(&self, from: Mark) -> Option<Mark> {
        let mut at = from;
        let mut in_comment = false;
        for character in self.text.get(from.offset..)?.chars() {
            match character {
                '\n' => in_comment = false,
                '#' => in_comment = true,
                '-' if !in_comment => return Some(at),
                ':' => {}
                _ if in_comment || character.is_whitespace() => {}
                _ => return None,
            }
            at.offset += character.len_utf8();
            at.column += 1;
            if character == '\n' {
                (at.line, at.column) = (at.line + 1, 0);
            }
        }
        None
    }
}

type Spanned<'a> = (Event<'a>, Span);

/// Makes values of events.
struct Reader<'a> {
    source: Source<'a>,
    events: std::vec::IntoIter<Spanned<'a>>,
}

impl Reader<'_> {
    /// Reads the value that begins somewhere at or after a place.
    fn node(&mut self, from: Mark) -> Result<Node, FormatError> {
        let Some((event, span)) = self.events.next() else {
            return Err(FormatError::new(1, 1, "there is no value"));
        };
        match event {
            Event::Scalar(text, ScalarStyle::Literal | ScalarStyle::Folded, 0, None)
                if !scalar::is_simple_block(&text) =>
            {
                Err(harmed(&span, "text blocks with blanks at their begin or end are"))
            }
            Event::Scalar(text, style, 0, None) => Ok(self.scalar(text.into_owned(), style, &span)),
            Event::SequenceStart(style, 0, None) => self.list(style == StructureStyle::Flow, from, &span),
            Event::MappingStart(style, 0, None) => self.map(style == StructureStyle::Flow, &span),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(_, anchor, _)
            | Event::MappingStart(_, anchor, _) => {
                Err(harmed(&span, if anchor == 0 { "tags are" } else { "anchors are" }))
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => Err(harmed(&span, "aliases are")),
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd
            | Event::Anchor(..)
            | Event::Comment(..)
            | Event::SequenceEnd
            | Event::MappingEnd
            | _ => Err(harmed(&span, "this is")),
        }
    }

    fn scalar(&self, text: String, style: ScalarStyle, span: &Span) -> Node {
        let start = mark(span.start);
        let folded = if style == ScalarStyle::Folded { self.source.block_lines(span) } else { Vec::new() };
        let scalar = Scalar { text, style, folded };
        Node { start, end: mark(span.end), value: Value::Scalar(scalar) }
    }

    /// The closing event of a collection, if it is next.
    fn closed(&mut self) -> Option<Span> {
        let (event, span) = self.events.as_slice().first()?;
        let span = matches!(event, Event::SequenceEnd | Event::MappingEnd).then_some(*span);
        if span.is_some() {
            self.events.next();
        }
        span
    }

    fn list(&mut self, flow: bool, from: Mark, span: &Span) -> Result<Node, FormatError> {
        let mut start = mark(span.start);
        let mut end = if flow { start } else { from };
        let mut children = Vec::new();
        let closed = loop {
            if let Some(closed) = self.closed() {
                break closed;
            }
            let dash = if flow {
                None
            } else {
                Some(self.source.dash(end).ok_or_else(|| harmed(span, "this way to write a list is"))?)
            };
            let node = self.node(dash.map_or(end, Mark::after_dash))?;
            let at = dash.unwrap_or(node.start);
            // Nothing behind a dash may be found anywhere up to the next one.
            end = dash.map_or(node.end, |dash| if node.end <= dash { dash.after_dash() } else { node.end });
            children.push(self.source.child(None, at, node));
        };
        if flow {
            end = mark(closed.end);
        } else if let Some(first) = children.first() {
            start = first.start;
        }
        let collection = Collection { flow, children, closing: Vec::new() };
        Ok(Node { start, end, value: Value::List(collection) })
    }

    fn map(&mut self, flow: bool, span: &Span) -> Result<Node, FormatError> {
        let start = mark(span.start);
        let mut end = start;
        let mut children = Vec::new();
        let closed = loop {
            if let Some(closed) = self.closed() {
                break closed;
            }
            let key = self.node(end)?;
            let at = key.start;
            let Value::Scalar(text) = key.value else {
                return Err(FormatError::new(
                    at.line,
                    at.column + 1,
                    "a key that is no text is not formatted",
                ));
            };
            let mut node = self.node(key.end)?;
            if node.end < key.end {
                (node.start, node.end) = (key.end, key.end);
            }
            end = node.end;
            children.push(self.source.child(Some(text), at, node));
        };
        if flow {
            end = mark(closed.end);
        }
        let collection = Collection { flow, children, closing: Vec::new() };
        Ok(Node { start, end, value: Value::Map(collection) })
    }
}

fn harmed(span: &Span, what: &str) -> FormatError {
    let at = mark(span.start);
    FormatError::new(at.line, at.column + 1, format!("{what} not formatted"))
}

impl Mark {
    const fn after_dash(self) -> Self {
        Self { offset: self.offset + 1, line: self.line, column: self.column + 1 }
    }
}

fn mark(marker: Marker) -> Mark {
    Mark { offset: marker.byte_offset().unwrap_or_default(), line: marker.line(), column: marker.col() }
}
