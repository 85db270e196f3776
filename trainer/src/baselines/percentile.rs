//! The percentile detector: how unusual a state is among benign ones, from 0 to 100. It sees no malicious sample.

use bellwether_env_adapter::Label;

use super::classifier::prefix_rows;
use super::{BaselineError, PrefixScorer, Recordings};

/// From this percentile on a state is a candidate for a closer look.
pub const CANDIDATE_PERCENTILE: f32 = 80.0;

/// Scaling of one element, from benign states.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Element {
    low: f32,
    /// The 99th percentile: what lies above counts as this much.
    cap: f32,
    /// Stands for a missing value.
    median: f32,
    /// Mean of the scaled values.
    centre: f64,
}

/// Scores a state by its Euclidean distance from the centre of benign states, as a percentile of their distances.
///
/// Each element is scaled to `[0, 1]` between its benign minimum and its benign 99th percentile and capped there; a missing
/// value (NaN) is replaced by the benign median. The percentile is the share of benign distances that are at most as large,
/// times 100, so it never falls when the distance grows.
#[derive(Clone, Debug, PartialEq)]
pub struct PercentileDetector {
    elements: Vec<Element>,
    distances: Vec<f64>,
}

impl PercentileDetector {
    /// Fits to rows of `width` elements each, all benign; NaN stands for a missing value.
    ///
    /// # Errors
    /// [`BaselineError::NoEpisodes`] without a row, [`BaselineError::Width`] where the values are no whole number of rows.
    pub fn fit(width: usize, rows: &[f32]) -> Result<Self, BaselineError> {
        if rows.is_empty() || width == 0 {
            return Err(BaselineError::NoEpisodes);
        }
        if !rows.len().is_multiple_of(width) {
            return Err(BaselineError::Width { expected: width, found: rows.len() % width });
        }
        let mut elements = Vec::with_capacity(width);
        let mut column: Vec<f32> = Vec::with_capacity(rows.len() / width);
        for j in 0..width {
            column.clear();
            column.extend(rows[j..].iter().step_by(width).filter(|value| !value.is_nan()));
            column.sort_unstable_by(f32::total_cmp);
            let mut element = Element::default();
            if let (Some(&low), Some(last)) = (column.first(), column.len().checked_sub(1)) {
                let at = |percent: usize| column[(last * percent).div_ceil(100)];
                element = Element { low, cap: at(99), median: at(50), centre: 0.0 };
            }
            let sum: f64 = rows[j..].iter().step_by(width).map(|&value| element.scaled(value)).sum();
            element.centre = sum / (rows.len() / width) as f64;
            elements.push(element);
        }
        let mut detector = PercentileDetector { elements, distances: Vec::new() };
        let mut distances: Vec<f64> = rows.chunks_exact(width).map(|row| detector.distance(row)).collect();
        distances.sort_unstable_by(f64::total_cmp);
        detector.distances = distances;
        Ok(detector)
    }

    /// Fits to the benign prefixes among `recordings`, at most about `max_rows` ([`prefix_rows`]).
    ///
    /// # Errors
    /// [`BaselineError::OneClass`] without a benign episode.
    pub fn of_prefixes(recordings: &dyn Recordings, max_rows: u32) -> Result<Self, BaselineError> {
        let mut rows = Vec::new();
        let mut state = vec![0.0; recordings.width()];
        for (episode, window) in prefix_rows(recordings, max_rows) {
            if recordings.label(episode as usize) == Label::Benign {
                recordings.state(episode as usize, window, &mut state);
                rows.extend_from_slice(&state);
            }
        }
        if rows.is_empty() {
            return Err(BaselineError::OneClass { missing: "benign" });
        }
        Self::fit(recordings.width(), &rows)
    }

    /// Euclidean distance of the scaled state from the benign centre.
    ///
    /// # Panics
    /// If the state has another width.
    pub fn distance(&self, state: &[f32]) -> f64 {
        assert_eq!(state.len(), self.elements.len(), "a state has the width that the detector was fitted to");
        let squares = self.elements.iter().zip(state).map(|(element, &value)| {
            let off = element.scaled(value) - element.centre;
            off * off
        });
        squares.sum::<f64>().sqrt()
    }

    /// The percentile of a state, 0 to 100.
    ///
    /// # Panics
    /// If the state has another width.
    pub fn percentile(&self, state: &[f32]) -> f32 {
        let distance = self.distance(state);
        let at_most = self.distances.partition_point(|&benign| benign <= distance);
        (100.0 * at_most as f64 / self.distances.len() as f64) as f32
    }
}

impl PrefixScorer for PercentileDetector {
    fn score(&self, state: &[f32]) -> f32 {
        self.percentile(state)
    }
}

impl Element {
    fn scaled(&self, value: f32) -> f64 {
        let value = if value.is_nan() { self.median } else { value };
        let span = f64::from(self.cap) - f64::from(self.low);
        // An element that never varies among benign states has no scale, so it cannot count.
        if span > 0.0 { ((f64::from(value) - f64::from(self.low)) / span).clamp(0.0, 1.0) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::Toy;
    use super::*;

    #[test]
    fn percentiles_by_hand() {
        // 0, 0.01, ..., 1 in one element: the cap is at 0.99, the centre near the middle.
        let rows: Vec<f32> = (0..=100).map(|i| i as f32 / 100.0).collect();
        let detector = PercentileDetector::fit(1, &rows).unwrap();
        assert_eq!(detector.elements[0].cap, 0.99);
        assert_eq!(detector.elements[0].median, 0.5);
        assert_eq!(detector.percentile(&[0.0]), 100.0);
        assert!(detector.percentile(&[0.5]) <= 2.0);
        assert_eq!(detector.percentile(&[7.0]), detector.percentile(&[0.99]), "capped");
        assert_eq!(detector.percentile(&[f32::NAN]), detector.percentile(&[0.5]), "missing is the median");
        let eighty = detector.percentile(&[0.9]);
        assert!((eighty - 80.0).abs() < 3.0 && CANDIDATE_PERCENTILE == 80.0, "{eighty}");
    }

    #[test]
    fn constant_and_missing_elements_do_not_count() {
        let detector = PercentileDetector::fit(3, &[0.5, f32::NAN, 0.0, 0.5, f32::NAN, 1.0]).unwrap();
        assert_eq!(detector.distance(&[0.5, 0.0, 0.2]), detector.distance(&[9.0, f32::NAN, 0.2]));
    }

    #[test]
    fn refusals() {
        assert!(matches!(PercentileDetector::fit(2, &[]), Err(BaselineError::NoEpisodes)));
        assert!(matches!(
            PercentileDetector::fit(2, &[1.0, 2.0, 3.0]),
            Err(BaselineError::Width { expected: 2, found: 1 })
        ));
        assert!(matches!(
            PercentileDetector::of_prefixes(&Toy::new(0, 3, 0), 100),
            Err(BaselineError::OneClass { missing: "benign" })
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn the_percentile_is_bounded_and_never_falls_as_the_distance_grows(
            rows in prop::collection::vec(prop::array::uniform4(0.0f32..1.0), 1..60),
            a in prop::array::uniform4(prop_oneof![9 => -1.0f32..2.0, 1 => Just(f32::NAN)]),
            b in prop::array::uniform4(prop_oneof![9 => -1.0f32..2.0, 1 => Just(f32::NAN)]),
        ) {
            let detector = PercentileDetector::fit(4, rows.as_flattened()).unwrap();
            let [(da, pa), (db, pb)] = [a, b].map(|state| (detector.distance(&state), detector.percentile(&state)));
            prop_assert!((0.0..=100.0).contains(&pa) && da.is_finite());
            let ordered = if da <= db { pa <= pb } else { pa >= pb };
            prop_assert!(ordered);
        }

        #[test]
        fn benign_rows_spread_over_the_percentiles(rows in prop::collection::vec(prop::array::uniform4(0.0f32..1.0), 1..60)) {
            let detector = PercentileDetector::fit(4, rows.as_flattened()).unwrap();
            let mut scores: Vec<f32> = rows.iter().map(|row| detector.percentile(row)).collect();
            scores.sort_by(f32::total_cmp);
            prop_assert_eq!(scores[scores.len() - 1], 100.0);
            // At least k of n rows lie at or below the k-th score.
            for (k, score) in scores.iter().enumerate() {
                prop_assert!(*score >= 99.999 * (k + 1) as f32 / scores.len() as f32);
            }
        }
    }
}
