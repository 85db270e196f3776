//! A watch against a tracer that is played: events, acts and proofs in every order that a tracer may give them.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bellwether_env_adapter::{EpisodeId, EventKind, RewardConfig, WindowConfig};
use proptest::prelude::*;

use super::*;
use crate::Limits;
use crate::stage::Specimen;

/// Answers by a list of numbers, each taken among the allowed actions.
struct Played {
    answers: Vec<usize>,
    /// Events that can be kept.
    room: usize,
    seqs: Vec<u64>,
    levels: Vec<u8>,
    questions: Vec<Question>,
    commands: Vec<Command>,
    feedback: Vec<Feedback>,
}

impl Course for Played {
    fn event(&mut self, event: &Event<'_>) -> Kept {
        self.seqs.push(event.seq);
        self.levels.push(event.isolation.unwrap());
        if self.seqs.len() <= self.room { Kept::Yes } else { Kept::No }
    }

    fn window(&mut self, question: &Question, state: &StateVector) -> Command {
        assert!(state.as_slice().iter().all(|value| (0.0..=1.0).contains(value)));
        let allowed: Vec<Action> = Action::ALL.into_iter().filter(|action| question.mask[action.index()]).collect();
        let answer = self.answers[self.questions.len() % self.answers.len()];
        self.questions.push(question.clone());
        // Waiting and raising are likelier than verdicts.
        let action = match answer % 8 {
            0..=4 => allowed[0],
            5 | 6 => allowed[1.min(allowed.len() - 1)],
            _ => allowed[answer / 8 % allowed.len()],
        };
        self.commands.push(Command::to(question, action));
        self.commands.last().unwrap().clone()
    }

    fn feedback(&mut self, feedback: Feedback) {
        self.feedback.push(feedback);
    }
}

#[derive(Default)]
struct Surroundings {
    broken: bool,
    cut: u32,
    killed: u32,
}

impl Hands for Surroundings {
    fn cut_network(&mut self) -> Result<(), String> {
        self.cut += 1;
        if self.broken { Err("the interface stays up".to_owned()) } else { Ok(()) }
    }

    fn kill(&mut self) -> Result<(), String> {
        self.killed += 1;
        Ok(())
    }
}

fn order(max_windows: u32) -> Order {
    Order {
        episode: EpisodeId("e".to_owned()),
        stage: 1,
        sample: Arc::new(Specimen {
            memory: OwnedFd::from(std::io::pipe().unwrap().0),
            name: "sample".to_owned(),
            arguments: Vec::new(),
            marked_home: false,
        }),
        window: WindowConfig { max_events: 4, max_ns: 1_000, max_windows },
        reward: RewardConfig::default(),
        limits: Limits { time_ms: 1, ..Limits::default() },
        seed: 1,
    }
}

/// What a tracer was asked to do.
#[derive(Default)]
struct Asked(Vec<Act>);

impl Asked {
    /// Does what the watch wants, as the tracer does: acts, then the proof.
    fn follow(&mut self, watch: &mut Watch<'_>, flow: Flow, busy: bool) {
        if let Flow::Act(act) = flow {
            self.0.push(act);
            let proof = if act == Act::Level(2) && busy { tracer::Proof::Busy } else { tracer::Proof::Done };
            watch.acted(act, proof);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_event_is_told_every_window_is_asked_and_every_command_has_its_feedback(
        steps in prop::collection::vec((0u64..600, prop::bool::weighted(0.2)), 1..120),
        answers in prop::collection::vec(0usize..40, 1..30),
        max_windows in prop_oneof![Just(0u32), 1u32..10],
        busy in prop::bool::weighted(0.2),
        broken in prop::bool::weighted(0.1),
        room in prop_oneof![Just(usize::MAX), 1usize..100],
    ) {
        let order = order(max_windows);
        let mut course = Played {
            answers, room, seqs: vec![], levels: vec![], questions: vec![], commands: vec![], feedback: vec![],
        };
        let mut hands = Surroundings { broken, ..Surroundings::default() };
        let mut asked = Asked::default();
        let mut watch = Watch::new(&order, &mut course, &mut hands);
        let (mut now_ns, mut sent) = (0, 0);
        for (pause, only_time) in steps {
            now_ns += pause;
            let flow = match only_time {
                true => watch.tick(now_ns),
                false => {
                    let event = Event { time_ns: Some(now_ns), ..Event::named(sent, EventKind::File, "openat") };
                    sent += 1;
                    watch.event(&event)
                }
            };
            asked.follow(&mut watch, flow, busy);
        }
        let seen = watch.finish();

        // No event is lost between tracer and course, whatever was decided meanwhile.
        prop_assert_eq!(&course.seqs, &(0..sent).collect::<Vec<_>>());
        prop_assert_eq!(seen.events, sent);
        // Levels only rise, and events say the one in force.
        prop_assert!(course.levels.windows(2).all(|pair| pair[0] <= pair[1]));
        prop_assert!(course.levels.last().is_none_or(|level| *level <= seen.level));

        // Questions are numbered without gaps, and none comes after a verdict.
        let steps: Vec<u32> = course.questions.iter().map(|question| question.step).collect();
        prop_assert_eq!(steps, (0..course.questions.len() as u32).collect::<Vec<_>>());
        let verdicts = course.commands.iter().filter(|command| command.action.is_verdict()).count();
        if let Some(before) = course.commands.len().checked_sub(1) {
            prop_assert!(course.commands[..before].iter().all(|command| !command.action.is_verdict()));
        }
        prop_assert!(course.questions.iter().all(|question| question.close.is_last() != question.mask[0]));

        // A run ends with a verdict or with a fault; the kill follows from either.
        prop_assert_eq!(seen.verdict.is_some(), verdicts == 1);
        prop_assert!(sent == 0 || seen.verdict.is_some() || !seen.faults.is_empty());
        prop_assert_eq!(seen.killed.is_some(), seen.verdict.is_some() || !seen.faults.is_empty());

        // Each raise that was carried out is told of exactly once, under its own name.
        let raises: Vec<_> =
            course.commands.iter().filter(|command| command.action == Action::RaiseIsolation).collect();
        let told: BTreeSet<_> = course.feedback.iter().map(|feedback| feedback.decision.clone()).collect();
        prop_assert_eq!(told.len(), course.feedback.len(), "no feedback comes twice");
        prop_assert!(raises.len() <= 3);
        prop_assert!(raises.iter().all(|raise| told.contains(&Some(raise.decision.clone()))));
        let done = course.feedback.iter().filter(|feedback| matches!(feedback.came, Came::Done { .. })).count();
        prop_assert_eq!(usize::from(seen.level), done);
        let failed = |fault: &Fault| matches!(fault, Fault::Action { .. });
        prop_assert!(!busy || !asked.0.contains(&Act::Level(2)) || seen.verdict.is_some() || seen.faults.iter().any(failed));
    }
}

#[test]
fn at_the_cap_a_verdict_falls_without_a_new_event() {
    let order = order(0);
    let mut course = Played {
        answers: vec![0],
        room: usize::MAX,
        seqs: vec![],
        levels: vec![],
        questions: vec![],
        commands: vec![],
        feedback: vec![],
    };
    let mut hands = Surroundings::default();
    let mut watch = Watch::new(&order, &mut course, &mut hands);
    for seq in 0..4 {
        assert_eq!(watch.event(&Event { time_ns: Some(seq), ..Event::named(seq, EventKind::File, "read") }), Flow::Go);
    }
    assert_eq!(watch.tick(999_999), Flow::Go);
    assert_eq!(watch.tick(1_000_000), Flow::Act(Act::Kill));
    let seen = watch.finish();
    let (command, close) = seen.verdict.unwrap();
    assert_eq!((command.action, close, hands.killed), (Action::Release, Close::Time, 1));
    let asked: Vec<_> = course
        .questions
        .iter()
        .map(|question| (question.step, question.window, question.events, question.close))
        .collect();
    assert_eq!(asked, [(0, 0, 4, Close::Window), (1, 0, 0, Close::Time)]);
}

#[test]
fn who_does_nothing_is_not_judged() {
    let order = order(0);
    let mut course = Played {
        answers: vec![0],
        room: usize::MAX,
        seqs: vec![],
        levels: vec![],
        questions: vec![],
        commands: vec![],
        feedback: vec![],
    };
    let mut hands = Surroundings::default();
    let mut watch = Watch::new(&order, &mut course, &mut hands);
    watch.tick(10_000_000);
    let seen = watch.finish();
    assert!(seen.verdict.is_none() && course.questions.is_empty());
}
