//! Prints how fast events become states: `cargo run --release --example throughput`.
#![allow(clippy::print_stdout, reason = "an example reports to whoever runs it")]

use std::convert::Infallible;
use std::time::Instant;

use bellwether_env_adapter::{
    EpisodeAttributes, EpisodeId, Event, EventKind, EventSink, RewardConfig, Window, WindowConfig, WindowSink, Windower,
};

struct Count(u64);

impl WindowSink for Count {
    type Error = Infallible;

    fn begin(&mut self, _: &EpisodeAttributes) -> Result<(), Infallible> {
        Ok(())
    }
    fn window(&mut self, window: &Window<'_>) -> Result<(), Infallible> {
        self.0 += u64::from(window.state.as_slice()[17].to_bits());
        Ok(())
    }
    fn end(&mut self, _: bool) -> Result<(), Infallible> {
        Ok(())
    }
}

fn main() {
    let names = ["read", "write", "openat", "close", "mmap", "futex", "clock_gettime", "recvfrom", "poll", "stat64"];
    for max_events in [10, 64] {
        let config = WindowConfig { max_events, ..WindowConfig::default() };
        let mut windower = Windower::new(&config, &RewardConfig::default(), Count(0));
        let attributes = EpisodeAttributes {
            episode_id: EpisodeId("e".to_owned()),
            label: None,
            family: None,
            source: None,
            sample_sha256: None,
            complete: true,
        };
        let (episodes, events) = (2_000_u64, 1_000_u64);
        let start = Instant::now();
        let mut draw = 1_u64;
        for _ in 0..episodes {
            let Ok(()) = windower.begin(&attributes);
            for seq in 0..events {
                draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let Ok(()) =
                    windower.event(&Event::named(seq, EventKind::File, names[(draw >> 33) as usize % names.len()]));
            }
            let Ok(()) = windower.end(true);
        }
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "windows of {max_events}: {:.1} million events/s (checksum {})",
            (episodes * events) as f64 / seconds / 1e6,
            windower.into_sink().0
        );
    }
}
