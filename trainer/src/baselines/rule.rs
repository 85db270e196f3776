//! Rules that stop an episode on the scores of its prefixes.

use crate::evaluate::{Stop, Verdict};

/// What a rule compares with its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The score of the newest prefix. Where scores are log-odds of the whole prefix, this is the log-likelihood ratio
    /// of Wald's sequential probability ratio test (1945): the increments of the windows telescope to it.
    Newest,
    /// The sum of all scores so far, which asks for persistence.
    Sum,
}

/// Stops where evidence leaves the open interval `(lower, upper)`, and at the last window that it may see.
///
/// With infinite bounds it decides at a fixed prefix, with `windows` at its maximum as well it runs to the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoppingRule {
    /// What is compared.
    pub evidence: Evidence,
    /// Evidence at or below it acquits.
    pub lower: f32,
    /// Evidence at or above it convicts; checked first.
    pub upper: f32,
    /// At the last window evidence at or above it convicts.
    pub last: f32,
    /// Windows that the rule may see, at least 1.
    pub windows: u32,
}

impl StoppingRule {
    /// Where the rule stops an episode with these scores, one per window; at window 0 as benign where there is none.
    pub fn stop(&self, scores: &[f32]) -> Stop {
        let seen = scores.len().min(self.windows.max(1) as usize);
        let mut sum = 0.0;
        let mut evidence = f32::NEG_INFINITY;
        for (window, &score) in scores[..seen].iter().enumerate() {
            sum += score;
            evidence = match self.evidence {
                Evidence::Newest => score,
                Evidence::Sum => sum,
            };
            if evidence >= self.upper {
                return Stop { window: window as u32, verdict: Verdict::Malicious };
            }
            if evidence <= self.lower {
                return Stop { window: window as u32, verdict: Verdict::Benign };
            }
        }
        let verdict = if evidence >= self.last { Verdict::Malicious } else { Verdict::Benign };
        Stop { window: seen.saturating_sub(1) as u32, verdict }
    }
}

/// A rule but for its threshold, which is what calibration chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Decides at a fixed prefix of `windows` windows; `u32::MAX` runs to the end.
    Prefix {
        /// Windows.
        windows: u32,
    },
    /// Convicts at the first score above the threshold, acquits after `windows` windows.
    FirstCrossing {
        /// Windows.
        windows: u32,
    },
    /// Two bounds: the threshold is the upper one. Whoever is in between at the end is convicted above
    /// `upper - end * (upper - lower)`.
    Sequential {
        /// What is compared with the bounds.
        evidence: Evidence,
        /// The lower bound, finite.
        lower: f32,
        /// Position of the threshold at the end, from 0 (the upper bound) to 1 (the lower one).
        end: f32,
    },
}

impl Shape {
    /// The rule with this threshold. A larger threshold never convicts an episode that a smaller one acquits.
    pub fn rule(&self, threshold: f32) -> StoppingRule {
        let everything = (f32::NEG_INFINITY, u32::MAX);
        match *self {
            Shape::Prefix { windows } => StoppingRule {
                evidence: Evidence::Newest,
                lower: everything.0,
                upper: f32::INFINITY,
                last: threshold,
                windows,
            },
            Shape::FirstCrossing { windows } => StoppingRule {
                evidence: Evidence::Newest,
                lower: everything.0,
                upper: threshold,
                last: threshold,
                windows,
            },
            Shape::Sequential { evidence, lower, end } => StoppingRule {
                evidence,
                lower,
                upper: threshold,
                // In this form every step rounds monotonically, so the whole is monotone in the threshold.
                last: if threshold > lower { ((1.0 - end) * threshold + end * lower).max(lower) } else { threshold },
                windows: everything.1,
            },
        }
    }

    /// The largest threshold at which an episode with these scores could still be convicted, which makes it a natural
    /// candidate for a threshold; `None` without scores.
    pub(crate) fn critical(&self, scores: &[f32]) -> Option<f32> {
        let newest = |windows: u32| &scores[..scores.len().min(windows.max(1) as usize)];
        match *self {
            Shape::Prefix { windows } => newest(windows).last().copied(),
            Shape::FirstCrossing { windows } => newest(windows).iter().copied().reduce(f32::max),
            Shape::Sequential { evidence, lower, end } => {
                let mut best: Option<f32> = None;
                let mut sum = 0.0;
                let mut acquitted = false;
                let mut now = f32::NEG_INFINITY;
                for &score in scores {
                    sum += score;
                    now = if evidence == Evidence::Sum { sum } else { score };
                    best = Some(best.map_or(now, |best| best.max(now)));
                    acquitted = now <= lower;
                    if acquitted {
                        break;
                    }
                }
                // At the end `now >= upper - end * (upper - lower)` solves to `upper <= (now - end * lower) / (1 - end)`.
                if !acquitted && end < 1.0 {
                    let at_end = (now - end * lower) / (1.0 - end);
                    best = best.map(|best| best.max(at_end));
                }
                best
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stop(window: u32, malicious: bool) -> Stop {
        Stop { window, verdict: if malicious { Verdict::Malicious } else { Verdict::Benign } }
    }

    #[test]
    fn rules_by_hand() {
        let scores = [0.1, 0.4, -0.3, 0.6];
        let sequential = |evidence, lower, end| Shape::Sequential { evidence, lower, end };
        for (shape, threshold, expected) in [
            (Shape::Prefix { windows: u32::MAX }, 0.6, stop(3, true)),
            (Shape::Prefix { windows: u32::MAX }, 0.7, stop(3, false)),
            (Shape::Prefix { windows: 2 }, 0.4, stop(1, true)),
            (Shape::Prefix { windows: 3 }, 0.0, stop(2, false)),
            (Shape::Prefix { windows: 0 }, 0.1, stop(0, true)),
            (Shape::FirstCrossing { windows: u32::MAX }, 0.4, stop(1, true)),
            (Shape::FirstCrossing { windows: 3 }, 0.5, stop(2, false)),
            (sequential(Evidence::Newest, -0.3, 0.0), 0.5, stop(2, false)),
            (sequential(Evidence::Newest, -0.5, 0.0), 0.5, stop(3, true)),
            (sequential(Evidence::Newest, -0.5, 0.0), 0.7, stop(3, false)),
            // At the end 0.6 stands above 0.7 - 0.25 * 1.2 = 0.4.
            (sequential(Evidence::Newest, -0.5, 0.25), 0.7, stop(3, true)),
            // Sums: 0.1, 0.5, 0.2, 0.8.
            (sequential(Evidence::Sum, -0.2, 0.0), 0.5, stop(1, true)),
            (sequential(Evidence::Sum, 0.15, 0.0), 0.9, stop(0, false)),
        ] {
            assert_eq!(shape.rule(threshold).stop(&scores), expected, "{shape:?} at {threshold}");
        }
        assert_eq!(Shape::Prefix { windows: 1 }.rule(0.0).stop(&[]), stop(0, false));
    }

    fn shapes() -> impl Strategy<Value = Shape> {
        prop_oneof![
            (0u32..8).prop_map(|windows| Shape::Prefix { windows }),
            (0u32..8).prop_map(|windows| Shape::FirstCrossing { windows }),
            (any::<bool>(), -2.0f32..2.0, 0u8..=3).prop_map(|(sum, lower, end)| Shape::Sequential {
                evidence: if sum { Evidence::Sum } else { Evidence::Newest },
                lower,
                end: f32::from(end) / 4.0,
            }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn a_larger_threshold_never_convicts_more(
            shape in shapes(),
            scores in prop::collection::vec(-2.0f32..2.0, 0..10),
            a in -3.0f32..3.0,
            b in -3.0f32..3.0,
        ) {
            let (low, high) = (a.min(b), a.max(b));
            let [at_low, at_high] = [low, high].map(|threshold| shape.rule(threshold).stop(&scores).verdict);
            prop_assert!(at_high == Verdict::Benign || at_low == Verdict::Malicious);
        }

        #[test]
        fn nothing_is_convicted_above_its_critical_threshold(
            shape in shapes(),
            scores in prop::collection::vec(-2.0f32..2.0, 1..10),
        ) {
            let critical = shape.critical(&scores).unwrap();
            let above = critical + 1e-4 * (1.0 + critical.abs());
            prop_assert_eq!(shape.rule(above).stop(&scores).verdict, Verdict::Benign);
            let below = critical - 1e-4 * (1.0 + critical.abs());
            prop_assert_eq!(shape.rule(below).stop(&scores).verdict, Verdict::Malicious);
        }

        #[test]
        fn a_rule_stops_within_the_episode(shape in shapes(), scores in prop::collection::vec(-2.0f32..2.0, 1..10), t in -3.0f32..3.0) {
            prop_assert!((shape.rule(t).stop(&scores).window as usize) < scores.len());
        }
    }
}
