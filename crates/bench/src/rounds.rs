//! Interleaved rounds: every subject is measured in every round, so that a slow minute hits all alike.

use anyhow::Result;

/// What each subject scored in each round: `scores[subject][round]`.
#[derive(Debug)]
pub(crate) struct Scores(Vec<Vec<f64>>);

/// Measures `subjects` subjects in `rounds` rounds, starting each round with another one.
pub(crate) fn interleave(
    subjects: usize,
    rounds: usize,
    mut measure: impl FnMut(usize) -> Result<f64>,
) -> Result<Scores> {
    let mut scores = vec![Vec::with_capacity(rounds); subjects];
    for round in 0..rounds {
        for offset in 0..subjects {
            let subject = (round + offset) % subjects;
            let score = measure(subject)?;
            if let Some(list) = scores.get_mut(subject) {
                list.push(score);
            }
        }
    }
    Ok(Scores(scores))
}

impl Scores {
    /// Scores that were taken along with others: `lists[subject][round]`.
    pub(crate) fn from_lists(lists: Vec<Vec<f64>>) -> Self {
        Self(lists)
    }

    fn of(&self, subject: usize) -> &[f64] {
        self.0.get(subject).map_or(&[], Vec::as_slice)
    }

    /// The median score of a subject.
    pub(crate) fn median(&self, subject: usize) -> f64 {
        quantile(self.of(subject), 0.5)
    }

    /// Ratio of `ours` to `peer`, round by round: median and quartiles.
    pub(crate) fn ratio(&self, ours: usize, peer: usize) -> (f64, (f64, f64)) {
        let ratios: Vec<f64> = self.of(ours).iter().zip(self.of(peer)).map(|(a, b)| a / b).collect();
        (quantile(&ratios, 0.5), (quantile(&ratios, 0.25), quantile(&ratios, 0.75)))
    }

    /// How far a subject's first and second half lie apart, as a share: above 5 % the machine was not quiet.
    pub(crate) fn drift(&self, subject: usize) -> f64 {
        let scores = self.of(subject);
        let (first, second) = scores.split_at(scores.len() / 2);
        (quantile(first, 0.5) / quantile(second, 0.5) - 1.0).abs()
    }
}

/// The `share` quantile (0 to 1) of `numbers`, by linear interpolation; NaN when there are none.
pub(crate) fn quantile(numbers: &[f64], share: f64) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = share * last as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the last index"
    )]
    let below = position.floor() as usize;
    let at = |index: usize| sorted.get(index.min(last)).copied().unwrap_or(f64::NAN);
    at(below) + (at(below + 1) - at(below)) * (position - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&[1.0, 2.0], 0.5), 1.5);
        assert_eq!(quantile(&[1.0], 0.99), 1.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn every_subject_in_every_round() {
        let scores = interleave(2, 3, |subject| Ok((subject + 1) as f64)).unwrap();
        assert_eq!(scores.ratio(1, 0).0, 2.0);
        assert_eq!(scores.drift(0), 0.0);
    }
}
