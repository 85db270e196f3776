//! The update once more in double precision, as plainly as it can be written.

use crate::case::Case;
use bellwether_trainer::learner::{Answer, Loss, TargetSync};
use bellwether_trainer::network::{NetworkShape, Returns};

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
    forward_to(shape, parameters, state, keep, &mut |_| {})
}

/// The same; each hidden unit is told before it is rectified.
fn forward_to(
    shape: &NetworkShape,
    parameters: &[f64],
    state: &[f64],
    keep: &dyn Fn(usize, usize) -> f64,
    unit: &mut dyn FnMut(f64),
) -> Vec<Vec<f64>> {
    let mut values = vec![state.to_vec()];
    for (l, layer) in shape.layers().enumerate() {
        let input: Vec<f64> = values[l].iter().enumerate().map(|(i, x)| x * keep(l, i)).collect();
        let output = (0..layer.outputs)
            .map(|j| {
                let weights = &parameters[layer.weights.clone()];
                let sum: f64 = (0..layer.inputs).map(|i| input[i] * weights[i * layer.outputs + j]).sum();
                let sum = sum + parameters[layer.bias.start + j];
                if l + 1 == shape.layer_count() {
                    return sum;
                }
                unit(sum);
                sum.max(0.0)
            })
            .collect();
        values[l] = input;
        values.push(output);
    }
    values
}

/// The plain parameters with the noise of noisy layers.
fn with_noise(shape: &NetworkShape, parameters: &[f64], factors: &[f32]) -> Vec<f64> {
    let mut noisy_parameters = parameters[..shape.plain_count()].to_vec();
    let layers: Vec<_> = shape.layers().collect();
    for noisy in shape.noisy() {
        let layer = &layers[noisy.layer];
        let factors = wide(&factors[noisy.factors]);
        for i in 0..=layer.inputs {
            for j in 0..layer.outputs {
                let at = i * layer.outputs + j;
                let left = if i < layer.inputs { factors[i] } else { 1.0 };
                noisy_parameters[layer.weights.start + at] +=
                    parameters[noisy.sigma.start + at] * left * factors[layer.inputs + j];
            }
        }
    }
    noisy_parameters
}

/// What outputs tell about each action: a q-value, quantiles or logits.
fn tell(shape: &NetworkShape, outputs: &[f64]) -> Vec<Vec<f64>> {
    let (actions, atoms) = (shape.actions(), shape.returns().atoms());
    (0..actions)
        .map(|action| {
            let atom = |k: usize| {
                let own = outputs[action * atoms + k];
                if !shape.is_dueling() {
                    return own;
                }
                let mean = (0..actions).map(|a| outputs[a * atoms + k]).sum::<f64>() / actions as f64;
                outputs[actions * atoms + k] + own - mean
            };
            (0..atoms).map(atom).collect()
        })
        .collect()
}

fn softmax(values: &[f64]) -> Vec<f64> {
    let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = values.iter().map(|value| (value - highest).exp()).sum();
    values.iter().map(|value| (value - highest).exp() / sum).collect()
}

/// The values of categorical returns.
fn support(returns: Returns) -> Vec<f64> {
    let Returns::Categorical { atoms, minimum, maximum } = returns else { return Vec::new() };
    let (minimum, maximum) = (f64::from(minimum), f64::from(maximum));
    (0..atoms).map(|k| minimum + (maximum - minimum) * k as f64 / (atoms - 1) as f64).collect()
}

fn mean(returns: Returns, atoms: &[f64]) -> f64 {
    match returns {
        Returns::Categorical { .. } => softmax(atoms).iter().zip(support(returns)).map(|(p, z)| p * z).sum(),
        _ => atoms.iter().sum::<f64>() / atoms.len() as f64,
    }
}

/// The q-values of a state, without noise and drop-out.
pub(crate) fn q_values_of(shape: &NetworkShape, parameters: &[f64], state: &[f64]) -> Vec<f64> {
    q_values(shape, &forward(shape, parameters, state, &|_, _| 1.0).pop().unwrap())
}

/// The q-values that outputs tell.
fn q_values(shape: &NetworkShape, outputs: &[f64]) -> Vec<f64> {
    tell(shape, outputs).iter().map(|atoms| mean(shape.returns(), atoms)).collect()
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

/// The natural logarithm of a policy over the allowed actions, by its logits.
fn log_policy(logits: &[f64], mask: &[bool]) -> Vec<f64> {
    let sum: f64 = logits.iter().zip(mask).filter(|(_, allowed)| **allowed).map(|(logit, _)| logit.exp()).sum();
    logits.iter().map(|logit| logit - sum.ln()).collect()
}

/// Scale of an element under drop-out: 0 or `1 / (1 - rate)`.
fn kept(case: &Case, row: usize, layer: usize, element: usize) -> f64 {
    let rate = f64::from(case.spec.dropout_rate(layer));
    if rate == 0.0 {
        return 1.0;
    }
    f64::from(case.keep[layer][row * case.shape.widths()[layer] + element]) / (1.0 - rate)
}

/// Whether no sum in single precision can tell another gradient than one in double: no hidden unit lies where its slope jumps, and
/// no two actions of a successor are so alike that rounding chooses between them.
pub(crate) fn is_smooth(case: &Case) -> bool {
    const NEAR: f64 = 1e-5;
    let (shape, inputs, actions) = (&case.shape, case.shape.inputs(), case.shape.actions());
    let [online, target] = [(&case.parameters, &case.factors[0]), (&case.target, &case.factors[1])]
        .map(|(parameters, factors)| with_noise(shape, &wide(parameters), factors));
    let mut nearest = f64::INFINITY;
    for (row, state) in case.states.chunks_exact(inputs).enumerate() {
        let keep = |l: usize, i: usize| kept(case, row, l, i);
        forward_to(shape, &online, &wide(state), &keep, &mut |sum| {
            // A unit without inputs is 0 in either precision.
            nearest = if sum == 0.0 { nearest } else { nearest.min(sum.abs()) };
        });
    }
    let judge = if case.spec.double { &online } else { &target };
    for (state, mask) in case.next_states.chunks_exact(inputs).zip(case.next_masks.chunks_exact(actions)) {
        let q = q_values_of(shape, judge, &wide(state));
        let chosen = best(&q, mask);
        let others = (0..actions).filter(|action| mask[*action] && *action != chosen);
        nearest = others.fold(nearest, |nearest, other| nearest.min(q[chosen] - q[other]));
    }
    nearest > NEAR
}

/// The target of an answer: a value, quantiles, or the probabilities of categories.
type Target = Vec<f64>;

/// The targets of all answers.
pub(crate) fn targets(case: &Case) -> Vec<Target> {
    let (shape, inputs, actions) = (&case.shape, case.shape.inputs(), case.shape.actions());
    let returns = shape.returns();
    let online = with_noise(shape, &wide(&case.parameters), &case.factors[0]);
    let target = with_noise(shape, &wide(&case.target), &case.factors[1]);
    let outputs = |parameters: &[f64], states: &[f32], row: usize| {
        forward(shape, parameters, &wide(&states[row * inputs..(row + 1) * inputs]), &|_, _| 1.0).pop().unwrap()
    };
    let one = |answer: &Answer| {
        let mut reward = f64::from(answer.reward);
        if let Some(munchausen) = case.spec.munchausen {
            let row = answer.row as usize;
            let temperature = f64::from(munchausen.temperature);
            let q = q_values(shape, &outputs(&target, &case.states, row));
            let logits: Vec<f64> = q.iter().map(|q| q / temperature).collect();
            let log = log_policy(&logits, &case.masks[row * actions..(row + 1) * actions])[answer.action as usize];
            reward += f64::from(munchausen.alpha) * (temperature * log).clamp(f64::from(munchausen.floor), 0.0);
        }
        // What follows, as values with probabilities.
        let mut samples = vec![(reward, 1.0)];
        if answer.discount != 0.0 {
            let (next, discount) = (answer.next as usize, f64::from(answer.discount));
            let mask = &case.next_masks[next * actions..(next + 1) * actions];
            let told = outputs(&target, &case.next_states, next);
            let (told, q) = (tell(shape, &told), q_values(shape, &told));
            let judge = match case.spec.double {
                true => q_values(shape, &outputs(&online, &case.next_states, next)),
                false => q.clone(),
            };
            let chosen = &told[best(&judge, mask)];
            samples = match (case.spec.munchausen, returns) {
                (Some(munchausen), _) => {
                    let temperature = f64::from(munchausen.temperature);
                    let logits: Vec<f64> = q.iter().map(|q| q / temperature).collect();
                    let log = log_policy(&logits, mask);
                    let value = |k: usize| -> f64 {
                        let allowed = (0..actions).filter(|action| mask[*action]);
                        allowed.map(|a| log[a].exp() * (told[a][k] - temperature * log[a])).sum()
                    };
                    (0..returns.atoms()).map(|k| (reward + discount * value(k), 1.0)).collect()
                }
                (None, Returns::Categorical { .. }) => {
                    let each = support(returns).into_iter().zip(softmax(chosen));
                    each.map(|(z, probability)| (reward + discount * z, probability)).collect()
                }
                (None, _) => chosen.iter().map(|atom| (reward + discount * atom, 1.0)).collect(),
            };
        }
        let support = support(returns);
        if support.is_empty() {
            return samples.into_iter().map(|(value, _)| value).collect();
        }
        // Each category takes what lies near it, less with the distance, up to that of its neighbour.
        let step = support[1] - support[0];
        let near = |z: f64, value: f64| (1.0 - (z - value).abs() / step).max(0.0);
        let clamp = |value: f64| value.clamp(support[0], support[support.len() - 1]);
        let share = |z: &f64| samples.iter().map(|(value, p)| p * near(*z, clamp(*value))).sum();
        support.iter().map(share).collect()
    };
    // Cloning has none.
    if case.spec.loss == Loss::Cloning {
        vec![Vec::new(); case.answers.len()]
    } else {
        case.answers.iter().map(one).collect()
    }
}

/// The error of one answer before its weight, and what its priority is made of.
fn error(case: &Case, answer: &Answer, outputs: &[f64], target: &Target) -> (f64, f64) {
    let (shape, action, actions) = (&case.shape, answer.action as usize, case.shape.actions());
    let told = tell(shape, outputs);
    let (q, atoms) = (q_values(shape, outputs), &told[action]);
    let mask = &case.masks[answer.row as usize * actions..(answer.row as usize + 1) * actions];
    let huber = |error: f64, threshold: f64| match error.abs() > threshold {
        true => threshold * (error.abs() - 0.5 * threshold),
        false => 0.5 * error * error,
    };
    let (mut loss, priority) = match (case.spec.loss, shape.returns()) {
        (Loss::Cloning, _) => {
            let likelihood = -log_policy(&q, mask)[action];
            (likelihood, likelihood)
        }
        (Loss::Mse, _) => (0.5 * (q[action] - target[0]).powi(2), q[action] - target[0]),
        (Loss::Huber(threshold), Returns::Mean) => {
            (huber(q[action] - target[0], f64::from(threshold)), q[action] - target[0])
        }
        (Loss::Huber(threshold), _) => {
            let threshold = f64::from(threshold);
            let mut loss = 0.0;
            for (k, atom) in atoms.iter().enumerate() {
                let share = (2 * k + 1) as f64 / (2 * atoms.len()) as f64;
                for sample in target {
                    let below = if sample - atom < 0.0 { 1.0 } else { 0.0 };
                    loss += (share - below).abs() * huber(sample - atom, threshold) / threshold / target.len() as f64;
                }
            }
            (loss, loss)
        }
        (Loss::CrossEntropy, _) => {
            let log = log_policy(atoms, &vec![true; atoms.len()]);
            let cross: f64 = target.iter().zip(&log).map(|(p, log)| -p * log).sum();
            let entropy: f64 = target.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
            (cross, cross - entropy)
        }
    };
    if case.spec.conservative > 0.0 {
        loss += f64::from(case.spec.conservative) * -log_policy(&q, mask)[action];
    }
    (loss, priority)
}

/// The loss of the online network for fixed targets.
pub(crate) fn loss(case: &Case, parameters: &[f64], targets: &[Target]) -> (f64, Vec<f64>) {
    let inputs = case.shape.inputs();
    let parameters = with_noise(&case.shape, parameters, &case.factors[0]);
    let mut total = 0.0;
    let mut errors = Vec::new();
    for (answer, target) in case.answers.iter().zip(targets) {
        let row = answer.row as usize;
        let state = wide(&case.states[row * inputs..(row + 1) * inputs]);
        let outputs = forward(&case.shape, &parameters, &state, &|l, i| kept(case, row, l, i)).pop().unwrap();
        let (loss, priority) = error(case, answer, &outputs, target);
        total += f64::from(answer.weight) * loss;
        errors.push(priority);
    }
    (total / f64::from(case.spec.normaliser), errors)
}

/// The gradient of [`loss`], answer by answer: by central differences through the last layer's outputs, and by
/// back-propagation before them.
fn gradient(case: &Case, parameters: &[f64], targets: &[Target]) -> Vec<f64> {
    let (shape, inputs) = (&case.shape, case.shape.inputs());
    let layers: Vec<_> = shape.layers().collect();
    let noisy_parameters = with_noise(shape, parameters, &case.factors[0]);
    let mut gradient = vec![0.0; parameters.len()];
    for (answer, target) in case.answers.iter().zip(targets) {
        let row = answer.row as usize;
        let state = wide(&case.states[row * inputs..(row + 1) * inputs]);
        let mut values = forward(shape, &noisy_parameters, &state, &|l, i| kept(case, row, l, i));
        let mut outputs = values.pop().unwrap();
        let weight = f64::from(answer.weight) / f64::from(case.spec.normaliser);
        let mut slopes: Vec<f64> = (0..outputs.len())
            .map(|j| {
                let (here, step) = (outputs[j], 1e-5);
                let mut at = |value: f64| {
                    outputs[j] = value;
                    error(case, answer, &outputs, target).0
                };
                let slope = (at(here + step) - at(here - step)) / (2.0 * step);
                outputs[j] = here;
                weight * slope
            })
            .collect();
        for (l, layer) in layers.iter().enumerate().rev() {
            let mut before = vec![0.0; layer.inputs];
            for (j, slope) in slopes.iter().enumerate() {
                gradient[layer.bias.start + j] += slope;
                for (i, x) in values[l].iter().enumerate() {
                    let weight = layer.weights.start + i * layer.outputs + j;
                    gradient[weight] += slope * x;
                    if *x > 0.0 {
                        before[i] += slope * noisy_parameters[weight] * kept(case, row, l, i);
                    }
                }
            }
            slopes = before;
        }
    }
    for noisy in shape.noisy() {
        let (layer, factors) = (&layers[noisy.layer], wide(&case.factors[0][noisy.factors]));
        for i in 0..=layer.inputs {
            for j in 0..layer.outputs {
                let at = i * layer.outputs + j;
                let left = if i < layer.inputs { factors[i] } else { 1.0 };
                gradient[noisy.sigma.start + at] =
                    gradient[layer.weights.start + at] * left * factors[layer.inputs + j];
            }
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
