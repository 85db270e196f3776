//! Operating points: which cost (or threshold) keeps a target false-positive rate, decided on calibration episodes.
//!
//! A setting is a number that convicts less the larger it is: the cost `z = c / (1 + c)` of a false positive for a policy, a
//! threshold on a score for a classifier. Policies and baselines go through the same function; on which episodes each of
//! them does stands in `docs/algorithms/recorded.md`.
//!
//! The realised false-positive counts of the calibration episodes are made non-increasing in the setting by isotonic
//! regression (pool adjacent violators: Ayer et al. 1955), so that noise of training does not turn the table around.
//! **Safety rule for few benign episodes:** of `n` benign calibration episodes with `k` false positives the calibrated rate
//! is `(k + 1) / (n + 1)`, the finite-sample rank bound of conformal prediction (Vovk et al. 2005): a next benign episode
//! that is exchangeable with them is convicted with at most this probability at a threshold fixed in this way. With many
//! episodes it tends to `k / n`; with `n + 1 < 1 / target` it can never be met, which says that the data is too small.
//! Episodes of one family resemble each other, so those of a family that was never seen are exchangeable with nothing: for
//! them the rate is an estimate, which rests on fewer families than episodes, and no bound.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::EvaluationError;
use super::outcome::Outcome;

/// Benign episodes that must be expected above a threshold at the target rate for the rate to be supported.
pub const SUPPORTING_EPISODES: f64 = 1.0;

/// Whether `benign` episodes can tell whether a false-positive rate of `target` is kept: at least one of them must be
/// expected to be a false positive (`benign * target >= 1`). 570 benign episodes support 1 % and not 0.1 %.
pub fn rate_supported(target: f64, benign: u64) -> bool {
    benign as f64 * target >= SUPPORTING_EPISODES - 1e-9
}

/// The setting that was chosen for one target.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperatingPoint {
    /// The target false-positive rate.
    pub target_fpr: f64,
    /// The setting: the cost `z = c / (1 + c)` of a false positive, or a threshold.
    pub setting: f32,
    /// False-positive rate of the setting on the calibration episodes, by the safety rule.
    pub calibrated_fpr: f64,
    /// Whether the calibrated rate is at most the target. Where it is not, the setting with the lowest rate was taken.
    pub met: bool,
    /// Whether the number of benign calibration episodes supports the target.
    pub supported: bool,
}

/// False-positive rates of the calibration episodes by setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    settings: Vec<f32>,
    rates: Vec<f64>,
    benign: u64,
}

impl Calibration {
    /// From the false positives at each setting among `benign` episodes.
    ///
    /// # Errors
    /// [`EvaluationError::Settings`] unless the settings are finite, strictly ascending and one per count that is at most
    /// `benign`; [`EvaluationError::NoEpisodes`] without a setting; [`EvaluationError::OneClass`] without a benign episode.
    pub fn new(settings: &[f32], false_positives: &[u64], benign: u64) -> Result<Self, EvaluationError> {
        if settings.is_empty() {
            return Err(EvaluationError::NoEpisodes);
        }
        if benign == 0 {
            return Err(EvaluationError::OneClass { missing: "benign" });
        }
        let wrong = (0..settings.len().max(false_positives.len())).find(|&i| {
            let ascending = i == 0 || settings.get(i).is_some_and(|setting| settings[i - 1] < *setting);
            let finite = settings.get(i).is_some_and(|setting| setting.is_finite());
            !ascending || !finite || false_positives.get(i).is_none_or(|&count| count > benign)
        });
        if let Some(position) = wrong {
            return Err(EvaluationError::Settings { position });
        }
        let counts: Vec<f64> = false_positives.iter().map(|&count| count as f64).collect();
        let rates = isotonic_decreasing(&counts).iter().map(|count| (count + 1.0) / (benign as f64 + 1.0)).collect();
        Ok(Calibration { settings: settings.to_vec(), rates, benign })
    }

    /// From the outcomes of the calibration episodes at each setting, ascending.
    ///
    /// # Errors
    /// As [`Calibration::new`], and [`EvaluationError::Unpaired`] where two settings saw different numbers of benign
    /// episodes.
    pub fn from_outcomes(curve: &[(f32, Vec<Outcome>)]) -> Result<Self, EvaluationError> {
        let benign_of = |outcomes: &[Outcome]| outcomes.iter().filter(|o| !o.is_malicious()).count() as u64;
        let benign = curve.first().map_or(0, |(_, outcomes)| benign_of(outcomes));
        let mut settings = Vec::with_capacity(curve.len());
        let mut counts = Vec::with_capacity(curve.len());
        for (position, (setting, outcomes)) in curve.iter().enumerate() {
            if benign_of(outcomes) != benign {
                return Err(EvaluationError::Unpaired { position });
            }
            settings.push(*setting);
            counts.push(outcomes.iter().filter(|o| !o.is_malicious() && o.is_convicted()).count() as u64);
        }
        Calibration::new(&settings, &counts, benign)
    }

    /// The smallest setting whose calibrated rate is at most `target`; the largest setting where none is.
    ///
    /// A higher target never gets a larger setting.
    pub fn choose(&self, target: f64) -> OperatingPoint {
        let found = self.rates.iter().position(|&rate| rate <= target + 1e-12);
        let at = found.unwrap_or(self.settings.len() - 1);
        OperatingPoint {
            target_fpr: target,
            setting: self.settings[at],
            calibrated_fpr: self.rates[at],
            met: found.is_some(),
            supported: rate_supported(target, self.benign),
        }
    }

    /// One operating point per target: the table that a model carries.
    pub fn table(&self, targets: &[f64]) -> Vec<OperatingPoint> {
        targets.iter().map(|&target| self.choose(target)).collect()
    }

    /// The settings, ascending.
    pub fn settings(&self) -> &[f32] {
        &self.settings
    }

    /// The calibrated rates, one per setting, non-increasing.
    pub fn rates(&self) -> &[f64] {
        &self.rates
    }
}

/// The non-increasing sequence nearest to `values` in squares (pool adjacent violators).
pub fn isotonic_decreasing(values: &[f64]) -> Vec<f64> {
    // Each block is a mean and a length; a block that exceeds its predecessor joins it.
    let mut blocks: Vec<(f64, usize)> = Vec::with_capacity(values.len());
    for &value in values {
        let mut block = (value, 1usize);
        while let Some(&(mean, length)) = blocks.last() {
            if mean >= block.0 {
                break;
            }
            blocks.pop();
            let joined = length + block.1;
            block = ((mean * length as f64 + block.0 * block.1 as f64) / joined as f64, joined);
        }
        blocks.push(block);
    }
    blocks.into_iter().flat_map(|(mean, length)| std::iter::repeat_n(mean, length)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::summary::tests::outcome;
    use super::*;

    #[test]
    fn support_is_one_expected_false_positive() {
        for (target, benign, supported) in [
            (0.001, 570, false),
            (0.001, 999, false),
            (0.001, 1000, true),
            (0.01, 570, true),
            (0.01, 100, true),
            (0.05, 19, false),
            (0.05, 20, true),
            (0.0, 1_000_000, false),
        ] {
            assert_eq!(rate_supported(target, benign), supported, "{target} of {benign}");
        }
    }

    #[test]
    fn violators_are_pooled() {
        assert_eq!(isotonic_decreasing(&[5.0, 3.0, 4.0, 1.0]), [5.0, 3.5, 3.5, 1.0]);
        assert_eq!(isotonic_decreasing(&[1.0, 2.0, 3.0]), [2.0; 3]);
        assert_eq!(isotonic_decreasing(&[3.0, 2.0, 2.0]), [3.0, 2.0, 2.0]);
        assert!(isotonic_decreasing(&[]).is_empty());
    }

    #[test]
    fn the_smallest_setting_that_keeps_the_target() {
        // 199 benign: at most 5 % means (k + 1) / 200 <= 0.05, so k <= 9.
        let calibration = Calibration::new(&[0.0, 0.2, 0.4, 0.6, 0.8], &[40, 10, 9, 3, 0], 199).unwrap();
        let point = calibration.choose(0.05);
        assert_eq!((point.setting, point.calibrated_fpr, point.met, point.supported), (0.4, 0.05, true, true));
        assert_eq!(calibration.choose(0.06).setting, 0.2);
        assert_eq!(calibration.choose(0.01).setting, 0.8, "one of 200 is allowed, 3 are not");
        let unmet = calibration.choose(0.001);
        assert_eq!((unmet.setting, unmet.met, unmet.supported), (0.8, false, false));
    }

    #[test]
    fn outcomes_are_counted_by_setting() {
        let at = |convicted: [bool; 3]| {
            vec![
                outcome(0, false, 0, convicted[0], 5),
                outcome(1, false, 1, convicted[1], 5),
                outcome(2, true, 2, convicted[2], 5),
            ]
        };
        let curve =
            vec![(0.0, at([true, true, true])), (0.5, at([true, false, true])), (1.0, at([false, false, true]))];
        let calibration = Calibration::from_outcomes(&curve).unwrap();
        assert_eq!(calibration.rates(), [1.0, 2.0 / 3.0, 1.0 / 3.0]);
    }

    #[test]
    fn refusals() {
        assert_eq!(Calibration::new(&[], &[], 5), Err(EvaluationError::NoEpisodes));
        assert_eq!(Calibration::new(&[0.0], &[0], 0), Err(EvaluationError::OneClass { missing: "benign" }));
        for (settings, counts, position) in [
            (&[0.0, 0.0][..], &[1, 1][..], 1),
            (&[0.0, f32::NAN], &[1, 1], 1),
            (&[0.0, 1.0], &[1], 1),
            (&[0.0], &[1, 1], 1),
            (&[0.0], &[6], 0),
        ] {
            assert_eq!(Calibration::new(settings, counts, 5), Err(EvaluationError::Settings { position }));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn isotonic_is_monotone_keeps_the_sum_and_beats_any_other_monotone_fit(
            values in prop::collection::vec(0u32..50, 1..12),
            rival in prop::collection::vec(0u32..50, 12),
        ) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let fit = isotonic_decreasing(&values);
            prop_assert!(fit.windows(2).all(|pair| pair[0] >= pair[1]));
            prop_assert!((fit.iter().sum::<f64>() - values.iter().sum::<f64>()).abs() < 1e-9);
            let mut rival: Vec<f64> = rival[..values.len()].iter().map(|&v| f64::from(v)).collect();
            rival.sort_by(|a, b| b.total_cmp(a));
            let squares = |list: &[f64]| list.iter().zip(&values).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
            prop_assert!(squares(&fit) <= squares(&rival) + 1e-9);
        }

        #[test]
        fn the_table_is_monotone_and_keeps_what_it_says(
            counts in prop::collection::vec(0u64..=80, 1..20),
            mut targets in prop::collection::vec(0.0f64..1.0, 1..8),
        ) {
            let settings: Vec<f32> = (0..counts.len()).map(|i| i as f32 / 20.0).collect();
            let calibration = Calibration::new(&settings, &counts, 80).unwrap();
            targets.sort_by(f64::total_cmp);
            let table = calibration.table(&targets);
            prop_assert!(table.windows(2).all(|pair| pair[0].setting >= pair[1].setting));
            for point in table {
                prop_assert!(!point.met || point.calibrated_fpr <= point.target_fpr + 1e-12);
            }
        }
    }
}
