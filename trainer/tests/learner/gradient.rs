//! The hand-written gradient against central differences of the loss in double precision.

use crate::case::{Case, draw};
use crate::reference;
use bellwether_trainer::learner::fused::{FusedLearner, FusedOptions};
use bellwether_trainer::learner::{Learner, LearnerState, Loss, UpdateSpec};

/// A learner whose target network is the case's.
pub(crate) fn learner(case: &Case, options: FusedOptions) -> FusedLearner {
    let mut learner = FusedLearner::new(case.shape.clone(), &case.parameters, options).unwrap();
    let state = LearnerState { target: case.target.clone(), ..learner.state() };
    learner.restore(&state).unwrap();
    learner
}

fn check(widths: &[usize], rows: usize, spec: UpdateSpec) {
    let spec = UpdateSpec { max_gradient_norm: f32::INFINITY, normaliser: rows as f32, ..spec };
    let case = draw(widths.to_vec(), rows, rows, 2, spec, 11);
    let mut learner = learner(&case, FusedOptions::default());
    case.with_batch(|batch, noise| learner.update(&case.spec, batch, noise, &mut Vec::new())).unwrap();
    let targets = reference::targets(&case);
    let mut parameters: Vec<f64> = case.parameters.iter().map(|p| f64::from(*p)).collect();
    let mut seen = 0;
    for p in 0..parameters.len() {
        let (here, step) = (parameters[p], 1e-6);
        parameters[p] = here + step;
        let above = reference::loss(&case, &parameters, &targets).0;
        parameters[p] = here - step;
        let below = reference::loss(&case, &parameters, &targets).0;
        parameters[p] = here;
        let (numeric, ours) = ((above - below) / (2.0 * step), f64::from(learner.gradient()[p]));
        assert!((numeric - ours).abs() < 2e-5 + 1e-4 * numeric.abs(), "parameter {p}: {ours} and {numeric}");
        seen += usize::from(numeric != 0.0);
    }
    assert!(seen > parameters.len() / 4, "only {seen} of {} slopes are not 0", parameters.len());
}

#[test]
fn the_gradient_is_the_slope_of_the_loss() {
    let plain = UpdateSpec::default();
    check(&[5, 2], 9, plain.clone());
    check(&[7, 19, 3], 5, plain.clone());
    check(&[3, 17, 9, 4], 18, UpdateSpec { loss: Loss::Mse, ..plain.clone() });
    check(&[6, 8, 8, 8, 2], 10, UpdateSpec { double: true, loss: Loss::Huber(0.1), ..plain.clone() });
    check(&[9, 16, 16, 5], 12, UpdateSpec { dropout: vec![0.4, 0.5, 0.2], ..plain });
}
