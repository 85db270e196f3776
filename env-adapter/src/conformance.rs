//! A check that any environment can be put through before a learner trusts it.

use crate::environment::{Environment, Step};

/// What to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConformanceOptions {
    /// Episodes are begun with the seeds 0 to `seeds` - 1, each played twice.
    pub seeds: u64,
    /// An episode that has not ended after so many steps is left.
    pub max_steps: usize,
    /// Observations must lie in [0, 1].
    pub unit_range: bool,
}

impl Default for ConformanceOptions {
    fn default() -> Self {
        ConformanceOptions { seeds: 32, max_steps: 10_000, unit_range: false }
    }
}

/// What a check saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConformanceReport {
    /// Episodes played, each of them twice.
    pub episodes: u64,
    /// Steps of the first plays.
    pub steps: u64,
    /// Episodes that terminated.
    pub terminated: u64,
    /// Episodes that were truncated.
    pub truncated: u64,
    /// Episodes that were left after the most steps.
    pub left: u64,
    /// How often each action was played in the first plays.
    pub actions: Vec<u64>,
}

/// How an environment breaks its contract. Seed and step say where; step 0 is the state after the reset.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ConformanceError {
    /// It has no observation or no action at all.
    #[error("the environment has {width} observation elements and {actions} actions; both must be at least 1")]
    Shape {
        /// Elements of an observation.
        width: usize,
        /// Number of actions.
        actions: usize,
    },
    /// Width or number of actions changed.
    #[error("seed {seed}, step {step}: width or number of actions changed")]
    ShapeChanged {
        /// Seed of the episode.
        seed: u64,
        /// Steps taken.
        step: usize,
    },
    /// An observation element was not written, is not finite, or leaves its range.
    #[error("seed {seed}, step {step}: observation element {index} is {value}")]
    Observation {
        /// Seed of the episode.
        seed: u64,
        /// Steps taken.
        step: usize,
        /// Place of the element.
        index: usize,
        /// Its value; NaN where it was not written.
        value: f32,
    },
    /// No action is allowed.
    #[error("seed {seed}, step {step}: the mask allows no action")]
    EmptyMask {
        /// Seed of the episode.
        seed: u64,
        /// Steps taken.
        step: usize,
    },
    /// A reward is not finite.
    #[error("seed {seed}, step {step}: the reward is {reward}")]
    Reward {
        /// Seed of the episode.
        seed: u64,
        /// Steps taken.
        step: usize,
        /// The reward.
        reward: f32,
    },
    /// An episode ended in both ways at once.
    #[error("seed {seed}, step {step}: terminated and truncated at once; an episode ends in one way")]
    BothEnds {
        /// Seed of the episode.
        seed: u64,
        /// Steps taken.
        step: usize,
    },
    /// The same seed and the same actions gave another episode.
    #[error("seed {seed}, step {step}: the same seed and actions gave another {what} the second time")]
    NotRepeatable {
        /// Seed of the episode.
        seed: u64,
        /// Steps taken.
        step: usize,
        /// What differed.
        what: &'static str,
    },
}

/// One state of a played episode, and the step that led to it.
struct Moment {
    observation: Vec<f32>,
    mask: Vec<bool>,
    step: Option<Step>,
}

/// Plays `options.seeds` episodes twice with random allowed actions and checks the contract of [`Environment`]: width
/// and number of actions are constant; observations, the final one included, are written whole, finite and, if asked,
/// in [0, 1]; a mask is never empty before the end; rewards are finite; an episode ends in one way; the same seed and
/// the same actions give the same episode.
///
/// # Errors
/// The first breach, with seed and step.
pub fn check_environment<E: Environment + ?Sized>(
    environment: &mut E,
    options: &ConformanceOptions,
) -> Result<ConformanceReport, ConformanceError> {
    let (width, actions) = (environment.width(), environment.actions());
    if width == 0 || actions == 0 {
        return Err(ConformanceError::Shape { width, actions });
    }
    let mut report = ConformanceReport { actions: vec![0; actions], ..ConformanceReport::default() };
    for seed in 0..options.seeds {
        let mut played = Vec::new();
        let first = play(environment, options, seed, |at, mask| {
            let action = choose(seed, at, mask);
            played.push(action);
            action
        })?;
        let again = play(environment, options, seed, |at, mask| {
            // An action that is masked the second time is a difference, not a reason to panic.
            played.get(at).copied().flatten().filter(|action| mask[*action])
        })?;
        compare(seed, &first, &again)?;
        report.episodes += 1;
        report.steps += first.len() as u64 - 1;
        for action in played.into_iter().flatten() {
            report.actions[action] += 1;
        }
        match first.last().and_then(|moment| moment.step) {
            Some(Step { terminated: true, .. }) => report.terminated += 1,
            Some(Step { truncated: true, .. }) => report.truncated += 1,
            _ => report.left += 1,
        }
    }
    Ok(report)
}

fn play<E: Environment + ?Sized>(
    environment: &mut E,
    options: &ConformanceOptions,
    seed: u64,
    mut choose: impl FnMut(usize, &[bool]) -> Option<usize>,
) -> Result<Vec<Moment>, ConformanceError> {
    let (width, actions) = (environment.width(), environment.actions());
    environment.reset(seed);
    let mut moments = vec![look(environment, options, seed, 0, (width, actions), None)?];
    for at in 0..options.max_steps {
        let Some(action) = moments.last().and_then(|moment| choose(at, &moment.mask)) else { break };
        let step = environment.step(action);
        let number = at + 1;
        if !step.reward.is_finite() {
            return Err(ConformanceError::Reward { seed, step: number, reward: step.reward });
        }
        if step.terminated && step.truncated {
            return Err(ConformanceError::BothEnds { seed, step: number });
        }
        moments.push(look(environment, options, seed, number, (width, actions), Some(step))?);
        if step.terminated || step.truncated {
            break;
        }
    }
    Ok(moments)
}

fn look<E: Environment + ?Sized>(
    environment: &E,
    options: &ConformanceOptions,
    seed: u64,
    step: usize,
    (width, actions): (usize, usize),
    led: Option<Step>,
) -> Result<Moment, ConformanceError> {
    if environment.width() != width || environment.actions() != actions {
        return Err(ConformanceError::ShapeChanged { seed, step });
    }
    let mut observation = vec![f32::NAN; width];
    environment.observe(&mut observation);
    let is_bad = |value: f32| !value.is_finite() || options.unit_range && !(0.0..=1.0).contains(&value);
    if let Some((index, &value)) = observation.iter().enumerate().find(|(_, value)| is_bad(**value)) {
        return Err(ConformanceError::Observation { seed, step, index, value });
    }
    let mut mask = vec![false; actions];
    environment.mask(&mut mask);
    let ended = led.is_some_and(|led| led.terminated || led.truncated);
    if !ended && !mask.contains(&true) {
        return Err(ConformanceError::EmptyMask { seed, step });
    }
    Ok(Moment { observation, mask, step: led })
}

/// A random allowed action, a function of the seed and the step.
fn choose(seed: u64, at: usize, mask: &[bool]) -> Option<usize> {
    let allowed: Vec<usize> = (0..mask.len()).filter(|action| mask[*action]).collect();
    let mut word = (seed ^ 0x5851_f42d_4c95_7f2d).wrapping_add((at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    allowed.get(((word >> 32) as usize * allowed.len()) >> 32).copied()
}

fn compare(seed: u64, first: &[Moment], again: &[Moment]) -> Result<(), ConformanceError> {
    let differs = |step: usize, what: &'static str| Err(ConformanceError::NotRepeatable { seed, step, what });
    for (step, (one, two)) in first.iter().zip(again).enumerate() {
        let same_bits = |a: &f32, b: &f32| a.to_bits() == b.to_bits();
        if !one.observation.iter().zip(&two.observation).all(|(a, b)| same_bits(a, b)) {
            return differs(step, "observation");
        }
        if one.mask != two.mask {
            return differs(step, "mask");
        }
        if one.step != two.step {
            return differs(step, "reward or end");
        }
    }
    if first.len() != again.len() { differs(first.len().min(again.len()), "length") } else { Ok(()) }
}
