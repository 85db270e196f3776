//! Why outcomes cannot be evaluated.

/// Why an evaluation refuses what it was given.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvaluationError {
    /// There is no episode.
    #[error("there is no episode to evaluate; check the split, and that the episodes carry labels")]
    NoEpisodes,
    /// One of the two classes is missing.
    #[error("there is no {missing} episode; give recordings of both classes, or split by another key")]
    OneClass {
        /// The missing class.
        missing: &'static str,
    },
    /// A score is NaN or infinite.
    #[error("the score at position {position} is {value}; scores must be finite")]
    NotFinite {
        /// Position in what was given.
        position: usize,
        /// The score.
        value: f32,
    },
    /// Two lists of outcomes do not describe the same episodes.
    #[error(
        "the outcomes differ at position {position}: a paired difference needs the same episodes in the same order"
    )]
    Unpaired {
        /// First position that differs.
        position: usize,
    },
    /// Settings are not strictly ascending, or their counts have another length.
    #[error(
        "the settings of a calibration must be finite, strictly ascending and one per count; see position {position}"
    )]
    Settings {
        /// First position that is wrong.
        position: usize,
    },
    /// Fewer than two folds were asked for.
    #[error("{folds} folds were asked for; cross-validation needs at least 2")]
    Folds {
        /// What was asked for.
        folds: u32,
    },
    /// A class has fewer separable groups than there are folds.
    #[error(
        "{folds} folds need {folds} groups with {class} episodes that share no duplicate, and there are {groups}; {}",
        if *groups < 2 { "record more families" } else { "ask for fewer folds" }
    )]
    TooFewGroups {
        /// The class.
        class: &'static str,
        /// Its separable groups.
        groups: usize,
        /// Folds asked for.
        folds: u32,
    },
    /// A setting of the evaluation is out of range.
    #[error("`{key}` is {value}; it must be {expected}")]
    Parameter {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}
