//! Calls per second into telemetry Parquet, and events per second from telemetry to states.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench fails loudly, and criterion's macros document nothing")]
#![allow(clippy::disallowed_methods, reason = "inputs of a bench need not outlive a power cut")]

use std::convert::Infallible;
use std::fmt::Write as _;
use std::hint::black_box;
use std::io;
use std::path::Path;

use bellwether_env_adapter::event::EventBuf;
use bellwether_env_adapter::ingest::{Options, QualityReport, TelemetryReader, TelemetryWriter};
use bellwether_env_adapter::ingest::{read_adfa_ld, read_calls_csv_from};
use bellwether_env_adapter::window::{Window, WindowConfig, WindowSink, Windower};
use bellwether_env_adapter::{EpisodeAttributes, Event, EventSink, reward::RewardConfig};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const TRACES: usize = 200;
const CALLS_PER_TRACE: usize = 1_000;

/// Numbers that repeat as calls do: few different ones, in runs.
fn call(trace: usize, position: usize) -> usize {
    [3, 4, 5, 6, 102, 265, 78, 195][(position / 3 * (trace + 7) + position) % 8]
}

/// The layout of ADFA-LD with made-up traces.
fn write_adfa_ld(folder: &Path) {
    let benign = folder.join("Training_Data_Master");
    std::fs::create_dir_all(&benign).unwrap();
    for trace in 0..TRACES {
        let mut text = String::new();
        for position in 0..CALLS_PER_TRACE {
            write!(text, "{} ", call(trace, position)).unwrap();
        }
        std::fs::write(benign.join(format!("UTD-{trace:04}.txt")), text).unwrap();
    }
}

/// A table of made-up traces.
fn calls_csv() -> String {
    const NAMES: [&str; 4] = ["NtClose", "NtOpenKey", "NtQueryValueKey", "NtCreateFile"];
    let mut table = "id,label,calls\n".to_owned();
    for trace in 0..TRACES {
        let calls: Vec<&str> = (0..CALLS_PER_TRACE).map(|position| NAMES[call(trace, position) % 4]).collect();
        writeln!(table, "trace-{trace},benign,{}", calls.join(" ")).unwrap();
    }
    table
}

fn ingest(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    write_adfa_ld(folder.path());
    let table = calls_csv();
    let options = Options::default();
    let calls = (TRACES * CALLS_PER_TRACE) as u64;
    let checked = |writer: TelemetryWriter<io::Sink>| {
        let (_, summary) = writer.finish().unwrap();
        assert_eq!(summary.events, calls);
    };
    let mut group = criterion.benchmark_group("ingest");
    group.throughput(Throughput::Elements(calls)).sample_size(20);
    group.bench_function("adfa-ld folder to parquet", |bencher| {
        bencher.iter(|| {
            let mut writer = TelemetryWriter::new(io::sink()).unwrap();
            read_adfa_ld(folder.path(), &options, &mut writer, &mut QualityReport::default()).unwrap();
            checked(writer);
        });
    });
    group.bench_function("calls-csv to parquet", |bencher| {
        bencher.iter(|| {
            let mut writer = TelemetryWriter::new(io::sink()).unwrap();
            let mut report = QualityReport::default();
            read_calls_csv_from(table.as_bytes(), Path::new("table.csv"), &options, &mut writer, &mut report).unwrap();
            checked(writer);
        });
    });
    group.finish();
}

/// Holds episodes of the shipped recordings, up to a number of events.
#[derive(Default)]
struct Held {
    episodes: Vec<(EpisodeAttributes, Vec<EventBuf>)>,
    events: u64,
}

/// Events that are held, at least.
const HELD_EVENTS: u64 = 100_000;

impl EventSink for Held {
    type Error = Infallible;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), Infallible> {
        if self.events < HELD_EVENTS {
            self.episodes.push((attributes.clone(), Vec::new()));
        }
        Ok(())
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), Infallible> {
        if self.events < HELD_EVENTS
            && let Some((_, events)) = self.episodes.last_mut()
        {
            events.push(event.into());
        }
        Ok(())
    }

    fn end(&mut self, _complete: bool) -> Result<(), Infallible> {
        self.events = self.episodes.iter().map(|(_, events)| events.len() as u64).sum();
        Ok(())
    }
}

/// Looks at every state and keeps none.
struct Seen(u64);

impl WindowSink for Seen {
    type Error = Infallible;

    fn begin(&mut self, _attributes: &EpisodeAttributes) -> Result<(), Infallible> {
        Ok(())
    }

    fn window(&mut self, window: &Window<'_>) -> Result<(), Infallible> {
        black_box(window.state.as_slice());
        self.0 += 1;
        Ok(())
    }

    fn end(&mut self, _complete: bool) -> Result<(), Infallible> {
        Ok(())
    }
}

fn states(criterion: &mut Criterion) {
    let mut held = Held::default();
    TelemetryReader::from_bytes(bellwether_corpus::recordings()).unwrap().read(&mut held).unwrap();
    let mut group = criterion.benchmark_group("windows to states");
    group.throughput(Throughput::Elements(held.events)).sample_size(20);
    for max_events in [64, 16] {
        let config = WindowConfig { max_events, ..WindowConfig::default() };
        group.bench_function(format!("{max_events} events a window"), |bencher| {
            bencher.iter(|| {
                let mut windower = Windower::new(&config, &RewardConfig::default(), Seen(0));
                for (attributes, events) in &held.episodes {
                    let Ok(()) = windower.begin(attributes);
                    for event in events {
                        let Ok(()) = windower.event(&event.as_event());
                    }
                    let Ok(()) = windower.end(attributes.complete);
                }
                assert!(windower.into_sink().0 > 0);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, ingest, states);
criterion_main!(benches);
