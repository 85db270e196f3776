//! Episodes that were played, as they are learned from and estimated with.

use crate::dqn::DqnError;
use crate::offline::OfflineConfig;
use bellwether_env_adapter::Action;
use bellwether_env_adapter::reward::{Parts, RewardConfig};
use bellwether_env_adapter::spec::{FeatureSpec, decode_cost, element};
use bellwether_replay::episodes::{EpisodeFileHeader, EpisodeReader, Expect, Loaded, StepRow};
use bellwether_replay::{ActionMask, ReplayBuffer, ReplayError};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Episode files, read whole.
pub struct Logged {
    /// Their states, in the order of the files: row `i` of [`rows`](Self::rows) is state `i`.
    pub buffer: ReplayBuffer,
    /// What stands beside each state.
    pub rows: Vec<LoggedRow>,
    /// The episodes, by their rows.
    pub episodes: Vec<LoggedEpisode>,
    /// What the steps were rewarded for.
    pub reward: RewardConfig,
    /// What played, as the files say; one entry each, `None` where a file does not say.
    pub policies: Vec<Option<String>>,
    /// How much there is.
    pub loaded: Loaded,
}

/// A row of an episode file without its state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoggedRow {
    /// Allowed actions.
    pub mask: ActionMask,
    /// What was played; `None` in the final state of an episode that was cut off.
    pub action: Option<u32>,
    /// What that earned, at the cost that the state was made for.
    pub reward: f32,
    /// The probability with which it was chosen; 1 where nothing was.
    pub behaviour_probability: f32,
}

/// One episode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEpisode {
    /// Its name.
    pub id: String,
    /// Its rows.
    pub rows: Range<usize>,
}

/// Why episode files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoggedError {
    /// A file cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be read, or is of other states.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ReplayError,
    },
    /// A file's reward cannot be read, or is another than that of the first.
    #[error("{path}: {reason}")]
    Reward {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what would do.
        reason: String,
    },
    /// The steps do not fit into memory.
    #[error("the steps take {needed} bytes and memory_bytes allows {allowed}: allow more, or give fewer files")]
    Memory {
        /// Bytes of the steps.
        needed: u64,
        /// Bytes allowed.
        allowed: u64,
    },
    /// No file was given.
    #[error("give at least one episode file")]
    None,
    /// The buffer refuses.
    #[error(transparent)]
    Buffer(#[from] DqnError),
}

impl Logged {
    /// Reads episode files into a buffer for a run of this configuration.
    ///
    /// # Errors
    /// On a file that is damaged, whose states are of other windows, or of another reward than the first; and if they take more
    /// memory than is allowed.
    pub fn read(paths: &[PathBuf], config: &OfflineConfig) -> Result<Logged, LoggedError> {
        let spec = FeatureSpec::v1(config.window.clone());
        let (spec_hash, action_set) = (spec.hash_hex(), Action::SET_VERSION.to_string());
        let expect = Expect { spec_hash: &spec_hash, action_set: &action_set };
        let mut readers = Vec::new();
        for path in paths {
            let file = File::open(path).map_err(|source| LoggedError::Open { path: path.clone(), source })?;
            let reader = EpisodeReader::open(file, Some(expect));
            readers.push((path, reader.map_err(|source| LoggedError::Read { path: path.clone(), source })?));
        }
        let Some((first, reader)) = readers.first() else { return Err(LoggedError::None) };
        let (width, actions) = (reader.header().width, reader.header().actions as usize);
        let reward = reward_of(first, reader.header())?;
        for (path, reader) in &readers {
            if reward_of(path, reader.header())? != reward {
                let reason = format!("its reward is another than that of {}; learn from them apart", first.display());
                return Err(LoggedError::Reward { path: path.to_path_buf(), reason });
            }
        }
        let count: u64 = readers.iter().map(|(_, reader)| reader.rows()).sum();
        let needed = count.saturating_mul(4 * width as u64 + 2 * size_of::<LoggedRow>() as u64);
        if needed > config.memory_bytes {
            return Err(LoggedError::Memory { needed, allowed: config.memory_bytes });
        }
        let buffer = config.buffer(width, actions, (count as usize).max(1))?;
        let policies = readers.iter().map(|(_, reader)| reader.header().policy.clone()).collect();
        let mut logged =
            Logged { buffer, rows: Vec::new(), episodes: Vec::new(), reward, policies, loaded: Loaded::default() };
        for (path, reader) in &mut readers {
            logged.take(reader).map_err(|source| LoggedError::Read { path: path.to_path_buf(), source })?;
        }
        Ok(logged)
    }

    /// Takes all rows of a file.
    fn take(&mut self, reader: &mut EpisodeReader) -> Result<(), ReplayError> {
        let Logged { buffer, rows, episodes, .. } = self;
        let stream = buffer.add_stream();
        let loaded = reader.load(buffer, stream, |row: &StepRow| {
            let at = rows.len();
            match episodes.last_mut().filter(|_| row.step > 0) {
                Some(episode) => episode.rows.end = at + 1,
                None => episodes.push(LoggedEpisode { id: row.episode_id.clone(), rows: at..at + 1 }),
            }
            let z = row.state.get(element::COST).map_or(0.0, |element| decode_cost(*element));
            let reward = row.played.map_or(0.0, |played| Parts { r0: played.r0, r1: played.r1 }.at(z));
            rows.push(LoggedRow {
                mask: row.action_mask,
                action: row.played.map(|played| played.action),
                reward,
                behaviour_probability: row.played.map_or(1.0, |played| played.behaviour_probability),
            });
            reward
        })?;
        self.loaded.episodes += loaded.episodes;
        self.loaded.steps += loaded.steps;
        self.loaded.partial += loaded.partial;
        Ok(())
    }
}

fn reward_of(path: &Path, header: &EpisodeFileHeader) -> Result<RewardConfig, LoggedError> {
    serde_json::from_str(&header.reward).map_err(|error| LoggedError::Reward {
        path: path.to_path_buf(),
        reason: format!("its reward is not one that this version knows: {error}"),
    })
}
