//! The matrix as a picture: a square per pair, green for everything, amber for some of it, grey for nothing.

use std::fmt::Write;

use sluice_model::Matrix;

use super::Port;
use super::cell::{Cell, Tone};

/// Sizes in pixels.
const ROW: usize = 26;
const LETTER: usize = 8;
const CELL_MIN: usize = 40;

pub(super) fn picture(matrix: &Matrix, port: Option<Port>) -> String {
    let names: Vec<String> = matrix.groups.iter().map(sluice_model::Group::label).collect();
    let cells: Vec<Vec<Cell>> =
        matrix.cells.iter().map(|row| row.iter().map(|reach| Cell::new(reach, port)).collect()).collect();
    let longest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0) * LETTER + 2 * LETTER;
    let head = longest(&mut names.iter().map(|name| name.chars().count()));
    let width = longest(&mut cells.iter().flatten().map(|cell| cell.text.chars().count())).max(CELL_MIN);
    let (total_width, total_height) = (head + width * names.len(), head + ROW * names.len());
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{total_width}\" height=\"{total_height}\" \
         font-family=\"monospace\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    // Writing to a string cannot fail.
    for (nth, name) in names.iter().enumerate() {
        let (x, y) = (head + width * nth + width / 2, head - LETTER);
        writeln!(text, "<text transform=\"translate({x},{y}) rotate(-90)\">{}</text>", escaped(name)).ok();
        let y = head + ROW * nth + ROW - 9;
        writeln!(
            text,
            "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{}</text>",
            head - LETTER,
            escaped(name)
        )
        .ok();
    }
    for (nth, (from, row)) in names.iter().zip(&cells).enumerate() {
        for (other, (to, cell)) in names.iter().zip(row).enumerate() {
            let (x, y) = (head + width * other, head + ROW * nth);
            let fill = match cell.tone {
                Tone::All => "#a6d8a8",
                Tone::Some => "#f4d58d",
                Tone::None => "#eeeeee",
            };
            writeln!(
                text,
                "<g><title>{} → {}: {}</title><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{ROW}\" \
                 fill=\"{fill}\" stroke=\"#ffffff\"/><text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text></g>",
                escaped(from),
                escaped(to),
                escaped(&cell.text),
                x + width / 2,
                y + ROW - 9,
                escaped(&cell.text),
            )
            .ok();
        }
    }
    text.push_str("</svg>\n");
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
