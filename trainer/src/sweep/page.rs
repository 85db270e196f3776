//! A sweep on one page: HTML that needs no network and no script.

use std::fmt::Write as _;

use super::{Standing, SweepConfig};
use crate::plots::{self, Plot, PlotError};
use crate::run::page::{escaped, figures, head};

/// A sweep as a page tells of it.
#[derive(Clone, Copy)]
pub struct SweepPage<'a> {
    /// What was tried.
    pub config: &'a SweepConfig,
    /// All settings, the best first.
    pub standings: &'a [Standing],
}

impl SweepPage<'_> {
    /// The pictures of the sweep.
    ///
    /// # Errors
    /// [`PlotError`] where one cannot be drawn.
    pub fn plots(&self) -> Result<Vec<Plot>, PlotError> {
        plots::sweep(self.standings, &self.config.space, &self.measure())
    }

    /// The page, with these pictures in it.
    pub fn html(&self, plots: &[Plot]) -> String {
        let mut page = head("Sweep");
        let (count, seeds, folds) = (self.standings.len(), self.config.seeds, self.config.folds);
        let _ = writeln!(
            page,
            "<p>{count} settings by {seeds} seeds, each judged by {} in {folds} folds of the training data.</p>",
            escaped(&self.measure())
        );
        if let Some(told) = self.config.early(self.standings) {
            let _ = writeln!(page, "<p>{}</p>", escaped(&told));
        }
        page.push_str(&figures(plots));
        page.push_str(
            "<table>\n<tr><th class=\"n\">setting</th><th class=\"n\">value</th><th class=\"n\">lowest to highest</th>\
             <th class=\"n\">round</th><th class=\"n\">updates</th><th></th></tr>\n",
        );
        for Standing { number, settings, round, updates, value, range, .. } in self.standings {
            let value = value.map_or("none".to_owned(), |value| format!("{value:.3}"));
            let range = range.map_or(String::new(), |[low, high]| format!("{low:.3} to {high:.3}"));
            let cells = [number.to_string(), value, range, (round + 1).to_string(), updates.to_string()];
            let cells: String = cells.iter().map(|cell| format!("<td class=\"n\">{cell}</td>")).collect();
            let settings: Vec<String> = settings.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            let _ = writeln!(page, "<tr>{cells}<td>{}</td></tr>", escaped(&settings.join(", ")));
        }
        page + "</table>\n</body>\n</html>\n"
    }

    /// What decides, for people.
    fn measure(&self) -> String {
        let SweepConfig { measure, target_fpr, .. } = self.config;
        match measure {
            super::Measure::HarmPrevented => format!("harm prevented at {} % false positives", 100.0 * target_fpr),
            super::Measure::Auc => "area under the curve".to_owned(),
            super::Measure::Tpr => format!("true-positive rate at {} % false positives", 100.0 * target_fpr),
        }
    }
}
