//! The receiver operating characteristic of scores: a curve in hindsight.

use bellwether_env_adapter::Label;

use super::error::EvaluationError;
use super::operating_point::rate_supported;

/// A score, higher for more malicious, and what the sample is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Finite.
    pub score: f32,
    /// What the sample is.
    pub label: Label,
}

/// One threshold: everything that scores at least `threshold` is convicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RocPoint {
    /// The threshold; infinite for the point that convicts nothing.
    pub threshold: f32,
    /// Benign episodes convicted.
    pub false_positives: u64,
    /// Malicious episodes convicted.
    pub true_positives: u64,
}

/// The curve: one point per distinct score, so that ties are never split, from convicting nothing to convicting all.
#[derive(Clone, Debug, PartialEq)]
pub struct Roc {
    points: Vec<RocPoint>,
    benign: u64,
    malicious: u64,
}

impl Roc {
    /// The curve of `scores`.
    ///
    /// # Errors
    /// [`EvaluationError::NotFinite`] on a score that is NaN or infinite, [`EvaluationError::OneClass`] where a class is
    /// missing.
    pub fn new(scores: &[Scored]) -> Result<Self, EvaluationError> {
        if let Some(position) = scores.iter().position(|scored| !scored.score.is_finite()) {
            return Err(EvaluationError::NotFinite { position, value: scores[position].score });
        }
        let mut descending = scores.to_vec();
        descending.sort_by(|a, b| b.score.total_cmp(&a.score));
        let mut point = RocPoint { threshold: f32::INFINITY, false_positives: 0, true_positives: 0 };
        let mut points = vec![point];
        // Comparing with `==` keeps -0 and 0 in one chunk, as a threshold does.
        for tied in descending.chunk_by(|a, b| a.score == b.score) {
            point.threshold = tied[0].score;
            let malicious = tied.iter().filter(|scored| scored.label == Label::Malicious).count() as u64;
            point.true_positives += malicious;
            point.false_positives += tied.len() as u64 - malicious;
            points.push(point);
        }
        let (benign, malicious) = (point.false_positives, point.true_positives);
        for (count, missing) in [(benign, "benign"), (malicious, "malicious")] {
            if count == 0 {
                return Err(EvaluationError::OneClass { missing });
            }
        }
        Ok(Roc { points, benign, malicious })
    }

    /// The points, by falling threshold; both counts rise along them.
    pub fn points(&self) -> &[RocPoint] {
        &self.points
    }

    /// False-positive rate of a point.
    pub fn fpr(&self, point: &RocPoint) -> f64 {
        point.false_positives as f64 / self.benign as f64
    }

    /// True-positive rate of a point.
    pub fn tpr(&self, point: &RocPoint) -> f64 {
        point.true_positives as f64 / self.malicious as f64
    }

    /// The area under the curve: the chance that a malicious episode scores above a benign one, ties counted half (the
    /// Mann-Whitney statistic over both counts).
    pub fn auc(&self) -> f64 {
        // Twice the area in units of one benign times one malicious episode is a whole number: no rounding adds up.
        let doubled: u128 = self
            .points
            .windows(2)
            .map(|pair| {
                let width = pair[1].false_positives - pair[0].false_positives;
                u128::from(width) * u128::from(pair[0].true_positives + pair[1].true_positives)
            })
            .sum();
        doubled as f64 / (2.0 * self.benign as f64 * self.malicious as f64)
    }

    /// The point with the most true positives whose realised false-positive rate is at most `target`.
    ///
    /// Thresholds lie at scores that occurred: nothing is interpolated between them. `None` where the number of benign
    /// episodes cannot support the rate ([`rate_supported`]).
    pub fn at_fpr(&self, target: f64) -> Option<RocPoint> {
        if !rate_supported(target, self.benign) {
            return None;
        }
        // Counts are compared in the exact form so that 5 of 100 is 5 %.
        self.points
            .iter()
            .rev()
            .find(|point| point.false_positives as f64 <= target * self.benign as f64 + 1e-9)
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scored(rows: &[(f32, bool)]) -> Vec<Scored> {
        rows.iter()
            .map(|&(score, malicious)| Scored {
                score,
                label: if malicious { Label::Malicious } else { Label::Benign },
            })
            .collect()
    }

    #[test]
    fn ties_are_never_split() {
        // One benign among three malicious at 0.9; a threshold there convicts all four.
        let mut rows = vec![(0.9, true), (0.9, true), (0.9, true), (0.9, false), (0.5, true)];
        rows.extend(std::iter::repeat_n((0.1, false), 9));
        let roc = Roc::new(&scored(&rows)).unwrap();
        assert_eq!(roc.points().len(), 4);
        let at = |target: f64| roc.at_fpr(target).map(|point| (point.false_positives, point.true_positives));
        assert_eq!(at(0.1), Some((1, 4)));
        assert_eq!(at(0.09), None, "10 benign episodes cannot support 9 %");
        assert_eq!(at(0.5), Some((1, 4)));
        assert_eq!(at(1.0), Some((10, 4)));
        // 3 malicious tie with 1 of 10 benign, above 9; the fourth above 9, below 1.
        assert_eq!(roc.auc(), (3.0 * 9.5 + 9.0) / 40.0);
    }

    #[test]
    fn a_tie_at_the_top_can_leave_only_the_empty_conviction() {
        let rows: Vec<(f32, bool)> = (0..20).map(|i| (1.0, i % 2 == 0)).collect();
        let roc = Roc::new(&scored(&rows)).unwrap();
        let point = roc.at_fpr(0.1).unwrap();
        assert_eq!((point.threshold, point.true_positives), (f32::INFINITY, 0));
        assert_eq!(roc.auc(), 0.5);
    }

    #[test]
    fn refusals() {
        assert_eq!(Roc::new(&scored(&[(0.1, true)])), Err(EvaluationError::OneClass { missing: "benign" }));
        assert_eq!(Roc::new(&[]), Err(EvaluationError::OneClass { missing: "benign" }));
        let nan = Roc::new(&scored(&[(0.1, true), (f32::NAN, false)])).unwrap_err();
        assert!(matches!(nan, EvaluationError::NotFinite { position: 1, .. }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn auc_and_rates_equal_brute_force(
            benign in prop::collection::vec(0u8..12, 1..40),
            malicious in prop::collection::vec(0u8..12, 1..40),
            target in 0.0f64..1.0,
        ) {
            let mut rows: Vec<(f32, bool)> = benign.iter().map(|&s| (f32::from(s), false)).collect();
            rows.extend(malicious.iter().map(|&s| (f32::from(s), true)));
            let roc = Roc::new(&scored(&rows)).unwrap();
            let mut wins = 0.0;
            for m in &malicious {
                for b in &benign {
                    wins += match m.cmp(b) {
                        std::cmp::Ordering::Greater => 1.0,
                        std::cmp::Ordering::Equal => 0.5,
                        std::cmp::Ordering::Less => 0.0,
                    };
                }
            }
            prop_assert!((roc.auc() - wins / (benign.len() * malicious.len()) as f64).abs() < 1e-12);

            let n = benign.len() as f64;
            let count = |list: &[u8], t: u8| list.iter().filter(|&&s| s >= t).count() as u64;
            let best = (0..=12)
                .filter(|&t| count(&benign, t) as f64 <= target * n + 1e-9)
                .map(|t| count(&malicious, t))
                .max();
            let expected = (target * n >= 1.0 - 1e-9).then_some(best.unwrap());
            prop_assert_eq!(roc.at_fpr(target).map(|point| point.true_positives), expected);
        }
    }
}
