//! Made-up recordings of one or two stages, labelled or not.
#![allow(dead_code, reason = "each test file uses a part of it")]

use bellwether_env_adapter::{EpisodeAttributes, EpisodeId, Event, EventKind, EventSink, Label};
use bellwether_trainer::config::TrainConfig;
use bellwether_trainer::recorded::recordings::{Recorder, Recordings};
use proptest::collection::vec;
use proptest::prelude::*;

/// A recording: its label, whether it is whole, and the calls of its stages; no stage means that nothing was seen.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) label: Option<Label>,
    pub(crate) complete: bool,
    pub(crate) stages: Vec<Vec<usize>>,
}

const CALLS: [&str; 5] = ["openat", "read", "unlink", "sendto", "getdents64"];

pub(crate) fn recorded() -> impl Strategy<Value = Recorded> {
    let label = prop_oneof![1 => Just(None), 4 => Just(Some(Label::Benign)), 4 => Just(Some(Label::Malicious))];
    let stages = vec(vec(0..CALLS.len(), 1..12), 0..3);
    (label, any::<bool>(), stages).prop_map(|(label, complete, stages)| Recorded { label, complete, stages })
}

pub(crate) fn config(isolation: bool) -> TrainConfig {
    let mut config = TrainConfig::default();
    config.window.max_events = 3;
    config.trainer.isolation = isolation;
    config
}

/// Tells a sink of these recordings.
pub(crate) fn tell<S: EventSink>(episodes: &[Recorded], sink: &mut S) -> Result<(), S::Error> {
    for (number, episode) in episodes.iter().enumerate() {
        sink.begin(&EpisodeAttributes {
            episode_id: EpisodeId(format!("episode-{number}")),
            label: episode.label,
            family: None,
            source: None,
            sample_sha256: None,
            complete: true,
        })?;
        for (stage, calls) in (1..).zip(&episode.stages) {
            for (seq, call) in (0..).zip(calls) {
                let bytes = (CALLS[*call] == "sendto").then_some(4096 * (seq + 1));
                sink.event(&Event { stage, bytes, ..Event::named(seq, EventKind::Syscall, CALLS[*call]) })?;
            }
        }
        sink.end(episode.complete)?;
    }
    Ok(())
}

pub(crate) fn record(episodes: &[Recorded], config: &TrainConfig) -> Recordings {
    let mut recorder = Recorder::new(&config.window, &config.reward, 1 << 20).unwrap();
    tell(episodes, &mut recorder).unwrap();
    recorder.finish()
}
