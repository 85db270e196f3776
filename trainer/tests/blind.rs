//! The network of a fold has not seen its fold: neither a family nor an exact duplicate is on both sides, and what its
//! episodes hold does not reach it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use bellwether_env_adapter::{EpisodeAttributes, EpisodeId, Event, EventKind, EventSink, Label};
use bellwether_trainer::config::TrainConfig;
use bellwether_trainer::learner::fused::{FusedOptions, Isa};
use bellwether_trainer::recorded::recordings::{Recorder, Recordings};
use bellwether_trainer::recorded::training::Training;

const FAMILIES: u32 = 6;
const EPISODES: u32 = 3;
const CALLS: [&str; 5] = ["openat", "read", "unlink", "sendto", "getdents64"];

/// Recordings of six families of each class; those of `other` hold other calls than they do without it.
fn recordings(config: &TrainConfig, other: Option<u32>) -> Recordings {
    let mut recorder = Recorder::new(&config.window, &config.reward, 1 << 20).unwrap();
    for number in 0..2 * FAMILIES * EPISODES {
        let family = number / EPISODES;
        recorder
            .begin(&EpisodeAttributes {
                episode_id: EpisodeId(format!("episode-{number}")),
                label: Some(if family < FAMILIES { Label::Benign } else { Label::Malicious }),
                family: Some(format!("family-{family}")),
                source: None,
                sample_sha256: None,
                complete: true,
            })
            .unwrap();
        let salt = if other == Some(family) { 1009 } else { 0 };
        for seq in 0..20 {
            // Any mixture will do that differs from episode to episode.
            let mixed = (number * 31 + seq * 17 + salt + 7).wrapping_mul(2_654_435_761) >> 13;
            let call = CALLS[mixed as usize % CALLS.len()];
            recorder.event(&Event::named(u64::from(seq), EventKind::Syscall, call)).unwrap();
        }
        recorder.end(true).unwrap();
    }
    recorder.finish()
}

fn config() -> TrainConfig {
    let mut config = TrainConfig { seed: 3, ..TrainConfig::default() };
    config.window.max_events = 4;
    config.network.hidden = vec![8];
    config.calibration.folds = 3;
    config.trainer.updates = 20;
    config.trainer.batch_size = 32;
    config.trainer.target_update_interval = 20;
    config.trainer.threads = 1;
    config
}

/// The fold of each episode, and the parameters of every network after one round, the released one last. Within the first
/// round the judges are as they were drawn, so nothing of what one network has learnt is told to another.
fn after_a_round(recordings: &Recordings, config: &TrainConfig) -> (BTreeMap<u32, usize>, Vec<Vec<f32>>) {
    let episodes: Vec<u32> = recordings.episodes().collect();
    let mut training =
        Training::new(recordings, &episodes, config, Isa::best(), FusedOptions::default().into()).unwrap();
    let folds: BTreeMap<u32, usize> =
        training.blind().enumerate().flat_map(|(fold, (blind, _))| blind.into_iter().map(move |e| (e, fold))).collect();
    assert_eq!(folds.len(), episodes.len(), "every episode has a fold of its own");
    training.round().unwrap();
    (folds, training.states().into_iter().map(|state| state.learner.online).collect())
}

#[test]
fn what_a_fold_holds_does_not_reach_its_network() {
    let config = config();
    let plain = recordings(&config, None);
    let (folds, networks) = after_a_round(&plain, &config);
    for family in 0..2 * FAMILIES {
        let members: Vec<u32> = (family * EPISODES..(family + 1) * EPISODES).collect();
        let fold = folds[&members[0]];
        assert!(members.iter().all(|episode| folds[episode] == fold), "a family is never cut");

        let changed = recordings(&config, Some(family));
        for episode in plain.episodes() {
            let same = plain.facts(episode).content == changed.facts(episode).content;
            assert_eq!(same, !members.contains(&episode), "only the family is another");
        }
        let (same_folds, others) = after_a_round(&changed, &config);
        assert_eq!(folds, same_folds);
        for (network, (before, after)) in networks.iter().zip(&others).enumerate() {
            assert_eq!(before == after, network == fold, "network {network}, family {family} of fold {fold}");
        }
    }
}
