//! Windows and states over arbitrary episodes.

mod any_event;

use std::sync::LazyLock;

use any_event::{attributes, episode, event};
use bellwether_env_adapter::spec::{WIDTH, element, group};
use bellwether_env_adapter::{
    EpisodeAttributes, Event, EventBuf, EventKind, EventSink, FeatureSpec, Featurizer, RewardConfig, Window,
    WindowConfig, WindowSink, Windower,
};
use proptest::prelude::*;

/// What a window said, owned.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    stage: u8,
    index: u32,
    events: u32,
    events_seen: u64,
    state: Vec<f32>,
    harm: [f32; 4],
    breakage: [f32; 4],
    last: bool,
    last_stage: bool,
}

#[derive(Default)]
struct Keep {
    windows: Vec<Kept>,
    ends: Vec<bool>,
}

impl WindowSink for Keep {
    type Error = std::convert::Infallible;

    fn begin(&mut self, _: &EpisodeAttributes) -> Result<(), Self::Error> {
        Ok(())
    }
    fn window(&mut self, window: &Window<'_>) -> Result<(), Self::Error> {
        self.windows.push(Kept {
            stage: window.stage,
            index: window.index,
            events: window.events,
            events_seen: window.events_seen,
            state: window.state.as_slice().to_vec(),
            harm: window.harm,
            breakage: window.breakage,
            last: window.last,
            last_stage: window.last_stage,
        });
        Ok(())
    }
    fn end(&mut self, complete: bool) -> Result<(), Self::Error> {
        self.ends.push(complete);
        Ok(())
    }
}

fn run(config: &WindowConfig, events: &[EventBuf], complete: bool) -> Keep {
    let mut windower = Windower::new(config, &RewardConfig::default(), Keep::default());
    feed(&mut windower, events, complete);
    windower.into_sink()
}

fn feed(windower: &mut Windower<Keep>, events: &[EventBuf], complete: bool) {
    let Ok(()) = windower.begin(&attributes("e"));
    for event in events {
        let Ok(()) = windower.event(&event.as_event());
    }
    let Ok(()) = windower.end(complete);
}

fn config() -> impl Strategy<Value = WindowConfig> {
    let max_ns = prop_oneof![Just(u64::MAX), 1_u64..1_000_000_000];
    (1_u32..70, max_ns, 0_u32..6).prop_map(|(max_events, max_ns, max_windows)| WindowConfig {
        max_events,
        max_ns,
        max_windows,
    })
}

/// The names of all elements: each costs a look through the whole table.
fn element_names() -> &'static [String] {
    static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
        let spec = FeatureSpec::v1(WindowConfig::default());
        (0..WIDTH).map(|index| spec.name(index).unwrap_or_default()).collect()
    });
    &NAMES
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn states_keep_their_width_and_range(config in config(), events in episode(120)) {
        for window in run(&config, &events, true).windows {
            prop_assert_eq!(window.state.len(), WIDTH);
            for (index, value) in window.state.iter().enumerate() {
                prop_assert!((0.0..=1.0).contains(value), "element {index} is {value}");
            }
            for level in 0..4 {
                prop_assert!(window.harm[level].is_finite() && window.harm[level] >= 0.0);
                prop_assert!(window.breakage[level].is_finite() && window.breakage[level] >= 0.0);
                prop_assert!(level == 0 || window.harm[level] <= window.harm[level - 1]);
                prop_assert!(level == 0 || window.breakage[level] >= window.breakage[level - 1]);
            }
        }
    }

    #[test]
    fn windows_cover_every_event_once(mut config in config(), events in episode(150)) {
        config.max_windows = 0;
        let kept = run(&config, &events, true);
        prop_assert_eq!(kept.ends, vec![true]);
        let seen: u64 = kept.windows.iter().map(|window| u64::from(window.events)).sum();
        prop_assert_eq!(seen, events.len() as u64);
        let mut sum = 0;
        for (at, window) in kept.windows.iter().enumerate() {
            sum += u64::from(window.events);
            let next = kept.windows.get(at + 1);
            prop_assert!(window.events >= 1 && window.events <= config.max_events);
            prop_assert_eq!(window.events_seen, sum);
            prop_assert_eq!(window.last, next.is_none_or(|next| next.stage != window.stage));
            prop_assert_eq!(window.last_stage, next.is_none());
            let first = at == 0 || kept.windows[at - 1].stage != window.stage;
            prop_assert_eq!(window.index, if first { 0 } else { kept.windows[at - 1].index + 1 });
        }
    }

    #[test]
    fn a_cap_shows_a_prefix(mut config in config(), cap in 1_u32..5, events in episode(150), complete: bool) {
        config.max_windows = 0;
        let whole = run(&config, &events, complete);
        config.max_windows = cap;
        let capped = run(&config, &events, complete);
        let expected: Vec<_> = whole.windows.iter().filter(|window| window.index < cap).collect();
        prop_assert_eq!(capped.windows.len(), expected.len());
        for (window, expected) in capped.windows.iter().zip(&expected) {
            prop_assert_eq!((window.stage, window.index, window.events), (expected.stage, expected.index, expected.events));
            prop_assert_eq!(window.last, expected.last || window.index + 1 == cap);
            for (index, (found, wanted)) in window.state.iter().zip(&expected.state).enumerate() {
                prop_assert!(index == element::CAP_LEFT || found == wanted);
            }
        }
        // What lies beyond the cap is not seen, so a cut recording is whole up to there.
        let cut_by_cap = capped.windows.last().is_some_and(|window| window.index + 1 == cap);
        prop_assert_eq!(capped.ends, vec![complete || cut_by_cap]);
    }

    #[test]
    fn an_episode_leaves_nothing_behind(config in config(), first in episode(80), second in episode(80)) {
        let mut windower = Windower::new(&config, &RewardConfig::default(), Keep::default());
        feed(&mut windower, &first, true);
        windower.sink_mut().windows.clear();
        feed(&mut windower, &second, true);
        prop_assert_eq!(&windower.into_sink().windows, &run(&config, &second, true).windows);
    }

    #[test]
    fn a_missing_field_is_zero_and_shifts_nothing(names in prop::collection::vec(prop::sample::select(&any_event::NAMES[..]), 1..100)) {
        // Nothing but names: every element that needs a path, a peer, a size or a time stays 0.
        let mut featurizer = Featurizer::new(FeatureSpec::v1(WindowConfig::default()));
        for (seq, name) in names.iter().enumerate() {
            featurizer.observe(&Event::named(seq as u64, EventKind::Syscall, name));
        }
        let state = featurizer.close_window();
        let silent = [
            "bytes", "decoy", "credential", "persistence", "foreign", "entropy", "new_folder", "new_file", "new_peer",
            "new_port", "slept", "self_deleted", "log_removed", "overwrite", "denied", "elapsed", "rate", "window_time",
            "timed", "located", "depth", "hidden", "extension", "isolation", "cost", "anomaly", "intelligence",
        ];
        for (name, value) in element_names().iter().zip(state.as_slice()) {
            if silent.iter().any(|part| name.contains(part)) && name != "window.inject_rate" {
                prop_assert!(*value == 0.0, "{name} is {value}");
            }
        }
        let calls: f32 = state.as_slice()[group::CALLS..group::PAIRS].iter().sum();
        prop_assert!(calls > 0.0);
    }

    #[test]
    fn one_more_event_changes_no_earlier_state(config in config(), events in episode(60), more in event()) {
        let before = run(&config, &events, true).windows;
        let mut longer = events;
        let stage = longer.last().map_or(1, |event| event.stage);
        longer.push(EventBuf { stage, ..more });
        let after = run(&config, &longer, true).windows;
        for (early, late) in before.iter().zip(&after).take(before.len().saturating_sub(1)) {
            prop_assert_eq!(&early.state, &late.state);
        }
    }
}

#[test]
fn an_empty_episode_has_no_window() {
    let kept = run(&WindowConfig::default(), &[], true);
    assert!(kept.windows.is_empty());
    assert_eq!(kept.ends, [true]);
}

#[test]
fn windows_close_by_time() {
    let at =
        |time_ns: u64| EventBuf { time_ns: Some(time_ns), ..EventBuf::from(&Event::named(0, EventKind::File, "read")) };
    let config = WindowConfig { max_events: 10, max_ns: 100, max_windows: 0 };
    let kept = run(&config, &[at(0), at(99), at(100), at(150), at(350), at(10)], true);
    let events: Vec<_> = kept.windows.iter().map(|window| window.events).collect();
    assert_eq!(events, [2, 2, 2]);
}
