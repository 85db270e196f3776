//! Learners on a tensor library: the update in whole matrices, its gradient by automatic differentiation.
//!
//! The formulas stand here once, in the operations of [`Library`]; `burn` and `tch` say what these
//! are in a library. Nothing is shared with the fused learner but the contract, so that each checks the other. The
//! optimiser is written here too, because those of the libraries do not give their moments for a checkpoint, or decay biases.

mod library;
mod network;
mod objective;

use super::check::{check_parameters, check_state, check_states, check_update};
use super::report::{Fitted, summarise};
use super::{Batch, Learner, LearnerError, LearnerState, Loss, Noise, TargetSync, UpdateReport, UpdateSpec, keep};
use crate::network::NetworkShape;
use bellwether_replay::StateRows;
use network::{Matrix, Network};
use objective::{Errors, Questions};
use std::cell::OnceCell;
use std::ops::Range;

pub(super) use library::operators;
pub use library::{Library, Tensor};

/// Rows that go through the network together where only q-values are asked for.
const FORWARD_ROWS: usize = 4096;
/// Larger gradients would overflow their squares.
const LARGEST_GRADIENT: f64 = 1e18;

/// A learner on a tensor library. Parameters and moments stay on its device; they are copied when somebody reads them.
pub struct TensorLearner<L: Library> {
    library: L,
    network: Network,
    online: Vec<Matrix<L>>,
    target: Vec<Matrix<L>>,
    first_moment: Vec<Matrix<L>>,
    second_moment: Vec<Matrix<L>>,
    gradient: Vec<Matrix<L>>,
    updates: u64,
    /// Copies of the online and the target parameters, once somebody has read them.
    online_copy: OnceCell<Vec<f32>>,
    target_copy: OnceCell<Vec<f32>>,
}

impl<L: Library> TensorLearner<L> {
    /// A learner of a network with these online parameters (and the same target), in canonical layout.
    ///
    /// # Errors
    /// [`LearnerError::Shape`] and [`LearnerError::NotFinite`] on bad parameters.
    pub fn with_library(library: L, shape: NetworkShape, parameters: &[f32]) -> Result<Self, LearnerError> {
        check_parameters(&shape, "the parameters", parameters)?;
        let network = Network::new(shape);
        let zeros = network.split(&library, &vec![0.0; parameters.len()]);
        let online = network.split(&library, parameters);
        Ok(TensorLearner {
            target: online.clone(),
            online,
            first_moment: zeros.clone(),
            second_moment: zeros.clone(),
            gradient: zeros,
            updates: 0,
            online_copy: OnceCell::new(),
            target_copy: OnceCell::new(),
            library,
            network,
        })
    }

    /// The gradient of the last update before clipping, in canonical layout.
    pub fn gradient(&self) -> Vec<f32> {
        self.network.join::<L>(&self.gradient)
    }

    /// The scales of drop-out, for the layers that have it.
    fn keep(&self, spec: &UpdateSpec, noise: Noise<'_>, rows: usize) -> Vec<Option<Matrix<L>>> {
        let widths = self.network.shape.widths().iter().enumerate().take(self.network.shape.layer_count());
        let scales = widths.map(|(layer, width)| {
            let rate = spec.dropout_rate(layer);
            (rate > 0.0).then(|| {
                let scale = |byte: &u8| if *byte == keep::DROPPED { 0.0 } else { 1.0 / (1.0 - rate) };
                let scales: Vec<f32> = noise.keep[layer].iter().map(scale).collect();
                self.library.tensor(&scales, [rows, *width])
            })
        });
        scales.collect()
    }

    /// One step of Adam (Kingma and Ba 2015, algorithm 1) or AdamW (Loshchilov and Hutter 2019, algorithm 2), and the target
    /// network after it.
    fn step(&mut self, spec: &UpdateSpec, gradient: Vec<Matrix<L>>, clip: f32) {
        self.updates += 1;
        let (beta1, beta2, t) = (f64::from(spec.beta1), f64::from(spec.beta2), self.updates as f64);
        let step_size = (f64::from(spec.learning_rate) / (1.0 - libm::pow(beta1, t))) as f32;
        let root_correction = (1.0 / (1.0 - libm::pow(beta2, t)).sqrt()) as f32;
        let decay = (1.0 - f64::from(spec.learning_rate) * f64::from(spec.weight_decay)) as f32;
        for (p, part) in self.network.parts.iter().enumerate() {
            let mut parameters = self.online[p].clone();
            let mut slopes = gradient[p].clone() * clip;
            if part.decays && spec.l2 > 0.0 {
                slopes = slopes + parameters.clone() * spec.l2;
            }
            if part.decays && spec.weight_decay > 0.0 {
                parameters = parameters * decay;
            }
            let first = self.first_moment[p].clone();
            let first = first.clone() + (slopes.clone() - first) * (1.0 - beta1) as f32;
            let squares = slopes.clone() * slopes * (1.0 - beta2) as f32;
            let second = self.second_moment[p].clone() * spec.beta2 + squares;
            let root = second.clone().sqrt() * root_correction + spec.epsilon;
            self.online[p] = parameters - first.clone() / root * step_size;
            (self.first_moment[p], self.second_moment[p]) = (first, second);
        }
        self.gradient = gradient;
        self.online_copy.take();
        self.follow(spec.target_sync);
    }

    /// Moves the target network.
    fn follow(&mut self, sync: TargetSync) {
        match sync {
            TargetSync::Keep => return,
            TargetSync::Hard => self.target.clone_from(&self.online),
            TargetSync::Soft(tau) => {
                for (target, online) in self.target.iter_mut().zip(&self.online) {
                    *target = target.clone() + (online.clone() - target.clone()) * tau;
                }
            }
        }
        self.target_copy.take();
    }
}

/// Rows of states, each checked.
fn gather(what: &'static str, states: &dyn StateRows, rows: Range<usize>) -> Result<Vec<f32>, LearnerError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let width = states.width();
    let mut values = vec![0.0; rows.len() * width];
    for (row, into) in rows.zip(values.chunks_exact_mut(width)) {
        states.gather(row, into);
        if !into.iter().all(|value| value.is_finite()) {
            return Err(LearnerError::NotFinite { what, row });
        }
    }
    Ok(values)
}

/// What became of each answer, from columns of loss, error, value and target.
fn fitted(columns: &[f32]) -> Result<Vec<Fitted>, LearnerError> {
    let fitted: Vec<Fitted> = columns
        .chunks_exact(4)
        .map(|of| Fitted { loss: f64::from(of[0]), error: of[1], value: of[2], target: of[3] })
        .collect();
    match fitted.iter().all(|fitted| fitted.target.is_finite()) {
        true => Ok(fitted),
        false => Err(LearnerError::Diverged { what: "target" }),
    }
}

impl<L: Library> Learner for TensorLearner<L> {
    fn name(&self) -> &'static str {
        L::NAME
    }

    fn supports(&self, spec: &UpdateSpec) -> Result<(), LearnerError> {
        spec.validate(&self.network.shape)
    }

    fn update(
        &mut self,
        spec: &UpdateSpec,
        batch: Batch<'_>,
        noise: Noise<'_>,
        errors: &mut Vec<f32>,
    ) -> Result<UpdateReport, LearnerError> {
        let (library, network) = (&self.library, &self.network);
        check_update(spec, &network.shape, &batch, &noise)?;
        let clones = spec.loss == Loss::Cloning;
        let next_rows = if clones { 0 } else { batch.next_states.len() };
        let next_states = gather("the next states", batch.next_states, 0..next_rows)?;
        let states = gather("the states", batch.states, 0..batch.states.len())?;
        let questions = Questions::new(library, network, spec, &batch, &states, &next_states);

        let targets = (!clones).then(|| {
            let online = network.layers(library, &self.online, noise.online);
            let target = network.layers(library, &self.target, noise.target);
            questions.targets(library, network, spec, &online, &target)
        });
        let leaves: Vec<Matrix<L>> = self.online.iter().cloned().map(L::leaf).collect();
        let layers = network.layers(library, &leaves, noise.online);
        let keep = self.keep(spec, noise, questions.state_rows);
        let outputs = network.outputs::<L>(&layers, questions.states.clone(), &keep);
        let Errors { loss, error, value, target } = questions.errors(library, network, spec, outputs, targets);
        let whole = (loss.clone() * questions.weight.clone()).sum_along(0) * (1.0 / spec.normaliser);
        let figures = L::beside([loss, error, value, target].map(Tensor::detach).to_vec());
        let gradient = L::slopes(whole, &leaves);
        let squares = gradient.iter().map(|part| (part.clone() * part.clone()).sum_along(0).sum_along(1));
        let squares = L::values(L::beside(squares.collect()));

        let fitted = fitted(&L::values(figures))?;
        let report = summarise(spec, batch.answers, &fitted)?;
        let norm = squares.iter().map(|square| f64::from(*square)).sum::<f64>().sqrt();
        let limit = f64::from(spec.max_gradient_norm);
        let clip = if norm > limit { limit / (norm + 1e-6) } else { 1.0 };
        if !(norm.is_finite() && norm * clip <= LARGEST_GRADIENT) {
            return Err(LearnerError::Diverged { what: "gradient" });
        }
        errors.clear();
        errors.extend(fitted.iter().map(|fitted| fitted.error));
        self.step(spec, gradient, clip as f32);
        Ok(UpdateReport { gradient_norm: norm as f32, ..report })
    }

    fn sync_target(&mut self, sync: TargetSync) -> Result<(), LearnerError> {
        sync.validate()?;
        self.follow(sync);
        Ok(())
    }

    fn q_values(&mut self, states: &dyn StateRows, factors: &[f32], out: &mut Vec<f32>) -> Result<(), LearnerError> {
        let (library, network) = (&self.library, &self.network);
        check_states(&network.shape, states, factors)?;
        let layers = network.layers(library, &self.online, factors);
        out.clear();
        for start in (0..states.len()).step_by(FORWARD_ROWS) {
            let rows = start..states.len().min(start + FORWARD_ROWS);
            let count = rows.len();
            let input = library.tensor(&gather("the states", states, rows)?, [count, network.shape.inputs()]);
            let outputs = network.outputs::<L>(&layers, input, &[]);
            out.extend(L::values(network.tell(library, outputs, count).q));
        }
        Ok(())
    }

    fn shape(&self) -> &NetworkShape {
        &self.network.shape
    }

    fn parameters(&self) -> &[f32] {
        self.online_copy.get_or_init(|| self.network.join::<L>(&self.online))
    }

    fn target(&self) -> &[f32] {
        self.target_copy.get_or_init(|| self.network.join::<L>(&self.target))
    }

    fn state(&self) -> LearnerState {
        LearnerState {
            online: self.parameters().to_vec(),
            target: self.target().to_vec(),
            first_moment: self.network.join::<L>(&self.first_moment),
            second_moment: self.network.join::<L>(&self.second_moment),
            updates: self.updates,
        }
    }

    fn restore(&mut self, state: &LearnerState) -> Result<(), LearnerError> {
        check_state(&self.network.shape, state)?;
        self.online = self.network.split(&self.library, &state.online);
        self.target = self.network.split(&self.library, &state.target);
        self.first_moment = self.network.split(&self.library, &state.first_moment);
        self.second_moment = self.network.split(&self.library, &state.second_moment);
        self.updates = state.updates;
        self.online_copy.take();
        self.target_copy.take();
        Ok(())
    }
}
