//! When the loop does what, and what it never does.

use bellwether_env_adapter::{Environment, Step};
use bellwether_replay::{SampleSpec, StateRows};
use bellwether_trainer::control::Identity;
use bellwether_trainer::dqn::{
    DqnConfig, DqnError, DqnEvent, DqnTrainer, LossConfig, Selection, UpdateConfig, evaluate_greedy,
};
use bellwether_trainer::learner::fused::{FusedLearner, FusedOptions, Isa};
use bellwether_trainer::learner::{
    Batch, Learner, LearnerError, LearnerState, Noise, TargetSync, UpdateReport, UpdateSpec,
};
use bellwether_trainer::network::{NetworkConfig, NetworkShape};
use proptest::prelude::*;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

pub(crate) fn small() -> DqnConfig {
    DqnConfig {
        seed: 3,
        total_steps: 300,
        network: NetworkConfig { hidden: vec![8], ..NetworkConfig::default() },
        update: UpdateConfig { batch_size: 8, ..UpdateConfig::default() },
        buffer_capacity: 200,
        learning_starts: 20,
        exploration_steps: 200,
        target_update_interval: 30,
        ..DqnConfig::default()
    }
}

pub(crate) fn events<E: Environment>(run: &mut DqnTrainer<E>) -> Vec<DqnEvent> {
    let mut events = Vec::new();
    let mut note = |event: &DqnEvent| {
        events.push(event.clone());
        ControlFlow::Continue(())
    };
    run.run(&mut note).unwrap();
    events
}

/// What a learner was asked to do, by name, with the number of updates before it.
type Calls = Arc<Mutex<Vec<(&'static str, u64)>>>;

/// A learner that notes what it is asked.
struct Noted {
    inner: FusedLearner,
    calls: Calls,
    acted: u64,
}

impl Learner for Noted {
    fn name(&self) -> &'static str {
        "noted"
    }
    fn supports(&self, spec: &UpdateSpec) -> Result<(), LearnerError> {
        self.inner.supports(spec)
    }
    fn update(
        &mut self,
        spec: &UpdateSpec,
        batch: Batch<'_>,
        noise: Noise<'_>,
        errors: &mut Vec<f32>,
    ) -> Result<UpdateReport, LearnerError> {
        self.calls.lock().unwrap().push(("update", self.acted));
        self.inner.update(spec, batch, noise, errors)
    }
    fn sync_target(&mut self, sync: TargetSync) -> Result<(), LearnerError> {
        self.calls.lock().unwrap().push(("sync", self.acted));
        self.inner.sync_target(sync)
    }
    fn q_values(&mut self, states: &dyn StateRows, factors: &[f32], out: &mut Vec<f32>) -> Result<(), LearnerError> {
        self.acted += 1;
        self.inner.q_values(states, factors, out)
    }
    fn shape(&self) -> &NetworkShape {
        self.inner.shape()
    }
    fn parameters(&self) -> &[f32] {
        self.inner.parameters()
    }
    fn target(&self) -> &[f32] {
        self.inner.target()
    }
    fn state(&self) -> LearnerState {
        self.inner.state()
    }
    fn restore(&mut self, state: &LearnerState) -> Result<(), LearnerError> {
        self.inner.restore(state)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Synchronisations and updates come exactly at their intervals, however many environments take turns.
    #[test]
    fn everything_happens_exactly_at_its_interval(
        sync_interval in 1..40u64, train_interval in 1..40u64, rounds in 1..4u32, total in 1..120u64, seats in 1..4usize,
    ) {
        let config = DqnConfig {
            total_steps: total,
            learning_starts: 0,
            // The greedy action is asked for in every step, which counts them; none has an epsilon of 1.
            exploration_initial: 0.5,
            target_update_interval: sync_interval,
            train_interval,
            gradient_steps: rounds,
            ..small()
        };
        let shape = config.network.shape(3, 3).unwrap();
        let parameters = shape.initial_parameters(&mut bellwether_trainer::streams::stream(1, "init"));
        let calls = Calls::default();
        let inner = FusedLearner::new(shape, &parameters, FusedOptions::default()).unwrap();
        let learner = Box::new(Noted { inner, calls: calls.clone(), acted: 0 });
        let environments = (0..seats).map(|_| Identity::new(3, 7)).collect();
        let mut run = DqnTrainer::with_learner(config, environments, learner).unwrap();
        run.run(&mut |_: &DqnEvent| ControlFlow::Continue(())).unwrap();
        let mut expected = Vec::new();
        for step in 1..=total {
            if step % sync_interval == 0 {
                expected.push(("sync", step));
            }
            if step % train_interval == 0 {
                expected.extend((0..rounds).map(|_| ("update", step)));
            }
        }
        prop_assert_eq!(&*calls.lock().unwrap(), &expected);
    }
}

/// Shows its step; the action of the step's parity is forbidden and would end everything with a fortune.
struct Forbidding {
    step: u32,
}

impl Environment for Forbidding {
    fn width(&self) -> usize {
        2
    }
    fn actions(&self) -> usize {
        3
    }
    fn reset(&mut self, _: u64) {
        self.step = 0;
    }
    fn step(&mut self, action: usize) -> Step {
        assert_ne!(action, self.step as usize % 2, "a masked action was played");
        self.step += 1;
        Step { reward: 0.1, terminated: self.step == 10, truncated: false }
    }
    fn observe(&self, out: &mut [f32]) {
        out.copy_from_slice(&[self.step as f32 / 10.0, (self.step % 2) as f32]);
    }
    fn mask(&self, out: &mut [bool]) {
        out.fill(true);
        out[self.step as usize % 2] = false;
    }
}

#[test]
fn a_masked_action_is_never_played() {
    let mut run = DqnTrainer::new(small(), vec![Forbidding { step: 0 }], FusedOptions::default()).unwrap();
    let events = events(&mut run);
    assert!(events.iter().any(|event| matches!(event, DqnEvent::Episode { length: 10, terminated: true, .. })));
}

#[test]
fn behaviour_probabilities_are_those_of_the_policy() {
    let config = DqnConfig { exploration_initial: 0.3, exploration_final: 0.3, ..small() };
    let mut run = DqnTrainer::new(config, vec![Forbidding { step: 0 }], FusedOptions::default()).unwrap();
    events(&mut run);
    let (mut explored, mut greedy) = (0, 0);
    for row in run.buffer().oldest_first() {
        if let Some(played) = run.buffer().transition(row, &SampleSpec::default()).unwrap() {
            // Two actions are allowed in each state: 0.3 / 2 for the other one, 0.3 / 2 + 0.7 for the greedy one.
            if (played.behaviour_probability - 0.15).abs() < 1e-6 {
                explored += 1;
            } else {
                assert!((played.behaviour_probability - 0.85).abs() < 1e-6, "{}", played.behaviour_probability);
                greedy += 1;
            }
        }
    }
    assert!(greedy > 4 * explored && explored > 10, "{greedy} greedy, {explored} explored");
}

#[test]
fn the_same_seed_gives_the_same_run_on_every_machine_and_another_seed_another() {
    let run = |seed, options| {
        let small = small();
        let update = UpdateConfig { input_dropout: 0.1, hidden_dropout: 0.2, n_step: 3, ..small.update };
        let config = DqnConfig { seed, update, ..small };
        let mut run = DqnTrainer::new(config, vec![Identity::new(4, 9), Identity::new(4, 5)], options).unwrap();
        let events = serde_json::to_string(&events(&mut run)).unwrap();
        (events, run.learner().state())
    };
    let once = run(1, FusedOptions { isa: Isa::Scalar, threads: 1 });
    assert_eq!(once, run(1, FusedOptions { isa: Isa::best(), threads: 2 }));
    let other = run(2, FusedOptions::default());
    assert_ne!(once.0, other.0);
    assert_ne!(once.1, other.1);
}

#[test]
fn an_observer_stops_the_run_and_a_later_call_goes_on_with_it() {
    let make = || DqnTrainer::new(small(), vec![Identity::new(4, 9)], FusedOptions::default()).unwrap();
    let mut straight = make();
    let expected = events(&mut straight);
    let mut stopping = make();
    let mut seen = Vec::new();
    let mut calls = 0;
    loop {
        calls += 1;
        let mut note = |event: &DqnEvent| {
            seen.push(event.clone());
            ControlFlow::Break(())
        };
        if stopping.run(&mut note).unwrap().finished {
            break;
        }
    }
    assert!(calls > 10);
    assert_eq!(seen, expected);
    assert_eq!(stopping.learner().state(), straight.learner().state());
}

#[test]
fn a_selection_keeps_the_best_network_and_changes_nothing() {
    let mut config = DqnConfig { target_update_interval: 10, ..small() };
    config.update.learning_rate = 0.02;
    let make = || DqnTrainer::new(config.clone(), vec![Identity::new(4, 9)], FusedOptions::default()).unwrap();
    let mut straight = make();
    let expected = events(&mut straight);
    let mut selecting = make();
    let selection = Selection { interval: 40, episodes: 3, max_steps: 30, seed: 8 };
    let mut seen = Vec::new();
    let mut note = |event: &DqnEvent| {
        seen.push(event.clone());
        ControlFlow::Continue(())
    };
    let selected = selecting.run_selecting(&mut Identity::new(4, 9), &selection, &mut note).unwrap();
    assert_eq!(seen, expected);
    assert_eq!(selecting.learner().state(), straight.learner().state());
    let steps: Vec<u64> = selected.curve.iter().map(|(steps, _)| *steps).collect();
    // Rounds come every 4 steps, so each multiple of 40 is one, and the run ends after 300.
    assert_eq!(steps, [40, 80, 120, 160, 200, 240, 280, 300]);
    let highest = selected.curve.iter().map(|(_, mean)| *mean).fold(0.0, f64::max);
    assert!(selected.curve.iter().any(|(_, mean)| *mean < highest), "{:?}", selected.curve);
    selecting.learner().restore(&selected.best.unwrap()).unwrap();
    let again = evaluate_greedy(selecting.learner(), &mut Identity::new(4, 9), 3, 30, 8).unwrap();
    assert_eq!(again.mean_return(), highest);
    // A run that its observer stops gives what there is.
    let stopped =
        make().run_selecting(&mut Identity::new(4, 9), &selection, &mut |_: &DqnEvent| ControlFlow::Break(()));
    assert!(matches!(stopped, Ok(stopped) if !stopped.report.finished && stopped.best.is_none()));
    let none = Selection { interval: 0, ..selection };
    let refused = make().run_selecting(&mut Identity::new(4, 9), &none, &mut |_: &DqnEvent| ControlFlow::Continue(()));
    assert!(matches!(refused, Err(DqnError::Config(refused)) if refused.key == "selection.interval"));
}

/// An environment that breaks its contract after some steps.
struct Broken {
    step: u32,
    reward: f32,
    observation: f32,
    allowed: bool,
}

impl Environment for Broken {
    fn width(&self) -> usize {
        1
    }
    fn actions(&self) -> usize {
        2
    }
    fn reset(&mut self, _: u64) {}
    fn step(&mut self, _: usize) -> Step {
        self.step += 1;
        Step { reward: if self.step < 5 { 0.0 } else { self.reward }, terminated: false, truncated: false }
    }
    fn observe(&self, out: &mut [f32]) {
        out[0] = if self.step < 5 { 0.0 } else { self.observation };
    }
    fn mask(&self, out: &mut [bool]) {
        out.fill(self.step < 5 || self.allowed);
    }
}

#[test]
fn a_broken_environment_is_an_error() {
    for (reward, observation, allowed) in [(f32::NAN, 0.0, true), (0.0, f32::INFINITY, true), (0.0, 0.0, false)] {
        let sound = || Broken { step: 0, reward: 0.0, observation: 0.0, allowed: true };
        let seats = vec![sound(), sound(), Broken { step: 0, reward, observation, allowed }];
        let mut run = DqnTrainer::new(small(), seats, FusedOptions::default()).unwrap();
        let error = run.run(&mut |_: &DqnEvent| ControlFlow::Continue(())).unwrap_err();
        assert!(matches!(error, DqnError::Environment { environment: 2, .. }), "{error:?}");
    }
    let none = DqnTrainer::<Identity>::new(small(), vec![], FusedOptions::default()).err();
    assert!(matches!(none, Some(DqnError::Environment { .. })));
    let mut crowded = small();
    (crowded.buffer_capacity, crowded.update.batch_size) = (5, 4);
    let seats = (0..3).map(|_| Identity::new(2, 3)).collect();
    let error = DqnTrainer::new(crowded, seats, FusedOptions::default()).err().unwrap();
    assert!(error.to_string().contains("buffer_capacity"), "{error}");
    let differ = DqnTrainer::new(small(), vec![Identity::new(2, 3), Identity::new(3, 3)], FusedOptions::default());
    assert!(matches!(differ.err(), Some(DqnError::Environment { environment: 1, .. })));
}

/// Targets that feed on themselves: an undiscounted game without an end, in which the target network follows at once.
#[test]
fn q_values_that_run_away_end_the_run_with_what_to_do() {
    let mut config = DqnConfig { total_steps: 1_000_000, target_update_interval: 1, ..small() };
    (config.update.gamma, config.update.learning_rate) = (1.0, 0.5);
    (config.update.double, config.update.loss) = (false, LossConfig::Mse);
    let env = Broken { step: 0, reward: 1.0, observation: 1.0, allowed: true };
    let mut run = DqnTrainer::new(config, vec![env], FusedOptions::default()).unwrap();
    let error = run.run(&mut |_: &DqnEvent| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, DqnError::Learner(LearnerError::Exploded { .. })), "{error}");
    assert!(error.to_string().contains("lower the learning rate"), "{error}");
}

#[test]
fn divergence_ends_the_run_with_an_error() {
    let mut config = small();
    config.update.loss = LossConfig::Mse;
    let env = Broken { step: 0, reward: 1e30, observation: 0.0, allowed: true };
    let mut run = DqnTrainer::new(config, vec![env], FusedOptions::default()).unwrap();
    let error = run.run(&mut |_: &DqnEvent| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, DqnError::Learner(LearnerError::Diverged { .. })), "{error}");
}
