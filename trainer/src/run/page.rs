//! A run on one page: HTML that needs no network and no script.

use std::fmt::Write as _;

use bellwether_registry::{RunManifest, RunReport};

use crate::evaluate::values::Reliability;
use crate::evaluate::{Evaluation, Interval, OperatingPointReport, ValueReport};
use crate::metrics::UpdateMetrics;
use crate::plots::{self, Plot, PlotError};

/// A run as a page tells of it.
#[derive(Clone, Copy)]
pub struct RunPage<'a> {
    /// Where it stands, and on which terms it ran.
    pub report: &'a RunReport,
    /// Every record of its metrics.
    pub metrics: &'a [UpdateMetrics],
    /// What is wrong with lines of its metrics that hold no record.
    pub unreadable: &'a [String],
    /// Its evaluation, where it has one.
    pub evaluation: Option<&'a Evaluation>,
}

/// Families that are told of, those that fare worst first.
const FAMILIES: usize = 40;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;margin:.5rem 0}\
td,th{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\
figure{margin:1rem 0}figcaption{color:#555}svg{max-width:100%;height:auto}pre{background:#f6f6f6;padding:.8rem;overflow:auto}\
small{color:#777}";

impl RunPage<'_> {
    /// The pictures of the run.
    ///
    /// # Errors
    /// [`PlotError`] where one cannot be drawn.
    pub fn plots(&self) -> Result<Vec<Plot>, PlotError> {
        let mut all = plots::learning(self.metrics)?;
        if let Some(evaluation) = self.evaluation {
            all.extend(plots::evaluation(evaluation)?);
        }
        Ok(all)
    }

    /// Of lines without a record, those that are told of, and how many more there are.
    pub fn told(unreadable: &[String]) -> (&[String], usize) {
        const TOLD: usize = 10;
        let told = &unreadable[..unreadable.len().min(TOLD)];
        (told, unreadable.len() - told.len())
    }

    /// The page, with these pictures in it.
    pub fn html(&self, plots: &[Plot]) -> String {
        let RunReport { id, status, manifest, terminal, .. } = self.report;
        let mut page = head(id);
        let _ = write!(page, "<p>{status}");
        if let Some(reason) = terminal.as_ref().and_then(|terminal| terminal.reason.as_deref()) {
            let _ = write!(page, ": {}", escaped(reason));
        }
        page.push_str("</p>\n");
        page.push_str(&terms(manifest));
        if let Some(evaluation) = self.evaluation {
            page.push_str(&evaluated(evaluation));
        }
        page.push_str(&figures(plots));
        if let Some(last) = self.metrics.last() {
            let _ = writeln!(
                page,
                "<p>{} records of metrics; the last is of update {}: loss {:.5}, mean q-value {:+.4}.</p>",
                self.metrics.len(),
                last.update,
                last.loss,
                last.mean_q
            );
        }
        let (told, more) = RunPage::told(self.unreadable);
        for line in told {
            let _ = writeln!(page, "<p>Left out: {}</p>", escaped(line));
        }
        if more > 0 {
            let _ = writeln!(page, "<p>Left out: {more} more</p>");
        }
        let config = serde_json::to_string_pretty(&manifest.config).unwrap_or_default();
        let _ = write!(
            page,
            "<h2>Configuration</h2>\n<details><summary>every key</summary><pre>{}</pre></details>\n</body>\n</html>\n",
            escaped(&config)
        );
        page
    }
}

/// The beginning of a page, up to its heading.
pub(crate) fn head(title: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>{title}</h1>\n"
    )
}

/// Pictures with their captions.
pub(crate) fn figures(plots: &[Plot]) -> String {
    let figure = |plot: &Plot| {
        let (svg, caption) = (plot.svg.trim_end(), escaped(&plot.caption));
        format!("<figure>\n{svg}\n<figcaption>{caption}</figcaption>\n</figure>\n")
    };
    plots.iter().map(figure).collect()
}

/// On which terms the run was made.
fn terms(manifest: &RunManifest) -> String {
    let mut rows = vec![("verb".to_owned(), escaped(&manifest.command)), ("code".to_owned(), code(manifest))];
    rows.extend(manifest.seeds.iter().map(|(name, seed)| (format!("seed ({})", escaped(name)), seed.to_string())));
    rows.extend(manifest.flags.iter().map(|(name, value)| (escaped(name), escaped(value))));
    for input in &manifest.inputs {
        let file = format!("{} <small>{} bytes, SHA-256 {}</small>", escaped(&input.name), input.bytes, input.sha256);
        rows.push((escaped(&input.role), file));
    }
    let rows: String = rows.iter().map(|(name, value)| format!("<tr><th>{name}</th><td>{value}</td></tr>\n")).collect();
    format!("<table>\n{rows}</table>\n")
}

fn code(manifest: &RunManifest) -> String {
    escaped(&serde_json::to_string(&manifest.source).unwrap_or_default())
}

/// What the evaluation says: operating points, baselines, families.
fn evaluated(evaluation: &Evaluation) -> String {
    let Evaluation { episodes, benign, malicious, .. } = evaluation;
    let mut out = format!("<h2>On {episodes} held-out episodes, {benign} benign and {malicious} malicious</h2>\n");
    out.push_str(&table("policy at", evaluation.operating_points.iter().map(|point| (rate(point.target_fpr), point))));
    for (name, baseline) in &evaluation.baselines {
        let _ = write!(out, "<h2>Beside it: {}</h2>\n<p>{}</p>\n", escaped(name), escaped(&baseline.description));
        out.push_str(&table("at", baseline.operating_points.iter().map(|point| (rate(point.target_fpr), point))));
    }
    out.push_str(&values(&evaluation.values));
    let Some(largest) = evaluation.operating_points.iter().map(|point| point.target_fpr).reduce(f64::max) else {
        return out;
    };
    let mut families: Vec<(&String, &OperatingPointReport)> = evaluation
        .per_family
        .iter()
        .filter_map(|(name, family)| Some((name, family.operating_points.iter().find(|p| p.target_fpr == largest)?)))
        .collect();
    // What went wrong: benign convicted, malicious let go.
    let wrong = |point: &OperatingPointReport| {
        point.metrics.fpr.unwrap_or(0.0) + point.metrics.tpr.map_or(0.0, |tpr| 1.0 - tpr)
    };
    families.sort_by(|a, b| wrong(b.1).total_cmp(&wrong(a.1)).then_with(|| a.0.cmp(b.0)));
    let count = families.len();
    let _ = writeln!(out, "<h2>Families at {}, the worst first</h2>", rate(largest));
    out.push_str(&table("family", families.iter().take(FAMILIES).map(|(name, point)| (escaped(name), *point))));
    if count > FAMILIES {
        let _ = writeln!(out, "<p>and {} more; <code>evaluation.json</code> has all</p>", count - FAMILIES);
    }
    out
}

/// What the q-values promise beside what they bring.
fn values(reports: &[ValueReport]) -> String {
    if reports.is_empty() {
        return String::new();
    }
    let heads = ["mean q-value", "mean return", "over-estimation", "decisions"];
    let heads: String = heads.iter().map(|head| format!("<th class=\"n\">{head}</th>")).collect();
    let mut out = format!(
        "<h2>Q-values beside returns</h2>\n<p>Decisions weigh what their states weighed in training; intervals are over families.</p>\n\
         <table>\n<tr><th>decisions at</th>{heads}</tr>\n"
    );
    for report in reports {
        for (which, told) in [("first", &report.first), ("every", &report.all)] {
            let cells = [
                cell(Some(told.mean_q), None, 3),
                cell(Some(told.mean_return), None, 3),
                cell(Some(told.overestimation), told.ci95, 3),
                cell(Some(told.decisions as f64), None, 0),
            ];
            let _ = writeln!(out, "<tr><th>{which}, {}</th>{}</tr>", rate(report.target_fpr), cells.concat());
        }
    }
    out.push_str("</table>\n");
    for (report, told) in reports.iter().filter_map(|report| Some((report, report.malicious.as_ref()?))) {
        let Reliability { brier_score, expected_calibration_error, .. } = told;
        let _ = writeln!(
            out,
            "<p>Probability of malice at {}: Brier score {brier_score:.3}, expected calibration error {expected_calibration_error:.3}.</p>",
            rate(report.target_fpr)
        );
    }
    out
}

fn table<'a>(first: &str, rows: impl Iterator<Item = (String, &'a OperatingPointReport)>) -> String {
    let heads = ["false positives", "true positives", "mean events", "harm prevented", "return"];
    let heads: String = heads.iter().map(|head| format!("<th class=\"n\">{head}</th>")).collect();
    let mut out = format!("<table>\n<tr><th>{first}</th>{heads}</tr>\n");
    for (name, point) in rows {
        let (m, ci) = (&point.metrics, &point.ci95);
        let cells = [
            cell(m.fpr, ci.fpr, 3),
            cell(m.tpr, ci.tpr, 3),
            cell(m.mean_events, ci.mean_events, 0),
            cell(m.harm_prevented, ci.harm_prevented, 3),
            cell(m.mean_return, ci.mean_return, 3),
        ];
        let _ = writeln!(out, "<tr><th>{name}</th>{}</tr>", cells.concat());
    }
    out + "</table>\n"
}

fn cell(value: Option<f64>, interval: Option<Interval>, digits: usize) -> String {
    let value = value.map_or("&ndash;".to_owned(), |value| format!("{value:.digits$}"));
    let interval =
        interval.map_or(String::new(), |[low, high]| format!(" <small>[{low:.digits$}, {high:.digits$}]</small>"));
    format!("<td class=\"n\">{value}{interval}</td>")
}

fn rate(target: f64) -> String {
    format!("{} % false positives", 100.0 * target)
}

/// Text that stays text in HTML.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            character if character.is_control() && character != '\n' => out.push('\u{fffd}'),
            character => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_text() {
        assert_eq!(
            escaped("<script>\"a&b'\u{1b}[0m</script>"),
            "&lt;script&gt;&quot;a&amp;b&#39;\u{fffd}[0m&lt;/script&gt;"
        );
    }
}
