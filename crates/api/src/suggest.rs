//! The known word that a misspelt one most likely means.

/// The candidate nearest to `word`, if it is near enough to be a slip of the pen.
///
/// ```
/// assert_eq!(sluice_api::nearest("fronted", &["backend", "frontend"]), Some("frontend"));
/// assert_eq!(sluice_api::nearest("db", &["backend", "frontend"]), None);
/// ```
#[must_use]
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let lower = word.to_ascii_lowercase();
    // Half of a short word may differ, two letters swapped being two: `form`, `toPort`, but not `foo`.
    let limit = (lower.chars().count() / 2).clamp(1, 3);
    candidates
        .iter()
        .map(|candidate| (distance(&lower, &candidate.to_ascii_lowercase()), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        // Of equally near ones the one that begins alike: `prot` is `port` rather than `from`.
        .min_by_key(|(distance, candidate)| (*distance, !begins_alike(&lower, candidate)))
        .map(|(_, candidate)| candidate)
}

fn begins_alike(lower: &str, candidate: &str) -> bool {
    lower.chars().next() == candidate.chars().next().map(|first| first.to_ascii_lowercase())
}

/// How many letters must be inserted, removed or replaced (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    // Field names are short; a longer word is no slip.
    const LONGEST: usize = 64;
    if left.len() > LONGEST || right.len() > LONGEST {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (nth, a) in left.chars().enumerate() {
        let mut previous = nth;
        let mut before = nth + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(right.chars()) {
            let replaced = previous + usize::from(a != b);
            previous = *cell;
            before = replaced.min(previous + 1).min(before + 1);
            *cell = before;
        }
        if let Some(first) = row.first_mut() {
            *first = nth + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found() {
        let fields = ["fromEndpoints", "fromCIDR", "fromCIDRSet", "toPorts", "icmps"];
        let cases = [
            ("toPort", Some("toPorts")),
            ("toports", Some("toPorts")),
            ("fromEndpoint", Some("fromEndpoints")),
            ("fromCidr", Some("fromCIDR")),
            ("fromCidrs", Some("fromCIDR")),
            ("icmp", Some("icmps")),
            ("icpms", Some("icmps")),
            ("labels", None),
            ("x", None),
        ];
        assert_eq!(nearest("prot", &["from", "port"]), Some("port"));
        for (word, want) in cases {
            assert_eq!(nearest(word, &fields), want, "{word}");
        }
    }

    #[test]
    fn distances() {
        for (left, right, want) in [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("abc", "abc", 0)] {
            assert_eq!(distance(left, right), want, "{left} {right}");
            assert_eq!(distance(right, left), want, "{right} {left}");
        }
    }
}
