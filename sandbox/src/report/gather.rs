//! The record of an episode that was run, and its reports from the telemetry that lies on disk.

use std::path::Path;

use bellwether_env_adapter::ingest::TelemetryReader;
use bellwether_env_adapter::{EpisodeAttributes, Event, EventSink};

use super::processes::Processes;
use super::record::{
    Change, Counts, DecisionRecord, EpisodeRecord, Feedback, FileChange, Outcome, StageRecord, WindowRecord,
};
use super::{ReportError, Reports, write_from};
use crate::cage::{Changes, Found};
use crate::episode::{self, Decision};
use crate::stage::{self, Came, Ended};

/// Writes all reports of an episode that was run into a folder, from the telemetry that it left. `version`
/// is that of the program that makes them.
///
/// # Errors
/// [`ReportError::NoTelemetry`] where it left none; else as [`super::write`].
pub fn write_episode(folder: &Path, report: &episode::Report, version: &str) -> Result<Reports, ReportError> {
    let files = report.files.as_ref().ok_or(ReportError::NoTelemetry)?;
    let open = || TelemetryReader::open(&files.telemetry).map_err(|error| ReportError::Events(error.into()));
    let mut processes = Processes::default();
    feed(open()?, &mut |event| {
        processes.event(event);
        Ok(())
    })?;
    let record = record(report, version, processes);
    write_from(folder, &record, |each| feed(open()?, each))
}

/// Hands every event of a file on.
fn feed(
    reader: TelemetryReader,
    each: &mut dyn FnMut(&Event<'_>) -> Result<(), ReportError>,
) -> Result<(), ReportError> {
    struct Each<'a>(&'a mut dyn FnMut(&Event<'_>) -> Result<(), ReportError>, Option<ReportError>);

    impl EventSink for Each<'_> {
        type Error = std::io::Error;

        fn begin(&mut self, _: &EpisodeAttributes) -> Result<(), Self::Error> {
            Ok(())
        }

        fn event(&mut self, event: &Event<'_>) -> Result<(), Self::Error> {
            (self.0)(event).map_err(|error| {
                self.1 = Some(error);
                std::io::Error::other("a report cannot be written")
            })
        }

        fn end(&mut self, _: bool) -> Result<(), Self::Error> {
            Ok(())
        }
    }

    let mut sink = Each(each, None);
    let read = reader.read(&mut sink);
    // What kept a report from being written is told, not what the reader made of it.
    match (sink.1, read) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(ReportError::Events(error.into())),
        (None, Ok(_)) => Ok(()),
    }
}

fn record(report: &episode::Report, version: &str, mut processes: Processes) -> EpisodeRecord {
    let stages = (1..).zip(report.began_ms).filter_map(|(number, began_ms)| {
        let outcome = report.outcomes.iter().find(|outcome| outcome.stage == number);
        let cut_off = || began_ms.map(|_| cut_off(report, number, &processes));
        let outcome = outcome.cloned().or_else(cut_off)?;
        Some(stage(report, &outcome, began_ms.unwrap_or(0), &mut processes))
    });
    EpisodeRecord {
        episode_id: report.episode_id.clone(),
        sample: report.sample.clone(),
        version: version.to_owned(),
        stages: stages.collect(),
        outcome: Outcome {
            verdict: report.verdict,
            stage: report.stage,
            quarantine: report.quarantine.as_ref().map(|quarantined| quarantined.removal.clone()),
            quarantine_id: report.quarantine.as_ref().map(|quarantined| quarantined.id.to_string()),
            text: text(report),
        },
        partial: report.partial.iter().map(ToString::to_string).collect(),
    }
}

/// What is known of a run whose end nobody told: what its events and decisions say.
fn cut_off(report: &episode::Report, number: u8, processes: &Processes) -> stage::Outcome {
    let decisions = || report.decisions.iter().filter(|decision| decision.stage == number);
    let (events, last_ns) = processes.seen(number);
    let last_ns = decisions().map(|decision| decision.time_ns).fold(last_ns, u64::max);
    stage::Outcome {
        host_name: "unknown".to_owned(),
        level: decisions().next_back().map_or(0, |last| last.level_after),
        events,
        windows: u32::try_from(decisions().count()).unwrap_or(u32::MAX),
        run_ms: last_ns / 1_000_000,
        ..stage::Outcome::of_nothing(number)
    }
}

fn text(report: &episode::Report) -> String {
    let decisions = report.decisions.len();
    match report.verdict {
        Some(verdict) => format!("{} in stage {} after {decisions} decisions", verdict.name(), report.stage),
        None => format!("no verdict; it broke off in stage {} after {decisions} decisions", report.stage),
    }
}

fn stage(report: &episode::Report, outcome: &stage::Outcome, began_ms: u64, processes: &mut Processes) -> StageRecord {
    let (mut processes, further_processes) = processes.take(outcome.stage);
    if let (Some(first), Ended::Killed { signal }) = (processes.first_mut(), outcome.ended) {
        first.exit_code = Some(-signal);
    }
    let (changes, further_changes) = outcome.changes.as_ref().map(changes).unwrap_or_default();
    let decisions = report.decisions.iter().filter(|decision| decision.stage == outcome.stage);
    StageRecord {
        stage: outcome.stage,
        host_name: outcome.host_name.clone(),
        began_ms,
        duration_ms: outcome.run_ms,
        events: outcome.events,
        counts: Counts {
            denied: outcome.denied,
            undecided: outcome.undecided,
            refused: outcome.refused.clone(),
            ends: outcome.ends.clone(),
            most_tasks: outcome.most_tasks,
            io: outcome.io,
            pressure: outcome.pressure,
        },
        windows: decisions.map(|decision| window(report, decision)).collect(),
        processes,
        further_processes,
        changes,
        further_changes,
        traffic: outcome.traffic.clone(),
        skipped_ms: outcome.skipped_ms,
        lacking: outcome.lacking.clone(),
        faults: outcome.faults.iter().map(ToString::to_string).collect(),
    }
}

fn window(report: &episode::Report, decision: &Decision) -> WindowRecord {
    let came = report.feedback.iter().find(|feedback| feedback.decision.as_ref() == Some(&decision.decision));
    let feedback = came.map(|feedback| Feedback {
        applied: matches!(feedback.came, Came::Done { .. }),
        proof: match &feedback.came {
            Came::Done { proof } => proof.text().to_owned(),
            Came::Refused { why } => format!("refused: {why:?}").to_lowercase(),
            Came::Failed { why } => why.clone(),
        },
        attempts: feedback.attempts,
        latency_ns: feedback.took_us.saturating_mul(1_000),
    });
    WindowRecord {
        index: decision.window,
        events: decision.events,
        closed_ns: decision.time_ns,
        level: decision.level,
        decision: DecisionRecord {
            decision_id: decision.decision.0.clone(),
            action: decision.action,
            mask: decision.mask,
            q_values: decision.q_values.map(Vec::from),
            margin: decision.margin,
            model_version: decision.model_version.clone(),
            safe_rule: decision.safe_rule.clone(),
            latency_ns: decision.took_us.saturating_mul(1_000),
            feedback,
        },
    }
}

fn changes(changes: &Changes) -> (Vec<FileChange>, u64) {
    let found = |change: Change, found: &Found| FileChange {
        change,
        path: found.path.clone(),
        bytes: Some(found.bytes),
        sha256: found.sha256,
    };
    let deleted = |path: &String| FileChange { change: Change::Deleted, path: path.clone(), bytes: None, sha256: None };
    let created = changes.created.iter().map(|one| found(Change::Created, one));
    let changed = changes.changed.iter().map(|one| found(Change::Changed, one));
    let listed = created.chain(changed).chain(changes.deleted.iter().map(deleted)).collect();
    let left_out = changes.left_out;
    (listed, left_out.too_deep + left_out.unreadable + left_out.beyond)
}
