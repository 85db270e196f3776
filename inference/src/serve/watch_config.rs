//! What an operator says about how new models are looked for, compared and watched.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ServeError;
use crate::watch::{ShadowOptions, WatchOptions, WindowOptions};

/// How whoever runs the server looks for new models. The server itself looks for none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchConfig {
    /// Milliseconds between two looks.
    pub poll_ms: u64,
    /// How long a release that seems unfinished must stay as it is before it is refused, in milliseconds.
    pub settle_ms: u64,
    /// The file of what a restart must know; none begins anew at every start.
    pub memory: Option<PathBuf>,
    /// The comparison with the champion before a swap.
    pub shadow: ShadowConfig,
    /// The watch over a model after its swap.
    pub window: WindowConfig,
}

/// The comparison of a new model with the champion, before it decides anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShadowConfig {
    /// How long it lasts at most, in milliseconds; 0 swaps without a comparison.
    pub time_ms: u64,
    /// It ends after so many states.
    pub states: u64,
    /// The least share of them in which both must choose the same action.
    pub min_agreement: f64,
    /// Whether a model is refused for which too few states came in time.
    pub demand_states: bool,
}

/// The watch over a model after its swap, at the end of which it stays or is taken back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WindowConfig {
    /// How long it lasts, in milliseconds; 0 watches over none.
    pub time_ms: u64,
    /// The largest share of the states in which it may choose another action than the model before it.
    pub max_disagreement: f64,
    /// States before that share means anything.
    pub min_states: u64,
    /// The longest that the 99th percentile of its timed decisions may take, in microseconds; 0 for any.
    pub latency_p99_us: u64,
    /// Timed decisions before that percentile means anything.
    pub min_timed: u64,
}

impl Default for WatchConfig {
    fn default() -> Self {
        let WatchOptions { poll, settle, .. } = WatchOptions::default();
        let (shadow, window) = (ShadowConfig::default(), WindowConfig::default());
        WatchConfig { poll_ms: millis(poll), settle_ms: millis(settle), memory: None, shadow, window }
    }
}

impl Default for ShadowConfig {
    fn default() -> Self {
        let ShadowOptions { states, time: _, min_agreement, demand_states } = ShadowOptions::default();
        ShadowConfig { time_ms: 0, states, min_agreement, demand_states }
    }
}

impl Default for WindowConfig {
    fn default() -> Self {
        let WindowOptions { time, max_disagreement, min_states, latency_p99, min_timed } = WindowOptions::default();
        let latency_p99_us = latency_p99.map_or(0, |limit| u64::try_from(limit.as_micros()).unwrap_or(u64::MAX));
        WindowConfig { time_ms: millis(time), max_disagreement, min_states, latency_p99_us, min_timed }
    }
}

impl WatchConfig {
    /// The same in the words of a watcher, with everything else as by default.
    pub fn options(&self) -> WatchOptions {
        let ms = Duration::from_millis;
        let ShadowConfig { time_ms, states, min_agreement, demand_states } = self.shadow;
        let shadow = ShadowOptions { states, time: ms(time_ms), min_agreement, demand_states };
        let WindowConfig { time_ms: lasts_ms, max_disagreement, min_states, latency_p99_us, min_timed } = self.window;
        let latency_p99 = (latency_p99_us > 0).then(|| Duration::from_micros(latency_p99_us));
        let window = WindowOptions { time: ms(lasts_ms), max_disagreement, min_states, latency_p99, min_timed };
        WatchOptions {
            poll: ms(self.poll_ms),
            settle: ms(self.settle_ms),
            shadow: (time_ms > 0).then_some(shadow),
            window: (lasts_ms > 0).then_some(window),
            memory: self.memory.clone(),
            ..WatchOptions::default()
        }
    }

    pub(super) fn validate(&self) -> Result<(), ServeError> {
        self.options().validate().map_err(|error| {
            let key = match error.option {
                "poll" => "watch.poll_ms",
                "settle" => "watch.settle_ms",
                "shadow.states" => "watch.shadow.states",
                "shadow.time" => "watch.shadow.time_ms",
                "shadow.min_agreement" => "watch.shadow.min_agreement",
                "window.time" => "watch.window.time_ms",
                "window.max_disagreement" => "watch.window.max_disagreement",
                "window.min_states" => "watch.window.min_states",
                "window.min_timed" => "watch.window.min_timed",
                "window.latency_p99" => "watch.window.latency_p99_us",
                _ => "watch",
            };
            ServeError::Config { key, reason: format!("it is {}: give {}", error.found, error.range) }
        })
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_a_watcher() {
        let (found, expected) = (WatchConfig::default().options(), WatchOptions::default());
        assert_eq!((found.poll, found.settle, found.shadow), (expected.poll, expected.settle, expected.shadow));
        assert_eq!(found.window, expected.window);
        assert!(WatchConfig::default().validate().is_ok());
    }

    #[test]
    fn every_key_reaches_the_watcher_or_is_refused_by_its_name() {
        let check = |change: &dyn Fn(&mut WatchConfig), expected: &str| {
            let mut config = WatchConfig::default();
            change(&mut config);
            match config.validate() {
                Err(ServeError::Config { key, reason }) => assert!(key == expected && reason.contains("give"), "{key}"),
                other => panic!("{expected}: {other:?}"),
            }
        };
        check(&|config| config.poll_ms = 0, "watch.poll_ms");
        check(&|config| config.settle_ms = u64::MAX, "watch.settle_ms");
        check(&|config| (config.shadow.time_ms, config.shadow.states) = (1, 0), "watch.shadow.states");
        check(&|config| config.shadow.time_ms = u64::MAX, "watch.shadow.time_ms");
        check(&|config| (config.shadow.time_ms, config.shadow.min_agreement) = (1, 1.5), "watch.shadow.min_agreement");
        check(&|config| config.window.time_ms = u64::MAX, "watch.window.time_ms");
        check(&|config| config.window.max_disagreement = f64::NAN, "watch.window.max_disagreement");
        check(&|config| config.window.min_states = 0, "watch.window.min_states");
        check(&|config| config.window.min_timed = 0, "watch.window.min_timed");
        check(&|config| config.window.latency_p99_us = u64::MAX, "watch.window.latency_p99_us");
        let mut config = WatchConfig::default();
        (config.window.time_ms, config.window.min_states, config.shadow.time_ms) = (0, 0, 7);
        let options = config.options();
        assert_eq!((options.window, options.shadow.map(|shadow| shadow.time)), (None, Some(Duration::from_millis(7))));
        assert_eq!(options.validate(), Ok(()));
    }
}
