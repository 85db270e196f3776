//! A run, whole: data in, a run directory with metrics, checkpoints, the model and its evaluation out.

mod drive;
mod learn;
pub(crate) mod page;
mod publish;
mod train;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use bellwether_artifact::{ArtifactError, SourceRevision};
use bellwether_env_adapter::Label;
use bellwether_env_adapter::ingest::EpisodeDigest;
use bellwether_registry::RegistryError;

use crate::config::{ConfigError, TrainConfig};
use crate::dqn::DqnError;
use crate::evaluate::{Evaluation, FoldItem, Groups, grouped_folds};
use crate::export::ExportError;
use crate::learner::LearnerChoice;
use crate::learner::fused::Isa;
use crate::logged::{LoggedError, LoggedFile};
use crate::metrics::UpdateMetrics;
use crate::network::NetworkError;
use crate::recorded::TrainingError;
use crate::recorded::recordings::{Recordings, RecordingsError};

pub(crate) use drive::with_causes;
pub use learn::{LearnReport, LearnRequest, learn};
pub use page::RunPage;
pub use publish::{Judged, judged};
pub use train::{TrainReport, TrainRequest, Trained, train, train_once};

/// What a run is to do, by a configuration `C` on data `D`.
pub struct RunRequest<'a, C, D> {
    /// What people call the run and its model: `a-z`, `0-9`, `.`, `_` and `-`.
    pub name: &'a str,
    /// The resolved configuration.
    pub config: &'a C,
    /// What to learn from.
    pub data: D,
    /// Telemetry to evaluate on in the end; nothing is chosen by it.
    pub valid: Option<&'a Path>,
    /// Folder of run directories.
    pub runs: &'a Path,
    /// A run that was aborted, to go on with.
    pub resume: Option<&'a Path>,
    /// Flags that shaped the run beside the configuration, without the learner.
    pub flags: BTreeMap<String, String>,
    /// What computes the updates. Learners differ in the last digits, so that a run is gone on with by the one that began it.
    pub learner: LearnerChoice,
    /// Instruction set of all that is computed beside it; it does not change a byte.
    pub isa: Isa,
    /// The code that learns.
    pub source: SourceRevision,
}

/// What a run tells whoever waits for it.
pub trait RunObserver {
    /// Seconds since a moment of the observer's choice; kept apart from everything that is hashed.
    fn seconds(&mut self) -> f64;
    /// Something happened.
    fn event(&mut self, event: RunEvent<'_>);
}

/// What happens in a run.
#[derive(Clone, Copy, Debug)]
pub enum RunEvent<'a> {
    /// The run has its folder.
    Begun {
        /// Its id.
        run: &'a str,
        /// States, or played steps, that batches are drawn from.
        states: u64,
        /// Gradient steps that were done before; above 0 where a run is gone on with.
        updates: u64,
    },
    /// A phase begins.
    Phase(&'a str),
    /// Gradient steps were done.
    Updated {
        /// So many until now.
        done: u64,
        /// Of so many.
        of: u64,
        /// What every network recorded since the last time, by update; often nothing.
        lines: &'a [UpdateMetrics],
    },
    /// A checkpoint was written.
    Saved,
    /// The policy was played on held-out telemetry.
    Evaluated(&'a Evaluation),
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be run.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data cannot be read.
    #[error("cannot read {path}")]
    Recordings {
        /// The telemetry file.
        path: PathBuf,
        /// Why.
        source: RecordingsError,
    },
    /// The data holds nothing to learn from.
    #[error(
        "{path} holds {benign} benign and {malicious} malicious labelled episodes; training needs both: add recordings of \
         the class that is missing, or labels"
    )]
    OneClass {
        /// The telemetry file.
        path: PathBuf,
        /// Benign episodes with a window.
        benign: usize,
        /// Malicious episodes with a window.
        malicious: usize,
    },
    /// What is to be held out is learnt from.
    #[error(
        "{path} holds {count} of the recordings of {data}, `{first}` among them: what was learnt from says nothing about what was \
         never seen; hold out others (`bellwether split` makes parts that share none)"
    )]
    NotHeldOut {
        /// The telemetry to evaluate on.
        path: PathBuf,
        /// The telemetry or the played episodes to learn from.
        data: PathBuf,
        /// Episodes that both hold.
        count: usize,
        /// Identity of the first of them.
        first: String,
    },
    /// Training failed.
    #[error(transparent)]
    Training(#[from] TrainingError),
    /// The episode files cannot be learned from.
    #[error(transparent)]
    Logged(#[from] LoggedError),
    /// Learning from played steps failed.
    #[error(transparent)]
    Learning(#[from] DqnError),
    /// No file says at which operating point it was played.
    #[error(
        "none of the files says which false-positive rate its policy was asked for, so the model would have no operating \
         point: give at least one that a model of this program played"
    )]
    NoOperatingPoint,
    /// A setting of the model's training cannot be read.
    #[error("the model was trained by another version of this program")]
    Foreign(#[source] serde_json::Error),
    /// The network cannot be built.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The model cannot be exported.
    #[error("the model cannot be exported")]
    Export(#[from] ExportError),
    /// The run directory refused.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A file could not be read or written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The run to go on with had other data, another configuration or other code.
    #[error("the run {run} was begun on other terms ({differs}); go back to them, or start a new run")]
    OtherRun {
        /// Id of the run.
        run: String,
        /// What differs: the first few keys, with what the run was begun with and what was asked for now.
        differs: String,
    },
}

/// Reads telemetry as the configuration asks for it.
///
/// # Errors
/// [`RunError::Recordings`].
pub fn read(path: &Path, config: &TrainConfig) -> Result<Recordings, RunError> {
    Recordings::read(path, &config.window, &config.reward, config.trainer.memory_bytes)
        .map_err(|source| RunError::Recordings { path: path.to_path_buf(), source })
}

/// Refuses recordings that miss one of the two classes.
///
/// # Errors
/// [`RunError::OneClass`].
pub fn require_both_classes(path: &Path, recordings: &Recordings) -> Result<(), RunError> {
    let of_class = |class: u32| recordings.store().episodes().filter(|e| e.class == class && e.len > 0).count();
    both(path, of_class(0), of_class(1))
}

/// Refuses to hold out recordings that are learnt from: the same identity and the same calls in both files. Duplicates under
/// other identities are left to `validate`; published splits have them.
fn require_held_out(
    (data, known): (&Path, &Recordings),
    (path, held_out): (&Path, &Recordings),
) -> Result<(), RunError> {
    let identity = |recordings: &'_ Recordings, episode| {
        let facts = recordings.facts(episode);
        (facts.id.clone(), facts.content)
    };
    let known: HashSet<_> = known.episodes().map(|episode| identity(known, episode)).collect();
    let held_out = held_out.episodes().map(|episode| identity(held_out, episode));
    none_of_both((data, path), held_out.filter(|both| known.contains(both)).map(|(id, _)| id))
}

/// Refuses to hold out recordings that were played, and whose steps are learnt from.
fn require_unplayed(files: &[LoggedFile], (path, held_out): (&Path, &Recordings)) -> Result<(), RunError> {
    let ids = || held_out.episodes().map(|episode| held_out.facts(episode).id.clone());
    files.iter().try_for_each(|file| none_of_both((&file.path, path), ids().filter(|id| file.names.contains(id))))
}

/// Fails if there is an episode in what is learnt from and in what is held out.
fn none_of_both((data, path): (&Path, &Path), mut both: impl Iterator<Item = String>) -> Result<(), RunError> {
    let Some(first) = both.next() else { return Ok(()) };
    let (path, data) = (path.to_path_buf(), data.to_path_buf());
    Err(RunError::NotHeldOut { path, data, count: 1 + both.count(), first })
}

/// Refuses what [`train`] would refuse of these episodes, by their digests alone, before anything is written.
///
/// # Errors
/// [`RunError::OneClass`], and [`RunError::Training`] where a class has fewer groups than calibration has folds.
pub fn require_learnable<'a>(
    path: &Path,
    episodes: impl IntoIterator<Item = &'a EpisodeDigest>,
    config: &TrainConfig,
) -> Result<(), RunError> {
    let mut groups = Groups::new();
    let items: Vec<FoldItem> = episodes
        .into_iter()
        .filter(|episode| episode.events > 0)
        .filter_map(|episode| {
            let label = episode.label?;
            Some(FoldItem { group: groups.intern(episode.family.as_deref()), label, content: Some(episode.content.0) })
        })
        .collect();
    let malicious = items.iter().filter(|item| item.label == Label::Malicious).count();
    both(path, items.len() - malicious, malicious)?;
    grouped_folds(&items, config.calibration.folds as u32, config.seed).map_err(TrainingError::Evaluation)?;
    Ok(())
}

fn both(path: &Path, benign: usize, malicious: usize) -> Result<(), RunError> {
    if benign > 0 && malicious > 0 {
        return Ok(());
    }
    Err(RunError::OneClass { path: path.to_path_buf(), benign, malicious })
}
