//! A decision over gRPC beside an echo of the same messages.

use serde::Deserialize;

use super::{Effort, Ratio, report};
use crate::workspace::cargo;

/// What the bench `serve` reports, as far as the table needs it.
#[derive(Debug, Deserialize)]
struct ServiceReport {
    rounds: usize,
    round_ms: u64,
    processors_apart: bool,
    rows: Vec<Row>,
}

/// One way to ask.
#[derive(Debug, Deserialize)]
struct Row {
    carrier: String,
    at_once: usize,
    ours: Middle,
    echo: Middle,
    over_echo: OverEcho,
}

/// The middle of the rounds.
#[derive(Debug, Deserialize)]
struct Middle {
    p50_us: f64,
    p99_us: f64,
    per_second: f64,
}

/// Ours over the echo.
#[derive(Debug, Deserialize)]
struct OverEcho {
    p50: Ratio,
    p99: Ratio,
    per_second: Ratio,
}

/// Prints the table.
pub(super) fn print(effort: Effort) -> anyhow::Result<()> {
    let mut bench = cargo();
    bench.args(["bench", "--quiet", "--profile", effort.profile(), "--locked", "--package", "bellwether-inference"]);
    bench.args(["--features", "serve", "--bench", "serve", "--"]);
    bench.args(effort.choose(&[][..], &["2", "50"]));
    let found: ServiceReport = report(&mut bench)?;
    println!("\n## One decision over gRPC\n");
    println!(
        "| over | at once | ours: p50, p99 | per second | bare echo: p50, p99 | per second | ours / echo: p50 (of rounds) | \
         p99 (of rounds) | rate (of rounds) |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    found.rows.iter().for_each(|row| println!("{}", line(row)));
    println!("\n{}", note(&found));
    Ok(())
}

fn line(Row { carrier, at_once, ours, echo, over_echo }: &Row) -> String {
    let times =
        |Middle { p50_us, p99_us, per_second }: &Middle| format!("{p50_us:.1} us, {p99_us:.1} us | {per_second:.0}");
    let OverEcho { p50, p99, per_second } = over_echo;
    let ratios = [p50, p99, per_second].map(Ratio::text).join(" | ");
    format!("| {carrier} | {at_once} | {} | {} | {ratios} |", times(ours), times(echo))
}

fn note(ServiceReport { rounds, round_ms, processors_apart, .. }: &ServiceReport) -> String {
    let processors = match processors_apart {
        true => "each server answers on one thread of the first processor, the clients ask from one of the second",
        false => "servers and clients share one processor, for there is no second",
    };
    format!(
        "Medians of {rounds} rounds of {round_ms} ms, in which ours and a bare server of `tonic` take turns; {processors}."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report as the bench writes it.
    const REPORT: &str = r#"{"rounds": 11, "round_ms": 250, "processors_apart": true, "rows": [{"carrier": "unix",
        "at_once": 1, "ours": {"p50_us": 56.04, "p99_us": 80.5, "per_second": 16500.4},
        "echo": {"p50_us": 55.0, "p99_us": 90.0, "per_second": 17000.0},
        "over_echo": {"p50": {"whole": 1.019, "least": 0.98, "most": 1.05}, "p99": {"whole": 0.9, "least": 0.8, "most": 1.3},
        "per_second": {"whole": 0.97, "least": 0.95, "most": 1.01}}}]}"#;

    #[test]
    fn a_report_becomes_rows_and_a_note() {
        let report: ServiceReport = serde_json::from_str(REPORT).unwrap();
        assert_eq!(
            line(&report.rows[0]),
            "| unix | 1 | 56.0 us, 80.5 us | 16500 | 55.0 us, 90.0 us | 17000 | 1.02 (0.98 to 1.05) | 0.90 (0.80 to 1.30) | \
             0.97 (0.95 to 1.01) |"
        );
        assert!(note(&report).starts_with("Medians of 11 rounds of 250 ms"));
        assert!(note(&ServiceReport { processors_apart: false, ..report }).ends_with("there is no second."));
    }
}
