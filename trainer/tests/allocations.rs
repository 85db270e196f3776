//! Learning allocates nothing once a run is under way: counted, not claimed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../inference/tests/counting/mod.rs"]
mod counting;

use std::ops::ControlFlow;

use bellwether_trainer::control::CartPole;
use bellwether_trainer::dqn::{DqnConfig, DqnEvent, DqnTrainer, UpdateConfig, Variant};
use bellwether_trainer::learner::fused::{FusedOptions, Isa};
use bellwether_trainer::network::NetworkConfig;
use counting::calls_during;

/// Steps after which every buffer has the size that it keeps, and as many again are counted.
const WARM: u64 = 2000;

/// From one round of updates to the next: a step played and appended, a batch drawn, all of an update, priorities told, the target synced.
#[test]
fn steps_in_steady_state_allocate_nothing() {
    for variant in Variant::ALL {
        let small = DqnConfig {
            seed: 3,
            total_steps: WARM,
            network: NetworkConfig { hidden: vec![16, 16], ..NetworkConfig::default() },
            update: UpdateConfig { batch_size: 16, ..UpdateConfig::default() },
            buffer_capacity: 300,
            learning_starts: 20,
            exploration_steps: 200,
            target_update_interval: 30,
            train_interval: 1,
            ..DqnConfig::default()
        };
        let options = FusedOptions { isa: Isa::best(), threads: 1 };
        let run = |steps: u64| {
            let config = variant.of(DqnConfig { total_steps: steps, ..small.clone() }, [0.0, 50.0]);
            DqnTrainer::new(config, vec![CartPole::default(); 2], options).unwrap()
        };
        let mut told = 0_u64;
        let mut note = |event: &DqnEvent| {
            told += u64::from(matches!(event, DqnEvent::Updates { .. }));
            ControlFlow::Continue(())
        };
        // The same run, cut short and whole: what the second half allocates is the difference.
        let mut half = run(WARM);
        let first = calls_during(|| drop(half.run(&mut note)));
        let mut whole = run(2 * WARM);
        let both = calls_during(|| drop(whole.run(&mut note)));
        assert!(told >= WARM, "{told} rounds of updates");
        assert_eq!(both, first, "{variant:?}");
    }
}
