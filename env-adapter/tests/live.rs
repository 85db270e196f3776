//! Windows of a stage that still runs are those of the same stage read back, each handed on as early as can be.

mod any_event;

use std::convert::Infallible;

use any_event::{attributes, episode};
use bellwether_env_adapter::{
    EpisodeAttributes, EventBuf, EventSink, LiveWindow, LiveWindows, RewardConfig, Window, WindowConfig, WindowSink,
    Windower,
};
use proptest::prelude::*;

/// Stage, position, events, state, and whether a verdict must fall.
type Kept = (u8, u32, u32, Vec<f32>, bool);

#[derive(Default)]
struct Recorded(Vec<Kept>);

impl WindowSink for Recorded {
    type Error = Infallible;

    fn begin(&mut self, _: &EpisodeAttributes) -> Result<(), Infallible> {
        Ok(())
    }

    fn window(&mut self, window: &Window<'_>) -> Result<(), Infallible> {
        let state = window.state.as_slice().to_vec();
        self.0.push((window.stage, window.index, window.events, state, window.last));
        Ok(())
    }

    fn end(&mut self, _: bool) -> Result<(), Infallible> {
        Ok(())
    }
}

fn recorded(config: &WindowConfig, events: &[EventBuf]) -> Vec<Kept> {
    let mut windower = Windower::new(config, &RewardConfig::default(), Recorded::default());
    let Ok(()) = windower.begin(&attributes("e"));
    for event in events {
        let Ok(()) = windower.event(&event.as_event());
    }
    let Ok(()) = windower.end(true);
    windower.into_sink().0
}

/// The windows of a run, and how many were handed on before the stage ended.
fn live(config: &WindowConfig, events: &[EventBuf]) -> (Vec<Kept>, LiveWindows) {
    let mut windows = LiveWindows::new(config);
    let mut kept = Vec::new();
    let mut keep = |window: LiveWindow<'_>| {
        kept.push((window.stage, window.index, window.events, window.state.as_slice().to_vec(), window.last));
    };
    let mut stage = 1;
    for event in events {
        if event.stage != stage {
            windows.end(&mut keep);
            stage = event.stage;
            windows.begin(stage);
        }
        windows.event(&event.as_event(), &mut keep);
    }
    windows.end(&mut keep);
    (kept, windows)
}

fn config() -> impl Strategy<Value = WindowConfig> {
    let max_ns = prop_oneof![Just(u64::MAX), 1_u64..1_000_000_000];
    (1_u32..40, max_ns, 0_u32..6).prop_map(|(max_events, max_ns, max_windows)| WindowConfig {
        max_events,
        max_ns,
        max_windows,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn live_windows_are_the_recorded_ones(config in config(), events in episode(150)) {
        let expected = recorded(&config, &events);
        let (found, windows) = live(&config, &events);
        prop_assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            prop_assert_eq!((found.0, found.1, found.2), (expected.0, expected.1, expected.2));
            prop_assert!(found.3 == expected.3, "states differ at window {}", found.1);
            // Nobody knows of a window that is full whether another follows, unless the cap says so.
            let capped = config.max_windows > 0 && found.1 + 1 == config.max_windows;
            prop_assert!(!found.4 || expected.4, "window {} was not the last", found.1);
            prop_assert!(!capped || found.4, "window {} is the last that may be seen", found.1);
        }
        let in_windows: u64 = found.iter().map(|window| u64::from(window.2)).sum();
        prop_assert_eq!(windows.seen(), in_windows);
        prop_assert_eq!(windows.seen() + windows.unseen(), events.len() as u64);
    }

    #[test]
    fn a_tick_closes_what_the_next_event_would_have_closed(events in episode(60), late in 0_u64..1_000) {
        let config = WindowConfig { max_events: u32::MAX, max_ns: 1_000, max_windows: 0 };
        let mut windows = LiveWindows::new(&config);
        let mut event = events.first().cloned().unwrap_or_else(|| {
            EventBuf::from(&bellwether_env_adapter::Event::named(0, bellwether_env_adapter::EventKind::File, "openat"))
        });
        event.time_ns = Some(500);
        windows.event(&event.as_event(), |_| panic!("nothing is full"));
        windows.tick(1_499, |_| panic!("it is too early"));
        let mut closed = Vec::new();
        windows.tick(1_500 + late, |window| closed.push((window.index, window.events, window.last)));
        windows.tick(u64::MAX, |_| panic!("there is nothing left to close"));
        windows.end(|_| panic!("there is nothing left to close"));
        prop_assert_eq!(closed, vec![(0, 1, false)]);
    }
}
