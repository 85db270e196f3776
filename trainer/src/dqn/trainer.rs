//! The loop: an action in one environment, what it led to into the buffer, and updates at their interval.

use super::update::{Updater, require};
use super::{DqnConfig, DqnError, DqnEvent, DqnObserver, DqnReport};
use crate::greedy::{epsilon_greedy, greedy};
use crate::learner::{Learner, LearnerChoice, TargetSync};
use crate::streams::stream;
use bellwether_env_adapter::Environment;
use bellwether_replay::{ActionMask, BufferConfig, DenseRows, Outcome, Played, ReplayBuffer, ReplayError, StreamId};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// A DQN run: environments, what was played in them, and the learner.
///
/// Environments take their steps in turn, so that everything that happens at an interval of environment steps happens
/// exactly there, however many environments there are.
pub struct DqnTrainer<E> {
    pub(super) config: DqnConfig,
    pub(super) updater: Updater,
    pub(super) learner: Box<dyn Learner>,
    pub(super) buffer: ReplayBuffer,
    pub(super) seats: Vec<Seat<E>>,
    /// Draws what is played at random.
    pub(super) exploration: ChaCha8Rng,
    /// Draws the seeds of episodes.
    pub(super) environment: ChaCha8Rng,
    pub(super) environment_steps: u64,
    pub(super) episodes: u64,
    /// Q-values of the state that is acted in.
    q: Vec<f32>,
}

/// One environment and the episode under way in it.
pub(super) struct Seat<E> {
    pub(super) env: E,
    pub(super) stream: StreamId,
    /// Whether an episode is under way.
    pub(super) playing: bool,
    /// Its seed.
    pub(super) seed: u64,
    /// What was played in it: with the seed, this is the episode once more.
    pub(super) actions: Vec<u32>,
    pub(super) total: f64,
    pub(super) observation: Vec<f32>,
    pub(super) mask: Vec<bool>,
}

impl<E: Environment> Seat<E> {
    fn new(env: E, stream: StreamId) -> Seat<E> {
        let (observation, mask) = (vec![0.0; env.width()], vec![false; env.actions()]);
        Seat { env, stream, playing: false, seed: 0, actions: Vec::new(), total: 0.0, observation, mask }
    }

    /// Starts an episode.
    pub(super) fn reset(&mut self, seed: u64) {
        self.env.reset(seed);
        (self.seed, self.total, self.playing) = (seed, 0.0, true);
        self.actions.clear();
        self.look();
    }

    /// Reads observation and mask. After the end of an episode the mask says nothing, so an empty one allows all.
    pub(super) fn look(&mut self) {
        self.env.observe(&mut self.observation);
        self.env.mask(&mut self.mask);
        if !self.playing && !self.mask.contains(&true) {
            self.mask.fill(true);
        }
    }

    fn allowed(&self) -> ActionMask {
        ActionMask::from_bools(&self.mask)
    }
}

impl<E: Environment> DqnTrainer<E> {
    /// A run with the learner that was chosen.
    ///
    /// # Errors
    /// On a bad configuration, without environments, and if they differ in width or actions.
    pub fn new(config: DqnConfig, environments: Vec<E>, learner: impl Into<LearnerChoice>) -> Result<Self, DqnError> {
        config.validate()?;
        let Some(first) = environments.first() else {
            return Err(DqnError::Environment { environment: 0, reason: "there is none; give at least one".into() });
        };
        let shape = config.network.shape(first.width(), first.actions())?;
        let parameters = shape.initial_parameters(&mut stream(config.seed, "init"));
        let learner = learner.into().make(shape, &parameters)?;
        Self::with_learner(config, environments, learner)
    }

    /// A run with a learner that was made elsewhere.
    ///
    /// # Errors
    /// As for [`new`](Self::new), and if the learner's network or abilities do not fit.
    pub fn with_learner(config: DqnConfig, environments: Vec<E>, learner: Box<dyn Learner>) -> Result<Self, DqnError> {
        config.validate()?;
        let (width, actions) = (learner.shape().inputs(), learner.shape().actions());
        if environments.is_empty() {
            return Err(DqnError::Environment { environment: 0, reason: "there is none; give at least one".into() });
        }
        let (mut seats, capacity) = (Vec::new(), config.buffer_capacity);
        // Between two steps of one environment every other adds two states at most: a last one and a first one.
        let fits = capacity >= 2 * environments.len();
        require("buffer_capacity", capacity, fits, "choose at least two states for each environment")?;
        let buffer = BufferConfig { width, actions: actions as u32, capacity };
        let mut buffer = match config.update.priorities() {
            None => ReplayBuffer::new(buffer)?,
            Some(priorities) => ReplayBuffer::with_priorities(buffer, priorities)?,
        };
        for (environment, env) in environments.into_iter().enumerate() {
            if (env.width(), env.actions()) != (width, actions) {
                let (found, other) = (env.width(), env.actions());
                let reason =
                    format!("{found} elements and {other} actions where the network has {width} and {actions}");
                return Err(DqnError::Environment { environment, reason });
            }
            seats.push(Seat::new(env, buffer.add_stream()));
        }
        let spec = config.update.spec(learner.shape());
        learner.supports(&spec)?;
        Ok(DqnTrainer {
            updater: Updater::new(config.update.clone(), spec, config.seed),
            exploration: stream(config.seed, "exploration"),
            environment: stream(config.seed, "environment"),
            config,
            learner,
            buffer,
            seats,
            environment_steps: 0,
            episodes: 0,
            q: Vec::new(),
        })
    }

    /// Plays and learns until all steps are taken or the observer stops the run, which can then be called again.
    ///
    /// # Errors
    /// On divergence, and if an environment does not keep its contract.
    pub fn run(&mut self, observer: &mut impl DqnObserver) -> Result<DqnReport, DqnError> {
        let (epsilon, target) = (self.config.epsilon(), self.config.target_schedule());
        let mut stopped = false;
        while self.environment_steps < self.config.total_steps && !stopped {
            let warm = self.environment_steps >= self.config.learning_starts;
            let chance = if warm { epsilon.at(self.environment_steps) } else { 1.0 };
            let ended = self.play(chance)?;
            let sync = target.after(self.environment_steps);
            if sync != TargetSync::Keep {
                self.learner.sync_target(sync)?;
            }
            if let Some(event) = ended {
                stopped |= observer.observe(&event).is_break();
            }
            let due = self.environment_steps.is_multiple_of(self.config.train_interval);
            if due && self.environment_steps > self.config.learning_starts {
                let event = self.learn(epsilon.at(self.environment_steps))?;
                stopped |= observer.observe(&event).is_break();
            }
        }
        Ok(DqnReport {
            environment_steps: self.environment_steps,
            updates: self.updater.updates(),
            episodes: self.episodes,
            finished: self.environment_steps >= self.config.total_steps,
        })
    }

    /// The learner, for evaluation and export.
    pub fn learner(&mut self) -> &mut dyn Learner {
        self.learner.as_mut()
    }

    /// What was played, as far as the buffer holds it.
    pub fn buffer(&self) -> &ReplayBuffer {
        &self.buffer
    }

    /// The configuration of the run.
    pub fn config(&self) -> &DqnConfig {
        &self.config
    }

    /// Takes one step in the environment whose turn it is; gives the end of its episode, if it ended.
    fn play(&mut self, epsilon: f64) -> Result<Option<DqnEvent>, DqnError> {
        let environment = (self.environment_steps % self.seats.len() as u64) as usize;
        let seat = &mut self.seats[environment];
        // What the buffer refuses came from this environment: an observation, a mask or a reward.
        let broken = |error: ReplayError| DqnError::Environment { environment, reason: error.to_string() };
        if !seat.playing {
            seat.reset(self.environment.next_u64());
            self.buffer.begin(seat.stream, &seat.observation, seat.allowed()).map_err(broken)?;
        }
        let factors = self.updater.acting_noise(self.learner.shape());
        let chosen = choose(self.learner.as_mut(), seat, epsilon, &mut self.exploration, (factors, &mut self.q))?;
        let (action, behaviour_probability) = chosen.ok_or_else(|| {
            let reason = "no action is allowed in an episode that has not ended".to_owned();
            DqnError::Environment { environment, reason }
        })?;
        let step = seat.env.step(action);
        let played = Played { action: action as u32, reward: step.reward, behaviour_probability };
        seat.playing = !(step.terminated || step.truncated);
        seat.actions.push(action as u32);
        seat.total += f64::from(step.reward);
        seat.look();
        let mask = seat.allowed();
        let outcome = if step.terminated {
            Outcome::Terminated
        } else if step.truncated {
            Outcome::Truncated { observed: Some((&seat.observation, mask)) }
        } else {
            Outcome::Continues { state: &seat.observation, mask }
        };
        self.buffer.append(seat.stream, played, outcome).map_err(broken)?;
        self.environment_steps += 1;
        if seat.playing {
            return Ok(None);
        }
        self.episodes += 1;
        Ok(Some(DqnEvent::Episode {
            environment_steps: self.environment_steps,
            environment,
            episode_return: seat.total,
            length: seat.actions.len() as u64,
            terminated: step.terminated,
        }))
    }

    /// One round of updates.
    fn learn(&mut self, epsilon: f64) -> Result<DqnEvent, DqnError> {
        let (mut sums, mut largest) = ([0.0; 4], 0.0f64);
        for _ in 0..self.config.gradient_steps {
            self.updater.draw(&self.buffer, self.learner.shape().actions())?;
            let report = self.updater.update(self.learner.as_mut(), &mut self.buffer)?;
            let figures = [report.loss, report.mean_q, report.mean_target, report.gradient_norm];
            for (sum, figure) in sums.iter_mut().zip(figures) {
                *sum += f64::from(figure);
            }
            largest = largest.max(f64::from(report.max_error));
        }
        let [loss, mean_q, mean_target, gradient_norm] = sums.map(|sum| sum / f64::from(self.config.gradient_steps));
        Ok(DqnEvent::Updates {
            environment_steps: self.environment_steps,
            updates: self.updater.updates(),
            epsilon,
            loss,
            mean_q,
            mean_target,
            max_error: largest,
            gradient_norm,
            transitions: self.buffer.transitions(),
        })
    }
}

/// Epsilon-greedy among the allowed actions, by the network with this noise; see [`epsilon_greedy`].
fn choose<E: Environment>(
    learner: &mut dyn Learner,
    seat: &Seat<E>,
    epsilon: f64,
    rng: &mut ChaCha8Rng,
    (factors, q): (&[f32], &mut Vec<f32>),
) -> Result<Option<(usize, f32)>, DqnError> {
    let best = if epsilon < 1.0 {
        learner.q_values(&DenseRows::new(seat.observation.len(), &seat.observation), factors, q)?;
        greedy(q, &seat.mask)
    } else {
        None
    };
    Ok(epsilon_greedy(best, &seat.mask, epsilon, rng))
}
