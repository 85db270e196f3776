//! One run at a server, between the thread that runs the sample and whoever follows from elsewhere.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bellwether_artifact::Sha256;
use bellwether_env_adapter::{Action, Event, StateVector};
use prost::Message;
use tokio::sync::watch;

use super::lines::{BATCH_BYTES, BATCH_RECORDS};
use super::proto::{self, Record, record::What};
use super::wire::{self, Overdue};
use crate::episode::safe_rule;
use crate::stage::{
    Admission, Close, Command, Course, DecisionId, Fault, Feedback, Kept, Ledger, Outcome, Question, Refusal,
};

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
    /// How long a question may stand open, unless the sample has ended.
    pub(super) answer: Duration,
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
    /// Questions that had no answer in time: one for each window at most, each of which took as long as a question may stand open.
    overdue: BTreeMap<DecisionId, Overdue>,
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

/// What is to become of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// It answers the question that stands open, or not, as the ledger says.
    Judged(Admission),
    /// It comes too late: this was done.
    Late(Overdue),
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
            overdue: BTreeMap::new(),
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
    pub(super) fn act(&self, command: &Command, about: Sha256) -> Answered {
        let mut state = self.state();
        state.heard = Instant::now();
        if let Some(overdue) = state.overdue.get(&command.decision) {
            return Answered::Late(overdue.clone());
        }
        Answered::Judged(self.admit(&mut state, command, about))
    }

    fn admit(&self, state: &mut State, command: &Command, about: Sha256) -> Admission {
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
        // A sample that has ended is not held up.
        let limit = if question.close == Close::End { self.bounds.lease } else { self.bounds.answer };
        if self.push(What::Question(message)) {
            let opened = Instant::now();
            let mut state = self.state();
            loop {
                if let Some(answer) = state.answer.take() {
                    return answer;
                }
                if state.is_gone(self.bounds.lease) {
                    break;
                }
                let open = opened.elapsed();
                if open >= limit {
                    let command = state.overrule(question, (limit, open));
                    self.tell(state);
                    return command;
                }
                state = self.wait_for(state, limit - open);
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
        self.wait_for(state, Duration::MAX)
    }

    /// Waits until something changes, or the lease is over, or for so long.
    fn wait_for<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        let left = self.bounds.lease.saturating_sub(state.heard.elapsed()).max(Duration::from_millis(1)).min(most);
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

    /// Answers the question that stands open by the safe rule, and tells so. No other answer counts from then on.
    fn overrule(&mut self, question: &Question, (limit, open): (Duration, Duration)) -> Command {
        let command = Command::to(question, safe_rule(question));
        let overdue = Overdue {
            decision: command.decision.clone(),
            action: command.action,
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            open_us: u64::try_from(open.as_micros()).unwrap_or(u64::MAX),
        };
        // The ledger has admitted nothing else, or its answer would be there.
        self.ledger.admit(&command, question);
        self.last = Some(command.clone());
        self.put(What::Overdue(wire::overdue_message(&overdue)));
        self.overdue.insert(command.decision.clone(), overdue);
        command
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
    use std::thread;

    use bellwether_env_adapter::spec::WIDTH;
    use bellwether_env_adapter::{EpisodeId, action};
    use proptest::prelude::*;

    use super::*;

    fn question(step: u32, level: u8) -> Question {
        Question {
            episode: EpisodeId("e".to_owned()),
            stage: 1,
            step,
            window: step,
            events: 0,
            toll: Default::default(),
            events_seen: 0,
            time_ns: 0,
            level,
            close: Close::Window,
            mask: action::mask(false, level < 3),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Whenever answers come, each question is answered once: by the answer that was taken, or by the safe rule after its
        /// time, which the list of records and every later answer are told.
        #[test]
        fn a_question_is_answered_in_time_or_by_the_safe_rule(
            answers in prop::collection::vec((0u64..8_000, any::<bool>(), any::<bool>()), 1..10),
        ) {
            let bounds = Bounds {
                records: 1_000, bytes: 1 << 20, lease: Duration::from_secs(60), answer: Duration::from_millis(4),
            };
            let run = Arc::new(Run::new(Sha256::of(b"order"), bounds));
            let follower = run.follow(0).unwrap();
            let state = StateVector::from_slice(&[0.0; WIDTH]).unwrap();
            let about = Sha256::of(&wire::question_message(&question(0, 0), &state).state);
            let (ask, asked) = std::sync::mpsc::channel();
            let (taken, replies) = thread::scope(|scope| {
                let (run, count) = (&run, answers.len());
                let asking = scope.spawn(move || {
                    let mut level = 0;
                    (0..count).map(|step| {
                        let question = question(step as u32, level);
                        ask.send(question.clone()).unwrap();
                        let command = run.ask(&question, wire::question_message(&question, &state));
                        level = command.context.level_after;
                        command
                    }).collect::<Vec<_>>()
                });
                let mut replies = Vec::new();
                let (mut read, mut listed) = (0, 0);
                for (question, (delay_us, raise, again)) in asked.iter().zip(&answers) {
                    // A question can be answered once it is in the list.
                    while listed <= question.step {
                        let Batch::Records(records) = run.batch(follower, read) else { panic!("all records are kept") };
                        read += records.len() as u64;
                        listed += records.iter().filter(|record| matches!(record.what, Some(What::Question(_)))).count() as u32;
                        thread::yield_now();
                    }
                    thread::sleep(Duration::from_micros(*delay_us));
                    let raise = *raise && question.mask[Action::RaiseIsolation.index()];
                    let command = Command::to(&question, if raise { Action::RaiseIsolation } else { Action::Continue });
                    let reply = run.act(&command, about);
                    if *again {
                        match (&reply, run.act(&command, about)) {
                            (Answered::Late(first), Answered::Late(then)) => assert_eq!(*first, then),
                            (Answered::Judged(Admission::Apply), Answered::Judged(_)) => {}
                            other => panic!("{other:?}"),
                        }
                    }
                    replies.push((question, command, reply));
                }
                (asking.join().unwrap(), replies)
            });
            let Batch::Records(records) = run.batch(follower, 0) else { panic!("all records are kept") };
            let mut told = records.into_iter().filter_map(|record| match record.what {
                Some(What::Overdue(overdue)) => Some(wire::overdue(overdue).unwrap()),
                _ => None,
            });
            for ((question, command, reply), taken) in replies.into_iter().zip(taken) {
                match reply {
                    Answered::Judged(admission) => {
                        prop_assert_eq!(admission, Admission::Apply);
                        prop_assert_eq!(taken, command);
                    }
                    Answered::Late(overdue) => {
                        prop_assert_eq!(&taken, &Command::to(&question, safe_rule(&question)));
                        prop_assert_eq!((&overdue.decision, overdue.action), (&taken.decision, taken.action));
                        prop_assert!(overdue.open_us >= 4_000, "{overdue:?}");
                        prop_assert_eq!(told.next(), Some(overdue));
                    }
                }
            }
            prop_assert_eq!(told.next(), None);
        }
    }

    #[test]
    fn a_run_whose_thread_panics_ends_as_one_of_its_stage() {
        let bounds =
            Bounds { records: 8, bytes: 1 << 10, lease: Duration::from_secs(60), answer: Duration::from_secs(1) };
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
