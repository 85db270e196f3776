//! What a watcher is told before it starts.

use std::path::PathBuf;
use std::time::Duration;

use bellwether_artifact::keys::TrustedKeys;
use bellwether_artifact::release::MAX_ONNX_BYTES;
use thiserror::Error;

use super::{ShadowOptions, WindowOptions};
use crate::engine::Isa;
use crate::model::limits;
use crate::release::Engines;

/// How a source is watched.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// Time between two looks at the source.
    pub poll: Duration,
    /// How long the files of a release that seems unfinished (cut short, or not yet what the manifest says) must stay as they
    /// are before it is refused. A release without a manifest or a network is waited for without end.
    pub settle: Duration,
    /// Largest network file that is looked at, in bytes.
    pub max_bytes: usize,
    /// Keys whose signatures are believed. Where there are some, an unsigned release is refused; `None` takes any release.
    pub trusted: Option<TrustedKeys>,
    /// What may evaluate the models.
    pub engines: Engines,
    /// Compares a model with the champion before it decides anything; `None` swaps at once.
    pub shadow: Option<ShadowOptions>,
    /// Watches a model after a swap and takes it back when it fails; `None` leaves that to the operator.
    pub window: Option<WindowOptions>,
    /// The file of what a restart must know, one for each watcher: what is served, whether it is pinned, and what was rolled back.
    /// `None` begins anew at every start.
    pub memory: Option<PathBuf>,
    /// Time between two looks at the states that were set aside, while two models are compared.
    pub step: Duration,
}

/// An option that is out of its range.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{option} is {found}: give {range}")]
pub struct OptionError {
    /// Its name, such as `shadow.states`.
    pub option: &'static str,
    /// What was given.
    pub found: String,
    /// What may be given.
    pub range: String,
}

/// Longest time that an option may give.
const DAY: Duration = Duration::from_secs(86_400);

impl Default for WatchOptions {
    /// A look every second, five seconds for a copy to go on, networks of up to [`limits::MAX_BYTES`], any release, no
    /// comparison before a swap and one of a minute after it.
    fn default() -> Self {
        WatchOptions {
            poll: Duration::from_secs(1),
            settle: Duration::from_secs(5),
            max_bytes: limits::MAX_BYTES,
            trusted: None,
            engines: Isa::best().into(),
            shadow: None,
            window: Some(WindowOptions::default()),
            memory: None,
            step: Duration::from_millis(20),
        }
    }
}

impl WatchOptions {
    /// Refuses what would spin, never end or never mean anything: no time between two looks, no states to compare, a share that is
    /// none.
    ///
    /// # Errors
    /// The first option that is out of its range.
    pub fn validate(&self) -> Result<(), OptionError> {
        let ms = Duration::from_millis;
        time("poll", self.poll, ms(1), DAY)?;
        time("settle", self.settle, Duration::ZERO, DAY)?;
        time("step", self.step, ms(1), Duration::from_secs(60))?;
        count("max_bytes", self.max_bytes as u64, MAX_ONNX_BYTES)?;
        if let Some(ShadowOptions { states, time: lasts, min_agreement, demand_states: _ }) = self.shadow {
            count("shadow.states", states, u64::MAX)?;
            time("shadow.time", lasts, ms(1), DAY)?;
            share("shadow.min_agreement", min_agreement)?;
        }
        if let Some(WindowOptions { time: lasts, max_disagreement, min_states, latency_p99, min_timed }) = self.window {
            time("window.time", lasts, ms(1), DAY)?;
            share("window.max_disagreement", max_disagreement)?;
            count("window.min_states", min_states, u64::MAX)?;
            count("window.min_timed", min_timed, u64::MAX)?;
            if let Some(limit) = latency_p99 {
                time("window.latency_p99", limit, Duration::from_nanos(1), DAY)?;
            }
        }
        Ok(())
    }
}

fn time(option: &'static str, found: Duration, least: Duration, most: Duration) -> Result<(), OptionError> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(OptionError { option, found: format!("{found:?}"), range: format!("{least:?} to {most:?}") })
}

fn count(option: &'static str, found: u64, most: u64) -> Result<(), OptionError> {
    if (1..=most).contains(&found) {
        return Ok(());
    }
    let range = if most == u64::MAX { "1 or more".to_owned() } else { format!("1 to {most}") };
    Err(OptionError { option, found: found.to_string(), range })
}

/// What is no number is no share either.
fn share(option: &'static str, found: f64) -> Result<(), OptionError> {
    if (0.0..=1.0).contains(&found) {
        return Ok(());
    }
    Err(OptionError { option, found: found.to_string(), range: "a share from 0 to 1".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut WatchOptions), expected: Option<&str>) {
        let shadow = Some(ShadowOptions::default());
        let mut options = WatchOptions { shadow, ..WatchOptions::default() };
        change(&mut options);
        let found = options.validate();
        assert_eq!(found.as_ref().err().map(|error| error.option), expected, "{found:?}");
        assert!(found.map_err(|error| error.to_string()).err().is_none_or(|text| text.contains(": give ")));
    }

    #[test]
    fn what_would_spin_or_mean_nothing_is_refused_by_name() {
        fn shadow(change: impl FnOnce(&mut ShadowOptions), expected: Option<&str>) {
            check(|options| change(options.shadow.as_mut().unwrap()), expected);
        }
        fn window(change: impl FnOnce(&mut WindowOptions), expected: Option<&str>) {
            check(|options| change(options.window.as_mut().unwrap()), expected);
        }
        check(|_| {}, None);
        check(|options| (options.shadow, options.window) = (None, None), None);
        check(|options| options.settle = Duration::ZERO, None);
        check(|options| options.poll = Duration::ZERO, Some("poll"));
        check(|options| options.poll = Duration::MAX, Some("poll"));
        check(|options| options.step = Duration::ZERO, Some("step"));
        check(|options| options.settle = Duration::MAX, Some("settle"));
        check(|options| options.max_bytes = 0, Some("max_bytes"));
        check(|options| options.max_bytes = usize::MAX, Some("max_bytes"));
        shadow(|shadow| shadow.states = 0, Some("shadow.states"));
        shadow(|shadow| shadow.time = Duration::ZERO, Some("shadow.time"));
        shadow(|shadow| shadow.min_agreement = 1.01, Some("shadow.min_agreement"));
        shadow(|shadow| shadow.min_agreement = f64::NAN, Some("shadow.min_agreement"));
        shadow(|shadow| shadow.min_agreement = 1.0, None);
        window(|window| window.time = Duration::ZERO, Some("window.time"));
        window(|window| window.max_disagreement = -0.1, Some("window.max_disagreement"));
        window(|window| window.max_disagreement = 0.0, None);
        window(|window| window.min_states = 0, Some("window.min_states"));
        window(|window| window.min_timed = 0, Some("window.min_timed"));
        window(|window| window.latency_p99 = Some(Duration::ZERO), Some("window.latency_p99"));
    }
}
