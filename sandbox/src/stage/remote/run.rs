//! One run at a server, between the thread that runs the sample and whoever follows from elsewhere.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bellwether_artifact::Sha256;
use bellwether_env_adapter::{Action, Event, StateVector};
use prost::Message;
use tokio::sync::watch;

use super::lines::{BATCH_BYTES, BATCH_RECORDS};
use super::proto::{self, Record, record::What};
use super::wire;
use crate::stage::{Admission, Command, Course, Fault, Feedback, Kept, Ledger, Outcome, Question, Refusal};

/// A run.
#[derive(Debug)]
pub(super) struct Run {
    /// Hash of its order.
    pub(super) order: Sha256,
    bounds: Bounds,
    state: Mutex<State>,
    /// There is room, an answer, or nobody who waits.
    changed: Condvar,
    /// Told of each record.
    news: watch::Sender<u64>,
}

/// What a run may keep, and for how long it goes on alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Records that are not acknowledged.
    pub(super) records: usize,
    /// Their bytes.
    pub(super) bytes: usize,
    /// How long nothing may be heard of whoever follows.
    pub(super) lease: Duration,
}

#[derive(Debug)]
struct State {
    /// Number of the first record that is kept.
    first: u64,
    records: VecDeque<Record>,
    bytes: usize,
    /// The question that was asked last, and the hash of its state.
    asked: Option<(Question, Sha256)>,
    answer: Option<Command>,
    /// The command that was handed on last.
    last: Option<Command>,
    ledger: Ledger,
    heard: Instant,
    gone: Option<String>,
    /// The last record is there, since then; and whether the sample started.
    over: Option<(Instant, bool)>,
    /// Which follower is the current one.
    follower: u64,
}

/// What there is for a follower.
#[derive(Debug, PartialEq)]
pub(super) enum Batch {
    /// These records, if any.
    Records(Vec<Record>),
    /// All there will ever be was acknowledged.
    End,
    /// Somebody else follows now.
    Superseded,
}

/// What cannot be followed or acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfRange {
    /// The records that can.
    pub(super) first: u64,
    /// The record after the last.
    pub(super) next: u64,
}

impl Run {
    pub(super) fn new(order: Sha256, bounds: Bounds) -> Run {
        let state = State {
            first: 0,
            records: VecDeque::new(),
            bytes: 0,
            asked: None,
            answer: None,
            last: None,
            ledger: Ledger::default(),
            heard: Instant::now(),
            gone: None,
            over: None,
            follower: 0,
        };
        Run { order, bounds, state: Mutex::new(state), changed: Condvar::new(), news: watch::Sender::new(0) }
    }

    /// Takes the place of whoever followed before, from a record on.
    pub(super) fn follow(&self, from: u64) -> Result<u64, OutOfRange> {
        let mut state = self.state();
        state.check(from)?;
        state.heard = Instant::now();
        state.follower += 1;
        let follower = state.follower;
        drop(state);
        // Whoever waits learns that its place is taken.
        self.news.send_modify(|_| ());
        Ok(follower)
    }

    /// Hears of each record that comes.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// The next records for a follower.
    pub(super) fn batch(&self, follower: u64, from: u64) -> Batch {
        let state = self.state();
        if state.follower != follower || from < state.first {
            return Batch::Superseded;
        }
        let at = usize::try_from(from - state.first).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let fits = |record: &&Record| {
            let first = bytes == 0;
            bytes += record.encoded_len();
            first || bytes <= BATCH_BYTES
        };
        let records: Vec<Record> =
            state.records.iter().skip(at).take(BATCH_RECORDS).take_while(fits).cloned().collect();
        if state.records.is_empty() && state.over.is_some() { Batch::End } else { Batch::Records(records) }
    }

    /// A follower keeps what is below a number; whether it has all there will ever be.
    pub(super) fn acknowledge(&self, follower: u64, below: u64) -> Result<bool, OutOfRange> {
        let mut state = self.state();
        if below > state.next() {
            return Err(state.range());
        }
        if state.follower == follower {
            state.heard = Instant::now();
        }
        while state.first < below {
            let Some(record) = state.records.pop_front() else { break };
            state.bytes -= record.encoded_len();
            state.first += 1;
        }
        self.changed.notify_all();
        let all = state.over.is_some() && state.records.is_empty();
        if all {
            self.tell(state);
        }
        Ok(all)
    }

    /// Takes an answer, about the state with this hash.
    pub(super) fn act(&self, command: &Command, about: Sha256) -> Admission {
        let mut state = self.state();
        state.heard = Instant::now();
        let state = &mut *state;
        if state.last.as_ref() == Some(command) && command.action == Action::Continue {
            return Admission::Repeated(None);
        }
        let Some((question, hash)) = &state.asked else { return Admission::Refuse(Refusal::Context) };
        let answers = command.decision == question.decision();
        if answers && state.gone.is_some() && state.last.as_ref() != Some(command) {
            return Admission::Refuse(Refusal::Over);
        }
        if answers && *hash != about {
            return Admission::Refuse(Refusal::Context);
        }
        let admission = state.ledger.admit(command, question);
        if admission == Admission::Apply {
            state.answer = Some(command.clone());
            state.last = Some(command.clone());
            self.changed.notify_all();
        }
        admission
    }

    /// Nobody wants to see more: the sample is killed.
    pub(super) fn stop(&self, why: &str) {
        let mut state = self.state();
        if state.over.is_none() {
            state.gone.get_or_insert_with(|| why.to_owned());
        }
        self.changed.notify_all();
    }

    /// Ends the list, if it has not ended.
    pub(super) fn end(&self, last: What) {
        let mut state = self.state();
        if state.over.is_none() {
            state.over = Some((Instant::now(), !matches!(last, What::Unstarted(_))));
            state.put(last);
        }
        self.tell(state);
    }

    /// For how long it has been over, and whether the sample started; nothing while it runs.
    pub(super) fn over(&self) -> Option<(Duration, bool)> {
        self.state().over.map(|(since, started)| (since.elapsed(), started))
    }

    /// Whether its end is still to come, or somebody who was heard of within the lease has not fetched it yet.
    pub(super) fn is_awaited(&self) -> bool {
        let state = self.state();
        state.over.is_none() || state.heard.elapsed() < self.bounds.lease
    }

    /// Keeps a record, once there is room; not where nobody waits for it any more.
    fn push(&self, what: What) -> bool {
        let mut state = self.state();
        while state.records.len() >= self.bounds.records || state.bytes >= self.bounds.bytes {
            if state.is_gone(self.bounds.lease) {
                return false;
            }
            state = self.wait(state);
        }
        if state.gone.is_some() && matches!(what, What::Question(_)) {
            return false;
        }
        state.put(what);
        self.tell(state);
        true
    }

    fn ask(&self, question: &Question, message: proto::Question) -> Command {
        let hash = Sha256::of(&message.state);
        let mut state = self.state();
        state.asked = Some((question.clone(), hash));
        state.answer = None;
        drop(state);
        if self.push(What::Question(message)) {
            let mut state = self.state();
            loop {
                if let Some(answer) = state.answer.take() {
                    return answer;
                }
                if state.is_gone(self.bounds.lease) {
                    break;
                }
                state = self.wait(state);
            }
        }
        // Not heeded: the watch asks whether anybody is there before it heeds an answer.
        Command::to(question, Action::Terminate)
    }

    fn tell(&self, state: MutexGuard<'_, State>) {
        let next = state.next();
        drop(state);
        self.news.send_replace(next);
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let left = self.bounds.lease.saturating_sub(state.heard.elapsed()).max(Duration::from_millis(1));
        self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    fn range(&self) -> OutOfRange {
        OutOfRange { first: self.first, next: self.next() }
    }

    fn check(&self, from: u64) -> Result<(), OutOfRange> {
        if (self.first..=self.next()).contains(&from) { Ok(()) } else { Err(self.range()) }
    }

    fn put(&mut self, what: What) {
        let record = Record { number: self.next(), what: Some(what) };
        self.bytes += record.encoded_len();
        self.records.push_back(record);
    }

    fn is_gone(&mut self, lease: Duration) -> bool {
        if self.gone.is_none() && self.over.is_none() && self.heard.elapsed() >= lease {
            self.gone = Some(format!("nothing was heard of whoever decides for {} s", lease.as_secs_f64()));
        }
        self.gone.is_some()
    }
}

/// The course of a run that is followed from elsewhere.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) run: Arc<Run>,
    /// Stage, 1 or 2.
    pub(super) stage: u8,
}

impl Course for Served {
    fn event(&mut self, event: &Event<'_>) -> Kept {
        if self.run.push(What::Event(event.into())) { Kept::Yes } else { Kept::No }
    }

    fn window(&mut self, question: &Question, state: &StateVector) -> Command {
        self.run.ask(question, wire::question_message(question, state))
    }

    fn feedback(&mut self, feedback: Feedback) {
        let mut state = self.run.state();
        state.ledger.settle(&feedback);
        state.put(What::Feedback(wire::feedback_message(&feedback)));
        self.run.tell(state);
    }

    fn gone(&self) -> Option<String> {
        let mut state = self.run.state();
        state.is_gone(self.run.bounds.lease);
        state.gone.clone()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Only a run whose thread panicked has not ended by now.
        let fault = Fault::Tracer { why: "the thread of the run panicked".to_owned() };
        let outcome = Outcome { faults: vec![fault], ..Outcome::of_nothing(self.stage) };
        self.run.end(What::Outcome(wire::outcome_message(&outcome)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_whose_thread_panics_ends_as_one_of_its_stage() {
        let bounds = Bounds { records: 8, bytes: 1 << 10, lease: Duration::from_secs(60) };
        for stage in [1, 2] {
            let run = Arc::new(Run::new(Sha256::of(b"order"), bounds));
            let follower = run.follow(0).unwrap();
            drop(Served { run: Arc::clone(&run), stage });
            let Batch::Records(records) = run.batch(follower, 0) else { panic!("there is one record") };
            let [Record { what: Some(What::Outcome(outcome)), .. }] = &records[..] else { panic!("{records:?}") };
            assert_eq!(outcome.stage, u32::from(stage));
        }
    }
}
