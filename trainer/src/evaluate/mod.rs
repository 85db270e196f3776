//! How good a policy is: outcomes of exact replay, their rates with intervals, operating points, and the report.
//!
//! Everything here is a pure function of outcomes, scores and a seed. Nothing replays, reads a file or looks at a clock:
//! whoever replays recordings hands in one [`Outcome`] per episode and operating point.

pub mod bootstrap;
mod curves;
mod error;
pub mod folds;
pub mod operating_point;
pub mod outcome;
pub mod report;
pub mod roc;
pub mod summary;
mod table;
pub mod values;

pub(crate) use bootstrap::percentile_interval;
pub use bootstrap::{Bootstrap, Clusters, Difference, Interval, MIN_GROUPS};
pub use curves::{CurvePoint, Timeline, TimelinePoint};
pub use error::EvaluationError;
pub use folds::{FoldItem, grouped_folds};
pub use operating_point::{Calibration, OperatingPoint, isotonic_decreasing, rate_supported};
pub use outcome::{Groups, Outcome, Stop, Verdict};
pub use report::{BaselineOutcomes, Evaluation, OperatingPointReport, PolicyOutcomes};
pub use roc::{Roc, RocPoint, Scored};
pub use summary::{Metrics, Summary, summarise};
pub use table::render_table;
pub use values::{Decision, Drawn, ValueReport};
