//! Telemetry in; windows, state vectors, actions and rewards out; the recorded environment.
//!
//! The crate does no network I/O and opens no final name. With default features it is events, windows, states, actions
//! and rewards; readers and writers of telemetry files sit behind the feature `ingest`, the messages of
//! `bellwether.telemetry.v1` behind `proto`.
#![forbid(unsafe_code)]

pub mod action;
pub mod behaviour;
pub mod calls;
pub mod conformance;
pub mod environment;
pub mod event;
#[cfg(feature = "ingest")]
pub mod ingest;
pub mod live;
#[cfg(feature = "proto")]
pub mod proto;
pub mod recorded;
pub mod redact;
pub mod reward;
pub mod sensor;
pub mod spec;
pub mod window;

pub use action::{ACTION_COUNT, Action, ActionMask};
pub use environment::{Environment, Step};
pub use event::{EpisodeAttributes, EpisodeId, Event, EventBuf, EventKind, EventRecord, EventSink, Label};
pub use live::{LiveWindow, LiveWindows};
pub use reward::{Parts, RewardConfig};
pub use spec::{FeatureSpec, Featurizer, StateVector};
pub use window::{Window, WindowConfig, WindowSink, Windower};
