//! The numbers of a loop, in the text format of Prometheus.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bellwether_sandbox::intake::Counts;

use super::{Failure, scrape};

/// What is told.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) counts: Counts,
    pub(crate) decisions: AtomicU64,
    pub(crate) safe_rule: AtomicU64,
    pub(crate) partial: AtomicU64,
}

impl Numbers {
    /// The page; `answers` says whether the policy does.
    fn text(&self, answers: bool) -> String {
        let own = [
            ("policy_answers", "Whether the policy answers.", false, u64::from(answers)),
            ("decisions", "Decisions of all episodes.", true, self.decisions.load(Ordering::Relaxed)),
            ("safe_rule", "Decisions of the safe rule.", true, self.safe_rule.load(Ordering::Relaxed)),
            ("partial", "Episodes whose record is not whole.", true, self.partial.load(Ordering::Relaxed)),
        ];
        let mut text = String::new();
        for (name, help, grows, value) in self.counts.all().into_iter().chain(own) {
            let (suffix, kind) = if grows { ("_total", "counter") } else { ("", "gauge") };
            let name = format!("bellwether_loop_{name}{suffix}");
            _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
        text
    }
}

/// Whether the policy answers.
type Answers = Box<dyn Fn() -> bool + Send>;

/// Answers on a loopback address from now on; with the port that was found.
pub(crate) fn tell(address: SocketAddr, numbers: Arc<Numbers>, answers: Answers) -> Result<SocketAddr, Failure> {
    scrape::listen(address, Box::new(move || numbers.text(answers())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_gauges_are_told_as_such() {
        let numbers = Numbers::default();
        numbers.counts.released.store(7, Ordering::Relaxed);
        let text = numbers.text(false);
        assert!(text.contains("# TYPE bellwether_loop_released_total counter\nbellwether_loop_released_total 7\n"));
        assert!(text.contains("# TYPE bellwether_loop_policy_answers gauge\nbellwether_loop_policy_answers 0\n"));
    }

    #[test]
    fn the_manual_has_a_row_for_every_number() {
        let page = include_str!("../../docs/stages.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `bellwether_loop_")?.split('`').next());
        let mut manual: Vec<String> = rows.map(|name| format!("bellwether_loop_{name}")).collect();
        let text = Numbers::default().text(true);
        let told = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let mut told: Vec<String> = told.map(str::to_owned).collect();
        manual.sort();
        told.sort();
        assert_eq!(manual, told);
    }
}
