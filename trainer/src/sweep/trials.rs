//! Running the trials, spread over threads, and going on with those that an earlier attempt has left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bellwether_artifact::{ArtifactError, Sha256, durable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::space::configured;
use super::{Measure, Settings, SweepConfig};
use crate::config::{ConfigError, TrainConfig};
use crate::evaluate::Evaluation;
use crate::learner::fused::Isa;
use crate::recorded::TrainingError;
use crate::recorded::recordings::Recordings;
use crate::recorded::validation::{Beside, cross_validate};
use crate::run::{self, RunError, RunEvent, RunObserver};

/// One training of one setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Round, from 0.
    pub round: u32,
    /// Number of the setting.
    pub number: usize,
    /// The setting.
    pub settings: Settings,
    /// Seed.
    pub seed: u64,
    /// Gradient steps.
    pub updates: u64,
}

/// What came of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The job.
    pub job: Job,
    /// What decides; null where the data cannot support it.
    pub value: Option<f64>,
    /// True-positive rate at the operating point.
    pub tpr: Option<f64>,
    /// False-positive rate at the operating point.
    pub fpr: Option<f64>,
    /// Share of the harm that is prevented there.
    pub harm_prevented: Option<f64>,
    /// Mean events to the verdict at the operating point.
    pub mean_events: Option<f64>,
    /// Why training diverged, where it did: such a setting is not chosen.
    pub failure: Option<String>,
}

/// A setting among others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Standing {
    /// Number of the setting.
    pub number: usize,
    /// The setting.
    pub settings: Settings,
    /// The last round that it was tried in, from 0.
    pub round: u32,
    /// Gradient steps there.
    pub updates: u64,
    /// Mean over the seeds of what decides; null where one failed or could not be judged.
    pub value: Option<f64>,
    /// Lowest and highest over the seeds.
    pub range: Option<[f64; 2]>,
    /// Mean true-positive and false-positive rate over the seeds.
    pub rates: Option<[f64; 2]>,
}

/// What a sweep tells whoever waits for it.
pub trait Watch: Sync {
    /// So many jobs of a round are done, of all.
    fn done(&self, round: u32, done: usize, of: usize, latest: Option<&Outcome>);
}

/// Why a sweep fails.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The sweep cannot be run.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The folder holds another sweep.
    #[error("{folder} holds a sweep of another configuration or of other data: give another folder, or remove it")]
    Other {
        /// The folder.
        folder: PathBuf,
    },
    /// The data cannot be used.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// Threads cannot be started.
    #[error("threads cannot be started: {0}")]
    Threads(String),
    /// A trial failed for a reason that is not its setting's.
    #[error("trial {number} cannot be judged; the trials that are done are kept")]
    Trial {
        /// Number of the setting.
        number: usize,
        /// Why.
        source: TrainingError,
    },
}

/// What the folder of a sweep says of it.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Terms {
    config: SweepConfig,
    data: Sha256,
}

/// Largest file of a sweep that is read back.
const MOST_BYTES: u64 = 1 << 24;

/// Runs every trial that the folder does not hold yet, and gives the standings: settings that were judged before those that were not,
/// then whoever came to a later round, then the better.
///
/// # Errors
/// See [`SweepError`]. What was done until then is kept, and a later call goes on with it.
pub fn sweep(
    config: &SweepConfig,
    data: &Path,
    folder: &Path,
    threads: usize,
    isa: Isa,
    watch: &dyn Watch,
) -> Result<Vec<Standing>, SweepError> {
    config.validate()?;
    let ground = Ground::new(config, data, folder, isa)?;
    let all = config.settings();
    let mut going: Vec<usize> = (0..all.len()).collect();
    let mut standings: BTreeMap<usize, Standing> = BTreeMap::new();
    let shares = config.shares();
    for (round, share) in (0..).zip(&shares) {
        let jobs: Vec<Job> = going
            .iter()
            .flat_map(|number| (0..config.seeds).map(move |seed| (*number, seed)))
            .map(|(number, seed)| ground.job(round, number, &all[number], seed, *share))
            .collect::<Result<_, _>>()?;
        let count = Mutex::new(0);
        watch.done(round, 0, jobs.len(), None);
        let outcomes = in_turn(&jobs, threads, |job| {
            let outcome = ground.outcome(job)?;
            let mut done = count.lock().unwrap_or_else(PoisonError::into_inner);
            *done += 1;
            watch.done(round, *done, jobs.len(), Some(&outcome));
            Ok(outcome)
        })?;
        for of in outcomes.chunk_by(|a, b| a.job.number == b.job.number) {
            standings.insert(of[0].job.number, standing(of));
        }
        let left = if usize::try_from(round).is_ok_and(|round| round + 1 < shares.len()) { config.keep } else { 1 };
        let mut ranked: Vec<&Standing> = going.iter().filter_map(|number| standings.get(number)).collect();
        ranked.sort_by(|a, b| better(a, b));
        going = ranked.iter().take(ranked.len().div_ceil(left)).map(|standing| standing.number).collect();
        going.sort_unstable();
    }
    let mut all: Vec<Standing> = standings.into_values().collect();
    let is_judged = |standing: &Standing| standing.value.is_some();
    all.sort_by(|a, b| is_judged(b).cmp(&is_judged(a)).then_with(|| b.round.cmp(&a.round)).then_with(|| better(a, b)));
    Ok(all)
}

/// Runs every job, by ascending place, at most `threads` at a time. After the first failure no other is begun.
///
/// Trials have thread pools of their own: a worker of a pool that waited for them would begin other trials in the meantime.
fn in_turn<J: Sync, T: Send>(
    jobs: &[J],
    threads: usize,
    run: impl Fn(&J) -> Result<T, SweepError> + Sync,
) -> Result<Vec<T>, SweepError> {
    let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || -> Result<Vec<(usize, T)>, SweepError> {
        let mut done = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(place) else { break };
            done.push((place, run(job).inspect_err(|_| is_over.store(true, Ordering::Relaxed))?));
        }
        Ok(done)
    };
    let mut all = std::thread::scope(|scope| {
        let begin = |number| std::thread::Builder::new().name(format!("trials-{number}")).spawn_scoped(scope, work);
        let workers: Vec<_> = (0..threads.clamp(1, jobs.len().max(1))).map(begin).collect();
        let mut all = Vec::new();
        for worker in workers {
            let worker = worker.map_err(|error| {
                is_over.store(true, Ordering::Relaxed);
                SweepError::Threads(error.to_string())
            })?;
            all.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok::<_, SweepError>(all)
    })?;
    all.sort_by_key(|(place, _)| *place);
    Ok(all.into_iter().map(|(_, outcome)| outcome).collect())
}

/// The better first; of equals, and of those that could not be judged, the lower number.
fn better(a: &Standing, b: &Standing) -> std::cmp::Ordering {
    let of = |standing: &Standing| standing.value.unwrap_or(f64::NEG_INFINITY);
    of(b).total_cmp(&of(a)).then(a.number.cmp(&b.number))
}

/// What the seeds of a setting say together.
fn standing(outcomes: &[Outcome]) -> Standing {
    let job = &outcomes[0].job;
    let all = |of: fn(&Outcome) -> Option<f64>| outcomes.iter().map(of).collect::<Option<Vec<f64>>>();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let values = all(|outcome| outcome.value);
    Standing {
        number: job.number,
        settings: job.settings.clone(),
        round: job.round,
        updates: job.updates,
        value: values.as_deref().map(mean),
        range: values.map(|values| {
            [values.iter().copied().fold(f64::INFINITY, f64::min), values.into_iter().fold(f64::NEG_INFINITY, f64::max)]
        }),
        rates: all(|outcome| outcome.tpr).zip(all(|outcome| outcome.fpr)).map(|(tpr, fpr)| [mean(&tpr), mean(&fpr)]),
    }
}

/// What came of a job that failed. Only divergence is the setting's own; after anything else it is to be tried again.
fn failed(job: &Job, error: TrainingError) -> Result<Outcome, SweepError> {
    if !error.is_divergence() {
        return Err(SweepError::Trial { number: job.number, source: error });
    }
    Ok(Outcome {
        job: job.clone(),
        value: None,
        tpr: None,
        fpr: None,
        harm_prevented: None,
        mean_events: None,
        failure: Some(run::with_causes(&error)),
    })
}

/// What all jobs share.
struct Ground<'a> {
    config: &'a SweepConfig,
    data: &'a Path,
    folder: &'a Path,
    isa: Isa,
    /// The recordings by the configuration of their windows.
    recordings: Mutex<BTreeMap<String, Arc<Recordings>>>,
}

impl<'a> Ground<'a> {
    /// Takes up a folder: a new one, or one of the same sweep.
    fn new(config: &'a SweepConfig, data: &'a Path, folder: &'a Path, isa: Isa) -> Result<Ground<'a>, SweepError> {
        let terms = Terms { config: config.clone(), data: durable::hash_file(data)?.0 };
        let path = folder.join("sweep.json");
        if path.exists() {
            let begun: Option<Terms> = serde_json::from_slice(&durable::read(&path, MOST_BYTES)?).ok();
            if begun.as_ref() != Some(&terms) {
                return Err(SweepError::Other { folder: folder.to_path_buf() });
            }
        }
        let ground = Ground { config, data, folder, isa, recordings: Mutex::default() };
        // Refused before anything is written: data that cannot teach.
        let recordings = ground.recordings(&config.base)?;
        run::require_both_classes(data, &recordings)?;
        durable::create_folder(&folder.join("trials"))?;
        durable::write(&path, |to| Ok(serde_json::to_writer_pretty(to, &terms)?))?;
        Ok(ground)
    }

    fn job(&self, round: u32, number: usize, settings: &Settings, seed: u64, share: f64) -> Result<Job, SweepError> {
        let config = configured(&self.config.base, settings)?;
        let updates = ((config.trainer.updates as f64 * share).round() as u64).max(1);
        Ok(Job { round, number, settings: settings.clone(), seed: config.seed.wrapping_add(seed), updates })
    }

    /// What came of a job, now or in an earlier attempt.
    fn outcome(&self, job: &Job) -> Result<Outcome, SweepError> {
        let path = self.folder.join(format!("trials/{}-{:04}-{}.json", job.round, job.number, job.seed));
        if path.exists() {
            let outcome: Option<Outcome> = serde_json::from_slice(&durable::read(&path, MOST_BYTES)?).ok();
            if let Some(outcome) = outcome.filter(|outcome| outcome.job == *job) {
                return Ok(outcome);
            }
        }
        let outcome = self.run(job)?;
        durable::write(&path, |to| Ok(serde_json::to_writer_pretty(to, &outcome)?))?;
        Ok(outcome)
    }

    fn run(&self, job: &Job) -> Result<Outcome, SweepError> {
        let mut config = configured(&self.config.base, &job.settings)?;
        (config.seed, config.trainer.updates, config.trainer.threads) = (job.seed, job.updates, 1);
        let recordings = self.recordings(&config)?;
        let folds = self.config.folds;
        let judged = cross_validate(&recordings, &config, folds, Beside::Nothing, self.isa, &mut Silent);
        judged.map(|evaluation| self.judged(job, &evaluation)).or_else(|error| failed(job, error))
    }

    fn judged(&self, job: &Job, evaluation: &Evaluation) -> Outcome {
        let target = self.config.target_fpr;
        let point = evaluation.operating_points.iter().find(|point| point.target_fpr == target);
        let metric = |of: fn(&crate::evaluate::Metrics<Option<f64>>) -> Option<f64>| point.and_then(|p| of(&p.metrics));
        let value = match self.config.measure {
            Measure::HarmPrevented => metric(|metrics| metrics.harm_prevented),
            Measure::Auc => evaluation.oracle.auc,
            Measure::Tpr => evaluation.oracle.tpr_at_fpr.get(&target.to_string()).and_then(|point| point.tpr),
        };
        Outcome {
            job: job.clone(),
            value,
            tpr: metric(|metrics| metrics.tpr),
            fpr: metric(|metrics| metrics.fpr),
            harm_prevented: metric(|metrics| metrics.harm_prevented),
            mean_events: metric(|metrics| metrics.mean_events),
            failure: None,
        }
    }

    /// The recordings in the windows of a configuration, read once for all jobs that share them.
    fn recordings(&self, config: &TrainConfig) -> Result<Arc<Recordings>, SweepError> {
        let key = serde_json::to_string(&config.window).unwrap_or_default();
        let mut all = self.recordings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(recordings) = all.get(&key) {
            return Ok(Arc::clone(recordings));
        }
        let recordings = Arc::new(run::read(self.data, config)?);
        all.insert(key, Arc::clone(&recordings));
        Ok(recordings)
    }
}

/// Trials run side by side, and none of them is watched.
struct Silent;

impl RunObserver for Silent {
    fn seconds(&mut self) -> f64 {
        0.0
    }
    fn event(&mut self, _: RunEvent<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learner::LearnerError;

    fn job() -> Job {
        Job { round: 0, number: 3, settings: Settings::new(), seed: 0, updates: 10 }
    }

    #[test]
    fn divergence_is_the_settings_and_nothing_else_is() {
        let update = |source| TrainingError::Update { network: "fold-1".into(), update: 7, source: Box::new(source) };
        let diverged = || LearnerError::Diverged { what: "loss" };
        let exploded = || LearnerError::Exploded { mean_q: 1e9, max_error: 1e9, largest_reward: 1.0 };
        for error in [update(diverged().into()), update(exploded().into()), diverged().into()] {
            let outcome = failed(&job(), error).unwrap();
            assert_eq!((&outcome.job, outcome.value), (&job(), None));
            assert!(outcome.failure.unwrap().contains("the update diverged"), "the cause is told");
        }
        for source in [
            TrainingError::States("the disk is gone".into()),
            LearnerError::Setting { key: "gamma", value: 2.0, reason: "give 0 to 1" }.into(),
            LearnerError::NotFinite { what: "the states", row: 1 }.into(),
            LearnerError::Unavailable { learner: "burn".into(), reason: "it is not built in".into() }.into(),
        ] {
            let told = source.to_string();
            match failed(&job(), update(source)) {
                Err(SweepError::Trial { number: 3, source }) => assert!(run::with_causes(&source).contains(&told)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn jobs_run_in_turn_and_no_more_at_a_time_than_asked() {
        let places: Vec<usize> = (0..40).collect();
        for threads in [0, 1, 3, 100] {
            let (begun, at_work) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
            let run = |place: &usize| {
                begun.lock().unwrap().push(*place);
                assert!(at_work.fetch_add(1, Ordering::SeqCst) < threads.max(1), "too many of {threads}");
                // Whoever could begin another one in the meantime does it here.
                std::thread::yield_now();
                at_work.fetch_sub(1, Ordering::SeqCst);
                Ok(place + 1)
            };
            assert!(in_turn(&places, threads, run).unwrap().into_iter().eq(1..=40));
            let begun = begun.into_inner().unwrap();
            assert!(threads > 1 || begun == places, "{begun:?}");
        }
        let begun = AtomicUsize::new(0);
        let run = |place: &usize| {
            begun.fetch_add(1, Ordering::SeqCst);
            if *place == 2 { Err(SweepError::Threads("none left".into())) } else { Ok(()) }
        };
        assert!(matches!(in_turn(&places, 1, run), Err(SweepError::Threads(_))));
        assert_eq!(begun.into_inner(), 3, "nothing is begun after a failure");
    }
}
