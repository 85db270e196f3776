//! Episodes that were played, as they are learned from and estimated with.

use crate::dqn::DqnError;
use crate::offline::OfflineConfig;
use bellwether_env_adapter::reward::{Parts, RewardConfig};
use bellwether_env_adapter::spec::{FeatureSpec, WIDTH, decode_cost, element};
use bellwether_env_adapter::{ACTION_COUNT, Action};
use bellwether_replay::episodes::{End, EpisodeFileHeader, EpisodeReader, Expect, Loaded, Player, StepRow};
use bellwether_replay::{ActionMask, BufferConfig, Played, ReplayBuffer, ReplayError, StateRows};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

mod learnable;

pub use learnable::LearnableSteps;

/// Episode files, read whole.
pub struct Logged {
    /// Their states, in the order of the files: row `i` of [`rows`](Self::rows) is state `i`.
    pub buffer: ReplayBuffer,
    /// What stands beside each state.
    pub rows: Vec<LoggedRow>,
    /// The episodes that the policy alone decided, by their rows.
    pub episodes: Vec<LoggedEpisode>,
    /// What the steps were rewarded for.
    pub reward: RewardConfig,
    /// The files.
    pub files: Vec<LoggedFile>,
    /// Episodes of the files that are not among these, because the safe rule decided a step of them: no policy's probability is known
    /// of it, and what followed was its doing.
    pub left_out: u64,
}

/// One file.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedFile {
    /// Where it lies.
    pub path: PathBuf,
    /// What played, as JSON; absent where it does not say.
    pub policy: Option<String>,
    /// The cost `z` that its first state was made for.
    pub cost: f32,
    /// Events that its episodes had seen at their ends.
    pub events: u64,
    /// How much it holds.
    pub loaded: Loaded,
    /// Names of its episodes: those of the recordings, where such were played.
    pub names: HashSet<String>,
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
    /// The cost `z` of a false positive that the state was made for.
    pub cost: f32,
    /// The probability with which it was chosen; 1 where nothing was.
    pub behaviour_probability: f32,
    /// The safe rule decided.
    pub safe_rule: bool,
    /// How the episode ends with this row, if it does.
    pub end: Option<End>,
}

/// One episode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEpisode {
    /// Its name: that of the recording, where one was played.
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
    /// A file claims the states of this version and has others.
    #[error(
        "{path}: states of {width} elements and {actions} actions where its specification has {} and {}; it was not written by this program",
        bellwether_env_adapter::spec::WIDTH,
        bellwether_env_adapter::ACTION_COUNT
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// Elements of a state.
        width: usize,
        /// Actions.
        actions: usize,
    },
    /// A file's reward cannot be read, or is another than that of the first.
    #[error("{path}: {reason}")]
    Reward {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what would do.
        reason: String,
    },
    /// An episode was played at another cost than the first, so that their returns cannot be averaged.
    #[error(
        "{path}: the episode `{episode}` was played at the cost z = {cost}, the first one, of {first}, at z = {first_cost}: returns \
         at different costs have no mean; give files of one cost, and estimate with the others apart"
    )]
    Cost {
        /// The file.
        path: PathBuf,
        /// The episode.
        episode: String,
        /// Its cost.
        cost: f32,
        /// The file of the first episode.
        first: PathBuf,
        /// The cost of that.
        first_cost: f32,
    },
    /// Episodes that the policy played alone are wanted, and there is none.
    #[error(
        "the safe rule decided a step of each of the {episodes} episodes, so none tells of the policy: give others"
    )]
    SafeRule {
        /// Episodes of all files.
        episodes: u64,
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
    /// Reads episode files of one cost into a buffer for estimates of this configuration.
    ///
    /// # Errors
    /// On a file that is damaged, whose states are of other windows, or of another reward than the first; on an episode of another
    /// cost; and if they take more memory than is allowed.
    pub fn read(paths: &[PathBuf], config: &OfflineConfig) -> Result<Logged, LoggedError> {
        let mut opened = Opened::new(paths, config)?;
        let count = opened.rows();
        let needed = count.saturating_mul(4 * WIDTH as u64 + 2 * size_of::<LoggedRow>() as u64);
        if needed > config.memory_bytes {
            return Err(LoggedError::Memory { needed, allowed: config.memory_bytes });
        }
        let buffer = config.buffer(WIDTH, ACTION_COUNT, (count as usize).max(1))?;
        let reward = opened.reward;
        let mut logged =
            Logged { buffer, rows: Vec::new(), episodes: Vec::new(), reward, files: Vec::new(), left_out: 0 };
        let mut ends = Vec::new();
        for (path, reader) in &mut opened.readers {
            let file = logged.take(path, reader);
            let file = file.map_err(|source| LoggedError::Read { path: path.clone(), source })?;
            logged.files.push(file);
            ends.push(logged.rows.len());
        }
        let Logged { episodes, rows, left_out, .. } = &mut logged;
        episodes.retain(|episode| {
            let safe_rule = rows[episode.rows.clone()].iter().any(|row| row.safe_rule);
            *left_out += u64::from(safe_rule);
            !safe_rule
        });
        if episodes.is_empty() && *left_out > 0 {
            return Err(LoggedError::SafeRule { episodes: *left_out });
        }
        logged.one_cost(&ends)?;
        Ok(logged)
    }

    /// Refuses episodes of several costs. `ends` has the end of each file in the rows.
    fn one_cost(&self, ends: &[usize]) -> Result<(), LoggedError> {
        let Some(first) = self.episodes.first().map(|episode| episode.rows.start) else { return Ok(()) };
        let first_cost = self.rows[first].cost;
        let other = self.episodes.iter().find_map(|episode| {
            let row = episode.rows.clone().find(|row| self.rows[*row].cost != first_cost)?;
            Some((episode, row))
        });
        let Some((episode, row)) = other else { return Ok(()) };
        let file = |row: usize| self.files[ends.partition_point(|end| *end <= row)].path.clone();
        Err(LoggedError::Cost {
            path: file(row),
            episode: episode.id.clone(),
            cost: self.rows[row].cost,
            first: file(first),
            first_cost,
        })
    }

    /// What all files hold.
    pub fn loaded(&self) -> Loaded {
        loaded(&self.files)
    }

    /// The cluster of each episode: those of one name are one, for files of several seeds hold the same recordings. Clusters are
    /// numbered in the order of their first episodes.
    pub fn clusters(&self) -> Vec<usize> {
        let mut numbers = HashMap::new();
        let ids = self.episodes.iter().map(|episode| episode.id.as_str());
        ids.map(|id| {
            let next = numbers.len();
            *numbers.entry(id).or_insert(next)
        })
        .collect()
    }

    /// Some of the episodes in a buffer of their own, for uniform draws, and the row of each of its states here.
    ///
    /// # Errors
    /// [`ReplayError`] if there is none of them.
    pub fn part(&self, chosen: impl Fn(usize) -> bool) -> Result<(ReplayBuffer, Vec<usize>), ReplayError> {
        let episodes = || self.episodes.iter().enumerate().filter(|(number, _)| chosen(*number)).map(|(_, it)| it);
        let capacity = episodes().map(|episode| episode.rows.len()).sum();
        let mut buffer = ReplayBuffer::new(BufferConfig { capacity, ..*self.buffer.config() })?;
        let mut player = Player::new(buffer.add_stream());
        let mut places = Vec::with_capacity(capacity);
        let mut state = vec![0.0; self.buffer.width()];
        for episode in episodes() {
            for at in episode.rows.clone() {
                let row = &self.rows[at];
                places.push(at);
                self.buffer.gather(at, &mut state);
                let behaviour_probability = row.behaviour_probability;
                let played = row.action.map(|action| Played { action, reward: row.reward, behaviour_probability });
                player.play(&mut buffer, &state, row.mask, played, row.end)?;
            }
        }
        Ok((buffer, places))
    }

    /// Takes all rows of a file.
    fn take(&mut self, path: &Path, reader: &mut EpisodeReader) -> Result<LoggedFile, ReplayError> {
        let Logged { buffer, rows, episodes, .. } = self;
        let mut notes = Notes::default();
        let stream = buffer.add_stream();
        let loaded = reader.load(buffer, stream, |row: &StepRow| {
            let at = rows.len();
            match episodes.last_mut().filter(|_| row.step > 0) {
                Some(episode) => episode.rows.end = at + 1,
                None => episodes.push(LoggedEpisode { id: row.episode_id.clone(), rows: at..at + 1 }),
            }
            notes.take(row);
            let reward = reward_of_row(row);
            rows.push(LoggedRow {
                mask: row.action_mask,
                action: row.played.map(|played| played.action),
                reward,
                cost: cost(row),
                behaviour_probability: row.played.map_or(1.0, |played| played.behaviour_probability),
                safe_rule: row.played.is_some_and(|played| played.safe_rule),
                end: row.end,
            });
            reward
        })?;
        Ok(notes.file(path, reader, loaded))
    }
}

/// What is noted of a file as its rows go by.
#[derive(Default)]
struct Notes {
    cost: Option<f32>,
    events: u64,
    names: HashSet<String>,
}

impl Notes {
    fn take(&mut self, row: &StepRow) {
        self.cost = self.cost.or_else(|| Some(cost(row)));
        self.events += if row.end.is_some() { row.events_seen } else { 0 };
        if !self.names.contains(&row.episode_id) {
            self.names.insert(row.episode_id.clone());
        }
    }

    fn file(self, path: &Path, reader: &EpisodeReader, loaded: Loaded) -> LoggedFile {
        let (policy, cost) = (reader.header().policy.clone(), self.cost.unwrap_or(0.0));
        LoggedFile { path: path.to_path_buf(), policy, cost, events: self.events, loaded, names: self.names }
    }
}

/// What all files hold.
pub fn loaded(files: &[LoggedFile]) -> Loaded {
    files.iter().fold(Loaded::default(), |sum, file| Loaded {
        episodes: sum.episodes + file.loaded.episodes,
        steps: sum.steps + file.loaded.steps,
        safe_rule: sum.safe_rule + file.loaded.safe_rule,
        partial: sum.partial + file.loaded.partial,
    })
}

/// The false-positive rates that the policies which played were asked for, each with the cost `z` that they played at, in
/// the order of the files; of files that do not say, none.
pub fn operating_points(files: &[LoggedFile]) -> impl Iterator<Item = (f64, f32)> + '_ {
    files.iter().filter_map(|file| {
        let policy: Value = serde_json::from_str(file.policy.as_deref()?).ok()?;
        Some((policy.get("target_fpr")?.as_f64()?, file.cost))
    })
}

/// Files that were opened and found to be of one kind, before a row of them is read.
struct Opened {
    readers: Vec<(PathBuf, EpisodeReader)>,
    reward: RewardConfig,
}

impl Opened {
    fn new(paths: &[PathBuf], config: &OfflineConfig) -> Result<Opened, LoggedError> {
        let spec = FeatureSpec::v1(config.window.clone());
        let (spec_hash, action_set) = (spec.hash_hex(), Action::SET_VERSION.to_string());
        let expect = Expect { spec_hash: &spec_hash, action_set: &action_set };
        let mut readers = Vec::new();
        for path in paths {
            let file = File::open(path).map_err(|source| LoggedError::Open { path: path.clone(), source })?;
            let reader = EpisodeReader::open(file, Some(expect));
            let reader = reader.map_err(|source| LoggedError::Read { path: path.clone(), source })?;
            let (width, actions) = (reader.header().width, reader.header().actions as usize);
            if (width, actions) != (WIDTH, ACTION_COUNT) {
                return Err(LoggedError::Shape { path: path.clone(), width, actions });
            }
            readers.push((path.clone(), reader));
        }
        let Some((first, reader)) = readers.first() else { return Err(LoggedError::None) };
        let reward = reward_of(first, reader.header())?;
        for (path, reader) in &readers {
            let other = reward_of(path, reader.header())?;
            if other != reward {
                let differs = differences(&other, &reward);
                let reason =
                    format!("its reward is another than that of {}: {differs}; use them apart", first.display());
                return Err(LoggedError::Reward { path: path.clone(), reason });
            }
        }
        Ok(Opened { readers, reward })
    }

    /// Rows of all files, as their footers say.
    fn rows(&self) -> u64 {
        self.readers.iter().map(|(_, reader)| reader.rows()).sum()
    }
}

/// The cost `z` that a row's state was made for.
fn cost(row: &StepRow) -> f32 {
    row.state.get(element::COST).map_or(0.0, |element| decode_cost(*element))
}

/// What a row earned at the cost that its state was made for.
fn reward_of_row(row: &StepRow) -> f32 {
    row.played.map_or(0.0, |played| Parts { r0: played.r0, r1: played.r1 }.at(cost(row)))
}

fn reward_of(path: &Path, header: &EpisodeFileHeader) -> Result<RewardConfig, LoggedError> {
    serde_json::from_str(&header.reward).map_err(|error| LoggedError::Reward {
        path: path.to_path_buf(),
        reason: format!("its reward is not one that this version knows: {error}"),
    })
}

/// The weights in which two rewards differ, with the values of both.
fn differences(here: &RewardConfig, there: &RewardConfig) -> String {
    // As text, a weight is the shortest number that stands for it.
    let value = |reward| serde_json::to_string(reward).and_then(|text| serde_json::from_str::<Value>(&text));
    let [here, there] = [here, there].map(|reward| value(reward).unwrap_or_default());
    let mut told = Vec::new();
    for (key, value) in here.as_object().into_iter().flatten() {
        let other = &there[key];
        match (value.as_object(), other.as_object()) {
            (Some(values), Some(others)) => {
                let pairs = values.iter().filter_map(|(name, value)| Some((name, value, others.get(name)?)));
                let differing = pairs.filter(|(_, value, other)| value != other);
                told.extend(
                    differing.map(|(name, value, other)| format!("{key}.{name} is {value} here and {other} there")),
                );
            }
            _ if value != other => told.push(format!("{key} is {value} here and {other} there")),
            _ => {}
        }
    }
    told.join(", ")
}
