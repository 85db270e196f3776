//! Elements that take no part in drop-out.
#![allow(clippy::unwrap_used, reason = "the functions beside the tests fail like tests")]

use bellwether_replay::DenseRows;
use bellwether_trainer::learner::fused::{FusedLearner, FusedOptions};
use bellwether_trainer::learner::{Answer, Batch, Learner, LearnerError, Noise, UpdateSpec, keep};
use bellwether_trainer::network::NetworkShape;
use bellwether_trainer::streams::stream;

const ROWS: usize = 5;
const WIDTH: usize = 6;

/// One update of a fresh network under this drop-out.
fn update(dropout: Vec<f32>, keep: &[Vec<u8>]) -> Result<Vec<f32>, LearnerError> {
    let shape = NetworkShape::new(vec![WIDTH, 8, 2]).unwrap();
    let parameters = shape.initial_parameters(&mut stream(1, "init"));
    let mut learner = FusedLearner::new(shape, &parameters, FusedOptions::default()).unwrap();
    let states: Vec<f32> = (0..ROWS * WIDTH).map(|i| (i % 7) as f32 / 7.0).collect();
    let rows = DenseRows::new(WIDTH, &states);
    let answers: Vec<Answer> = (0..ROWS as u32)
        .map(|row| Answer { row, action: row % 2, reward: 1.0, discount: 0.0, next: 0, weight: 1.0 })
        .collect();
    let batch =
        Batch { states: &rows, masks: &[], answers: &answers, next_states: &rows, next_masks: &[true; ROWS * 2] };
    let spec = UpdateSpec { dropout, learning_rate: 0.01, ..UpdateSpec::default() };
    learner.update(&spec, batch, Noise { keep, ..Noise::default() }, &mut Vec::new())?;
    Ok(learner.parameters().to_vec())
}

#[test]
fn exempt_elements_are_as_if_there_were_no_drop_out() {
    let none = update(Vec::new(), &[]).unwrap();
    let exempt = update(vec![0.5, 0.0], &[vec![keep::EXEMPT; ROWS * WIDTH]]).unwrap();
    let kept = update(vec![0.5, 0.0], &[vec![keep::KEPT; ROWS * WIDTH]]).unwrap();
    assert_eq!(none, exempt);
    assert_ne!(none, kept);
}

#[test]
fn a_hidden_layer_cannot_exempt() {
    let noise = [Vec::new(), vec![keep::EXEMPT; ROWS * 8]];
    assert_eq!(update(vec![0.0, 0.5], &noise).unwrap_err(), LearnerError::Noise { layer: 1 });
}
