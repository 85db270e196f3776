//! Writing what a model plays on recordings as an episode file, for the verbs that play one.

use std::path::{Path, PathBuf};

use bellwether_artifact::durable::{self, DurableFile};
use bellwether_inference::LoadedRelease;
use bellwether_trainer::config::TrainConfig;
use bellwether_trainer::recorded::playback::Course;
use bellwether_trainer::recorded::played::{Player, Playing, write_played};
use bellwether_trainer::recorded::recordings::Recordings;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Failure, keep_inputs, model};

/// Flags of a verb that can write what it plays.
#[derive(clap::Args)]
pub(crate) struct Flags {
    /// Write every step that the model plays at one operating point to this episode file (Parquet): state, mask, q-values,
    /// action, rewards.
    #[arg(long, value_name = "FILE", requires = "model", conflicts_with = "cv")]
    pub(crate) episodes: Option<PathBuf>,
    /// The operating point that is written.
    #[arg(long, value_name = "RATE", requires = "episodes", default_value_t = TARGET_FPR)]
    target_fpr: f64,
    /// Write every recorded window: the model plays `continue` wherever it may, whatever it would choose, and its verdict falls
    /// in the last one. The evaluation stays that of its own choices.
    #[arg(long, requires = "episodes")]
    to_the_end: bool,
    /// Write what the model plays when it takes a random allowed action with this probability, above 0 and at most 1: steps that
    /// tell what other policies are worth. The evaluation stays that of its own choices.
    #[arg(long, value_name = "SHARE", requires = "episodes", conflicts_with = "to_the_end", value_parser = share)]
    epsilon: Option<f32>,
    /// Seed of the random actions.
    #[arg(long, value_name = "N", requires = "epsilon", default_value_t = 0)]
    epsilon_seed: u64,
}

/// The operating point that is written unless another is asked for.
pub(crate) const TARGET_FPR: f64 = 0.05;

/// A probability above 0.
fn share(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| "give a number, such as 0.2".to_owned())?;
    if value > 0.0 && value <= 1.0 { Ok(value) } else { Err("choose a value above 0, at most 1".to_owned()) }
}

/// An episode file on its way: it is named when it is whole.
pub(crate) struct EpisodeFile {
    file: DurableFile,
    player: Player,
}

/// What a verb reports of the episode file that it wrote.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Played")]
pub(crate) struct Report {
    /// The file.
    file: PathBuf,
    #[serde(flatten)]
    player: Player,
    /// Episodes in the file.
    episodes: u64,
    /// Steps in the file, one row each.
    steps: u64,
    /// Episodes whose recording lacks something.
    partial: u64,
    /// Episodes that are not in the file because they have no window.
    without_window: u64,
    /// Episodes that are not in the file because they have no label, and so no reward.
    unlabelled: u64,
}

impl Flags {
    /// Refuses to write over any of these files.
    pub(crate) fn keep<'a>(&self, inputs: impl IntoIterator<Item = &'a Path>) -> Result<(), Failure> {
        self.episodes.as_deref().map_or(Ok(()), |out| keep_inputs(inputs, out))
    }

    /// Starts the file that is asked for, before any work is done for it.
    pub(crate) fn start(&self, release: &LoadedRelease) -> Result<Option<EpisodeFile>, Failure> {
        let course = match self.epsilon {
            Some(epsilon) => Course::Soft { epsilon, seed: self.epsilon_seed },
            None if self.to_the_end => Course::ToTheEnd,
            None => Course::Greedy,
        };
        let start = |path| EpisodeFile::start(path, release, self.target_fpr, course);
        self.episodes.as_deref().map(start).transpose()
    }
}

impl EpisodeFile {
    /// Starts a file; nothing is under its name until it is written.
    pub(crate) fn start(
        path: &Path,
        release: &LoadedRelease,
        target_fpr: f64,
        course: Course,
    ) -> Result<EpisodeFile, Failure> {
        let cost = model::cost_of(&release.manifest, target_fpr)?;
        let player = Player { model_version: release.manifest.version, target_fpr, cost, course };
        Ok(EpisodeFile { file: DurableFile::create(path)?, player })
    }

    /// Plays all recordings of the telemetry file `data` and gives the file its name.
    pub(crate) fn write(
        self,
        release: &LoadedRelease,
        config: &TrainConfig,
        recordings: &Recordings,
        data: &Path,
    ) -> Result<Report, Failure> {
        let EpisodeFile { file, player } = self;
        let playable = model::Playable::of(release)?;
        let episodes: Vec<u32> = recordings.episodes().collect();
        let sources = [format!("sha256:{}", durable::hash_file(data)?.0)];
        let playing =
            Playing { recordings, episodes: &episodes, policy: playable.policy(), player, config, sources: &sources };
        let (file, played) = write_played(&playing, file)?;
        let path = file.path().to_path_buf();
        file.commit()?;
        Ok(Report {
            file: path,
            player,
            episodes: played.written.episodes,
            steps: played.written.steps,
            partial: played.written.partial,
            without_window: played.without_window,
            unlabelled: recordings.unlabelled().len() as u64,
        })
    }
}

impl Report {
    /// For people.
    pub(crate) fn describe(&self) -> String {
        let left_out = match (self.without_window, self.unlabelled) {
            (0, 0) => String::new(),
            (empty, unlabelled) => format!("; left out: {empty} without a window, {unlabelled} without a label"),
        };
        let (file, target) = (self.file.display(), self.player.target_fpr);
        format!(
            "{file}: {} steps of {} episodes, played at the operating point {target}{left_out}",
            self.steps, self.episodes
        )
    }
}
