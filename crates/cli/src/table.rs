//! Plain aligned columns: three spaces between them, cells of several lines, nothing after the last letter of a line.

use std::fmt;

const GAP: &str = "   ";

/// Rows of cells under a header. A cell may have several lines; colour codes take no room.
#[derive(Debug)]
pub(crate) struct Table {
    columns: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column titles.
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { columns: header.len(), rows: vec![header.iter().map(|title| (*title).to_owned()).collect()] }
    }

    /// Two columns without a header.
    pub(crate) fn pairs() -> Self {
        Self { columns: 2, rows: Vec::new() }
    }

    /// Appends a row; cells that are missing are empty, cells that are too many are dropped.
    pub(crate) fn row<I: IntoIterator<Item = S>, S: Into<String>>(&mut self, cells: I) {
        let mut row: Vec<String> = cells.into_iter().take(self.columns).map(Into::into).collect();
        row.resize(self.columns, String::new());
        self.rows.push(row);
    }

    fn widths(&self) -> Vec<usize> {
        (0..self.columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.flat_map(|cell| cell.lines()).map(visible_width).max().unwrap_or(0)
            })
            .collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for row in &self.rows {
            let height = row.iter().map(|cell| cell.lines().count()).max().unwrap_or(0).max(1);
            for nth in 0..height {
                let mut line = String::new();
                for (cell, width) in row.iter().zip(&widths) {
                    let text = cell.lines().nth(nth).unwrap_or_default();
                    line.push_str(text);
                    line.push_str(&" ".repeat(width - visible_width(text).min(*width)));
                    line.push_str(GAP);
                }
                writeln!(f, "{}", line.trim_end())?;
            }
        }
        Ok(())
    }
}

/// The first `most` of some names, and how many more there are.
pub(crate) fn listed(names: &[String], most: usize) -> String {
    let shown = names.get(..most).unwrap_or(names).join(", ");
    match names.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The number of characters that a terminal shows: colour codes take no room.
pub(crate) fn visible_width(text: &str) -> usize {
    let mut width = 0;
    let mut in_code = false;
    for character in text.chars() {
        match character {
            '\x1b' => in_code = true,
            'm' if in_code => in_code = false,
            _ if in_code => {}
            _ => width += 1,
        }
    }
    width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_cells_of_several_lines() {
        let mut table = Table::new(&["ID", "LABELS\n(source)", "STATE"]);
        table.row(["7", "k8s:app=web\nk8s:tier=front", "ready"]);
        table.row(["1234", "\x1b[31mred\x1b[0m", "gone"]);
        table.row(["8"]);
        assert_eq!(
            table.to_string(),
            "ID     LABELS           STATE\n       (source)\n7      k8s:app=web      ready\n       k8s:tier=front\n\
             1234   \x1b[31mred\x1b[0m              gone\n8\n"
        );
    }
}
