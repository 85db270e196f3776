//! Decisions while models are swapped, beside decisions while they are not.

use serde::Deserialize;

use super::{Effort, Ratio, report};
use crate::workspace::cargo;

/// What the example `reload` reports, as far as the table needs it.
#[derive(Debug, Deserialize)]
struct ReloadReport {
    widths: Vec<usize>,
    reloads: u64,
    not_served: u64,
    ms_per_reload: f64,
    pause_ms: u64,
    steady: Times,
    reloading: Times,
    busy: Times,
    over_steady: Over,
    over_busy: Over,
    failed_decisions: u64,
    resident: Resident,
}

/// Times of decisions.
#[derive(Debug, Deserialize)]
struct Times {
    p50_us: f64,
    p99_us: f64,
}

/// While reloading over another part of the rounds.
#[derive(Debug, Deserialize)]
struct Over {
    p50: Ratio,
    p99: Ratio,
}

/// Memory of the process.
#[derive(Debug, Deserialize)]
struct Resident {
    last_mb: f64,
    /// Null where there were too few reloads for a line.
    bytes_per_reload: Option<f64>,
}

/// One row: so many reloads of networks with hidden layers so wide, and so many milliseconds between them.
struct Load {
    reloads: u64,
    hidden: u64,
    pause_ms: u64,
}

/// Without a pause, so that every decision meets a reload; with one that is still far shorter than any between releases.
const LOADS: [Load; 3] = [
    Load { reloads: 10_000, hidden: 64, pause_ms: 0 },
    Load { reloads: 1_000, hidden: 256, pause_ms: 0 },
    Load { reloads: 1_000, hidden: 256, pause_ms: 100 },
];

/// Prints the table.
pub(super) fn print(effort: Effort) -> anyhow::Result<()> {
    println!("\n## One decision while models are reloaded\n");
    println!(
        "| network | reloads (refused) | each, pause | steady: p50, p99 | reloading | busy | reloading / steady: p50, p99 (of rounds) | \
         reloading / busy: p50, p99 (of rounds) | failed decisions | resident, growth per reload |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for Load { reloads, hidden, pause_ms } in LOADS {
        let mut run = cargo();
        run.args(["run", "--quiet", "--profile", effort.profile(), "--locked", "--package", "bellwether-inference"]);
        // More than it needs: what the bench of the service was built with.
        run.args(["--features", "serve", "--example", "reload", "--"]);
        run.args([effort.choose(reloads, 40), hidden, pause_ms].map(|number| number.to_string()));
        println!("{}", line(&report(&mut run)?));
    }
    println!(
        "\nOne thread decides without pause. Steady: nothing else runs. Reloading: another thread reads, checks, verifies and swaps in \
         one of two signed releases after the other. Busy: that thread hashes for as long and with the same pauses instead, which \
         tells what any work on the other processor costs. The three take turns."
    );
    Ok(())
}

fn line(report: &ReloadReport) -> String {
    let ReloadReport { reloads, not_served, ms_per_reload, pause_ms, failed_decisions, resident, .. } = report;
    let network = report.widths.iter().map(ToString::to_string).collect::<Vec<_>>().join("-");
    let times = |Times { p50_us, p99_us }: &Times| format!("{p50_us:.2} us, {p99_us:.2} us");
    let [steady, reloading, busy] = [&report.steady, &report.reloading, &report.busy].map(times);
    let over = |Over { p50, p99 }: &Over| format!("{}, {}", p50.text(), p99.text());
    let (over_steady, over_busy) = (over(&report.over_steady), over(&report.over_busy));
    let growth = resident.bytes_per_reload.map_or("unknown".to_owned(), |bytes| format!("{bytes:+.1} B"));
    format!(
        "| {network} | {reloads} ({not_served}) | {ms_per_reload:.1} ms, {pause_ms} ms | {steady} | {reloading} | {busy} | {over_steady} | \
         {over_busy} | {failed_decisions} | {:.1} MB, {growth} |",
        resident.last_mb
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report as the example writes it.
    const REPORT: &str = r#"{"widths": [64, 256, 256, 5], "reloads": 400, "not_served": 0, "ms_per_reload": 48.71,
        "pause_ms": 0, "steady": {"decisions": 900000, "p50_us": 1.4, "p99_us": 2.98, "p999_us": 4.0},
        "reloading": {"decisions": 800000, "p50_us": 1.5, "p99_us": 5.18, "p999_us": 9.0},
        "busy": {"decisions": 800000, "p50_us": 1.5, "p99_us": 5.0, "p999_us": 9.0},
        "over_steady": {"p50": {"whole": 1.07, "least": 1.0, "most": 1.2}, "p99": {"whole": 1.738, "least": 1.5, "most": 2.0}},
        "over_busy": {"p50": {"whole": 1.0, "least": 0.9, "most": 1.1}, "p99": {"whole": 1.036, "least": 0.8, "most": 1.25}},
        "failed_decisions": 0, "models_resident": 2,
        "resident": {"first_mb": 30.0, "last_mb": 30.04, "bytes_per_reload": -1.25}}"#;

    #[test]
    fn a_report_becomes_a_row() {
        let mut report: ReloadReport = serde_json::from_str(REPORT).unwrap();
        assert_eq!(
            line(&report),
            "| 64-256-256-5 | 400 (0) | 48.7 ms, 0 ms | 1.40 us, 2.98 us | 1.50 us, 5.18 us | 1.50 us, 5.00 us | \
             1.07 (1.00 to 1.20), 1.74 (1.50 to 2.00) | 1.00 (0.90 to 1.10), 1.04 (0.80 to 1.25) | 0 | 30.0 MB, -1.2 B |"
        );
        report.resident.bytes_per_reload = None;
        assert!(line(&report).ends_with("| 30.0 MB, unknown |"));
    }
}
