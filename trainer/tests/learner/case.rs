//! Random updates of random networks.

use bellwether_replay::DenseRows;
use bellwether_trainer::learner::{Answer, Batch, Loss, Noise, TargetSync, UpdateSpec, draw_keep};
use bellwether_trainer::network::NetworkShape;
use bellwether_trainer::streams::stream;
use proptest::prelude::*;
use rand::Rng;

/// One update with all that goes into it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) shape: NetworkShape,
    pub(crate) parameters: Vec<f32>,
    pub(crate) target: Vec<f32>,
    pub(crate) spec: UpdateSpec,
    pub(crate) states: Vec<f32>,
    pub(crate) next_states: Vec<f32>,
    pub(crate) next_masks: Vec<bool>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) keep: Vec<Vec<u8>>,
}

impl Case {
    pub(crate) fn states(&self) -> DenseRows<'_> {
        DenseRows::new(self.shape.inputs(), &self.states)
    }

    pub(crate) fn next_states(&self) -> DenseRows<'_> {
        DenseRows::new(self.shape.inputs(), &self.next_states)
    }

    /// Calls `f` with the batch and the noise.
    pub(crate) fn with_batch<R>(&self, f: impl FnOnce(Batch<'_>, Noise<'_>) -> R) -> R {
        let (states, next_states) = (self.states(), self.next_states());
        let batch =
            Batch { states: &states, answers: &self.answers, next_states: &next_states, next_masks: &self.next_masks };
        f(batch, Noise { keep: &self.keep })
    }
}

/// A uniform number in `[-1, 1)`.
fn signed(rng: &mut impl Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// Draws the data of a case from a seed.
pub(crate) fn draw(
    widths: Vec<usize>,
    rows: usize,
    next_rows: usize,
    answers_per_row: usize,
    spec: UpdateSpec,
    seed: u64,
) -> Case {
    let shape = NetworkShape::new(widths).unwrap();
    let mut rng = stream(seed, "case");
    let parameters = shape.initial_parameters(&mut rng);
    let target = shape.initial_parameters(&mut rng);
    let actions = shape.outputs();
    let mut values = |count: usize| (0..count).map(|_| signed(&mut rng)).collect::<Vec<f32>>();
    let states = values(rows * shape.inputs());
    let next_states = values(next_rows * shape.inputs());
    let mut next_masks: Vec<bool> = (0..next_rows * actions).map(|_| !rng.next_u32().is_multiple_of(3)).collect();
    for mask in next_masks.chunks_mut(actions) {
        if !mask.contains(&true) {
            let allowed = rng.next_u32() as usize % actions;
            mask[allowed] = true;
        }
    }
    let mut answers = Vec::new();
    for row in 0..rows {
        for _ in 0..answers_per_row {
            let ends = next_rows == 0 || rng.next_u32().is_multiple_of(4);
            answers.push(Answer {
                row: row as u32,
                action: rng.next_u32() % actions as u32,
                reward: 2.0 * signed(&mut rng),
                discount: if ends { 0.0 } else { 0.97 },
                next: if ends { u32::MAX } else { rng.next_u32() % next_rows as u32 },
                weight: 0.5 * (signed(&mut rng) + 1.0),
            });
        }
    }
    let mut keep = Vec::new();
    draw_keep(&mut rng, &spec, &shape, rows, &mut keep);
    Case { shape, parameters, target, spec, states, next_states, next_masks, answers, keep }
}

/// Cases of all widths, sizes and settings.
pub(crate) fn any_case() -> impl Strategy<Value = Case> {
    let spec = (any::<bool>(), 0..3u8, 0..3u8, 0..4u8, 0..3u8, 0..3u8);
    let widths = prop::collection::vec(1..50usize, 2..=4);
    (widths, 1..40usize, 0..40usize, 1..4usize, spec, any::<u64>()).prop_map(
        |(widths, rows, next_rows, per_row, (double, loss, clip, decay, sync, dropout), seed)| {
            let spec = UpdateSpec {
                double,
                loss: [Loss::Mse, Loss::Huber(1.0), Loss::Huber(0.25)][loss as usize],
                learning_rate: 3e-3,
                max_gradient_norm: [0.05, 10.0, f32::INFINITY][clip as usize],
                weight_decay: [0.0, 0.01, 0.0, 0.01][decay as usize],
                l2: [0.0, 0.0, 0.3, 0.05][decay as usize],
                normaliser: (rows * per_row) as f32,
                target_sync: [TargetSync::Keep, TargetSync::Hard, TargetSync::Soft(0.1)][sync as usize],
                dropout: match dropout {
                    0 => Vec::new(),
                    1 => vec![0.3; widths.len() - 1],
                    _ => (0..widths.len() - 1).map(|layer| [0.0, 0.5][layer % 2]).collect(),
                },
                ..UpdateSpec::default()
            };
            draw(widths, rows, next_rows, per_row, spec, seed)
        },
    )
}
