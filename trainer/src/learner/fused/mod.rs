//! The fused learner: hand-written forward and backward passes of an MLP on the processor, in `f32`.
//!
//! Its numbers are a function of data and seed alone. Each output of a layer is one chain of fused multiply-adds from
//! the bias through the inputs in index order, as in the decision engine of the runtime; each weight's gradient is one
//! chain from 0 through the rows of the batch. Lanes are outputs and threads split outputs, so instruction set and
//! number of threads do not change a byte. The remaining sums have a fixed order.

mod aligned;
mod forward;
mod head;
mod kernels;
mod networks;
mod worker;

use super::check::{check_parameters, check_state, check_states, check_update};
use super::report::{Fitted, summarise};
use super::{Batch, Learner, LearnerError, LearnerState, Loss, Noise, TargetSync, UpdateReport, UpdateSpec};
use crate::network::{LayerShape, NetworkShape};
use aligned::Aligned;
use bellwether_replay::StateRows;
use kernels::{AdamStep, Decay, Kernels};
use networks::{Networks, follow};
use std::ops::Range;
use worker::{AnswerShare, Worker};

pub use bellwether_inference::Isa;
pub use forward::Forward;

/// Parameters whose squares are summed together for the norm of the gradient: a constant, because it shapes the sum.
const NORM_CHUNK: usize = 4096;
/// Rows of a batch that are handed to a thread together.
const ROW_TILE: usize = 8;
/// Rows that go through the network together where only q-values are asked for.
const FORWARD_ROWS: usize = 256;
/// Larger gradients would overflow their squares in the second moment.
const LARGEST_GRADIENT: f64 = 1e18;

/// How a fused learner computes; neither field changes a byte of what it computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FusedOptions {
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// Threads, at least 1.
    pub threads: usize,
}

impl Default for FusedOptions {
    /// The widest instruction set of this processor, one thread.
    fn default() -> Self {
        FusedOptions { isa: Isa::best(), threads: 1 }
    }
}

/// The fused learner.
pub struct FusedLearner {
    networks: Networks,
    pool: Option<rayon::ThreadPool>,
    first_moment: Aligned,
    second_moment: Aligned,
    gradient: Aligned,
    updates: u64,
    workers: Vec<Worker>,
    /// Where the share of each thread of the gradient begins, and the end.
    cuts: Vec<usize>,
    successors: Vec<f32>,
    fitted: Vec<Fitted>,
    norms: Vec<f64>,
}

/// Runs `rounds` rounds of fused multiply-adds in registers, and gives the number of floating-point operations that these were. Timed,
/// they tell what no kernel of the instruction set can exceed.
///
/// # Errors
/// [`LearnerError::Unsupported`] if the processor lacks the instruction set.
pub fn multiply_adds(isa: Isa, rounds: u64) -> Result<u64, LearnerError> {
    Ok(kernels(isa)?.multiply_adds(rounds))
}

/// The kernels of an instruction set that the processor has.
fn kernels(isa: Isa) -> Result<Kernels, LearnerError> {
    let reason = || format!("this processor has no {}", isa.name());
    Kernels::new(isa).ok_or_else(|| LearnerError::Unsupported { learner: "fused", reason: reason() })
}

/// Runs jobs on the threads of `pool`, or one after the other.
fn each<J: Send>(pool: Option<&rayon::ThreadPool>, jobs: impl Iterator<Item = J>, work: impl Fn(J) + Sync) {
    match pool {
        None => jobs.for_each(work),
        Some(pool) => pool.in_place_scope(|scope| {
            for job in jobs {
                let work = &work;
                scope.spawn(move |_| work(job));
            }
        }),
    }
}

/// Takes the first `count` elements off a slice.
fn take<'a, T>(rest: &mut &'a mut [T], count: usize) -> &'a mut [T] {
    let (taken, left) = std::mem::take(rest).split_at_mut(count);
    *rest = left;
    taken
}

/// The share of thread `t` of `threads` in `rows` rows.
fn share(rows: usize, t: usize, threads: usize) -> Range<usize> {
    let each = rows.div_ceil(threads).next_multiple_of(ROW_TILE);
    (t * each).min(rows)..((t + 1) * each).min(rows)
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

impl FusedLearner {
    /// A learner of a network with these online parameters (and the same target), in canonical layout.
    ///
    /// # Errors
    /// [`LearnerError::Shape`] and [`LearnerError::NotFinite`] on bad parameters, [`LearnerError::Unsupported`] if the
    /// processor lacks the instruction set or the threads cannot be started.
    pub fn new(shape: NetworkShape, parameters: &[f32], options: FusedOptions) -> Result<FusedLearner, LearnerError> {
        let unsupported = |reason| LearnerError::Unsupported { learner: "fused", reason };
        let kernels = kernels(options.isa)?;
        let threads = options.threads.clamp(1, 256);
        let pool = if threads > 1 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            Some(pool.map_err(|error| unsupported(format!("its threads cannot be started: {error}")))?)
        } else {
            None
        };
        check_parameters(&shape, "the parameters", parameters)?;
        let zeros = vec![0.0; parameters.len()];
        let networks = Networks::new(shape, parameters, kernels);
        Ok(FusedLearner {
            cuts: gradient_cuts(&networks.layers, networks.shape.plain_count(), threads),
            workers: std::iter::repeat_with(|| Worker::new(networks.layers.len())).take(threads).collect(),
            first_moment: Aligned::from_slice(&zeros),
            second_moment: Aligned::from_slice(&zeros),
            gradient: Aligned::from_slice(&zeros),
            norms: vec![0.0; parameters.len().div_ceil(NORM_CHUNK)],
            successors: Vec::new(),
            fitted: Vec::new(),
            updates: 0,
            networks,
            pool,
        })
    }

    /// How it computes.
    pub fn options(&self) -> FusedOptions {
        FusedOptions { isa: self.networks.kernels.isa(), threads: self.workers.len() }
    }

    /// The gradient of the last update before clipping, in canonical layout.
    pub fn gradient(&self) -> &[f32] {
        &self.gradient
    }

    /// The first failure among the threads, in their order.
    fn failure(workers: &mut [Worker]) -> Result<(), LearnerError> {
        workers.iter_mut().find_map(|worker| worker.failure.take()).map_or(Ok(()), Err)
    }

    /// Values of the successors, q-values of the states, errors and slopes: all that is split by rows.
    fn passes(&mut self, spec: &UpdateSpec, batch: &Batch<'_>, noise: Noise<'_>) -> Result<(), LearnerError> {
        let shared = self.networks.noisy();
        let (pool, threads, atoms) = (self.pool.as_ref(), self.workers.len(), shared.head.atoms);
        // Cloning has no targets.
        let next_rows = if spec.loss == Loss::Cloning { 0 } else { batch.next_states.len() };
        self.successors.resize(batch.next_states.len() * atoms, 0.0);
        let mut values = self.successors.as_mut_slice();
        let jobs = self.workers.iter_mut().enumerate().map(|(t, worker)| {
            let rows = share(next_rows, t, threads);
            let values = take(&mut values, rows.len() * atoms);
            (worker, rows, values)
        });
        each(pool, jobs, |(worker, rows, values)| {
            worker.failure = worker.successors(shared, batch, spec, rows, values).err();
        });
        Self::failure(&mut self.workers)?;

        let state_rows = batch.states.len();
        self.fitted.resize(batch.answers.len(), Fitted::default());
        let (mut fitted, mut taken) = (self.fitted.as_mut_slice(), 0);
        let successors = self.successors.as_slice();
        let jobs = self.workers.iter_mut().enumerate().map(|(t, worker)| {
            let rows = share(state_rows, t, threads);
            let end = batch.answers.partition_point(|answer| (answer.row as usize) < rows.end);
            let answers = &batch.answers[taken..end];
            taken = end;
            (worker, rows, AnswerShare { answers, fitted: take(&mut fitted, answers.len()) })
        });
        each(pool, jobs, |(worker, rows, share)| {
            let first_row = rows.start;
            worker.failure = worker.states(shared, batch, spec, noise, rows, share.answers).err();
            if worker.failure.is_none() {
                worker.backward(shared, batch, spec, first_row, successors, share);
            }
        });
        Self::failure(&mut self.workers)
    }

    /// The gradient of all parameters, and its Euclidean norm.
    fn differentiate(&mut self, noise: Noise<'_>) -> f64 {
        let shared = self.networks.noisy();
        let (pool, workers) = (self.pool.as_ref(), self.workers.as_slice());
        let (mut rest, _) = self.gradient.split_at_mut(self.networks.shape.plain_count());
        let jobs = self.cuts.windows(2).map(|cut| (cut[0]..cut[1], take(&mut rest, cut[1] - cut[0])));
        each(pool, jobs, |(range, gradient)| {
            for (l, layer) in shared.layers.iter().enumerate() {
                let weights = overlap(&range, &layer.weights);
                let inputs = weights.start.saturating_sub(layer.weights.start) / layer.outputs;
                let inputs = inputs..inputs + weights.len() / layer.outputs;
                if !inputs.is_empty() {
                    let gradient = &mut gradient[weights.start - range.start..weights.end - range.start];
                    for (w, worker) in workers.iter().enumerate() {
                        worker.weight_gradient(shared, l, inputs.clone(), w == 0, gradient);
                    }
                }
                let bias = overlap(&range, &layer.bias);
                if !bias.is_empty() {
                    let gradient = &mut gradient[bias.start - range.start..bias.end - range.start];
                    gradient.fill(0.0);
                    for worker in workers {
                        worker.bias_gradient(shared, l, gradient);
                    }
                }
            }
        });
        self.networks.noise_slopes(noise.online, &mut self.gradient);
        let per_thread = self.norms.len().div_ceil(workers.len());
        let jobs = self.norms.chunks_mut(per_thread).zip(self.gradient.chunks(per_thread * NORM_CHUNK));
        each(pool, jobs, |(norms, gradient)| {
            for (norm, chunk) in norms.iter_mut().zip(gradient.chunks(NORM_CHUNK)) {
                *norm = shared.kernels.sum_of_squares(chunk);
            }
        });
        self.norms.iter().sum::<f64>().sqrt()
    }

    /// One step of Adam or AdamW, and the target network after it.
    fn step(&mut self, spec: &UpdateSpec, clip: f32) {
        self.updates += 1;
        let (beta1, beta2, t) = (f64::from(spec.beta1), f64::from(spec.beta2), self.updates as f64);
        let step = AdamStep {
            clip,
            beta2: spec.beta2,
            one_minus_beta1: (1.0 - beta1) as f32,
            one_minus_beta2: (1.0 - beta2) as f32,
            step_size: (f64::from(spec.learning_rate) / (1.0 - libm::pow(beta1, t))) as f32,
            root_correction: (1.0 / (1.0 - libm::pow(beta2, t)).sqrt()) as f32,
            epsilon: spec.epsilon,
        };
        let factor = (1.0 - f64::from(spec.learning_rate) * f64::from(spec.weight_decay)) as f32;
        let (weights, others) = (Decay { l2: spec.l2, factor }, Decay { l2: 0.0, factor: 1.0 });
        let Networks { kernels, shape, layers, online, target, .. } = &mut self.networks;
        let kernels = *kernels;
        let (shape, layers) = (&*shape, layers.as_slice());
        let parts = || {
            let plain = layers.iter().flat_map(|layer| [(&layer.weights, weights), (&layer.bias, others)]);
            plain.map(|(part, decay)| (part.clone(), decay)).chain(shape.noisy().map(|noisy| (noisy.sigma, others)))
        };
        let size = self.gradient.len().div_ceil(self.workers.len()).next_multiple_of(NORM_CHUNK);
        let jobs = self
            .gradient
            .chunks(size)
            .zip(online.chunks_mut(size).zip(target.chunks_mut(size)))
            .zip(self.first_moment.chunks_mut(size).zip(self.second_moment.chunks_mut(size)))
            .enumerate();
        each(self.pool.as_ref(), jobs, |(i, ((gradient, (online, target)), (first, second)))| {
            let range = i * size..i * size + gradient.len();
            for (part, decay) in parts() {
                let part = overlap(&range, &part);
                if !part.is_empty() {
                    let at = part.start - range.start..part.end - range.start;
                    let (first, second) = (&mut first[at.clone()], &mut second[at.clone()]);
                    kernels.adam(step, decay, &gradient[at.clone()], &mut online[at], first, second);
                }
            }
            follow(kernels, spec.target_sync, online, target);
        });
    }
}

/// Splits the plain parameters among threads at the weights of a whole input.
fn gradient_cuts(layers: &[LayerShape], parameters: usize, threads: usize) -> Vec<usize> {
    let mut cuts = vec![0];
    for t in 1..threads {
        let wanted = parameters * t / threads;
        let cut = layers.iter().find(|layer| wanted < layer.bias.end).map_or(parameters, |layer| {
            let inputs = (wanted - layer.weights.start) / layer.outputs / ROW_TILE * ROW_TILE;
            layer.weights.start + inputs.min(layer.inputs) * layer.outputs
        });
        cuts.push(cut);
    }
    cuts.push(parameters);
    cuts
}

impl Learner for FusedLearner {
    fn name(&self) -> &'static str {
        "fused"
    }

    fn supports(&self, spec: &UpdateSpec) -> Result<(), LearnerError> {
        spec.validate(&self.networks.shape)
    }

    fn update(
        &mut self,
        spec: &UpdateSpec,
        batch: Batch<'_>,
        noise: Noise<'_>,
        errors: &mut Vec<f32>,
    ) -> Result<UpdateReport, LearnerError> {
        check_update(spec, &self.networks.shape, &batch, &noise)?;
        self.networks.apply(noise);
        self.passes(spec, &batch, noise)?;
        errors.clear();
        errors.extend(self.fitted.iter().map(|fitted| fitted.error));

        let report = summarise(spec, batch.answers, &self.fitted)?;
        let norm = self.differentiate(noise);
        let limit = f64::from(spec.max_gradient_norm);
        let clip = if norm > limit { limit / (norm + 1e-6) } else { 1.0 };
        if !(norm.is_finite() && norm * clip <= LARGEST_GRADIENT) {
            return Err(LearnerError::Diverged { what: "gradient" });
        }
        self.step(spec, clip as f32);
        Ok(UpdateReport { gradient_norm: norm as f32, ..report })
    }

    fn sync_target(&mut self, sync: TargetSync) -> Result<(), LearnerError> {
        sync.validate()?;
        self.networks.follow(sync);
        Ok(())
    }

    fn q_values(&mut self, states: &dyn StateRows, factors: &[f32], out: &mut Vec<f32>) -> Result<(), LearnerError> {
        check_states(&self.networks.shape, states, factors)?;
        self.networks.apply_online(factors);
        let shared = if factors.is_empty() { self.networks.plain() } else { self.networks.noisy() };
        let (rows, actions, threads) = (states.len(), shared.head.actions, self.workers.len());
        out.resize(rows * actions, 0.0);
        let mut rest = out.as_mut_slice();
        let jobs = self.workers.iter_mut().enumerate().map(|(t, worker)| {
            let rows = share(rows, t, threads);
            let out = take(&mut rest, rows.len() * actions);
            (worker, rows, out)
        });
        each(self.pool.as_ref(), jobs, |(worker, rows, out)| {
            let chunks = rows.clone().step_by(FORWARD_ROWS).zip(out.chunks_mut(FORWARD_ROWS * actions));
            worker.failure = chunks
                .map(|(start, out)| worker.q_values(shared, states, start..rows.end.min(start + FORWARD_ROWS), out))
                .find_map(Result::err);
        });
        Self::failure(&mut self.workers)
    }

    fn shape(&self) -> &NetworkShape {
        &self.networks.shape
    }

    fn parameters(&self) -> &[f32] {
        &self.networks.online
    }

    fn target(&self) -> &[f32] {
        &self.networks.target
    }

    fn state(&self) -> LearnerState {
        LearnerState {
            online: self.networks.online.to_vec(),
            target: self.networks.target.to_vec(),
            first_moment: self.first_moment.to_vec(),
            second_moment: self.second_moment.to_vec(),
            updates: self.updates,
        }
    }

    fn restore(&mut self, state: &LearnerState) -> Result<(), LearnerError> {
        check_state(&self.networks.shape, state)?;
        self.networks.online.copy_from_slice(&state.online);
        self.networks.target.copy_from_slice(&state.target);
        self.first_moment.copy_from_slice(&state.first_moment);
        self.second_moment.copy_from_slice(&state.second_moment);
        self.updates = state.updates;
        Ok(())
    }
}
