//! Windows of a stage that still runs: each is closed as early as it can be, since somebody waits for the decision.

use crate::event::Event;
use crate::reward::{RewardConfig, Toll};
use crate::spec::{FeatureSpec, Featurizer, StateVector};
use crate::window::WindowConfig;

/// Cuts a running stage into windows.
///
/// The windows and states are those of [`Windower`](crate::Windower) on the same events, save that a window is handed on when it
/// closes and not when the next event arrives: that it was the last one is known only where the cap or the end closed it.
#[derive(Clone, Debug)]
pub struct LiveWindows {
    config: WindowConfig,
    reward: Option<RewardConfig>,
    toll: Toll,
    featurizer: Featurizer,
    stage: u8,
    index: u32,
    events: u32,
    first_ns: Option<u64>,
    level: u8,
    seen: u64,
    unseen: u64,
}

/// A window that has just closed.
#[derive(Debug)]
pub struct LiveWindow<'a> {
    /// Stage, 1 or 2.
    pub stage: u8,
    /// Position within the stage, from 0.
    pub index: u32,
    /// Events of the window.
    pub events: u32,
    /// No window of this stage follows: a verdict must fall.
    pub last: bool,
    /// Isolation level in force, as the events last said.
    pub level: u8,
    /// What its events do; nothing unless rewards are kept ([`LiveWindows::with_reward`]).
    pub toll: Toll,
    /// State at the close; its cost is for the caller to set.
    pub state: &'a mut StateVector,
}

impl LiveWindows {
    /// Windows of these limits; stage 1 begins. Zero limits count as 1, save for the cap.
    pub fn new(config: &WindowConfig) -> LiveWindows {
        let config =
            WindowConfig { max_events: config.max_events.max(1), max_ns: config.max_ns.max(1), ..config.clone() };
        let mut windows = LiveWindows {
            featurizer: Featurizer::new(FeatureSpec::v1(config.clone())),
            config,
            reward: None,
            toll: Toll::default(),
            stage: 1,
            index: 0,
            events: 0,
            first_ns: None,
            level: 0,
            seen: 0,
            unseen: 0,
        };
        windows.begin(1);
        windows
    }

    /// Windows that say what their events do by these weights.
    #[must_use]
    pub fn with_reward(self, reward: RewardConfig) -> LiveWindows {
        LiveWindows { reward: Some(reward), ..self }
    }

    /// Begins a stage, 1 or 2; its counters start fresh. A window that was open is forgotten: [`LiveWindows::end`] closes it.
    pub fn begin(&mut self, stage: u8) {
        (self.stage, self.index, self.events, self.first_ns, self.level) = (stage, 0, 0, None, 0);
        self.toll = Toll::default();
        self.featurizer.begin(stage, self.config.max_windows);
    }

    /// Events that were taken, over all stages.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Events past the cap of a stage, over all stages: they were not looked at.
    pub fn unseen(&self) -> u64 {
        self.unseen
    }

    /// Takes the next event of the stage. It may close the window before it, by its time, and its own, by their number.
    pub fn event(&mut self, event: &Event<'_>, mut closed: impl FnMut(LiveWindow<'_>)) {
        if let Some(now) = event.time_ns {
            self.tick(now, &mut closed);
        }
        if self.is_capped() {
            self.unseen += 1;
            return;
        }
        let facts = self.featurizer.observe(event);
        if let Some(reward) = &self.reward {
            self.toll.add(reward, &facts);
        }
        self.seen += 1;
        self.events += 1;
        self.first_ns = self.first_ns.or(event.time_ns);
        self.level = event.isolation.unwrap_or(self.level);
        if self.events >= self.config.max_events {
            self.close(false, &mut closed);
        }
    }

    /// Says what time it is, in nanoseconds since the stage began: a window that has lasted long enough is closed.
    pub fn tick(&mut self, now_ns: u64, mut closed: impl FnMut(LiveWindow<'_>)) {
        if self.first_ns.is_some_and(|first| now_ns.saturating_sub(first) >= self.config.max_ns) {
            self.close(false, &mut closed);
        }
    }

    /// Ends the stage: a window that is open is closed, as the last one.
    pub fn end(&mut self, mut closed: impl FnMut(LiveWindow<'_>)) {
        self.close(true, &mut closed);
    }

    /// Whether the last window that may be seen is closed.
    fn is_capped(&self) -> bool {
        self.config.max_windows > 0 && self.index >= self.config.max_windows
    }

    fn close(&mut self, end: bool, closed: &mut impl FnMut(LiveWindow<'_>)) {
        if self.events == 0 {
            return;
        }
        self.featurizer.close_window();
        let (index, events) = (self.index, std::mem::take(&mut self.events));
        let toll = std::mem::take(&mut self.toll);
        self.index += 1;
        self.first_ns = None;
        let last = end || self.is_capped();
        let state = self.featurizer.state_mut();
        closed(LiveWindow { stage: self.stage, index, events, last, level: self.level, toll, state });
    }
}
