//! The report on a terminal.

use std::fmt::Write;

use bellwether_artifact::Visible;

use super::attack::Seen;
use super::record::EpisodeRecord;

/// The episode in a few lines of text: what is not a plain window, what was seen, and how it ended. No name of the sample can
/// act on the terminal.
pub fn summary(record: &EpisodeRecord, seen: &[Seen]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_summary(record, seen, &mut text);
    text
}

fn write_summary(record: &EpisodeRecord, seen: &[Seen], out: &mut String) -> std::fmt::Result {
    let verdict = record.outcome.verdict.map_or("no verdict", |action| action.name());
    let path = record.sample.path();
    writeln!(out, "{}: {verdict}", Visible::new(path.as_os_str().as_encoded_bytes()))?;
    writeln!(out, "  episode {}, SHA-256 {}", Visible::new(&record.episode_id.0), record.sample.sha256)?;
    for stage in &record.stages {
        let (events, windows) = (stage.events, stage.windows.len());
        let processes = stage.processes.len() as u64 + stage.further_processes;
        writeln!(
            out,
            "  stage {}: {events} events in {windows} windows of {processes} processes, {} ms",
            stage.stage, stage.duration_ms
        )?;
        for window in stage.windows.iter().filter(|window| window.decision.action.index() != 0) {
            let decision = &window.decision;
            write!(out, "    window {} at level {}: {}", window.index, window.level, decision.action.name())?;
            if let Some(feedback) = &decision.feedback {
                let done = if feedback.applied { "took hold" } else { "FAILED" };
                write!(out, ", {done} after {:.2} ms: ", feedback.latency_ns as f64 / 1e6)?;
                write!(out, "{}", Visible::new(&feedback.proof))?;
            }
            writeln!(out)?;
        }
        let mut ruled = stage.windows.iter().filter_map(|window| window.decision.safe_rule.as_deref());
        if let Some(why) = ruled.next() {
            writeln!(out, "    {} windows by the safe rule: {}", 1 + ruled.count(), Visible::new(why))?;
        }
    }
    for seen in seen {
        writeln!(out, "  {} {}: {}", seen.technique.id, seen.technique.name, seen.why)?;
    }
    for why in &record.partial {
        writeln!(out, "  incomplete: {}", Visible::new(why))?;
    }
    writeln!(out, "  {}", Visible::new(&record.outcome.text))
}
