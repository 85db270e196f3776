//! Random updates of random networks.

use crate::reference;
use bellwether_replay::DenseRows;
use bellwether_trainer::learner::{
    Answer, Batch, Loss, Munchausen, Noise, TargetSync, UpdateSpec, draw_factors, draw_keep,
};
use bellwether_trainer::network::{NetworkConfig, NetworkShape, Returns};
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
    pub(crate) masks: Vec<bool>,
    pub(crate) next_states: Vec<f32>,
    pub(crate) next_masks: Vec<bool>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) keep: Vec<Vec<u8>>,
    /// Factors of the noise of the online and of the target network.
    pub(crate) factors: [Vec<f32>; 2],
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
        let batch = Batch {
            states: &states,
            masks: &self.masks,
            answers: &self.answers,
            next_states: &next_states,
            next_masks: &self.next_masks,
        };
        f(batch, Noise { keep: &self.keep, online: &self.factors[0], target: &self.factors[1] })
    }
}

/// A uniform number in `[-1, 1)`.
fn signed(rng: &mut impl Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// Masks of `rows` rows, each with an allowed action.
fn draw_masks(rng: &mut impl Rng, rows: usize, actions: usize) -> Vec<bool> {
    let mut masks: Vec<bool> = (0..rows * actions).map(|_| !rng.next_u32().is_multiple_of(3)).collect();
    for mask in masks.chunks_mut(actions) {
        if !mask.contains(&true) {
            mask[rng.next_u32() as usize % actions] = true;
        }
    }
    masks
}

/// Draws the data of a case with a plain network from a seed.
pub(crate) fn draw(
    widths: Vec<usize>,
    rows: usize,
    next_rows: usize,
    answers_per_row: usize,
    spec: UpdateSpec,
    seed: u64,
) -> Case {
    draw_with(NetworkShape::new(widths).unwrap(), [rows, next_rows, answers_per_row], spec, seed)
}

/// Draws the data of a case from a seed: so many rows, successors and answers per row.
pub(crate) fn draw_with(
    shape: NetworkShape,
    [rows, next_rows, answers_per_row]: [usize; 3],
    spec: UpdateSpec,
    seed: u64,
) -> Case {
    let mut rng = stream(seed, "case");
    let parameters = shape.initial_parameters(&mut rng);
    let target = shape.initial_parameters(&mut rng);
    let actions = shape.actions();
    let mut values = |count: usize| (0..count).map(|_| signed(&mut rng)).collect::<Vec<f32>>();
    let states = values(rows * shape.inputs());
    let next_states = values(next_rows * shape.inputs());
    let next_masks = draw_masks(&mut rng, next_rows, actions);
    let masks = draw_masks(&mut rng, rows, actions);
    let mut answers = Vec::new();
    for row in 0..rows {
        let allowed: Vec<usize> = (0..actions).filter(|action| masks[row * actions + action]).collect();
        for _ in 0..answers_per_row {
            let ends = next_rows == 0 || rng.next_u32().is_multiple_of(4);
            answers.push(Answer {
                row: row as u32,
                action: allowed[rng.next_u32() as usize % allowed.len()] as u32,
                reward: 2.0 * signed(&mut rng),
                discount: if ends { 0.0 } else { 0.97 },
                next: if ends { u32::MAX } else { rng.next_u32() % next_rows as u32 },
                weight: 0.5 * (signed(&mut rng) + 1.0),
            });
        }
    }
    let mut keep = Vec::new();
    draw_keep(&mut rng, &spec, &shape, rows, &mut keep);
    let mut factors = [Vec::new(), Vec::new()];
    factors.iter_mut().for_each(|factors| draw_factors(&mut rng, &shape, factors));
    Case { shape, parameters, target, spec, states, masks, next_states, next_masks, answers, keep, factors }
}

/// What a network tells about returns, and forms of the error that go with it.
fn any_objective() -> impl Strategy<Value = (Returns, Loss)> {
    let categorical = (2..30usize, -3..0i8).prop_map(|(atoms, minimum)| {
        let returns = Returns::Categorical { atoms, minimum: f32::from(minimum), maximum: 2.5 };
        (returns, Loss::CrossEntropy)
    });
    prop_oneof![
        3 => prop_oneof![Just(Loss::Mse), Just(Loss::Huber(1.0)), Just(Loss::Huber(0.25))]
            .prop_map(|loss| (Returns::Mean, loss)),
        1 => Just((Returns::Mean, Loss::Cloning)),
        2 => (2..40usize, prop_oneof![Just(1.0f32), Just(0.2)])
            .prop_map(|(atoms, threshold)| (Returns::Quantiles(atoms), Loss::Huber(threshold))),
        2 => categorical,
    ]
}

/// Networks and updates of all kinds that agree with each other.
fn any_update() -> impl Strategy<Value = (NetworkConfig, UpdateSpec)> {
    let hidden = prop::collection::vec(1..50usize, 0..3);
    let terms = (any::<bool>(), prop::bool::weighted(0.3), prop::bool::weighted(0.3));
    let settings = (0..3u8, 0..4u8, 0..3u8, 0..3u8);
    (hidden, any::<bool>(), 0..3usize, any_objective(), terms, settings).prop_map(
        |(hidden, dueling, noisy, (returns, loss), (double, conservative, munchausen), settings)| {
            let (clip, decay, sync, dropout) = settings;
            let layers = hidden.len() + 1;
            let network =
                NetworkConfig { hidden, dueling, returns, noisy_layers: noisy.min(layers), ..NetworkConfig::default() };
            let values = loss != Loss::Cloning;
            let soft = values && munchausen && loss != Loss::CrossEntropy;
            let spec = UpdateSpec {
                double: values && !soft && double,
                loss,
                conservative: if values && conservative { 0.7 } else { 0.0 },
                munchausen: soft.then_some(Munchausen { alpha: 0.9, temperature: 0.2, floor: -1.0 }),
                learning_rate: 3e-3,
                max_gradient_norm: [0.05, 10.0, f32::INFINITY][clip as usize],
                weight_decay: [0.0, 0.01, 0.0, 0.01][decay as usize],
                l2: [0.0, 0.0, 0.3, 0.05][decay as usize],
                target_sync: [TargetSync::Keep, TargetSync::Hard, TargetSync::Soft(0.1)][sync as usize],
                dropout: match dropout {
                    0 => Vec::new(),
                    1 => vec![0.3; layers],
                    _ => (0..layers).map(|layer| [0.0, 0.5][layer % 2]).collect(),
                },
                ..UpdateSpec::default()
            };
            (network, spec)
        },
    )
}

/// Cases of all widths, sizes and settings whose gradients do not hang on rounding.
pub(crate) fn any_case() -> impl Strategy<Value = Case> {
    let sizes = (1..50usize, 1..20usize, 1..40usize, 0..40usize, 1..4usize);
    (any_update(), sizes, any::<u64>())
        .prop_map(|((network, spec), sizes, seed)| {
            let (inputs, actions, rows, next_rows, per_row) = sizes;
            let spec = UpdateSpec { normaliser: (rows * per_row) as f32, ..spec };
            draw_with(network.shape(inputs, actions).unwrap(), [rows, next_rows, per_row], spec, seed)
        })
        .prop_filter("rounding decides between two gradients", reference::is_smooth)
}
