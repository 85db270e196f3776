//! What a verb prints: JSON for programs, text for people, progress for a terminal.

use std::io::{self, IsTerminal, Write};

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

    /// Whether reports are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints the report of a verb: the value as one JSON document, or the text.
    pub(crate) fn report(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        let written = if self.json {
            serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from).and_then(|()| writeln!(out))
        } else {
            writeln!(out, "{}", text().trim_end())
        };
        unless_closed(written.and_then(|()| out.flush()))?;
        Ok(())
    }

    /// Prints a line of JSON as it stands, or the text. Whether anybody still reads.
    pub(crate) fn json_line(&self, json: &str, text: impl FnOnce() -> String) -> io::Result<bool> {
        let line = if self.json { json.to_owned() } else { text() };
        unless_closed(writeln!(io::stdout().lock(), "{line}"))
    }

    /// Prints one line: the value as JSON without a break, or the text.
    #[cfg(feature = "serve")]
    pub(crate) fn line(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        let line = if self.json { serde_json::to_string(value)? } else { text() };
        unless_closed(writeln!(out, "{line}").and_then(|()| out.flush()))?;
        Ok(())
    }

    /// Tells a person what is going on, on standard error, where JSON has not claimed silence.
    pub(crate) fn say(&self, text: impl std::fmt::Display) {
        if !self.json {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Whether a person watches standard error as it is written, and has not asked for JSON.
    pub(crate) fn is_terminal(&self) -> bool {
        !self.json && std::io::stderr().is_terminal()
    }

    /// A progress bar on a terminal, nothing elsewhere. Its message is cut to the width of the terminal.
    pub(crate) fn progress(&self, what: &str, length: u64) -> ProgressBar {
        let bar = ProgressBar::new(length);
        if !self.is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template("{prefix:>8} {bar:20} {pos}/{len} {wide_msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(what.to_owned());
        bar
    }
}

/// What came of writing to standard output; whether anybody still read. Whoever has seen enough closes the pipe, as `head`
/// does: that is no failure, and the exit code stays that of the work.
pub(crate) fn unless_closed(written: io::Result<()>) -> io::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Prints an error on standard error.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "error: {text}");
}
