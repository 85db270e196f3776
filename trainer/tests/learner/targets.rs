//! Masks in the Bellman target, and the target network.

use crate::case::{any_case, draw};
use crate::gradient::learner;
use bellwether_replay::DenseRows;
use bellwether_trainer::learner::fused::{FusedLearner, FusedOptions};
use bellwether_trainer::learner::{Answer, Batch, Learner, Loss, Noise, TargetSync, UpdateSpec};
use bellwether_trainer::network::NetworkShape;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A linear network of one input shows its q-values as its biases: the target is the best allowed one, the lowest
    /// number among equals, and for Double DQN the target's value of the online network's choice.
    #[test]
    fn the_target_takes_the_best_allowed_action(
        online in prop::collection::vec(-3i8..3, 5),
        target in prop::collection::vec(-3i8..3, 5),
        mask in prop::collection::vec(any::<bool>(), 5).prop_filter("one is allowed", |mask| mask.contains(&true)),
        double in any::<bool>(),
    ) {
        let shape = NetworkShape::new(vec![1, 5]).unwrap();
        let parameters = |biases: &[i8]| {
            let mut parameters = vec![0.0; 5];
            parameters.extend(biases.iter().map(|bias| f32::from(*bias)));
            parameters
        };
        let mut learner = FusedLearner::new(shape, &parameters(&online), FusedOptions::default()).unwrap();
        let mut state = learner.state();
        state.target = parameters(&target);
        learner.restore(&state).unwrap();
        let answer = Answer { row: 0, action: 2, reward: 0.5, discount: 0.5, next: 0, weight: 1.0 };
        let rows = DenseRows::new(1, &[1.0]);
        let batch = Batch { states: &rows, masks: &[], answers: &[answer], next_states: &rows, next_masks: &mask };
        let spec = UpdateSpec { double, ..UpdateSpec::default() };
        let mut errors = Vec::new();
        learner.update(&spec, batch, Noise::default(), &mut errors).unwrap();
        let judge = if double { &online } else { &target };
        let chosen = (0..5).filter(|a| mask[*a]).reduce(|best, a| if judge[a] > judge[best] { a } else { best });
        let expected = f32::from(online[2]) - (0.5 + 0.5 * f32::from(target[chosen.unwrap()]));
        prop_assert_eq!(errors[0], expected);
    }

    /// The target network moves when the update says so, to where it says, and not otherwise.
    #[test]
    fn the_target_network_moves_when_told(case in any_case(), plan in prop::collection::vec(any::<bool>(), 1..6)) {
        let mut learner = learner(&case, FusedOptions::default());
        for sync in plan {
            let before = learner.state().target;
            let target_sync = if sync { TargetSync::Hard } else { TargetSync::Keep };
            let spec = UpdateSpec { target_sync, ..case.spec.clone() };
            case.with_batch(|batch, noise| learner.update(&spec, batch, noise, &mut Vec::new())).unwrap();
            let state = learner.state();
            prop_assert_eq!(&state.target, if sync { &state.online } else { &before });
        }
        learner.sync_target(TargetSync::Hard).unwrap();
        prop_assert_eq!(learner.state().target, learner.parameters());
    }
}

#[test]
fn a_learner_goes_on_from_its_state_as_if_nothing_had_happened() {
    let spec = UpdateSpec { normaliser: 16.0, target_sync: TargetSync::Soft(0.01), ..UpdateSpec::default() };
    let case = draw(vec![6, 20, 3], 16, 16, 1, spec, 2);
    let update = |learner: &mut FusedLearner| {
        case.with_batch(|batch, noise| learner.update(&case.spec, batch, noise, &mut Vec::new())).unwrap();
    };
    let mut straight = learner(&case, FusedOptions::default());
    (0..5).for_each(|_| update(&mut straight));
    let mut stopped = learner(&case, FusedOptions::default());
    (0..2).for_each(|_| update(&mut stopped));
    let mut resumed = learner(&case, FusedOptions { threads: 2, ..FusedOptions::default() });
    resumed.restore(&stopped.state()).unwrap();
    (0..3).for_each(|_| update(&mut resumed));
    assert_eq!(resumed.state(), straight.state());
}

/// Where only what was played is learned, an answer may tell anything about what followed.
#[test]
fn cloning_does_not_look_at_rewards_and_successors() {
    let spec = UpdateSpec { loss: Loss::Cloning, ..UpdateSpec::default() };
    let mut case = draw(vec![4, 8, 3], 6, 0, 1, spec, 3);
    let mut state = None;
    for (reward, discount, next) in [(0.0, 0.0, 0), (1.0, 0.9, u32::MAX), (f32::NAN, f32::INFINITY, 7)] {
        for answer in &mut case.answers {
            (answer.reward, answer.discount, answer.next) = (reward, discount, next);
        }
        let mut learner = learner(&case, FusedOptions::default());
        case.with_batch(|batch, noise| learner.update(&case.spec, batch, noise, &mut Vec::new())).unwrap();
        assert_eq!(*state.get_or_insert_with(|| learner.state()), learner.state());
    }
}
