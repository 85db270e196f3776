//! Estimates from weighted steps. Every sum runs over episodes of any length: beyond its end an episode earns nothing, and its weight
//! stays what it was in the last step.

use crate::evaluate::{Bootstrap, EvaluationError, Interval, percentile_interval};
use crate::streams::stream;
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an estimate needs to know of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrajectoryStep {
    /// Probability of the action under the policy that is judged, over that under the one that played; at least 0.
    pub ratio: f64,
    /// Whether the policy that played could have played whatever the one that is judged may play here. Weights stand for the judged
    /// policy only where it could (Precup et al. 2000).
    pub covered: bool,
    /// What the action earned.
    pub reward: f64,
    /// What a model expects of the action under the policy that is judged.
    pub q: f64,
    /// What it expects of the state: the mean of its q-values by the probabilities of the policy that is judged.
    pub v: f64,
}

/// Episodes, one after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trajectories {
    steps: Vec<TrajectoryStep>,
    /// End of each episode in `steps`, and what the model expects of the state where it was cut off, or 0.
    ends: Vec<(usize, f64)>,
    /// Cluster of each episode.
    clusters: Vec<usize>,
}

/// An estimate of the discounted return of an episode.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Estimate {
    /// The mean; null where no episode, and by per-decision estimates no first step of one, could have been played by the policy that
    /// is judged, and for all that rests on weights
    /// where [`Trust::uncovered`] is not 0.
    pub value: Option<f64>,
    /// 95 % interval by bootstrap over clusters; null with fewer than 5 of them.
    pub ci95: Option<Interval>,
}

/// All estimates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Estimates {
    /// What the played steps earned: the worth of the policy that played.
    pub behaviour: Estimate,
    /// Weighted importance sampling of whole episodes.
    pub weighted_importance: Estimate,
    /// Per-decision importance sampling (Precup et al. 2000): without bias, and of the largest variance. A step to which
    /// no episode was followed adds 0, as every episode does that was not followed there.
    pub per_decision: Estimate,
    /// The same, with weights that sum to one at each step: the consistent weighted form (Thomas 2015, chapter 3). A step to which
    /// no episode was followed has no such weights and is left out: what the judged policy earns from there on is not in the
    /// estimate.
    pub weighted_per_decision: Estimate,
    /// What the model expects of the first states (fitted Q evaluation).
    pub fitted_q: Estimate,
    /// Doubly robust (Jiang and Li 2016): the model, corrected by what was played.
    pub doubly_robust: Estimate,
    /// The same, with weights that sum to one at each step (Thomas and Brunskill 2016).
    pub weighted_doubly_robust: Estimate,
}

/// How far weights leave anything to estimate from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trust {
    /// Episodes.
    pub episodes: u64,
    /// Recordings that they are of: episodes of one name, each played from the same recording, are one cluster.
    pub clusters: u64,
    /// Steps in which something was played.
    pub steps: u64,
    /// Episodes that the policy that is judged could have played.
    pub possible: u64,
    /// Steps that the policy that is judged could have come to, and in which it may do what the one that played never would, for that
    /// left nothing to chance. With one of them, nothing is estimated by weights: they would stand for the episodes in which both
    /// happen to agree.
    pub uncovered: u64,
    /// Clusters that would tell as much if all had the same weight (Kish): `(sum w)^2 / sum w^2`, where `w` is the sum of a cluster.
    pub effective: f64,
    /// Largest share of one cluster in the sum of all weights.
    pub largest_share: f64,
}

impl Estimates {
    /// All with what people call them: what was played first, then the estimates of what would have been.
    pub fn named(&self) -> [(&'static str, Estimate); COUNT] {
        [
            ("what was played", self.behaviour),
            ("weighted importance sampling", self.weighted_importance),
            ("per decision", self.per_decision),
            ("per decision, weighted", self.weighted_per_decision),
            ("fitted Q evaluation", self.fitted_q),
            ("doubly robust", self.doubly_robust),
            ("doubly robust, weighted", self.weighted_doubly_robust),
        ]
    }
}

/// Number of estimates.
const COUNT: usize = 7;

impl Trajectories {
    /// Adds an episode. `cut_off` is what the model expects of the state in which it was cut off, and 0 where it ended by its
    /// rules. Episodes of one `cluster` are not independent of each other, and drawn together; clusters are numbered from 0
    /// without a gap.
    pub fn push(&mut self, cluster: usize, steps: impl IntoIterator<Item = TrajectoryStep>, cut_off: f64) {
        self.steps.extend(steps);
        self.ends.push((self.steps.len(), cut_off));
        self.clusters.push(cluster);
    }

    /// Episodes.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Clusters of the episodes.
    fn cluster_count(&self) -> usize {
        self.clusters.iter().max().map_or(0, |last| last + 1)
    }

    fn episode(&self, number: usize) -> (&[TrajectoryStep], f64) {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before].0);
        let (end, cut_off) = self.ends[number];
        (&self.steps[start..end], cut_off)
    }

    /// All estimates at this discount per step, with intervals by a bootstrap that draws whole clusters (Davison and Hinkley
    /// 1997, section 3.8).
    ///
    /// # Errors
    /// [`EvaluationError::Parameter`] for a number of replicates without tails.
    pub fn estimates(&self, gamma: f64, bootstrap: &Bootstrap) -> Result<Estimates, EvaluationError> {
        bootstrap.validate()?;
        let terms = Terms::new(self, gamma);
        let weighed = self.uncovered() == 0;
        let observed = terms.estimates(&vec![1; self.len()]);
        let mut columns: [Vec<f64>; COUNT] = std::array::from_fn(|_| Vec::new());
        let mut rng = stream(bootstrap.seed, "off-policy");
        let clusters = self.cluster_count();
        let (mut drawn, mut counts) = (vec![0u32; clusters], vec![0u32; self.len()]);
        let enough = clusters >= crate::evaluate::MIN_GROUPS;
        for _ in 0..if enough { bootstrap.replicates } else { 0 } {
            drawn.fill(0);
            for _ in 0..clusters {
                drawn[rng.random_range(0..clusters)] += 1;
            }
            for (count, cluster) in counts.iter_mut().zip(&self.clusters) {
                *count = drawn[*cluster];
            }
            for (column, value) in columns.iter_mut().zip(terms.estimates(&counts)) {
                column.extend(value);
            }
        }
        let mut parts = observed.into_iter().zip(&mut columns).map(|(value, column)| {
            // A replicate in which nothing could be estimated is no evidence of anything, so with many of them there is no interval.
            let trusted = value.is_some() && column.len() as f64 > 0.95 * f64::from(bootstrap.replicates);
            Estimate { value, ci95: if trusted { percentile_interval(column) } else { None } }
        });
        let none = Estimate { value: None, ci95: None };
        let mut next = |known: bool| parts.next().filter(|_| known).unwrap_or(none);
        Ok(Estimates {
            behaviour: next(true),
            weighted_importance: next(weighed),
            per_decision: next(weighed && terms.begun()),
            weighted_per_decision: next(weighed),
            fitted_q: next(true),
            doubly_robust: next(weighed),
            weighted_doubly_robust: next(weighed),
        })
    }

    /// See [`Trust::uncovered`].
    fn uncovered(&self) -> u64 {
        let of = |number: usize| {
            let mut reached = true;
            let steps = self.episode(number).0.iter().filter(|step| {
                let here = reached;
                reached &= step.ratio > 0.0;
                here && !step.covered
            });
            steps.count() as u64
        };
        (0..self.len()).map(of).sum()
    }

    /// How far the estimates are to be trusted.
    pub fn trust(&self) -> Trust {
        let mut weights = vec![0.0; self.cluster_count()];
        let mut possible = 0;
        for (number, cluster) in self.clusters.iter().enumerate() {
            let weight: f64 = self.episode(number).0.iter().map(|step| step.ratio).product();
            possible += u64::from(weight > 0.0);
            weights[*cluster] += weight;
        }
        let (sum, squares) = weights.iter().fold((0.0, 0.0), |(sum, squares), w| (sum + w, squares + w * w));
        let share = |value: f64, of: f64| if of > 0.0 { value / of } else { 0.0 };
        Trust {
            episodes: self.len() as u64,
            clusters: weights.len() as u64,
            steps: self.steps.len() as u64,
            possible,
            uncovered: self.uncovered(),
            effective: share(sum * sum, squares),
            largest_share: share(weights.iter().copied().fold(0.0, f64::max), sum),
        }
    }
}

/// What the estimates sum over episodes, computed once for all replicates.
struct Terms {
    /// By episode.
    episodes: Vec<EpisodeTerms>,
    /// By episode and step, one after the other.
    steps: Vec<StepTerms>,
    /// Steps of the longest episode.
    longest: usize,
}

struct EpisodeTerms {
    /// Its steps, and whether a state follows in which it was cut off.
    len: usize,
    discounted: f64,
    weight: f64,
    per_decision: f64,
    fitted: f64,
    doubly_robust: f64,
}

/// Discounted terms of one step.
#[derive(Clone, Copy)]
struct StepTerms {
    /// Product of the ratios up to this step.
    weight: f64,
    reward: f64,
    /// The reward less what was expected of the action, times the weight.
    surprise: f64,
    /// What was expected of the state, times the weight before the step.
    expected: f64,
}

impl Terms {
    fn new(trajectories: &Trajectories, gamma: f64) -> Terms {
        let mut terms = Terms { episodes: Vec::new(), steps: Vec::new(), longest: 0 };
        for number in 0..trajectories.len() {
            let (steps, cut_off) = trajectories.episode(number);
            let (mut weight, mut discount) = (1.0, 1.0);
            let mut of = EpisodeTerms {
                len: steps.len() + 1,
                discounted: 0.0,
                weight: 1.0,
                per_decision: 0.0,
                fitted: steps.first().map_or(cut_off, |step| step.v),
                doubly_robust: 0.0,
            };
            for step in steps {
                let expected = discount * weight * step.v;
                weight *= step.ratio;
                let (reward, surprise) = (discount * weight * step.reward, discount * weight * (step.reward - step.q));
                of.discounted += discount * step.reward;
                of.per_decision += reward;
                of.doubly_robust += surprise + expected;
                terms.steps.push(StepTerms { weight, reward, surprise, expected });
                discount *= gamma;
            }
            // The state in which an episode was cut off is a step of its own in which nothing is played.
            let expected = discount * weight * cut_off;
            of.doubly_robust += expected;
            of.weight = weight;
            terms.steps.push(StepTerms { weight, reward: 0.0, surprise: 0.0, expected });
            terms.longest = terms.longest.max(of.len);
            terms.episodes.push(of);
        }
        terms
    }

    /// Whether the first step of any episode could have been played.
    fn begun(&self) -> bool {
        let mut start = 0;
        self.episodes.iter().any(|of| {
            let first = self.steps[start].weight;
            start += of.len;
            first > 0.0
        })
    }

    /// The estimates where episode `i` is there `counts[i]` times, in the order of [`Estimates`].
    fn estimates(&self, counts: &[u32]) -> [Option<f64>; COUNT] {
        let total: f64 = counts.iter().map(|count| f64::from(*count)).sum();
        if total == 0.0 {
            return [None; COUNT];
        }
        // By step: the weights of all episodes at it and before it, and what they weigh.
        let mut weights = vec![0.0; self.longest];
        let [mut rewards, mut surprises, mut expected] = [0; 3].map(|_| vec![0.0; self.longest]);
        let mut sums = [0.0; 5];
        let mut start = 0;
        for (of, count) in self.episodes.iter().zip(counts) {
            let steps = &self.steps[start..start + of.len];
            start += of.len;
            if *count == 0 {
                continue;
            }
            let count = f64::from(*count);
            for (t, step) in steps.iter().enumerate() {
                weights[t] += count * step.weight;
                rewards[t] += count * step.reward;
                surprises[t] += count * step.surprise;
                expected[t] += count * step.expected;
            }
            for weight in &mut weights[of.len..] {
                *weight += count * of.weight;
            }
            let parts = [of.discounted, of.weight * of.discounted, of.per_decision, of.fitted, of.doubly_robust];
            for (sum, part) in sums.iter_mut().zip(parts) {
                *sum += count * part;
            }
        }
        let [discounted, weighted, per_decision, fitted, doubly_robust] = sums;
        let last = weights.last().copied().unwrap_or(0.0);
        let possible = last > 0.0;
        // What is known of a step stands, whatever becomes of the episodes later.
        let begun = weights.first().is_some_and(|weight| *weight > 0.0);
        let mut weighted_per_decision = 0.0;
        let mut weighted_doubly_robust = 0.0;
        let mut before = total;
        for t in 0..self.longest {
            // Where no weight is left, no more can be played by the policy that is judged.
            weighted_per_decision += if weights[t] > 0.0 { rewards[t] / weights[t] } else { 0.0 };
            weighted_doubly_robust += if weights[t] > 0.0 { surprises[t] / weights[t] } else { 0.0 };
            weighted_doubly_robust += if before > 0.0 { expected[t] / before } else { 0.0 };
            before = weights[t];
        }
        [
            Some(discounted / total),
            possible.then_some(weighted / last),
            Some(per_decision / total),
            begun.then_some(weighted_per_decision),
            Some(fitted / total),
            Some(doubly_robust / total),
            Some(weighted_doubly_robust),
        ]
    }
}
