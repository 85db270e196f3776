//! Windows: runs of consecutive events of one stage, with the state, the harm and the breakage at their close.

use serde::{Deserialize, Serialize};

use crate::event::{EpisodeAttributes, Event, EventSink};
use crate::reward::{RewardConfig, Toll};
use crate::spec::{FeatureSpec, Featurizer, StateVector};

/// When a window closes, and how many of them a stage has at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct WindowConfig {
    /// Most events of a window, at least 1. Recordings of bare calls do better with 10 to 20.
    pub max_events: u32,
    /// Most nanoseconds from the first event of a window to its close, at least 1. Fast ransomware creates its tenth
    /// file 10 ms after its first event. Without effect where events have no time.
    pub max_ns: u64,
    /// Most windows of a stage, 0 for no limit: what follows is not seen, and the last one asks for a verdict.
    pub max_windows: u32,
}

impl Default for WindowConfig {
    fn default() -> Self {
        WindowConfig { max_events: 16, max_ns: 100_000_000, max_windows: 0 }
    }
}

/// A limit of a window that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WindowConfigError {
    /// A limit is zero.
    #[error("window.{key} is 0; a window needs room for at least one event: set it to 1 or more")]
    Zero {
        /// Name of the key.
        key: &'static str,
    },
}

impl WindowConfig {
    /// Refuses limits under which no window could hold an event.
    ///
    /// # Errors
    /// [`WindowConfigError::Zero`] with the key.
    pub fn validate(&self) -> Result<(), WindowConfigError> {
        match (self.max_events, self.max_ns) {
            (0, _) => Err(WindowConfigError::Zero { key: "max_events" }),
            (_, 0) => Err(WindowConfigError::Zero { key: "max_ns" }),
            _ => Ok(()),
        }
    }
}

/// Isolation levels, 0 to 3.
pub const LEVELS: usize = 4;

/// One closed window.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
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
    /// State at the close.
    pub state: &'a StateVector,
    /// Harm that the events of the window do at each isolation level, if the sample is malicious; raw sums of weights.
    pub harm: [f32; LEVELS],
    /// Breakage at each isolation level, if the sample is benign; raw sums of weights.
    pub breakage: [f32; LEVELS],
    /// No window of this stage follows, or none that may be seen.
    pub last: bool,
    /// The recording ends with this stage. Known, and `true`, only where `last` is.
    pub last_stage: bool,
}

/// Takes the windows of episodes: `begin`, any number of windows in order, `end`.
pub trait WindowSink {
    /// What can go wrong in the sink.
    type Error: std::error::Error + Send + Sync + 'static;

    /// An episode begins.
    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), Self::Error>;
    /// Its next window.
    fn window(&mut self, window: &Window<'_>) -> Result<(), Self::Error>;
    /// The episode is over. `complete` says whether its last window is the end of the run or of what may be seen of
    /// it; an episode of no windows had no events.
    fn end(&mut self, complete: bool) -> Result<(), Self::Error>;
}

/// Cuts episodes into windows as they stream by. Memory is bounded by one window.
///
/// A window is handed on when the next event, stage or end arrives, so that `last` is known. A window closes by time
/// when an event arrives `max_ns` or more after its first one; that event opens the next window. Times that run
/// backwards (several processes, one clock each) close nothing.
#[derive(Clone, Debug)]
pub struct Windower<S> {
    config: WindowConfig,
    reward: RewardConfig,
    featurizer: Featurizer,
    sink: S,
    stage: u8,
    index: u32,
    events_seen: u64,
    open: OpenWindow,
    pending: bool,
    capped: bool,
}

/// What the events of the window added up to.
#[derive(Clone, Copy, Debug, Default)]
struct OpenWindow {
    events: u32,
    first_ns: Option<u64>,
    last_ns: Option<u64>,
    toll: Toll,
}

impl<S: WindowSink> Windower<S> {
    /// A windower that hands its windows to `sink`. Zero limits count as 1; [`WindowConfig::validate`] refuses them.
    pub fn new(config: &WindowConfig, reward: &RewardConfig, sink: S) -> Windower<S> {
        let config =
            WindowConfig { max_events: config.max_events.max(1), max_ns: config.max_ns.max(1), ..config.clone() };
        Windower {
            featurizer: Featurizer::new(FeatureSpec::v1(config.clone())),
            config,
            reward: reward.clone(),
            sink,
            stage: 1,
            index: 0,
            events_seen: 0,
            open: OpenWindow::default(),
            pending: false,
            capped: false,
        }
    }

    /// The specification of the states.
    pub fn spec(&self) -> &FeatureSpec {
        self.featurizer.spec()
    }

    /// The sink.
    pub fn sink(&self) -> &S {
        &self.sink
    }

    /// The sink, to change.
    pub fn sink_mut(&mut self) -> &mut S {
        &mut self.sink
    }

    /// The sink, and the end of the windower.
    pub fn into_sink(self) -> S {
        self.sink
    }

    /// Closes the open window, if it has events; it is then pending.
    fn close(&mut self) {
        if self.open.events > 0 && !self.pending {
            self.featurizer.close_window();
            self.pending = true;
            self.capped = self.config.max_windows > 0 && self.index + 1 >= self.config.max_windows;
        }
    }

    /// Hands on the pending window, if there is one.
    fn emit(&mut self, last: bool, last_stage: bool) -> Result<(), S::Error> {
        if !self.pending {
            return Ok(());
        }
        self.pending = false;
        let open = std::mem::take(&mut self.open);
        let window = Window {
            stage: self.stage,
            index: self.index,
            events: open.events,
            events_seen: self.events_seen,
            time_ns: open.last_ns,
            state: self.featurizer.state(),
            harm: open.toll.harm,
            breakage: open.toll.breakage,
            last,
            last_stage,
        };
        self.index += 1;
        self.sink.window(&window)
    }

    fn start_stage(&mut self, stage: u8) {
        self.stage = stage;
        self.index = 0;
        self.open = OpenWindow::default();
        self.pending = false;
        self.capped = false;
        self.featurizer.begin(stage, self.config.max_windows);
    }
}

impl<S: WindowSink> EventSink for Windower<S> {
    type Error = S::Error;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), S::Error> {
        self.events_seen = 0;
        self.start_stage(1);
        self.sink.begin(attributes)
    }

    #[inline]
    fn event(&mut self, event: &Event<'_>) -> Result<(), S::Error> {
        if event.stage != self.stage {
            self.close();
            self.emit(true, false)?;
            self.start_stage(event.stage);
        }
        if let (Some(first), Some(now)) = (self.open.first_ns, event.time_ns)
            && now.saturating_sub(first) >= self.config.max_ns
        {
            self.close();
        }
        if self.pending {
            if self.capped {
                return Ok(());
            }
            self.emit(false, false)?;
        }
        let facts = self.featurizer.observe(event);
        self.events_seen += 1;
        self.open.events += 1;
        if let Some(now) = event.time_ns {
            self.open.first_ns.get_or_insert(now);
            self.open.last_ns = Some(self.open.last_ns.map_or(now, |last| last.max(now)));
        }
        self.open.toll.add(&self.reward, &facts);
        if self.open.events >= self.config.max_events {
            self.close();
        }
        Ok(())
    }

    fn end(&mut self, complete: bool) -> Result<(), S::Error> {
        self.close();
        let whole = complete || self.pending && self.capped;
        self.emit(true, true)?;
        self.sink.end(whole)
    }
}
