//! Complete recordings as an environment.
//!
//! Stopping or going on does not change what was recorded, so a recording answers both exactly. Isolation it can only
//! model: harm scaled, breakage charged (see [`crate::reward`]); headline figures mask `raise_isolation`.

mod environment;
mod pace;
mod vector;

use crate::action::{ACTION_COUNT, Action, ActionMask, mask};
use crate::event::{EpisodeAttributes, Label};
use crate::reward::{Parts, RewardConfig, Situation, WindowCosts};
use crate::spec::{WIDTH, element, encode_cost, encode_level};
use crate::window::{Window, WindowSink};

pub use environment::{RecordedEnvironment, RecordedError, RecordedOptions};
pub use pace::{Pace, RealTime, ThreadPace};
pub use vector::RecordedVector;

/// One recorded window without its state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecordedWindow {
    /// Stage, 1 or 2.
    pub stage: u8,
    /// Position within the stage, from 0.
    pub index: u32,
    /// Events of the window.
    pub events: u32,
    /// Events of the episode up to the close, over both stages.
    pub events_seen: u64,
    /// Time of the last event, in nanoseconds since the stage began.
    pub time_ns: Option<u64>,
    /// What the window costs the one who lets it happen.
    pub costs: WindowCosts,
    /// Sum of the harm at level 0 over the windows of its stage after this one.
    pub harm_to_come: f32,
    /// No window of this stage follows.
    pub last: bool,
}

/// One recorded episode.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// What is constant over the episode.
    pub attributes: EpisodeAttributes,
    /// What the sample is.
    pub label: Label,
    /// Its windows, as numbers into [`Recordings::window`]; at least one.
    pub windows: std::ops::Range<usize>,
    /// The last window is the end of the run; otherwise the run was cut off there.
    pub complete: bool,
}

/// Many recordings in memory: windows in columns, states in sparse rows (6 bytes per element that is not 0).
#[derive(Clone, Debug, Default)]
pub struct Recordings {
    episodes: Vec<Recording>,
    windows: Vec<RecordedWindow>,
    episode_of: Vec<u32>,
    /// For each window the one behind its stage; of episodes that are over alone.
    stage_end: Vec<usize>,
    offsets: Vec<usize>,
    places: Vec<u16>,
    values: Vec<f32>,
    unlabelled: u64,
    empty: u64,
}

/// What a recording answers about one action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecordedAnswer {
    /// The reward.
    pub parts: Parts,
    /// The window that the action leads to; `None` where it ends the episode.
    pub next: Option<usize>,
    /// Isolation level in force there.
    pub next_level: u8,
}

impl Recordings {
    /// The episodes in the order of their arrival.
    pub fn episodes(&self) -> &[Recording] {
        &self.episodes
    }

    /// Number of windows of all episodes.
    pub fn window_count(&self) -> usize {
        self.windows.len()
    }

    /// Episodes that were left out because they have no label.
    pub fn unlabelled(&self) -> u64 {
        self.unlabelled
    }

    /// Episodes that were left out because they have no event.
    pub fn empty(&self) -> u64 {
        self.empty
    }

    /// A window by number.
    ///
    /// # Panics
    /// If `window` is not below [`Recordings::window_count`].
    pub fn window(&self, window: usize) -> &RecordedWindow {
        &self.windows[window]
    }

    /// The number of the episode that a window belongs to.
    ///
    /// # Panics
    /// If `window` is not below [`Recordings::window_count`].
    pub fn episode_of(&self, window: usize) -> usize {
        self.episode_of[window] as usize
    }

    /// Writes the recorded state of a window into `out`, with `z` and `level` in their places.
    ///
    /// # Panics
    /// If `window` is out of range or `out` does not have [`WIDTH`] elements.
    pub fn write_state(&self, window: usize, level: u8, z: f32, out: &mut [f32]) {
        assert_eq!(out.len(), WIDTH, "a state has {WIDTH} elements");
        out.fill(0.0);
        let row = self.offsets[window]..self.offsets[window + 1];
        for (place, value) in self.places[row.clone()].iter().zip(&self.values[row]) {
            out[usize::from(*place)] = *value;
        }
        out[element::COST] = encode_cost(z);
        out[element::LEVEL] = encode_level(level);
    }

    /// Whether the run was cut off at the end of this window.
    ///
    /// # Panics
    /// If `window` is out of range.
    pub fn is_cut(&self, window: usize) -> bool {
        let recording = &self.episodes[self.episode_of(window)];
        !recording.complete && window + 1 == recording.windows.end
    }

    /// The mask in a window at an isolation level; `can_raise` says whether isolation may be raised at all.
    ///
    /// # Panics
    /// If `window` is out of range.
    pub fn mask(&self, window: usize, level: u8, can_raise: bool) -> ActionMask {
        mask(self.windows[window].last, can_raise && level < 3)
    }

    /// The first window of the next stage, if a window's episode has one.
    fn next_stage(&self, window: usize) -> Option<usize> {
        let next = self.stage_end[window];
        (next < self.episodes[self.episode_of(window)].windows.end).then_some(next)
    }

    /// What the recording answers about `action` in a window at an isolation level; `None` where it has no answer.
    ///
    /// # Panics
    /// If `window` is out of range.
    pub fn answer(&self, reward: &RewardConfig, window: usize, level: u8, action: Action) -> Option<RecordedAnswer> {
        let here = &self.windows[window];
        let next = (!here.last).then_some(window + 1);
        let next_stage = self.next_stage(window);
        let situation = Situation {
            label: self.episodes[self.episode_of(window)].label,
            level,
            next: next.map(|next| &self.windows[next].costs),
            next_stage: next_stage.map(|next| &self.windows[next].costs),
            harm_so_far: here.costs.harm_before + here.costs.harm[0],
            harm_to_come: here.harm_to_come,
        };
        let parts = reward.answer(&situation, action)?;
        let led = action.leads_to(level, next, next_stage);
        let (next, next_level) = led.map_or((None, level), |(window, level)| (Some(window), level));
        Some(RecordedAnswer { parts, next, next_level })
    }

    /// What the recording answers about every action, by number.
    ///
    /// # Panics
    /// If `window` is out of range.
    pub fn answers(&self, reward: &RewardConfig, window: usize, level: u8) -> [Option<RecordedAnswer>; ACTION_COUNT] {
        Action::ALL.map(|action| self.answer(reward, window, level, action))
    }
}

/// Collects the windows of episodes into [`Recordings`]; use it as the sink of a [`crate::Windower`].
///
/// Episodes without a label or without an event are left out and counted.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    recordings: Recordings,
    attributes: Option<EpisodeAttributes>,
    first: usize,
    has_events: bool,
}

impl Collector {
    /// An empty collector.
    pub fn new() -> Collector {
        let mut collector = Collector::default();
        collector.recordings.offsets.push(0);
        collector
    }

    /// What was collected, but for an episode that has not ended.
    pub fn into_recordings(mut self) -> Recordings {
        self.forget_open_episode();
        self.recordings
    }

    fn forget_open_episode(&mut self) {
        let recordings = &mut self.recordings;
        recordings.windows.truncate(self.first);
        recordings.episode_of.truncate(self.first);
        recordings.offsets.truncate(self.first + 1);
        let values = recordings.offsets.last().copied().unwrap_or(0);
        recordings.places.truncate(values);
        recordings.values.truncate(values);
    }

    /// Finds the end of each stage of the episode that ended.
    fn find_stages(recordings: &mut Recordings) {
        for stage in recordings.windows[recordings.stage_end.len()..].chunk_by(|a, b| a.stage == b.stage) {
            let end = recordings.stage_end.len() + stage.len();
            recordings.stage_end.resize(end, end);
        }
    }

    /// Adds up, from the end of each stage, the harm that is still to come.
    fn sum_harm(windows: &mut [RecordedWindow]) {
        let mut stage = None;
        let mut to_come = 0.0;
        for window in windows.iter_mut().rev() {
            if stage != Some(window.stage) {
                stage = Some(window.stage);
                to_come = 0.0;
            }
            window.harm_to_come = to_come;
            to_come += window.costs.harm[0];
        }
    }
}

impl WindowSink for Collector {
    type Error = RecordedError;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), RecordedError> {
        self.forget_open_episode();
        self.attributes = Some(attributes.clone());
        self.has_events = false;
        Ok(())
    }

    fn window(&mut self, window: &Window<'_>) -> Result<(), RecordedError> {
        self.has_events = true;
        if self.attributes.as_ref().is_none_or(|attributes| attributes.label.is_none()) {
            return Ok(());
        }
        let recordings = &mut self.recordings;
        let episode = u32::try_from(recordings.episodes.len()).map_err(|_| RecordedError::TooMany)?;
        let before = recordings.windows[self.first..].last().filter(|before| before.stage == window.stage);
        let harm_before = before.map_or(0.0, |before| before.costs.harm_before + before.costs.harm[0]);
        recordings.windows.push(RecordedWindow {
            stage: window.stage,
            index: window.index,
            events: window.events,
            events_seen: window.events_seen,
            time_ns: window.time_ns,
            costs: WindowCosts::of(window, harm_before),
            harm_to_come: 0.0,
            last: window.last,
        });
        recordings.episode_of.push(episode);
        for (place, value) in (0_u16..).zip(window.state.as_slice()) {
            if *value != 0.0 {
                recordings.places.push(place);
                recordings.values.push(*value);
            }
        }
        recordings.offsets.push(recordings.places.len());
        Ok(())
    }

    fn end(&mut self, complete: bool) -> Result<(), RecordedError> {
        let Some(attributes) = self.attributes.take() else { return Ok(()) };
        match attributes.label {
            _ if !self.has_events => self.recordings.empty += 1,
            None => self.recordings.unlabelled += 1,
            Some(label) => {
                let last = self.recordings.windows.len();
                let recordings = &mut self.recordings;
                Self::sum_harm(&mut recordings.windows[self.first..]);
                Self::find_stages(recordings);
                recordings.episodes.push(Recording { attributes, label, windows: self.first..last, complete });
                self.first = last;
            }
        }
        Ok(())
    }
}
