//! What a person sees of a run: a bar on a terminal, a line per phase elsewhere.

use std::time::Instant;

use bellwether_trainer::metrics::UpdateMetrics;
use bellwether_trainer::offline::POLICY;
use bellwether_trainer::recorded::training::RELEASED;
use bellwether_trainer::run::RunObserver;
use indicatif::ProgressBar;

use super::Output;

/// Watches a run.
pub(crate) struct Progress<'a> {
    output: &'a Output,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl<'a> Progress<'a> {
    /// Watches from now.
    pub(crate) fn new(output: &'a Output) -> Self {
        Progress { output, started: Instant::now(), bar: None }
    }
}

impl RunObserver for Progress<'_> {
    fn seconds(&mut self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn phase(&mut self, what: &str) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.output.say(format_args!("{:>6.1} s  {what}", self.started.elapsed().as_secs_f64()));
    }

    fn progress(&mut self, done: u64, of: u64, latest: &[UpdateMetrics]) {
        let bar = self.bar.get_or_insert_with(|| self.output.progress("updates", of));
        bar.set_position(done);
        let told = |line: &&UpdateMetrics| line.network == RELEASED || line.network == POLICY;
        if let Some(line) = latest.iter().rev().find(told) {
            bar.set_message(format!("loss {:.4}, mean q {:+.3}", line.loss, line.mean_q));
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
