//! Prints how fast events become states: `cargo run --release -p bellwether-env-adapter --features ingest
//! --example throughput -- corpus/recordings.parquet [ROUNDS]`.
#![allow(clippy::print_stdout, reason = "an example reports to whoever runs it")]

use std::convert::Infallible;
use std::error::Error;
use std::time::Instant;

use bellwether_env_adapter::event::EventBuf;
use bellwether_env_adapter::ingest::TelemetryReader;
use bellwether_env_adapter::{
    EpisodeAttributes, EpisodeId, Event, EventKind, EventSink, RewardConfig, Window, WindowConfig, WindowSink, Windower,
};
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

/// Hashes everything that a window says.
struct Fingerprint(Sha256);

impl WindowSink for Fingerprint {
    type Error = Infallible;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), Infallible> {
        self.0.update(attributes.episode_id.0.as_bytes());
        Ok(())
    }
    fn window(&mut self, window: &Window<'_>) -> Result<(), Infallible> {
        let floats = window.state.as_slice().iter().chain(&window.harm).chain(&window.breakage);
        let bytes: Vec<u8> = floats.flat_map(|value| value.to_le_bytes()).collect();
        self.0.update(bytes);
        self.0.update(window.events_seen.to_le_bytes());
        self.0.update(window.time_ns.unwrap_or(u64::MAX).to_le_bytes());
        self.0.update([window.stage, u8::from(window.last), u8::from(window.last_stage)]);
        Ok(())
    }
    fn end(&mut self, complete: bool) -> Result<(), Infallible> {
        self.0.update([u8::from(complete)]);
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
        self.0 += ends(event.name) + event.path.map_or(0, ends) + event.time_ns.unwrap_or(0);
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

fn timed(what: &str, play: impl FnOnce() -> u64) {
    let start = Instant::now();
    let events = play();
    println!("{:>8.2} million events/s {what}", events as f64 / start.elapsed().as_secs_f64() / 1e6);
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("give a telemetry file")?;
    let rounds: u32 = arguments.next().map_or(Ok(5), |rounds| rounds.parse())?;
    let file = std::fs::read(&path)?;
    let mut held = Held::default();
    TelemetryReader::from_bytes(file.clone())?.read(&mut held)?;
    let events: usize = held.0.iter().map(|(_, events)| events.len()).sum();
    println!("{events} events of {} episodes", held.0.len());
    let (config, reward) = (WindowConfig::default(), RewardConfig::default());
    for max_events in [64, 10] {
        let config = WindowConfig { max_events, ..config.clone() };
        let mut windower = Windower::new(&config, &reward, Fingerprint(Sha256::new()));
        held.play(&mut windower);
        bare_calls(&mut windower);
        let hash = windower.into_sink().0.finalize();
        println!("windows of {max_events}: {}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
    for _ in 0..rounds {
        timed("held, touched alone", || held.play(&mut Touch(0)));
        timed("held to states", || held.play(&mut Windower::new(&config, &reward, Glance(0))));
        let short = WindowConfig { max_events: 10, ..config.clone() };
        timed("held to states, windows of 10", || held.play(&mut Windower::new(&short, &reward, Glance(0))));
        timed("bare calls to states", || bare_calls(&mut Windower::new(&config, &reward, Glance(0))));
        let mut summary = Ok(());
        timed("Parquet to events", || match read(&file, &mut Touch(0)) {
            Ok(events) => events,
            Err(error) => {
                summary = Err(error);
                0
            }
        });
        timed("Parquet to states", || match read(&file, &mut Windower::new(&config, &reward, Glance(0))) {
            Ok(events) => events,
            Err(error) => {
                summary = Err(error);
                0
            }
        });
        summary?;
    }
    Ok(())
}

fn read<S: EventSink<Error = Infallible>>(file: &[u8], sink: &mut S) -> Result<u64, Box<dyn Error>> {
    Ok(TelemetryReader::from_bytes(file.to_vec())?.read(sink)?.events)
}
