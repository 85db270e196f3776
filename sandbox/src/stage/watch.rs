//! What sits between the tracer and the course of a run: cuts events into windows, asks, and has done what is answered.
//!
//! It runs on the tracer's thread. While a question is open the task whose event closed the window is stopped, and so is every
//! other one at its next recorded call.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bellwether_env_adapter::reward::Toll;
use bellwether_env_adapter::{Action, Event, LiveWindow, LiveWindows, StateVector, action};

use super::{Admission, Came, Close, Command, Course, Fault, Feedback, Kept, Ledger, Order, Proof, Question, Refusal};
use crate::tracer::{self, Act, Flow, Sink};

/// What can be done to the surroundings of a running sample.
pub(super) trait Hands {
    /// Takes the network away, and shows that it is gone.
    fn cut_network(&mut self) -> Result<(), String>;
    /// Makes SIGKILL pending for all there is.
    fn kill(&mut self) -> Result<(), String>;
}

/// Follows one run.
pub(super) struct Watch<'a> {
    windows: LiveWindows,
    cap_ns: u64,
    now_ns: u64,
    court: Court<'a>,
}

/// Everything but the windows, which close into it.
struct Court<'a> {
    order: &'a Order,
    course: &'a mut dyn Course,
    hands: &'a mut dyn Hands,
    ledger: Ledger,
    /// Number of the next question.
    step: u32,
    /// The last window, for the verdict that has to fall without another.
    last: Option<(u32, StateVector)>,
    events: u64,
    now_ns: u64,
    /// Level that is in force.
    level: u8,
    /// Level that is in force or being brought about.
    wanted: u8,
    /// Why the next window closes.
    close: Close,
    verdict: Option<(Command, Close)>,
    /// Since when all is being killed.
    killed: Option<Instant>,
    /// For the tracer to do, in this order.
    acts: VecDeque<Act>,
    /// Given to the tracer, whose proof is awaited.
    under_way: VecDeque<(Command, Instant)>,
    faults: Vec<Fault>,
}

/// What is left of a watch when the sample has ended.
pub(super) struct Seen {
    pub(super) verdict: Option<(Command, Close)>,
    /// When all was to be killed.
    pub(super) killed: Option<Instant>,
    pub(super) level: u8,
    pub(super) events: u64,
    pub(super) undecided: u64,
    pub(super) windows: u32,
    pub(super) faults: Vec<Fault>,
}

impl Seen {
    /// Of a watch that was lost.
    pub(super) fn failed(fault: Fault) -> Seen {
        Seen { verdict: None, killed: None, level: 0, events: 0, undecided: 0, windows: 0, faults: vec![fault] }
    }
}

impl<'a> Watch<'a> {
    pub(super) fn new(order: &'a Order, course: &'a mut dyn Course, hands: &'a mut dyn Hands) -> Watch<'a> {
        let mut windows = LiveWindows::new(&order.window).with_reward(order.reward.clone());
        windows.begin(order.stage);
        Watch {
            windows,
            cap_ns: order.limits.time_ms.saturating_mul(1_000_000),
            now_ns: 0,
            court: Court {
                order,
                course,
                hands,
                ledger: Ledger::default(),
                step: 0,
                last: None,
                events: 0,
                now_ns: 0,
                level: 0,
                wanted: 0,
                close: Close::Window,
                verdict: None,
                killed: None,
                acts: VecDeque::new(),
                under_way: VecDeque::new(),
                faults: Vec::new(),
            },
        }
    }

    /// The sample has ended: the verdict falls, if it has not.
    pub(super) fn finish(mut self) -> Seen {
        self.conclude(Close::End);
        let Watch { windows, mut court, .. } = self;
        // What was asked for just before all ended.
        while let Some((command, arrived)) = court.under_way.pop_front() {
            court.tell(&command, Came::Refused { why: Refusal::Over }, arrived.elapsed());
        }
        Seen {
            verdict: court.verdict,
            killed: court.killed,
            level: court.level,
            events: court.events,
            undecided: windows.unseen(),
            windows: court.last.map_or(0, |(window, _)| window + 1),
            faults: court.faults,
        }
    }

    /// Something outside went wrong: nothing is asked any more.
    pub(super) fn fail(&mut self, fault: Fault) {
        self.court.fail(fault);
    }

    /// A verdict has to fall now.
    fn conclude(&mut self, close: Close) {
        let Watch { windows, court, .. } = self;
        if court.is_over() {
            return;
        }
        court.close = close;
        windows.end(|window| court.closed(window));
        if !court.is_over() {
            court.ask_again();
        }
    }

    fn flow(&mut self) -> Flow {
        self.court.acts.pop_front().map_or(Flow::Go, Flow::Act)
    }
}

impl Sink for Watch<'_> {
    fn event(&mut self, event: &Event<'_>) -> Flow {
        let Watch { windows, court, .. } = self;
        let mut event = *event;
        event.isolation = Some(court.level);
        court.events += 1;
        self.now_ns = self.now_ns.max(event.time_ns.unwrap_or(0));
        court.now_ns = self.now_ns;
        let kept = court.course.event(&event);
        if !court.is_over() {
            windows.event(&event, |window| court.closed(window));
            if kept == Kept::No {
                court.fail(court.course.gone().map_or(Fault::Recorder, |why| Fault::Abandoned { why }));
            }
        }
        self.flow()
    }

    fn tick(&mut self, now_ns: u64) -> Flow {
        let Watch { windows, court, cap_ns, .. } = self;
        self.now_ns = self.now_ns.max(now_ns);
        court.now_ns = self.now_ns;
        if !court.is_over() {
            match court.course.gone() {
                Some(why) => court.fail(Fault::Abandoned { why }),
                None => windows.tick(now_ns, |window| court.closed(window)),
            }
        }
        if now_ns >= *cap_ns {
            self.conclude(Close::Time);
        }
        self.flow()
    }

    fn acted(&mut self, act: Act, proof: tracer::Proof) {
        self.court.acted(act, proof);
    }
}

impl Court<'_> {
    /// Whether nothing is asked any more.
    fn is_over(&self) -> bool {
        self.verdict.is_some() || !self.faults.is_empty()
    }

    fn closed(&mut self, window: LiveWindow<'_>) {
        if self.is_over() {
            return;
        }
        let close = match (self.close, window.last) {
            (Close::Window, true) => Close::Windows,
            (close, _) => close,
        };
        let (index, events, toll) = (window.index, window.events, window.toll);
        let state = window.state.clone();
        self.ask(index, (events, toll), close, &state);
        self.last = Some((index, state));
    }

    /// Asks about the last window once more, since no other has closed and a verdict must fall.
    fn ask_again(&mut self) {
        // Whoever did nothing at all has been seen doing nothing; there is no state to decide on.
        let Some((window, state)) = self.last.take() else { return };
        self.ask(window, (0, Toll::default()), self.close, &state);
        self.last = Some((window, state));
    }

    fn ask(&mut self, window: u32, (events, toll): (u32, Toll), close: Close, state: &StateVector) {
        let arrived = Instant::now();
        let question = Question {
            episode: self.order.episode.clone(),
            stage: self.order.stage,
            step: self.step,
            window,
            events,
            toll,
            events_seen: self.events,
            time_ns: self.now_ns,
            level: self.wanted,
            close,
            mask: action::mask(close.is_last(), self.wanted < 3),
        };
        self.step += 1;
        let command = self.course.window(&question, state);
        if let Some(why) = self.course.gone() {
            return self.fail(Fault::Abandoned { why });
        }
        match self.ledger.admit(&command, &question) {
            Admission::Apply => self.apply(command, close, arrived),
            Admission::Repeated(feedback) => {
                // An answer to an earlier question: this one is left without.
                if let Some(feedback) = feedback {
                    self.course.feedback(feedback);
                }
                self.refuse(command, Refusal::Stale);
            }
            Admission::Refuse(why) => self.refuse(command, why),
        }
    }

    fn refuse(&mut self, command: Command, why: Refusal) {
        self.tell(&command, Came::Refused { why }, Duration::ZERO);
        self.fail(Fault::Answer { why });
    }

    fn apply(&mut self, command: Command, close: Close, arrived: Instant) {
        match command.action {
            Action::Continue => {}
            Action::RaiseIsolation => self.raise(command, arrived),
            Action::Release | Action::Terminate | Action::Quarantine => {
                self.verdict = Some((command, close));
                self.kill(arrived);
            }
        }
    }

    fn raise(&mut self, command: Command, arrived: Instant) {
        self.wanted = command.context.level_after;
        match self.wanted {
            1 => match self.hands.cut_network() {
                Ok(()) => {
                    self.acts.push_back(Act::Level(1));
                    self.raised(command, Proof::NetworkDown, arrived);
                }
                Err(why) => self.failed(command, why, arrived),
            },
            level => {
                self.acts.push_back(Act::Level(level));
                self.under_way.push_back((command, arrived));
            }
        }
    }

    fn acted(&mut self, act: Act, proof: tracer::Proof) {
        let Act::Level(level @ 2..) = act else { return };
        let Some((command, arrived)) = self.under_way.pop_front() else { return };
        match (proof, level) {
            (tracer::Proof::Done, 2) => self.raised(command, Proof::MountsReadOnly, arrived),
            (tracer::Proof::Done, _) => self.raised(command, Proof::ProcessesRefused, arrived),
            (tracer::Proof::Busy, _) => {
                self.failed(command, "something still writes after two sweeps".to_owned(), arrived);
            }
        }
    }

    fn raised(&mut self, command: Command, proof: Proof, arrived: Instant) {
        self.level = self.level.max(command.context.level_after);
        self.tell(&command, Came::Done { proof }, arrived.elapsed());
    }

    /// Isolation that does not take hold is no isolation: the sample is killed.
    fn failed(&mut self, command: Command, why: String, arrived: Instant) {
        self.tell(&command, Came::Failed { why: why.clone() }, arrived.elapsed());
        if self.verdict.is_none() {
            self.fail(Fault::Action { action: command.action, why });
        }
    }

    fn fail(&mut self, fault: Fault) {
        self.faults.push(fault);
        self.kill(Instant::now());
    }

    fn kill(&mut self, arrived: Instant) {
        if let Err(why) = self.hands.kill() {
            // The tracer kills by itself, one task after the other.
            self.faults.push(Fault::Action { action: Action::Terminate, why });
        }
        self.killed.get_or_insert(arrived);
        self.acts.clear();
        self.acts.push_back(Act::Kill);
    }

    fn tell(&mut self, command: &Command, came: Came, took: Duration) {
        let feedback = Feedback {
            decision: Some(command.decision.clone()),
            stage: self.order.stage,
            action: command.action,
            level: self.level,
            came,
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            attempts: 1,
        };
        self.ledger.settle(&feedback);
        self.course.feedback(feedback);
    }
}
