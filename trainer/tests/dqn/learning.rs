//! What DQN must solve.

use bellwether_trainer::control::{CartPole, Identity};
use bellwether_trainer::dqn::{DqnConfig, DqnEvent, DqnTrainer, Selection, UpdateConfig, Variant, evaluate_greedy};
use bellwether_trainer::learner::fused::FusedOptions;
use bellwether_trainer::network::NetworkConfig;
use std::ops::ControlFlow;

fn identity(variant: Variant) -> DqnConfig {
    let recipe = DqnConfig {
        seed: 5,
        total_steps: 2000,
        network: NetworkConfig { hidden: vec![32], ..NetworkConfig::default() },
        // What is shown next does not depend on the action, so nothing that follows matters.
        update: UpdateConfig { learning_rate: 5e-3, gamma: 0.5, ..UpdateConfig::default() },
        learning_starts: 100,
        exploration_steps: 1000,
        target_update_interval: 100,
        ..DqnConfig::default()
    };
    variant.of(recipe, [0.0, 2.0])
}

#[test]
fn every_variant_solves_the_identity_environment() {
    for variant in Variant::ALL {
        let environments = vec![Identity::new(6, 30), Identity::new(6, 17)];
        let mut run = DqnTrainer::new(identity(variant), environments, FusedOptions::default()).unwrap();
        let report = run.run(&mut |_: &DqnEvent| ControlFlow::Continue(())).unwrap();
        assert_eq!((report.environment_steps, report.updates, report.finished), (2000, 475, true));
        let evaluation = evaluate_greedy(run.learner(), &mut Identity::new(6, 50), 10, 1000, 5).unwrap();
        assert_eq!(evaluation.min_return(), 50.0, "{variant:?}: {evaluation:?}");
    }
}

/// The recipe of RL Baselines3 Zoo, all 50,000 steps and 24,576 updates. It is the slowest test of the crate, because a
/// shorter one would not show that the whole recipe works.
#[test]
fn the_published_recipe_balances_the_pole() {
    let config = DqnConfig { seed: 1, ..DqnConfig::cart_pole() };
    let mut run = DqnTrainer::new(config, vec![CartPole::default()], FusedOptions::default()).unwrap();
    let mut returns = Vec::new();
    let report = run
        .run(&mut |event: &DqnEvent| {
            if let DqnEvent::Episode { episode_return, .. } = event {
                returns.push(*episode_return);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(report.updates, 128 * (50_000 / 256 - 1000 / 256));
    assert!(returns[..20].iter().sum::<f64>() / 20.0 < 60.0, "{:?}", &returns[..20]);
    let evaluation = evaluate_greedy(run.learner(), &mut CartPole::default(), 20, 1000, 1).unwrap();
    assert_eq!(evaluation.min_return(), 500.0, "{evaluation:?}");
}

/// Seed 7 ends on a network that drops the pole. It is as slow as the test above, for the same reason.
#[test]
fn the_best_network_of_a_run_balances_the_pole_where_the_last_does_not() {
    let config = DqnConfig { seed: 7, ..DqnConfig::cart_pole() };
    let mut run = DqnTrainer::new(config, vec![CartPole::default()], FusedOptions::default()).unwrap();
    let selection = Selection { interval: 2500, episodes: 20, max_steps: 1000, seed: u64::MAX };
    let mut env = CartPole::default();
    let selected = run.run_selecting(&mut env, &selection, &mut |_: &DqnEvent| ControlFlow::Continue(())).unwrap();
    let last = evaluate_greedy(run.learner(), &mut env, 20, 1000, 7).unwrap();
    assert!(last.mean_return() < 400.0, "{last:?}");
    run.learner().restore(&selected.best.unwrap()).unwrap();
    let best = evaluate_greedy(run.learner(), &mut env, 20, 1000, 7).unwrap();
    assert_eq!(best.min_return(), 500.0, "{best:?}, chosen from {:?}", selected.curve);
}
