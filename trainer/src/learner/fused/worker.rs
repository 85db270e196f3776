//! What one thread does in an update: its share of the rows, from the gathered states to the slopes of every layer.

use super::aligned::{Aligned, stride};
use super::head::{Head, Question, Scratch, Told};
use super::kernels::{Kernels, Left, Rows, RowsMut, Start};
use crate::learner::report::Fitted;
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
    /// The outputs of the last layer.
    outputs: Aligned,
    /// What they tell in the pass.
    told: Told,
    /// What those of another network tell: of the online one where Double DQN needs both.
    judge: Told,
    scratch: Scratch,
    /// What Munchausen adds to the rewards of this thread's answers.
    bonuses: Vec<f32>,
    /// Why this thread's share failed.
    pub(super) failure: Option<LearnerError>,
}

/// What the threads share in all passes.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    pub(super) kernels: Kernels,
    pub(super) layers: &'a [LayerShape],
    pub(super) head: Head,
    /// Parameters to compute with: those of noisy layers with their noise.
    pub(super) online: &'a [f32],
    pub(super) target: &'a [f32],
}

/// The answers of one thread's rows and what becomes of them.
pub(super) struct AnswerShare<'a> {
    pub(super) answers: &'a [Answer],
    pub(super) fitted: &'a mut [Fitted],
}

impl Worker {
    pub(super) fn new(layers: usize) -> Worker {
        Worker {
            rows: 0,
            inputs: std::iter::repeat_with(Aligned::default).take(layers).collect(),
            slopes: std::iter::repeat_with(Aligned::default).take(layers).collect(),
            across: [Aligned::default(), Aligned::default()],
            outputs: Aligned::default(),
            told: Told::default(),
            judge: Told::default(),
            scratch: Scratch::default(),
            bonuses: Vec::new(),
            failure: None,
        }
    }

    /// Makes room for `rows` rows.
    fn reserve(&mut self, shared: Shared<'_>, rows: usize) {
        let Shared { layers, head, .. } = shared;
        self.rows = rows;
        head.reserve(&mut self.told, rows);
        head.reserve(&mut self.judge, rows);
        head.prepare(&mut self.scratch);
        for (layer, (inputs, slopes)) in layers.iter().zip(self.inputs.iter_mut().zip(&mut self.slopes)) {
            inputs.reserve(rows * stride(layer.inputs));
            slopes.reserve(rows * stride(layer.outputs));
            for across in &mut self.across {
                across.reserve(layer.outputs * stride(rows));
            }
            if layer.bias.end == layers[layers.len() - 1].bias.end {
                self.outputs.reserve(rows * stride(layer.outputs));
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
        self.reserve(shared, rows.len());
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

    /// Runs the gathered rows through a network; `keep` gives the bytes of drop-out and the scale for a layer. What the
    /// outputs tell is then in `told`.
    fn forward<'n>(&mut self, shared: Shared<'_>, parameters: &[f32], keep: impl Fn(usize) -> Option<(&'n [u8], f32)>) {
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
                None => &mut self.outputs,
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
            } else {
                shared.head.read(kernels, output, from, self.rows, &mut self.scratch, &mut self.told);
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
        self.gather(shared, "the states", states, rows)?;
        self.forward(shared, shared.online, |_| None);
        for (i, out) in out.chunks_exact_mut(shared.head.actions).enumerate() {
            out.copy_from_slice(shared.head.q_values(&self.told, i));
        }
        Ok(())
    }

    /// The atoms of all actions of the first rows that were computed last, into `out`.
    pub(super) fn last_atoms(&self, shared: Shared<'_>, out: &mut [f32]) {
        for (i, out) in out.chunks_exact_mut(shared.head.width()).enumerate() {
            out.copy_from_slice(shared.head.row(&self.told, i));
        }
    }

    /// What successors are worth, atoms of each in turn: what the target network tells about its best allowed action, or for
    /// Double DQN about that of the online network (van Hasselt et al. 2016, equation 4); ties go to the lowest number.
    pub(super) fn successors(
        &mut self,
        shared: Shared<'_>,
        batch: &Batch<'_>,
        spec: &UpdateSpec,
        rows: Range<usize>,
        values: &mut [f32],
    ) -> Result<(), LearnerError> {
        let head = shared.head;
        self.gather(shared, "the next states", batch.next_states, rows.clone())?;
        if spec.double {
            self.forward(shared, shared.online, |_| None);
            std::mem::swap(&mut self.told, &mut self.judge);
        }
        self.forward(shared, shared.target, |_| None);
        let judge = spec.double.then_some(&self.judge);
        for (i, value) in values.chunks_exact_mut(head.atoms).enumerate() {
            let mask = &batch.next_masks[(rows.start + i) * head.actions..][..head.actions];
            let into = (&mut self.scratch, value);
            head.successor(shared.kernels, &self.told, judge, spec.munchausen, (i, mask), into)?;
        }
        Ok(())
    }

    /// Runs rows of the batch through the online network, with drop-out; before it, where Munchausen's rewards are asked for,
    /// through the target network.
    pub(super) fn states(
        &mut self,
        shared: Shared<'_>,
        batch: &Batch<'_>,
        spec: &UpdateSpec,
        noise: Noise<'_>,
        rows: Range<usize>,
        answers: &[Answer],
    ) -> Result<(), LearnerError> {
        let Head { actions, .. } = shared.head;
        self.gather(shared, "the states", batch.states, rows.clone())?;
        self.bonuses.clear();
        self.bonuses.resize(answers.len(), 0.0);
        if let Some(munchausen) = spec.munchausen {
            self.forward(shared, shared.target, |_| None);
            for (bonus, answer) in self.bonuses.iter_mut().zip(answers) {
                let row = answer.row as usize;
                let mask = &batch.masks[row * actions..(row + 1) * actions];
                let played = (row - rows.start, mask, answer.action as usize);
                *bonus = shared.head.bonus(&self.told, munchausen, played, &mut self.scratch);
                if !bonus.is_finite() {
                    return Err(LearnerError::Diverged { what: "target" });
                }
            }
        }
        self.forward(shared, shared.online, |layer| {
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
        batch: &Batch<'_>,
        spec: &UpdateSpec,
        first_row: usize,
        successors: &[f32],
        share: AnswerShare<'_>,
    ) {
        let last = shared.layers.len() - 1;
        let Head { actions, atoms, .. } = shared.head;
        let outputs = shared.layers[last].outputs;
        let step = stride(outputs);
        // What follows says nothing to cloning, and was not checked for it.
        let has_successor = |answer: &Answer| answer.discount != 0.0 && spec.loss != Loss::Cloning;
        let mut answers = share.answers.iter().zip(share.fitted).zip(&self.bonuses).peekable();
        for (i, raw) in self.slopes[last].chunks_exact_mut(step).take(self.rows).enumerate() {
            let row = first_row + i;
            shared.head.begin(&mut self.scratch);
            while let Some(((answer, fitted), bonus)) = answers.next_if(|((answer, _), _)| answer.row as usize == row) {
                let next = answer.next as usize * atoms;
                let question = Question {
                    answer,
                    successor: has_successor(answer).then(|| &successors[next..next + atoms]),
                    bonus: *bonus,
                    mask: batch.masks.get(row * actions..(row + 1) * actions).unwrap_or(&[]),
                };
                *fitted = shared.head.fit(shared.kernels, spec, &self.told, i, question, &mut self.scratch);
            }
            shared.head.end(&self.scratch, raw);
        }
        let slopes = &self.slopes[last][..self.rows * step];
        let across = stride(self.rows);
        let (near, far) = self.across.split_at_mut(1);
        let (mut behind, mut ahead) = (&mut near[0], &mut far[0]);
        let turned = RowsMut { data: behind, stride: across };
        shared.kernels.transpose(Rows { data: slopes, stride: step }, self.rows, outputs, turned);
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
