//! Episode files as a run learns from them: in memory where they fit, and streamed where they do not.

use super::{LoggedError, LoggedFile, Notes, Opened, loaded, reward_of_row};
use crate::offline::{OfflineConfig, Steps};
use bellwether_env_adapter::ACTION_COUNT;
use bellwether_env_adapter::reward::RewardConfig;
use bellwether_env_adapter::spec::WIDTH;
use bellwether_replay::BufferConfig;
use bellwether_replay::episodes::Loaded;
use bellwether_replay::streamed::EpisodeSource;
use std::path::PathBuf;

/// The steps of episode files, to learn from.
pub struct LearnableSteps {
    /// The steps.
    pub steps: Steps,
    /// What they were rewarded for.
    pub reward: RewardConfig,
    /// The files.
    pub files: Vec<LoggedFile>,
}

impl LearnableSteps {
    /// Reads episode files for a run of this configuration: into memory if `memory_bytes` allows, and otherwise once, to see that
    /// they are whole and what is in them. Where a policy is cloned, steps of the safe rule are left out.
    ///
    /// # Errors
    /// On a file that is damaged, whose states are of other windows, or of another reward than the first; and if the memory holds
    /// not even two batches.
    pub fn read(paths: &[PathBuf], config: &OfflineConfig) -> Result<LearnableSteps, LoggedError> {
        let mut opened = Opened::new(paths, config)?;
        if config.algorithm.clones() {
            opened.readers = opened.readers.into_iter().map(|(path, reader)| (path, reader.policy_alone())).collect();
        }
        let capacity = usize::try_from(opened.rows()).unwrap_or(usize::MAX).max(2);
        let whole = BufferConfig { width: WIDTH, actions: ACTION_COUNT as u32, capacity };
        if whole.bytes(config.update.priorities().is_some()) <= config.memory_bytes {
            Self::in_memory(opened, config, whole)
        } else {
            Self::streamed(opened, config, whole)
        }
    }

    /// What all files hold.
    pub fn loaded(&self) -> Loaded {
        loaded(&self.files)
    }

    fn in_memory(opened: Opened, config: &OfflineConfig, whole: BufferConfig) -> Result<LearnableSteps, LoggedError> {
        let mut buffer = config.buffer(WIDTH, ACTION_COUNT, whole.capacity)?;
        let mut files = Vec::new();
        for (path, mut reader) in opened.readers {
            let (mut notes, stream) = (Notes::default(), buffer.add_stream());
            let loaded = reader.load(&mut buffer, stream, |row| {
                notes.take(row);
                reward_of_row(row)
            });
            let loaded = loaded.map_err(|source| LoggedError::Read { path: path.clone(), source })?;
            files.push(notes.file(&path, &reader, loaded));
        }
        Ok(LearnableSteps { steps: buffer.into(), reward: opened.reward, files })
    }

    fn streamed(opened: Opened, config: &OfflineConfig, states: BufferConfig) -> Result<LearnableSteps, LoggedError> {
        let (mut files, mut sources) = (Vec::new(), Vec::new());
        for (path, mut reader) in opened.readers {
            let mut notes = Notes::default();
            let survey = reader.survey(|row| notes.take(row));
            let survey = survey.map_err(|source| LoggedError::Read { path: path.clone(), source })?;
            files.push(notes.file(&path, &reader, survey.loaded));
            sources.push(EpisodeSource { name: path.display().to_string(), reader, survey });
        }
        let steps = config.streamed(sources, states, Box::new(reward_of_row))?;
        Ok(LearnableSteps { steps: steps.into(), reward: opened.reward, files })
    }
}
