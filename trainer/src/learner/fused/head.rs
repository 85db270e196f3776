//! From the outputs of the last layer to what they tell about returns, and from an answer's error back to their slopes.

use super::aligned::Aligned;
use super::kernels::Kernels;
use crate::learner::report::Fitted;
use crate::learner::{Answer, LearnerError, Loss, Munchausen, UpdateSpec};
use crate::network::{NetworkShape, Returns};

/// How the outputs of the last layer are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) actions: usize,
    pub(super) atoms: usize,
    dueling: bool,
    returns: Returns,
}

/// What the outputs of some rows tell, row-major.
#[derive(Default)]
pub(super) struct Told {
    /// For each action its q-value, its quantiles or the logits of its categories.
    atoms: Aligned,
    /// For each action its q-value.
    means: Aligned,
}

/// Memory for one answer at a time.
#[derive(Default)]
pub(super) struct Scratch {
    probabilities: Vec<f32>,
    target: Vec<f32>,
    policy: Vec<f32>,
    /// Values of the categories, where there are such.
    categories: Vec<f32>,
    logarithms: Vec<f64>,
    /// Slopes of the loss by what the outputs of a row tell.
    slopes: Vec<f32>,
}

/// An answer and what its target is made of.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) answer: &'a Answer,
    /// What follows: the atoms of the successor's action; none where nothing does.
    pub(super) successor: Option<&'a [f32]>,
    /// Added to the reward.
    pub(super) bonus: f32,
    /// Allowed actions of the state; may be empty where nothing depends on them.
    pub(super) mask: &'a [bool],
}

impl Head {
    pub(super) fn of(shape: &NetworkShape) -> Head {
        let returns = shape.returns();
        Head { actions: shape.actions(), atoms: returns.atoms(), dueling: shape.is_dueling(), returns }
    }

    /// Atoms of all actions of a row.
    pub(super) fn width(&self) -> usize {
        self.actions * self.atoms
    }

    /// Makes room for rows.
    pub(super) fn reserve(&self, told: &mut Told, rows: usize) {
        told.atoms.reserve(rows * self.width());
        told.means.reserve(rows * self.actions);
    }

    /// Writes down what all rows need.
    pub(super) fn prepare(&self, scratch: &mut Scratch) {
        let Returns::Categorical { minimum, maximum, atoms } = self.returns else { return };
        if scratch.categories.len() != atoms {
            let share = |k: usize| k as f32 / (atoms - 1) as f32;
            scratch.categories = (0..atoms).map(|k| share(k).mul_add(maximum - minimum, minimum)).collect();
            scratch.logarithms = vec![0.0; atoms];
        }
    }

    /// Reads rows of outputs, `stride` values apart. A dueling head joins as in the runtime: `V + (A - mean A)`, the advantages
    /// summed in the order of the actions. A zero is given as `+0`.
    pub(super) fn read(
        &self,
        kernels: Kernels,
        raw: &[f32],
        stride: usize,
        rows: usize,
        scratch: &mut Scratch,
        told: &mut Told,
    ) {
        let width = self.width();
        let each = raw.chunks_exact(stride).zip(told.atoms.chunks_exact_mut(width));
        for ((raw, atoms), means) in each.zip(told.means.chunks_exact_mut(self.actions)).take(rows) {
            let (advantages, value) = raw.split_at(width);
            if self.dueling {
                for k in 0..self.atoms {
                    let sum = (1..self.actions).fold(advantages[k], |sum, a| sum + advantages[a * self.atoms + k]);
                    let mean = sum / self.actions as f32;
                    for at in (k..width).step_by(self.atoms) {
                        atoms[at] = value[k] + (advantages[at] - mean);
                    }
                }
            } else {
                atoms.copy_from_slice(advantages);
            }
            for (mean, atoms) in means.iter_mut().zip(atoms.chunks_exact(self.atoms)) {
                *mean = self.mean(kernels, atoms, scratch) + 0.0;
            }
        }
    }

    /// The q-value that the atoms of an action tell.
    fn mean(&self, kernels: Kernels, atoms: &[f32], scratch: &mut Scratch) -> f32 {
        match self.returns {
            Returns::Mean => atoms[0],
            Returns::Quantiles(_) => average(atoms),
            Returns::Categorical { .. } => {
                scratch.probabilities.clear();
                scratch.probabilities.extend_from_slice(atoms);
                softmax(kernels, &mut scratch.probabilities);
                expectation(&scratch.categories, &scratch.probabilities)
            }
        }
    }

    /// The q-values of row `i`.
    pub(super) fn q_values<'a>(&self, told: &'a Told, i: usize) -> &'a [f32] {
        &told.means[i * self.actions..(i + 1) * self.actions]
    }

    /// What row `i` tells about all actions.
    pub(super) fn row<'a>(&self, told: &'a Told, i: usize) -> &'a [f32] {
        &told.atoms[i * self.width()..(i + 1) * self.width()]
    }

    /// What row `i` tells about one action.
    fn atoms<'a>(&self, told: &'a Told, i: usize, action: usize) -> &'a [f32] {
        &told.atoms[i * self.width() + action * self.atoms..][..self.atoms]
    }

    /// What a successor is worth, as atoms, categories by their probabilities: those of the allowed action that `judge` (or the
    /// target network itself) values most, the lowest number among equals; with Munchausen the mean over the policy of
    /// all. Nothing is written where nothing is allowed.
    pub(super) fn successor(
        &self,
        kernels: Kernels,
        told: &Told,
        judge: Option<&Told>,
        munchausen: Option<Munchausen>,
        (i, mask): (usize, &[bool]),
        (scratch, out): (&mut Scratch, &mut [f32]),
    ) -> Result<(), LearnerError> {
        let q = self.q_values(told, i);
        let values = judge.map_or(q, |judge| self.q_values(judge, i));
        let mut best = None;
        for (action, _) in mask.iter().enumerate().filter(|(_, allowed)| **allowed) {
            if !(values[action].is_finite() && q[action].is_finite()) {
                return Err(LearnerError::Diverged { what: "target" });
            }
            if best.is_none_or(|best: usize| values[action] > values[best]) {
                best = Some(action);
            }
        }
        let Some(best) = best else { return Ok(()) };
        if let Some(munchausen) = munchausen {
            log_policy(munchausen.temperature, q, mask, &mut scratch.policy);
            out.fill(0.0);
            for (action, _) in mask.iter().enumerate().filter(|(_, allowed)| **allowed) {
                let scaled = scratch.policy[action];
                let probability = libm::expf(scaled / munchausen.temperature);
                for (out, atom) in out.iter_mut().zip(self.atoms(told, i, action)) {
                    *out = probability.mul_add(atom - scaled, *out);
                }
            }
        } else {
            out.copy_from_slice(self.atoms(told, i, best));
            if matches!(self.returns, Returns::Categorical { .. }) {
                softmax(kernels, out);
            }
        }
        if out.iter().all(|value| value.is_finite()) { Ok(()) } else { Err(LearnerError::Diverged { what: "target" }) }
    }

    /// Munchausen's addition to the reward of an action in row `i` of the target network.
    pub(super) fn bonus(
        &self,
        told: &Told,
        munchausen: Munchausen,
        (i, mask, action): (usize, &[bool], usize),
        scratch: &mut Scratch,
    ) -> f32 {
        log_policy(munchausen.temperature, self.q_values(told, i), mask, &mut scratch.policy);
        munchausen.alpha * scratch.policy[action].clamp(munchausen.floor, 0.0)
    }

    /// Begins a row: the slopes of its atoms are 0.
    pub(super) fn begin(&self, scratch: &mut Scratch) {
        scratch.slopes.clear();
        scratch.slopes.resize(self.width(), 0.0);
    }

    /// Adds the slopes of one answer of row `i`, and tells what became of it.
    pub(super) fn fit(
        &self,
        kernels: Kernels,
        spec: &UpdateSpec,
        told: &Told,
        i: usize,
        question: Question<'_>,
        scratch: &mut Scratch,
    ) -> Fitted {
        let Question { answer, successor, bonus, mask } = question;
        let action = answer.action as usize;
        let scale = answer.weight * (1.0 / spec.normaliser);
        let value = self.q_values(told, i)[action];
        let atoms = self.atoms(told, i, action);
        let here = action * self.atoms..(action + 1) * self.atoms;
        let reward = answer.reward + bonus;
        let mut fitted = match (spec.loss, self.returns) {
            (Loss::Cloning, _) => {
                let likelihood = self.push_policy(kernels, told, (i, mask, action), scale, scratch);
                Fitted { loss: f64::from(likelihood), error: likelihood, value, target: value }
            }
            (_, Returns::Mean) => {
                let target = successor.map_or(reward, |value| answer.discount.mul_add(value[0], reward));
                let error = value - target;
                let slope = match spec.loss {
                    Loss::Huber(threshold) if error.is_nan() => error + threshold,
                    Loss::Huber(threshold) => error.clamp(-threshold, threshold),
                    _ => error,
                };
                scratch.slopes[here.start] += scale * slope;
                Fitted { loss: half_square(spec.loss, error), error, value, target }
            }
            (_, Returns::Quantiles(_)) => {
                scratch.target.clear();
                match successor {
                    None => scratch.target.push(reward),
                    Some(atoms) => {
                        scratch.target.extend(atoms.iter().map(|atom| answer.discount.mul_add(*atom, reward)))
                    }
                }
                let threshold = if let Loss::Huber(threshold) = spec.loss { threshold } else { 1.0 };
                let mut loss = 0.0;
                for (k, (slope, atom)) in scratch.slopes[here].iter_mut().zip(atoms).enumerate() {
                    let share = (k as f32 + 0.5) / self.atoms as f32;
                    let (error, by) = kernels.quantile_error(*atom, share, threshold, &scratch.target);
                    loss += error;
                    *slope += scale * by;
                }
                Fitted { loss, error: loss as f32, value, target: average(&scratch.target) }
            }
            (_, Returns::Categorical { minimum, maximum, .. }) => {
                let Scratch { categories, probabilities, target, logarithms, slopes, .. } = scratch;
                probabilities.clear();
                match successor {
                    // The reward alone is as all categories that lead to it: one of them has all the probability.
                    None => {
                        probabilities.resize(self.atoms, 0.0);
                        probabilities[0] = 1.0;
                    }
                    Some(successor) => probabilities.extend_from_slice(successor),
                }
                target.clear();
                target.resize(self.atoms, 0.0);
                let discount = if successor.is_some() { answer.discount } else { 0.0 };
                kernels.project(categories, probabilities, (minimum, maximum), (discount, reward), target);
                kernels.logarithms(target, logarithms);
                probabilities.clear();
                probabilities.extend_from_slice(atoms);
                let log_sum = softmax(kernels, probabilities);
                let (mut loss, mut entropy) = (0.0, 0.0);
                for (k, slope) in slopes[here].iter_mut().enumerate() {
                    let (target, predicted) = (target[k], probabilities[k]);
                    *slope += scale * (predicted - target);
                    if target > 0.0 {
                        loss += f64::from(target) * (f64::from(log_sum) - f64::from(atoms[k]));
                        entropy -= f64::from(target) * logarithms[k];
                    }
                }
                // What is not a number must not vanish in the maximum.
                let divergence = if loss.is_nan() { loss } else { (loss - entropy).max(0.0) };
                Fitted { loss, error: divergence as f32, value, target: expectation(categories, target) }
            }
        };
        if spec.conservative > 0.0 {
            let gap = self.push_policy(kernels, told, (i, mask, action), scale * spec.conservative, scratch);
            fitted.loss += f64::from(spec.conservative) * f64::from(gap);
        }
        fitted
    }

    /// Adds the slopes of `scale * (ln sum_b exp Q(b) - Q(action))` over the allowed `b`, and gives what is scaled.
    fn push_policy(
        &self,
        kernels: Kernels,
        told: &Told,
        (i, mask, action): (usize, &[bool], usize),
        scale: f32,
        scratch: &mut Scratch,
    ) -> f32 {
        let q = self.q_values(told, i);
        log_policy(1.0, q, mask, &mut scratch.policy);
        for (b, _) in mask.iter().enumerate().filter(|(_, allowed)| **allowed) {
            let probability = libm::expf(scratch.policy[b]);
            let slope = scale * (probability - if b == action { 1.0 } else { 0.0 });
            let atoms = self.atoms(told, i, b);
            let slopes = &mut scratch.slopes[b * self.atoms..(b + 1) * self.atoms];
            match self.returns {
                Returns::Mean => slopes[0] += slope,
                Returns::Quantiles(_) => slopes.iter_mut().for_each(|to| *to += slope / self.atoms as f32),
                Returns::Categorical { .. } => {
                    let highest = kernels.highest(atoms);
                    let sum: f32 = atoms.iter().map(|logit| libm::expf(logit - highest)).sum();
                    for (k, (to, logit)) in slopes.iter_mut().zip(atoms).enumerate() {
                        let probability = libm::expf(logit - highest) / sum;
                        *to += slope * probability * (scratch.categories[k] - q[b]);
                    }
                }
            }
        }
        -scratch.policy[action]
    }

    /// Writes the slopes of a row by its outputs.
    pub(super) fn end(&self, scratch: &Scratch, raw: &mut [f32]) {
        let width = self.width();
        if !self.dueling {
            raw[..width].copy_from_slice(&scratch.slopes);
            return;
        }
        let (advantages, value) = raw.split_at_mut(width);
        for (k, value) in value.iter_mut().enumerate().take(self.atoms) {
            let sum: f32 = (k..width).step_by(self.atoms).map(|at| scratch.slopes[at]).sum();
            let mean = sum / self.actions as f32;
            *value = sum;
            for at in (k..width).step_by(self.atoms) {
                advantages[at] = scratch.slopes[at] - mean;
            }
        }
    }
}

fn half_square(loss: Loss, error: f32) -> f64 {
    let size = f64::from(error.abs());
    match loss {
        Loss::Huber(threshold) if size > f64::from(threshold) => {
            f64::from(threshold) * (size - 0.5 * f64::from(threshold))
        }
        _ => 0.5 * size * size,
    }
}

fn average(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|value| f64::from(*value)).sum();
    (sum / values.len() as f64) as f32
}

/// The mean of categorical returns with these probabilities.
fn expectation(categories: &[f32], probabilities: &[f32]) -> f32 {
    let sum: f64 = probabilities.iter().zip(categories).map(|(p, value)| f64::from(*p) * f64::from(*value)).sum();
    sum as f32
}

/// Turns logits into probabilities, and gives the logarithm of the sum of their exponentials.
fn softmax(kernels: Kernels, logits: &mut [f32]) -> f32 {
    let highest = kernels.highest(logits);
    kernels.exponentials(logits, highest);
    let sum: f32 = logits.iter().sum();
    kernels.divide(logits, sum);
    highest + libm::logf(sum)
}

/// `temperature * ln softmax(q / temperature)` over the allowed actions; 0 for the others.
fn log_policy(temperature: f32, q: &[f32], mask: &[bool], out: &mut Vec<f32>) {
    out.clear();
    out.resize(q.len(), 0.0);
    let allowed = || mask.iter().zip(q).filter(|(allowed, _)| **allowed).map(|(_, q)| *q);
    let highest = allowed().fold(f32::NEG_INFINITY, |highest, q| if q <= highest { highest } else { q });
    let sum: f32 = allowed().map(|q| libm::expf((q - highest) / temperature)).sum();
    let log_sum = temperature * libm::logf(sum);
    for ((out, q), _) in out.iter_mut().zip(q).zip(mask).filter(|(_, allowed)| **allowed) {
        *out = (q - highest) - log_sum;
    }
}
