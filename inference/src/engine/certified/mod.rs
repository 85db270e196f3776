//! Decisions in 16-bit integers that are provably those of the canonical kernel.
//!
//! Hidden layers are computed in integers, the last one in f32, and beside them runs a bound on how far the activations can
//! be from those of the canonical kernel. Where it cannot tell the best allowed action from every other, there is no
//! certificate. `docs/algorithms/certified-decisions.md` derives every line of the bound; the names here are its names.

#[cfg(test)]
mod hunt;
mod layer;
mod norms;

use std::ops::RangeInclusive;

use super::head;
use super::kernels::{Active, Kernel, Split, directions, flat, largest, products, squares};
use super::slab::{LANES, Lane, Slab};
use layer::Hidden;
use norms::euclidean;

/// Unit roundoff of f32.
const U: f64 = 1.0 / (1_u64 << 24) as f64;

/// Covers the roundings of the bound itself, which is computed in f64 from numbers that are not negative.
const SLACK: f64 = 1.0 + 1e-9;

/// More than everything that underflow can take from a sum of 2^16 terms, or from a product with a step.
const UNDERFLOW: f64 = 1e-30;

/// No certificate is given where a sum could reach this: f32 overflows at 3.4e38.
const LARGEST_SUM: f64 = 1e30;

/// More actions than this are left to the canonical kernel: the table of pairs would grow too large.
const MOST_ACTIONS: usize = 64;

/// A second look sharpens a bound some eight times at best, so it is not worth its time where that would not do.
const HOPELESS: f64 = 16.0;

/// States past this are left to the canonical kernel.
const LARGEST_STATE: f32 = (1 << 20) as f32;

/// A network in integers, with what is needed to bound its errors.
#[derive(Debug)]
pub(super) struct Certified {
    hidden: Vec<Hidden>,
    last: Last,
    /// Step of the first layer: states have a known range.
    step: f32,
    /// Per input: what turns it into steps, a power of two.
    steps_per_unit: Vec<f32>,
    /// Lanes of the widest hidden layer.
    widest: usize,
}

/// The last layer's rows.
#[derive(Debug)]
struct Last {
    inputs: f64,
    /// Per action: at least `|w_a|_2`, and `|b_a|`. The value of a dueling head comes last.
    rows: Vec<(f64, f64)>,
    /// Per pair of actions: at least `|w_a - w_b|_2`.
    differences: Vec<f64>,
    /// Of a dueling head, per action: at least `|v + w_a - mean w|_2`, where `v` is the row of the value. Empty of another.
    joined: Vec<f64>,
}

/// The working memory of an integer pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Workspace {
    steps: Vec<f32>,
    split: Split,
    direction: Vec<f32>,
}

/// A decision that the canonical kernel would take too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Certificate {
    /// Number of the action.
    pub action: usize,
    /// No q-value is further than this from that of the canonical kernel.
    pub bound: f32,
}

/// How far the activations of a layer can be from the canonical ones.
#[derive(Clone, Copy, Debug)]
struct Reach {
    /// At least `|y|_2`.
    size: f64,
    /// At least `|y - x|_2`, where `x` are the canonical activations.
    error: f64,
    /// The part of the error that arose in the layer itself.
    own: f64,
    /// The error of the layer before; 0 for a state.
    before: f64,
}

impl Certified {
    /// A network in `slab` for states within `range`. `None` where nothing could be certified, or nothing would be gained:
    /// one layer, more than 64 actions, a range or weights beyond what the arithmetic is made for.
    pub(super) fn new(kernel: Kernel, slab: &Slab, range: &RangeInclusive<f32>) -> Option<Self> {
        let count = slab.layers().checked_sub(1).filter(|count| *count > 0)?;
        // An end that is no number limits nothing.
        let known = [range.start(), range.end()].iter().all(|end| end.abs() <= LARGEST_STATE);
        if slab.actions() > MOST_ACTIONS || !known {
            return None;
        }
        let limit = range.start().abs().max(range.end().abs());
        let hidden: Vec<Hidden> = (0..count)
            .map(|index| Hidden::new(kernel, &slab.layer(index), slab.inputs_of(index), index == 0))
            .collect::<Option<_>>()?;
        let first = hidden.first()?;
        let step = power_of_two_above(limit) * first.largest_factor() / (1_u32 << first.upper_bits) as f32;
        let steps_per_unit = first.factors.iter().map(|factor| factor / step).collect();
        let last = Last::new(slab);
        let sound = hidden
            .iter()
            .all(|layer| layer.sigma < LARGEST_SUM && layer.delta < LARGEST_SUM && layer.bias < LARGEST_SUM);
        let widest = hidden.iter().map(|layer| layer.integers.bias.len()).max().unwrap_or(0);
        sound.then_some(Certified { hidden, last, step, steps_per_unit, widest })
    }

    /// Lanes that a pass takes: the sums of two hidden layers, and the q-values.
    pub(super) fn lanes(&self) -> usize {
        2 * self.widest + self.last.rows.len().div_ceil(LANES)
    }

    /// The first lane of the sums of a hidden layer.
    fn place(&self, index: usize) -> usize {
        index % 2 * self.widest
    }

    /// Decides among the allowed actions, if it can be certain. Writes the q-values of all actions in either case.
    ///
    /// The state has the width and the range of the engine, the scratch its size.
    pub(super) fn decide(
        &self,
        kernel: Kernel,
        slab: &Slab,
        memory: (&mut Workspace, &mut Active, &mut [Lane], &mut [f32]),
        state: &[f32],
        mask: &[bool],
    ) -> Option<Certificate> {
        let (workspace, active, lanes, q_values) = memory;
        let reach = self.hidden_pass(kernel, workspace, active, lanes, state)?;
        let last = slab.layer(self.hidden.len());
        let (sums, lanes) = lanes.split_at_mut(2 * self.widest);
        let lanes = &mut lanes[..last.bias.len()];
        kernel.interleaved(&last, active, lanes);
        head::join(slab, lanes, q_values);
        let sharper = |action, other| self.sharper(kernel, slab, (&mut *workspace, sums), reach, (action, other));
        self.last.certify(&flat(lanes)[..last.outputs], q_values, mask, reach, sharper)
    }

    /// At least `|(w_a - w_b)(y - x)|`, better than the product of the norms: units that are off in both kernels have no part
    /// in it, and the error of the layer before is followed back through the weights between.
    fn sharper(
        &self,
        kernel: Kernel,
        slab: &Slab,
        (workspace, sums): (&mut Workspace, &[Lane]),
        reach: Reach,
        (action, other): (usize, usize),
    ) -> f64 {
        let index = self.hidden.len() - 1;
        let (layer, last) = (&self.hidden[index], slab.layer(index + 1));
        let units = layer.integers.outputs;
        let z = &flat(&sums[self.place(index)..])[..units];
        let row = last.bias.len();
        let place = |action: usize| (action / LANES, action % LANES);
        let ((lane_a, a), (lane_b, b)) = (place(action), place(other));
        let d = &mut workspace.direction[..units.next_multiple_of(LANES)];
        d.fill(0.0);
        let (mut sure, mut unsure) = (0.0_f64, 0.0_f64);
        for (k, (d, &z)) in d.iter_mut().zip(z).enumerate() {
            let z = f64::from(z);
            if z > -reach.error {
                let difference = last.weights[k * row + lane_a].0[a] - last.weights[k * row + lane_b].0[b];
                let square = f64::from(difference) * f64::from(difference);
                sure += square;
                // Its error counts in full, in part or not at all: what was not assumed is added below.
                unsure += if z < reach.error { square } else { 0.0 };
                *d = difference;
            }
        }
        // The differences are rounded to f32.
        let slack = 1.0 + 4.0 * U;
        let (norm, unsure) = (sure.sqrt() * slack * SLACK, unsure.sqrt() * slack * SLACK);
        let whole = norm * reach.error;
        if index == 0 {
            return whole;
        }
        let between = slab.layer(index);
        let inputs = self.hidden[index - 1].integers.outputs;
        let before = &flat(&sums[self.place(index - 1)..])[..inputs];
        // The floor is rounded to f32, and must not cost a unit at the edge of what is off.
        let squares = directions(kernel, between.weights, d, before, -(reach.before * 1.000_001) as f32);
        let chain = U * (units as f64 + 8.0) * (units as f64).sqrt() * layer.sigma * norm;
        // One chain sums the squares, so its terms round sixteen times as often as those of a sum in lanes.
        let followed = (root(squares, (LANES * inputs) as f64) + chain + UNDERFLOW) * SLACK;
        let sharp = followed * reach.before + norm * reach.own + unsure * reach.error;
        whole.min(sharp * SLACK)
    }

    /// The activations before the last layer, in `active`. `None` where a sum is not finite.
    fn hidden_pass(
        &self,
        kernel: Kernel,
        workspace: &mut Workspace,
        active: &mut Active,
        lanes: &mut [Lane],
        state: &[f32],
    ) -> Option<Reach> {
        let Workspace { steps, split, .. } = workspace;
        let steps = &mut steps[..state.len()];
        products(kernel, state, &self.steps_per_unit, steps);
        active.gather(kernel, steps);
        let mut reach = Reach { size: 0.0, error: 0.0, own: 0.0, before: 0.0 };
        for (index, layer) in self.hidden.iter().enumerate() {
            let (inverse, step) = if index == 0 {
                (1.0, self.step)
            } else {
                let step = step_for(largest(kernel, active.padded_value()), layer.upper_bits)?;
                (1.0 / step, step)
            };
            let measured = split.fill(kernel, active, inverse, step, layer.lower_bits);
            let terms = active.len() as f64;
            reach.size = f64::from(step) * root(measured.squares, terms);
            let residual = f64::from(split.fine) * root(measured.residual_squares, terms) + UNDERFLOW;
            // In the first layer the canonical kernel has the same active inputs, unless the step made one vanish.
            let chain = if index == 0 && step <= 1.0 { terms } else { layer.inputs as f64 };
            let own = layer.error(reach, residual, f64::from(step) * terms.sqrt(), chain)?;
            let error = (layer.sigma * reach.error + own) * SLACK;
            reach = Reach { size: 0.0, error, own, before: reach.error };
            // Sums stay until the layer after the next: a second look wants them.
            let lanes = &mut lanes[self.place(index)..][..layer.integers.bias.len()];
            kernel.integer(&layer.integers, active, split, lanes);
            if !active.gather_rectified(kernel, lanes, layer.integers.outputs) {
                return None;
            }
        }
        reach.size = root(squares(kernel, active.padded_value()), active.len() as f64) + UNDERFLOW;
        (reach.size < LARGEST_SUM).then_some(reach)
    }
}

impl Hidden {
    /// At least `|z - z*|_2 - |W|_2 |y - x|_2`: `z` the outputs of this layer as computed here from `y`, `z*` those of the
    /// canonical kernel from its own `x`. `residual` is at least `|y' - y|_2`, `y'` being what the integers stand for; `step_norm` at least the
    /// step times the root of the number of active inputs; `chain` at least the number of inputs that are not zero in the
    /// canonical kernel. `None` where a sum might overflow there.
    fn error(&self, reach: Reach, residual: f64, step_norm: f64, chain: f64) -> Option<f64> {
        let Reach { size, error, .. } = reach;
        let canonical_sum = self.bias + self.sigma * (size + error);
        let integer_sum = self.bias + (self.sigma + self.delta) * (size + residual + step_norm);
        let integers = self.sigma * residual + self.delta * (size + residual);
        let total = (integers + chain_rounding(chain, canonical_sum) + 4.0 * U * integer_sum + UNDERFLOW) * SLACK;
        (canonical_sum < LARGEST_SUM && integer_sum < LARGEST_SUM && total < LARGEST_SUM).then_some(total)
    }
}

impl Last {
    fn new(slab: &Slab) -> Self {
        let index = slab.layers() - 1;
        let (layer, inputs) = (slab.layer(index), slab.inputs_of(index));
        let weight = |k: usize, a: usize| f64::from(layer.weights[k * layer.bias.len() + a / LANES].0[a % LANES]);
        let row = |a: usize| {
            (euclidean((0..inputs).map(|k| weight(k, a))), f64::from(layer.bias[a / LANES].0[a % LANES]).abs())
        };
        let actions = slab.actions();
        let difference = |a: usize, b: usize| euclidean((0..inputs).map(|k| weight(k, a) - weight(k, b)));
        let rows: Vec<(f64, f64)> = (0..layer.outputs).map(row).collect();
        let joined = if slab.is_dueling() { joined(inputs, actions, &rows, weight) } else { Vec::new() };
        Last {
            inputs: inputs as f64,
            rows,
            differences: (0..actions * actions).map(|pair| difference(pair / actions, pair % actions)).collect(),
            joined,
        }
    }

    /// The best allowed action, if it is the canonical kernel's. `outputs` are those of the last layer, and `q_values` what the
    /// head made of them.
    /// `sharper` gives another bound of what the activations' error can do to the difference of two actions, for more work.
    fn certify(
        &self,
        outputs: &[f32],
        q_values: &[f32],
        mask: &[bool],
        reach: Reach,
        mut sharper: impl FnMut(usize, usize) -> f64,
    ) -> Option<Certificate> {
        let allowed = |action: &usize| mask[*action];
        let actions = || (0..q_values.len()).filter(allowed);
        // The value and the mean are the same for all actions: what is compared are the outputs, not the q-values.
        let action = actions().reduce(|best, next| if outputs[next] > outputs[best] { next } else { best })?;
        // Roundings of both sums: the canonical chain, and ours of a quarter of it and eight more.
        let rounding = 1.005 * U * (1.25 * self.inputs + 16.0);
        let (mut own, mut carried) = ([0.0; MOST_ACTIONS + 1], 0.0_f64);
        for (own, (norm, bias)) in own.iter_mut().zip(&self.rows) {
            *own = rounding * (bias + norm * (reach.size + reach.error)) + UNDERFLOW;
            carried = carried.max(norm * reach.error + *own);
        }
        let (head, bound) = match self.joined.as_slice() {
            [] => (0.0, carried),
            joined => self.dueling(outputs, joined, &own, reach),
        };
        let differences = &self.differences[action * q_values.len()..];
        for other in actions().filter(|other| *other != action) {
            let difference = f64::from(outputs[action]) - f64::from(outputs[other]);
            // Whatever is NaN fails the comparison.
            let separates = |bound: f64| difference > (bound + own[action] + own[other] + head) * SLACK;
            let bound = differences[other] * reach.error;
            if !separates(bound) && (!separates(bound / HOPELESS) || !separates(sharper(action, other))) {
                return None;
            }
        }
        let finite = q_values.iter().fold(true, |all, value| all & value.is_finite());
        // The cast rounds by less than the factor adds.
        (finite && bound < LARGEST_SUM).then_some(Certificate { action, bound: (bound * (1.0 + 1e-6)) as f32 })
    }

    /// Of a dueling head: how much its roundings can take from the difference of two q-values, and how far any q-value can be from
    /// the canonical one.
    fn dueling(&self, outputs: &[f32], joined: &[f64], own: &[f64], reach: Reach) -> (f64, f64) {
        let count = joined.len();
        let size = |column: usize| f64::from(outputs[column]).abs() + self.rows[column].0 * reach.error + own[column];
        let (value, advantage) = (size(count), (0..count).map(size).fold(0.0, f64::max));
        let (largest, most) =
            (joined.iter().copied().fold(0.0, f64::max), own[..count].iter().copied().fold(0.0, f64::max));
        let pair = U * (2.0 * value + 8.1 * advantage);
        let both = 2.0 * U * (value + 1.01 * (count as f64 + 4.0) * advantage);
        let bound = (largest * reach.error + own[count] + 2.0 * most + both + UNDERFLOW) * SLACK;
        // A sum of advantages that could overflow gives no certificate.
        let sum = value + (count as f64 + 2.0) * advantage;
        (pair, if sum < LARGEST_SUM { bound } else { f64::INFINITY })
    }
}

/// At least `|v + w_a - mean w|_2` per action, of the rows `w` of the advantages and the row `v` of the value behind them, with the
/// norms of all. Terms may cancel, so what f64 rounds of them is added.
fn joined(inputs: usize, actions: usize, rows: &[(f64, f64)], weight: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mean: Vec<f64> =
        (0..inputs).map(|k| (0..actions).map(|a| weight(k, a)).sum::<f64>() / actions as f64).collect();
    let largest = rows[..actions].iter().map(|row| row.0).fold(0.0, f64::max);
    let rounded = (actions as f64 + 4.0) * f64::EPSILON * (rows[actions].0 + 2.0 * largest);
    let norm = |a: usize| euclidean((0..inputs).map(|k| weight(k, actions) + (weight(k, a) - mean[k])));
    (0..actions).map(|a| (norm(a) + rounded) * SLACK).collect()
}

impl Workspace {
    /// Makes room for a network.
    pub(super) fn grow(&mut self, width: usize, widest_input: usize) {
        if self.steps.len() < width {
            self.steps.resize(width, 0.0);
        }
        self.split.grow(widest_input);
        let direction = widest_input.next_multiple_of(LANES);
        if self.direction.len() < direction {
            self.direction.resize(direction, 0.0);
        }
    }

    /// Whether there is room for a network.
    pub(super) fn fits(&self, width: usize, widest_input: usize) -> bool {
        self.steps.len() >= width && self.split.room() >= widest_input && self.direction.len() >= widest_input
    }
}

/// What a vector of chains of `terms` fused steps can be off by, where no vector of partial sums has a norm above `sum`.
fn chain_rounding(terms: f64, sum: f64) -> f64 {
    // (1 + u)^n is below 1.005 for the 2^16 inputs that the format permits.
    1.005 * U * terms * sum
}

/// At least the root of a sum of `terms` squares that was computed in f32.
fn root(squares: f32, terms: f64) -> f64 {
    // Underflow takes less than 1e-38 of it.
    ((f64::from(squares) + 1e-38 * (terms + 1.0)) * (1.0 + (terms / LANES as f64 + 8.0) * 2.0 * U)).sqrt() * SLACK
}

/// The least power of two that is at least `value`, a positive number of at most [`LARGEST_STATE`]; at least 2^-40.
fn power_of_two_above(value: f32) -> f32 {
    let exponent = value.max(1.0 / (1_u64 << 40) as f32).to_bits().div_ceil(1 << 23);
    f32::from_bits(exponent << 23)
}

/// A power of two of which `largest` is at most `2^upper_bits`, and no less than 2^-54; `None` for what is too large.
fn step_for(largest: f32, upper_bits: u32) -> Option<f32> {
    (largest <= LARGEST_STATE).then(|| power_of_two_above(largest) / (1_u32 << upper_bits) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_powers_of_two_that_keep_activations_small() {
        let check = |value: f32, expected: f32| assert_eq!(power_of_two_above(value), expected, "{value}");
        check(1.0, 1.0);
        check(1.0 + f32::EPSILON, 2.0);
        check(0.75, 1.0);
        check(3.0, 4.0);
        check(LARGEST_STATE, LARGEST_STATE);
        check(0.0, 1.0 / (1_u64 << 40) as f32);
        check(1e-42, 1.0 / (1_u64 << 40) as f32);
        assert_eq!(step_for(1.0, 10), Some(1.0 / 1024.0));
        assert_eq!(step_for(LARGEST_STATE * 2.0, 10), None);
        assert_eq!(step_for(f32::NAN, 10), None);
    }

    #[test]
    fn a_root_is_never_too_small() {
        for squares in [0.0_f32, 1e-45, 1.0, 3.0, 1e30] {
            assert!(root(squares, 100.0) >= f64::from(squares).sqrt());
        }
    }
}
