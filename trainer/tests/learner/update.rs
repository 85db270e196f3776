//! Whole updates against the reference in double precision.

use crate::case::{Case, any_case, draw};
use crate::reference;
use crate::subject::Subject;
use bellwether_replay::DenseRows;
use bellwether_trainer::learner::fused::FusedLearner;
use bellwether_trainer::learner::{TargetSync, UpdateSpec};
use proptest::prelude::*;

/// Panics unless each value lies within `tolerance` of the reference, relative to the larger of it and `scale`.
pub(crate) fn close(what: &str, ours: &[f32], reference: &[f64], scale: f64, tolerance: f64) {
    assert_eq!(ours.len(), reference.len());
    for (i, (ours, reference)) in ours.iter().zip(reference).enumerate() {
        let difference = (f64::from(*ours) - reference).abs();
        let allowed = tolerance * reference.abs().max(scale);
        assert!(difference <= allowed, "{what} {i}: {ours} and {reference}");
    }
}

/// One update of a case: Bellman targets with masks, Double DQN, errors of all kinds, weights, drop-out, noise, clipping, the
/// penalty, AdamW and the target network.
pub(crate) fn is_what_its_formulas_say<S: Subject>(case: &Case) {
    let mut learner = S::of(case);
    let mut errors = Vec::new();
    let report = case.with_batch(|batch, noise| learner.update(&case.spec, batch, noise, &mut errors)).unwrap();
    let expected = reference::updates(case, 1);
    close("loss", &[report.loss], &[expected.loss], 1e-2, 1e-4);
    close("error", &errors, &expected.errors, 1.0, 1e-4);
    close("slope", &learner.last_gradient(), &expected.gradient, 0.1, 1e-4);
    let norm = expected.gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
    close("norm", &[report.gradient_norm], &[norm], 0.1, 1e-4);
    let largest = expected.errors.iter().fold(0.0f64, |largest, error| largest.max(error.abs()));
    close("largest error", &[report.max_error], &[largest], 1.0, 1e-4);
    let state = learner.state();
    close("first moment", &state.first_moment, &expected.first_moment, 0.01, 1e-4);
    close("second moment", &state.second_moment, &expected.second_moment, 1e-4, 1e-3);
    // The first step of Adam divides the slope by its size: where the slope is next to nothing its sign decides,
    // so such parameters are compared by the length of a step.
    let rate = f64::from(case.spec.learning_rate);
    for (p, (ours, reference)) in state.online.iter().zip(&expected.parameters).enumerate() {
        let sure = expected.gradient[p].abs() > 1e-4 && expected.first_moment[p].abs() > 1e-7;
        let allowed = if sure { 2e-2 * rate + 1e-6 } else { 2.1 * rate };
        assert!((f64::from(*ours) - reference).abs() <= allowed, "parameter {p}: {ours} and {reference}");
        let allowed = allowed + 1e-6;
        let (ours, reference) = (state.target[p], expected.target[p]);
        assert!((f64::from(ours) - reference).abs() <= allowed, "target {p}: {ours} and {reference}");
    }
    assert_eq!(state.updates, 1);
}

/// q-values are those of the plain forward pass, without noise; each row of several is within `tolerance` of the row alone.
pub(crate) fn q_values_do_not_depend_on_the_rows_beside<S: Subject>(case: &Case, tolerance: f64) {
    let mut learner = S::of(case);
    let mut all = Vec::new();
    learner.q_values(&case.states(), &[], &mut all).unwrap();
    let (inputs, actions) = (case.shape.inputs(), case.shape.actions());
    let parameters: Vec<f64> = case.parameters.iter().map(|value| f64::from(*value)).collect();
    let mut one = Vec::new();
    for (row, state) in case.states.chunks(inputs).enumerate() {
        learner.q_values(&DenseRows::new(inputs, state), &[], &mut one).unwrap();
        let beside: Vec<f64> = all[row * actions..(row + 1) * actions].iter().map(|q| f64::from(*q)).collect();
        close("q-value beside others", &one, &beside, 1.0, tolerance);
        let state: Vec<f64> = state.iter().map(|value| f64::from(*value)).collect();
        close("q-value", &one, &reference::q_values_of(&case.shape, &parameters, &state), 1.0, 1e-5);
    }
}

pub(crate) fn several_follow_the_reference<S: Subject>() {
    let spec = UpdateSpec {
        double: true,
        learning_rate: 1e-3,
        weight_decay: 0.01,
        l2: 0.02,
        normaliser: 24.0,
        target_sync: TargetSync::Soft(0.05),
        ..UpdateSpec::default()
    };
    let case = draw(vec![9, 33, 20, 4], 24, 24, 1, spec, 4);
    let mut learner = S::of(&case);
    for _ in 0..20 {
        case.with_batch(|batch, noise| learner.update(&case.spec, batch, noise, &mut Vec::new())).unwrap();
    }
    let expected = reference::updates(&case, 20);
    let state = learner.state();
    close("parameter", &state.online, &expected.parameters, 1.0, 5e-4);
    close("target", &state.target, &expected.target, 1.0, 5e-4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn an_update_is_what_its_formulas_say(case in any_case()) {
        is_what_its_formulas_say::<FusedLearner>(&case);
    }

    #[test]
    fn q_values_are_those_of_the_row_alone(case in any_case()) {
        q_values_do_not_depend_on_the_rows_beside::<FusedLearner>(&case, 0.0);
    }
}

#[test]
fn several_updates_follow_the_reference() {
    several_follow_the_reference::<FusedLearner>();
}
