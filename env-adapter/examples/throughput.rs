//! Prints how fast events become states: `cargo run --release -p bellwether-env-adapter --features ingest
//! --example throughput -- corpus/recordings.parquet [ROUNDS [PART OF A LINE]]`.
#![allow(clippy::print_stdout, reason = "an example reports to whoever runs it")]

use std::convert::Infallible;
use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use bellwether_env_adapter::event::EventBuf;
use bellwether_env_adapter::ingest::TelemetryReader;
use bellwether_env_adapter::{
    EpisodeAttributes, EpisodeId, Event, EventKind, EventSink, RewardConfig, Window, WindowConfig, WindowSink, Windower,
};
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Looks at one element of each state, so that none is computed in vain.
struct Glance(u64);

impl WindowSink for Glance {
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

/// Hashes everything that a window says, and counts windows and the elements of their states that are not 0.
#[derive(Default)]
struct Fingerprint {
    hash: Sha256,
    windows: u64,
    filled: u64,
}

impl WindowSink for Fingerprint {
    type Error = Infallible;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), Infallible> {
        self.hash.update(attributes.episode_id.0.as_bytes());
        Ok(())
    }
    fn window(&mut self, window: &Window<'_>) -> Result<(), Infallible> {
        let floats = window.state.as_slice().iter().chain(&window.harm).chain(&window.breakage);
        let bytes: Vec<u8> = floats.flat_map(|value| value.to_le_bytes()).collect();
        self.windows += 1;
        self.filled += window.state.as_slice().iter().filter(|value| **value != 0.0).count() as u64;
        self.hash.update(bytes);
        self.hash.update(window.events_seen.to_le_bytes());
        self.hash.update(window.time_ns.unwrap_or(u64::MAX).to_le_bytes());
        self.hash.update([window.stage, u8::from(window.last), u8::from(window.last_stage)]);
        Ok(())
    }
    fn end(&mut self, complete: bool) -> Result<(), Infallible> {
        self.hash.update([u8::from(complete)]);
        Ok(())
    }
}

/// Touches what an event holds and makes no state of it: the price of the event itself.
struct Touch(u64);

impl EventSink for Touch {
    type Error = Infallible;

    fn begin(&mut self, _: &EpisodeAttributes) -> Result<(), Infallible> {
        Ok(())
    }
    fn event(&mut self, event: &Event<'_>) -> Result<(), Infallible> {
        let ends = |text: &str| u64::from(text.as_bytes().first().copied().unwrap_or(0)) + text.len() as u64;
        self.0 += black_box(ends(event.name) + event.path.map_or(0, ends) + event.time_ns.unwrap_or(0));
        Ok(())
    }
    fn end(&mut self, _: bool) -> Result<(), Infallible> {
        Ok(())
    }
}

#[derive(Default)]
struct Held(Vec<(EpisodeAttributes, Vec<EventBuf>)>);

impl EventSink for Held {
    type Error = Infallible;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), Infallible> {
        self.0.push((attributes.clone(), Vec::new()));
        Ok(())
    }
    fn event(&mut self, event: &Event<'_>) -> Result<(), Infallible> {
        if let Some((_, events)) = self.0.last_mut() {
            events.push(event.into());
        }
        Ok(())
    }
    fn end(&mut self, _: bool) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Held {
    fn play<S: EventSink<Error = Infallible>>(&self, sink: &mut S) -> u64 {
        let mut played = 0;
        for (attributes, events) in &self.0 {
            let Ok(()) = sink.begin(attributes);
            for event in events {
                let Ok(()) = sink.event(&event.as_event());
            }
            let Ok(()) = sink.end(attributes.complete);
            played += events.len() as u64;
        }
        played
    }
}

/// Episodes of calls without anything but a name.
fn bare_calls<S: EventSink<Error = Infallible>>(sink: &mut S) -> u64 {
    let names = ["read", "write", "openat", "close", "mmap", "futex", "clock_gettime", "recvfrom", "poll", "stat64"];
    let attributes = EpisodeAttributes {
        episode_id: EpisodeId("e".to_owned()),
        label: None,
        family: None,
        source: None,
        sample_sha256: None,
        complete: true,
    };
    let (episodes, events) = (1_000_u64, 1_000_u64);
    let mut draw = 1_u64;
    for _ in 0..episodes {
        let Ok(()) = sink.begin(&attributes);
        for seq in 0..events {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let Ok(()) = sink.event(&Event::named(seq, EventKind::File, names[(draw >> 33) as usize % names.len()]));
        }
        let Ok(()) = sink.end(true);
    }
    episodes * events
}

/// Seconds that this thread ran, where the system tells (Linux): other work on the machine counts for less.
fn seconds_on_core() -> Option<f64> {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    times.split_ascii_whitespace().next()?.parse().ok().map(|nanoseconds: f64| nanoseconds / 1e9)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("give a telemetry file")?;
    let rounds: u32 = arguments.next().map_or(Ok(5), |rounds| rounds.parse())?;
    let only = arguments.next().unwrap_or_default();
    let file = Bytes::from(std::fs::read(&path)?);
    let mut held = Held::default();
    TelemetryReader::from_bytes(file.clone())?.read(&mut held)?;
    let events: usize = held.0.iter().map(|(_, events)| events.len()).sum();
    let windows = [64, 16, 10].map(|max_events| WindowConfig { max_events, ..WindowConfig::default() });
    let reward = RewardConfig::default();
    println!("{events} events of {} episodes", held.0.len());
    for config in windows.iter().filter(|_| only.is_empty()) {
        let mut windower = Windower::new(config, &reward, Fingerprint::default());
        held.play(&mut windower);
        let Fingerprint { windows, filled, .. } = *windower.sink();
        bare_calls(&mut windower);
        let hash: String = windower.into_sink().hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        println!("states in windows of {} hash to {hash}", config.max_events);
        println!("  {windows} windows, {:.1} elements not 0 on average", filled as f64 / windows as f64);
    }
    let states = |config: &WindowConfig| Windower::new(config, &reward, Glance(0));
    let read = |sink: &mut dyn EventSink<Error = Infallible>| -> Result<u64, Box<dyn Error>> {
        Ok(TelemetryReader::from_bytes(file.clone())?.read(sink)?.events)
    };
    type Course<'a> = (&'a str, Box<dyn Fn() -> Result<u64, Box<dyn Error>> + 'a>);
    let courses: [Course<'_>; 8] = [
        ("held, touched alone", Box::new(|| Ok(held.play(&mut Touch(0))))),
        ("held to states, windows of 64", Box::new(|| Ok(held.play(&mut states(&windows[0]))))),
        ("held to states, windows of 16", Box::new(|| Ok(held.play(&mut states(&windows[1]))))),
        ("held to states, windows of 10", Box::new(|| Ok(held.play(&mut states(&windows[2]))))),
        ("bare calls to states", Box::new(|| Ok(bare_calls(&mut states(&windows[0]))))),
        ("Parquet to events", Box::new(|| read(&mut Touch(0)))),
        ("Parquet to states, windows of 64", Box::new(|| read(&mut states(&windows[0])))),
        ("Parquet to states, windows of 16", Box::new(|| read(&mut states(&windows[1])))),
    ];
    let mut paces = courses.each_ref().map(|_| Vec::new());
    for _ in 0..rounds {
        for ((what, course), paces) in courses.iter().zip(&mut paces) {
            if what.contains(&only) {
                let (wall, core) = (Instant::now(), seconds_on_core());
                let events = course()?;
                let seconds = match (core, seconds_on_core()) {
                    (Some(start), Some(end)) => end - start,
                    _ => wall.elapsed().as_secs_f64(),
                };
                paces.push(events as f64 / seconds / 1e6);
            }
        }
    }
    println!("million events/s over {rounds} rounds: median (least to most)");
    for ((what, _), paces) in courses.iter().zip(&mut paces).filter(|(_, paces)| !paces.is_empty()) {
        paces.sort_by(f64::total_cmp);
        let (least, most) = (paces[0], paces[paces.len() - 1]);
        println!("{:>8.2} ({least:.2} to {most:.2}) {what}", paces[paces.len() / 2]);
    }
    Ok(())
}
