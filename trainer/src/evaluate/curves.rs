//! What a report draws: rates along the settings, and verdicts along the windows.

use bellwether_env_adapter::{Action, Label};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::operating_point::OperatingPoint;
use super::outcome::Outcome;
use super::summary::summarise;

/// The policy at one setting of the grid, in hindsight.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CurvePoint {
    /// The cost `z = c / (1 + c)` of a false positive, or a threshold.
    pub setting: f32,
    /// False-positive rate.
    pub fpr: Option<f64>,
    /// True-positive rate.
    pub tpr: Option<f64>,
    /// Mean events to the verdict.
    pub mean_events: Option<f64>,
    /// Share of the harm that is prevented.
    pub harm_prevented: Option<f64>,
}

/// When verdicts fall at one operating point, and by which action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timeline {
    /// The target false-positive rate.
    pub target_fpr: f64,
    /// By windows, ascending: at 1, 2, 3, 4, 6, 8, 12, ..., and at the last that was needed.
    pub points: Vec<TimelinePoint>,
}

/// What was done in or before a window, as shares of the episodes of a class. What is neither released nor convicted is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TimelinePoint {
    /// Windows that were seen.
    pub windows: u32,
    /// Benign episodes that were released.
    pub benign_released: f64,
    /// Benign episodes that were convicted.
    pub benign_convicted: f64,
    /// Malicious episodes that were released.
    pub malicious_released: f64,
    /// Malicious episodes that were convicted.
    pub malicious_convicted: f64,
    /// Benign episodes that were quarantined, a part of those convicted.
    #[serde(default)]
    pub benign_quarantined: f64,
    /// Malicious episodes that were quarantined, a part of those convicted.
    #[serde(default)]
    pub malicious_quarantined: f64,
    /// Benign episodes that are watched after isolation was raised.
    #[serde(default)]
    pub benign_isolated: f64,
    /// Malicious episodes that are watched after isolation was raised.
    #[serde(default)]
    pub malicious_isolated: f64,
}

/// The curve of a policy at every setting of the grid.
pub(super) fn curve(outcomes: &[(f32, Vec<Outcome>)]) -> Vec<CurvePoint> {
    let point = |(setting, outcomes): &(f32, Vec<Outcome>)| {
        let metrics = summarise(outcomes).metrics;
        CurvePoint {
            setting: *setting,
            fpr: metrics.fpr,
            tpr: metrics.tpr,
            mean_events: metrics.mean_events,
            harm_prevented: metrics.harm_prevented,
        }
    };
    outcomes.iter().map(point).collect()
}

/// When verdicts fall at an operating point.
pub(super) fn timeline(point: &OperatingPoint, outcomes: &[Outcome]) -> Timeline {
    let last = outcomes.iter().map(|outcome| outcome.windows).max().unwrap_or(0);
    let share = |label: Label, is_counted: &dyn Fn(&Outcome) -> bool| {
        let (mut counted, mut all) = (0u64, 0u64);
        for outcome in outcomes.iter().filter(|outcome| outcome.label == label) {
            all += 1;
            counted += u64::from(is_counted(outcome));
        }
        counted as f64 / all.max(1) as f64
    };
    let points = marks(last)
        .into_iter()
        .map(|windows| {
            let released = |of: &Outcome| of.windows <= windows && !of.is_convicted();
            let convicted = |of: &Outcome| of.windows <= windows && of.is_convicted();
            let quarantined = |of: &Outcome| of.windows <= windows && of.action == Action::Quarantine;
            let isolated = |of: &Outcome| of.windows > windows && of.isolated_at.is_some_and(|at| at <= windows);
            TimelinePoint {
                windows,
                benign_released: share(Label::Benign, &released),
                benign_convicted: share(Label::Benign, &convicted),
                malicious_released: share(Label::Malicious, &released),
                malicious_convicted: share(Label::Malicious, &convicted),
                benign_quarantined: share(Label::Benign, &quarantined),
                malicious_quarantined: share(Label::Malicious, &quarantined),
                benign_isolated: share(Label::Benign, &isolated),
                malicious_isolated: share(Label::Malicious, &isolated),
            }
        })
        .collect();
    Timeline { target_fpr: point.target_fpr, points }
}

/// 1, 2, 3, 4, 6, 8, 12, 16, ... below `last`, and `last`.
fn marks(last: u32) -> Vec<u32> {
    let powers = (0..31).flat_map(|power| [1u32 << power, (1 << power) + (1 << power) / 2]);
    let mut marks: Vec<u32> = powers.take_while(|mark| *mark < last).collect();
    marks.push(last);
    marks.dedup();
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_rise_to_the_last() {
        assert_eq!(marks(0), [0]);
        assert_eq!(marks(1), [1]);
        assert_eq!(marks(9), [1, 2, 3, 4, 6, 8, 9]);
        assert!(marks(u32::MAX).is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn verdicts_add_up() {
        let outcome = |label, action, windows| Outcome {
            episode: 0,
            label,
            group: 0,
            action,
            isolated_at: (windows == 5).then_some(2),
            events: 0,
            windows,
            total_events: 0,
            harm_let: 0.0,
            harm_total: 0.0,
            ret: 0.0,
        };
        let outcomes = [
            outcome(Label::Benign, Action::Release, 5),
            outcome(Label::Benign, Action::Terminate, 2),
            outcome(Label::Malicious, Action::Quarantine, 1),
        ];
        let point = OperatingPoint { target_fpr: 0.05, setting: 0.5, calibrated_fpr: 0.0, met: true, supported: true };
        let timeline = timeline(&point, &outcomes);
        let at = |windows: u32| timeline.points.iter().find(|point| point.windows == windows).unwrap();
        assert_eq!((at(1).malicious_convicted, at(1).benign_convicted), (1.0, 0.0));
        assert_eq!((at(2).benign_convicted, at(2).benign_released), (0.5, 0.0));
        assert_eq!((at(5).benign_released, at(5).malicious_released), (0.5, 0.0));
        assert_eq!((at(1).malicious_quarantined, at(5).benign_quarantined), (1.0, 0.0));
        // Watched at a raised level from the second window until the fifth.
        assert_eq!([1, 2, 4, 5].map(|windows| at(windows).benign_isolated), [0.0, 0.5, 0.5, 0.0]);
    }
}
