//! What a recording answers: the outcome of every action in every state, derived when it is asked for.

use bellwether_env_adapter::action::{self, Action, ActionMask};
use bellwether_env_adapter::reward::{Parts, RewardConfig, Situation};

use super::recordings::Recordings;
use crate::greedy::greedy;

/// A state to act in: a window of an episode at an isolation level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the episode.
    pub episode: u32,
    /// Row of the window's state.
    pub row: u32,
    /// Isolation level, 0 to 3.
    pub level: u8,
}

/// What an action earns and where it leads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Reward at the cost that was asked for.
    pub reward: f32,
    /// The parts that the reward was weighed out of.
    pub parts: Parts,
    /// The state that follows; `None` where the episode ends.
    pub next: Option<Place>,
}

/// The decision process over a set of recordings.
#[derive(Clone, Copy)]
pub struct AnswerModel<'a> {
    recordings: &'a Recordings,
    reward: &'a RewardConfig,
    isolation: bool,
}

impl<'a> AnswerModel<'a> {
    /// `isolation` allows `raise_isolation`, whose effect a recording can only model.
    pub fn new(recordings: &'a Recordings, reward: &'a RewardConfig, isolation: bool) -> Self {
        AnswerModel { recordings, reward, isolation }
    }

    /// The recordings.
    pub fn recordings(&self) -> &'a Recordings {
        self.recordings
    }

    /// What is rewarded.
    pub fn reward(&self) -> &'a RewardConfig {
        self.reward
    }

    /// Whether isolation can be raised.
    pub fn isolation(&self) -> bool {
        self.isolation
    }

    /// Where an episode begins.
    ///
    /// # Panics
    /// If there is no such episode.
    pub fn start(&self, episode: u32) -> Option<Place> {
        let episode = self.recordings.store().episode(episode);
        (episode.len > 0).then_some(Place { episode: episode.number, row: episode.first_row, level: 0 })
    }

    /// The allowed actions.
    pub fn mask(&self, place: Place) -> ActionMask {
        let window = self.recordings.window(place.row);
        action::mask(window.last, self.isolation && place.level < 3)
    }

    /// What an allowed action does, at the false-positive cost `z = c / (1 + c)`.
    ///
    /// # Panics
    /// If the action is not allowed.
    pub fn outcome(&self, place: Place, action: usize, z: f32) -> Outcome {
        let facts = self.recordings.facts(place.episode);
        let window = self.recordings.window(place.row);
        let stage = usize::from(window.costs.stage > 1);
        let harm_so_far = window.costs.harm_before + window.costs.harm[0];
        let next = (!window.last).then(|| place.row + 1);
        let next_stage = facts.second_stage.filter(|_| stage == 0);
        let costs = |row: u32| &self.recordings.window(row).costs;
        let situation = Situation {
            label: facts.label,
            level: place.level,
            next: next.map(costs),
            next_stage: next_stage.map(costs),
            harm_so_far,
            harm_to_come: (facts.stage_harm[stage] - harm_so_far).max(0.0),
        };
        let action = Action::ALL[action];
        let parts = self.reward.answer(&situation, action);
        let led = action.leads_to(place.level, next, next_stage);
        let next = led.map(|(row, level)| Place { row, level, ..place });
        // A masked action has no answer; the masks are built from the same windows.
        assert!(parts.is_some(), "{} is not allowed in row {}", action.name(), place.row);
        let parts = parts.unwrap_or_default();
        Outcome { reward: parts.at(z), parts, next }
    }

    /// The value of a state by the q-values of a judge that chooses without the label: the reward of its choice where that
    /// is a verdict, and what it `expects` of it where the episode goes on.
    pub fn value(&self, place: Place, q: &[f32], z: f32, expects: impl FnOnce(usize) -> f32) -> f32 {
        let choice = best(q, &self.mask(place));
        let outcome = self.outcome(place, choice, z);
        if outcome.next.is_none() { outcome.reward } else { expects(choice) }
    }
}

/// The best allowed action, of which every window has one.
pub(super) fn best(q: &[f32], mask: &[bool]) -> usize {
    greedy(q, mask).unwrap_or(0)
}
