//! What a verb prints: JSON for programs, text for people, progress for a terminal.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Where a verb reports to.
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// Reports as JSON or as text.
    pub(crate) fn new(json: bool) -> Self {
        Output { json }
    }

    /// Prints the report of a verb: the value as one JSON document, or the text.
    pub(crate) fn report(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, value)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{}", text().trim_end())?;
        }
        Ok(out.flush()?)
    }

    /// Tells a person what is going on, on standard error, where JSON has not claimed silence.
    pub(crate) fn say(&self, text: impl std::fmt::Display) {
        if !self.json {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// A progress bar on a terminal, nothing elsewhere.
    pub(crate) fn progress(&self, what: &str, length: u64) -> ProgressBar {
        let bar = ProgressBar::new(length);
        if self.json || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:>12} {bar:30} {pos}/{len} {elapsed} (left {eta}) {msg}")
        {
            bar.set_style(style);
        }
        bar.set_prefix(what.to_owned());
        bar
    }
}

/// Prints an error on standard error.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "error: {text}");
}
