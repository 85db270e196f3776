//! One episode: a sample through stage 1 and, when released, stage 2, decided on window by window, acted on, recorded.
//!
//! [`Machine`] is the episode as a list of happenings; [`run`] makes them happen: it runs the stages, asks the [`Judge`], hands
//! commands to the stage and what comes back to the machine, and writes down everything on a thread of its own.

mod folder;
mod journal;
mod judge;
mod machine;
mod record;
mod reserve;
mod retry;
mod run;
#[cfg(feature = "serve")]
mod service;
mod trail;
mod trajectory;

pub use folder::EpisodeFolder;
pub use judge::{Away, Judge, JudgeError, Judgement, Patient, PolicyJudge, in_process, safe_rule, window_of};
pub use machine::{Happening, Machine, Next, Partial, Phase, Transition};
pub use record::{Listener, RESERVE_BYTES, RecordError, Recorded};
pub use retry::{Clock, Monotonic, Schedule};
pub use run::{Decision, Episode, Report, Setup, run};
#[cfg(feature = "serve")]
pub use service::{Described, PolicyAccess, PolicyService, ServiceError, ServiceJudge};
pub use trail::Trail;
