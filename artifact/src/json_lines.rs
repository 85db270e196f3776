//! Append-only logs: one JSON record per line, readable up to the last whole record however the writer ended.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{ArtifactError, canonical_json, durable};

/// Longest line that is written or read, in bytes, its line break included.
pub const MAX_LINE_BYTES: u64 = 16 * 1024 * 1024;

/// The one writer of a JSON Lines file. Each record reaches the operating system before the next one starts, so a
/// process that dies loses at most the record it was writing.
#[derive(Debug)]
pub struct JsonLines {
    file: File,
    path: PathBuf,
    offset: u64,
}

/// What stands after the last line break of a file: a record that its writer did not finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The line it would have been, from 1.
    pub line: u64,
    /// How many bytes of it there are.
    pub bytes: u64,
}

/// Reads records one by one, in bounded memory.
#[derive(Debug)]
pub struct JsonLinesReader<R> {
    reader: R,
    path: PathBuf,
    line: u64,
    buffer: Vec<u8>,
    torn: Option<TornTail>,
}

impl JsonLines {
    /// Starts an empty file.
    ///
    /// # Errors
    /// [`ArtifactError::Exists`] where the file is there already, else [`ArtifactError::Io`].
    pub fn create(path: impl Into<PathBuf>) -> Result<JsonLines, ArtifactError> {
        let path = path.into();
        let opened = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = opened.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => ArtifactError::Exists { path: path.clone() },
            _ => ArtifactError::io("create", &path, source),
        })?;
        durable::sync_folder(durable::parent(&path)?)?;
        Ok(JsonLines { file, path, offset: 0 })
    }

    /// Goes on at the end of a file, which is made where it is missing; a torn last line is cut off and told of.
    ///
    /// # Errors
    /// [`ArtifactError::Io`] where the file cannot be opened, read or cut.
    pub fn append_to(path: impl Into<PathBuf>) -> Result<(JsonLines, Option<TornTail>), ArtifactError> {
        let path = path.into();
        let failed = |source| ArtifactError::io("open", &path, source);
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(failed)?;
        let (whole, torn) = whole_lines(&file).map_err(failed)?;
        if whole == 0 {
            // The file may be new, and its name must last as long as its records.
            durable::sync_folder(durable::parent(&path)?)?;
        }
        let log = JsonLines { file, path, offset: whole };
        if torn.is_some() {
            log.cut()?;
        }
        Ok((log, torn))
    }

    /// Goes on behind byte `offset`, where a checkpoint was taken; all later records are cut off.
    ///
    /// # Errors
    /// [`ArtifactError::Io`] where the file is missing, shorter than `offset`, or `offset` is not the end of a line.
    pub fn resume_at(path: impl Into<PathBuf>, offset: u64) -> Result<JsonLines, ArtifactError> {
        let path = path.into();
        let failed = |source| ArtifactError::io("resume", &path, source);
        let mut file = OpenOptions::new().read(true).append(true).open(&path).map_err(failed)?;
        if offset > 0 {
            let mut last = [0_u8];
            file.seek(SeekFrom::Start(offset - 1)).and_then(|_| file.read_exact(&mut last)).map_err(failed)?;
            if last != *b"\n" {
                let message = format!("byte {offset} is not the end of a record; the checkpoint is of another file");
                return Err(failed(io::Error::new(io::ErrorKind::InvalidData, message)));
            }
        }
        let log = JsonLines { file, path, offset };
        log.cut()?;
        Ok(log)
    }

    /// Appends one record in canonical JSON and hands it to the operating system.
    ///
    /// # Errors
    /// [`ArtifactError::Canonical`] where the record has no JSON, [`ArtifactError::TooLarge`] past [`MAX_LINE_BYTES`],
    /// [`ArtifactError::Io`] where writing fails; what was written of the line is taken back then.
    pub fn append(&mut self, record: &(impl Serialize + ?Sized)) -> Result<(), ArtifactError> {
        let mut line = canonical_json(record)?;
        line.push('\n');
        let bytes = line.len() as u64;
        if bytes > MAX_LINE_BYTES {
            return Err(ArtifactError::TooLarge { path: self.path.clone(), bytes, limit: MAX_LINE_BYTES });
        }
        if let Err(source) = self.file.write_all(line.as_bytes()) {
            // The first error is the one to report; should the cut fail too, readers see a torn line.
            let _ = self.cut();
            return Err(ArtifactError::io("append to", &self.path, source));
        }
        self.offset += bytes;
        Ok(())
    }

    /// Forces all records to disk, so that they survive a power cut too.
    ///
    /// # Errors
    /// [`ArtifactError::Io`] where the disk refuses.
    pub fn sync(&self) -> Result<(), ArtifactError> {
        self.file.sync_all().map_err(|source| ArtifactError::io("force to disk", &self.path, source))
    }

    /// Where the next record will start, in bytes: what a checkpoint remembers for [`resume_at`](JsonLines::resume_at).
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn cut(&self) -> Result<(), ArtifactError> {
        self.file.set_len(self.offset).map_err(|source| ArtifactError::io("cut", &self.path, source))
    }
}

/// The length of all whole lines, and what follows them.
fn whole_lines(file: &File) -> io::Result<(u64, Option<TornTail>)> {
    let mut reader = BufReader::with_capacity(64 * 1024, file);
    let (mut total, mut whole, mut lines) = (0_u64, 0_u64, 0_u64);
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            break;
        }
        for (index, _) in chunk.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            whole = total + index as u64 + 1;
            lines += 1;
        }
        let length = chunk.len();
        total += length as u64;
        reader.consume(length);
    }
    Ok((whole, (total > whole).then_some(TornTail { line: lines + 1, bytes: total - whole })))
}

impl JsonLinesReader<BufReader<File>> {
    /// Opens a file for reading; its writer may still be at work.
    ///
    /// # Errors
    /// [`ArtifactError::Io`] where the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, ArtifactError> {
        let file = File::open(path).map_err(|source| ArtifactError::io("read", path, source))?;
        Ok(JsonLinesReader::new(BufReader::new(file), path))
    }
}

impl<R: BufRead> JsonLinesReader<R> {
    /// Reads from `reader`; `path` is only named in errors.
    pub fn new(reader: R, path: &Path) -> JsonLinesReader<R> {
        JsonLinesReader { reader, path: path.to_path_buf(), line: 0, buffer: Vec::new(), torn: None }
    }

    /// The next record, or `None` behind the last whole line. A last line without its line break is not read, even
    /// where it would parse: [`torn`](JsonLinesReader::torn) tells of it.
    ///
    /// # Errors
    /// [`ArtifactError::Line`] with the line's number where a whole line is no such record (reading may go on behind
    /// it), [`ArtifactError::TooLarge`] for a line past [`MAX_LINE_BYTES`], [`ArtifactError::Io`].
    pub fn next_record<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ArtifactError> {
        self.buffer.clear();
        let mut limited = (&mut self.reader).take(MAX_LINE_BYTES + 1);
        let read = limited.read_until(b'\n', &mut self.buffer);
        let bytes = read.map_err(|source| ArtifactError::io("read", &self.path, source))? as u64;
        if bytes == 0 {
            return Ok(None);
        }
        self.line += 1;
        if bytes > MAX_LINE_BYTES {
            return Err(ArtifactError::TooLarge { path: self.path.clone(), bytes, limit: MAX_LINE_BYTES });
        }
        if self.buffer.last() != Some(&b'\n') {
            self.torn = Some(TornTail { line: self.line, bytes });
            return Ok(None);
        }
        let record = serde_json::from_slice(&self.buffer);
        record.map(Some).map_err(|cause| ArtifactError::Line { path: self.path.clone(), line: self.line, cause })
    }

    /// All records from here to the last whole line.
    ///
    /// # Errors
    /// As [`next_record`](JsonLinesReader::next_record), at the first record that fails.
    pub fn read_all<T: DeserializeOwned>(&mut self) -> Result<Vec<T>, ArtifactError> {
        std::iter::from_fn(|| self.next_record().transpose()).collect()
    }

    /// The torn last line, once the end was reached.
    pub fn torn(&self) -> Option<TornTail> {
        self.torn
    }

    /// The number of the line read last, from 1; 0 before the first.
    pub fn line(&self) -> u64 {
        self.line
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read_all(path: &Path) -> (Vec<Value>, Option<TornTail>) {
        let mut reader = JsonLinesReader::open(path).unwrap();
        (reader.read_all().unwrap(), reader.torn())
    }

    #[test]
    fn a_second_writer_is_refused_and_a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = JsonLines::create(&path).unwrap();
        assert!(matches!(JsonLines::create(&path), Err(ArtifactError::Exists { .. })));
        log.append(&json!({"step": 1})).unwrap();
        assert!(log.append(&f32::NAN).is_err());
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{oops}\n{\"step\":2}\n").unwrap();
        let mut reader = JsonLinesReader::open(&path).unwrap();
        assert_eq!(reader.next_record::<Value>().unwrap(), Some(json!({"step": 1})));
        assert!(matches!(reader.next_record::<Value>(), Err(ArtifactError::Line { line: 2, .. })));
        assert_eq!(reader.next_record::<Value>().unwrap(), Some(json!({"step": 2})));
        assert_eq!(reader.next_record::<Value>().unwrap(), None);
    }

    #[test]
    fn a_line_past_the_limit_is_refused_without_being_held() {
        let endless = BufReader::new(io::repeat(b'x'));
        let mut reader = JsonLinesReader::new(endless, Path::new("endless"));
        assert!(matches!(reader.next_record::<Value>(), Err(ArtifactError::TooLarge { .. })));
    }

    #[test]
    fn resuming_cuts_behind_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = JsonLines::create(&path).unwrap();
        log.append(&1).unwrap();
        let checkpoint = log.offset();
        log.append(&2).unwrap();
        drop(log);
        assert!(JsonLines::resume_at(&path, checkpoint + 1).is_err());
        assert!(JsonLines::resume_at(&path, 1000).is_err());
        let mut log = JsonLines::resume_at(&path, checkpoint).unwrap();
        log.append(&3).unwrap();
        assert_eq!(read_all(&path).0, [json!(1), json!(3)]);
    }

    proptest! {
        #[test]
        fn a_cut_at_any_byte_keeps_every_whole_record(
            texts in prop::collection::vec(any::<String>(), 0..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("log.jsonl");
            let mut log = JsonLines::create(&path).unwrap();
            let mut ends = vec![0];
            for text in &texts {
                log.append(text).unwrap();
                ends.push(log.offset());
            }
            let cut = cut.index(log.offset() as usize + 1) as u64;
            drop(log);
            OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            let torn = (cut > ends[whole]).then(|| TornTail { line: whole as u64 + 1, bytes: cut - ends[whole] });
            let expected: Vec<Value> = texts[..whole].iter().map(|text| json!(text)).collect();
            prop_assert_eq!(read_all(&path), (expected.clone(), torn));

            let (mut log, found) = JsonLines::append_to(&path).unwrap();
            prop_assert_eq!((found, log.offset()), (torn, ends[whole]));
            log.append("next").unwrap();
            let all: Vec<Value> = expected.into_iter().chain([json!("next")]).collect();
            prop_assert_eq!(read_all(&path), (all, None));
            prop_assert_eq!(fs::metadata(&path).unwrap().len(), log.offset());
        }
    }
}
