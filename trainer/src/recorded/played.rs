//! What a policy plays on recordings, step by step, as an episode file.

use std::io::Write;

use bellwether_artifact::{ModelVersion, canonical_json};
use bellwether_env_adapter::reward::Parts;
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_env_adapter::{ACTION_COUNT, Action};
use bellwether_replay::episodes::{End, EpisodeFileHeader, EpisodeWriter, PlayedParts, Step, Written};
use bellwether_replay::{ActionMask, Encoding, SampledRows, StateRows};
use schemars::JsonSchema;
use serde::Serialize;

use super::answers::{AnswerModel, Place};
use super::playback::{Course, Policy, TOGETHER, play_together, readable};
use super::recordings::Recordings;
use super::{OVERLAY, TrainingError, overlay};
use crate::config::TrainConfig;

/// What to play, and on what.
#[derive(Clone, Copy)]
pub struct Playing<'a> {
    /// The recordings.
    pub recordings: &'a Recordings,
    /// The episodes of them to play.
    pub episodes: &'a [u32],
    /// The policy.
    pub policy: Policy<'a>,
    /// What the file says of the policy, and at which cost and on which course it plays.
    pub player: Player,
    /// The configuration that it was trained under.
    pub config: &'a TrainConfig,
    /// Fingerprints of the recordings, each one line.
    pub sources: &'a [String],
}

/// The policy as an episode file names it: the JSON of its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Player {
    /// Version of the model.
    #[schemars(with = "String")]
    pub model_version: ModelVersion,
    /// The false-positive rate that was asked for.
    pub target_fpr: f64,
    /// The cost `z` of a false positive that serves it.
    pub cost: f32,
    /// How the q-values are followed.
    pub course: Course,
}

/// What an episode file of played recordings holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlayedFile {
    /// Its rows.
    pub written: Written,
    /// Episodes that are not in it because they have no window: there was no state to act in.
    pub without_window: u64,
}

/// A step that waits to be written until those of earlier episodes are; its state lies in the store.
#[derive(Clone, Copy)]
struct Noted {
    place: Place,
    mask: ActionMask,
    q_values: [f32; ACTION_COUNT],
    action: u32,
    probability: f32,
    parts: Parts,
    ends: bool,
}

/// Plays a policy on episodes and writes every step, with the state as the network saw it and its q-values. Every episode
/// ends by its rules, so none is truncated; those of recordings that lack something are partial.
///
/// What is held back is one row group, and of 256 episodes at a time some 60 bytes a step.
///
/// # Errors
/// If the states cannot be read, the network does not fit them, or the writer fails.
pub fn write_played<W: Write + Send>(playing: &Playing<'_>, out: W) -> Result<(W, PlayedFile), TrainingError> {
    let Playing { recordings, episodes, policy, player, config, .. } = *playing;
    let model = AnswerModel::new(recordings, &config.reward, config.trainer.isolation);
    let mut writer = EpisodeWriter::new(out, header(playing)?)?;
    let mut without_window = 0;
    let mut state = vec![0.0; recordings.width()];
    for chunk in episodes.chunks(TOGETHER) {
        let mut noted: Vec<Vec<Noted>> = vec![Vec::new(); chunk.len()];
        play_together(&model, policy, chunk, player.cost, player.course, &mut |episode, step| {
            let mut q_values = [0.0; ACTION_COUNT];
            q_values.copy_from_slice(step.q_values);
            noted[episode].push(Noted {
                place: step.place,
                mask: ActionMask::from_bools(&step.mask),
                q_values,
                action: step.action as u32,
                probability: step.probability,
                parts: step.outcome.parts,
                ends: step.outcome.next.is_none(),
            });
        })?;
        for (&episode, steps) in chunk.iter().zip(&noted) {
            let facts = recordings.facts(episode);
            without_window += u64::from(steps.is_empty());
            for (number, step) in (0..).zip(steps) {
                let values = overlay(player.cost, step.place.level);
                let row = [step.place.row];
                SampledRows::new(recordings.store().states(), &row)
                    .with_overlay(&OVERLAY, &values)
                    .gather(0, &mut state);
                let window = recordings.window(step.place.row);
                writer.write(&Step {
                    episode_id: &facts.id,
                    step: number,
                    stage: window.costs.stage,
                    state: &state,
                    action_mask: step.mask,
                    played: Some(PlayedParts {
                        action: step.action,
                        r0: step.parts.r0,
                        r1: step.parts.r1,
                        behaviour_probability: step.probability,
                        safe_rule: false,
                    }),
                    end: step.ends.then_some(End::Terminated),
                    partial: step.ends && !facts.complete,
                    label: Some(facts.label.name()),
                    events_seen: window.events_seen,
                    q_values: Some(&step.q_values),
                })?;
            }
        }
        readable(&model)?;
    }
    let (out, written) = writer.finish()?;
    Ok((out, PlayedFile { written, without_window }))
}

fn header(playing: &Playing<'_>) -> Result<EpisodeFileHeader, TrainingError> {
    Ok(EpisodeFileHeader {
        width: playing.recordings.width(),
        actions: ACTION_COUNT as u32,
        encoding: Encoding::Sparse,
        spec_hash: FeatureSpec::v1(playing.config.window.clone()).hash_hex(),
        action_set: Action::SET_VERSION.to_string(),
        reward: canonical_json(&playing.config.reward)?,
        sources: playing.sources.to_vec(),
        policy: Some(canonical_json(&playing.player)?),
        q_values: true,
        safe_rule: false,
    })
}
