//! What a policy is worth by the steps of another: against exact values, and against exact replay.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod cases;

use bellwether_artifact::{ModelVersion, durable};
use bellwether_env_adapter::spec::{FeatureSpec, WIDTH};
use bellwether_env_adapter::{ACTION_COUNT, Action, Label};
use bellwether_replay::Encoding;
use bellwether_replay::episodes::{EpisodeFileHeader, EpisodeReader, EpisodeWriter, StepRow};
use bellwether_trainer::dqn::{DqnError, DrawConfig, PrioritisedConfig};
use bellwether_trainer::evaluate::Bootstrap;
use bellwether_trainer::learner::fused::Isa;
use bellwether_trainer::logged::{LearnableSteps, Logged, LoggedError, operating_points};
use bellwether_trainer::network::{NetworkConfig, NetworkShape};
use bellwether_trainer::off_policy::{
    Estimate, FittedQ, OffPolicyError, TargetPolicy, Trajectories, TrajectoryStep, estimate,
};
use bellwether_trainer::offline::{Algorithm, OfflineConfig};
use bellwether_trainer::recorded::answers::AnswerModel;
use bellwether_trainer::recorded::playback::{Course, Learnt, play};
use bellwether_trainer::recorded::played::{Player, Playing, write_played};
use bellwether_trainer::streams::stream;
use cases::{Recorded, config, record};
use proptest::prelude::*;
use rand::{Rng, RngExt};
use std::fs::File;
use std::path::{Path, PathBuf};

const GAMMA: f64 = 0.9;
/// Steps after which an episode is cut off.
const LONGEST: usize = 6;

/// A policy of the waiting game: it stops in each step with this probability.
///
/// A step of waiting earns 1; one of stopping earns -2 and ends the episode.
#[derive(Clone, Copy)]
struct Stops(f64);

impl Stops {
    fn value(self, steps_left: usize) -> f64 {
        if steps_left == 0 {
            return 0.0;
        }
        self.0 * -2.0 + (1.0 - self.0) * (1.0 + GAMMA * self.value(steps_left - 1))
    }

    /// The return of waiting or stopping, with so many steps left.
    fn q(self, stops: bool, steps_left: usize) -> f64 {
        if stops { -2.0 } else { 1.0 + GAMMA * self.value(steps_left - 1) }
    }
}

/// Plays by `behaviour` and judges `target`, with a model that is wrong by `error`.
fn play_waiting(episodes: usize, behaviour: Stops, target: Stops, error: f64, rng: &mut impl Rng) -> Trajectories {
    let mut trajectories = Trajectories::default();
    play_into(&mut trajectories, episodes, [behaviour, target], error, rng);
    trajectories
}

fn play_into(
    trajectories: &mut Trajectories,
    episodes: usize,
    [behaviour, target]: [Stops; 2],
    error: f64,
    rng: &mut impl Rng,
) {
    for episode in 0..episodes {
        let mut steps = Vec::new();
        for left in (1..=LONGEST).rev() {
            let stops = rng.random::<f64>() < behaviour.0;
            let of = |policy: Stops| if stops { policy.0 } else { 1.0 - policy.0 };
            let wrong = |stops: bool| target.q(stops, left) + if stops { error } else { -2.0 * error };
            steps.push(TrajectoryStep {
                ratio: of(target) / of(behaviour),
                covered: true,
                reward: if stops { -2.0 } else { 1.0 },
                q: wrong(stops),
                v: target.0 * wrong(true) + (1.0 - target.0) * wrong(false),
            });
            if stops {
                break;
            }
        }
        trajectories.push(episode, steps, 0.0);
    }
}

const QUICK: Bootstrap = Bootstrap { replicates: 100, seed: 0 };

#[test]
fn with_many_episodes_every_estimate_is_the_exact_value_whatever_the_model() {
    let (behaviour, target) = (Stops(0.4), Stops(0.2));
    for error in [0.0, 0.7] {
        let trajectories = play_waiting(100_000, behaviour, target, error, &mut stream(1, "waiting"));
        let estimates = trajectories.estimates(GAMMA, &QUICK).unwrap();
        let exact = target.value(LONGEST);
        for (name, estimate) in &estimates.named()[1..] {
            let value = estimate.value.unwrap();
            if *name == "fitted Q evaluation" {
                // It stands and falls with the model.
                assert_eq!((value - exact).abs() < 0.02, error == 0.0, "{name}: {value}, not {exact}");
                continue;
            }
            assert!((value - exact).abs() < 0.04, "{name}: {value}, not {exact}, with an error of {error}");
            let [low, high] = estimate.ci95.unwrap();
            assert!(low - 1e-9 <= value && value <= high + 1e-9, "{name}: {low} {value} {high}");
        }
        let behaved = estimates.behaviour.value.unwrap();
        assert!((behaved - behaviour.value(LONGEST)).abs() < 0.02, "{behaved}");
    }
}

/// Per-decision and doubly robust estimates are right on average even of few episodes; an exact model leaves the latter almost no
/// spread.
#[test]
fn few_episodes_give_the_exact_value_on_average() {
    let (behaviour, target, sets) = (Stops(0.5), Stops(0.25), 4000);
    let exact = target.value(LONGEST);
    let mut rng = stream(2, "waiting");
    let (mut per_decision, mut robust, mut exact_model) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..sets {
        // Fewer than five episodes need no bootstrap.
        let wrong = play_waiting(4, behaviour, target, 0.5, &mut rng).estimates(GAMMA, &QUICK).unwrap();
        per_decision.push(wrong.per_decision.value.unwrap());
        robust.push(wrong.doubly_robust.value.unwrap());
        let right = play_waiting(4, behaviour, target, 0.0, &mut rng).estimates(GAMMA, &QUICK).unwrap();
        exact_model.push(right.doubly_robust.value.unwrap());
    }
    let moments = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
        (mean, variance.sqrt())
    };
    for values in [&per_decision, &robust, &exact_model] {
        let (mean, deviation) = moments(values);
        let standard_error = deviation / f64::from(sets).sqrt();
        // An exact model leaves nothing but rounding.
        assert!(
            (mean - exact).abs() < 4.0 * standard_error + 1e-9,
            "{mean}, not {exact}, give or take {standard_error}"
        );
    }
    assert!(moments(&exact_model).1 < moments(&robust).1 && moments(&robust).1 < moments(&per_decision).1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A policy that is judged by its own steps is worth what they earned.
    #[test]
    fn on_its_own_steps_a_policy_is_worth_what_they_earned(episodes in 1..30usize, seed: u64, stops in 0.1_f64..0.9) {
        let own = play_waiting(episodes, Stops(stops), Stops(stops), 0.3, &mut stream(seed, "waiting"));
        let estimates = own.estimates(GAMMA, &QUICK).unwrap();
        let earned = estimates.behaviour.value.unwrap();
        for value in [estimates.weighted_importance, estimates.per_decision, estimates.weighted_per_decision] {
            prop_assert!((value.value.unwrap() - earned).abs() < 1e-9);
        }
        let trust = own.trust();
        prop_assert_eq!((trust.episodes, trust.possible), (episodes as u64, episodes as u64));
        prop_assert!((trust.effective - episodes as f64).abs() < 1e-6);
        prop_assert_eq!(estimates.behaviour.ci95.is_some(), episodes >= 5);
    }
}

/// Weights stand only for what the policy that played could have done, wherever the judged policy could have come to.
#[test]
fn a_step_without_chance_leaves_no_estimate_by_weights() {
    let step = |ratio: f64, covered: bool| TrajectoryStep { ratio, covered, reward: 1.0, q: 1.0, v: 1.0 };
    let estimates_of = |steps: [TrajectoryStep; 2]| {
        let mut trajectories = Trajectories::default();
        for episode in 0..8 {
            trajectories.push(episode, [step(1.0, true); 2], 0.0);
        }
        trajectories.push(8, steps, 0.0);
        (trajectories.estimates(1.0, &QUICK).unwrap(), trajectories.trust().uncovered)
    };
    for steps in [[step(0.0, false), step(1.0, true)], [step(1.0, true), step(0.5, false)]] {
        let (estimates, uncovered) = estimates_of(steps);
        assert_eq!(uncovered, 1);
        for (name, estimate) in estimates.named() {
            let stands = ["what was played", "fitted Q evaluation"].contains(&name);
            assert_eq!((estimate.value.is_some(), estimate.ci95.is_some()), (stands, stands), "{name}");
        }
    }
    // The judged policy would not have come there.
    let (estimates, uncovered) = estimates_of([step(0.0, true), step(0.0, false)]);
    assert_eq!((uncovered, estimates.weighted_importance.value), (0, Some(2.0)));
}

/// What is known of early steps stands where no episode could have been played to its end, and draws that miss the one that could
/// are not left out of the interval.
#[test]
fn per_decision_estimates_count_what_is_known_before_all_weights_are_gone() {
    let step = |ratio: f64, reward: f64| TrajectoryStep { ratio, covered: true, reward, q: 0.0, v: 0.0 };
    let of = |last: [f64; 8]| {
        let mut trajectories = Trajectories::default();
        for (episode, ratio) in last.into_iter().enumerate() {
            trajectories.push(episode, [step(1.0, 1.0), step(ratio, 5.0)], 0.0);
        }
        trajectories.estimates(1.0, &QUICK).unwrap()
    };
    let none = of([0.0; 8]);
    assert_eq!(none.weighted_importance, Estimate { value: None, ci95: None });
    for known in [none.per_decision, none.weighted_per_decision] {
        assert_eq!(known, Estimate { value: Some(1.0), ci95: Some([1.0, 1.0]) });
    }
    let one = of([8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    for (known, high) in [(one.per_decision, 11.0..f64::INFINITY), (one.weighted_per_decision, 6.0..6.1)] {
        let [low, above] = known.ci95.unwrap();
        assert!(known.value == Some(6.0) && low == 1.0 && high.contains(&above), "{known:?}");
    }
    // A third of the draws have no whole episode.
    assert_eq!(one.weighted_importance, Estimate { value: Some(6.0), ci95: None });
}

#[test]
fn a_cut_off_episode_counts_what_the_model_expects_of_its_end() {
    let step = TrajectoryStep { ratio: 1.0, covered: true, reward: 1.0, q: 3.0, v: 3.0 };
    let mut trajectories = Trajectories::default();
    trajectories.push(0, [step, step], 10.0);
    let estimates = trajectories.estimates(0.5, &QUICK).unwrap();
    // 3 + (1 - 3) + 0.5 * (3 + (1 - 3)) + 0.25 * 10.
    assert_eq!(estimates.doubly_robust.value, Some(1.0 + 0.5 + 2.5));
    assert_eq!(estimates.weighted_doubly_robust.value, Some(4.0));
    assert_eq!((estimates.behaviour.value, estimates.fitted_q.value), (Some(1.5), Some(3.0)));
}

/// The same episodes in several files narrow no interval.
#[test]
fn copies_of_the_same_episodes_leave_intervals_as_wide_as_they_are() {
    let [behaviour, target] = [Stops(0.5), Stops(0.4)];
    let once = play_waiting(60, behaviour, target, 0.3, &mut stream(7, "waiting"));
    let mut copied = Trajectories::default();
    for _ in 0..4 {
        // The same stream plays the same steps.
        play_into(&mut copied, 60, [behaviour, target], 0.3, &mut stream(7, "waiting"));
    }
    let [once, copied] = [once, copied].map(|it| (it.estimates(GAMMA, &QUICK).unwrap(), it.trust()));
    for ((name, once), (_, copied)) in once.0.named().into_iter().zip(copied.0.named()) {
        let ([low, high], [other_low, other_high]) = (once.ci95.unwrap(), copied.ci95.unwrap());
        assert!((low - other_low).abs() < 1e-9 && (high - other_high).abs() < 1e-9, "{name}");
        // The model expects the same of every first state.
        assert_eq!(low < high, *name != *"fitted Q evaluation", "{name}");
    }
    assert_eq!((copied.1.episodes, copied.1.clusters), (240, 60));
    assert!((once.1.effective - copied.1.effective).abs() < 1e-9);
}

#[test]
fn four_recordings_support_no_interval_however_often_they_were_played() {
    let mut trajectories = Trajectories::default();
    for episode in 0..40 {
        let step = TrajectoryStep { ratio: 1.0, covered: true, reward: f64::from(episode), q: 0.0, v: 0.0 };
        trajectories.push(episode as usize % 4, [step], 0.0);
    }
    assert_eq!(trajectories.estimates(GAMMA, &QUICK).unwrap().behaviour, Estimate { value: Some(19.5), ci95: None });
}

#[test]
fn what_could_not_have_been_played_leaves_only_the_model() {
    let mut trajectories = Trajectories::default();
    for episode in 0..9 {
        trajectories.push(episode, [TrajectoryStep { ratio: 0.0, covered: true, reward: 5.0, q: 2.0, v: 1.5 }], 0.0);
    }
    let estimates = trajectories.estimates(1.0, &QUICK).unwrap();
    for none in [estimates.weighted_importance, estimates.per_decision, estimates.weighted_per_decision] {
        assert_eq!(none, Estimate { value: None, ci95: None });
    }
    assert_eq!((estimates.fitted_q.value, estimates.doubly_robust.value), (Some(1.5), Some(1.5)));
    assert_eq!((trajectories.trust().possible, trajectories.trust().effective), (0, 0.0));
    assert!(Trajectories::default().estimates(1.0, &QUICK).unwrap().behaviour.value.is_none());
}

/// Recordings of two kinds that calls tell apart, and two networks that judge them.
struct World {
    recordings: bellwether_trainer::recorded::recordings::Recordings,
    config: bellwether_trainer::config::TrainConfig,
    shape: NetworkShape,
    played: Vec<f32>,
    judged: Vec<f32>,
}

const Z: f32 = 0.6;

fn world() -> World {
    let config = config(false);
    let mut rng = stream(5, "world");
    let episodes: Vec<Recorded> = (0..40)
        .map(|number| Recorded {
            label: Some(if number % 2 == 0 { Label::Benign } else { Label::Malicious }),
            complete: true,
            stages: vec![(0..rng.random_range(3..11)).map(|_| (number % 2) * 2 + rng.random_range(0..2)).collect()],
        })
        .collect();
    let recordings = record(&episodes, &config);
    let network = NetworkConfig { hidden: vec![8], ..NetworkConfig::default() };
    let shape = network.shape(recordings.width(), ACTION_COUNT).unwrap();
    let [played, judged] = [1, 3].map(|seed| shape.initial_parameters(&mut stream(seed, "init")));
    World { recordings, config, shape, played, judged }
}

impl World {
    fn learnt<'a>(&'a self, parameters: &'a [f32]) -> Learnt<'a> {
        Learnt { shape: &self.shape, parameters, isa: Isa::best() }
    }

    /// Episode files of the same recordings, with other random actions in each.
    fn log(&self, folder: &Path, files: u64, epsilon: f32) -> Vec<PathBuf> {
        self.log_at(folder, files, epsilon, Z)
    }

    fn log_at(&self, folder: &Path, files: u64, epsilon: f32, cost: f32) -> Vec<PathBuf> {
        (0..files)
            .map(|seed| {
                let path = folder.join(format!("{seed}.parquet"));
                self.log_course(&path, Course::Soft { epsilon, seed }, cost);
                path
            })
            .collect()
    }

    fn log_course(&self, path: &Path, course: Course, cost: f32) {
        let episodes: Vec<u32> = self.recordings.episodes().collect();
        let player = Player { model_version: ModelVersion::UNSEALED, target_fpr: 0.05, cost, course };
        let (recordings, config) = (&self.recordings, &self.config);
        let policy = self.learnt(&self.played).into();
        let playing = Playing { recordings, episodes: &episodes, policy, player, config, sources: &["made up".into()] };
        let (bytes, _) = write_played(&playing, Vec::new()).unwrap();
        durable::write_bytes(path, &bytes).unwrap();
    }

    fn offline(&self) -> OfflineConfig {
        OfflineConfig { window: self.config.window.clone(), ..OfflineConfig::default() }
    }

    /// Mean return of a policy by exact replay.
    fn exact(&self, parameters: &[f32]) -> f64 {
        let model = AnswerModel::new(&self.recordings, &self.config.reward, false);
        let episodes: Vec<u32> = self.recordings.episodes().collect();
        let outcomes = play(&model, self.learnt(parameters).into(), &episodes, Z).unwrap();
        outcomes.iter().map(|outcome| outcome.ret).sum::<f64>() / outcomes.len() as f64
    }
}

/// The steps of an epsilon-soft policy tell what another one is worth: what exact replay of it says.
#[test]
fn estimates_are_what_exact_replay_says() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let paths = world.log(folder.path(), 60, 0.6);
    let logged = Logged::read(&paths, &world.offline()).unwrap();
    assert_eq!(logged.loaded().episodes, 60 * 40);
    assert_eq!((logged.reward.clone(), operating_points(&logged.files).count()), (world.config.reward.clone(), 60));
    let fitted = FittedQ {
        updates: 2000,
        network: NetworkConfig { hidden: vec![32], ..NetworkConfig::default() },
        ..FittedQ::default()
    };
    let target = TargetPolicy { policy: world.learnt(&world.judged).into(), epsilon: 0.0 };
    let (estimates, trust) = estimate(&logged, target, &fitted, &QUICK, Isa::best()).unwrap();
    let exact = world.exact(&world.judged);
    assert!((estimates.behaviour.value.unwrap() - exact).abs() > 0.1, "nothing to tell apart: {exact} {estimates:?}");
    for (name, estimate) in &estimates.named()[1..] {
        let value = estimate.value.unwrap();
        assert!((value - exact).abs() < 0.06, "{name}: {value}, not {exact}; {trust:?}");
    }
    assert!(trust.possible > 100 && trust.possible < trust.episodes, "{trust:?}");
}

#[test]
fn estimates_are_the_same_on_every_instruction_set() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let logged = Logged::read(&world.log(folder.path(), 2, 0.6), &world.offline()).unwrap();
    let network = NetworkConfig { hidden: vec![32], ..NetworkConfig::default() };
    let fitted = FittedQ { updates: 20, network, ..FittedQ::default() };
    let [best, scalar] = [Isa::best(), Isa::Scalar].map(|isa| {
        let target = TargetPolicy { policy: world.learnt(&world.judged).into(), epsilon: 0.0 };
        estimate(&logged, target, &fitted, &QUICK, isa).unwrap()
    });
    assert_eq!(best, scalar);
}

/// Judged by its own softness, the policy that played is worth what it earned.
#[test]
fn the_policy_that_played_is_worth_what_it_earned() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let logged = Logged::read(&world.log(folder.path(), 5, 0.3), &world.offline()).unwrap();
    let fitted = FittedQ { updates: 10, ..FittedQ::default() };
    let target = TargetPolicy { policy: world.learnt(&world.played).into(), epsilon: 0.3 };
    let (estimates, trust) = estimate(&logged, target, &fitted, &QUICK, Isa::best()).unwrap();
    let earned = estimates.behaviour.value.unwrap();
    assert!((estimates.weighted_importance.value.unwrap() - earned).abs() < 1e-5, "{estimates:?}");
    // Five files of the same recordings tell no more of other recordings than one.
    assert_eq!((trust.episodes, trust.clusters), (200, 40));
    assert!((trust.effective - 40.0).abs() < 1e-3, "{trust:?}");
}

/// A policy that left nothing to chance tells what it is worth itself, and by weights of no other.
#[test]
fn episodes_without_chance_tell_nothing_by_weights_of_another_policy() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("greedy.parquet");
    world.log_course(&path, Course::Greedy, Z);
    let soft = world.log(folder.path(), 1, 0.3);
    let fitted = FittedQ { updates: 10, ..FittedQ::default() };
    let judge = |paths: &[PathBuf], parameters: &[f32], epsilon: f32| {
        let logged = Logged::read(paths, &world.offline()).unwrap();
        let target = TargetPolicy { policy: world.learnt(parameters).into(), epsilon };
        estimate(&logged, target, &fitted, &QUICK, Isa::best()).unwrap()
    };
    let greedy = [path];
    // Steps of chance beside them help nothing.
    let both = [&greedy[..], &soft].concat();
    for (paths, parameters, epsilon) in
        [(&greedy[..], &world.judged, 0.0), (&greedy, &world.played, 0.1), (&both, &world.judged, 0.0)]
    {
        let (estimates, trust) = judge(paths, parameters, epsilon);
        assert!(trust.uncovered > 0, "{trust:?}");
        assert!(estimates.behaviour.ci95.is_some() && estimates.fitted_q.ci95.is_some());
        let weighed = [estimates.weighted_importance, estimates.per_decision, estimates.weighted_per_decision];
        for none in weighed.into_iter().chain([estimates.doubly_robust, estimates.weighted_doubly_robust]) {
            assert_eq!(none, Estimate { value: None, ci95: None });
        }
    }
    let (estimates, trust) = judge(&greedy, &world.played, 0.0);
    assert_eq!((trust.uncovered, trust.possible), (0, 40));
    let earned = estimates.behaviour.value.unwrap();
    assert!((estimates.weighted_importance.value.unwrap() - earned).abs() < 1e-9, "{estimates:?}");
}

/// The same episodes, of which the safe rule decided the last step of every so many; and how many those are.
fn interrupted(log: &Path, every: u64) -> (PathBuf, u64) {
    let mut reader = EpisodeReader::open(File::open(log).unwrap(), None).unwrap();
    let header = EpisodeFileHeader { safe_rule: true, ..reader.header().clone() };
    let mut writer = EpisodeWriter::new(Vec::new(), header).unwrap();
    let (mut row, mut episode, mut interrupted) = (StepRow::default(), 0, 0);
    while reader.next(&mut row).unwrap() {
        episode += u64::from(row.step == 0);
        if let Some(played) = row.played.as_mut().filter(|_| row.end.is_some() && episode % every == 0) {
            played.safe_rule = true;
            interrupted += 1;
        }
        writer.write(&row.as_step()).unwrap();
    }
    let path = log.with_file_name(format!("interrupted-{every}.parquet"));
    durable::write_bytes(&path, &writer.finish().unwrap().0).unwrap();
    (path, interrupted)
}

/// An episode in which the safe rule decided a step says nothing of the policy, and is counted.
#[test]
fn episodes_with_a_step_of_the_safe_rule_are_left_out() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let log = world.log(folder.path(), 1, 0.3).remove(0);
    let refused = Logged::read(&[interrupted(&log, 1).0], &world.offline()).err().unwrap();
    assert!(matches!(refused, LoggedError::SafeRule { episodes: 40 }), "{refused}");
    let (path, interrupted) = interrupted(&log, 4);
    let logged = Logged::read(std::slice::from_ref(&path), &world.offline()).unwrap();
    assert_eq!((logged.left_out, logged.loaded().safe_rule), (10, interrupted));
    let fitted = FittedQ { updates: 10, ..FittedQ::default() };
    let target = TargetPolicy { policy: world.learnt(&world.played).into(), epsilon: 0.3 };
    let (_, trust) = estimate(&logged, target, &fitted, &QUICK, Isa::best()).unwrap();
    assert_eq!(trust.episodes, 30);
    // To clone, the steps alone are left out; values are learned from all.
    for (algorithm, left_out) in [(Algorithm::Cloning, interrupted), (Algorithm::Bcq, interrupted), (Algorithm::Cql, 0)]
    {
        let config = OfflineConfig { algorithm, ..world.offline() };
        let data = LearnableSteps::read(std::slice::from_ref(&path), &config).unwrap();
        assert_eq!(data.steps.transitions(), data.loaded().steps - left_out, "{algorithm:?}");
    }
}

/// Returns at different costs have no mean, whether the costs differ between files or within one.
#[test]
fn episodes_of_different_costs_are_refused() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let paths = world.log(folder.path(), 1, 0.5);
    let dearer = folder.path().join("dearer");
    std::fs::create_dir(&dearer).unwrap();
    let dearer = world.log_at(&dearer, 1, 0.5, 0.75);
    let refused = |paths: &[PathBuf]| match Logged::read(paths, &world.offline()) {
        Err(LoggedError::Cost { path, episode, cost, first, first_cost }) => {
            assert!((cost - 0.75).abs() < 1e-4 && (first_cost - Z).abs() < 1e-4, "{cost} {first_cost}");
            (path, episode, first)
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("taken"),
    };
    let both = [paths.clone(), dearer.clone()].concat();
    let name = |number: usize| episode_name(&paths[0], number);
    assert_eq!(refused(&both), (dearer[0].clone(), name(0), paths[0].clone()));
    assert!(LearnableSteps::read(&both, &world.offline()).is_ok(), "a learner takes each step at its own cost");

    // The last episode of a file, taken from the dearer one.
    let mixed = folder.path().join("mixed.parquet");
    let mut readers = [&paths[0], &dearer[0]].map(|path| EpisodeReader::open(File::open(path).unwrap(), None).unwrap());
    let mut writer = EpisodeWriter::new(Vec::new(), readers[0].header().clone()).unwrap();
    for (from, reader) in readers.iter_mut().enumerate() {
        let (mut row, mut episodes) = (StepRow::default(), 0);
        while reader.next(&mut row).unwrap() {
            episodes += usize::from(row.step == 0);
            if (episodes == 40) == (from == 1) {
                writer.write(&row.as_step()).unwrap();
            }
        }
    }
    durable::write_bytes(&mixed, &writer.finish().unwrap().0).unwrap();
    assert_eq!(refused(std::slice::from_ref(&mixed)), (mixed.clone(), name(39), mixed.clone()));
}

/// The name of an episode of a file.
fn episode_name(path: &Path, number: usize) -> String {
    let mut reader = EpisodeReader::open(File::open(path).unwrap(), None).unwrap();
    let (mut row, mut names) = (StepRow::default(), Vec::new());
    while reader.next(&mut row).unwrap() {
        if row.step == 0 {
            names.push(row.episode_id.clone());
        }
    }
    names.swap_remove(number)
}

#[test]
fn what_cannot_be_estimated_is_refused() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let paths = world.log(folder.path(), 1, 0.5);
    let offline = world.offline();
    assert!(matches!(Logged::read(&[], &offline), Err(LoggedError::None)));
    let missing = [folder.path().join("none.parquet")];
    assert!(matches!(Logged::read(&missing, &offline), Err(LoggedError::Open { .. })));
    let other = OfflineConfig::default();
    assert!(matches!(Logged::read(&paths, &other), Err(LoggedError::Read { .. })), "other windows");
    for (width, actions) in [(4, ACTION_COUNT), (WIDTH, 32)] {
        let header = EpisodeFileHeader {
            width,
            actions: actions as u32,
            encoding: Encoding::Dense,
            spec_hash: FeatureSpec::v1(offline.window.clone()).hash_hex(),
            action_set: Action::SET_VERSION.to_string(),
            reward: serde_json::to_string(&world.config.reward).unwrap(),
            sources: Vec::new(),
            policy: None,
            q_values: false,
            safe_rule: false,
        };
        let (bytes, _) = EpisodeWriter::new(Vec::new(), header).unwrap().finish().unwrap();
        let path = folder.path().join("misshapen.parquet");
        durable::write_bytes(&path, &bytes).unwrap();
        assert!(matches!(Logged::read(&[path], &offline), Err(LoggedError::Shape { .. })), "{width} {actions}");
    }
    let small = OfflineConfig { memory_bytes: 1000, ..offline.clone() };
    assert!(matches!(Logged::read(&paths, &small), Err(LoggedError::Memory { .. })));
    let other = {
        let mut world = World { config: world.config.clone(), ..self::world() };
        world.config.reward.true_positive *= 2.0;
        let folder = folder.path().join("other");
        std::fs::create_dir(&folder).unwrap();
        world.log(&folder, 1, 0.5)
    };
    let both = [paths.clone(), other].concat();
    let Err(LoggedError::Reward { path, reason }) = Logged::read(&both, &offline) else { panic!("other rewards") };
    assert_eq!(path, both[1]);
    for part in ["0.parquet", "true_positive is 2", "and 1", "use them apart"] {
        assert!(reason.contains(part), "{reason}");
    }

    let logged = Logged::read(&paths, &offline).unwrap();
    let refused = |fitted: FittedQ, epsilon: f32| {
        let target = TargetPolicy { policy: world.learnt(&world.judged).into(), epsilon };
        match estimate(&logged, target, &fitted, &QUICK, Isa::best()) {
            Err(OffPolicyError::Model(DqnError::Config(refused))) => refused.key,
            other => panic!("{other:?}"),
        }
    };
    let changed = |change: fn(&mut FittedQ)| {
        let mut fitted = FittedQ::default();
        change(&mut fitted);
        fitted
    };
    assert_eq!(refused(FittedQ::default(), 1.5), "epsilon");
    assert_eq!(refused(changed(|f| f.updates = 0), 0.0), "updates");
    assert_eq!(refused(changed(|f| f.update.n_step = 2), 0.0), "update.n_step");
    assert_eq!(refused(changed(|f| f.network.noisy_layers = 1), 0.0), "network.noisy_layers");
    let prioritised = |f: &mut FittedQ| f.update.draw = DrawConfig::Prioritised(PrioritisedConfig::default());
    assert_eq!(refused(changed(prioritised), 0.0), "update.draw");
    assert_eq!(refused(changed(|f| f.folds = 1), 0.0), "folds");
    assert_eq!(refused(changed(|f| f.folds = 41), 0.0), "folds", "there are 40 recordings");
    assert_eq!(refused(changed(|f| f.tau = 0.0), 0.0), "tau");
    assert_eq!(refused(changed(|f| f.target_update_interval = 0), 0.0), "target_update_interval");
}
