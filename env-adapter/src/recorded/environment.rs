//! One recording after the other, played step by step.

use std::sync::Arc;

use super::{Pace, RealTime, Recording, Recordings};
use crate::action::{ACTION_COUNT, Action};
use crate::environment::{Environment, Step};
use crate::event::Label;
use crate::reward::{RewardConfig, RewardError};
use crate::spec::WIDTH;

/// Why recordings make no environment.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum RecordedError {
    /// There is no episode to play.
    #[error("there is no labelled episode with events to play; check the labels of the telemetry with `validate`")]
    Empty,
    /// There are more episodes than can be numbered.
    #[error("there are more than 4294967295 episodes; split the recordings into several files")]
    TooMany,
    /// The operating point is none.
    #[error("the operating point z is {0}; it must lie in [0, 1], z = c / (1 + c) for a false positive that costs c")]
    Cost(f32),
    /// The rewards make no sense.
    #[error(transparent)]
    Reward(#[from] RewardError),
}

/// How recordings are played.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedOptions {
    /// Operating point in [0, 1]: rewards are `(1 - z) * r0 + z * r1`.
    pub z: f32,
    /// Whether isolation may be raised; a recording can only model what that does.
    pub can_raise: bool,
}

impl Default for RecordedOptions {
    fn default() -> Self {
        RecordedOptions { z: 0.5, can_raise: false }
    }
}

/// Recordings as an environment: an action per window, exact rewards, `terminated` on a verdict.
///
/// `release` in stage 1 leads into stage 2 where that was recorded. Arriving at the last window of a run that was cut
/// off ends the episode as `truncated`; that window is the final observation, and its mask is that of a run which goes
/// on. Where an episode begins with such a window, only verdicts are allowed in it.
pub struct RecordedEnvironment {
    recordings: Arc<Recordings>,
    reward: RewardConfig,
    options: RecordedOptions,
    /// Episode numbers of the classes that there are.
    classes: Arc<[Vec<usize>]>,
    window: usize,
    level: u8,
    ended: Option<Step>,
    pace: Option<(RealTime, Box<dyn Pace + Send>)>,
}

impl std::fmt::Debug for RecordedEnvironment {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fields = (&self.options, self.window, self.level, self.ended);
        out.debug_tuple("RecordedEnvironment").field(&fields).finish()
    }
}

impl RecordedEnvironment {
    /// An environment over `recordings`, at the start of the episode of seed 0.
    ///
    /// # Errors
    /// [`RecordedError`] without episodes, for an operating point outside [0, 1] and for rewards that make no sense.
    pub fn new(
        recordings: Arc<Recordings>,
        reward: RewardConfig,
        options: RecordedOptions,
    ) -> Result<RecordedEnvironment, RecordedError> {
        reward.validate()?;
        if !(0.0..=1.0).contains(&options.z) {
            return Err(RecordedError::Cost(options.z));
        }
        let of = |label: Label| -> Vec<usize> {
            let episodes = recordings.episodes().iter().enumerate();
            episodes.filter(|(_, episode)| episode.label == label).map(|(number, _)| number).collect()
        };
        let classes: Arc<[_]> =
            [of(Label::Benign), of(Label::Malicious)].into_iter().filter(|class| !class.is_empty()).collect();
        if classes.is_empty() {
            return Err(RecordedError::Empty);
        }
        let mut environment =
            RecordedEnvironment { recordings, reward, options, classes, window: 0, level: 0, ended: None, pace: None };
        environment.reset(0);
        Ok(environment)
    }

    /// Another environment over the same recordings, without a pace.
    pub fn sibling(&self) -> RecordedEnvironment {
        RecordedEnvironment {
            recordings: Arc::clone(&self.recordings),
            reward: self.reward.clone(),
            options: self.options.clone(),
            classes: Arc::clone(&self.classes),
            window: self.window,
            level: self.level,
            ended: self.ended,
            pace: None,
        }
    }

    /// Real-time mode: every step that leads to another window waits for it.
    #[must_use]
    pub fn in_real_time(mut self, rule: RealTime, pace: Box<dyn Pace + Send>) -> Self {
        self.pace = Some((rule, pace));
        self
    }

    /// The episode that is played.
    pub fn recording(&self) -> &Recording {
        &self.recordings.episodes()[self.recordings.episode_of(self.window)]
    }

    /// The number of the window in which to act, or in which the episode ended.
    pub fn window(&self) -> usize {
        self.window
    }

    /// The isolation level in force.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Plays episode `episode` from its first window.
    ///
    /// # Panics
    /// If there is no such episode.
    pub fn begin(&mut self, episode: usize) {
        self.window = self.recordings.episodes()[episode].windows.start;
        self.level = 0;
        self.ended = None;
    }

    fn go_to(&mut self, window: usize) {
        if let Some((rule, pace)) = &mut self.pace {
            let here = self.recordings.window(self.window);
            pace.pause(rule.delay(here, self.recordings.window(window)));
        }
        self.window = window;
    }
}

/// The output of `SplitMix64` for the `stream`-th draw from `seed`.
pub(super) fn draw(seed: u64, stream: u64) -> u64 {
    let mut word = seed.wrapping_add((stream + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A number below `bound` from a word, without a bias that matters below 2^32.
fn below(word: u64, bound: usize) -> usize {
    ((u128::from(word) * bound as u128) >> 64) as usize
}

impl Environment for RecordedEnvironment {
    fn width(&self) -> usize {
        WIDTH
    }

    fn actions(&self) -> usize {
        ACTION_COUNT
    }

    /// Draws the class first, then the episode, so that a rare class is met as often as a common one.
    fn reset(&mut self, seed: u64) {
        let class = &self.classes[below(draw(seed, 0), self.classes.len())];
        self.begin(class[below(draw(seed, 1), class.len())]);
    }

    fn step(&mut self, action: usize) -> Step {
        assert!(self.ended.is_none(), "the episode has ended; reset the environment");
        let mut allowed = [false; ACTION_COUNT];
        self.mask(&mut allowed);
        let action = Action::from_index(action).filter(|action| allowed[action.index()]);
        let answer = action.and_then(|action| self.recordings.answer(&self.reward, self.window, self.level, action));
        let Some(answer) = answer else { panic!("the action is masked or out of range") };
        let mut step = Step { reward: answer.parts.at(self.options.z), terminated: false, truncated: false };
        match answer.next {
            None => step.terminated = true,
            Some(next) => {
                self.go_to(next);
                self.level = answer.next_level;
                step.truncated = self.recordings.is_cut(next);
            }
        }
        if step.terminated || step.truncated {
            self.ended = Some(step);
        }
        step
    }

    fn observe(&self, out: &mut [f32]) {
        self.recordings.write_state(self.window, self.level, self.options.z, out);
    }

    fn mask(&self, out: &mut [bool]) {
        let goes_on = self.ended.is_some_and(|step| step.truncated);
        if goes_on {
            let can_raise = self.options.can_raise && self.level < 3;
            out.copy_from_slice(&crate::action::mask(false, can_raise));
        } else {
            out.copy_from_slice(&self.recordings.mask(self.window, self.level, self.options.can_raise));
        }
    }
}
