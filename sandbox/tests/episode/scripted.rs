//! Episodes whose stages follow a script.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use bellwether_env_adapter::ingest::telemetry::TelemetryReader;
use bellwether_env_adapter::reward::Toll;
use bellwether_env_adapter::spec::WIDTH;
use bellwether_env_adapter::{Action, EpisodeAttributes, Event, EventKind, EventSink, Label, StateVector, action};
use bellwether_replay::episodes::{End, EpisodeReader, StepRow};
use bellwether_sandbox::episode::{Away, Partial, Phase, Report};
use bellwether_sandbox::stage::{
    Came, Close, Command, Course, Fault, Feedback, Kept, Order, Outcome, Proof, Question, Stage, StageError,
};
use proptest::prelude::*;

use super::{Rule, play, setup};

/// What a stage does.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    /// Attempts that fail before one does not.
    pub(super) away: u32,
    /// Events of each window.
    pub(super) windows: Vec<u32>,
    /// The record ends in a fault.
    pub(super) broken: bool,
    /// What came of commands is told twice, or not at all.
    pub(super) twice: bool,
    pub(super) silent: bool,
}

/// A stage that follows a script.
pub(super) struct Scripted {
    pub(super) script: Script,
    pub(super) attempts: AtomicU32,
}

impl Scripted {
    pub(super) fn new(script: Script) -> Scripted {
        Scripted { script, attempts: AtomicU32::new(0) }
    }
}

impl Stage for Scripted {
    fn run(&self, order: &Order, course: &mut dyn Course) -> Result<Outcome, StageError> {
        let Script { away, windows, broken, twice, silent } = &self.script;
        if self.attempts.fetch_add(1, Ordering::Relaxed) < *away {
            return Err(StageError::Away { stage: order.stage, why: "no connection".to_owned() });
        }
        let state = StateVector::from_slice(&[0.0; WIDTH]).unwrap();
        let mut outcome = Outcome::of_nothing(order.stage);
        let tell = |course: &mut dyn Course, command: &Command, proof| {
            let feedback = Feedback {
                decision: Some(command.decision.clone()),
                stage: order.stage,
                action: command.action,
                level: command.context.level_after,
                came: Came::Done { proof },
                took_us: 1,
                attempts: 1,
            };
            for _ in 0..if *silent { 0 } else { 1 + u32::from(*twice) } {
                course.feedback(feedback.clone());
            }
        };
        for (step, events) in (0..).zip(windows) {
            for _ in 0..*events {
                let event = Event { stage: order.stage, ..Event::named(outcome.events, EventKind::File, "openat") };
                outcome.events += 1;
                if course.event(&event) == Kept::No {
                    outcome.faults.push(Fault::Recorder);
                    return Ok(outcome);
                }
            }
            let close = if step as usize + 1 == windows.len() { Close::End } else { Close::Window };
            let question = Question {
                episode: order.episode.clone(),
                stage: order.stage,
                step,
                window: step,
                events: *events,
                toll: Toll { harm: [0.1, 0.1, 0.0, 0.0], breakage: [0.0, 0.0, 0.1, 0.1] },
                events_seen: outcome.events,
                time_ns: u64::from(step),
                level: outcome.level,
                close,
                mask: action::mask(close.is_last(), outcome.level < 3),
            };
            let command = course.window(&question, &state);
            // A command carries all of what it is about, and is the answer to what was asked.
            assert_eq!(command, Command::to(&question, command.action));
            assert!(question.mask[command.action.index()]);
            outcome.windows += 1;
            outcome.level = command.context.level_after;
            if command.action == Action::RaiseIsolation {
                tell(course, &command, Proof::NetworkDown);
            }
            if command.action.is_verdict() {
                (outcome.verdict, outcome.verdict_at) = (Some(command.action), Some(close));
                if *broken {
                    outcome.faults.push(Fault::Recorder);
                }
                tell(course, &command, Proof::EmptyCgroup);
                break;
            }
        }
        Ok(outcome)
    }
}

fn nothing() -> OwnedFd {
    OwnedFd::from(std::io::pipe().unwrap().0)
}

/// What a file of telemetry holds of one episode.
#[derive(Default)]
pub(crate) struct Read {
    pub(crate) attributes: Option<EpisodeAttributes>,
    /// Stage and number of each event.
    pub(crate) events: Vec<(u8, u64)>,
    pub(crate) complete: Option<bool>,
}

impl EventSink for Read {
    type Error = std::convert::Infallible;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), Self::Error> {
        self.attributes = Some(attributes.clone());
        Ok(())
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), Self::Error> {
        self.events.push((event.stage, event.seq));
        Ok(())
    }

    fn end(&mut self, complete: bool) -> Result<(), Self::Error> {
        self.complete = Some(complete);
        Ok(())
    }
}

pub(crate) fn read_events(report: &Report) -> Read {
    let mut read = Read::default();
    TelemetryReader::open(&report.files.as_ref().unwrap().telemetry).unwrap().read(&mut read).unwrap();
    read
}

pub(crate) fn read_steps(report: &Report) -> Vec<StepRow> {
    let file = std::fs::File::open(&report.files.as_ref().unwrap().steps).unwrap();
    let mut reader = EpisodeReader::open(file, None).unwrap();
    let (mut row, mut rows) = (StepRow::default(), Vec::new());
    while reader.next(&mut row).unwrap() {
        rows.push(row.clone());
    }
    rows
}

/// Reads the files of an episode and holds them to its report.
fn check_files(report: &Report, events: u64, label: Option<Label>) {
    let files = report.files.as_ref().unwrap();
    let partial = !report.partial.is_empty();
    let read = read_events(report);
    assert_eq!((read.events.len() as u64, files.events), (events, events), "no event is lost on its way to the file");
    if events > 0 {
        assert_eq!(read.complete, Some(!partial));
        assert_eq!(read.attributes.unwrap().episode_id, report.episode_id);
    }
    let rows = read_steps(report);
    assert_eq!(rows.len(), report.decisions.len(), "one row for each decision");
    for (row, decision) in rows.iter().zip(&report.decisions) {
        let played = row.played.unwrap();
        assert_eq!((row.stage, played.action), (decision.stage, decision.action as u32));
        assert_eq!(row.label.as_deref(), label.map(Label::name));
        assert!(decision.mask.iter().enumerate().all(|(at, allowed)| row.action_mask.allows(at as u32) == *allowed));
    }
    if let Some((last, before)) = rows.split_last() {
        assert!(before.iter().all(|row| row.end.is_none() && !row.partial));
        let end = if report.verdict.is_some() { End::Terminated } else { End::Truncated };
        assert_eq!((last.end, last.partial), (Some(end), partial));
    }
}

fn script() -> impl Strategy<Value = Script> {
    let windows = prop::collection::vec(1u32..6, 0..12);
    let rare = || prop::bool::weighted(0.1);
    (prop_oneof![4 => Just(0u32), 1 => 1u32..6], windows, rare(), rare(), rare())
        .prop_map(|(away, windows, broken, twice, silent)| Script { away, windows, broken, twice, silent })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever stages and policy do: every event and every decision is in the files, whoever did not see all of it says so, and
    /// a release counts only where the last stage made it.
    #[test]
    fn an_episode_is_whole_or_says_why_not(
        first in script(),
        second in script(),
        stages in 1u8..=2,
        answers in prop::collection::vec(0usize..12, 1..20),
        label in prop_oneof![Just(None), Just(Some(Label::Benign)), Just(Some(Label::Malicious))],
    ) {
        let folder = tempfile::tempdir().unwrap();
        let setup = bellwether_sandbox::episode::Setup { label, ..setup(folder.path(), nothing(), stages) };
        let (one, two) = (Scripted::new(first.clone()), Scripted::new(second.clone()));
        let mut asked = 0;
        let mut judge = Rule(|question: &Question| {
            asked += 1;
            match answers[asked % answers.len()] {
                at @ 0..5 if question.mask[at] => Ok(Action::from_index(at).unwrap()),
                // Chooses what it may not: as good as no answer.
                at @ 0..5 => Ok(Action::from_index(at).unwrap()),
                5..9 => Ok(if question.mask[0] { Action::Continue } else { Action::Release }),
                _ => Err(Away::Gone),
            }
        });
        let (report, transitions, pauses) = play(&setup, [&one, &two], &mut judge);

        let events = report.outcomes.iter().map(|outcome| outcome.events).sum();
        check_files(&report, events, label);

        // Pauses are 1, 2 and 4 seconds, anew for each stage, and no stage is tried a fifth time.
        let wanted = |away: u32| [1_000, 2_000, 4_000].into_iter().take(away as usize).collect::<Vec<u64>>();
        let second_ran = two.attempts.load(Ordering::Relaxed) > 0;
        let mut schedule = wanted(first.away);
        if second_ran {
            schedule.extend(wanted(second.away));
        }
        prop_assert_eq!(&pauses, &schedule);
        prop_assert!(one.attempts.load(Ordering::Relaxed) <= 4 && two.attempts.load(Ordering::Relaxed) <= 4);

        // Stage 2 runs after a whole stage 1 that released, and never else.
        let released = report.outcomes.first().is_some_and(|outcome| outcome.verdict == Some(Action::Release));
        let whole = first.away <= 3 && !first.broken && !first.silent;
        prop_assert_eq!(second_ran, stages == 2 && released && whole);

        // A release is a verdict in the last stage alone, and only where nothing went wrong.
        if report.verdict == Some(Action::Release) {
            prop_assert!(report.partial.is_empty());
            prop_assert_eq!(report.stage, stages);
        }
        let convicted = report.outcomes.last().and_then(|outcome| outcome.verdict).filter(|verdict| verdict.is_conviction());
        prop_assert!(convicted.is_none() || report.verdict == convicted);
        prop_assert!(report.verdict.is_some() || !report.partial.is_empty());

        // Feedback that came twice changed nothing.
        let twice = report.feedback.len() as u64 / 2;
        prop_assert!(report.strays <= twice, "{} strays", report.strays);
        prop_assert_eq!(transitions.last().unwrap().to, Phase::Over);
        let safe = report.decisions.iter().filter(|decision| decision.safe_rule.is_some()).count() as u64;
        prop_assert_eq!(report.safe_rule, safe);
    }
}

#[test]
fn without_a_policy_isolation_is_raised_until_the_end_and_the_episode_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup(folder.path(), nothing(), 2);
    let stage = Scripted::new(Script { windows: vec![4; 6], ..Script::default() });
    let mut judge = Rule(|_: &Question| Err(Away::Gone));
    let (report, _, _) = play(&setup, [&stage, &stage], &mut judge);
    let actions: Vec<_> = report.decisions.iter().map(|decision| decision.action).collect();
    use Action::{Continue, RaiseIsolation, Terminate};
    assert_eq!(actions, [RaiseIsolation, RaiseIsolation, RaiseIsolation, Continue, Continue, Terminate]);
    assert_eq!((report.verdict, report.safe_rule, report.partial.len()), (Some(Terminate), 6, 0));
    assert_eq!(report.decisions[0].safe_rule.as_deref(), Some("nobody answers"));
}

#[test]
fn played_steps_say_which_of_them_the_safe_rule_decided() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup(folder.path(), nothing(), 1);
    let stage = Scripted::new(Script { windows: vec![4; 4], ..Script::default() });
    let mut judge = Rule(|question: &Question| match question.window {
        1 | 3 => Err(Away::Gone),
        _ => Ok(Action::Continue),
    });
    let (report, _, _) = play(&setup, [&stage, &stage], &mut judge);
    let told: Vec<_> = read_steps(&report).iter().map(|row| row.played.unwrap().safe_rule).collect();
    assert_eq!(told, [false, true, false, true]);
    assert_eq!(report.safe_rule, 2);
}

#[test]
fn a_stage_that_stays_away_is_tried_four_times() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup(folder.path(), nothing(), 1);
    let stage = Scripted::new(Script { away: 9, ..Script::default() });
    let (report, _, pauses) = play(&setup, [&stage, &stage], &mut Rule(|_: &Question| Ok(Action::Release)));
    assert_eq!(pauses, [1_000, 2_000, 4_000]);
    assert_eq!(report.verdict, None);
    assert!(matches!(&report.partial[..], [Partial::Unstarted { stage: 1, attempts: 4, .. }]), "{:?}", report.partial);
}

#[test]
fn rewards_follow_what_is_known_of_the_sample() {
    let parts = |label| {
        let folder = tempfile::tempdir().unwrap();
        let setup = bellwether_sandbox::episode::Setup { label, ..setup(folder.path(), nothing(), 1) };
        let stage = Scripted::new(Script { windows: vec![4; 3], ..Script::default() });
        let mut judge =
            Rule(|question: &Question| Ok(if question.close.is_last() { Action::Terminate } else { Action::Continue }));
        let (report, _, _) = play(&setup, [&stage, &stage], &mut judge);
        let file = std::fs::File::open(report.files.unwrap().steps).unwrap();
        let mut reader = EpisodeReader::open(file, None).unwrap();
        let (mut row, mut parts) = (StepRow::default(), Vec::new());
        while reader.next(&mut row).unwrap() {
            parts.push(row.played.map(|played| (played.r0, played.r1)).unwrap());
        }
        parts
    };
    let (unknown, benign, malicious) = (parts(None), parts(Some(Label::Benign)), parts(Some(Label::Malicious)));
    assert_eq!(unknown[2], (0.0, 0.0), "nobody knows whether the verdict is right");
    assert!(benign[2].1 < 0.0 && malicious[2].0 > 0.0);
    // The next window's harm is charged to whoever let it happen, if it is harm.
    assert!(malicious[0].0 < benign[0].0 && benign[0] == unknown[0]);
}
