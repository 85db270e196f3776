//! Tables of call traces: `id,label,calls`, one trace a row, its calls separated by blanks; plain or gzip.
//!
//! Rows may be megabytes long and are streamed. Fields may stand in double quotes. Labels are `benign`, `goodware` or
//! `0`, and `malicious`, `malware` or `1`; an empty label is a missing one.

use std::io::BufRead;
use std::path::Path;

use super::csv::{End, Fields};
use super::intake::Intake;
use super::{IngestError, Options, QualityReport, files};
use crate::calls::kind_of;
use crate::{EpisodeAttributes, EpisodeId, Event, EventSink, Label};

/// Name in the column `source`.
const SOURCE: &str = "calls-csv";
/// The longest id or label, in bytes.
const MAX_FIELD_BYTES: usize = 4096;
/// The longest name of a call, in bytes.
const MAX_NAME_BYTES: usize = 256;
/// The first line.
const HEADER: [&str; 3] = ["id", "label", "calls"];

/// Reads the table at `path`.
///
/// # Errors
/// [`IngestError::NotThisFormat`] where the first line is not `id,label,calls`, [`IngestError::Io`], and as
/// [`read_calls_csv_from`].
pub fn read_calls_csv<S: EventSink + ?Sized>(
    path: &Path,
    options: &Options,
    sink: &mut S,
    report: &mut QualityReport,
) -> Result<(), IngestError> {
    read_calls_csv_from(files::open(path)?, path, options, sink, report)
}

/// Reads a table from a stream, already unpacked; `path` is its name in errors and in the report.
///
/// A row without its three fields, with an unknown label or an unusable name of a call is counted with its line; a bad
/// row is skipped, a bad name alone is left out of its row.
///
/// # Errors
/// [`IngestError::NotThisFormat`], [`IngestError::Stream`] when the stream fails, and the errors of the sink.
pub fn read_calls_csv_from<S: EventSink + ?Sized>(
    from: impl BufRead,
    path: &Path,
    options: &Options,
    sink: &mut S,
    report: &mut QualityReport,
) -> Result<(), IngestError> {
    report.files += 1;
    let file = path.display().to_string();
    let mut fields = Fields::new(from);
    let mut text = Vec::new();
    let mut header = Vec::new();
    loop {
        let end = fields.field(&mut text, MAX_FIELD_BYTES)?;
        let name = String::from_utf8_lossy(&text).trim().trim_start_matches('\u{feff}').to_ascii_lowercase();
        header.push(name);
        if end != End::Field || header.len() > HEADER.len() {
            break;
        }
    }
    if header != HEADER {
        return Err(IngestError::NotThisFormat {
            path: path.to_owned(),
            format: "a table of calls",
            reason: format!("its first line is `{}` and should be `id,label,calls`", header.join(",")),
        });
    }
    let mut table = Table { intake: Intake::new(sink, report, options.redactor.as_ref()), file: &file };
    while table.row(&mut fields, &mut text)? {}
    Ok(())
}

struct Table<'a, S: ?Sized> {
    intake: Intake<'a, S>,
    file: &'a str,
}

impl<S: EventSink + ?Sized> Table<'_, S> {
    /// Reads a row; false at the end of the table.
    fn row(&mut self, fields: &mut Fields<impl BufRead>, text: &mut Vec<u8>) -> Result<bool, IngestError> {
        let line = fields.line();
        let end = fields.field(text, MAX_FIELD_BYTES)?;
        if end != End::Field {
            if !text.trim_ascii().is_empty() {
                self.bad(line, "fewer than three fields");
            }
            return Ok(end == End::Line);
        }
        let id = std::str::from_utf8(text).ok().map(|id| id.trim().to_owned());
        let id_too_long = text.len() > MAX_FIELD_BYTES;
        let end = fields.field(text, MAX_FIELD_BYTES)?;
        if end != End::Field {
            self.bad(line, "fewer than three fields");
            return Ok(end == End::Line);
        }
        let reason = match (&id, label(text)) {
            (Some(id), Some(label)) if !id.is_empty() && !id_too_long => {
                return self.trace(id, label, line, fields, text);
            }
            (_, None) => {
                let shown = String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned();
                format!("the label is `{shown}`; use benign or malicious, 0 or 1, or leave it empty")
            }
            _ => "the id is empty, too long or no UTF-8".to_owned(),
        };
        self.bad(line, &reason);
        Ok(fields.skip_line()? == End::Line)
    }

    fn trace(
        &mut self,
        id: &str,
        label: Option<Label>,
        line: u64,
        fields: &mut Fields<impl BufRead>,
        text: &mut Vec<u8>,
    ) -> Result<bool, IngestError> {
        let attributes = EpisodeAttributes {
            episode_id: EpisodeId(id.to_owned()),
            label,
            family: None,
            source: Some(SOURCE.to_owned()),
            sample_sha256: None,
            complete: true,
        };
        if !self.intake.begin(&attributes)? {
            return Ok(fields.skip_line()? == End::Line);
        }
        let mut seq = 0;
        let mut words = Words::default();
        loop {
            let end = words.next(fields, text)?;
            if !text.is_empty() {
                match std::str::from_utf8(text) {
                    Ok(name) if text.len() <= MAX_NAME_BYTES && !name.contains(char::is_control) => {
                        self.intake.event(&Event::named(seq, kind_of(name), name))?;
                        seq += 1;
                    }
                    _ => {
                        let shown = String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned();
                        self.bad(line, &format!("`{shown}` is no name of a call"));
                    }
                }
            }
            match end {
                None => {}
                Some(End::Field) => {
                    self.bad(line, "more than three fields; what follows the calls is left out");
                    let end = fields.skip_line()?;
                    self.intake.end(true)?;
                    return Ok(end == End::Line);
                }
                Some(end) => {
                    self.intake.end(true)?;
                    return Ok(end == End::Line);
                }
            }
        }
    }

    fn bad(&mut self, line: u64, reason: &str) {
        self.intake.report.bad_lines.add(self.file, line, reason);
    }
}

/// The label a word stands for; the outer `None` for an unknown word.
fn label(text: &[u8]) -> Option<Option<Label>> {
    Some(match text.trim_ascii().to_ascii_lowercase().as_slice() {
        b"" => None,
        b"benign" | b"goodware" | b"0" => Some(Label::Benign),
        b"malicious" | b"malware" | b"1" => Some(Label::Malicious),
        _ => return None,
    })
}

/// The words of the last field.
#[derive(Default)]
struct Words {
    quoted: bool,
    any: bool,
}

impl Words {
    /// Reads a word, which may be empty; gives what ended the field if it ended with the word. Of an overlong word the
    /// first bytes come.
    fn next(&mut self, fields: &mut Fields<impl BufRead>, text: &mut Vec<u8>) -> Result<Option<End>, IngestError> {
        text.clear();
        loop {
            let byte = fields.byte()?;
            let first = !std::mem::replace(&mut self.any, true);
            match byte {
                None => return Ok(Some(End::File)),
                Some(b'\n') => return Ok(Some(End::Line)),
                Some(b'"') if first || self.quoted => self.quoted = !self.quoted,
                Some(b',') if !self.quoted => return Ok(Some(End::Field)),
                Some(byte) if byte.is_ascii_whitespace() => return Ok(None),
                Some(byte) if text.len() <= MAX_NAME_BYTES => text.push(byte),
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::DigestSink;

    type Row = (String, Option<Label>, u64);

    fn read(text: &str) -> (Result<(), IngestError>, Vec<Row>, QualityReport) {
        let (mut sink, mut report) = (DigestSink::default(), QualityReport::default());
        let path = Path::new("t.csv");
        let result = read_calls_csv_from(text.as_bytes(), path, &Options::default(), &mut sink, &mut report);
        let episodes = sink.episodes.into_iter().map(|episode| (episode.episode_id.0, episode.label, episode.events));
        (result, episodes.collect(), report)
    }

    #[test]
    fn rows_and_labels() {
        let (result, episodes, report) = read(
            "id,label,calls\r\na,benign,NtClose NtOpenKey\r\n\"b,1\",1,\"NtClose  NtClose NtClose\"\nc,,\nd,Malware,NtClose",
        );
        result.unwrap();
        let expected = [
            ("a", Some(Label::Benign), 2),
            ("b,1", Some(Label::Malicious), 3),
            ("c", None, 0),
            ("d", Some(Label::Malicious), 1),
        ];
        assert_eq!(episodes, expected.map(|(id, label, events)| (id.to_owned(), label, events)));
        assert_eq!(report.bad_lines.count, 0);
        assert_eq!((report.empty_episodes.count, report.one_event_episodes.count), (1, 1));
    }

    #[test]
    fn bad_rows_are_counted_with_their_line() {
        let (result, episodes, report) =
            read("id,label,calls\na\nb,evil,x\nc,0\n,0,x\nd,0,x y,z\n\nd,1,x\ne,1,x \u{1} y\n");
        result.unwrap();
        let lines: Vec<u64> = report.bad_lines.examples.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6, 9]);
        assert_eq!(report.duplicate_ids.examples, ["d"]);
        let names: Vec<_> = episodes.iter().map(|(id, _, events)| (id.as_str(), *events)).collect();
        assert_eq!(names, [("d", 2), ("e", 2)]);
    }

    #[test]
    fn another_header_is_another_format() {
        for text in ["", "id,label\n", "id;label;calls\n", "id,label,calls,more\n", "\u{0}\u{1}"] {
            assert!(matches!(read(text).0, Err(IngestError::NotThisFormat { .. })), "{text:?}");
        }
    }
}
