//! Trains every published variant of DQN on a task, several seeds each, and prints a table in Markdown.
//!
//! `cargo run --release -p bellwether-trainer --example ablations -- cart_pole|acrobot|mountain_car|lander|recordings [SEEDS] [VARIANT]...`
//!
//! A run evaluates its greedy policy every 2,500 steps on 20 episodes; 100 other episodes then judge the network that was best and
//! the last one. On the recordings that ship, at the cost `c = 1` of a false positive, a seed draws which families are learnt from, which choose the
//! network and which judge it, and there are 200 and 1,000 episodes, half of them malicious; the last line is what `bellwether train` makes of the
//! same families, to which recordings answer about every action. A line gives the interquartile mean over the seeds,
//! with a 95 % interval by bootstrap (Agarwal et al. 2021), and the time of a run. One run takes one thread, and the seeds of a
//! variant run beside each other.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bellwether_env_adapter::ingest::{DigestSink, Shares, SplitBy, SplitSink, TelemetryReader, assign};
use bellwether_env_adapter::recorded::{Collector, RecordedEnvironment, RecordedOptions};
use bellwether_env_adapter::{ACTION_COUNT, Environment, EventSink, Windower};
use bellwether_trainer::config::TrainConfig;
use bellwether_trainer::control::{Acrobot, CartPole, Lander, MountainCar};
use bellwether_trainer::dqn::{DqnConfig, DqnEvent, DqnTrainer, Selection, UpdateConfig, Variant, evaluate_greedy};
use bellwether_trainer::learner::fused::{FusedLearner, FusedOptions};
use bellwether_trainer::recorded::recordings::Recorder;
use bellwether_trainer::recorded::training::Training;
use bellwether_trainer::streams::stream;
use rand::Rng;
use rayon::prelude::*;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The recordings that ship.
const RECORDINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../corpus/recordings.parquet");

/// What is learnt, and how.
struct Task<E, Parts: Fn(u64) -> Result<[E; 3], Failure>> {
    recipe: DqnConfig,
    /// The smallest and the largest return, for categories.
    returns: [f32; 2],
    /// Episodes that choose the best network, and that judge it.
    episodes: [usize; 2],
    /// Where a seed learns, chooses and is judged.
    parts: Parts,
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let task = arguments.next().unwrap_or_else(|| "cart_pole".to_owned());
    let seeds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let named: Vec<Variant> = arguments
        .map(|name| serde_json::from_value(name.into()))
        .collect::<Result<_, _>>()
        .map_err(|error| format!("no such variant: {error}"))?;
    let variants = if named.is_empty() { Variant::ALL.to_vec() } else { named };
    match task.as_str() {
        "cart_pole" => control::<CartPole>(DqnConfig::cart_pole(), [0.0, 100.0]).table(&variants, seeds),
        "acrobot" => control::<Acrobot>(DqnConfig::acrobot(), [-100.0, 0.0]).table(&variants, seeds),
        "mountain_car" => control::<MountainCar>(DqnConfig::mountain_car(), [-50.0, 0.0]).table(&variants, seeds),
        "lander" => control::<Lander>(DqnConfig::acrobot(), [-200.0, 300.0]).table(&variants, seeds),
        "recordings" => {
            let task = recordings();
            task.table(&variants, seeds)?;
            full_information(&task, seeds)
        }
        other => {
            Err(format!("`{other}` is no task: give cart_pole, acrobot, mountain_car, lander or recordings").into())
        }
    }
}

fn control<E: Environment + Default>(
    recipe: DqnConfig,
    returns: [f32; 2],
) -> Task<E, impl Fn(u64) -> Result<[E; 3], Failure>> {
    Task { recipe, returns, episodes: [20, 100], parts: |_| Ok([E::default(), E::default(), E::default()]) }
}

fn recordings() -> Task<RecordedEnvironment, impl Fn(u64) -> Result<[RecordedEnvironment; 3], Failure>> {
    let config = TrainConfig::default();
    let recipe = DqnConfig {
        total_steps: 100_000,
        network: config.network.clone(),
        update: UpdateConfig {
            batch_size: 64,
            learning_rate: 5e-4,
            gamma: f64::from(config.trainer.gamma),
            input_dropout: 0.5,
            ..UpdateConfig::default()
        },
        buffer_capacity: 50_000,
        train_interval: 2,
        target_update_interval: 500,
        // Random actions end most episodes in their first windows.
        exploration_initial: 0.3,
        exploration_final: 0.02,
        exploration_steps: 20_000,
        ..DqnConfig::default()
    };
    let parts = move |seed| {
        let windower = || Windower::new(&config.window, &config.reward, Collector::new());
        let play = |windower: Windower<Collector>| {
            let recordings = Arc::new(windower.into_sink().into_recordings());
            RecordedEnvironment::new(recordings, config.reward.clone(), RecordedOptions::default())
        };
        let [train, valid, test] = split(seed, [windower(), windower(), windower()])?.map(play);
        Ok([train?, valid?, test?])
    };
    Task { recipe, returns: [-2.0, 1.0], episodes: [200, 1000], parts }
}

/// The recordings, families apart: 60 % to learn from, 10 % to choose by and 30 % to judge.
fn split<S: EventSink<Error: std::error::Error + Send + Sync + 'static>>(
    seed: u64,
    sinks: [S; 3],
) -> Result<[S; 3], Failure> {
    let read = || TelemetryReader::open(Path::new(RECORDINGS));
    let mut digests = DigestSink::default();
    read()?.read(&mut digests)?;
    let shares = Shares { train: 0.6, valid: 0.1, test: 0.3 };
    let assignment = assign(&digests.episodes, SplitBy::Family, shares, seed)?;
    let mut sink = SplitSink::new(&assignment, sinks);
    read()?.read(&mut sink)?;
    Ok(sink.into_sinks())
}

/// What `bellwether train` makes of the same recordings, which answer it about every action, on the same judges.
fn full_information(
    task: &Task<RecordedEnvironment, impl Fn(u64) -> Result<[RecordedEnvironment; 3], Failure>>,
    seeds: u64,
) -> Result<(), Failure> {
    let mut of = Vec::new();
    for seed in 1..=seeds {
        let config = TrainConfig { seed, ..TrainConfig::default() };
        let recorder = || Recorder::new(&config.window, &config.reward, config.trainer.memory_bytes);
        let [learn, _, _] = split(seed, [recorder()?, recorder()?, recorder()?])?;
        let (recordings, start) = (learn.finish(), Instant::now());
        let episodes: Vec<u32> = recordings.episodes().collect();
        let options = FusedOptions::default();
        let mut training = Training::new(&recordings, &episodes, &config, options.isa, options.into())?;
        while !training.is_finished() {
            training.round()?;
        }
        let shape = config.network.shape(recordings.width(), ACTION_COUNT)?;
        let mut learner = FusedLearner::new(shape, training.released(), options)?;
        let seconds = start.elapsed().as_secs_f64();
        let [_, _, mut judge] = (task.parts)(seed)?;
        let mean = evaluate_greedy(&mut learner, &mut judge, task.episodes[1], 1000, seed ^ (1 << 32))?.mean_return();
        of.push([mean, mean, seconds]);
    }
    line(&mut std::io::stdout(), "full information", &of, 3)
}

/// A line of the table: interquartile means with their intervals, and mean seconds.
fn line(out: &mut impl Write, name: &str, of: &[[f64; 3]], digits: usize) -> Result<(), Failure> {
    let column = |place: usize| of.iter().map(|outcome| outcome[place]).collect::<Vec<f64>>();
    let interval = |place: usize| {
        let (mean, [low, high]) = interquartile(&column(place));
        format!("{mean:.digits$} [{low:.digits$}, {high:.digits$}]")
    };
    let seconds = column(2).iter().sum::<f64>() / of.len() as f64;
    Ok(writeln!(out, "| {name} | {} | {} | {seconds:.0} |", interval(0), interval(1))?)
}

impl<E: Environment + Send, Parts: Fn(u64) -> Result<[E; 3], Failure> + Sync> Task<E, Parts> {
    fn table(&self, variants: &[Variant], seeds: u64) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "| variant | best network | last network | seconds |\n|---|---|---|---|")?;
        for variant in variants {
            let of: Vec<[f64; 3]> =
                (1..=seeds).into_par_iter().map(|seed| self.run(*variant, seed)).collect::<Result<_, _>>()?;
            let digits = if self.returns[1] - self.returns[0] > 10.0 { 1 } else { 3 };
            let name = serde_json::to_value(variant)?;
            line(&mut out, name.as_str().unwrap_or_default(), &of, digits)?;
        }
        Ok(())
    }

    /// Mean returns of the best and of the last network of a run, and its seconds.
    fn run(&self, variant: Variant, seed: u64) -> Result<[f64; 3], Failure> {
        let [learn, mut choose, mut judge] = (self.parts)(seed)?;
        let config = variant.of(DqnConfig { seed, ..self.recipe.clone() }, self.returns);
        let start = Instant::now();
        let mut run = DqnTrainer::new(config, vec![learn], FusedOptions::default())?;
        let selection = Selection { interval: 2_500, episodes: self.episodes[0], max_steps: 1000, seed };
        let selected = run.run_selecting(&mut choose, &selection, &mut |_: &DqnEvent| ControlFlow::Continue(()))?;
        let seconds = start.elapsed().as_secs_f64();
        // The judges of both networks were seen by neither.
        let mut mean = |run: &mut DqnTrainer<E>| {
            evaluate_greedy(run.learner(), &mut judge, self.episodes[1], 1000, seed ^ (1 << 32))
                .map(|found| found.mean_return())
        };
        let last = mean(&mut run)?;
        if let Some(best) = selected.best {
            run.learner().restore(&best)?;
        }
        Ok([mean(&mut run)?, last, seconds])
    }
}

/// The mean without the lowest and the highest quarter, rounded down to whole values, and its 95 % interval by bootstrap.
fn interquartile(values: &[f64]) -> (f64, [f64; 2]) {
    let of = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        let cut = values.len() / 4;
        let middle = &values[cut..values.len() - cut];
        middle.iter().sum::<f64>() / middle.len() as f64
    };
    let mut rng = stream(0, "bootstrap");
    let mut means: Vec<f64> = (0..2000)
        .map(|_| of((0..values.len()).map(|_| values[rng.next_u32() as usize % values.len()]).collect()))
        .collect();
    means.sort_by(f64::total_cmp);
    (of(values.to_vec()), [means[49], means[1949]])
}
