//! The report for people: one page that needs no network and runs nothing.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io::{self, Write};

use base64::Engine as _;
use bellwether_artifact::Visible;
use bellwether_env_adapter::Action;
use sha2::Digest;

use super::attack::Seen;
use super::clock;
use super::record::{Change, Counts, EpisodeRecord, StageRecord, WindowRecord};
use super::tree::Tree;
use crate::network::Protocol;
use crate::tracer::Traffic;

/// Rows of a table that are shown; how many more there are stands below it.
const ROWS: usize = 2_000;

const STYLE: &str = "\
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1b1f24;background:#fff}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid #d0d7de}\
table{border-collapse:collapse;width:100%;font-size:.85rem}th,td{text-align:left;padding:.2rem .5rem;\
border-bottom:1px solid #eaeef2;vertical-align:top}td{overflow-wrap:anywhere}code,pre{font-family:ui-monospace,monospace}\
pre{white-space:pre-wrap;overflow-wrap:anywhere}.n{text-align:right;font-variant-numeric:tabular-nums}\
.bad{color:#a40e26;font-weight:600}.good{color:#116329;font-weight:600}.off{color:#8c959f;text-decoration:line-through}\
.best{font-weight:700}svg{width:100%;height:auto}";

/// Text of others inside a page.
struct Text<T>(T);

impl<T: AsRef<[u8]>> Display for Text<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in Visible::new(&self.0).to_string().chars() {
            match character {
                '&' => out.write_str("&amp;")?,
                '<' => out.write_str("&lt;")?,
                '>' => out.write_str("&gt;")?,
                '"' => out.write_str("&quot;")?,
                '\'' => out.write_str("&#39;")?,
                '`' => out.write_str("&#96;")?,
                _ => fmt::Write::write_char(out, character)?,
            }
        }
        Ok(())
    }
}

/// What is spelled as [`Visible`] does, as it was; it is spelled again where it is shown.
fn unspelled(text: &str) -> Vec<u8> {
    Visible::read(text).unwrap_or_else(|| text.as_bytes().to_vec())
}

/// Writes the page.
pub(super) fn write(record: &EpisodeRecord, seen: &[Seen], out: &mut impl Write) -> io::Result<()> {
    let hash = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(STYLE));
    // Only this very style sheet is let in, and nothing else from anywhere: no script, no image, no form, no frame.
    let policy = format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'");
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\
         <meta name=\"referrer\" content=\"no-referrer\"><meta name=\"robots\" content=\"noindex\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{}</title><style>{STYLE}</style></head><body>\n",
        Text(unspelled(&record.sample.name()))
    )?;
    head(record, out)?;
    behaviours(seen, out)?;
    for stage in &record.stages {
        writeln!(out, "<h2>Stage {}</h2>", stage.stage)?;
        facts(stage, out)?;
        timeline(stage, out)?;
        windows(stage, out)?;
        processes(stage, out)?;
        network(stage, out)?;
        changes(stage, out)?;
    }
    writeln!(out, "</body></html>")
}

fn head(record: &EpisodeRecord, out: &mut impl Write) -> io::Result<()> {
    let sample = &record.sample;
    let (class, verdict) = match record.outcome.verdict {
        Some(action) if action.is_conviction() => ("bad", action.name()),
        Some(action) => ("good", action.name()),
        None => ("bad", "none"),
    };
    writeln!(
        out,
        "<h1><code>{}</code>: <span class=\"{class}\">{verdict}</span></h1>",
        Text(unspelled(&sample.name()))
    )?;
    writeln!(out, "<p>{}</p><table>", Text(&record.outcome.text))?;
    let links = sample.links.to_string();
    let mut rows = vec![
        ("episode", record.episode_id.0.clone()),
        ("path", sample.path.clone()),
        ("kind", sample.kind.clone()),
        ("bytes", sample.bytes.to_string()),
        ("SHA-256", sample.sha256.to_string()),
        ("SHA-1", sample.sha1.clone()),
        ("MD5", sample.md5.clone()),
        ("names (hard links)", links),
        ("began", clock::seconds(record.began_ms()) + " UTC"),
        ("ended", clock::seconds(record.ended_ms()) + " UTC"),
        ("verdict fell in stage", record.outcome.stage.to_string()),
    ];
    if let Some(removal) = &record.outcome.quarantine {
        rows.push(("original", format!("{removal:?}")));
    }
    if let Some(id) = &record.outcome.quarantine_id {
        rows.push(("in quarantine as", id.clone()));
    }
    rows.extend(record.partial.iter().map(|why| ("incomplete", why.clone())));
    for (name, value) in rows {
        let value = if matches!(name, "path" | "kind") { unspelled(&value) } else { value.into_bytes() };
        writeln!(out, "<tr><th>{name}</th><td><code>{}</code></td></tr>", Text(value))?;
    }
    writeln!(out, "</table>")
}

fn behaviours(seen: &[Seen], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "<h2>Behaviours</h2>")?;
    if seen.is_empty() {
        return writeln!(out, "<p>None of those that are known.</p>");
    }
    writeln!(out, "<table><tr><th>technique</th><th>name</th><th>why</th><th>at</th><th>times</th></tr>")?;
    for seen in seen {
        let at = seen.path.as_deref().unwrap_or_default();
        writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>stage {}, event {} <code>{}</code></td><td class=\"n\">{}</td></tr>",
            seen.technique.id,
            Text(seen.technique.name),
            Text(seen.why),
            seen.stage,
            seen.seq,
            Text(at),
            seen.count
        )?;
    }
    writeln!(out, "</table>")
}

fn facts(stage: &StageRecord, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "<p>On <code>{}</code> for {} ms: {} events, {} windows, {} processes, {} changed files.</p>",
        Text(&stage.host_name),
        stage.duration_ms,
        stage.events,
        stage.windows.len(),
        stage.processes.len() as u64 + stage.further_processes,
        stage.changes.len() as u64 + stage.further_changes
    )?;
    if stage.skipped_ms > 0 {
        writeln!(out, "<p>{} ms that it waited for passed at once.</p>", stage.skipped_ms)?;
    }
    counts(&stage.counts, out)?;
    for (what, texts) in [("Without", &stage.lacking), ("Went wrong:", &stage.faults)] {
        for text in texts {
            writeln!(out, "<p class=\"bad\">{what} {}</p>", Text(text))?;
        }
    }
    Ok(())
}

fn counts(counts: &Counts, out: &mut impl Write) -> io::Result<()> {
    let listed = |counts: &BTreeMap<String, u64>| {
        let each: Vec<String> = counts.iter().map(|(what, count)| format!("{what}: {count}")).collect();
        each.join(", ")
    };
    let Traffic { read_bytes, written_bytes, reads, writes } = counts.io;
    let mut rows = vec![
        ("events denied", counts.denied.to_string()),
        ("events that no decision saw", counts.undecided.to_string()),
        ("calls refused and not recorded", listed(&counts.refused)),
        ("processes ended", listed(&counts.ends)),
        ("most tasks at once", counts.most_tasks.to_string()),
        ("read", format!("{read_bytes} bytes in {reads} calls")),
        ("written", format!("{written_bytes} bytes in {writes} calls")),
    ];
    if let Some(pressure) = &counts.pressure {
        rows.push(("forks refused at the bound on tasks", pressure.refused_forks.to_string()));
        rows.push(("tasks killed at the bound on memory", pressure.out_of_memory_kills.to_string()));
        rows.push(("most memory at once", format!("{} bytes", pressure.peak_memory_bytes)));
    }
    writeln!(out, "<table>")?;
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "<tr><th>{name}</th><td>{}</td></tr>", Text(value))?;
    }
    writeln!(out, "</table>")
}

/// The windows along time: a bar for the isolation level, a mark where something was done.
fn timeline(stage: &StageRecord, out: &mut impl Write) -> io::Result<()> {
    const WIDTH: f64 = 1000.0;
    const LEVELS: [&str; 4] = ["#b6e3ff", "#fae17d", "#ffb77c", "#ff8182"];
    let Some(last) = stage.windows.iter().map(|window| window.closed_ns).max() else { return Ok(()) };
    let x = |time_ns: u64| time_ns as f64 / last.max(1) as f64 * WIDTH;
    writeln!(out, "<svg viewBox=\"0 0 1000 60\" role=\"img\" aria-label=\"windows along time\">")?;
    let mut from = 0;
    for window in stage.windows.iter().take(ROWS) {
        let color = LEVELS[usize::from(window.level).min(3)];
        let width = (x(window.closed_ns) - x(from)).max(0.5);
        writeln!(
            out,
            "<rect x=\"{:.2}\" y=\"20\" width=\"{width:.2}\" height=\"24\" fill=\"{color}\" stroke=\"#57606a\" \
             stroke-width=\"0.3\"><title>window {}, level {}, {} events</title></rect>",
            x(from),
            window.index,
            window.level,
            window.events
        )?;
        let action = window.decision.action;
        if action != Action::Continue {
            let color = if action == Action::Release { "#116329" } else { "#a40e26" };
            let at = x(window.closed_ns).clamp(4.0, WIDTH - 4.0);
            writeln!(
                out,
                "<circle cx=\"{at:.2}\" cy=\"12\" r=\"5\" fill=\"{color}\"><title>{}</title></circle>",
                action.name()
            )?;
        }
        from = window.closed_ns;
    }
    writeln!(out, "<text x=\"0\" y=\"57\" font-size=\"11\">0</text>")?;
    let end = last as f64 / 1e6;
    writeln!(out, "<text x=\"1000\" y=\"57\" font-size=\"11\" text-anchor=\"end\">{end:.1} ms</text></svg>")
}

fn windows(stage: &StageRecord, out: &mut impl Write) -> io::Result<()> {
    if stage.windows.is_empty() {
        return Ok(());
    }
    write!(
        out,
        "<h3>Windows</h3><table><tr><th>#</th><th>closed, ms</th><th>events</th><th>level</th><th>action</th>"
    )?;
    for action in Action::ALL {
        write!(out, "<th class=\"n\">{}</th>", action.name())?;
    }
    writeln!(out, "<th class=\"n\">margin</th><th>decided</th><th>came of it</th></tr>")?;
    for window in stage.windows.iter().take(ROWS) {
        row(window, out)?;
    }
    writeln!(out, "</table>")?;
    rest(stage.windows.len(), 0, "windows", out)
}

fn row(window: &WindowRecord, out: &mut impl Write) -> io::Result<()> {
    let decision = &window.decision;
    let class = match decision.action {
        Action::Continue => "",
        Action::Release => "good",
        _ => "bad",
    };
    write!(
        out,
        "<tr><td>{}</td><td class=\"n\">{:.2}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"{class}\">{}</td>",
        window.index,
        window.closed_ns as f64 / 1e6,
        window.events,
        window.level,
        decision.action.name()
    )?;
    for action in Action::ALL {
        let allowed = decision.mask[action.index()];
        let class = if !allowed {
            " off"
        } else if action == decision.action {
            " best"
        } else {
            ""
        };
        match decision.q_values.as_ref().and_then(|values| values.get(action.index())) {
            Some(value) => write!(out, "<td class=\"n{class}\">{value:.3}</td>")?,
            None => write!(out, "<td class=\"n{class}\">&ndash;</td>")?,
        }
    }
    match decision.margin {
        Some(margin) => write!(out, "<td class=\"n\">{margin:.3}</td>")?,
        None => write!(out, "<td class=\"n\">&ndash;</td>")?,
    }
    let by = match (&decision.safe_rule, &decision.model_version) {
        (Some(why), _) => format!("by the safe rule: {why}"),
        (None, Some(version)) => format!("by {version}"),
        (None, None) => "by nobody".to_owned(),
    };
    write!(out, "<td>{} in {:.0} \u{b5}s</td>", Text(by), decision.latency_ns as f64 / 1e3)?;
    match &decision.feedback {
        Some(feedback) => {
            let class = if feedback.applied { "good" } else { "bad" };
            writeln!(
                out,
                "<td><span class=\"{class}\">{}</span> in {:.2} ms, {} tries: {}</td></tr>",
                if feedback.applied { "took hold" } else { "failed" },
                feedback.latency_ns as f64 / 1e6,
                feedback.attempts,
                Text(&feedback.proof)
            )
        }
        None => writeln!(out, "<td></td></tr>"),
    }
}

/// The tree as indented text: a chain of any depth is one line per process.
fn processes(stage: &StageRecord, out: &mut impl Write) -> io::Result<()> {
    if stage.processes.is_empty() {
        return Ok(());
    }
    writeln!(out, "<h3>Processes</h3><pre>")?;
    for (depth, process) in Tree::of(&stage.processes).rows().into_iter().take(ROWS) {
        let command = if process.arguments.is_empty() { process.program.clone() } else { process.arguments.join(" ") };
        let end = match (process.exit_code, process.ended_ns) {
            (Some(code), _) if code < 0 => format!("killed by signal {}", code.unsigned_abs()),
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(_)) => "ended".to_owned(),
            (None, None) => "killed with the sandbox".to_owned(),
        };
        writeln!(
            out,
            "{:indent$}{} {} ({end}, {} threads)",
            "",
            process.pid,
            Text(command),
            process.threads.len().max(1),
            indent = depth.min(40) * 2
        )?;
    }
    writeln!(out, "</pre>")?;
    rest(stage.processes.len(), stage.further_processes, "processes", out)
}

fn network(stage: &StageRecord, out: &mut impl Write) -> io::Result<()> {
    let Some(traffic) = &stage.traffic else { return Ok(()) };
    if traffic.contacts.is_empty() && traffic.names.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<h3>Network</h3><p>All of it made up.</p><table><tr><th>to</th><th>sent</th><th>received</th><th>begins with</th></tr>"
    )?;
    for name in traffic.names.iter().take(ROWS) {
        writeln!(
            out,
            "<tr><td><code>{}</code></td><td></td><td></td><td>is {}</td></tr>",
            Text(&name.name),
            name.address
        )?;
    }
    for contact in traffic.contacts.iter().take(ROWS) {
        let protocol = match contact.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        writeln!(
            out,
            "<tr><td>{protocol} {}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td><code>{}</code></td></tr>",
            contact.to,
            contact.sent_bytes,
            contact.received_bytes,
            Text(&contact.first[..contact.first.len().min(200)])
        )?;
    }
    writeln!(out, "</table>")?;
    let further = traffic.names.len().saturating_sub(ROWS) as u64 + traffic.left_out;
    rest(traffic.contacts.len(), further, "conversations and names", out)
}

fn changes(stage: &StageRecord, out: &mut impl Write) -> io::Result<()> {
    if stage.changes.is_empty() && stage.further_changes == 0 {
        return Ok(());
    }
    writeln!(
        out,
        "<h3>Files</h3><p>Gone with the sandbox.</p><table><tr><th>change</th><th>path</th><th>bytes</th></tr>"
    )?;
    for change in stage.changes.iter().take(ROWS) {
        let kind = match change.change {
            Change::Created => "created",
            Change::Changed => "changed",
            Change::Deleted => "deleted",
        };
        let bytes = change.bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
        writeln!(
            out,
            "<tr><td>{kind}</td><td><code>{}</code></td><td class=\"n\">{bytes}</td></tr>",
            Text(&change.path)
        )?;
    }
    writeln!(out, "</table>")?;
    rest(stage.changes.len(), stage.further_changes, "files", out)
}

fn rest(rows: usize, further: u64, what: &str, out: &mut impl Write) -> io::Result<()> {
    match (rows.saturating_sub(ROWS) as u64).saturating_add(further) {
        0 => Ok(()),
        more => writeln!(out, "<p>And {more} more {what}.</p>"),
    }
}
