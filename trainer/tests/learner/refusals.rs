//! What learners refuse, and that a refusal leaves them as they were.

use crate::case::{Case, draw};
use crate::subject::Subject;
use bellwether_trainer::learner::fused::FusedLearner;
use bellwether_trainer::learner::{LearnerError, LearnerState, Loss, TargetSync, UpdateSpec};

fn case() -> Case {
    let spec = UpdateSpec { dropout: vec![0.5, 0.0], ..UpdateSpec::default() };
    draw(vec![3, 8, 2], 4, 4, 1, spec, 1)
}

fn refusal_of<S: Subject>(change: fn(&mut Case)) -> LearnerError {
    let mut case = case();
    let mut learner = S::of(&case);
    let before = learner.state();
    change(&mut case);
    let error = case.with_batch(|batch, noise| learner.update(&case.spec, batch, noise, &mut Vec::new())).unwrap_err();
    assert_eq!(learner.state(), before, "after {error}");
    error
}

pub(crate) fn bad_updates<S: Subject>() {
    use LearnerError as E;
    let refusal = refusal_of::<S>;
    let setting = |error: LearnerError| match error {
        E::Setting { key, .. } => key,
        other => panic!("{other}"),
    };
    assert_eq!(setting(refusal(|c| c.spec.learning_rate = f32::NAN)), "learning_rate");
    assert_eq!(setting(refusal(|c| c.spec.beta2 = 1.0)), "beta2");
    assert_eq!(setting(refusal(|c| c.spec.epsilon = 0.0)), "epsilon");
    assert_eq!(setting(refusal(|c| c.spec.weight_decay = -1.0)), "weight_decay");
    assert_eq!(setting(refusal(|c| c.spec.l2 = f32::NAN)), "l2");
    assert_eq!(setting(refusal(|c| c.spec.max_gradient_norm = 0.0)), "max_gradient_norm");
    assert_eq!(setting(refusal(|c| c.spec.normaliser = 0.0)), "normaliser");
    assert_eq!(setting(refusal(|c| c.spec.loss = Loss::Huber(0.0))), "loss.huber");
    assert_eq!(setting(refusal(|c| c.spec.dropout[0] = 1.0)), "dropout");
    assert_eq!(setting(refusal(|c| c.spec.target_sync = TargetSync::Soft(1.5))), "tau");

    let answer = |error: LearnerError| match error {
        E::Answer { index, .. } => index,
        other => panic!("{other}"),
    };
    assert_eq!(answer(refusal(|c| c.answers[2].row = 9)), 2);
    assert_eq!(answer(refusal(|c| c.answers.swap(0, 3))), 1);
    assert_eq!(answer(refusal(|c| c.answers[1].action = 2)), 1);
    assert_eq!(answer(refusal(|c| c.answers[3].reward = f32::INFINITY)), 3);
    assert_eq!(answer(refusal(|c| c.answers[0].weight = -1.0)), 0);
    assert_eq!(answer(refusal(|c| (c.answers[1].discount, c.answers[1].next) = (0.9, 4))), 1);
    assert_eq!(
        answer(refusal(|c| {
            (c.answers[1].discount, c.answers[1].next) = (0.9, 0);
            c.next_masks[..2].fill(false);
        })),
        1
    );

    let shape = |error: LearnerError| match error {
        E::Shape { what, .. } => what,
        other => panic!("{other}"),
    };
    assert_eq!(shape(refusal(|c| c.answers.clear())), "the list of answers");
    assert_eq!(shape(refusal(|c| c.next_masks.truncate(7))), "the mask of the next states");
    assert_eq!(shape(refusal(|c| c.keep[0].truncate(11))), "the noise of a layer");
    assert_eq!(shape(refusal(|c| c.spec.dropout.truncate(1))), "the list of drop-out rates");

    let states = E::NotFinite { what: "the states", row: 2 };
    assert_eq!(refusal(|c| c.states[2 * 3 + 1] = f32::NAN), states);
    let next_states = E::NotFinite { what: "the next states", row: 1 };
    assert_eq!(refusal(|c| c.next_states[3] = f32::NEG_INFINITY), next_states);
}

pub(crate) fn divergence<S: Subject>() {
    for (value, target, what) in [(1e30, 0.0, "loss"), (1e18, 0.0, "gradient"), (0.0, 3e38, "target")] {
        let mut case = case();
        case.spec = UpdateSpec { max_gradient_norm: f32::INFINITY, ..UpdateSpec::default() };
        case.parameters.fill(value);
        case.target.fill(target);
        case.states.fill(1.0);
        case.next_states.fill(1.0);
        case.answers[0].discount = 0.9;
        case.answers[0].next = 0;
        let mut learner = S::of(&case);
        let before = learner.state();
        let error = case.with_batch(|batch, noise| learner.update(&case.spec, batch, noise, &mut Vec::new()));
        assert_eq!(error.unwrap_err(), LearnerError::Diverged { what });
        assert_eq!(learner.state(), before);
    }
}

pub(crate) fn parameters_of_another_network<S: Subject>() {
    let case = case();
    assert!(matches!(S::make(case.shape.clone(), &case.parameters[1..]), Err(LearnerError::Shape { .. })));
    let mut broken = case.parameters.clone();
    broken[5] = f32::NAN;
    assert_eq!(
        S::make(case.shape.clone(), &broken).err(),
        Some(LearnerError::NotFinite { what: "the parameters", row: 5 })
    );
    let mut learner = S::of(&case);
    let before = learner.state();
    let short = LearnerState { target: vec![0.0; 3], ..before.clone() };
    assert!(matches!(learner.restore(&short), Err(LearnerError::Shape { .. })));
    assert_eq!(learner.state(), before);
}

#[test]
fn a_bad_update_is_refused_by_name_and_changes_nothing() {
    bad_updates::<FusedLearner>();
}

#[test]
fn divergence_is_an_error_and_leaves_the_parameters_alone() {
    divergence::<FusedLearner>();
}

#[test]
fn parameters_of_another_network_are_refused() {
    parameters_of_another_network::<FusedLearner>();
}
