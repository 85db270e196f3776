//! Prints how many updates per second a learner makes on a 64-256-256-6 network, as JSON lines: by the wall clock, and with one
//! thread on Linux by processor time too, which is steadier on a busy machine.
//!
//! `cargo run --release -p bellwether-trainer --example updates_per_second -- [THREADS] [ISA] [SECONDS] [LEARNER] [DEVICE]`
//!
//! Threads and instruction set are those of the fused learner, which is the default; the others have one thread.

use bellwether_replay::DenseRows;
use bellwether_trainer::learner::fused::{FusedOptions, Isa};
use bellwether_trainer::learner::{Answer, Batch, Device, LearnerChoice, LearnerError, Noise, UpdateSpec};
use bellwether_trainer::network::NetworkConfig;
use bellwether_trainer::streams::stream;
use rand::Rng;
use std::io::Write;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let isa = arguments.next().map_or(Ok(Isa::best()), |text| text.parse())?;
    let seconds: f64 = arguments.next().map_or(Ok(1.0), |text| text.parse())?;
    let learner = arguments.next().unwrap_or_else(|| "fused".to_owned());
    let device: Device = arguments.next().map_or(Ok(Device::Cpu), |text| text.parse())?;
    let mut choice = LearnerChoice::named(&learner, device, isa)?;
    if let LearnerChoice::Fused(options) = choice {
        choice = FusedOptions { threads, ..options }.into();
    }
    for double in [false, true] {
        for rows in [32, 64, 256] {
            let (wall, processor) = measure(choice, rows, double, Duration::from_secs_f64(seconds))?;
            let mut line = serde_json::json!({
                "learner": choice.name(),
                "device": device.to_string(),
                "double": double,
                "batch": rows,
                "updates_per_second": wall.round(),
                "updates_per_processor_second": processor.filter(|_| threads == 1).map(f64::round),
            });
            if let LearnerChoice::Fused(options) = choice {
                line["threads"] = options.threads.into();
                line["isa"] = options.isa.name().into();
            }
            writeln!(std::io::stdout(), "{line}")?;
        }
    }
    Ok(())
}

/// Seconds that the main thread has spent on a processor, where Linux tells.
fn processor_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    text.split(' ').next()?.parse::<f64>().ok().map(|nanoseconds| nanoseconds * 1e-9)
}

/// Updates per second by the wall clock and by processor time.
type Rates = (f64, Option<f64>);

/// Each update draws its rows anew from 20,000 states.
fn measure(
    choice: LearnerChoice,
    rows: usize,
    double: bool,
    time: Duration,
) -> Result<Rates, Box<dyn std::error::Error>> {
    const STATES: usize = 20_000;
    let shape = NetworkConfig::default().shape(64, 6)?;
    let mut rng = stream(1, "bench");
    let mut learner = choice.make(shape.clone(), &shape.initial_parameters(&mut rng))?;
    let data: Vec<f32> = (0..STATES * 64).map(|_| (rng.next_u32() >> 8) as f32 / (1 << 24) as f32).collect();
    let spec = UpdateSpec { double, normaliser: rows as f32, ..UpdateSpec::default() };
    let (mut states, mut next_states) = (vec![0.0; rows * 64], vec![0.0; rows * 64]);
    let masks = vec![true; rows * 6];
    let (mut answers, mut errors) = (Vec::new(), Vec::new());
    let mut update = || -> Result<(), LearnerError> {
        answers.clear();
        for row in 0..rows {
            for into in [&mut states, &mut next_states] {
                let from = rng.next_u32() as usize % STATES * 64;
                into[row * 64..(row + 1) * 64].copy_from_slice(&data[from..from + 64]);
            }
            let discount = if rng.next_u32().is_multiple_of(20) { 0.0 } else { 0.99 };
            let (row, action) = (row as u32, rng.next_u32() % 6);
            answers.push(Answer { row, action, reward: 0.5, discount, next: row, weight: 1.0 });
        }
        let batch = Batch {
            states: &DenseRows::new(64, &states),
            masks: &[],
            answers: &answers,
            next_states: &DenseRows::new(64, &next_states),
            next_masks: &masks,
        };
        learner.update(&spec, batch, Noise::default(), &mut errors).map(|_| ())
    };
    for _ in 0..20 {
        update()?;
    }
    let (start, before, mut updates) = (Instant::now(), processor_seconds(), 0u32);
    while start.elapsed() < time {
        update()?;
        updates += 1;
    }
    let spent = processor_seconds().zip(before).map(|(now, before)| now - before);
    let rate = |seconds| f64::from(updates) / seconds;
    Ok((rate(start.elapsed().as_secs_f64()), spent.map(rate)))
}
