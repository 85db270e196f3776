//! What a policy is worth, by the steps that another one played.
//!
//! The page `docs/algorithms/off-policy.md` has the formulas, and how far the estimates are to be trusted.

mod estimators;
mod evaluation;

pub use estimators::{Estimate, Estimates, Trajectories, TrajectoryStep, Trust};
pub use evaluation::{FittedQ, OffPolicyError, TargetPolicy, estimate};
