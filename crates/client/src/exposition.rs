//! Metrics as text, in the form that Prometheus reads (version 0.0.4).

use std::fmt::{Display, Write};

/// The type of that text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// What a number is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// It only grows, until its process ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How many were not above each of some bounds.
    Histogram,
}

/// The text, as far as it is written.
#[derive(Clone, Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// Begins a metric. Its numbers follow.
    pub fn begin(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Nothing can fail that is written into memory.
        let _written = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// One number, by its labels.
    pub fn number(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (nth, (label, text)) in labels.iter().enumerate() {
            self.0.push(if nth == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            for character in text.chars() {
                match character {
                    '\n' => self.0.push_str("\\n"),
                    '"' | '\\' => self.0.extend(['\\', character]),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _written = writeln!(self.0, " {value}");
    }

    /// The whole text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_it_is_read() {
        let mut text = Exposition::default();
        text.begin("drops_total", Kind::Counter, "What was dropped.");
        text.number("drops_total", &[("reason", "a \"b\" \\ c\nd"), ("direction", "ingress")], 5);
        text.begin("age_seconds", Kind::Gauge, "How long.");
        text.number("age_seconds", &[], 0.25);
        let wanted = "# HELP drops_total What was dropped.\n# TYPE drops_total counter\n\
                      drops_total{reason=\"a \\\"b\\\" \\\\ c\\nd\",direction=\"ingress\"} 5\n\
                      # HELP age_seconds How long.\n# TYPE age_seconds gauge\nage_seconds 0.25\n";
        assert_eq!(text.into_text(), wanted);
    }
}
