//! The played steps of an episode, one row per decision.

use std::io::Write;

use bellwether_env_adapter::reward::{Parts, Situation, WindowCosts};
use bellwether_env_adapter::spec::{FeatureSpec, WIDTH};
use bellwether_env_adapter::{ACTION_COUNT, Action, Label, RewardConfig, StateVector, WindowConfig};
use bellwether_replay::episodes::{End, EpisodeFileHeader, EpisodeWriter, PlayedParts, Step};
use bellwether_replay::{ActionMask, Encoding, ReplayError};

use crate::stage::{Command, Question};

/// Writes the steps. A step is written when the next one, or the end, says what it led to.
pub(super) struct Trajectory<W: Write + Send> {
    writer: EpisodeWriter<W>,
    episode: String,
    label: Option<Label>,
    reward: RewardConfig,
    /// Number of the next row.
    row: u32,
    held: Option<Held>,
    stage: u8,
    /// Harm of this stage so far.
    harm: f32,
    /// Events of the stages before.
    earlier: u64,
}

/// A decision whose reward is not known yet.
struct Held {
    stage: u8,
    level: u8,
    level_after: u8,
    mask: ActionMask,
    action: Action,
    safe_rule: bool,
    state: StateVector,
    events_seen: u64,
    harm_so_far: f32,
}

/// What all steps of a file share.
pub(super) struct Terms<'a> {
    pub(super) episode: &'a str,
    pub(super) label: Option<Label>,
    pub(super) reward: &'a RewardConfig,
    pub(super) window: &'a WindowConfig,
    pub(super) source: String,
    pub(super) policy: Option<String>,
}

impl<W: Write + Send> Trajectory<W> {
    pub(super) fn new(out: W, terms: Terms<'_>) -> Result<Self, ReplayError> {
        let reward = bellwether_artifact::canonical_json(terms.reward).map_err(|error| ReplayError::Setting {
            key: "reward",
            value: error.to_string(),
            reason: "it has no spelling as JSON",
        })?;
        let header = EpisodeFileHeader {
            width: WIDTH,
            actions: ACTION_COUNT as u32,
            encoding: Encoding::Sparse,
            spec_hash: FeatureSpec::v1(terms.window.clone()).hash_hex(),
            action_set: Action::SET_VERSION.to_string(),
            reward,
            sources: vec![terms.source],
            policy: terms.policy,
            // The safe rule has none.
            q_values: false,
            safe_rule: true,
        };
        Ok(Trajectory {
            writer: EpisodeWriter::new(out, header)?,
            episode: terms.episode.to_owned(),
            label: terms.label,
            reward: terms.reward.clone(),
            row: 0,
            held: None,
            stage: 1,
            harm: 0.0,
            earlier: 0,
        })
    }

    /// Takes a decision of the policy or of the safe rule, in the state as it was decided on.
    pub(super) fn decided(
        &mut self,
        question: &Question,
        command: &Command,
        state: StateVector,
        safe_rule: bool,
    ) -> Result<(), ReplayError> {
        if question.stage != self.stage {
            (self.stage, self.harm) = (question.stage, 0.0);
            self.earlier = self.held.as_ref().map_or(self.earlier, |held| held.events_seen);
        }
        let costs = WindowCosts {
            stage: question.stage,
            harm: question.toll.harm,
            harm_before: self.harm,
            breakage: question.toll.breakage,
        };
        self.harm += question.toll.harm[0];
        if let Some(held) = self.held.take() {
            let parts = self.led_to(&held, &costs);
            self.write(&held, parts, None, false)?;
        }
        self.held = Some(Held {
            stage: question.stage,
            level: question.level,
            level_after: command.context.level_after,
            mask: ActionMask::from_bools(&question.mask),
            action: command.action,
            safe_rule,
            state,
            events_seen: self.earlier + question.events_seen,
            harm_so_far: self.harm,
        });
        Ok(())
    }

    /// Ends the file. `decided` says that the last decision was the verdict of the episode; it was cut off otherwise.
    pub(super) fn end(mut self, decided: bool, partial: bool) -> Result<(W, u64), ReplayError> {
        if let Some(held) = self.held.take() {
            let (parts, end) = match decided {
                true => (self.verdict(&held), End::Terminated),
                false => (self.time(&held), End::Truncated),
            };
            self.write(&held, parts, Some(end), partial)?;
        }
        let (out, written) = self.writer.finish()?;
        Ok((out, written.steps))
    }

    /// What an action earned that led to this window.
    fn led_to(&self, held: &Held, costs: &WindowCosts) -> Parts {
        let Some(label) = self.label else { return self.time(held) };
        let handed_over = held.action == Action::Release;
        let situation = Situation {
            label,
            level: held.level,
            next: (!handed_over).then_some(costs),
            next_stage: handed_over.then_some(costs),
            harm_so_far: held.harm_so_far,
            harm_to_come: 0.0,
        };
        self.reward.answer(&situation, held.action).unwrap_or_else(|| self.time(held))
    }

    /// What the last verdict earned. Without a label nobody knows.
    fn verdict(&self, held: &Held) -> Parts {
        let Some(label) = self.label else { return Parts::default() };
        let situation = Situation {
            label,
            level: held.level,
            next: None,
            next_stage: None,
            harm_so_far: held.harm_so_far,
            // The sample died with its sandbox.
            harm_to_come: 0.0,
        };
        self.reward.answer(&situation, held.action).unwrap_or_default()
    }

    /// What letting one more window happen costs in time, whatever the sample is.
    fn time(&self, held: &Held) -> Parts {
        let (stage, level) = match held.action {
            Action::Release => (held.stage + 1, 0),
            _ => (held.stage, held.level_after),
        };
        self.reward.window_parts(Label::Malicious, level, &WindowCosts { stage, ..WindowCosts::default() })
    }

    fn write(&mut self, held: &Held, parts: Parts, end: Option<End>, partial: bool) -> Result<(), ReplayError> {
        let step = self.row;
        self.row += 1;
        self.writer.write(&Step {
            episode_id: &self.episode,
            step,
            stage: held.stage,
            state: held.state.as_slice(),
            action_mask: held.mask,
            played: Some(PlayedParts {
                action: held.action as u32,
                r0: parts.r0,
                r1: parts.r1,
                // Neither the policy nor the safe rule leaves anything to chance.
                behaviour_probability: 1.0,
                safe_rule: held.safe_rule,
            }),
            end,
            partial: partial && end.is_some(),
            label: self.label.map(Label::name),
            events_seen: held.events_seen,
            q_values: None,
        })
    }
}
