//! What one sends to another, in a few letters.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sluice_model::{Passage, Reach, Span};
use sluice_types::Protocol;

use super::Port;
use crate::output::Output;

/// How many pieces a cell names.
const PIECES_MAX: usize = 3;
/// How many protocols have ports.
const WITH_PORTS: usize = 3;

/// How much passes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::command::policy) enum Tone {
    All,
    Some,
    None,
}

/// A cell of the matrix.
#[derive(Clone, Debug)]
pub(in crate::command::policy) struct Cell {
    pub(in crate::command::policy) text: String,
    pub(in crate::command::policy) tone: Tone,
}

impl Cell {
    /// All ports, or one.
    pub(in crate::command::policy) fn new(reach: &Reach, port: Option<Port>) -> Self {
        if let Some((port, protocol)) = port {
            let (text, tone) = match reach.at(protocol, port) {
                Passage::Open => ("yes", Tone::All),
                Passage::Requests(_) => ("*", Tone::Some),
                Passage::Audited => ("!", Tone::Some),
                Passage::Closed => ("-", Tone::None),
            };
            return Self { text: text.to_owned(), tone };
        }
        if reach.is_open() {
            return Self { text: "all".to_owned(), tone: Tone::All };
        }
        if reach.is_closed() {
            return Self { text: "-".to_owned(), tone: Tone::None };
        }
        let mut pieces = pieces(reach.passing());
        let more = pieces.len().saturating_sub(PIECES_MAX);
        if more > 0 {
            pieces.truncate(PIECES_MAX - 1);
            pieces.push(format!("+{}", more + 1));
        }
        Self { text: pieces.join(" "), tone: Tone::Some }
    }

    pub(super) fn painted(&self, output: &Output) -> String {
        match self.tone {
            Tone::All => output.good(&self.text),
            Tone::Some => output.warn(&self.text),
            Tone::None => output.dim(&self.text),
        }
    }
}

/// Spans in a few letters each: TCP needs no name, and a port of all three protocols is one piece.
pub(in crate::command::policy) fn pieces<'a>(spans: impl Iterator<Item = &'a Span>) -> Vec<String> {
    let mut by_ports: BTreeMap<(u16, u16, &str), Vec<Protocol>> = BTreeMap::new();
    let mut rest = Vec::new();
    for span in spans {
        let mark = mark(&span.passage);
        if span.protocol.has_ports() {
            by_ports.entry((span.first, span.last, mark)).or_default().push(span.protocol);
        } else {
            rest.push(format!("{span}{mark}"));
        }
    }
    let ports = by_ports.into_iter().flat_map(|((first, last, mark), protocols)| {
        let whole = (first, last) == (1, u16::MAX);
        let ports = match (whole, first == last) {
            (true, _) => String::new(),
            (false, true) => first.to_string(),
            (false, false) => format!("{first}-{last}"),
        };
        if protocols.len() == WITH_PORTS {
            let text = if whole { "TCP,UDP,SCTP".to_owned() } else { format!("{ports}/ANY") };
            return vec![format!("{text}{mark}")];
        }
        let text = move |protocol: &Protocol| match (whole, protocol) {
            (true, protocol) => format!("{protocol}{mark}"),
            (false, Protocol::Tcp) => format!("{ports}{mark}"),
            (false, protocol) => format!("{ports}/{protocol}{mark}"),
        };
        protocols.iter().map(text).collect()
    });
    ports.collect::<Vec<_>>().into_iter().chain(rest).collect()
}

const fn mark(passage: &Passage) -> &'static str {
    match passage {
        Passage::Requests(_) => "*",
        Passage::Audited => "!",
        Passage::Open | Passage::Closed => "",
    }
}

/// Spans as programs read them.
pub(in crate::command::policy) fn spans_json<'a>(spans: impl Iterator<Item = &'a Span>) -> Value {
    let span = |span: &Span| {
        let mut shown = json!({"protocol": span.protocol.to_string(), "passage": word(&span.passage)});
        if let Some(fields) = shown.as_object_mut()
            && !span.is_whole()
        {
            fields.insert("first".to_owned(), span.first.into());
            fields.insert("last".to_owned(), span.last.into());
        }
        if let (Some(fields), Passage::Requests(requests)) = (shown.as_object_mut(), &span.passage) {
            fields.insert("requests".to_owned(), requests.words().into());
        }
        shown
    };
    spans.map(span).collect()
}

const fn word(passage: &Passage) -> &'static str {
    match passage {
        Passage::Open => "open",
        Passage::Requests(_) => "requests",
        Passage::Audited => "audited",
        Passage::Closed => "closed",
    }
}
