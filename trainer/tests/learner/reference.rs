//! The update once more in double precision, as plainly as it can be written.

use crate::case::Case;
use bellwether_trainer::learner::{Loss, TargetSync};
use bellwether_trainer::network::NetworkShape;

/// What one update gives, in double precision.
pub(crate) struct Updated {
    pub(crate) loss: f64,
    pub(crate) errors: Vec<f64>,
    pub(crate) gradient: Vec<f64>,
    pub(crate) parameters: Vec<f64>,
    pub(crate) target: Vec<f64>,
    pub(crate) first_moment: Vec<f64>,
    pub(crate) second_moment: Vec<f64>,
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// The inputs of all layers and the output for one row; `keep(layer, element)` scales the inputs.
fn forward(
    shape: &NetworkShape,
    parameters: &[f64],
    state: &[f64],
    keep: &dyn Fn(usize, usize) -> f64,
) -> Vec<Vec<f64>> {
    let mut values = vec![state.to_vec()];
    for (l, layer) in shape.layers().enumerate() {
        let input: Vec<f64> = values[l].iter().enumerate().map(|(i, x)| x * keep(l, i)).collect();
        let output = (0..layer.outputs)
            .map(|j| {
                let weights = &parameters[layer.weights.clone()];
                let sum: f64 = (0..layer.inputs).map(|i| input[i] * weights[i * layer.outputs + j]).sum();
                let sum = sum + parameters[layer.bias.start + j];
                if l + 1 < shape.layer_count() { sum.max(0.0) } else { sum }
            })
            .collect();
        values[l] = input;
        values.push(output);
    }
    values
}

fn best(q: &[f64], mask: &[bool]) -> usize {
    let mut best = None;
    for (a, _) in mask.iter().enumerate().filter(|(_, allowed)| **allowed) {
        if best.is_none_or(|b: usize| q[a] > q[b]) {
            best = Some(a);
        }
    }
    best.unwrap()
}

/// Scale of an element under drop-out: 0 or `1 / (1 - rate)`.
fn kept(case: &Case, row: usize, layer: usize, element: usize) -> f64 {
    let rate = f64::from(case.spec.dropout_rate(layer));
    if rate == 0.0 {
        return 1.0;
    }
    f64::from(case.keep[layer][row * case.shape.widths()[layer] + element]) / (1.0 - rate)
}

/// The targets of all answers.
pub(crate) fn targets(case: &Case) -> Vec<f64> {
    let (inputs, actions) = (case.shape.inputs(), case.shape.outputs());
    let q = |parameters: &[f32], next: usize| {
        let state = wide(&case.next_states[next * inputs..(next + 1) * inputs]);
        forward(&case.shape, &wide(parameters), &state, &|_, _| 1.0).pop().unwrap()
    };
    case.answers
        .iter()
        .map(|answer| {
            if answer.discount == 0.0 {
                return f64::from(answer.reward);
            }
            let next = answer.next as usize;
            let mask = &case.next_masks[next * actions..(next + 1) * actions];
            let value = q(&case.target, next);
            let chosen = if case.spec.double { best(&q(&case.parameters, next), mask) } else { best(&value, mask) };
            f64::from(answer.reward) + f64::from(answer.discount) * value[chosen]
        })
        .collect()
}

/// The loss of the online network for fixed targets.
pub(crate) fn loss(case: &Case, parameters: &[f64], targets: &[f64]) -> (f64, Vec<f64>) {
    let inputs = case.shape.inputs();
    let mut total = 0.0;
    let mut errors = Vec::new();
    for (answer, target) in case.answers.iter().zip(targets) {
        let row = answer.row as usize;
        let state = wide(&case.states[row * inputs..(row + 1) * inputs]);
        let q = forward(&case.shape, parameters, &state, &|l, i| kept(case, row, l, i)).pop().unwrap();
        let error = q[answer.action as usize] - target;
        total += f64::from(answer.weight)
            * match case.spec.loss {
                Loss::Huber(d) if error.abs() > f64::from(d) => f64::from(d) * (error.abs() - 0.5 * f64::from(d)),
                _ => 0.5 * error * error,
            };
        errors.push(error);
    }
    (total / f64::from(case.spec.normaliser), errors)
}

/// The gradient of [`loss`] by back-propagation, answer by answer.
fn gradient(case: &Case, parameters: &[f64], targets: &[f64]) -> Vec<f64> {
    let (shape, inputs) = (&case.shape, case.shape.inputs());
    let layers: Vec<_> = shape.layers().collect();
    let mut gradient = vec![0.0; parameters.len()];
    for (answer, target) in case.answers.iter().zip(targets) {
        let row = answer.row as usize;
        let state = wide(&case.states[row * inputs..(row + 1) * inputs]);
        let values = forward(shape, parameters, &state, &|l, i| kept(case, row, l, i));
        let error = values[layers.len()][answer.action as usize] - target;
        let slope = match case.spec.loss {
            Loss::Mse => error,
            Loss::Huber(d) => error.clamp(-f64::from(d), f64::from(d)),
        };
        let mut slopes = vec![0.0; shape.outputs()];
        slopes[answer.action as usize] = f64::from(answer.weight) * slope / f64::from(case.spec.normaliser);
        for (l, layer) in layers.iter().enumerate().rev() {
            let mut before = vec![0.0; layer.inputs];
            for (j, slope) in slopes.iter().enumerate() {
                gradient[layer.bias.start + j] += slope;
                for (i, x) in values[l].iter().enumerate() {
                    let weight = layer.weights.start + i * layer.outputs + j;
                    gradient[weight] += slope * x;
                    if *x > 0.0 {
                        before[i] += slope * parameters[weight] * kept(case, row, l, i);
                    }
                }
            }
            slopes = before;
        }
    }
    gradient
}

/// Applies updates with the same batch, as often as `updates` says.
pub(crate) fn updates(case: &Case, updates: u32) -> Updated {
    let mut case = case.clone();
    let count = case.parameters.len();
    let spec = case.spec.clone();
    let mut parameters = wide(&case.parameters);
    let mut target = wide(&case.target);
    let (mut first_moment, mut second_moment) = (vec![0.0; count], vec![0.0; count]);
    let mut is_weight = vec![false; count];
    for layer in case.shape.layers() {
        is_weight[layer.weights].fill(true);
    }
    let mut last = None;
    for t in 1..=updates as i32 {
        let goals = targets(&case);
        let (loss, errors) = loss(&case, &parameters, &goals);
        let gradient = gradient(&case, &parameters, &goals);
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let clip = (f64::from(spec.max_gradient_norm) / (norm + 1e-6)).min(1.0);
        let (rate, beta1, beta2) = (f64::from(spec.learning_rate), f64::from(spec.beta1), f64::from(spec.beta2));
        for p in 0..count {
            let mut g = gradient[p] * clip;
            if is_weight[p] {
                g += f64::from(spec.l2) * parameters[p];
                parameters[p] *= 1.0 - rate * f64::from(spec.weight_decay);
            }
            first_moment[p] = beta1 * first_moment[p] + (1.0 - beta1) * g;
            second_moment[p] = beta2 * second_moment[p] + (1.0 - beta2) * g * g;
            let m = first_moment[p] / (1.0 - beta1.powi(t));
            let v = second_moment[p] / (1.0 - beta2.powi(t));
            parameters[p] -= rate * m / (v.sqrt() + f64::from(spec.epsilon));
        }
        match spec.target_sync {
            TargetSync::Keep => {}
            TargetSync::Hard => target.clone_from(&parameters),
            TargetSync::Soft(tau) => {
                for (target, online) in target.iter_mut().zip(&parameters) {
                    *target += f64::from(tau) * (online - *target);
                }
            }
        }
        case.parameters = parameters.iter().map(|p| *p as f32).collect();
        case.target = target.iter().map(|p| *p as f32).collect();
        last = Some((loss, errors, gradient));
    }
    let (loss, errors, gradient) = last.unwrap();
    Updated { loss, errors, gradient, parameters, target, first_moment, second_moment }
}
