//! Learners on tensor libraries against the reference in double precision and against the fused learner.

use crate::case::{Case, any_case};
use crate::subject::Subject;
use crate::update::close;
use crate::{refusals, targets, update};
use bellwether_trainer::learner::fused::FusedLearner;
use bellwether_trainer::learner::{Learner, LearnerState, UpdateSpec};
use proptest::prelude::*;

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// The gradients, figures and q-values of two learners, the latter with noise; `loose` times what processors keep to.
pub(crate) fn agrees_with_fused<S: Subject>(case: &Case, mut ours: S, loose: f64) {
    let mut fused = FusedLearner::of(case);
    let (mut q, mut fused_q) = (Vec::new(), Vec::new());
    ours.q_values(&case.states(), &case.factors[0], &mut q).unwrap();
    fused.q_values(&case.states(), &case.factors[0], &mut fused_q).unwrap();
    close("q-value", &q, &wide(&fused_q), 1.0, 1e-5 * loose);
    let (mut errors, mut fused_errors) = (Vec::new(), Vec::new());
    let report = case.with_batch(|batch, noise| ours.update(&case.spec, batch, noise, &mut errors)).unwrap();
    let fused_report =
        case.with_batch(|batch, noise| fused.update(&case.spec, batch, noise, &mut fused_errors)).unwrap();
    close("slope", &ours.last_gradient(), &wide(fused.gradient()), 0.1, 2e-5 * loose);
    close("error", &errors, &wide(&fused_errors), 1.0, 2e-5 * loose);
    let figures = |of: bellwether_trainer::learner::UpdateReport| {
        [of.loss, of.mean_q, of.mean_target, of.max_error, of.gradient_norm]
    };
    close("figure", &figures(report), &wide(&figures(fused_report)), 1.0, 2e-5 * loose);
}

/// Three updates, each a step of Adam in double precision by the gradient that the learner itself had.
fn steps_as_adam_does<S: Subject>(case: &Case) {
    let spec = &case.spec;
    let mut learner = S::of(case);
    let mut is_weight = vec![false; case.parameters.len()];
    for layer in case.shape.layers() {
        is_weight[layer.weights].fill(true);
    }
    for t in 1..=3 {
        let before = learner.state();
        let report = case.with_batch(|batch, noise| learner.update(spec, batch, noise, &mut Vec::new())).unwrap();
        let (after, gradient) = (learner.state(), learner.last_gradient());
        let norm = wide(&gradient).iter().map(|g| g * g).sum::<f64>().sqrt();
        close("norm", &[report.gradient_norm], &[norm], 1e-6, 2e-6);
        let clip = (f64::from(spec.max_gradient_norm) / (norm + 1e-6)).min(1.0);
        let [rate, beta1, beta2] = [spec.learning_rate, spec.beta1, spec.beta2].map(f64::from);
        let decay = |p: usize, by: f32| if is_weight[p] { f64::from(by) } else { 0.0 };
        let (mut online, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
        for (p, slope) in gradient.iter().enumerate() {
            let parameter = f64::from(before.online[p]);
            let g = f64::from(*slope) * clip + decay(p, spec.l2) * parameter;
            let m = beta1 * f64::from(before.first_moment[p]) + (1.0 - beta1) * g;
            let v = beta2 * f64::from(before.second_moment[p]) + (1.0 - beta2) * g * g;
            // By the moments that it has: where they are next to nothing the step would make much of their last digits.
            let (first_moment, second_moment) = (f64::from(after.first_moment[p]), f64::from(after.second_moment[p]));
            let root = (second_moment / (1.0 - beta2.powi(t))).sqrt() + f64::from(spec.epsilon);
            let step = rate * first_moment / (1.0 - beta1.powi(t)) / root;
            online.push(parameter * (1.0 - rate * decay(p, spec.weight_decay)) - step);
            first.push(m);
            second.push(v);
        }
        // A sum of two terms of the size of a slope may cancel to much less.
        close("first moment", &after.first_moment, &first, 1e-3, 2e-6);
        close("second moment", &after.second_moment, &second, 1e-8, 2e-5);
        close("parameter", &after.online, &online, 0.1, 2e-6);
        assert_eq!(after.updates, t as u64);
    }
}

/// A state goes from one learner to another and back without a change.
pub(crate) fn takes_the_state_of_fused<S: Subject>(case: &Case, mut ours: S) {
    let mut fused = FusedLearner::of(case);
    case.with_batch(|batch, noise| fused.update(&case.spec, batch, noise, &mut Vec::new())).unwrap();
    let state = fused.state();
    ours.restore(&state).unwrap();
    assert_eq!(ours.state(), state);
    assert_eq!((ours.parameters(), ours.target()), (fused.parameters(), fused.target()));
    let mut bytes = Vec::new();
    ours.state().write(&mut bytes).unwrap();
    assert_eq!(LearnerState::read(bytes.as_slice(), &case.shape).unwrap(), state);
}

/// Whatever an update asks for, the learner does it or refuses as the fused one does.
fn supports_what_fused_does<S: Subject>(case: &Case) {
    let (ours, fused) = (S::of(case), FusedLearner::of(case));
    assert_eq!(ours.supports(&case.spec), Ok(()));
    let bad = UpdateSpec { double: true, learning_rate: -1.0, ..case.spec.clone() };
    assert_eq!(ours.supports(&bad), fused.supports(&bad));
}

macro_rules! agreement {
    ($name:ident, $feature:literal, $learner:ty) => {
        #[cfg(feature = $feature)]
        mod $name {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig::with_cases(256))]

                #[test]
                fn an_update_is_what_its_formulas_say(case in any_case()) {
                    update::is_what_its_formulas_say::<$learner>(&case);
                }

                #[test]
                fn gradients_are_those_of_the_fused_learner(case in any_case()) {
                    agrees_with_fused(&case, <$learner>::of(&case), 1.0);
                }

                #[test]
                fn the_optimiser_is_adam(case in any_case()) {
                    steps_as_adam_does::<$learner>(&case);
                }

                #[test]
                fn q_values_are_those_of_the_row_alone(case in any_case()) {
                    update::q_values_do_not_depend_on_the_rows_beside::<$learner>(&case, 1e-5);
                }

                #[test]
                fn states_pass_from_learner_to_learner(case in any_case()) {
                    takes_the_state_of_fused(&case, <$learner>::of(&case));
                    supports_what_fused_does::<$learner>(&case);
                }

                #[test]
                fn the_target_takes_the_best_allowed_action(choice in targets::any_choice()) {
                    targets::takes_the_best_allowed_action::<$learner>(&choice);
                }

                #[test]
                fn the_target_network_moves_when_told(case in any_case(), plan in prop::collection::vec(any::<bool>(), 1..4)) {
                    targets::moves_when_told::<$learner>(&case, &plan);
                }
            }

            #[test]
            fn several_updates_follow_the_reference() {
                update::several_follow_the_reference::<$learner>();
            }

            #[test]
            fn it_goes_on_from_its_state_as_if_nothing_had_happened() {
                targets::goes_on_from_its_state(<$learner>::of);
            }

            #[test]
            fn cloning_does_not_look_at_rewards_and_successors() {
                targets::cloning_looks_at_what_was_played::<$learner>();
            }

            #[test]
            fn a_bad_update_is_refused_by_name_and_changes_nothing() {
                refusals::bad_updates::<$learner>();
            }

            #[test]
            fn divergence_is_an_error_and_leaves_the_parameters_alone() {
                refusals::divergence::<$learner>();
            }

            #[test]
            fn parameters_of_another_network_are_refused() {
                refusals::parameters_of_another_network::<$learner>();
            }
        }
    };
}

agreement!(burn, "burn", bellwether_trainer::learner::burn::BurnLearner);
agreement!(tch, "tch", bellwether_trainer::learner::tch::TchLearner);
