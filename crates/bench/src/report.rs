//! What a measurement says: one row per comparison, printed as a table and kept as JSON.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::rounds::Scores;

/// What the ratio should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim {
    AtLeast(f64),
    AtMost(f64),
    /// For information only.
    None,
}

impl Aim {
    fn met(self, ratio: f64) -> Option<bool> {
        match self {
            Self::AtLeast(bound) => Some(ratio >= bound),
            Self::AtMost(bound) => Some(ratio <= bound),
            Self::None => None,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::AtMost(bound) => format!("<= {bound}"),
            Self::None => String::new(),
        }
    }
}

/// One comparison.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) what: String,
    pub(crate) against: String,
    /// Ours divided by the peer's, the median over the rounds.
    pub(crate) ratio: f64,
    /// Lower and upper quartile of the rounds' ratios.
    pub(crate) spread: (f64, f64),
    pub(crate) aim: Aim,
    /// The absolute numbers behind it, for people.
    pub(crate) note: String,
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "id": self.id, "what": self.what, "against": self.against,
            "ratio": round(self.ratio), "spread": [round(self.spread.0), round(self.spread.1)],
            "aim": self.aim.text(), "met": self.aim.met(self.ratio), "note": self.note,
        })
    }
}

fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// Prints the rows and writes them to `directory/NAME.json`.
pub(crate) fn publish(directory: &Path, name: &str, rows: &[Row]) -> Result<()> {
    let mut out = String::new();
    for row in rows {
        let met = match row.aim.met(row.ratio) {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "",
        };
        out.push_str(&format!(
            "{:<44} vs {:<30} {:>7.3}x [{:.3} to {:.3}]  {:<8} {:<8} {}\n",
            row.what,
            row.against,
            row.ratio,
            row.spread.0,
            row.spread.1,
            row.aim.text(),
            met,
            row.note
        ));
    }
    write_out(&out);
    std::fs::create_dir_all(directory).context("target/bench")?;
    let list: Vec<Value> = rows.iter().map(Row::json).collect();
    let file = directory.join(format!("{name}.json"));
    std::fs::write(&file, serde_json::to_vec_pretty(&list)?).with_context(|| file.display().to_string())
}

/// Standard output is this program's purpose.
pub(crate) fn write_out(text: &str) {
    use std::io::Write;
    // A closed pipe means that nobody reads any more.
    drop(std::io::stdout().write_all(text.as_bytes()));
}

/// Says so if the peer, the second subject, did not do the same in both halves of the rounds.
pub(crate) fn warn_if_noisy(what: &str, scores: &Scores) {
    let drift = scores.drift(1);
    if drift > 0.05 {
        write_out(&format!(
            "{what}: the machine was not quiet, the peer's halves differ by {:.0} %\n",
            drift * 100.0
        ));
    }
}
