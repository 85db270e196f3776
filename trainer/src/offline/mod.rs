//! Learning from steps that others played, with nothing to try out: CQL, BCQ, cloning, and plain DQN beside them. The page
//! `docs/algorithms/offline.md` says what each does.

mod checkpoint;
mod config;
mod imitator;
mod steps;
mod trainer;

pub use config::{Algorithm, OfflineConfig};
pub use steps::Steps;
pub use trainer::{Judged, OfflineTrainer, POLICY};
