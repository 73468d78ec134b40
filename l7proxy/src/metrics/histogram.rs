//! How long things took, by a few bounds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice_client::exposition::{Exposition, Kind};

/// Upper bounds, as the field's dashboards draw them, and two below for servers of the same node.
const BOUNDS_MS: [(f64, &str); 13] = [
    (1.0, "0.001"),
    (2.5, "0.0025"),
    (5.0, "0.005"),
    (10.0, "0.01"),
    (25.0, "0.025"),
    (50.0, "0.05"),
    (100.0, "0.1"),
    (250.0, "0.25"),
    (500.0, "0.5"),
    (1_000.0, "1"),
    (2_500.0, "2.5"),
    (5_000.0, "5"),
    (10_000.0, "10"),
];

/// Counts of durations.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Those up to each bound that are above the one before; the last is of those above all.
    counts: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// One more.
    pub(super) fn observe(&self, took: Duration) {
        let took_ms = took.as_secs_f64() * 1_000.0;
        let nth = BOUNDS_MS.iter().position(|(bound, _)| took_ms <= *bound).unwrap_or(BOUNDS_MS.len());
        if let Some(count) = self.counts.get(nth) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Writes them down under this name.
    pub(super) fn write(&self, text: &mut Exposition, name: &str, help: &str, labels: &[(&str, &str)]) {
        text.begin(name, Kind::Histogram, help);
        let bounds = BOUNDS_MS.iter().map(|(_, bound)| *bound).chain(["+Inf"]);
        let mut all = 0;
        for (bound, count) in bounds.zip(&self.counts) {
            all += count.load(Ordering::Relaxed);
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound)]).collect();
            text.number(&format!("{name}_bucket"), &labels, all);
        }
        let sum = Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)).as_secs_f64();
        text.number(&format!("{name}_sum"), labels, sum);
        text.number(&format!("{name}_count"), labels, all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_belong_to_what_is_below() {
        let histogram = Histogram::default();
        for took_us in [0, 1_000, 1_001, 10_000_000, 10_000_001] {
            histogram.observe(Duration::from_micros(took_us));
        }
        let mut text = Exposition::default();
        histogram.write(&mut text, "a_seconds", "How long.", &[("b", "c")]);
        let text = text.into_text();
        for line in [
            "a_seconds_bucket{b=\"c\",le=\"0.001\"} 2",
            "a_seconds_bucket{b=\"c\",le=\"0.0025\"} 3",
            "a_seconds_bucket{b=\"c\",le=\"5\"} 3",
            "a_seconds_bucket{b=\"c\",le=\"10\"} 4",
            "a_seconds_bucket{b=\"c\",le=\"+Inf\"} 5",
            "a_seconds_sum{b=\"c\"} 20.002002",
            "a_seconds_count{b=\"c\"} 5",
        ] {
            assert!(text.lines().any(|own| own == line), "{line}:\n{text}");
        }
        for (bound, label) in BOUNDS_MS {
            assert!((label.parse::<f64>().unwrap() * 1_000.0 - bound).abs() < 1e-9, "{label}");
        }
    }
}
