//! Recordings as a trainer needs them: the state of every window, what the window did, and what the sample is.

use std::path::Path;

use bellwether_env_adapter::ingest::{ContentHash, DigestSink, IngestError, TelemetryReader};
use bellwether_env_adapter::reward::{RewardConfig, WindowCosts};
use bellwether_env_adapter::spec::{FeatureSpec, element};
use bellwether_env_adapter::window::{Window, WindowConfig, WindowSink, Windower};
use bellwether_env_adapter::{EpisodeAttributes, Event, EventSink, Label};
use bellwether_replay::{Encoding, EpisodeStore, EpisodeStoreConfig, ReplayError, StateRows, StoreConfig};

use crate::evaluate::Groups;

/// What is known of a window besides its state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowFacts {
    /// Whether a decision must fall: the last window of its stage.
    pub last: bool,
    /// Events of the episode up to the window's close.
    pub events_seen: u64,
    /// Its stage and what its events did, by isolation level.
    pub costs: WindowCosts,
}

/// What is known of an episode.
#[derive(Clone, Debug, PartialEq)]
pub struct EpisodeFacts {
    /// Its identity.
    pub id: String,
    /// What the sample is.
    pub label: Label,
    /// Whether the recording holds the whole run.
    pub complete: bool,
    /// Whether an event has a path or a peer. Where none has, the calls are all that there is to learn from.
    pub located: bool,
    /// Events of the recording.
    pub events: u64,
    /// Harm of each stage's recording at no isolation.
    pub stage_harm: [f32; 2],
    /// Row of the first window of stage 2, where that was recorded.
    pub second_stage: Option<u32>,
    /// Hash of the names of its calls: equal for exact duplicates.
    pub content: ContentHash,
}

/// The recordings of a run, in the order in which they were read.
#[derive(Debug)]
pub struct Recordings {
    store: EpisodeStore,
    windows: Vec<WindowFacts>,
    episodes: Vec<EpisodeFacts>,
    groups: Groups,
    /// Identities of the episodes without a label: they can be neither learnt from nor evaluated.
    unlabelled: Vec<String>,
}

impl Recordings {
    /// Reads a telemetry file.
    ///
    /// # Errors
    /// If the file cannot be read, or its states cannot be kept.
    pub fn read(
        path: &Path,
        window: &WindowConfig,
        reward: &RewardConfig,
        memory_bytes: u64,
    ) -> Result<Recordings, RecordingsError> {
        let mut recorder = Recorder::new(window, reward, memory_bytes)?;
        TelemetryReader::open(path)?.read(&mut recorder)?;
        Ok(recorder.finish())
    }

    /// The states, by episode.
    pub fn store(&self) -> &EpisodeStore {
        &self.store
    }

    /// Elements of a state.
    pub fn width(&self) -> usize {
        self.store.states().width()
    }

    /// What is known of the window of a row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn window(&self, row: u32) -> &WindowFacts {
        &self.windows[row as usize]
    }

    /// What is known of an episode.
    ///
    /// # Panics
    /// If there is no such episode.
    pub fn facts(&self, episode: u32) -> &EpisodeFacts {
        &self.episodes[episode as usize]
    }

    /// Numbers of all episodes.
    pub fn episodes(&self) -> std::ops::Range<u32> {
        0..self.episodes.len() as u32
    }

    /// The groups of the episodes.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Identities of the episodes that were left out because they have no label.
    pub fn unlabelled(&self) -> &[String] {
        &self.unlabelled
    }
}

/// Why recordings cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingsError {
    /// The telemetry cannot be read.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The states cannot be kept.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// Collects [`Recordings`] from telemetry.
pub struct Recorder {
    windower: Windower<Collector>,
    digests: DigestSink,
}

impl Recorder {
    /// A recorder that keeps `memory_bytes` of states in memory, and the rest in a file that nobody else can see.
    ///
    /// # Errors
    /// If the store cannot be made.
    pub fn new(window: &WindowConfig, reward: &RewardConfig, memory_bytes: u64) -> Result<Recorder, ReplayError> {
        let store = EpisodeStore::new(EpisodeStoreConfig {
            states: StoreConfig {
                width: FeatureSpec::v1(window.clone()).width(),
                encoding: Encoding::Sparse,
                memory_bytes: usize::try_from(memory_bytes).unwrap_or(usize::MAX),
                spill_folder: None,
            },
            state_columns: Vec::new(),
            episode_columns: Vec::new(),
        })?;
        let (windows, episodes, unlabelled) = (Vec::new(), Vec::new(), Vec::new());
        let recordings = Recordings { store, windows, episodes, groups: Groups::new(), unlabelled };
        let collector = Collector { recordings, open: None };
        Ok(Recorder { windower: Windower::new(window, reward, collector), digests: DigestSink::default() })
    }

    /// What was recorded.
    pub fn finish(self) -> Recordings {
        self.windower.into_sink().recordings
    }
}

impl EventSink for Recorder {
    type Error = ReplayError;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), ReplayError> {
        let Ok(()) = self.digests.begin(attributes);
        self.windower.begin(attributes)
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), ReplayError> {
        let Ok(()) = self.digests.event(event);
        self.windower.event(event)
    }

    fn end(&mut self, complete: bool) -> Result<(), ReplayError> {
        let Ok(()) = self.digests.end(complete);
        self.windower.end(complete)?;
        let digest = self.digests.episodes.pop();
        let recordings = &mut self.windower.sink_mut().recordings;
        // The windower has ended the episode; one without a label left no trace.
        if let (Some(digest), Some(facts)) = (digest, recordings.episodes.last_mut())
            && digest.episode_id.0 == facts.id
        {
            facts.content = digest.content;
        }
        Ok(())
    }
}

/// Puts windows into the store.
#[derive(Debug)]
struct Collector {
    recordings: Recordings,
    /// The labelled episode that is being read.
    open: Option<EpisodeFacts>,
}

impl WindowSink for Collector {
    type Error = ReplayError;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), ReplayError> {
        let recordings = &mut self.recordings;
        let id = attributes.episode_id.0.clone();
        let Some(label) = attributes.label else {
            recordings.unlabelled.push(id);
            return Ok(());
        };
        let group = recordings.groups.intern(attributes.family.as_deref());
        recordings.store.begin(label as u32, group)?;
        self.open = Some(EpisodeFacts {
            id,
            label,
            complete: true,
            located: false,
            events: 0,
            stage_harm: [0.0; 2],
            second_stage: None,
            content: ContentHash([0; 16]),
        });
        Ok(())
    }

    fn window(&mut self, window: &Window<'_>) -> Result<(), ReplayError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let stage = usize::from(window.stage > 1);
        let costs = WindowCosts::of(window, open.stage_harm[stage]);
        let row = self.recordings.store.push(window.state.as_slice(), &[])?;
        if stage == 1 && open.second_stage.is_none() && open.events > 0 {
            open.second_stage = Some(row);
        }
        open.stage_harm[stage] += window.harm[0];
        open.events = window.events_seen;
        open.located |= window.state.as_slice()[element::LOCATED] > 0.0;
        let (last, events_seen) = (window.last, window.events_seen);
        self.recordings.windows.push(WindowFacts { last, events_seen, costs });
        Ok(())
    }

    fn end(&mut self, complete: bool) -> Result<(), ReplayError> {
        if let Some(facts) = self.open.take() {
            self.recordings.store.finish(&[])?;
            self.recordings.episodes.push(EpisodeFacts { complete, ..facts });
        }
        Ok(())
    }
}
