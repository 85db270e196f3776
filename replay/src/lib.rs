//! Experience in memory and episodes in Parquet. The crate knows nothing of malware: states are `f32` rows, actions are
//! small integers, and what else a caller wants to keep beside a state is a column of annotations.
//!
//! - [`StateStore`] keeps every state once, in memory up to a budget and beyond it in a spill file.
//! - [`EpisodeStore`] holds recordings, which answer for every action; [`EpisodeSampler`] draws their states.
//! - [`ReplayBuffer`] is a ring of played experience, which assembles transitions of any number of steps as they are
//!   drawn; [`SharedReplay`] is one for many threads.
//! - [`episodes`] writes and reads what was played as Parquet, as a stream.
//! - [`streamed::StreamedReplay`] is a ring that is refilled from such files, for more steps than memory holds.
//! - [`SampledRows`] are drawn states as a learner gathers them.
//!
//! Every draw comes from the caller's generator, so the same data and seed give the same batches. The crate opens no
//! file under a name: the spill file has none, and all else is written to and read from what the caller gives.
#![forbid(unsafe_code)]

mod buffer;
mod draw;
pub mod episodes;
mod error;
pub mod fuzz;
mod mask;
mod recording;
mod rows;
mod store;
pub mod streamed;

pub use buffer::{
    BufferConfig, Draw, Outcome, Played, PriorityConfig, ReplayBuffer, SampleSpec, Sampled, SharedReplay, StreamId,
    Transition,
};
pub use error::ReplayError;
pub use mask::ActionMask;
pub use recording::{DrawnStates, Episode, EpisodeSampler, EpisodeStore, EpisodeStoreConfig};
pub use rows::{DenseRows, SampledRows, StateRows};
pub use store::{Encoding, StateStore, StoreConfig};
