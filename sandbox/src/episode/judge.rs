//! Who decides: the policy, and the safe rule when it is away.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use bellwether_artifact::Sha256;
use bellwether_env_adapter::spec::{FeatureSpec, WIDTH};
use bellwether_env_adapter::{ACTION_COUNT, Action, EpisodeId, StateVector, WindowConfig};
use bellwether_inference::{Backend, Decider, Policy};

use crate::stage::Question;

/// Answers the question at the close of a window.
pub trait Judge: Send {
    /// Decides. What the decision rests on beside the events, such as the cost of a false positive, is written into the state.
    ///
    /// # Errors
    /// There is no answer, and [`safe_rule`] applies.
    fn judge(&mut self, question: &Question, state: &mut StateVector) -> Result<Judgement, Away>;
}

/// What a policy decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Its action, which the mask allows.
    pub action: Action,
    /// What each action is worth to it, by number.
    pub q_values: [f32; ACTION_COUNT],
    /// Lead over the next best allowed action, if there is one.
    pub margin: Option<f32>,
    /// Version of the model.
    pub model_version: String,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Away {
    /// It did not come in time.
    #[error("no answer within {limit_ms} ms")]
    Late {
        /// How long was waited, in milliseconds.
        limit_ms: u64,
    },
    /// It did not come to the stage in time, which applied the safe rule by itself.
    #[error("the stage had no answer within {limit_ms} ms")]
    Overdue {
        /// How long the stage waited, in milliseconds.
        limit_ms: u64,
    },
    /// The policy refuses the state.
    #[error("refused: {0}")]
    Refused(String),
    /// Nobody is there to answer.
    #[error("nobody answers")]
    Gone,
}

/// Why a policy cannot steer a sandbox.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum JudgeError {
    /// It chooses among other actions.
    #[error("the model chooses among other actions than a sandbox has: take one that was trained for a sandbox")]
    Actions,
    /// It reads other states.
    #[error("the model reads other states than are computed here: take one of this version's feature specification")]
    States,
    /// It was not calibrated for the rate.
    #[error("the model was not calibrated for a false-positive rate of {target}; it knows {known}")]
    OperatingPoint {
        /// The rate.
        target: f64,
        /// Rates that it knows.
        known: String,
    },
    /// The system gives no thread to decide on.
    #[error(
        "the system gives no thread to decide on ({0}): run fewer at once, or raise the limit on tasks (ulimit -u)"
    )]
    NoThread(String),
}

/// What is done without an answer: isolation is raised by a level at each window, and when a verdict must fall it is
/// `terminate`, which keeps the file: nobody has seen that the sample is harmless, and nobody that it is not.
pub fn safe_rule(question: &Question) -> Action {
    let allowed = |action: &Action| question.mask[action.index()];
    [Action::RaiseIsolation, Action::Continue].into_iter().find(allowed).unwrap_or(Action::Terminate)
}

/// The policy in this process, at one operating point.
#[derive(Debug)]
pub struct PolicyJudge {
    decider: Decider,
    number: u64,
    target_fpr: f64,
}

/// The windows that a policy was trained on.
pub fn window_of(policy: &Policy) -> WindowConfig {
    let limits = policy.window();
    WindowConfig { max_events: limits.max_events, max_ns: limits.max_ns, max_windows: limits.max_windows }
}

/// Whether a model chooses among the actions of a sandbox and reads the states that are made here.
pub(super) fn fits(
    actions: &[String],
    width: usize,
    feature_spec: Sha256,
    window: WindowConfig,
) -> Result<(), JudgeError> {
    if !actions.iter().eq(Action::ALL.iter().map(|action| action.name())) {
        return Err(JudgeError::Actions);
    }
    match width == WIDTH && feature_spec == Sha256::from_bytes(FeatureSpec::v1(window).hash()) {
        true => Ok(()),
        false => Err(JudgeError::States),
    }
}

/// Whether a model was calibrated for a rate.
pub(super) fn knows(rates: &[f64], target: f64) -> Result<(), JudgeError> {
    if rates.contains(&target) {
        return Ok(());
    }
    let known = rates.iter().map(f64::to_string).collect::<Vec<_>>().join(", ");
    Err(JudgeError::OperatingPoint { target, known })
}

/// The number of an episode, which chooses among champion and canary: the one that a server gives an episode of this name.
pub(super) fn number_of(episode: &EpisodeId) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&Sha256::of(episode.0.as_bytes()).as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

impl PolicyJudge {
    /// A judge of one episode, which keeps its model while both champion and canary are served.
    ///
    /// # Errors
    /// A policy that was not made for a sandbox, or does not know the rate.
    pub fn new(policy: &Policy, episode: &EpisodeId, target_fpr: f64) -> Result<PolicyJudge, JudgeError> {
        let contract = policy.contract();
        fits(&contract.actions, contract.width, contract.feature_spec, window_of(policy))?;
        let number = number_of(episode);
        let mut decider = policy.decider();
        let known: Vec<f64> =
            decider.hold(Some(number), |held| held.operating_points().iter().map(|point| point.target_fpr).collect());
        knows(&known, target_fpr)?;
        Ok(PolicyJudge { decider, number, target_fpr })
    }
}

/// The policy in this process, as long as is bearable.
///
/// The native engine decides on the thread that asks, in microseconds: sooner than another thread could be woken, which on a busy host
/// takes longer than a window may wait. How long a graph takes in ONNX Runtime nobody knows, so it has a thread of its own and
/// `limit` ([`Patient`]).
///
/// # Errors
/// As [`PolicyJudge::new`], and [`JudgeError::NoThread`].
pub fn in_process(
    policy: &Policy,
    episode: &EpisodeId,
    target_fpr: f64,
    limit: Duration,
) -> Result<Box<dyn Judge>, JudgeError> {
    let mut judge = PolicyJudge::new(policy, episode, target_fpr)?;
    let backend = judge.decider.hold(Some(judge.number), |held| held.backend());
    Ok(match backend {
        Backend::Native => Box::new(judge),
        _ => Box::new(Patient::new(judge, limit).map_err(|error| JudgeError::NoThread(error.to_string()))?),
    })
}

impl Judge for PolicyJudge {
    fn judge(&mut self, question: &Question, state: &mut StateVector) -> Result<Judgement, Away> {
        let PolicyJudge { decider, number, target_fpr } = self;
        decider.hold(Some(*number), |held| {
            let point = held.operating_points().iter().find(|point| point.target_fpr == *target_fpr);
            let point = point.ok_or_else(|| Away::Refused(format!("no operating point {target_fpr}")))?;
            state.set_cost(point.cost);
            let answer = held.decide(state.as_slice(), &question.mask);
            let answer = answer.map_err(|error| Away::Refused(error.to_string()))?;
            let mut q_values = [0.0; ACTION_COUNT];
            q_values.copy_from_slice(answer.decision.q_values);
            Ok(Judgement {
                action: Action::from_index(answer.decision.action).ok_or(Away::Gone)?,
                q_values,
                margin: answer.decision.margin,
                model_version: answer.model.version.to_string(),
            })
        })
    }
}

/// Waits for another judge for so long and no longer. Answers that come later are thrown away.
#[derive(Debug)]
pub struct Patient {
    asked: SyncSender<(Question, StateVector)>,
    answers: Receiver<Answer>,
    limit: Duration,
}

#[derive(Debug)]
struct Answer {
    stage: u8,
    step: u32,
    state: StateVector,
    judged: Result<Judgement, Away>,
}

impl Patient {
    /// Puts a judge on a thread of its own, which ends after the last question once this is dropped.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn new(mut judge: impl Judge + 'static, limit: Duration) -> std::io::Result<Patient> {
        // One question waits at most: whoever is behind by more is away.
        let (asked, questions) = mpsc::sync_channel::<(Question, StateVector)>(1);
        let (answer, answers) = mpsc::channel();
        thread::Builder::new().name("judge".to_owned()).spawn(move || {
            for (question, mut state) in questions {
                let judged = judge.judge(&question, &mut state);
                if answer.send(Answer { stage: question.stage, step: question.step, state, judged }).is_err() {
                    return;
                }
            }
        })?;
        Ok(Patient { asked, answers, limit })
    }
}

impl Judge for Patient {
    fn judge(&mut self, question: &Question, state: &mut StateVector) -> Result<Judgement, Away> {
        let late = Away::Late { limit_ms: u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX) };
        let until = Instant::now() + self.limit;
        match self.asked.try_send((question.clone(), state.clone())) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(late),
            Err(TrySendError::Disconnected(_)) => return Err(Away::Gone),
        }
        loop {
            match self.answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(answer) if (answer.stage, answer.step) == (question.stage, question.step) => {
                    *state = answer.state;
                    return answer.judged;
                }
                // To a question that is closed.
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Err(late),
                Err(RecvTimeoutError::Disconnected) => return Err(Away::Gone),
            }
        }
    }
}
