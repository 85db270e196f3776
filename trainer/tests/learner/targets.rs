//! Masks in the Bellman target, and the target network.

use crate::case::{Case, any_case, draw};
use crate::gradient::learner;
use crate::subject::Subject;
use bellwether_replay::DenseRows;
use bellwether_trainer::learner::fused::{FusedLearner, FusedOptions};
use bellwether_trainer::learner::{Answer, Batch, Loss, Noise, TargetSync, UpdateSpec};
use bellwether_trainer::network::NetworkShape;
use proptest::prelude::*;

/// Biases of the online and the target network of five actions, allowed actions, and whether Double DQN chooses.
pub(crate) type Choice = (Vec<i8>, Vec<i8>, Vec<bool>, bool);

pub(crate) fn any_choice() -> impl Strategy<Value = Choice> {
    let biases = || prop::collection::vec(-3i8..3, 5);
    let mask = prop::collection::vec(any::<bool>(), 5).prop_filter("one is allowed", |mask| mask.contains(&true));
    (biases(), biases(), mask, any::<bool>())
}

/// A linear network of one input shows its q-values as its biases: the target is the best allowed one, the lowest
/// number among equals, and for Double DQN the target's value of the online network's choice.
pub(crate) fn takes_the_best_allowed_action<S: Subject>((online, target, mask, double): &Choice) {
    let shape = NetworkShape::new(vec![1, 5]).unwrap();
    let parameters = |biases: &[i8]| {
        let mut parameters = vec![0.0; 5];
        parameters.extend(biases.iter().map(|bias| f32::from(*bias)));
        parameters
    };
    let mut learner = S::make(shape, &parameters(online)).unwrap();
    let mut state = learner.state();
    state.target = parameters(target);
    learner.restore(&state).unwrap();
    let answer = Answer { row: 0, action: 2, reward: 0.5, discount: 0.5, next: 0, weight: 1.0 };
    let rows = DenseRows::new(1, &[1.0]);
    let batch = Batch { states: &rows, masks: &[], answers: &[answer], next_states: &rows, next_masks: mask };
    let spec = UpdateSpec { double: *double, ..UpdateSpec::default() };
    let mut errors = Vec::new();
    learner.update(&spec, batch, Noise::default(), &mut errors).unwrap();
    let judge = if *double { online } else { target };
    let chosen = (0..5).filter(|a| mask[*a]).reduce(|best, a| if judge[a] > judge[best] { a } else { best });
    let expected = f32::from(online[2]) - (0.5 + 0.5 * f32::from(target[chosen.unwrap()]));
    assert_eq!(errors[0], expected);
}

/// The target network moves when the update says so, to where it says, and not otherwise.
pub(crate) fn moves_when_told<S: Subject>(case: &Case, plan: &[bool]) {
    let mut learner = S::of(case);
    for sync in plan {
        let before = learner.state().target;
        let target_sync = if *sync { TargetSync::Hard } else { TargetSync::Keep };
        let spec = UpdateSpec { target_sync, ..case.spec.clone() };
        case.with_batch(|batch, noise| learner.update(&spec, batch, noise, &mut Vec::new())).unwrap();
        let state = learner.state();
        assert_eq!(&state.target, if *sync { &state.online } else { &before });
    }
    learner.sync_target(TargetSync::Hard).unwrap();
    assert_eq!(learner.state().target, learner.parameters());
    assert_eq!(learner.target(), learner.parameters());
}

/// Two updates, a stop and three more in a learner that `resumed` makes are five updates.
pub(crate) fn goes_on_from_its_state<S: Subject>(resumed: impl FnOnce(&Case) -> S) {
    let spec = UpdateSpec { normaliser: 16.0, target_sync: TargetSync::Soft(0.01), ..UpdateSpec::default() };
    let case = draw(vec![6, 20, 3], 16, 16, 1, spec, 2);
    let update = |learner: &mut S| {
        case.with_batch(|batch, noise| learner.update(&case.spec, batch, noise, &mut Vec::new())).unwrap();
    };
    let mut straight = S::of(&case);
    (0..5).for_each(|_| update(&mut straight));
    let mut stopped = S::of(&case);
    (0..2).for_each(|_| update(&mut stopped));
    let mut resumed = resumed(&case);
    resumed.restore(&stopped.state()).unwrap();
    (0..3).for_each(|_| update(&mut resumed));
    assert_eq!(resumed.state(), straight.state());
}

/// Where only what was played is learned, an answer may tell anything about what followed.
pub(crate) fn cloning_looks_at_what_was_played<S: Subject>() {
    let spec = UpdateSpec { loss: Loss::Cloning, ..UpdateSpec::default() };
    let mut case = draw(vec![4, 8, 3], 6, 0, 1, spec, 3);
    let mut state = None;
    for (reward, discount, next) in [(0.0, 0.0, 0), (1.0, 0.9, u32::MAX), (f32::NAN, f32::INFINITY, 7)] {
        for answer in &mut case.answers {
            (answer.reward, answer.discount, answer.next) = (reward, discount, next);
        }
        let mut learner = S::of(&case);
        case.with_batch(|batch, noise| learner.update(&case.spec, batch, noise, &mut Vec::new())).unwrap();
        assert_eq!(*state.get_or_insert_with(|| learner.state()), learner.state());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_target_takes_the_best_allowed_action(choice in any_choice()) {
        takes_the_best_allowed_action::<FusedLearner>(&choice);
    }

    #[test]
    fn the_target_network_moves_when_told(case in any_case(), plan in prop::collection::vec(any::<bool>(), 1..6)) {
        moves_when_told::<FusedLearner>(&case, &plan);
    }
}

#[test]
fn a_learner_goes_on_from_its_state_as_if_nothing_had_happened() {
    goes_on_from_its_state(|case| learner(case, FusedOptions { threads: 2, ..FusedOptions::default() }));
}

#[test]
fn cloning_does_not_look_at_rewards_and_successors() {
    cloning_looks_at_what_was_played::<FusedLearner>();
}
