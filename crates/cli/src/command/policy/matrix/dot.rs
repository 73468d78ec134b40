//! The matrix as a graph for Graphviz: an edge for everything that passes.

use std::fmt::Write;

use sluice_model::Matrix;

use super::Port;
use super::cell::{Cell, Tone};

pub(super) fn graph(matrix: &Matrix, port: Option<Port>) -> String {
    let mut text =
        "digraph policy {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n".to_owned();
    let names: Vec<String> = matrix.groups.iter().map(|group| quoted(&group.label())).collect();
    for (name, group) in names.iter().zip(&matrix.groups) {
        // Writing to a string cannot fail.
        writeln!(text, "  {name} [tooltip={}];", quoted(&group.members.join(", "))).ok();
    }
    for (nth, (from, cells)) in names.iter().zip(&matrix.cells).enumerate() {
        for (other, (to, reach)) in names.iter().zip(cells).enumerate() {
            let cell = Cell::new(reach, port);
            // Everybody reaches oneself.
            if cell.tone == Tone::None || nth == other {
                continue;
            }
            let style = if cell.tone == Tone::All { "solid" } else { "dashed" };
            writeln!(text, "  {from} -> {to} [label={}, style={style}];", quoted(&cell.text)).ok();
        }
    }
    text.push_str("}\n");
    text
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
