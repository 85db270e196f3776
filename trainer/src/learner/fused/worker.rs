//! What one thread does in an update: its share of the rows, from the gathered states to the slopes of every layer.

use super::aligned::{Aligned, stride};
use super::kernels::{Kernels, Left, Rows, RowsMut, Start};
use crate::learner::{Answer, Batch, LearnerError, Loss, Noise, UpdateSpec};
use crate::network::LayerShape;
use bellwether_replay::StateRows;
use std::ops::Range;

/// Buffers of one thread; they grow to the largest share of a batch and are then reused.
pub(super) struct Worker {
    /// Rows of the current pass.
    pub(super) rows: usize,
    /// The input of each layer, row-major, `stride(inputs)` apart.
    inputs: Vec<Aligned>,
    /// The slopes of the loss by the output of each layer, row-major, `stride(outputs)` apart.
    slopes: Vec<Aligned>,
    /// The same slopes with rows and columns exchanged, for the layer at hand and the one before.
    across: [Aligned; 2],
    /// The q-values of the pass.
    q: Aligned,
    /// The q-values of the online network where Double DQN needs both.
    online_q: Aligned,
    /// Why this thread's share failed.
    pub(super) failure: Option<LearnerError>,
}

/// What the threads share in all passes.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    pub(super) kernels: Kernels,
    pub(super) layers: &'a [LayerShape],
    pub(super) online: &'a [f32],
    pub(super) target: &'a [f32],
}

/// The answers of one thread's rows and what becomes of them.
pub(super) struct AnswerShare<'a> {
    pub(super) answers: &'a [Answer],
    pub(super) errors: &'a mut [f32],
    pub(super) fitted: &'a mut [f32],
}

impl Worker {
    pub(super) fn new(layers: usize) -> Worker {
        Worker {
            rows: 0,
            inputs: std::iter::repeat_with(Aligned::default).take(layers).collect(),
            slopes: std::iter::repeat_with(Aligned::default).take(layers).collect(),
            across: [Aligned::default(), Aligned::default()],
            q: Aligned::default(),
            online_q: Aligned::default(),
            failure: None,
        }
    }

    /// Makes room for `rows` rows.
    fn reserve(&mut self, layers: &[LayerShape], rows: usize) {
        self.rows = rows;
        for (layer, (inputs, slopes)) in layers.iter().zip(self.inputs.iter_mut().zip(&mut self.slopes)) {
            inputs.reserve(rows * stride(layer.inputs));
            slopes.reserve(rows * stride(layer.outputs));
            for across in &mut self.across {
                across.reserve(layer.outputs * stride(rows));
            }
            if layer.bias.end == layers[layers.len() - 1].bias.end {
                self.q.reserve(rows * stride(layer.outputs));
                self.online_q.reserve(rows * stride(layer.outputs));
            }
        }
    }

    /// Gathers rows of `states` into the input of the first layer.
    fn gather(
        &mut self,
        shared: Shared<'_>,
        what: &'static str,
        states: &dyn StateRows,
        rows: Range<usize>,
    ) -> Result<(), LearnerError> {
        self.reserve(shared.layers, rows.len());
        let width = shared.layers[0].inputs;
        for (into, row) in self.inputs[0].chunks_exact_mut(stride(width)).zip(rows) {
            let into = &mut into[..width];
            states.gather(row, into);
            if !shared.kernels.all_finite(into) {
                return Err(LearnerError::NotFinite { what, row });
            }
        }
        Ok(())
    }

    /// Runs the gathered rows through a network; `keep` gives the bytes of drop-out and the scale for a layer.
    fn forward<'n>(
        &mut self,
        shared: Shared<'_>,
        parameters: &[f32],
        online: bool,
        keep: impl Fn(usize) -> Option<(&'n [u8], f32)>,
    ) {
        let kernels = shared.kernels;
        for (l, layer) in shared.layers.iter().enumerate() {
            let (width, from) = (stride(layer.inputs), stride(layer.outputs));
            let (before, after) = self.inputs.split_at_mut(l + 1);
            let input = &mut before[l];
            if let Some((keep, scale)) = keep(l) {
                for (values, keep) in input.chunks_exact_mut(width).zip(keep.chunks_exact(layer.inputs)) {
                    kernels.drop_out(&mut values[..layer.inputs], keep, scale);
                }
            }
            let hidden = !after.is_empty();
            let output = match after.first_mut() {
                Some(next) => next,
                None if online => &mut self.online_q,
                None => &mut self.q,
            };
            kernels.product(
                (self.rows, layer.outputs, layer.inputs),
                Start::Row(&parameters[layer.bias.clone()]),
                Left { data: input, row: width, step: 1 },
                Rows { data: &parameters[layer.weights.clone()], stride: layer.outputs },
                RowsMut { data: output, stride: from },
            );
            if hidden {
                // The values between the rows are harmless to touch: nothing reads them.
                kernels.relu(&mut output[..self.rows * from]);
            }
        }
    }

    /// The q-values of rows of `states` by the online network, into `out`.
    pub(super) fn q_values(
        &mut self,
        shared: Shared<'_>,
        states: &dyn StateRows,
        rows: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), LearnerError> {
        let actions = shared.layers[shared.layers.len() - 1].outputs;
        self.gather(shared, "the states", states, rows)?;
        self.forward(shared, shared.online, false, |_| None);
        for (out, q) in out.chunks_exact_mut(actions).zip(self.q.chunks_exact(stride(actions))) {
            for (out, q) in out.iter_mut().zip(q) {
                // A negative zero becomes a positive one, as in the engine.
                *out = q + 0.0;
            }
        }
        Ok(())
    }

    /// The values of successors: `max_a Q'(s, a)`, or for Double DQN `Q'(s, argmax_a Q(s, a))` (van Hasselt et al.
    /// 2016, equation 4), over the allowed actions; ties go to the lowest number. 0 where nothing is allowed.
    pub(super) fn successors(
        &mut self,
        shared: Shared<'_>,
        batch: &Batch<'_>,
        double: bool,
        rows: Range<usize>,
        values: &mut [f32],
    ) -> Result<(), LearnerError> {
        let actions = shared.layers[shared.layers.len() - 1].outputs;
        self.gather(shared, "the next states", batch.next_states, rows.clone())?;
        if double {
            self.forward(shared, shared.online, true, |_| None);
        }
        self.forward(shared, shared.target, false, |_| None);
        let step = stride(actions);
        for (i, value) in values.iter_mut().enumerate() {
            let q = &self.q[i * step..i * step + actions];
            let judge = if double { &self.online_q[i * step..i * step + actions] } else { q };
            let mask = &batch.next_masks[(rows.start + i) * actions..(rows.start + i + 1) * actions];
            let mut best = None;
            for (action, _) in mask.iter().enumerate().filter(|(_, allowed)| **allowed) {
                if !(judge[action].is_finite() && q[action].is_finite()) {
                    return Err(LearnerError::Diverged { what: "target" });
                }
                if best.is_none_or(|best: usize| judge[action] > judge[best]) {
                    best = Some(action);
                }
            }
            *value = best.map_or(0.0, |action| q[action]);
        }
        Ok(())
    }

    /// Runs rows of the batch through the online network, with drop-out.
    pub(super) fn states(
        &mut self,
        shared: Shared<'_>,
        batch: &Batch<'_>,
        spec: &UpdateSpec,
        noise: Noise<'_>,
        rows: Range<usize>,
    ) -> Result<(), LearnerError> {
        self.gather(shared, "the states", batch.states, rows.clone())?;
        self.forward(shared, shared.online, false, |layer| {
            let rate = spec.dropout_rate(layer);
            let width = shared.layers[layer].inputs;
            (rate > 0.0).then(|| (&noise.keep[layer][rows.start * width..rows.end * width], 1.0 / (1.0 - rate)))
        });
        Ok(())
    }

    /// The errors of this thread's answers and the slopes of every layer, last to first.
    pub(super) fn backward(
        &mut self,
        shared: Shared<'_>,
        spec: &UpdateSpec,
        first_row: usize,
        successors: &[f32],
        share: AnswerShare<'_>,
    ) {
        let last = shared.layers.len() - 1;
        let actions = shared.layers[last].outputs;
        let step = stride(actions);
        let slopes = &mut self.slopes[last][..self.rows * step];
        slopes.fill(0.0);
        let scale = 1.0 / spec.normaliser;
        for ((answer, error), fitted) in share.answers.iter().zip(share.errors).zip(share.fitted) {
            let at = (answer.row as usize - first_row) * step + answer.action as usize;
            let target = if answer.discount == 0.0 {
                answer.reward
            } else {
                answer.discount.mul_add(successors[answer.next as usize], answer.reward)
            };
            *fitted = self.q[at];
            *error = *fitted - target;
            let slope = match spec.loss {
                Loss::Mse => *error,
                Loss::Huber(threshold) if error.is_nan() => *error + threshold,
                Loss::Huber(threshold) => error.clamp(-threshold, threshold),
            };
            slopes[at] += answer.weight * scale * slope;
        }
        let across = stride(self.rows);
        let (near, far) = self.across.split_at_mut(1);
        let (mut behind, mut ahead) = (&mut near[0], &mut far[0]);
        let turned = RowsMut { data: behind, stride: across };
        shared.kernels.transpose(Rows { data: slopes, stride: step }, self.rows, actions, turned);
        for l in (1..=last).rev() {
            let layer = &shared.layers[l];
            let width = stride(layer.inputs);
            shared.kernels.product(
                (layer.inputs, self.rows, layer.outputs),
                Start::Zero,
                Left { data: &shared.online[layer.weights.clone()], row: layer.outputs, step: 1 },
                Rows { data: behind, stride: across },
                RowsMut { data: ahead, stride: across },
            );
            let slopes = &mut self.slopes[l - 1];
            let turned = RowsMut { data: slopes, stride: width };
            shared.kernels.transpose(Rows { data: ahead, stride: across }, layer.inputs, self.rows, turned);
            let rate = spec.dropout_rate(l);
            let scale = if rate > 0.0 { 1.0 / (1.0 - rate) } else { 1.0 };
            // What lies between the rows of the inputs is never positive or never read.
            shared.kernels.gate(&mut slopes[..self.rows * width], &self.inputs[l][..self.rows * width], scale);
            if l > 1 {
                let turned = RowsMut { data: ahead, stride: across };
                shared.kernels.transpose(Rows { data: slopes, stride: width }, self.rows, layer.inputs, turned);
            }
            std::mem::swap(&mut behind, &mut ahead);
        }
    }

    /// Adds this thread's rows to the gradient of some inputs of one layer, `gradient` being their rows of weights.
    pub(super) fn weight_gradient(
        &self,
        shared: Shared<'_>,
        l: usize,
        inputs: Range<usize>,
        first: bool,
        gradient: &mut [f32],
    ) {
        if self.rows == 0 {
            // A small batch leaves threads without rows, and without buffers.
            if first {
                gradient.fill(0.0);
            }
            return;
        }
        let layer = &shared.layers[l];
        shared.kernels.product(
            (inputs.len(), layer.outputs, self.rows),
            if first { Start::Zero } else { Start::Continue },
            Left { data: &self.inputs[l][inputs.start..], row: 1, step: stride(layer.inputs) },
            Rows { data: &self.slopes[l], stride: stride(layer.outputs) },
            RowsMut { data: gradient, stride: layer.outputs },
        );
    }

    /// Adds this thread's rows to the gradient of the biases of one layer.
    pub(super) fn bias_gradient(&self, shared: Shared<'_>, l: usize, gradient: &mut [f32]) {
        let outputs = shared.layers[l].outputs;
        for slopes in self.slopes[l].chunks_exact(stride(outputs)).take(self.rows) {
            shared.kernels.add(gradient, &slopes[..outputs]);
        }
    }
}
