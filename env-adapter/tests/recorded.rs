//! The recorded environment: its contract, its rewards, its ends.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod any_event;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use any_event::{attributes, episode};
use bellwether_env_adapter::conformance::{ConformanceError, ConformanceOptions, check_environment};
use bellwether_env_adapter::recorded::{
    Collector, Pace, RealTime, RecordedEnvironment, RecordedError, RecordedOptions, RecordedVector, Recordings,
};
use bellwether_env_adapter::spec::{WIDTH, element, encode_cost};
use bellwether_env_adapter::{
    Action, Environment, EpisodeAttributes, Event, EventBuf, EventKind, EventSink, Label, RewardConfig, Step,
    WindowConfig, Windower,
};
use proptest::prelude::*;

type Episode = (Option<Label>, bool, Vec<EventBuf>);

fn record(config: &WindowConfig, episodes: &[Episode]) -> Recordings {
    let mut windower = Windower::new(config, &RewardConfig::default(), Collector::new());
    for (number, (label, complete, events)) in episodes.iter().enumerate() {
        let attributes = EpisodeAttributes { label: *label, ..attributes(&number.to_string()) };
        windower.begin(&attributes).unwrap();
        for event in events {
            windower.event(&event.as_event()).unwrap();
        }
        windower.end(*complete).unwrap();
    }
    windower.into_sink().into_recordings()
}

fn calls(stage: u8, count: usize) -> Vec<EventBuf> {
    let event = |seq| EventBuf { stage, ..EventBuf::from(&Event::named(seq, EventKind::File, "write")) };
    (0..count as u64).map(event).collect()
}

fn environment(recordings: Recordings, options: RecordedOptions) -> RecordedEnvironment {
    RecordedEnvironment::new(Arc::new(recordings), RewardConfig::default(), options).unwrap()
}

const SMALL: WindowConfig = WindowConfig { max_events: 4, max_ns: u64::MAX, max_windows: 0 };

fn label() -> impl Strategy<Value = Option<Label>> {
    prop::sample::select(vec![Some(Label::Benign), Some(Label::Malicious), None])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn it_keeps_the_contract(
        mut episodes in prop::collection::vec((label(), any::<bool>(), episode(30)), 1..5), can_raise: bool, z in 0.0_f32..=1.0,
    ) {
        episodes.push((Some(Label::Benign), true, calls(1, 9)));
        let options = RecordedOptions { z, can_raise };
        let mut environment = environment(record(&SMALL, &episodes), options);
        let check = ConformanceOptions { seeds: 4, max_steps: 200, unit_range: true };
        let report = check_environment(&mut environment, &check);
        prop_assert!(report.is_ok(), "{report:?}");
        let report = report.unwrap();
        prop_assert_eq!(report.left, 0);
        prop_assert!(can_raise || report.actions[Action::RaiseIsolation.index()] == 0);
    }

    #[test]
    fn states_come_back_as_they_were_seen(episodes in prop::collection::vec((label(), any::<bool>(), episode(30)), 1..4)) {
        let recordings = record(&SMALL, &episodes);
        let kept = recordings.episodes().len() as u64 + recordings.unlabelled() + recordings.empty();
        prop_assert_eq!(kept, episodes.len() as u64);
        let whole: usize = recordings.episodes().iter().map(|episode| episode.windows.len()).sum();
        prop_assert_eq!(whole, recordings.window_count());
        let mut state = vec![f32::NAN; WIDTH];
        for (number, episode) in recordings.episodes().iter().enumerate() {
            let mut to_come = vec![0.0_f32; episode.windows.len()];
            for window in episode.windows.clone() {
                prop_assert_eq!(recordings.episode_of(window), number);
                recordings.write_state(window, 3, 0.25, &mut state);
                prop_assert_eq!((state[element::LEVEL], state[element::COST]), (1.0, encode_cost(0.25)));
                prop_assert!(state.iter().all(|value| (0.0..=1.0).contains(value)));
                let here = recordings.window(window);
                let mut later = window + 1..episode.windows.end;
                let next_stage = later.find(|later| recordings.window(*later).stage != here.stage);
                let released = recordings.answer(&RewardConfig::default(), window, 0, Action::Release).unwrap();
                prop_assert_eq!(released.next, next_stage);
                for other in episode.windows.clone().filter(|other| *other > window) {
                    if recordings.window(other).stage == here.stage {
                        to_come[window - episode.windows.start] += recordings.window(other).costs.harm[0];
                    }
                }
                let error = (to_come[window - episode.windows.start] - here.harm_to_come).abs();
                prop_assert!(error <= 1e-4 * here.harm_to_come.max(1.0));
            }
        }
    }

    #[test]
    fn a_vector_is_its_environments(seed: u64, count in 1_usize..5, plan in prop::collection::vec(0_usize..2, 1..6)) {
        let episodes = [(Some(Label::Benign), true, calls(1, 40)), (Some(Label::Malicious), true, calls(1, 60))];
        let make = || environment(record(&SMALL, &episodes), RecordedOptions { z: 0.3, can_raise: true });
        let mut vector = RecordedVector::new(make(), count);
        let mut twin = RecordedVector::new(make(), count);
        vector.reset(seed);
        twin.reset(seed);
        let mut steps = vec![Step { reward: 0.0, terminated: false, truncated: false }; count];
        let mut twin_steps = steps.clone();
        let (mut rows, mut twin_rows) = (vec![0.0; count * WIDTH], vec![0.0; count * WIDTH]);
        let mut masks = vec![false; count * 5];
        for kind in plan {
            vector.masks(&mut masks);
            let actions: Vec<usize> = masks.chunks(5).map(|mask| if mask[kind] { kind } else { 0 }).collect();
            vector.step(&actions, &mut steps);
            twin.step(&actions, &mut twin_steps);
            vector.observe(&mut rows);
            twin.observe(&mut twin_rows);
            prop_assert_eq!(&steps, &twin_steps);
            prop_assert_eq!(&rows, &twin_rows);
        }
    }
}

#[test]
fn both_classes_are_met_however_rare_one_is() {
    let mut episodes: Vec<Episode> = vec![(Some(Label::Malicious), true, calls(1, 5))];
    episodes.extend((0..200).map(|_| (Some(Label::Benign), true, calls(1, 5))));
    let mut environment = environment(record(&SMALL, &episodes), RecordedOptions::default());
    let malicious = (0..400).filter(|seed| {
        environment.reset(*seed);
        environment.recording().label == Label::Malicious
    });
    assert!((150..250).contains(&malicious.count()));
}

#[test]
fn a_verdict_ends_and_the_last_window_asks_for_one() {
    let episodes = [(Some(Label::Malicious), true, calls(1, 9))];
    let mut environment = environment(record(&SMALL, &episodes), RecordedOptions { z: 0.0, can_raise: true });
    environment.reset(1);
    let mut mask = [false; 5];
    let step = environment.step(Action::RaiseIsolation.index());
    assert!(!step.terminated && !step.truncated && step.reward < 0.0);
    assert_eq!(environment.level(), 1);
    environment.step(Action::Continue.index());
    environment.mask(&mut mask);
    assert_eq!(mask, [false, false, true, true, true]);
    let step = environment.step(Action::Terminate.index());
    assert_eq!(step, Step { reward: 1.0, terminated: true, truncated: false });
}

#[test]
fn a_release_leads_into_the_second_stage() {
    let events = [calls(1, 9), calls(2, 6)].concat();
    let mut environment =
        environment(record(&SMALL, &[(Some(Label::Benign), true, events)]), RecordedOptions::default());
    environment.reset(0);
    let step = environment.step(Action::Release.index());
    assert!(!step.terminated && !step.truncated);
    let mut state = vec![0.0; WIDTH];
    environment.observe(&mut state);
    assert_eq!(state[element::STAGE], 1.0);
    let step = environment.step(Action::Release.index());
    assert!(step.terminated);
    assert_eq!(step.reward, 0.5 * RewardConfig::default().true_negative);
}

#[test]
fn a_run_that_was_cut_off_is_truncated() {
    let mut environment =
        environment(record(&SMALL, &[(Some(Label::Benign), false, calls(1, 12))]), RecordedOptions::default());
    environment.reset(0);
    assert!(!environment.step(0).truncated);
    let step = environment.step(0);
    assert!(step.truncated && !step.terminated);
    let mut mask = [false; 5];
    environment.mask(&mut mask);
    assert!(mask[Action::Continue.index()], "the run went on, only its recording did not");
}

#[test]
fn there_must_be_something_to_play() {
    let nothing = Arc::new(record(&SMALL, &[(None, true, calls(1, 3)), (Some(Label::Benign), true, vec![])]));
    assert_eq!((nothing.unlabelled(), nothing.empty()), (1, 1));
    let options = RecordedOptions::default();
    let refused = RecordedEnvironment::new(Arc::clone(&nothing), RewardConfig::default(), options);
    assert_eq!(refused.err(), Some(RecordedError::Empty));
    let options = RecordedOptions { z: 1.5, can_raise: false };
    assert_eq!(
        RecordedEnvironment::new(nothing, RewardConfig::default(), options).err(),
        Some(RecordedError::Cost(1.5))
    );
}

#[test]
fn real_time_waits_between_windows() {
    struct Note(Arc<Mutex<Vec<Duration>>>);
    impl Pace for Note {
        fn pause(&mut self, delay: Duration) {
            self.0.lock().unwrap().push(delay);
        }
    }
    let mut events = calls(1, 12);
    for (at, event) in events.iter_mut().enumerate() {
        event.time_ns = Some(at as u64 * 1_000);
    }
    let recordings = Arc::new(record(&SMALL, &[(Some(Label::Benign), true, events)]));
    for (rule, expected) in [
        (RealTime::Fixed(Duration::from_millis(3)), [3_000_000, 3_000_000]),
        (RealTime::Recorded { speed: 2.0 }, [2_000, 2_000]),
        (RealTime::Recorded { speed: 0.0 }, [0, 0]),
    ] {
        let waits = Arc::new(Mutex::new(Vec::new()));
        let environment =
            RecordedEnvironment::new(Arc::clone(&recordings), RewardConfig::default(), RecordedOptions::default());
        let mut environment = environment.unwrap().in_real_time(rule, Box::new(Note(Arc::clone(&waits))));
        environment.reset(0);
        environment.step(0);
        environment.step(0);
        environment.step(Action::Release.index());
        assert_eq!(*waits.lock().unwrap(), expected.map(Duration::from_nanos));
    }
}

/// Ways to break the contract.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Unwritten,
    NotFinite,
    OutOfRange,
    EmptyMask,
    Reward,
    BothEnds,
    Width,
    Forgetful,
}

struct Faulty {
    fault: Fault,
    at: usize,
    plays: usize,
}

impl Environment for Faulty {
    fn width(&self) -> usize {
        if self.fault == Fault::Width && self.at > 0 { 3 } else { 2 }
    }
    fn actions(&self) -> usize {
        2
    }
    fn reset(&mut self, _: u64) {
        self.at = 0;
        self.plays += 1;
    }
    fn step(&mut self, _: usize) -> Step {
        self.at += 1;
        let end = self.at == 3;
        let reward = if self.fault == Fault::Reward { f32::NAN } else { 1.0 };
        Step { reward, terminated: end, truncated: end && self.fault == Fault::BothEnds }
    }
    fn observe(&self, out: &mut [f32]) {
        out[0] = match self.fault {
            Fault::NotFinite => f32::INFINITY,
            Fault::OutOfRange => 2.0,
            Fault::Forgetful => self.plays as f32 / 1_000.0,
            _ => 0.5,
        };
        if self.fault != Fault::Unwritten {
            out[1] = 0.0;
        }
    }
    fn mask(&self, out: &mut [bool]) {
        out.fill(self.fault != Fault::EmptyMask);
    }
}

#[test]
fn every_breach_is_found() {
    let check = |fault| {
        let options = ConformanceOptions { seeds: 3, max_steps: 10, unit_range: true };
        check_environment(&mut Faulty { fault, at: 0, plays: 0 }, &options)
    };
    let report = check(Fault::None).unwrap();
    assert_eq!((report.episodes, report.steps, report.terminated, report.left), (3, 9, 3, 0));
    assert!(matches!(check(Fault::Unwritten), Err(ConformanceError::Observation { index: 1, .. })));
    assert!(matches!(check(Fault::NotFinite), Err(ConformanceError::Observation { index: 0, .. })));
    assert!(matches!(check(Fault::OutOfRange), Err(ConformanceError::Observation { index: 0, .. })));
    assert!(matches!(check(Fault::EmptyMask), Err(ConformanceError::EmptyMask { step: 0, .. })));
    assert!(matches!(check(Fault::Reward), Err(ConformanceError::Reward { step: 1, .. })));
    assert!(matches!(check(Fault::BothEnds), Err(ConformanceError::BothEnds { step: 3, .. })));
    assert!(matches!(check(Fault::Width), Err(ConformanceError::ShapeChanged { step: 1, .. })));
    assert!(matches!(check(Fault::Forgetful), Err(ConformanceError::NotRepeatable { what: "observation", .. })));
}
