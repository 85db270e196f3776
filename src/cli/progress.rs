//! What a person sees of a run: a bar on a terminal, and elsewhere a line per phase and one now and then.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bellwether_trainer::metrics::UpdateMetrics;
use bellwether_trainer::offline::POLICY;
use bellwether_trainer::recorded::training::RELEASED;
use bellwether_trainer::run::{RunEvent, RunObserver};
use indicatif::ProgressBar;

use super::Output;
use super::run_metrics::Teller;

/// Watches a run.
pub(crate) struct Progress<'a> {
    output: &'a Output,
    started: Instant,
    bar: Option<ProgressBar>,
    pace: Pace,
    lines: Lines,
    latest: Option<UpdateMetrics>,
    mean_return: Option<f64>,
    teller: Option<Teller>,
}

impl<'a> Progress<'a> {
    /// Watches from now.
    pub(crate) fn new(output: &'a Output) -> Self {
        Progress {
            output,
            started: Instant::now(),
            bar: None,
            pace: Pace::default(),
            lines: Lines::default(),
            latest: None,
            mean_return: None,
            teller: None,
        }
    }

    /// Tells metrics too.
    pub(crate) fn with_metrics(mut self, teller: Option<Teller>) -> Self {
        self.teller = teller;
        self
    }

    /// The run ended, well or not.
    pub(crate) fn end(&mut self, complete: bool) {
        if let Some(teller) = &mut self.teller {
            teller.end(complete);
        }
    }

    fn updated(&mut self, done: u64, of: u64, lines: &[UpdateMetrics]) {
        let told = |line: &&UpdateMetrics| line.network == RELEASED || line.network == POLICY;
        if let Some(line) = lines.iter().rev().find(told) {
            self.latest = Some(line.clone());
        }
        if let Some(mean) = mean_return(lines) {
            self.mean_return = Some(mean);
        }
        let elapsed = self.started.elapsed();
        self.pace.at(elapsed, done);
        let text = self.text(of - done.min(of));
        if self.output.is_terminal() {
            let bar = self.bar.get_or_insert_with(|| self.output.progress("updates", of));
            bar.set_position(done);
            bar.set_message(text);
        } else if self.lines.is_due(elapsed, done >= of) {
            self.output.say(format_args!("{:>6.1} s  {done} of {of} updates, {text}", elapsed.as_secs_f64()));
        }
    }

    /// How the run fares, with so many updates left.
    fn text(&self, left: u64) -> String {
        let mut text = String::new();
        if let Some(line) = &self.latest {
            let UpdateMetrics { loss, mean_q, mean_target, learning_rate, .. } = line;
            _ = write!(text, "loss {loss:.4}, q {mean_q:+.3} for {mean_target:+.3}, ");
            if let Some(mean) = self.mean_return {
                _ = write!(text, "return {mean:+.3}, ");
            }
            _ = write!(text, "step size {learning_rate:.1e}, ");
        }
        match self.pace.per_second() {
            Some(rate) => _ = write!(text, "{rate:.0}/s, {} left", span(left as f64 / rate)),
            None => text.truncate(text.trim_end_matches(", ").len()),
        }
        text
    }

    fn finish_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl RunObserver for Progress<'_> {
    fn seconds(&mut self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn event(&mut self, event: RunEvent<'_>) {
        match event {
            RunEvent::Phase(what) => {
                self.finish_bar();
                self.output.say(format_args!("{:>6.1} s  {what}", self.started.elapsed().as_secs_f64()));
                self.pace.begin(self.started.elapsed());
            }
            RunEvent::Begun { updates, .. } => self.pace.done = updates,
            RunEvent::Updated { done, of, lines } => self.updated(done, of, lines),
            RunEvent::Saved | RunEvent::Evaluated(_) => {}
        }
        if let Some(teller) = &mut self.teller {
            teller.event(event, self.pace.per_second());
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.finish_bar();
    }
}

/// Mean return over all episodes that some network was played on.
fn mean_return(lines: &[UpdateMetrics]) -> Option<f64> {
    let played = lines.iter().filter_map(|line| line.validation);
    let (sum, count) = played.fold((0.0, 0.0), |(sum, count), validation| {
        let episodes = validation.episodes as f64;
        (sum + episodes * f64::from(validation.mean_return), count + episodes)
    });
    (count > 0.0).then(|| sum / count)
}

/// How fast updates are done, with more weight on the last half a minute.
#[derive(Debug, Default)]
struct Pace {
    since: Duration,
    done: u64,
    per_second: Option<f64>,
}

impl Pace {
    /// Seconds over which what was measured loses weight.
    const MEMORY: f64 = 30.0;

    /// Updates begin now.
    fn begin(&mut self, now: Duration) {
        self.since = now;
        self.per_second = None;
    }

    /// So many are done.
    fn at(&mut self, now: Duration, done: u64) {
        // Fewer than before: another run, of a fold, has begun.
        let new = if done < self.done { done } else { done - self.done };
        let seconds = now.saturating_sub(self.since).as_secs_f64();
        (self.since, self.done) = (now, done);
        if seconds > 0.0 {
            let rate = new as f64 / seconds;
            let share = 1.0 - (-seconds / Self::MEMORY).exp();
            self.per_second = Some(self.per_second.map_or(rate, |before| before + share * (rate - before)));
        }
    }

    /// Updates per second; `None` before the first.
    fn per_second(&self) -> Option<f64> {
        self.per_second.filter(|rate| *rate > 0.0)
    }
}

/// When a line is due where there is no terminal: after ten seconds, then ever less often as the run grows long, and at the end.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    last: Duration,
}

impl Lines {
    const APART: Duration = Duration::from_secs(10);

    /// Whether a line is due; whoever asks then writes it.
    pub(crate) fn is_due(&mut self, now: Duration, is_last: bool) -> bool {
        let due = is_last || now.saturating_sub(self.last) >= Self::APART.max(now / 50);
        if due {
            self.last = now;
        }
        due
    }
}

/// A length of time for people.
pub(crate) fn span(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3_600, whole % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use bellwether_trainer::metrics::Validation;

    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn line(network: &str, validation: Option<Validation>) -> UpdateMetrics {
        UpdateMetrics {
            network: network.to_owned(),
            update: 100,
            loss: 0.25,
            mean_q: 0.5,
            mean_target: -0.125,
            max_error: 1.0,
            gradient_norm: 2.0,
            learning_rate: 1e-3,
            validation,
        }
    }

    #[test]
    fn a_run_that_goes_on_is_not_taken_for_a_fast_one() {
        let mut pace = Pace::default();
        assert_eq!(pace.per_second(), None);
        pace.done = 5_000;
        pace.begin(seconds(8.0));
        pace.at(seconds(10.0), 5_100);
        assert_eq!(pace.per_second(), Some(50.0));
        // Twice as fast from here on: half a minute later that is most of what counts.
        for second in 1..=60 {
            pace.at(seconds(10.0 + f64::from(second)), 5_100 + 100 * second as u64);
        }
        let rate = pace.per_second().unwrap();
        assert!((90.0..100.0).contains(&rate), "{rate}");
        // The next fold begins anew.
        pace.begin(seconds(80.0));
        pace.at(seconds(81.0), 40);
        assert_eq!(pace.per_second(), Some(40.0));
    }

    #[test]
    fn lines_come_less_often_the_longer_a_run_takes() {
        let mut lines = Lines::default();
        let told = |lines: &mut Lines, from: u64, to: u64| {
            (from..to).filter(|second| lines.is_due(Duration::from_secs(*second), false)).count()
        };
        assert_eq!(told(&mut lines, 0, 10), 0);
        assert_eq!(told(&mut lines, 10, 500), 49);
        assert!(told(&mut lines, 500, 36_000) < 250, "ten hours have few hundred lines");
        assert!(lines.is_due(Duration::from_secs(36_000), true));
    }

    #[test]
    fn what_is_told_holds_what_is_known() {
        let output = Output::new(true);
        let mut progress = Progress::new(&output);
        assert_eq!(progress.text(100), "");
        progress.latest = Some(line(RELEASED, None));
        assert_eq!(progress.text(100), "loss 0.2500, q +0.500 for -0.125, step size 1.0e-3");
        progress.mean_return = Some(0.75);
        progress.pace.at(seconds(1.0), 50);
        let text = progress.text(4_000);
        assert_eq!(text, "loss 0.2500, q +0.500 for -0.125, return +0.750, step size 1.0e-3, 50/s, 1 min 20 s left");
    }

    #[test]
    fn a_mean_return_is_one_over_episodes() {
        let line = |validation| line("fold-1", validation);
        let played = |episodes, mean_return| line(Some(Validation { episodes, mean_return, overestimation: 0.0 }));
        assert_eq!(mean_return(&[line(None)]), None);
        assert_eq!(mean_return(&[played(30, 1.0), line(None), played(10, -1.0)]), Some(0.5));
    }

    #[test]
    fn lengths_of_time_have_two_units() {
        for (seconds, told) in [(0.4, "0 s"), (59.4, "59 s"), (60.0, "1 min 00 s"), (3_725.0, "1 h 02 min")] {
            assert_eq!(span(seconds), told);
        }
    }
}
