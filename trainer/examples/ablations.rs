//! Trains every published variant of DQN on a task of control, several seeds each, and prints a table in Markdown.
//!
//! `cargo run --release -p bellwether-trainer --example ablations -- cart_pole|acrobot|mountain_car|lander [SEEDS] [VARIANT]...`
//!
//! A run evaluates its greedy policy every 2,500 steps on 20 episodes; 100 other episodes then judge the network that was best and
//! the last one. A line gives the interquartile mean over the seeds, with a 95 % interval by bootstrap (Agarwal et al. 2021), and
//! the time of a run. One run takes one thread, and the seeds of a variant run beside each other.

use std::io::Write;
use std::ops::ControlFlow;
use std::time::Instant;

use bellwether_env_adapter::Environment;
use bellwether_trainer::control::{Acrobot, CartPole, Lander, MountainCar};
use bellwether_trainer::dqn::{DqnConfig, DqnError, DqnEvent, DqnTrainer, Selection, Variant, evaluate_greedy};
use bellwether_trainer::learner::fused::FusedOptions;
use bellwether_trainer::streams::stream;
use rand::Rng;
use rayon::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let task = arguments.next().unwrap_or_else(|| "cart_pole".to_owned());
    let seeds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let named: Vec<Variant> = arguments
        .map(|name| serde_json::from_value(name.into()))
        .collect::<Result<_, _>>()
        .map_err(|error| format!("no such variant: {error}"))?;
    let variants = if named.is_empty() { Variant::ALL.to_vec() } else { named };
    match task.as_str() {
        "cart_pole" => table::<CartPole>(&DqnConfig::cart_pole(), [0.0, 100.0], &variants, seeds),
        "acrobot" => table::<Acrobot>(&DqnConfig::acrobot(), [-100.0, 0.0], &variants, seeds),
        "mountain_car" => table::<MountainCar>(&DqnConfig::mountain_car(), [-50.0, 0.0], &variants, seeds),
        "lander" => table::<Lander>(&DqnConfig::acrobot(), [-200.0, 300.0], &variants, seeds),
        other => Err(format!("`{other}` is no task: give cart_pole, acrobot, mountain_car or lander").into()),
    }
}

fn table<E: Environment + Default + Send>(
    recipe: &DqnConfig,
    returns: [f32; 2],
    variants: &[Variant],
    seeds: u64,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "| variant | best network | last network | seconds |\n|---|---|---|---|")?;
    for variant in variants {
        let run = |seed| run::<E>(variant.of(DqnConfig { seed, ..recipe.clone() }, returns));
        let of: Vec<[f64; 3]> = (1..=seeds).into_par_iter().map(run).collect::<Result<_, _>>()?;
        let column = |place: usize| of.iter().map(|outcome| outcome[place]).collect::<Vec<f64>>();
        let interval = |place: usize| {
            let (mean, [low, high]) = interquartile(&column(place));
            format!("{mean:.1} [{low:.1}, {high:.1}]")
        };
        let seconds = column(2).iter().sum::<f64>() / seeds as f64;
        let name = serde_json::to_value(variant)?;
        let name = name.as_str().unwrap_or_default();
        writeln!(out, "| {name} | {} | {} | {seconds:.0} |", interval(0), interval(1))?;
    }
    Ok(())
}

/// Mean returns of the best and of the last network of a run, and its seconds.
fn run<E: Environment + Default>(config: DqnConfig) -> Result<[f64; 3], DqnError> {
    let start = Instant::now();
    let seed = config.seed;
    let mut run = DqnTrainer::new(config, vec![E::default()], FusedOptions::default())?;
    let selection = Selection { interval: 2_500, episodes: 20, max_steps: 1000, seed };
    let selected = run.run_selecting(&mut E::default(), &selection, &mut |_: &DqnEvent| ControlFlow::Continue(()))?;
    let seconds = start.elapsed().as_secs_f64();
    // The judges of both networks were seen by neither.
    let judge = |run: &mut DqnTrainer<E>| {
        evaluate_greedy(run.learner(), &mut E::default(), 100, 1000, seed ^ (1 << 32)).map(|found| found.mean_return())
    };
    let last = judge(&mut run)?;
    if let Some(best) = selected.best {
        run.learner().restore(&best)?;
    }
    Ok([judge(&mut run)?, last, seconds])
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
