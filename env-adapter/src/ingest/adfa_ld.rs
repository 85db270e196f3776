//! ADFA-LD: Linux call traces, one text file each, of i386 call numbers separated by blanks.
//!
//! The folders of the original layout say what a trace is: `Training_Data_Master` and `Validation_Data_Master` are
//! benign, `Attack_Data_Master/<class>_<n>` is intrusion `n` of a class. The episode is the file's stem, the family of
//! an attack its folder, and a benign trace has none: nothing says which of them belong together beyond their content.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::files::list;
use super::intake::Intake;
use super::{IngestError, Options, QualityReport};
use crate::calls::{i386_name, kind_of};
use crate::{EpisodeAttributes, EpisodeId, Event, EventKind, EventSink, Label};

/// Name in the column `source`.
const SOURCE: &str = "adfa-ld";
/// What an archive may unpack to, over all its traces.
const MAX_ARCHIVE_BYTES: u64 = 8 << 30;
/// What a trace of an archive may unpack to.
const MAX_TRACE_BYTES: u64 = 256 << 20;
/// Entries of an archive that are looked at.
const MAX_ENTRIES: usize = 2_000_000;
/// Call numbers that may have a name.
const TABLE: u32 = 1024;
/// Digits of the longest call number.
const MAX_DIGITS: usize = 9;

/// Reads the folder or zip archive at `path`.
///
/// Calls without a name in the i386 table become `syscall_N` and are counted; what is no number is counted as a bad
/// line and skipped.
///
/// # Errors
/// [`IngestError::NothingFound`] where there is no trace in the original layout, [`IngestError::Archive`] for a damaged
/// or oversized archive, [`IngestError::Io`], and the errors of the sink.
pub fn read_adfa_ld<S: EventSink + ?Sized>(
    path: &Path,
    options: &Options,
    sink: &mut S,
    report: &mut QualityReport,
) -> Result<(), IngestError> {
    let intake = Intake::new(sink, report, options.redactor.as_ref());
    let mut reader = Reader { intake, names: Names::new(), found: false };
    let metadata = std::fs::metadata(path).map_err(|source| IngestError::io(path, source))?;
    if metadata.is_dir() {
        reader.folder(path)?;
    } else {
        reader.archive(path)?;
    }
    match reader.found {
        true => Ok(()),
        false => Err(IngestError::NothingFound {
            path: path.to_owned(),
            format: "adfa-ld",
            expected: "traces lie in Training_Data_Master, Validation_Data_Master and Attack_Data_Master/<class>_<n>, \
                       as text files of call numbers",
        }),
    }
}

/// Reads one trace from a stream: the body that archives, folders and tests share.
pub(crate) fn read_trace<S: EventSink + ?Sized>(
    from: impl Read,
    file: &str,
    attributes: &EpisodeAttributes,
    options: &Options,
    sink: &mut S,
    report: &mut QualityReport,
) -> Result<(), IngestError> {
    let intake = Intake::new(sink, report, options.redactor.as_ref());
    Reader { intake, names: Names::new(), found: false }.trace(from, file, attributes)
}

struct Reader<'a, S: ?Sized> {
    intake: Intake<'a, S>,
    names: Names,
    found: bool,
}

/// Names and domains of calls by number.
struct Names {
    known: Vec<Option<(&'static str, EventKind)>>,
    /// The name of an unknown number, in the making.
    unknown: String,
}

impl<S: EventSink + ?Sized> Reader<'_, S> {
    fn folder(&mut self, root: &Path) -> Result<(), IngestError> {
        let mut files = Vec::new();
        // The layout is three folders deep at most; one more for a folder around it all.
        list(root, 4, &mut files)?;
        files.sort();
        for path in files {
            let relative = path.strip_prefix(root).unwrap_or(&path);
            let mut folders: Vec<&str> = root.file_name().and_then(|name| name.to_str()).into_iter().collect();
            folders.extend(relative.iter().filter_map(|part| part.to_str()));
            let Some(attributes) = attributes_of(&folders) else {
                self.left_out(&folders);
                continue;
            };
            let file = File::open(&path).map_err(|source| IngestError::io(&path, source))?;
            self.trace(file, &path.display().to_string(), &attributes)?;
        }
        Ok(())
    }

    fn archive(&mut self, path: &Path) -> Result<(), IngestError> {
        let broken = |reason: String| IngestError::Archive { path: path.to_owned(), reason };
        let file = File::open(path).map_err(|source| IngestError::io(path, source))?;
        let mut archive = zip::ZipArchive::new(BufReader::new(file))
            .map_err(|error| broken(format!("{error}; give the folder or the zip archive of ADFA-LD")))?;
        if archive.len() > MAX_ENTRIES {
            return Err(broken(format!("it has {} entries, more than {MAX_ENTRIES}", archive.len())));
        }
        let mut names: Vec<(String, usize)> = Vec::with_capacity(archive.len());
        for index in 0..archive.len() {
            match archive.name_for_index(index) {
                Some(Ok(name)) => names.push((name.into_owned(), index)),
                _ => self.left_out(&[]),
            }
        }
        names.sort();
        let mut unpacked = 0u64;
        for (name, index) in names {
            let folders: Vec<&str> = name.split(['/', '\\']).filter(|part| !part.is_empty()).collect();
            if name.ends_with(['/', '\\']) {
                continue;
            }
            let Some(attributes) = attributes_of(&folders) else {
                self.left_out(&folders);
                continue;
            };
            let entry = archive.by_index(index).map_err(|error| broken(format!("{name}: {error}")))?;
            // What an entry says of its size is not trusted: reading stops at the limit.
            let mut limited = Limited { from: entry, left: MAX_TRACE_BYTES.min(MAX_ARCHIVE_BYTES - unpacked), read: 0 };
            let place = format!("{}:{name}", path.display());
            let result = self.trace(&mut limited, &place, &attributes);
            unpacked += limited.read;
            match result {
                Err(IngestError::Stream { cause, .. }) => return Err(broken(format!("{name}: {cause}"))),
                other => other?,
            }
        }
        Ok(())
    }

    /// Counts a file that is no trace of the layout, so that a misplaced one is missed.
    fn left_out(&mut self, parts: &[&str]) {
        self.intake.report.notes.add("files outside the layout (not read)", u64::from(!is_companion(parts)));
    }

    fn trace(&mut self, mut from: impl Read, file: &str, attributes: &EpisodeAttributes) -> Result<(), IngestError> {
        self.found = true;
        self.intake.report.files += 1;
        if !self.intake.begin(attributes)? {
            return Ok(());
        }
        let mut buffer = vec![0u8; 64 << 10];
        let mut token = Token::default();
        let (mut seq, mut line) = (0, 1);
        loop {
            let count = match from.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(IngestError::Stream { doing: "read a trace", cause }),
            };
            for &byte in &buffer[..count] {
                if byte.is_ascii_digit() && token.digits < MAX_DIGITS && !token.broken {
                    token.number = token.number * 10 + u32::from(byte - b'0');
                    token.digits += 1;
                } else if byte.is_ascii_whitespace() {
                    self.call(&mut token, &mut seq, file, line)?;
                    line += u64::from(byte == b'\n');
                } else {
                    token.spoil(byte);
                }
            }
            if count == 0 {
                break;
            }
        }
        self.call(&mut token, &mut seq, file, line)?;
        self.intake.end(true)
    }

    /// Hands on the call whose number ended, if one did.
    #[inline]
    fn call(&mut self, token: &mut Token, seq: &mut u64, file: &str, line: u64) -> Result<(), IngestError> {
        if token.broken {
            let shown = String::from_utf8_lossy(&token.shown).into_owned();
            self.intake.report.bad_lines.add(file, line, &format!("`{shown}` is no call number"));
        } else if token.digits > 0 {
            let number = token.number;
            let event = match self.names.known.get(number as usize) {
                Some(Some((name, kind))) => Event::named(*seq, *kind, name),
                _ => {
                    use std::fmt::Write;
                    self.names.unknown.clear();
                    // Writing to a string does not fail.
                    let _ = write!(self.names.unknown, "syscall_{number}");
                    self.intake.report.unknown_calls.add(&self.names.unknown, 1);
                    Event::named(*seq, EventKind::Syscall, &self.names.unknown)
                }
            };
            self.intake.event(&event)?;
            *seq += 1;
        } else {
            return Ok(());
        }
        *token = Token::default();
        Ok(())
    }
}

/// A word of a trace in the making.
#[derive(Default)]
struct Token {
    number: u32,
    digits: usize,
    broken: bool,
    /// The first bytes of a word that is no number.
    shown: Vec<u8>,
}

impl Token {
    #[cold]
    fn spoil(&mut self, byte: u8) {
        if !self.broken && self.digits > 0 {
            self.shown = self.number.to_string().into_bytes();
        }
        self.broken = true;
        if self.shown.len() < 40 {
            self.shown.push(byte);
        }
    }
}

impl Names {
    fn new() -> Self {
        let known = (0..TABLE).map(|number| i386_name(number).map(|name| (name, kind_of(name))));
        Names { known: known.collect(), unknown: String::new() }
    }
}

/// What the folders of a trace say of it; none for a file outside the layout.
fn attributes_of(parts: &[&str]) -> Option<EpisodeAttributes> {
    let (file, folders) = parts.split_last()?;
    let stem = Path::new(file).file_stem()?.to_str()?;
    if is_companion(parts) || Path::new(file).extension()? != "txt" {
        return None;
    }
    let at = folders.iter().position(|folder| folder.ends_with("_Data_Master"))?;
    let (label, family) = match (folders[at], &folders[at + 1..]) {
        ("Training_Data_Master" | "Validation_Data_Master", _) => (Label::Benign, None),
        ("Attack_Data_Master", [intrusion, ..]) => (Label::Malicious, Some((*intrusion).to_owned())),
        _ => return None,
    };
    Some(EpisodeAttributes {
        episode_id: EpisodeId(stem.to_owned()),
        label: Some(label),
        family,
        source: Some(SOURCE.to_owned()),
        sample_sha256: None,
        complete: true,
    })
}

/// Whether a file is a hidden companion of another, as archives made on other systems carry them.
fn is_companion(parts: &[&str]) -> bool {
    parts.last().is_some_and(|file| file.starts_with('.')) || parts.contains(&"__MACOSX")
}

/// A reader that fails at its limit instead of unpacking without end.
struct Limited<R> {
    from: R,
    left: u64,
    read: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.from.read(buffer)?;
        let bytes = count as u64;
        self.read += bytes;
        if bytes > self.left {
            return Err(std::io::Error::other("it unpacks to more than the limit"));
        }
        self.left -= bytes;
        Ok(count)
    }
}
