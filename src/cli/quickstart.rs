//! `bellwether quickstart`: the main job, end to end, on the recordings that ship with the program.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, anyhow};
use bellwether_artifact::durable;
use bellwether_env_adapter::action;
use bellwether_env_adapter::ingest::{
    Assignment, DigestSink, EpisodeDigest, Shares, Side, SplitBy, TelemetryReader, assign,
};
use bellwether_inference::LoadedRelease;
use bellwether_registry::{ModelRegistry, RegistryError};
use bellwether_replay::StateRows;
use bellwether_trainer::config::TrainConfig;
use bellwether_trainer::evaluate::{Evaluation, render_table};
use bellwether_trainer::learner::fused::FusedOptions;
use bellwether_trainer::recorded::playback::Course;
use bellwether_trainer::recorded::recordings::Recordings;
use bellwether_trainer::run::{self, TrainRequest};
use schemars::JsonSchema;
use serde::Serialize;

use super::played::EpisodeFile;
use super::progress::Progress;
use super::quickstart_live::{self, Live};
use super::train::{Settings, left_out};
use super::{Failure, Output, build, gates, keep_inputs, model, split};

/// Ingests, splits by family, trains, evaluates beside baselines, exports, verifies, releases and decides: minutes on two
/// cores, all in one folder. Where this machine can run programs in the sandbox, two of families that were held out follow, decided
/// on window by window while they run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder for everything that is written.
    #[arg(long, value_name = "DIR", default_value = "quickstart")]
    out: PathBuf,
    /// Telemetry to use instead of the recordings that ship with the program.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    limits: gates::Limits,
}

/// What `quickstart` reports as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "QuickstartReport")]
pub(crate) struct Report {
    /// Folder of everything that was written.
    folder: PathBuf,
    /// Id of the run.
    run: String,
    /// Version of the model.
    model_version: String,
    /// The policy on families that it never saw, beside the baselines.
    evaluation: Option<Evaluation>,
    /// Episodes that were not learnt from because they have no label.
    unlabelled_episodes: u64,
    /// The release; null where a gate was not met.
    release: Option<Release>,
    /// Decisions per second on recorded states, one at a time on one thread.
    decisions_per_second: f64,
    /// Programs of families that the policy never saw, decided on while they ran.
    live: Live,
    /// Time that the whole took, in seconds.
    wall_seconds: f64,
}

/// The model in the registry.
#[derive(Serialize, JsonSchema)]
struct Release {
    /// Folder of the registry.
    registry: PathBuf,
    /// Name that stands on the model.
    name: &'static str,
    /// Number of the model.
    number: u32,
}

/// Shares of the recordings.
const SHARES: Shares = Shares { train: 0.7, valid: 0.0, test: 0.3 };
/// Seconds for which decisions are counted.
const COUNTED_SECONDS: f64 = 0.5;
/// The name that the released model gets.
const NAME: &str = "champion";

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let started = Instant::now();
        let config = self.settings.resolve()?;
        let isa = build::isa()?;
        let recordings = self.out.join("recordings.parquet");
        let (data, played) = (self.out.join("data"), self.out.join("episodes.parquet"));
        if let Some(given) = self.data.as_deref() {
            keep_inputs([given], &played)?;
            split::keep_from_parts(given, &data)?;
        }
        let (assignment, trained_on) = self.split_by_family(&recordings, &config)?;
        durable::create_folder(&self.out)?;
        match &self.data {
            Some(path) => {
                let mut from = open(path)?;
                durable::write(&recordings, |to| std::io::copy(&mut from, to).map(drop))?
            }
            None => durable::write_bytes(&recordings, bellwether_corpus::recordings())?,
        }
        durable::create_folder(&data)?;
        let parts = split::write_parts(&recordings, &assignment, &data)?;
        let file = |side: Side| {
            let part = parts.iter().find(|part| part.side == side);
            part.map(|part| part.file.clone()).ok_or_else(|| anyhow!("the split left no episode for {}", side.name()))
        };
        let (train, test) = (file(Side::Train)?, file(Side::Test)?);
        let request = TrainRequest {
            name: "quickstart",
            config: &config,
            data: &train,
            valid: Some(&test),
            runs: &self.out.join("runs"),
            resume: None,
            flags: Default::default(),
            learner: FusedOptions { isa, threads: 1 }.into(),
            isa,
            source: build::source(),
        };
        let trained = run::train(&request, &mut Progress::new(output)).map_err(Failure::of_run)?;
        let folder = trained.folder.join("model");
        let loaded = model::load(&folder)?;
        let held_out = run::read(&test, &config)?;
        // A model that nothing was calibrated for has no point to play at.
        if let Some(point) = loaded.manifest.operating_points.last() {
            let file = EpisodeFile::start(&played, &loaded, point.target_fpr, Course::Greedy)?;
            file.write(&loaded, &config, &held_out, &test)?;
        }
        let registry_folder = self.out.join("releases");
        let registry = ModelRegistry::open(&registry_folder)?;
        let record = registry.publish(&folder)?;
        let gate = gates::check(&registry.folder(record.number), &self.limits, build::isa()?.into())?;
        let release = match registry.promote(record.number, NAME, &gate, gates::REQUIRED) {
            Err(RegistryError::GateFailed { .. }) => None,
            moved => Some(Release { registry: registry_folder, name: NAME, number: moved?.to }),
        };
        let decisions_per_second = decisions_per_second(&loaded, &held_out)?;
        let live = quickstart_live::show(loaded, &trained_on, &self.out.join("live"), output)?;
        let report = Report {
            folder: self.out,
            run: trained.run,
            model_version: trained.version.to_string(),
            evaluation: trained.evaluation,
            unlabelled_episodes: trained.unlabelled,
            release,
            decisions_per_second,
            live,
            wall_seconds: started.elapsed().as_secs_f64(),
        };
        output.report(&report, || describe(&report, &gates::describe(&gate)))?;
        match report.release {
            Some(_) => Ok(()),
            None => Err(Failure::NotMet("the model was not released: a gate was not met".to_owned())),
        }
    }

    /// Splits the recordings by family into what is learnt from and what is tested on, and refuses what cannot be learnt
    /// from before anything is written. What a split by three calls `valid` is learnt from too: operating points are
    /// calibrated inside training. `recordings` is what the recordings that ship will be called. The families that are learnt from
    /// come along.
    fn split_by_family(
        &self,
        recordings: &Path,
        config: &TrainConfig,
    ) -> Result<(Assignment, BTreeSet<String>), Failure> {
        let name = self.data.as_deref().unwrap_or(recordings);
        let mut digests = DigestSink::default();
        let reader = match &self.data {
            Some(path) => TelemetryReader::new(open(path)?),
            None => TelemetryReader::from_bytes(bellwether_corpus::recordings()),
        };
        let unreadable = || format!("cannot read {}", name.display());
        reader.and_then(|reader| reader.read(&mut digests)).with_context(unreadable)?;
        let episodes = &digests.episodes;
        run::require_learnable(name, episodes, config).map_err(Failure::of_run)?;
        let assignment = assign(episodes, SplitBy::Family, SHARES, config.seed).map_err(Failure::usage)?;
        let on = |side: Side, episode: &EpisodeDigest| assignment.side(&episode.episode_id.0) == Some(side);
        let learnt_from = episodes.iter().filter(|episode| on(Side::Train, episode));
        let families = learnt_from.clone().filter_map(|episode| episode.family.clone()).collect();
        run::require_learnable(&self.out.join("data/train.parquet"), learnt_from, config).map_err(Failure::of_run)?;
        if !episodes.iter().any(|episode| on(Side::Test, episode)) {
            return Err(Failure::usage(anyhow!("{} holds too few families to test on some of them", name.display())));
        }
        Ok((assignment, families))
    }
}

/// Opens a file to read.
fn open(path: &Path) -> Result<File, Failure> {
    Ok(File::open(path).with_context(|| format!("cannot open {}", path.display()))?)
}

/// How many recorded states the engine decides in a second, one at a time on one thread.
fn decisions_per_second(loaded: &LoadedRelease, recordings: &Recordings) -> Result<f64, Failure> {
    let states = recordings.store().states();
    let count = states.len().min(4096);
    let mut held = vec![0.0; count * states.width()];
    for (row, state) in held.chunks_exact_mut(states.width()).enumerate() {
        states.gather(row * states.len() / count, state);
    }
    let mask = action::mask(false, false);
    let mut scratch = loaded.engine.scratch();
    let (started, mut decided) = (Instant::now(), 0_u64);
    while started.elapsed().as_secs_f64() < COUNTED_SECONDS {
        for state in held.chunks_exact(states.width()) {
            loaded.engine.decide(&mut scratch, state, &mask)?;
            decided += 1;
        }
    }
    Ok(decided as f64 / started.elapsed().as_secs_f64())
}

fn describe(report: &Report, gates: &str) -> String {
    let folder = report.folder.display();
    let table = report.evaluation.as_ref().map(render_table).unwrap_or_default();
    let released = match &report.release {
        Some(release) => format!("released as number {} under the name {}", release.number, release.name),
        None => "not released: a gate was not met".to_owned(),
    };
    format!(
        "{table}{}\n{gates}\n\n\
         model version {} {released}\n\
         {:.0} decisions per second on one thread, one at a time\n\
         {}\n\
         {:.0} seconds in all; everything lies in {folder}/, every step that was played on the test in {folder}/episodes.parquet\n\n\
         What to do next:\n  \
         bellwether runs --runs {folder}/runs show {}\n  \
         bellwether release --registry {folder}/releases list\n  \
         bellwether evaluate --model {folder}/runs/{}/model --data {folder}/data/test.parquet --train {folder}/data/train.parquet\n  \
         bellwether train --data {folder}/data/train.parquet --valid {folder}/data/test.parquet --seed 2",
        left_out(report.unlabelled_episodes),
        report.model_version,
        report.decisions_per_second,
        report.live.describe(),
        report.wall_seconds,
        report.run,
        report.run
    )
}
