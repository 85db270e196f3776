//! Making an episode happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bellwether_env_adapter::{
    ACTION_COUNT, Action, ActionMask, EpisodeAttributes, EpisodeId, Event, Label, RewardConfig, StateVector,
    WindowConfig,
};
use serde::{Deserialize, Serialize};

use super::folder::EpisodeFolder;
use super::journal::Subject;
use super::judge::{Away, Judge, Judgement, safe_rule};
use super::machine::{Happening, Machine, Next, Partial};
use super::record::{Decided, Entry, Listener, Plan, RecordError, Recorded, Recorder};
use super::retry::{Clock, Schedule};
use crate::Limits;
use crate::stage::{
    Bring, Brought, Close, Command, Course, DecisionId, Feedback, Grounds, Kept, Order, Outcome, Question, Specimen,
    Stage,
};
use crate::vault::{Quarantined, SampleIdentity};

/// What an episode is about.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its name, unique for ever.
    pub episode: EpisodeId,
    /// What runs.
    pub sample: Arc<Specimen>,
    /// What it is.
    pub identity: SampleIdentity,
    /// Its label, where that is known: rewards rest on it.
    pub label: Option<Label>,
    /// Its family, where that is known.
    pub family: Option<String>,
    /// Stages, 1 or 2: whether a release in stage 1 is looked at again.
    pub stages: u8,
    /// How events are cut into windows.
    pub window: WindowConfig,
    /// What windows and verdicts are worth.
    pub reward: RewardConfig,
    /// What the sample may use up in each stage.
    pub limits: [Limits; 2],
    /// Seed of the made-up home.
    pub seed: u64,
    /// What plays, as JSON, for the file of steps.
    pub policy: Option<String>,
    /// When a stage that does not answer is asked again.
    pub schedule: Schedule,
    /// Folder for the files of the episode.
    pub folder: EpisodeFolder,
    /// Tells the time, in milliseconds since 1970 in UTC; no decision rests on it.
    pub now_ms: fn() -> u64,
}

/// What makes an episode happen.
pub struct Episode<'a> {
    /// Runs samples at stage 1 and 2.
    pub stages: [&'a dyn Stage; 2],
    /// Decides.
    pub judge: &'a mut dyn Judge,
    /// Puts the sample into the vault, on this decision; says what came of it, or why not.
    pub seal: &'a mut dyn FnMut(&DecisionId) -> Result<Quarantined, String>,
    /// Hear of it.
    pub listeners: Vec<Box<dyn Listener>>,
    /// Lets time pass between attempts.
    pub clock: &'a dyn Clock,
    /// Once it is true the sample is killed, and the episode ends without a verdict unless one has fallen.
    pub stop: &'a AtomicBool,
}

/// A decision, as reports tell it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Its name.
    pub decision: DecisionId,
    /// Stage, 1 or 2.
    pub stage: u8,
    /// Number of the window in the stage, from 0.
    pub window: u32,
    /// Events of the window.
    pub events: u32,
    /// Events of the stage so far.
    pub events_seen: u64,
    /// Time since the stage began, in nanoseconds.
    pub time_ns: u64,
    /// Why it was asked for.
    pub close: Close,
    /// Allowed actions, by number.
    pub mask: ActionMask,
    /// What each action is worth to the policy; absent where the safe rule decided.
    pub q_values: Option<[f32; ACTION_COUNT]>,
    /// Lead over the next best allowed action; absent where nothing else is allowed, or the safe rule decided.
    pub margin: Option<f32>,
    /// Version of the model; absent where the safe rule decided.
    pub model_version: Option<String>,
    /// Why the safe rule decided; absent where the policy did.
    pub safe_rule: Option<String>,
    /// The action.
    pub action: Action,
    /// Isolation level in force.
    pub level: u8,
    /// Isolation level afterwards.
    pub level_after: u8,
    /// How long the decision took, in microseconds.
    pub took_us: u64,
}

/// What came of an episode.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Its name.
    pub episode_id: EpisodeId,
    /// The sample.
    pub sample: SampleIdentity,
    /// Seed of the made-up home; absent where a journal of before it was written down was recovered.
    pub seed: Option<u64>,
    /// When each stage began, in milliseconds since 1970 in UTC; absent for one that did not.
    pub began_ms: [Option<u64>; 2],
    /// `release`, `terminate` or `quarantine`; null where none fell.
    pub verdict: Option<Action>,
    /// The stage in which it fell, or which failed.
    pub stage: u8,
    /// Every decision, in order.
    pub decisions: Vec<Decision>,
    /// What came of every action.
    pub feedback: Vec<Feedback>,
    /// How the runs ended, one for each stage that ran.
    pub outcomes: Vec<Outcome>,
    /// Where the sample lies in the vault and what became of the original; null where it does not.
    pub quarantine: Option<Quarantined>,
    /// Why the record is not whole; empty if it is.
    pub partial: Vec<Partial>,
    /// Decisions of the safe rule.
    pub safe_rule: u64,
    /// Happenings that came twice, too late or out of turn, and changed nothing.
    pub strays: u64,
    /// The files of the episode, where they could be written.
    pub files: Option<Recorded>,
}

/// Runs an episode to its end. Nothing of the sample lives when this returns. A journal stays in the folder, for whoever is killed while
/// he makes more of the report, until [`EpisodeFolder::settle`].
///
/// # Errors
/// The files of the episode cannot be begun; nothing has run then. Whatever happens later is part of the report.
pub fn run(setup: &Setup, episode: Episode<'_>) -> Result<Report, RecordError> {
    let Episode { stages, judge, seal, listeners, clock, stop } = episode;
    let recorder = Recorder::start(Plan { folder: setup.folder.path(), subject: setup.subject(), listeners })?;
    let mut conduct = Conduct {
        machine: Machine::new(setup.episode.clone(), setup.stages, setup.schedule),
        judge,
        recorder,
        stop,
        started: false,
        now_ms: setup.now_ms,
        began_ms: [None; 2],
        decisions: Vec::new(),
        feedback: Vec::new(),
    };
    let mut outcomes = Vec::new();
    let mut quarantine = None;
    let mut next = conduct.happened(Happening::Begun);
    loop {
        next = match next {
            Next::Run { stage } if stop.load(Ordering::Relaxed) => {
                let why = "the episode was told to stop".to_owned();
                conduct.happened(Happening::Unstarted { stage, why, passing: false })
            }
            Next::Run { stage } => {
                conduct.started = false;
                let order = setup.order(stage);
                let runs = stages[usize::from(stage.clamp(1, 2)) - 1];
                let happening = match runs.run(&order, &mut conduct) {
                    Ok(outcome) => {
                        let (verdict, complete) = (outcome.verdict, outcome.is_complete());
                        conduct.recorder.put(Entry::Outcome(Box::new(outcome.clone())));
                        outcomes.push(outcome);
                        Happening::Ended { stage, verdict, complete }
                    }
                    Err(error) => Happening::Unstarted { stage, why: error.to_string(), passing: error.is_passing() },
                };
                conduct.happened(happening)
            }
            Next::Rest { stage, for_ms } => {
                if !stop.load(Ordering::Relaxed) {
                    clock.sleep(Duration::from_millis(for_ms));
                }
                conduct.happened(Happening::Rested { stage })
            }
            Next::Seal => {
                let decision = conduct.decisions.last().map(|decision| decision.decision.clone());
                let sealed = match decision {
                    // The original goes when it is sealed: not before it is on record why.
                    Some(_) if !conduct.recorder.has_kept_all() => Err("the decision could not be recorded".to_owned()),
                    Some(id) => seal(&id),
                    None => Err("no decision asks for it".to_owned()),
                };
                let happening = match sealed {
                    Ok(quarantined) => Happening::Sealed { quarantined: quarantine.insert(quarantined).clone() },
                    Err(why) => Happening::Unsealed { why },
                };
                conduct.happened(happening)
            }
            // Nothing that has happened leaves an episode without something to do before its end.
            Next::Close | Next::Wait => break,
        };
    }
    let Conduct { mut machine, recorder, began_ms, decisions, feedback, .. } = conduct;
    let (files, error) = recorder.close(machine.partial().is_empty(), machine.verdict().is_some());
    if let Some(error) = error {
        machine.unrecorded(error.to_string());
    }
    Ok(Report {
        episode_id: setup.episode.clone(),
        sample: setup.identity.clone(),
        seed: Some(setup.seed),
        began_ms,
        verdict: machine.verdict(),
        stage: machine.stage(),
        decisions,
        feedback,
        outcomes,
        quarantine,
        partial: machine.partial().to_vec(),
        safe_rule: machine.safe_rule(),
        strays: machine.strays(),
        files,
    })
}

impl Setup {
    fn subject(&self) -> Subject {
        Subject {
            attributes: EpisodeAttributes {
                episode_id: self.episode.clone(),
                label: self.label,
                family: self.family.clone(),
                source: Some("sandbox".to_owned()),
                sample_sha256: Some(self.identity.sha256.to_string()),
                complete: true,
            },
            sample: self.identity.clone(),
            stages: self.stages,
            schedule: self.schedule,
            reward: self.reward.clone(),
            window: self.window.clone(),
            policy: self.policy.clone(),
            seed: Some(self.seed),
        }
    }

    fn order(&self, stage: u8) -> Order {
        let [first, second] = &self.limits;
        Order {
            episode: self.episode.clone(),
            stage,
            sample: Arc::clone(&self.sample),
            window: self.window.clone(),
            reward: self.reward.clone(),
            limits: if stage == 1 { first.clone() } else { second.clone() },
            seed: self.seed,
        }
    }
}

/// The course of an episode's runs.
struct Conduct<'a> {
    machine: Machine,
    judge: &'a mut dyn Judge,
    recorder: Recorder,
    stop: &'a AtomicBool,
    started: bool,
    now_ms: fn() -> u64,
    began_ms: [Option<u64>; 2],
    decisions: Vec<Decision>,
    feedback: Vec<Feedback>,
}

impl Conduct<'_> {
    fn happened(&mut self, happening: Happening) -> Next {
        let (next, transition) = self.machine.take(happening);
        self.recorder.put(Entry::Transition(Box::new(transition)));
        next
    }

    /// Decides, and keeps what holds once the stage has it.
    fn decide(&mut self, question: &Question, state: &StateVector, bring: Bring<'_>) -> Command {
        let asked = Instant::now();
        let mut state = state.clone();
        let judged = self.judge.judge(question, &mut state).and_then(|judgement| {
            let allowed = question.mask[judgement.action.index()];
            if allowed { Ok(judgement) } else { Err(Away::Refused("it chose what is not allowed".to_owned())) }
        });
        let took_us = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
        let action = judged.as_ref().map_or_else(|_| safe_rule(question), |judgement| judgement.action);
        let mut command = Command::to(question, action);
        let mut grounds = Grounds::of(judged);
        if let Brought::Late { action, limit_ms } = bring(&command, &grounds) {
            command = Command::to(question, action);
            grounds = Grounds::of(Err(Away::Overdue { limit_ms }));
        }
        let Grounds { q_values, margin, model_version, safe_rule } = grounds;
        let decision = Decision {
            decision: command.decision.clone(),
            stage: question.stage,
            window: question.window,
            events: question.events,
            events_seen: question.events_seen,
            time_ns: question.time_ns,
            close: question.close,
            mask: question.mask,
            q_values,
            margin,
            model_version,
            safe_rule: safe_rule.clone(),
            action: command.action,
            level: command.context.level,
            level_after: command.context.level_after,
            took_us,
        };
        self.decisions.push(decision.clone());
        let decided = Decided { question: question.clone(), command: command.clone(), state, decision };
        self.recorder.put(Entry::Decided(Box::new(decided)));
        self.happened(Happening::Decided { command: command.clone(), safe_rule });
        command
    }
}

impl Grounds {
    /// Of a judgement, or of the safe rule.
    fn of(judged: Result<Judgement, Away>) -> Grounds {
        match judged {
            Ok(Judgement { q_values, margin, model_version, .. }) => {
                Grounds { q_values: Some(q_values), margin, model_version: Some(model_version), safe_rule: None }
            }
            Err(away) => Grounds { safe_rule: Some(away.to_string()), ..Grounds::default() },
        }
    }
}

impl Course for Conduct<'_> {
    fn event(&mut self, event: &Event<'_>) -> Kept {
        if !self.started {
            self.started = true;
            let (stage, ms) = (event.stage.clamp(1, 2), (self.now_ms)());
            self.began_ms[usize::from(stage) - 1] = Some(ms);
            self.recorder.put(Entry::Began { stage, ms });
            self.happened(Happening::Started { stage: event.stage });
        }
        if self.recorder.event(event) { Kept::Yes } else { Kept::No }
    }

    fn window(&mut self, question: &Question, state: &StateVector) -> Command {
        self.decide(question, state, &mut |_, _| Brought::Taken)
    }

    fn window_elsewhere(&mut self, question: &Question, state: &StateVector, bring: Bring<'_>) {
        self.decide(question, state, bring);
    }

    fn gone(&self) -> Option<String> {
        self.stop.load(Ordering::Relaxed).then(|| "the episode was told to stop".to_owned())
    }

    fn feedback(&mut self, feedback: Feedback) {
        self.feedback.push(feedback.clone());
        self.happened(Happening::Fed { feedback });
    }
}
