//! Exact replay: what a policy does on recordings, and what that earns.

use bellwether_env_adapter::action::ActionMask;
use bellwether_env_adapter::{ACTION_COUNT, Action};
use bellwether_inference::{Engine, Scratch};
use bellwether_replay::{SampledRows, StateRows};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::answers::{self, AnswerModel, Place, best};
use super::{OVERLAY, TrainingError, overlay};
use crate::evaluate::outcome::{Outcome, Stop, Verdict};
use crate::greedy::epsilon_greedy;
use crate::learner::LearnerError;
use crate::learner::fused::{Forward, Isa};
use crate::network::NetworkShape;
use crate::streams::stream;

/// Episodes that are walked together: enough rows to fill the kernels.
pub(super) const TOGETHER: usize = 256;

/// A policy: what gives q-values to states.
#[derive(Clone, Copy)]
pub enum Policy<'a> {
    /// A network as learners have it.
    Learnt(Learnt<'a>),
    /// A model as it is served, of any head and graph: by the canonical f32 kernel or by ONNX Runtime.
    Released(&'a Engine),
    /// Several networks that doubt where they disagree.
    Doubting(Doubting<'a>),
}

/// Networks of one shape whose q-value of an action is the mean of theirs less `doubt` times its standard deviation between
/// them: bootstrapped estimates (Osband et al. 2016), where what each was trained on stands for the resampling.
#[derive(Clone, Copy)]
pub struct Doubting<'a> {
    /// Widths of the networks.
    pub shape: &'a NetworkShape,
    /// Parameters of each, one network at least.
    pub members: &'a [Vec<f32>],
    /// Standard deviations that are taken off; below 0 they are added.
    pub doubt: f32,
    /// Instruction set to compute with; it does not change a byte.
    pub isa: Isa,
}

/// A network in canonical layout.
#[derive(Clone, Copy)]
pub struct Learnt<'a> {
    /// Widths of the network.
    pub shape: &'a NetworkShape,
    /// Its parameters.
    pub parameters: &'a [f32],
    /// Instruction set to compute with; it does not change a byte.
    pub isa: Isa,
}

/// A policy at work on one thread.
pub(crate) enum Judge<'a> {
    Learnt { forward: Box<Forward>, parameters: &'a [f32] },
    Released { engine: &'a Engine, scratch: Box<Scratch>, state: Vec<f32> },
    Doubting { forward: Box<Forward>, networks: Doubting<'a>, q: Vec<f32>, sums: Vec<[f64; 2]> },
}

/// How the q-values of a policy are followed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Course {
    /// The best allowed action, always.
    Greedy,
    /// `continue` wherever it is allowed and the best allowed action elsewhere: every window of a stage is reached, and the
    /// verdict falls in the last one.
    ToTheEnd,
    /// With this probability, above 0 and at most 1, any allowed action, and otherwise the best: steps from which the worth of
    /// other policies can be told. Each episode draws from a stream of its own.
    Soft {
        /// Probability of a random action.
        epsilon: f32,
        /// Seed of the streams.
        seed: u64,
    },
}

/// A step of an episode, as it is played.
pub(super) struct Move<'a> {
    /// The state.
    pub(super) place: Place,
    /// Its allowed actions.
    pub(super) mask: ActionMask,
    /// Its q-values.
    pub(super) q_values: &'a [f32],
    /// The action.
    pub(super) action: usize,
    /// The probability that the course gave it.
    pub(super) probability: f32,
    /// What it earned and where it led.
    pub(super) outcome: answers::Outcome,
}

/// Where an episode stands while it is played.
struct Walk {
    place: Place,
    ret: f64,
    harm_let: f64,
    windows: u32,
    isolated_at: Option<u32>,
    /// What is drawn from where actions are left to chance.
    rng: Option<ChaCha8Rng>,
}

/// Plays a policy on episodes at one cost `z`, and gives what it reached in each, in their order.
///
/// # Errors
/// If the states cannot be read or the network does not fit them.
pub fn play(
    model: &AnswerModel<'_>,
    policy: Policy<'_>,
    episodes: &[u32],
    z: f32,
) -> Result<Vec<Outcome>, TrainingError> {
    let play = |chunk: &[u32]| play_together(model, policy, chunk, z, Course::Greedy, &mut |_, _| {});
    let parts: Result<Vec<Vec<Outcome>>, TrainingError> = episodes.par_chunks(TOGETHER).map(play).collect();
    readable(model)?;
    Ok(parts?.into_iter().flatten().collect())
}

/// Fails if a state could not be read back since the store was made; what was computed from it means nothing then.
pub(super) fn readable(model: &AnswerModel<'_>) -> Result<(), TrainingError> {
    let failure = model.recordings().store().states().failure();
    failure.map_or(Ok(()), |failure| Err(TrainingError::States(failure.to_string())))
}

/// Plays episodes side by side; `watch` is told every step with the position of its episode in the list.
pub(super) fn play_together(
    model: &AnswerModel<'_>,
    policy: Policy<'_>,
    episodes: &[u32],
    z: f32,
    course: Course,
    watch: &mut dyn FnMut(usize, &Move<'_>),
) -> Result<Vec<Outcome>, TrainingError> {
    let mut judge = Judge::new(policy)?;
    let mut outcomes: Vec<Option<Outcome>> = vec![None; episodes.len()];
    let mut walks: Vec<(usize, Walk)> = Vec::new();
    for (i, episode) in episodes.iter().enumerate() {
        match model.start(*episode) {
            Some(place) => walks.push((i, Walk::new(model, place, course))),
            None => outcomes[i] = Some(unseen(model, *episode)),
        }
    }
    let store = model.recordings().store();
    let (mut rows, mut overlays, mut q) = (Vec::new(), Vec::new(), Vec::new());
    while !walks.is_empty() {
        rows.clear();
        overlays.clear();
        for (_, walk) in &walks {
            rows.push(walk.place.row);
            overlays.extend(overlay(z, walk.place.level));
        }
        let states = SampledRows::new(store.states(), &rows).with_overlay(&OVERLAY, &overlays);
        judge.q_values(&states, &mut q)?;
        let mut row = 0;
        walks.retain_mut(|(i, walk)| {
            let q_values = &q[row * ACTION_COUNT..(row + 1) * ACTION_COUNT];
            row += 1;
            let mask = model.mask(walk.place);
            let (action, probability) = course.choose(q_values, &mask, walk.rng.as_mut());
            let outcome = model.outcome(walk.place, action, z);
            watch(*i, &Move { place: walk.place, mask, q_values, action, probability, outcome });
            outcomes[*i] = walk.act(model, action, outcome);
            outcomes[*i].is_none()
        });
    }
    Ok(outcomes.into_iter().flatten().collect())
}

/// What a stopping rule reaches that gives its verdict at a window of its own choice, and convicts by the action
/// `conviction`, at this cost `z`.
pub fn stop_at(model: &AnswerModel<'_>, episode: u32, stop: Stop, conviction: Action, z: f32) -> Outcome {
    let Some(start) = model.start(episode) else { return unseen(model, episode) };
    let mut walk = Walk::new(model, start, Course::Greedy);
    loop {
        let goes_on = |action: Action| {
            model.mask(walk.place)[action.index()] && model.outcome(walk.place, action.index(), z).next.is_some()
        };
        // Before the rule's window an episode goes on, at the end of the first stage by its release.
        let onwards = [Action::Continue, Action::Release].into_iter().find(|action| goes_on(*action));
        let choice = match (onwards, stop.verdict) {
            (Some(onwards), _) if walk.windows <= stop.window => onwards,
            (_, Verdict::Benign) => Action::Release,
            (_, Verdict::Malicious) => conviction,
        };
        let outcome = model.outcome(walk.place, choice.index(), z);
        if let Some(outcome) = walk.act(model, choice.index(), outcome) {
            return outcome;
        }
    }
}

impl<'a> From<Learnt<'a>> for Policy<'a> {
    fn from(learnt: Learnt<'a>) -> Self {
        Policy::Learnt(learnt)
    }
}

impl<'a> Judge<'a> {
    pub(crate) fn new(policy: Policy<'a>) -> Result<Self, TrainingError> {
        Ok(match policy {
            Policy::Learnt(Learnt { shape, parameters, isa }) => {
                Judge::Learnt { forward: Box::new(Forward::new(shape.clone(), isa)?), parameters }
            }
            Policy::Released(engine) => {
                Judge::Released { engine, scratch: Box::new(engine.scratch()), state: vec![0.0; engine.width()] }
            }
            Policy::Doubting(networks) => {
                let forward = Box::new(Forward::new(networks.shape.clone(), networks.isa)?);
                Judge::Doubting { forward, networks, q: Vec::new(), sums: Vec::new() }
            }
        })
    }

    /// The q-values of these states, row-major.
    pub(crate) fn q_values(&mut self, states: &dyn StateRows, out: &mut Vec<f32>) -> Result<(), TrainingError> {
        match self {
            Judge::Learnt { forward, parameters } => forward.q_values(parameters, states, out)?,
            Judge::Released { engine, scratch, state } => {
                if states.width() != state.len() {
                    let (expected, found) = (state.len(), states.width());
                    return Err(LearnerError::Shape { what: "a state", expected, found }.into());
                }
                out.clear();
                for row in 0..states.len() {
                    states.gather(row, state);
                    // Q-values are those of all actions; which are allowed is the player's affair.
                    out.extend_from_slice(engine.decide_exactly(scratch, state, &[true; ACTION_COUNT])?.q_values);
                }
            }
            Judge::Doubting { forward, networks, q, sums } => {
                sums.clear();
                sums.resize(states.len() * networks.shape.actions(), [0.0; 2]);
                for parameters in networks.members {
                    forward.q_values(parameters, states, q)?;
                    for ([sum, squares], q) in sums.iter_mut().zip(q.iter().map(|q| f64::from(*q))) {
                        *sum += q;
                        *squares += q * q;
                    }
                }
                let count = networks.members.len() as f64;
                let doubt = f64::from(networks.doubt);
                out.clear();
                out.extend(sums.iter().map(|[sum, squares]| {
                    let mean = sum / count;
                    let deviation = (squares / count - mean * mean).max(0.0).sqrt();
                    (mean - doubt * deviation) as f32
                }));
            }
        }
        Ok(())
    }
}

impl Course {
    /// The action that is taken, and the probability that it is.
    fn choose(self, q_values: &[f32], mask: &[bool], rng: Option<&mut ChaCha8Rng>) -> (usize, f32) {
        let best = best(q_values, mask);
        match (self, rng) {
            (Course::ToTheEnd, _) if mask[Action::Continue.index()] => (Action::Continue.index(), 1.0),
            (Course::Soft { epsilon, .. }, Some(rng)) => {
                epsilon_greedy(Some(best), mask, f64::from(epsilon), rng).unwrap_or((best, 1.0))
            }
            _ => (best, 1.0),
        }
    }

    /// What an episode's random choices are drawn from.
    fn stream(self, episode: u32) -> Option<ChaCha8Rng> {
        match self {
            Course::Greedy | Course::ToTheEnd => None,
            Course::Soft { seed, .. } => Some(stream(seed, &format!("episode {episode}"))),
        }
    }
}

impl Walk {
    fn new(model: &AnswerModel<'_>, place: Place, course: Course) -> Walk {
        let harm_let = f64::from(model.recordings().window(place.row).costs.harm[0]);
        Walk { place, ret: 0.0, harm_let, windows: 1, isolated_at: None, rng: course.stream(place.episode) }
    }

    /// Takes an action that had this outcome; gives that of the episode where it ends.
    fn act(&mut self, model: &AnswerModel<'_>, choice: usize, outcome: answers::Outcome) -> Option<Outcome> {
        self.ret += f64::from(outcome.reward);
        let recordings = model.recordings();
        let action = Action::ALL[choice];
        if let Some(next) = outcome.next {
            if action == Action::RaiseIsolation {
                self.isolated_at = self.isolated_at.or(Some(self.windows));
            }
            self.place = next;
            self.windows += 1;
            self.harm_let += f64::from(recordings.window(next.row).costs.harm[usize::from(next.level)]);
            return None;
        }
        let facts = recordings.facts(self.place.episode);
        let episode = recordings.store().episode(self.place.episode);
        if !action.is_conviction() {
            // What is released goes on, at no isolation.
            let rest = self.place.row + 1..episode.first_row + episode.len;
            self.harm_let += rest.map(|row| f64::from(recordings.window(row).costs.harm[0])).sum::<f64>();
        }
        Some(Outcome {
            episode: self.place.episode,
            label: facts.label,
            group: episode.group,
            action,
            isolated_at: self.isolated_at,
            events: recordings.window(self.place.row).events_seen,
            windows: self.windows,
            total_events: facts.events,
            harm_let: (self.harm_let as f32).min(facts.stage_harm.iter().sum()),
            harm_total: facts.stage_harm.iter().sum(),
            ret: self.ret,
        })
    }
}

/// The outcome of a recording without a window: nothing was seen, and nothing can be convicted.
fn unseen(model: &AnswerModel<'_>, episode: u32) -> Outcome {
    let facts = model.recordings().facts(episode);
    Outcome {
        episode,
        label: facts.label,
        group: model.recordings().store().episode(episode).group,
        action: Action::Release,
        isolated_at: None,
        events: 0,
        windows: 0,
        total_events: 0,
        harm_let: 0.0,
        harm_total: 0.0,
        ret: 0.0,
    }
}
