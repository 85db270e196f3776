//! Ways to an operating point, beside each other on the same recordings: one network conditioned on the cost of a false positive,
//! one network per cost, a quantile of the return as the knob, and doubt where networks disagree.
//!
//! `cargo run --release -p bellwether-trainer --example operating_point -- TRAIN TEST [SEEDS] [KEY=VALUE]...`
//!
//! `KEY` is one of `updates`, `huber`, `l2` and `quantiles`; the last three are those of the networks with quantiles.
//!
//! The first table has the best setting of each knob in hindsight, on families that no network saw, as the mean of the seeds with
//! the smallest and the largest. `calibrated` is the rate that came of asking for 5 % by training families alone, where the way
//! has that. The second table has the return at one cost, of the network that knows all and of the one that was trained for it.

use std::io::Write;
use std::path::Path;

use bellwether_env_adapter::ACTION_COUNT;
use bellwether_inference::Isa;
use bellwether_trainer::config::TrainConfig;
use bellwether_trainer::evaluate::{Calibration, Outcome, summarise};
use bellwether_trainer::learner::fused::FusedOptions;
use bellwether_trainer::network::{NetworkShape, Returns};
use bellwether_trainer::recorded::answers::AnswerModel;
use bellwether_trainer::recorded::playback::{Doubting, Learnt, Policy, play};
use bellwether_trainer::recorded::recordings::Recordings;
use bellwether_trainer::recorded::training::Training;
use bellwether_trainer::run;
use rayon::prelude::*;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The cost at which knobs other than the cost are turned: `z = c / (1 + c)` of `c = 1`.
const FIXED: f32 = 0.5;
/// Costs that networks are trained for by themselves.
const COSTS: [f32; 4] = [0.3, 1.0, 3.0, 10.0];
/// Half the width of the range of costs of such a network, as a factor.
const NARROW: f32 = 1.001;
const TARGET_FPR: f64 = 0.05;

/// A knob's settings, ascending in caution, with what each came to on the test episodes.
type Curve = Vec<(f32, Vec<Outcome>)>;

struct Way {
    name: &'static str,
    test: Curve,
    /// The same settings on the training episodes, each by a network that has not seen its family.
    blind: Option<Curve>,
}

struct Trained {
    shape: NetworkShape,
    released: Vec<f32>,
    /// For each fold its episodes and the network that has not seen them.
    blind: Vec<(Vec<u32>, Vec<f32>)>,
}

struct Data {
    train: Recordings,
    test: Recordings,
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(train), Some(test)) = (arguments.next(), arguments.next()) else {
        return Err("give two telemetry files that share no family: to learn from, and to try".into());
    };
    let (mut seeds, mut quantiles) = (5_u64, 32_usize);
    let mut config = TrainConfig::default();
    let mut distributed = TrainConfig::default();
    distributed.trainer.huber = 0.1;
    for argument in arguments {
        match argument.split_once('=') {
            None => seeds = argument.parse()?,
            Some(("updates", value)) => config.trainer.updates = value.parse()?,
            Some(("huber", value)) => distributed.trainer.huber = value.parse()?,
            Some(("l2", value)) => distributed.trainer.l2 = value.parse()?,
            Some(("quantiles", value)) => quantiles = value.parse()?,
            Some((key, _)) => return Err(format!("`{key}` is no key: give updates, huber, l2 or quantiles").into()),
        }
    }
    distributed.trainer.updates = config.trainer.updates;
    distributed.network.returns = Returns::Quantiles(quantiles);
    let read = |path: &str| run::read(Path::new(path), &config);
    let data = Data { train: read(&train)?, test: read(&test)? };

    let mut all: Vec<Vec<Way>> = Vec::new();
    let mut returns: Vec<Vec<[f64; 2]>> = Vec::new();
    for seed in 0..seeds {
        let config = TrainConfig { seed, ..config.clone() };
        let distributed = TrainConfig { seed, ..distributed.clone() };
        let conditioned = data.train(&config)?;
        let mut ways = vec![data.by_cost("cost, one network", &conditioned, &config)?];
        ways.push(data.by_doubt(&conditioned, &config)?);
        ways.push(data.by_cost("cost, mean of quantiles", &data.train(&distributed)?, &distributed)?);
        ways.push(data.by_quantile(&data.train(&at(&distributed, 1.0))?, &distributed)?);
        all.push(ways);
        let mut of_costs = Vec::new();
        for cost in COSTS {
            let z = cost / (1.0 + cost);
            let alone = data.train(&at(&config, cost))?;
            let earned = |network: &Trained| data.play_test(&config, network.learnt(&network.released), z);
            of_costs.push([mean_return(&earned(&conditioned)?), mean_return(&earned(&alone)?)]);
        }
        returns.push(of_costs);
        print(&all, &returns)?;
    }
    Ok(())
}

/// The configuration for one cost.
fn at(config: &TrainConfig, cost: f32) -> TrainConfig {
    let mut config = config.clone();
    (config.cost.minimum, config.cost.maximum) = (cost / NARROW, cost * NARROW);
    config
}

impl Trained {
    fn learnt<'a>(&'a self, parameters: &'a [f32]) -> Policy<'a> {
        Learnt { shape: &self.shape, parameters, isa: Isa::best() }.into()
    }
}

impl Data {
    fn train(&self, config: &TrainConfig) -> Result<Trained, Failure> {
        config.validate()?;
        let episodes: Vec<u32> = self.train.episodes().collect();
        let learner = FusedOptions { isa: Isa::best(), threads: 1 }.into();
        let mut training = Training::new(&self.train, &episodes, config, Isa::best(), learner)?;
        while !training.is_finished() {
            training.round()?;
        }
        let blind = training.blind().map(|(episodes, parameters)| (episodes, parameters.to_vec())).collect();
        let shape = config.network.shape(self.train.width(), ACTION_COUNT)?;
        Ok(Trained { shape, released: training.released().to_vec(), blind })
    }

    fn play_test(&self, config: &TrainConfig, policy: Policy<'_>, z: f32) -> Result<Vec<Outcome>, Failure> {
        let episodes: Vec<u32> = self.test.episodes().filter(|e| self.test.store().episode(*e).len > 0).collect();
        Ok(play(&AnswerModel::new(&self.test, &config.reward, false), policy, &episodes, z)?)
    }

    fn play_blind(
        &self,
        config: &TrainConfig,
        network: &Trained,
        z: f32,
        cautious: impl Fn(&[f32]) -> Result<(NetworkShape, Vec<f32>), Failure>,
    ) -> Result<Vec<Outcome>, Failure> {
        let model = AnswerModel::new(&self.train, &config.reward, false);
        let mut outcomes = Vec::new();
        for (episodes, parameters) in &network.blind {
            let (shape, parameters) = cautious(parameters)?;
            let policy = Learnt { shape: &shape, parameters: &parameters, isa: Isa::best() };
            outcomes.extend(play(&model, policy.into(), episodes, z)?);
        }
        outcomes.sort_by_key(|outcome| outcome.episode);
        Ok(outcomes)
    }

    /// The cost as the knob.
    fn by_cost(&self, name: &'static str, network: &Trained, config: &TrainConfig) -> Result<Way, Failure> {
        let as_it_is = |parameters: &[f32]| Ok((network.shape.clone(), parameters.to_vec()));
        let settings: Vec<f32> = config.cost.grid().collect();
        let test = curve(&settings, |z| self.play_test(config, network.learnt(&network.released), z))?;
        let blind = curve(&settings, |z| self.play_blind(config, network, z, as_it_is))?;
        Ok(Way { name, test, blind: Some(blind) })
    }

    /// The share of the worst cases, whose mean return is maximised, as the knob; negative, for fewer are more careful.
    fn by_quantile(&self, network: &Trained, config: &TrainConfig) -> Result<Way, Failure> {
        let cautious = |parameters: &[f32], lowest: f32| -> Result<_, Failure> {
            Ok(NetworkShape::from_mlp(&network.shape.to_cautious_mlp(parameters, lowest as usize)?)?)
        };
        let settings: Vec<f32> = (1..=network.shape.returns().atoms()).rev().map(|lowest| -(lowest as f32)).collect();
        let test = curve(&settings, |knob| {
            let (shape, parameters) = cautious(&network.released, -knob)?;
            let policy = Learnt { shape: &shape, parameters: &parameters, isa: Isa::best() };
            self.play_test(config, policy.into(), FIXED)
        })?;
        let blind =
            curve(&settings, |knob| self.play_blind(config, network, FIXED, |parameters| cautious(parameters, -knob)))?;
        Ok(Way { name: "share of the worst cases", test, blind: Some(blind) })
    }

    /// Standard deviations between the networks of the folds as the knob.
    fn by_doubt(&self, network: &Trained, config: &TrainConfig) -> Result<Way, Failure> {
        let members: Vec<Vec<f32>> = network.blind.iter().map(|(_, parameters)| parameters.clone()).collect();
        let settings: Vec<f32> = (-12..=36).map(|step| step as f32 / 4.0).collect();
        let test = curve(&settings, |doubt| {
            let networks = Doubting { shape: &network.shape, members: &members, doubt, isa: Isa::best() };
            self.play_test(config, Policy::Doubting(networks), FIXED)
        })?;
        Ok(Way { name: "doubt of eight networks", test, blind: None })
    }
}

fn curve(settings: &[f32], play: impl Fn(f32) -> Result<Vec<Outcome>, Failure> + Sync) -> Result<Curve, Failure> {
    settings.par_iter().map(|setting| Ok((*setting, play(*setting)?))).collect()
}

fn mean_return(outcomes: &[Outcome]) -> f64 {
    outcomes.iter().map(|outcome| outcome.ret).sum::<f64>() / outcomes.len() as f64
}

/// True-positive rate, share of harm prevented and mean events of the setting that finds most within a rate of false positives.
fn best(curve: &Curve, rate: f64) -> [f64; 3] {
    let settings = curve.iter().map(|(_, outcomes)| summarise(outcomes).metrics);
    let kept = settings.filter(|metrics| metrics.fpr.is_some_and(|fpr| fpr <= rate));
    let key = |metrics: [f64; 3]| (metrics[0], -metrics[2]);
    kept.map(|metrics| [metrics.tpr, metrics.harm_prevented, metrics.mean_events].map(|value| value.unwrap_or(0.0)))
        .reduce(|best, other| if key(other) > key(best) { other } else { best })
        .unwrap_or_default()
}

/// The rate of false positives that comes of asking for the target by the blind networks.
fn realised(way: &Way) -> Result<Option<f64>, Failure> {
    let Some(blind) = &way.blind else { return Ok(None) };
    let chosen = Calibration::from_outcomes(blind)?.choose(TARGET_FPR).setting;
    let at = way.test.iter().find(|(setting, _)| *setting == chosen);
    Ok(at.and_then(|(_, outcomes)| summarise(outcomes).metrics.fpr))
}

fn print(all: &[Vec<Way>], returns: &[Vec<[f64; 2]>]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let spread = |values: &[f64], digits: usize| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("{mean:.digits$} ({low:.digits$} to {high:.digits$})")
    };
    writeln!(out, "\n{} seeds\n", all.len())?;
    writeln!(out, "| knob | 5 %: TPR | harm prevented | events | 1 %: TPR | harm prevented | events | calibrated |")?;
    writeln!(out, "|---|---|---|---|---|---|---|---|")?;
    for place in 0..all.first().map_or(0, Vec::len) {
        let ways: Vec<&Way> = all.iter().map(|ways| &ways[place]).collect();
        let column = |rate, at: usize, digits| {
            let values: Vec<f64> = ways.iter().map(|way| best(&way.test, rate)[at]).collect();
            spread(&values, digits)
        };
        let rates: Result<Vec<Option<f64>>, Failure> = ways.iter().map(|way| realised(way)).collect();
        let rates: Vec<f64> = rates?.into_iter().flatten().collect();
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            ways[0].name,
            column(0.05, 0, 3),
            column(0.05, 1, 3),
            column(0.05, 2, 0),
            column(0.01, 0, 3),
            column(0.01, 1, 3),
            column(0.01, 2, 0),
            if rates.is_empty() { String::new() } else { spread(&rates, 3) },
        )?;
    }
    writeln!(out, "\n| cost | return of the one for all | of the one for it | difference |\n|---|---|---|---|")?;
    for (place, cost) in COSTS.iter().enumerate() {
        let column = |of: fn([f64; 2]) -> f64| {
            let values: Vec<f64> = returns.iter().map(|costs| of(costs[place])).collect();
            spread(&values, 4)
        };
        let columns = [column(|[all, _]| all), column(|[_, alone]| alone), column(|[all, alone]| all - alone)];
        writeln!(out, "| {cost} | {} |", columns.join(" | "))?;
    }
    Ok(())
}
