//! Recordings: a sample watched to its end in each stage, with nothing decided about it and nothing done to it.
//!
//! They are made as samples are run that are decided on, by the same cage, tracer and windows, so that a policy that learnt from them
//! meets what it knows.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bellwether_env_adapter::{
    Action, EpisodeAttributes, EpisodeId, Event, EventBuf, EventSink, RewardConfig, StateVector, WindowConfig,
};

use crate::Limits;
use crate::stage::{
    Beside, Command, Course, Ended, Feedback, Kept, LocalStage, Order, Outcome, Question, Specimen, StageError,
};

/// Times are kept in steps of a microsecond: what is below is the tracer's, not the sample's, and would be half of a file.
const STEP_NS: u64 = 1_000;

/// What is to be recorded.
#[derive(Clone, Debug)]
pub struct Take {
    /// The episode.
    pub episode: EpisodeId,
    /// What runs.
    pub sample: Arc<Specimen>,
    /// What lies beside it.
    pub beside: Vec<Beside>,
    /// The stages that it runs in, one after the other: within 1 and 2.
    pub stages: RangeInclusive<u8>,
    /// What it may use up in stage 1 and in stage 2.
    pub limits: [Limits; 2],
    /// Seed of the made-up home.
    pub seed: u64,
    /// Events of a stage that are kept. A sample that goes on is killed, and the recording is not complete.
    pub most_events: usize,
}

/// A recording in memory: at most the events that were asked for, a few hundred bytes each.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// Events of all stages, in order.
    pub events: Vec<EventBuf>,
    /// How the sample ended in each stage.
    pub outcomes: Vec<Outcome>,
    /// Whether a stage had more events than were kept.
    pub cut: bool,
}

impl Recording {
    /// Runs a sample and records it.
    ///
    /// # Errors
    /// The sample did not start in one of the stages. What went wrong later is part of the outcomes.
    pub fn make(take: &Take) -> Result<Recording, StageError> {
        let mut recording = Recording::default();
        for stage in take.stages.clone() {
            let order = Order {
                episode: take.episode.clone(),
                stage,
                sample: Arc::clone(&take.sample),
                window: WindowConfig::default(),
                reward: RewardConfig::default(),
                limits: take.limits[usize::from(stage.clamp(1, 2)) - 1].clone(),
                seed: take.seed,
            };
            let room = take.most_events;
            let mut watching = Watching { events: &mut recording.events, room, cut: false };
            let outcome = LocalStage.run_beside(&order, &take.beside, &mut watching)?;
            recording.cut |= watching.cut;
            recording.outcomes.push(outcome);
        }
        Ok(recording)
    }

    /// Whether the sample was followed from its first to its last instruction, and nothing went wrong.
    pub fn is_complete(&self) -> bool {
        !self.cut && self.outcomes.iter().all(Outcome::is_complete)
    }

    /// Why the recording is none of a program that did what it should, if so: something went wrong, its time ran out, or it ended
    /// with anything but status 0 in a stage that was seen to the end.
    pub fn failure(&self) -> Option<String> {
        self.outcomes.iter().find_map(|outcome| {
            let Outcome { stage, ended, faults, .. } = outcome;
            if let Some(fault) = faults.first() {
                return Some(format!("stage {stage}: {fault}"));
            }
            let how = match ended {
                Ended::Exited { code: 0 } => return None,
                Ended::Killed { .. } if self.cut => return None,
                Ended::Exited { code } => format!("it ended with status {code}"),
                Ended::Killed { signal } => format!("it was killed by signal {signal}"),
                Ended::Unknown => "nobody saw it end".to_owned(),
            };
            Some(format!("stage {stage}: {how} after {} ms", outcome.run_ms))
        })
    }

    /// Gives the recording to a sink, as an episode.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn replay<S: EventSink>(&self, attributes: &EpisodeAttributes, sink: &mut S) -> Result<(), S::Error> {
        sink.begin(attributes)?;
        self.events.iter().try_for_each(|event| sink.event(&event.as_event()))?;
        sink.end(self.is_complete())
    }
}

/// Keeps events and lets the sample go on while there is room.
struct Watching<'a> {
    events: &'a mut Vec<EventBuf>,
    room: usize,
    cut: bool,
}

impl Course for Watching<'_> {
    fn event(&mut self, event: &Event<'_>) -> Kept {
        match self.room.checked_sub(1) {
            Some(left) => {
                self.room = left;
                let time_ns = event.time_ns.map(|time| time - time % STEP_NS);
                self.events.push(EventBuf { time_ns, ..EventBuf::from(event) });
            }
            None => self.cut = true,
        }
        Kept::Yes
    }

    fn window(&mut self, question: &Question, _: &StateVector) -> Command {
        // A release ends the sample and says nothing of it.
        let over = self.cut || question.close.is_last();
        Command::to(question, if over { Action::Release } else { Action::Continue })
    }

    fn feedback(&mut self, _: Feedback) {}
}
