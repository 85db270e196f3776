//! Targets and errors, as the papers have them. Each line of a matrix is one answer, or one successor where it says so.

use super::library::{Library, Tensor};
use super::network::{Matrix, Network, Told, log_policy, log_softmax, support};
use crate::learner::{Answer, Batch, Loss, UpdateSpec};
use crate::network::Returns;

/// A batch on the device.
pub(super) struct Questions<L: Library> {
    pub(super) states: Matrix<L>,
    pub(super) state_rows: usize,
    /// The row of each answer; none where they are one after the other.
    rows: Option<L::Rows>,
    /// 1 at the action of the answer, `[answers, actions]`.
    played: Matrix<L>,
    /// 1 at the allowed actions of its state, `[answers, actions]`; of all where nothing depends on them.
    allowed: Matrix<L>,
    reward: Matrix<L>,
    discount: Matrix<L>,
    pub(super) weight: Matrix<L>,
    pub(super) answers: usize,
    next: Option<Successors<L>>,
}

/// The states that answers lead to.
struct Successors<L: Library> {
    states: Matrix<L>,
    rows: usize,
    /// 1 at their allowed actions, `[rows, actions]`.
    allowed: Matrix<L>,
    /// The successor of each answer; any where it has none.
    of_answer: L::Rows,
}

/// What became of the answers, `[answers, 1]` each.
pub(super) struct Errors<L: Library> {
    /// Error before its weight.
    pub(super) loss: Matrix<L>,
    /// What the priority is made of.
    pub(super) error: Matrix<L>,
    /// The q-value.
    pub(super) value: Matrix<L>,
    /// The mean of the target.
    pub(super) target: Matrix<L>,
}

fn flags(values: impl IntoIterator<Item = bool>) -> Vec<f32> {
    values.into_iter().map(|value| f32::from(u8::from(value))).collect()
}

/// Flags of which one at least is set in each row: nobody asks for the value of a row that allows nothing.
fn masks(masks: &[bool], actions: usize) -> Vec<f32> {
    let rows = masks.chunks_exact(actions);
    flags(rows.flat_map(|mask| {
        let none = !mask.contains(&true);
        mask.iter().map(move |allowed| *allowed || none)
    }))
}

impl<L: Library> Questions<L> {
    /// A valid batch whose states and successors were gathered; the latter are empty where nothing asks for them.
    pub(super) fn new(
        library: &L,
        network: &Network,
        spec: &UpdateSpec,
        batch: &Batch<'_>,
        states: &[f32],
        next_states: &[f32],
    ) -> Questions<L> {
        let (inputs, actions) = (network.shape.inputs(), network.shape.actions());
        let answers = batch.answers.len();
        let column =
            |of: fn(&Answer) -> f32| library.tensor(&batch.answers.iter().map(of).collect::<Vec<_>>(), [answers, 1]);
        let in_turn =
            answers == batch.states.len() && batch.answers.iter().map(|answer| answer.row).eq(0..answers as u32);
        let rows: Vec<u32> = batch.answers.iter().map(|answer| answer.row).collect();
        let played = batch.answers.iter().flat_map(|answer| (0..actions).map(|a| a == answer.action as usize));
        let allowed = if spec.needs_masks() {
            let mask = |answer: &Answer| &batch.masks[answer.row as usize * actions..][..actions];
            flags(batch.answers.iter().flat_map(mask).copied())
        } else {
            vec![1.0; answers * actions]
        };
        let next = (!next_states.is_empty()).then(|| {
            let rows = batch.next_states.len();
            let next = |answer: &Answer| if answer.discount == 0.0 { 0 } else { answer.next };
            Successors {
                states: library.tensor(next_states, [rows, inputs]),
                rows,
                allowed: library.tensor(&masks(batch.next_masks, actions), [rows, actions]),
                of_answer: library.rows(&batch.answers.iter().map(next).collect::<Vec<_>>()),
            }
        });
        Questions {
            states: library.tensor(states, [batch.states.len(), inputs]),
            state_rows: batch.states.len(),
            rows: (!in_turn).then(|| library.rows(&rows)),
            played: library.tensor(&flags(played), [answers, actions]),
            allowed: library.tensor(&allowed, [answers, actions]),
            reward: column(|answer| answer.reward),
            discount: column(|answer| answer.discount),
            weight: column(|answer| answer.weight),
            answers,
            next,
        }
    }

    /// What the outputs for the states tell, one row for each answer.
    fn tell(&self, library: &L, network: &Network, outputs: Matrix<L>) -> Told<L> {
        let outputs = match &self.rows {
            Some(rows) => L::take(outputs, rows),
            None => outputs,
        };
        network.tell(library, outputs, self.answers)
    }

    /// The value at the action of the answer.
    fn of_played(&self, values: Matrix<L>) -> Matrix<L> {
        values.only(self.played.clone(), 0.0).sum_along(1)
    }

    /// The negative logarithm of the probability of the action, q-values being the logits of a policy.
    fn surprise(&self, q: Matrix<L>) -> Matrix<L> {
        self.of_played(log_policy(1.0, q, self.allowed.clone())) * -1.0
    }

    /// The targets of all answers, `[answers, atoms]`: values, or for categorical returns the probabilities of the categories.
    /// `online` and `target` are networks with their noise.
    pub(super) fn targets(
        &self,
        library: &L,
        network: &Network,
        spec: &UpdateSpec,
        online: &[[Matrix<L>; 2]],
        target: &[[Matrix<L>; 2]],
    ) -> Matrix<L> {
        let returns = network.shape.returns();
        let atoms = returns.atoms();
        let mut reward = self.reward.clone();
        if let Some(munchausen) = spec.munchausen {
            let outputs = network.outputs::<L>(target, self.states.clone(), &[]);
            let q = self.tell(library, network, outputs).q;
            let log = self.of_played(log_policy(munchausen.temperature, q, self.allowed.clone()));
            reward = reward + log.clamp(munchausen.floor, 0.0) * munchausen.alpha;
        }
        let value = match &self.next {
            // All answers end, so that any value will do.
            None => library.tensor(&vec![1.0 / atoms as f32; self.answers * atoms], [self.answers, atoms]),
            Some(next) => L::take(next.values(library, network, spec, online, target), &next.of_answer),
        };
        match returns {
            Returns::Categorical { .. } => {
                project(library, returns, reward, self.discount.clone(), value, self.answers)
            }
            Returns::Mean | Returns::Quantiles(_) => reward + self.discount.clone() * value,
        }
    }

    /// The errors of the answers by the outputs of the online network for the states; cloning asks for no targets.
    pub(super) fn errors(
        &self,
        library: &L,
        network: &Network,
        spec: &UpdateSpec,
        outputs: Matrix<L>,
        targets: Option<Matrix<L>>,
    ) -> Errors<L> {
        let told = self.tell(library, network, outputs);
        let value = self.of_played(told.q.clone());
        let Some(targets) = targets else {
            let surprise = self.surprise(told.q);
            return Errors { loss: surprise.clone(), error: surprise, value: value.clone(), target: value };
        };
        let (returns, actions, count) = (network.shape.returns(), network.shape.actions(), self.answers);
        let atoms = returns.atoms();
        let played: L::Tensor<3> = L::reshape(self.played.clone(), [count, actions, 1]);
        let own: Matrix<L> = L::reshape(told.atoms.only(played, 0.0).sum_along(1), [count, atoms]);
        let mut errors = match returns {
            Returns::Mean => {
                let error = own - targets.clone();
                let loss = match spec.loss {
                    Loss::Huber(threshold) => huber(error.clone(), threshold),
                    _ => error.clone() * error.clone() * 0.5,
                };
                Errors { loss, error, value, target: targets }
            }
            Returns::Quantiles(_) => {
                // Dabney et al. 2018, equation 10, divided by the threshold as there.
                let threshold = if let Loss::Huber(threshold) = spec.loss { threshold } else { 1.0 };
                let shares: Vec<f32> = (0..atoms).map(|k| (k as f32 + 0.5) / atoms as f32).collect();
                let shares = library.tensor(&shares, [1, atoms, 1]);
                let own: L::Tensor<3> = L::reshape(own, [count, atoms, 1]);
                let samples: L::Tensor<3> = L::reshape(targets.clone(), [count, 1, atoms]);
                let gaps = samples - own;
                let below = gaps.clone().below_zero();
                // |share - below|, for `below` is 0 or 1.
                let weight = shares.clone() + below * (shares * -2.0 + 1.0);
                let each = (weight * huber(gaps, threshold)).sum_along(2) * (1.0 / (atoms as f32 * threshold));
                let loss: Matrix<L> = L::reshape(each.sum_along(1), [count, 1]);
                let target = targets.sum_along(1) * (1.0 / atoms as f32);
                Errors { loss: loss.clone(), error: loss, value, target }
            }
            Returns::Categorical { .. } => {
                let cross = (targets.clone() * log_softmax(own, 1)).sum_along(1) * -1.0;
                let entropy =
                    (targets.clone() * targets.clone().clamp(f32::MIN_POSITIVE, 1.0).ln()).sum_along(1) * -1.0;
                let divergence = (cross.clone() - entropy).relu();
                let support = library.tensor(&support(returns), [1, atoms]);
                Errors { loss: cross, error: divergence, value, target: (targets * support).sum_along(1) }
            }
        };
        if spec.conservative > 0.0 {
            errors.loss = errors.loss + self.surprise(told.q) * spec.conservative;
        }
        errors
    }
}

impl<L: Library> Successors<L> {
    /// What each successor is worth, `[rows, atoms]`, categories by their probabilities.
    fn values(
        &self,
        library: &L,
        network: &Network,
        spec: &UpdateSpec,
        online: &[[Matrix<L>; 2]],
        target: &[[Matrix<L>; 2]],
    ) -> Matrix<L> {
        let (actions, atoms) = (network.shape.actions(), network.shape.returns().atoms());
        let told = |layers: &[[Matrix<L>; 2]]| {
            network.tell(library, network.outputs::<L>(layers, self.states.clone(), &[]), self.rows)
        };
        let each = |values: Matrix<L>| -> L::Tensor<3> { L::reshape(values, [self.rows, actions, 1]) };
        let Told { atoms: told_atoms, q } = told(target);
        // What is not finite must not hide behind a better action: it comes back from here as no number.
        let mut strain = q.clone().only(self.allowed.clone(), 0.0).sum_along(1) * 0.0;
        let value = if let Some(munchausen) = spec.munchausen {
            let log = log_policy(munchausen.temperature, q, self.allowed.clone());
            let policy = (log.clone() * (1.0 / munchausen.temperature)).exp();
            let soft = told_atoms - each(log);
            (each(policy) * soft).only(each(self.allowed.clone()), 0.0).sum_along(1)
        } else {
            let judge = if spec.double { told(online).q } else { q };
            strain = strain + judge.clone().only(self.allowed.clone(), 0.0).sum_along(1) * 0.0;
            let best = first_best(library, judge, self.allowed.clone(), actions);
            told_atoms.only(each(best), 0.0).sum_along(1)
        };
        let value: Matrix<L> = L::reshape(value, [self.rows, atoms]);
        let value = match network.shape.returns() {
            Returns::Categorical { .. } => log_softmax(value, 1).exp(),
            Returns::Mean | Returns::Quantiles(_) => value,
        };
        value + strain
    }
}

/// 1 at the best allowed action of each row, the lowest number among equals.
fn first_best<L: Library>(library: &L, values: Matrix<L>, allowed: Matrix<L>, actions: usize) -> Matrix<L> {
    let precedence: Vec<f32> = (0..actions).map(|action| (actions - action) as f32).collect();
    let values = values.only(allowed, f32::MIN);
    let best = values.clone().equals(values.max_along(1)) * library.tensor(&precedence, [1, actions]);
    best.clone().equals(best.max_along(1))
}

/// Huber's error: half the square up to the threshold, a line of that slope beyond.
fn huber<const D: usize, T: Tensor<D>>(error: T, threshold: f32) -> T {
    let bounded = error.clone().clamp(-threshold, threshold);
    bounded.clone() * (error - bounded * 0.5)
}

/// Projects `reward + discount * z` on the categories `z`: each takes what lies near it, less with the distance, and what lies
/// beyond the ends counts as the end (Bellemare et al. 2017, equation 7).
fn project<L: Library>(
    library: &L,
    returns: Returns,
    reward: Matrix<L>,
    discount: Matrix<L>,
    probabilities: Matrix<L>,
    answers: usize,
) -> Matrix<L> {
    let Returns::Categorical { atoms, minimum, maximum } = returns else { return probabilities };
    let per_step = (atoms - 1) as f32 / (maximum - minimum);
    let values = reward + discount * library.tensor(&support(returns), [1, atoms]);
    let places = (values.clamp(minimum, maximum) - minimum) * per_step;
    let places: L::Tensor<3> = L::reshape(places, [answers, 1, atoms]);
    let categories: Vec<f32> = (0..atoms).map(|k| k as f32).collect();
    let distances = (places - library.tensor(&categories, [1, atoms, 1])).abs();
    let shares = (distances * -1.0 + 1.0).relu();
    let probabilities: L::Tensor<3> = L::reshape(probabilities, [answers, 1, atoms]);
    L::reshape((shares * probabilities).sum_along(2), [answers, atoms])
}
