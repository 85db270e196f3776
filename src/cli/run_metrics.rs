//! The numbers of a run while it is on, in the text format of Prometheus: over HTTP, or in a file for the textfile
//! collector.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use bellwether_artifact::durable;
use bellwether_registry::clock::unix_ms;
use bellwether_trainer::metrics::{UpdateMetrics, Validation};
use bellwether_trainer::run::RunEvent;

use super::{Failure, Output, scrape};

/// Where the numbers of a run are told.
#[derive(clap::Args)]
pub(crate) struct MetricsFlags {
    /// Loopback address on which metrics of the run are told over HTTP, at `/metrics`; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// File that metrics of the run are written to every few seconds, for the textfile collector of `node_exporter`: FOLDER/NAME.prom.
    #[arg(long, value_name = "FILE")]
    metrics_file: Option<PathBuf>,
}

/// Tells the numbers of one run.
pub(crate) struct Teller {
    numbers: Arc<Mutex<Numbers>>,
    file: Option<PathBuf>,
    written: Instant,
}

/// Least time between two writes of the file.
const APART: Duration = Duration::from_secs(5);

impl MetricsFlags {
    /// Begins to tell; `None` where nobody asked. What cannot be told is refused before the run begins.
    pub(crate) fn start(&self, output: &Output) -> Result<Option<Teller>, Failure> {
        let MetricsFlags { metrics, metrics_file } = self;
        if metrics.is_none() && metrics_file.is_none() {
            return Ok(None);
        }
        let numbers = Arc::new(Mutex::new(Numbers::default()));
        if let Some(file) = metrics_file {
            if file.extension().is_none_or(|ending| ending != "prom") {
                let file = file.display();
                return Err(Failure::usage(anyhow!(
                    "--metrics-file {file}: the collector reads files that end in .prom alone"
                )));
            }
            write(file, &numbers).map_err(|error| {
                Failure::usage(anyhow!(error).context(format!("--metrics-file {}", file.display())))
            })?;
        }
        if let Some(address) = metrics {
            let told = Arc::clone(&numbers);
            let bound = scrape::listen(*address, Box::new(move || locked(&told).text()))?;
            output.say(format_args!("metrics on http://{bound}/metrics"));
        }
        Ok(Some(Teller { numbers, file: metrics_file.clone(), written: Instant::now() }))
    }
}

impl Teller {
    /// Something happened, at so many updates per second.
    pub(crate) fn event(&mut self, event: RunEvent<'_>, updates_per_second: Option<f64>) {
        let now = unix_ms();
        {
            let mut numbers = locked(&self.numbers);
            numbers.updates_per_second = updates_per_second;
            numbers.event(event, now);
        }
        let is_seldom = !matches!(event, RunEvent::Updated { .. });
        if is_seldom || self.written.elapsed() >= APART {
            self.write();
        }
    }

    /// The run ended, well or not.
    pub(crate) fn end(&mut self, complete: bool) {
        locked(&self.numbers).phase = Some(if complete { "complete" } else { "failed" }.to_owned());
        self.write();
    }

    /// A disk that refuses ends no run.
    fn write(&mut self) {
        self.written = Instant::now();
        let Some(file) = &self.file else { return };
        if let Err(error) = write(file, &self.numbers) {
            tracing::warn!(file = %file.display(), %error, "metrics are no longer written");
            self.file = None;
        }
    }
}

/// A page that was half made by a thread that panicked is made anew from the same numbers.
fn locked(numbers: &Mutex<Numbers>) -> MutexGuard<'_, Numbers> {
    numbers.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(file: &Path, numbers: &Mutex<Numbers>) -> Result<(), bellwether_artifact::ArtifactError> {
    let text = locked(numbers).text();
    durable::write_bytes(file, text.as_bytes())
}

/// What is told.
#[derive(Debug, Default)]
struct Numbers {
    /// Empty until the run has its folder.
    run: String,
    phase: Option<String>,
    updates: Option<u64>,
    planned: Option<u64>,
    updates_per_second: Option<f64>,
    updated_ms: Option<u64>,
    saved_ms: Option<u64>,
    states: Option<u64>,
    networks: BTreeMap<String, UpdateMetrics>,
    validations: BTreeMap<String, Validation>,
    /// By the target rate of false positives: its rate, that of true positives, the mean return.
    evaluation: Vec<(f64, [Option<f64>; 3])>,
}

impl Numbers {
    fn event(&mut self, event: RunEvent<'_>, now_ms: u64) {
        match event {
            RunEvent::Begun { run, states, updates } => {
                run.clone_into(&mut self.run);
                (self.states, self.updates) = (Some(states), Some(updates));
            }
            RunEvent::Phase(phase) => {
                self.phase = Some(phase.to_owned());
                self.updated_ms = Some(now_ms);
            }
            RunEvent::Updated { done, of, lines } => {
                (self.updates, self.planned, self.updated_ms) = (Some(done), Some(of), Some(now_ms));
                for line in lines {
                    self.networks.insert(line.network.clone(), line.clone());
                    self.validations.extend(line.validation.map(|validation| (line.network.clone(), validation)));
                }
            }
            RunEvent::Saved => self.saved_ms = Some(now_ms),
            RunEvent::Evaluated(evaluation) => {
                let of = |point: &bellwether_trainer::evaluate::OperatingPointReport| {
                    let metrics = &point.metrics;
                    (point.target_fpr, [metrics.fpr, metrics.tpr, metrics.mean_return])
                };
                self.evaluation = evaluation.operating_points.iter().map(of).collect();
            }
        }
    }

    /// The page. What is not known yet has no row.
    fn text(&self) -> String {
        let mut page = Page { text: String::new(), run: &self.run };
        let one = |value: Option<f64>| value.map(|value| (String::new(), value)).into_iter().collect::<Vec<_>>();
        let seconds = |ms: Option<u64>| one(ms.map(|ms| ms as f64 / 1e3));
        let count = |value: Option<u64>| one(value.map(|value| value as f64));
        let phase = self.phase.iter().map(|phase| (format!("phase=\"{phase}\""), 1.0)).collect::<Vec<_>>();
        page.metric("phase", "The phase that the run is in, with the value 1.", false, &phase);
        page.metric("updates", "Gradient steps done.", true, &count(self.updates));
        page.metric("updates_planned", "Gradient steps of the whole run.", false, &count(self.planned));
        let rate = self.updates_per_second;
        page.metric("updates_per_second", "Gradient steps per second, of late.", false, &one(rate));
        let left = self.planned.zip(self.updates).map(|(of, done)| of.saturating_sub(done) as f64);
        let left = left.zip(rate).map(|(left, rate)| left / rate);
        page.metric("remaining_seconds", "Time that the steps left take at this pace.", false, &one(left));
        let help = "When a gradient step or a phase was last told of.";
        page.metric("last_update_timestamp_seconds", help, false, &seconds(self.updated_ms));
        let help = "When the last checkpoint was written.";
        page.metric("last_checkpoint_timestamp_seconds", help, false, &seconds(self.saved_ms));
        page.metric("states", "States, or played steps, that are drawn from.", false, &count(self.states));
        type Measure = fn(&UpdateMetrics) -> Option<f64>;
        let measures: [(&str, &str, Measure); 6] = [
            ("loss", "Loss before the last recorded step.", |line| Some(line.loss.into())),
            ("gradient_norm", "Norm of the gradient before clipping.", |line| Some(line.gradient_norm.into())),
            ("mean_q", "Mean of the fitted q-values.", |line| Some(line.mean_q.into())),
            ("mean_target", "Mean of the targets.", |line| Some(line.mean_target.into())),
            ("max_error", "Largest absolute error.", |line| Some(line.max_error.into())),
            ("learning_rate", "Step size.", |line| Some(line.learning_rate.into())),
        ];
        for (name, help, measure) in measures {
            let row = |line: &UpdateMetrics| Some((format!("network=\"{}\"", line.network), measure(line)?));
            page.metric(name, help, false, &self.networks.values().filter_map(row).collect::<Vec<_>>());
        }
        type Played = fn(&Validation) -> f32;
        let played: [(&str, &str, Played); 2] = [
            ("validation_return", "Mean return on episodes that the network has not seen.", |v| v.mean_return),
            ("overestimation", "Mean first q-value minus mean return on them.", |v| v.overestimation),
        ];
        for (name, help, of) in played {
            let row = |(network, validation): (&String, &Validation)| {
                (format!("network=\"{network}\""), f64::from(of(validation)))
            };
            page.metric(name, help, false, &self.validations.iter().map(row).collect::<Vec<_>>());
        }
        let held_out = [
            ("held_out_fpr", "False-positive rate on the held-out recordings."),
            ("held_out_tpr", "True-positive rate on the held-out recordings."),
            ("held_out_return", "Mean return on the held-out recordings."),
        ];
        for (at, (name, help)) in held_out.into_iter().enumerate() {
            let row =
                |(target, values): &(f64, [Option<f64>; 3])| Some((format!("target_fpr=\"{target}\""), values[at]?));
            page.metric(name, help, false, &self.evaluation.iter().filter_map(row).collect::<Vec<_>>());
        }
        page.text
    }
}

/// A page in the making, of one run.
struct Page<'a> {
    text: String,
    run: &'a str,
}

impl Page<'_> {
    /// A metric with its rows: labels beside the run's, and values.
    fn metric(&mut self, name: &str, help: &str, grows: bool, rows: &[(String, f64)]) {
        let (suffix, kind) = if grows { ("_total", "counter") } else { ("", "gauge") };
        let name = format!("bellwether_training_{name}{suffix}");
        _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in rows {
            let comma = if labels.is_empty() { "" } else { "," };
            _ = writeln!(self.text, "{name}{{run=\"{}\"{comma}{labels}}} {value}", self.run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(network: &str, mean_q: f32) -> UpdateMetrics {
        UpdateMetrics {
            network: network.to_owned(),
            update: 100,
            loss: 0.25,
            mean_q,
            mean_target: 0.5,
            max_error: 1.0,
            gradient_norm: 2.0,
            learning_rate: 1e-3,
            validation: None,
        }
    }

    #[test]
    fn what_is_known_has_a_row_and_what_is_not_has_none() {
        let mut numbers = Numbers::default();
        numbers.event(RunEvent::Phase("reading recordings"), 1_500);
        let text = numbers.text();
        assert!(text.contains("bellwether_training_phase{run=\"\",phase=\"reading recordings\"} 1\n"), "{text}");
        assert!(text.contains("bellwether_training_last_update_timestamp_seconds{run=\"\"} 1.5\n"), "{text}");
        assert!(!text.contains("updates_total{"), "{text}");
        numbers.event(RunEvent::Begun { run: "policy-1", states: 70, updates: 50 }, 2_000);
        numbers.event(RunEvent::Phase("training"), 2_000);
        numbers.event(
            RunEvent::Updated { done: 100, of: 300, lines: &[line("fold-1", -0.5), line("released", 0.5)] },
            3_000,
        );
        numbers.event(RunEvent::Saved, 4_000);
        numbers.updates_per_second = Some(50.0);
        let text = numbers.text();
        for row in [
            "phase{run=\"policy-1\",phase=\"training\"} 1",
            "updates_total{run=\"policy-1\"} 100",
            "updates_planned{run=\"policy-1\"} 300",
            "remaining_seconds{run=\"policy-1\"} 4",
            "last_checkpoint_timestamp_seconds{run=\"policy-1\"} 4",
            "states{run=\"policy-1\"} 70",
            "mean_q{run=\"policy-1\",network=\"fold-1\"} -0.5",
            "mean_q{run=\"policy-1\",network=\"released\"} 0.5",
        ] {
            assert!(text.contains(&format!("\nbellwether_training_{row}\n")), "{row} is not in\n{text}");
        }
        assert_eq!(text.matches("bellwether_training_phase{").count(), 1, "a run is in one phase");
    }

    #[test]
    fn the_manual_has_a_row_for_every_number() {
        let page = include_str!("../../docs/training-metrics.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `bellwether_training_")?.split('`').next());
        let mut manual: Vec<String> = rows.map(|name| format!("bellwether_training_{name}")).collect();
        let text = Numbers::default().text();
        let told = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let mut told: Vec<String> = told.map(str::to_owned).collect();
        manual.sort();
        told.sort();
        assert_eq!(manual, told);
    }

    #[test]
    fn a_file_that_cannot_be_told_through_is_refused_and_one_that_fails_later_ends_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::new(true);
        let flags = |file: &Path| MetricsFlags { metrics: None, metrics_file: Some(file.to_path_buf()) };
        assert!(MetricsFlags { metrics: None, metrics_file: None }.start(&output).unwrap().is_none());
        assert!(matches!(flags(&folder.path().join("run.txt")).start(&output), Err(Failure::Usage(_))));
        assert!(matches!(flags(&folder.path().join("none/run.prom")).start(&output), Err(Failure::Usage(_))));
        let away = folder.path().join("away");
        std::fs::create_dir(&away).unwrap();
        let mut teller = flags(&away.join("run.prom")).start(&output).unwrap().unwrap();
        teller.event(RunEvent::Begun { run: "policy-1", states: 1, updates: 0 }, None);
        let text = std::fs::read_to_string(away.join("run.prom")).unwrap();
        assert!(text.contains("states{run=\"policy-1\"} 1\n"), "{text}");
        std::fs::remove_dir_all(&away).unwrap();
        teller.event(RunEvent::Phase("training"), None);
        teller.end(true);
        assert!(!away.exists());
    }
}
