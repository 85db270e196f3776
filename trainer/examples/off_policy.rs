//! How far off-policy estimates are from exact replay, and how often their intervals hold it: a model plays recordings with some
//! random actions, many times over, and is judged without them by what it played.
//!
//! `cargo run --release -p bellwether-trainer --example off_policy -- MODEL TELEMETRY [SEEDS]`
//!
//! A line of the table gives, for one share of random actions and one estimate, the mean over the seeds of the error, its root mean
//! square, and the share of 95 % intervals that held the exact value.

use std::io::Write;
use std::path::Path;

use bellwether_artifact::{ModelVersion, Sha256, durable, release};
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_env_adapter::window::WindowConfig;
use bellwether_inference::model::{Contract, Expectation};
use bellwether_inference::{Isa, load_release};
use bellwether_trainer::evaluate::Bootstrap;
use bellwether_trainer::logged::Logged;
use bellwether_trainer::network::NetworkShape;
use bellwether_trainer::off_policy::{Estimate, Estimates, FittedQ, TargetPolicy, estimate};
use bellwether_trainer::offline::OfflineConfig;
use bellwether_trainer::recorded::answers::AnswerModel;
use bellwether_trainer::recorded::playback::{Course, Learnt, play};
use bellwether_trainer::recorded::played::{Player, Playing, write_played};
use bellwether_trainer::run;
use rayon::prelude::*;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const TARGET_FPR: f64 = 0.05;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(model), Some(data)) = (arguments.next(), arguments.next()) else {
        return Err("give the folder of a model and a telemetry file".into());
    };
    let seeds: u64 = arguments.next().map_or(Ok(20), |text| text.parse())?;
    let folder = Path::new(&model);
    let manifest = release::read_manifest(folder)?;
    let window = &manifest.features.window;
    let window = WindowConfig { max_events: window.max_events, max_ns: window.max_ns, max_windows: window.max_windows };
    let spec = FeatureSpec::v1(window.clone());
    let contract = Contract::sandbox(spec.width(), Sha256::from_bytes(spec.hash()));
    let loaded = load_release(folder, &Expectation::new(contract), Isa::best())?;
    let mlp = loaded.mlp.as_ref().ok_or("the model is a general graph; give one that was trained here")?;
    let (shape, parameters) = NetworkShape::from_mlp(mlp)?;
    let learnt = Learnt { shape: &shape, parameters: &parameters, isa: Isa::best() };
    let cost = manifest.operating_point(TARGET_FPR).ok_or("the model has no operating point of 0.05")?.cost;

    let config = run::judged(&manifest.training)?.config;
    let recordings = run::read(Path::new(&data), &config)?;
    let episodes: Vec<u32> = recordings.episodes().filter(|e| recordings.store().episode(*e).len > 0).collect();
    let exact: f64 = play(&AnswerModel::new(&recordings, &config.reward, false), learnt.into(), &episodes, cost)?
        .iter()
        .map(|outcome| outcome.ret)
        .sum::<f64>()
        / episodes.len() as f64;

    let mut out = std::io::stdout().lock();
    writeln!(out, "exact {exact:+.4} over {} episodes, {seeds} seeds\n", episodes.len())?;
    writeln!(
        out,
        "| random actions | estimate | mean error | root mean square | intervals that hold |\n|---|---|---|---|---|"
    )?;
    for epsilon in [0.05, 0.1, 0.2, 0.4] {
        let judged = |seed: u64| -> Result<(Estimates, f64), Failure> {
            let player = Player {
                model_version: ModelVersion::UNSEALED,
                target_fpr: TARGET_FPR,
                cost,
                course: Course::Soft { epsilon, seed },
            };
            let sources = ["sha256:00".to_owned()];
            let playing = Playing {
                recordings: &recordings,
                episodes: &episodes,
                policy: learnt.into(),
                player,
                config: &config,
                sources: &sources,
            };
            let scratch = tempfile::tempdir()?;
            let path = scratch.path().join("played.parquet");
            let (bytes, _) = write_played(&playing, Vec::new())?;
            durable::write_bytes(&path, &bytes)?;
            let offline = OfflineConfig { window: window.clone(), ..OfflineConfig::default() };
            let logged = Logged::read(&[path], &offline)?;
            let target = TargetPolicy { policy: learnt.into(), epsilon: 0.0 };
            let fitted = FittedQ { seed, ..FittedQ::default() };
            let bootstrap = Bootstrap { seed, ..Bootstrap::default() };
            let (estimates, trust) = estimate(&logged, target, &fitted, &bootstrap, Isa::best())?;
            Ok((estimates, trust.effective))
        };
        let estimates: Vec<(Estimates, f64)> = (0..seeds).into_par_iter().map(judged).collect::<Result<_, _>>()?;
        let effective = estimates.iter().map(|(_, effective)| effective).sum::<f64>() / seeds as f64;
        // The first is what was played.
        for place in 1..7 {
            let all: Vec<Estimate> = estimates.iter().map(|(all, _)| all.named()[place].1).collect();
            let name = estimates.first().map_or("", |(all, _)| all.named()[place].0);
            let errors: Vec<f64> = all.iter().filter_map(|estimate| Some(estimate.value? - exact)).collect();
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            let square = (errors.iter().map(|error| error * error).sum::<f64>() / errors.len() as f64).sqrt();
            let held = all.iter().filter(|e| e.ci95.is_some_and(|[low, high]| low <= exact && exact <= high)).count();
            let share = held as f64 / seeds as f64;
            writeln!(
                out,
                "| {epsilon} (weights of {effective:.0}) | {name} | {mean:+.4} | {square:.4} | {share:.2} |"
            )?;
        }
    }
    Ok(())
}
