//! `bellwether estimate`: what a model is worth by the steps that another one played.

use std::path::PathBuf;

use bellwether_trainer::evaluate::Bootstrap;
use bellwether_trainer::logged::Logged;
use bellwether_trainer::off_policy::{Estimate, Estimates, FittedQ, TargetPolicy, Trust, estimate};
use bellwether_trainer::offline::OfflineConfig;
use schemars::JsonSchema;
use serde::Serialize;

use super::layers::Layers;
use super::{Failure, Output, build, model};

/// What begins the variables of its configuration.
const PREFIX: &str = "BELLWETHER_ESTIMATE__";

/// Estimates what a model would earn in the episodes that another policy played, without playing it: importance sampling, fitted
/// Q evaluation, and doubly robust estimates, at the cost that the episodes were played at.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder of the model.
    #[arg(long, value_name = "DIR", required_unless_present = "print_config")]
    model: Option<PathBuf>,
    /// Episode files of a policy that left something to chance, as `evaluate --epsilon` writes them.
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "print_config")]
    episodes: Vec<PathBuf>,
    /// Probability with which the model that is judged takes a random allowed action.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    epsilon: f32,
    #[command(flatten)]
    engine: model::EngineFlags,
    #[command(flatten)]
    layers: Layers,
}

/// What `estimate` reports as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "Estimates")]
pub(crate) struct Report {
    /// Version of the model that is judged.
    model_version: String,
    /// Probability with which it takes a random action.
    epsilon: f32,
    /// Discount per step.
    gamma: f64,
    /// Episodes that are not estimated with, because the safe rule decided a step of them.
    left_out: u64,
    /// Mean discounted return of an episode.
    #[serde(flatten)]
    estimates: Estimates,
    /// Why nothing is estimated by weights; null where it is.
    unweighted: Option<String>,
    /// How far the estimates are to be trusted.
    trust: Trust,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let fitted: FittedQ = self.layers.resolve(PREFIX)?;
        fitted.validate().map_err(Failure::usage)?;
        let folder = match &self.model {
            Some(folder) if !self.layers.print_config => folder,
            _ => return Layers::print(output, PREFIX, &fitted),
        };
        let release = self.engine.load(folder, 0)?;
        let playable = model::Playable::of(&release)?;
        let config = OfflineConfig { window: model::window_of(&release.manifest), ..OfflineConfig::default() };
        let logged = Logged::read(&self.episodes, &config)?;
        let target = TargetPolicy { policy: playable.policy(), epsilon: self.epsilon };
        let bootstrap = Bootstrap { seed: fitted.seed, ..Bootstrap::default() };
        let (estimates, trust) = estimate(&logged, target, &fitted, &bootstrap, build::isa()?)?;
        let report = Report {
            model_version: release.manifest.version.to_string(),
            epsilon: self.epsilon,
            gamma: fitted.update.gamma,
            left_out: logged.left_out,
            estimates,
            unweighted: unweighted(&trust),
            trust,
        };
        output.report(&report, || report.describe())?;
        Ok(())
    }
}

impl Report {
    /// For people.
    fn describe(&self) -> String {
        let table: Vec<String> = self.estimates.named().iter().map(|(name, estimate)| line(name, estimate)).collect();
        let Trust { episodes, clusters, possible, effective, largest_share, .. } = self.trust;
        let clustered = match clusters {
            count if count == episodes => String::new(),
            count => {
                format!("\nthe episodes are of {count} recordings: those of one are drawn together and weighed as one")
            }
        };
        let left_out = match self.left_out {
            0 => String::new(),
            count => format!("\n{count} episodes were left out: the safe rule decided a step of them"),
        };
        let weights = match &self.unweighted {
            Some(why) => why.clone(),
            None if possible == 0 => {
                "per-decision estimates count the steps until it would have left the last of them, and nothing after"
                    .into()
            }
            None => format!(
                "their weights tell as much as {effective:.0} of equal weight, and the largest is {:.0} % of all",
                100.0 * largest_share
            ),
        };
        format!(
            "mean return of an episode, with a 95 % interval\n{}\n\nthe model could have played {possible} of {episodes} episodes; \
             {weights}{clustered}{left_out}",
            table.join("\n")
        )
    }
}

/// Why nothing is estimated by weights.
fn unweighted(trust: &Trust) -> Option<String> {
    let steps = match trust.uncovered {
        0 => return None,
        1 => "1 step".to_owned(),
        count => format!("{count} steps"),
    };
    Some(format!(
        "nothing is estimated by weights: in {steps} that it could have come to, it may do what the policy that played never would, \
         for that left nothing to chance; give episodes that `evaluate --epsilon` wrote alone"
    ))
}

fn line(name: &str, estimate: &Estimate) -> String {
    let value = estimate.value.map_or("none".to_owned(), |value| format!("{value:+.3}"));
    let interval = estimate.ci95.map_or(String::new(), |[low, high]| format!(" [{low:+.3}, {high:+.3}]"));
    format!("{name:<30}{value}{interval}")
}
