//! The state machine of one episode: whatever can happen to it is one [`Happening`], and what follows is decided here alone.
//!
//! It does nothing itself and looks at no clock, so a list of happenings, read back from the audit trail, plays an episode again.

use std::collections::BTreeMap;
use std::fmt;

use bellwether_env_adapter::{Action, EpisodeId};
use serde::{Deserialize, Serialize};

use super::retry::Schedule;
use crate::stage::{Came, Command, DecisionId, Feedback, Refusal};
use crate::vault::Quarantined;

/// Everything that can happen to an episode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "happening", rename_all = "snake_case")]
pub enum Happening {
    /// It begins.
    Begun,
    /// The sample runs.
    Started {
        /// Stage, 1 or 2.
        stage: u8,
    },
    /// The sample could not be run.
    Unstarted {
        /// Stage, 1 or 2.
        stage: u8,
        /// Why.
        why: String,
        /// Whether trying again may help.
        passing: bool,
    },
    /// The pause before another attempt is over.
    Rested {
        /// Stage, 1 or 2.
        stage: u8,
    },
    /// A decision fell and went to the stage.
    Decided {
        /// What was commanded.
        command: Command,
        /// Why the safe rule decided, if it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        safe_rule: Option<String>,
    },
    /// The stage told what came of a command.
    Fed {
        /// What it told.
        feedback: Feedback,
    },
    /// The run at a stage is over, and nothing of the sample lives.
    Ended {
        /// Stage, 1 or 2.
        stage: u8,
        /// The verdict, if one fell.
        verdict: Option<Action>,
        /// Whether its record is whole.
        complete: bool,
    },
    /// The sample lies in the vault.
    Sealed {
        /// Under which name, and what became of the original.
        quarantined: Quarantined,
    },
    /// The sample could not be put into the vault.
    Unsealed {
        /// Why.
        why: String,
    },
}

/// Where an episode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Nothing has happened.
    New,
    /// The sample is about to run.
    Starting {
        /// Stage, 1 or 2.
        stage: u8,
    },
    /// The next attempt to run it waits.
    Resting {
        /// Stage, 1 or 2.
        stage: u8,
    },
    /// The sample runs.
    Running {
        /// Stage, 1 or 2.
        stage: u8,
    },
    /// The sample is dead and goes into the vault.
    Sealing,
    /// Nothing happens any more.
    Over,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing but wait for what happens.
    Wait,
    /// Run the sample.
    Run {
        /// Stage, 1 or 2.
        stage: u8,
    },
    /// Wait, then try again.
    Rest {
        /// Stage, 1 or 2.
        stage: u8,
        /// How long, in milliseconds.
        for_ms: u64,
    },
    /// Put the sample into the vault.
    Seal,
    /// Close the record.
    Close,
}

/// A step of an episode, as the audit trail keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// The episode.
    pub episode: EpisodeId,
    /// Number of the step, from 0.
    pub number: u64,
    /// Where the episode was.
    pub from: Phase,
    /// What happened.
    #[serde(flatten)]
    pub happening: Happening,
    /// Where the episode is now.
    pub to: Phase,
    /// It came twice, too late or out of turn, and changed nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stray: bool,
}

/// Why the record of an episode is not whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "partial", rename_all = "snake_case")]
pub enum Partial {
    /// A stage could not be run.
    Unstarted {
        /// Stage, 1 or 2.
        stage: u8,
        /// How often it was tried.
        attempts: u32,
        /// Why not, the last time.
        why: String,
    },
    /// The run at a stage went wrong.
    Stage {
        /// Stage, 1 or 2.
        stage: u8,
    },
    /// Nobody told what came of some commands.
    Feedback {
        /// How many.
        commands: usize,
    },
    /// The sample could not be put into the vault.
    Unsealed {
        /// Why.
        why: String,
    },
    /// Not all that happened could be recorded.
    Record {
        /// Why.
        why: String,
    },
}

impl fmt::Display for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Partial::Unstarted { stage, attempts, why } => {
                write!(f, "stage {stage} could not run the file in {attempts} attempts: {why}")
            }
            Partial::Stage { stage } => write!(f, "the run at stage {stage} went wrong"),
            Partial::Feedback { commands } => write!(f, "nobody told what came of {commands} actions"),
            Partial::Unsealed { why } => write!(f, "the file could not be put into the vault: {why}"),
            Partial::Record { why } => write!(f, "not all is recorded: {why}"),
        }
    }
}

/// One episode.
#[derive(Clone, Debug)]
pub struct Machine {
    episode: EpisodeId,
    stages: u8,
    phase: Phase,
    transitions: u64,
    strays: u64,
    schedule: Schedule,
    attempts: u32,
    /// Decisions of the stage that runs.
    last_step: Option<u32>,
    /// The verdict that this stage was told.
    decided: Option<Action>,
    /// Commands whose feedback is awaited.
    open: BTreeMap<DecisionId, Action>,
    /// Commands of this episode that had feedback.
    settled: BTreeMap<DecisionId, Feedback>,
    verdict: Option<Action>,
    stage: u8,
    safe_rule: u64,
    partial: Vec<Partial>,
}

impl Machine {
    /// An episode of one or two stages, in which nothing has happened.
    pub fn new(episode: EpisodeId, stages: u8, schedule: Schedule) -> Machine {
        Machine {
            episode,
            stages,
            phase: Phase::New,
            transitions: 0,
            strays: 0,
            schedule,
            attempts: 0,
            last_step: None,
            decided: None,
            open: BTreeMap::new(),
            settled: BTreeMap::new(),
            verdict: None,
            stage: 1,
            safe_rule: 0,
            partial: Vec::new(),
        }
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The verdict of the episode, once it is over. A release in stage 1 that stage 2 did not confirm is none.
    pub fn verdict(&self) -> Option<Action> {
        self.verdict
    }

    /// The stage that ran last, or was to run.
    pub fn stage(&self) -> u8 {
        self.stage
    }

    /// Why its record is not whole; empty if it is.
    pub fn partial(&self) -> &[Partial] {
        &self.partial
    }

    /// Decisions of the safe rule.
    pub fn safe_rule(&self) -> u64 {
        self.safe_rule
    }

    /// Happenings that changed nothing.
    pub fn strays(&self) -> u64 {
        self.strays
    }

    /// Notes that not all could be recorded.
    pub fn unrecorded(&mut self, why: String) {
        self.partial.push(Partial::Record { why });
        // As where a stage went wrong: nobody can show that enough was seen to call it benign.
        self.verdict = self.verdict.filter(|verdict| *verdict != Action::Release);
    }

    /// Takes what happened, and says what is to be done and what the trail keeps.
    pub fn take(&mut self, happening: Happening) -> (Next, Transition) {
        let from = self.phase;
        let next = self.follow(&happening);
        let stray = next.is_none();
        self.strays += u64::from(stray);
        let number = self.transitions;
        self.transitions += 1;
        let transition = Transition { episode: self.episode.clone(), number, from, happening, to: self.phase, stray };
        (next.unwrap_or(Next::Wait), transition)
    }

    /// What follows; `None` for what comes out of turn.
    fn follow(&mut self, happening: &Happening) -> Option<Next> {
        match (self.phase, happening) {
            (Phase::New, Happening::Begun) => Some(self.start(1)),
            (Phase::Starting { stage: at }, Happening::Started { stage }) if at == *stage => {
                self.phase = Phase::Running { stage: at };
                Some(Next::Wait)
            }
            (Phase::Starting { stage: at }, Happening::Unstarted { stage, why, passing }) if at == *stage => {
                Some(self.unstarted(at, why, *passing))
            }
            (Phase::Resting { stage: at }, Happening::Rested { stage }) if at == *stage => {
                self.phase = Phase::Starting { stage: at };
                self.attempts += 1;
                Some(Next::Run { stage: at })
            }
            (Phase::Running { stage }, Happening::Decided { command, safe_rule }) => {
                self.decided(stage, command, safe_rule.is_some())
            }
            (Phase::Running { .. }, Happening::Fed { feedback }) => self.fed(feedback),
            (
                Phase::Starting { stage: at } | Phase::Running { stage: at },
                Happening::Ended { stage, verdict, complete },
            ) if at == *stage => Some(self.ended(at, *verdict, *complete)),
            (Phase::Sealing, Happening::Sealed { .. }) => Some(self.close()),
            (Phase::Sealing, Happening::Unsealed { why }) => {
                self.partial.push(Partial::Unsealed { why: why.clone() });
                Some(self.close())
            }
            _ => None,
        }
    }

    fn start(&mut self, stage: u8) -> Next {
        self.phase = Phase::Starting { stage };
        (self.stage, self.attempts, self.last_step, self.decided) = (stage, 1, None, None);
        Next::Run { stage }
    }

    fn unstarted(&mut self, stage: u8, why: &str, passing: bool) -> Next {
        match self.schedule.pause_ms(self.attempts) {
            Some(for_ms) if passing => {
                self.phase = Phase::Resting { stage };
                Next::Rest { stage, for_ms }
            }
            _ => {
                self.partial.push(Partial::Unstarted { stage, attempts: self.attempts, why: why.to_owned() });
                self.close()
            }
        }
    }

    fn decided(&mut self, stage: u8, command: &Command, safe_rule: bool) -> Option<Next> {
        let context = &command.context;
        let in_place = context.episode == self.episode && context.stage == stage;
        let in_turn = self.last_step.is_none_or(|last| context.step > last) && self.decided.is_none();
        if !in_place || !in_turn {
            return None;
        }
        self.last_step = Some(context.step);
        self.decided = Some(command.action).filter(|action| action.is_verdict());
        self.safe_rule += u64::from(safe_rule);
        if command.action != Action::Continue {
            self.open.insert(command.decision.clone(), command.action);
        }
        Some(Next::Wait)
    }

    fn fed(&mut self, feedback: &Feedback) -> Option<Next> {
        let Some(decision) = &feedback.decision else {
            // What a stage does by itself answers no command.
            return Some(Next::Wait);
        };
        self.open.remove(decision)?;
        self.settled.insert(decision.clone(), feedback.clone());
        Some(Next::Wait)
    }

    fn ended(&mut self, stage: u8, verdict: Option<Action>, complete: bool) -> Next {
        // A stage kills by itself where it has to; it lets nothing go and locks nothing up that nobody told it to.
        let verdict = verdict.filter(|verdict| *verdict == Action::Terminate || self.decided == Some(*verdict));
        if !self.open.is_empty() {
            self.partial.push(Partial::Feedback { commands: self.open.len() });
            self.open.clear();
        }
        // What came too late for a sample that was being killed has failed nobody.
        let fine = |came: &Came| matches!(came, Came::Done { .. } | Came::Refused { why: Refusal::Over });
        let failed = |feedback: &Feedback| !fine(&feedback.came);
        let failed = self.settled.values().any(|feedback| feedback.stage == stage && failed(feedback));
        if !complete || verdict.is_none() || failed {
            self.partial.push(Partial::Stage { stage });
        }
        match verdict {
            Some(Action::Release) if stage < self.stages && self.partial.is_empty() => self.start(stage + 1),
            // Released by a run that went wrong: nobody has seen enough to call it benign.
            Some(Action::Release) if stage < self.stages || !self.partial.is_empty() => self.close(),
            Some(Action::Quarantine) => {
                self.verdict = verdict;
                self.phase = Phase::Sealing;
                Next::Seal
            }
            _ => {
                self.verdict = verdict;
                self.close()
            }
        }
    }

    fn close(&mut self) -> Next {
        self.phase = Phase::Over;
        Next::Close
    }
}
