//! The state machine alone, whatever happens to it.

use bellwether_env_adapter::{Action, EpisodeId, action};
use bellwether_sandbox::episode::{Happening, Machine, Next, Phase, Schedule};
use bellwether_sandbox::stage::{Came, Close, Command, DecisionId, Feedback, Proof, Question};
use proptest::prelude::*;

use super::sealed;

fn command(stage: u8, step: u32, action: Action) -> Command {
    let question = Question {
        episode: EpisodeId("e".to_owned()),
        stage,
        step,
        window: step,
        events: 1,
        toll: Default::default(),
        events_seen: 1,
        time_ns: 0,
        level: 0,
        close: Close::Window,
        mask: action::mask(false, true),
    };
    Command::to(&question, action)
}

fn feedback(stage: u8, step: u32, action: Action) -> Feedback {
    Feedback {
        decision: Some(command(stage, step, action).decision),
        stage,
        action,
        level: 0,
        came: Came::Done { proof: Proof::EmptyCgroup },
        took_us: 1,
        attempts: 1,
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    let act = || (0usize..5).prop_map(|at| Action::from_index(at).unwrap());
    let verdict = prop_oneof![
        Just(None),
        Just(Some(Action::Release)),
        Just(Some(Action::Terminate)),
        Just(Some(Action::Quarantine))
    ];
    prop_oneof![
        1 => Just(Happening::Begun),
        4 => (1u8..3).prop_map(|stage| Happening::Started { stage }),
        2 => (1u8..3, any::<bool>())
            .prop_map(|(stage, passing)| Happening::Unstarted { stage, why: "away".to_owned(), passing }),
        2 => (1u8..3).prop_map(|stage| Happening::Rested { stage }),
        6 => (1u8..3, 0u32..6, act())
            .prop_map(|(stage, step, act)| Happening::Decided { command: command(stage, step, act), safe_rule: None }),
        6 => (1u8..3, 0u32..6, act())
            .prop_map(|(stage, step, act)| Happening::Fed { feedback: feedback(stage, step, act) }),
        2 => (1u8..3, verdict, prop::bool::weighted(0.8))
            .prop_map(|(stage, verdict, complete)| Happening::Ended { stage, verdict, complete }),
        1 => Just(Happening::Sealed { quarantined: sealed(&DecisionId("d".to_owned())) }),
        1 => Just(Happening::Unsealed { why: "read-only".to_owned() }),
    ]
}

fn rank(phase: Phase) -> u8 {
    match phase {
        Phase::New => 0,
        Phase::Starting { stage } | Phase::Resting { stage } => 2 * stage,
        Phase::Running { stage } => 2 * stage + 1,
        Phase::Sealing => 6,
        Phase::Over => 7,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// Happenings that are late, double or out of turn change nothing; the episode goes forwards alone, closes once, and its
    /// trail plays it again.
    #[test]
    fn an_episode_goes_forward_and_its_trail_plays_it_again(
        happenings in prop::collection::vec(happening(), 0..60),
        stages in 1u8..3,
    ) {
        let new = || Machine::new(EpisodeId("e".to_owned()), stages, Schedule::default());
        let mut machine = new();
        let mut trail = Vec::new();
        let mut closes = 0;
        for happening in std::iter::once(Happening::Begun).chain(happenings) {
            let before = machine.phase();
            let (next, transition) = machine.take(happening);
            prop_assert_eq!((transition.from, transition.to), (before, machine.phase()));
            prop_assert!(!transition.stray || before == machine.phase());
            prop_assert!(rank(before) <= rank(machine.phase()));
            prop_assert!(!transition.stray || next == Next::Wait);
            closes += u32::from(next == Next::Close);
            match next {
                Next::Run { stage } => prop_assert_eq!(machine.phase(), Phase::Starting { stage }),
                Next::Rest { stage, .. } => prop_assert_eq!(machine.phase(), Phase::Resting { stage }),
                Next::Seal => prop_assert_eq!(machine.phase(), Phase::Sealing),
                Next::Close => prop_assert_eq!(machine.phase(), Phase::Over),
                Next::Wait => {}
            }
            trail.push(transition);
        }
        prop_assert_eq!(closes, u32::from(machine.phase() == Phase::Over));
        prop_assert!(trail.iter().enumerate().all(|(at, transition)| transition.number == at as u64));
        prop_assert_eq!(machine.strays(), trail.iter().filter(|transition| transition.stray).count() as u64);
        if machine.verdict() == Some(Action::Release) {
            prop_assert!(machine.partial().is_empty() && machine.stage() == stages);
        }
        if let Some(verdict @ (Action::Release | Action::Quarantine)) = machine.verdict() {
            let told = |happening: &Happening| {
                matches!(happening, Happening::Decided { command, .. } if command.action == verdict)
            };
            prop_assert!(trail.iter().any(|transition| !transition.stray && told(&transition.happening)));
        }
        // The trail, as JSON and back.
        let text = serde_json::to_string(&trail).unwrap();
        let read: Vec<bellwether_sandbox::episode::Transition> = serde_json::from_str(&text).unwrap();
        let mut again = new();
        for transition in &read {
            let (_, repeated) = again.take(transition.happening.clone());
            prop_assert_eq!(&repeated, transition);
        }
        prop_assert_eq!((again.phase(), again.verdict(), again.partial()), (machine.phase(), machine.verdict(), machine.partial()));
    }
}

#[test]
fn a_stage_releases_nothing_that_it_was_not_told_to_and_a_release_is_on_record() {
    let ended = |asked: Option<Action>, verdict| {
        let mut machine = Machine::new(EpisodeId("e".to_owned()), 1, Schedule::default());
        let decided = asked.map(|action| Happening::Decided { command: command(1, 0, action), safe_rule: None });
        let fed = asked.map(|action| Happening::Fed { feedback: feedback(1, 0, action) });
        let ended = Happening::Ended { stage: 1, verdict: Some(verdict), complete: true };
        let before = [Happening::Begun, Happening::Started { stage: 1 }];
        for happening in before.into_iter().chain(decided).chain(fed).chain([ended]) {
            machine.take(happening);
        }
        machine
    };
    for (asked, verdict, found) in [
        (None, Action::Release, None),
        (Some(Action::Terminate), Action::Release, None),
        (None, Action::Quarantine, None),
        (None, Action::Terminate, Some(Action::Terminate)),
        (Some(Action::Release), Action::Terminate, Some(Action::Terminate)),
        (Some(Action::Release), Action::Release, Some(Action::Release)),
    ] {
        let machine = ended(asked, verdict);
        assert_eq!(
            (machine.verdict(), machine.partial().is_empty()),
            (found, found.is_some()),
            "{asked:?} {verdict:?}"
        );
    }
    for (verdict, left) in [(Action::Release, None), (Action::Terminate, Some(Action::Terminate))] {
        let mut machine = ended(Some(verdict), verdict);
        machine.unrecorded("the disk is full".to_owned());
        assert_eq!(machine.verdict(), left);
    }
}
