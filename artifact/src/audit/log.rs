//! The writer of a log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use sha2::Digest;

use super::chain::{Chain, Fault};
use super::head::{self, HeadFault};
use super::lines::Lines;
use super::{Anchor, AuditError, OWN_KINDS, TORN, Unfinished};
use crate::secret::{SecretId, Secrets};
use crate::{ArtifactError, CanonicalError, Sha256, canonical_json, durable, is_plain_name};

/// A log to which entries are appended. Any number of them, in any number of processes, may be open on one file: each takes
/// the file's lock for as long as an entry takes, and reads first what others have appended.
#[derive(Debug)]
pub struct AuditLog {
    file: File,
    path: PathBuf,
    secrets: Secrets,
    chain: Chain,
    recovered: Recovered,
}

/// What dying writers had left, and the log has noted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Pieces of torn bytes, each now covered by a sealed entry.
    pub torn: u64,
    /// Their bytes.
    pub torn_bytes: u64,
    /// Entries that lacked nothing but their line break, and have it now.
    pub finished: u64,
}

/// What lies behind the last entry.
#[derive(Clone, Copy)]
enum Tail {
    Nothing,
    /// A whole entry but for its line break.
    Unbroken,
    /// Bytes that are no entry; `broken` where they end in a line break.
    Torn {
        from_byte: u64,
        to_byte: u64,
        broken: bool,
    },
}

impl AuditLog {
    /// Makes an empty log, readable by its owner alone, and its head.
    ///
    /// # Errors
    /// [`ArtifactError::Exists`] where log or head are there, else [`ArtifactError::Io`].
    pub fn create(path: impl Into<PathBuf>, secrets: Secrets) -> Result<AuditLog, AuditError> {
        let path = path.into();
        if path.symlink_metadata().is_ok() {
            return Err(ArtifactError::Exists { path }.into());
        }
        let chain = Chain::start(secrets.newest().id());
        // The head first: a head without a log is a log without entries, a log without a head may have lost its end.
        let head_path = head::path_of(&path);
        let mut head = durable::DurableFile::create_private(&head_path)?;
        let line = head::line(&chain, &secrets)?;
        head.write_all(line.as_bytes()).map_err(|cause| ArtifactError::io("write", &head_path, cause))?;
        head.commit_new()?;
        AuditLog::open(path, secrets)
    }

    /// Goes on at the end of a log. What its head vouches for is not read again: that is [`verify`](super::verify)'s work.
    ///
    /// # Errors
    /// [`AuditError::NoHead`], [`AuditError::Head`], [`AuditError::Tampered`] where what follows does not fit,
    /// [`AuditError::UnknownKey`], or [`AuditError::Artifact`].
    pub fn open(path: impl Into<PathBuf>, secrets: Secrets) -> Result<AuditLog, AuditError> {
        let path = path.into();
        let head_path = head::path_of(&path);
        let chain = head::read(&head_path, &secrets).map_err(|fault| match fault {
            HeadFault::Missing => AuditError::NoHead { path: head_path.clone() },
            HeadFault::Forged => AuditError::Head { path: head_path.clone() },
            HeadFault::Unreadable(error) => error.into(),
        })?;
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(chain.at.entries == 0);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => AuditError::Tampered {
                path: path.clone(),
                byte: 0,
                problem: "it is gone, and its head has entries".to_owned(),
            },
            _ => ArtifactError::io("open", &path, cause).into(),
        })?;
        if chain.at.entries == 0 {
            // The file may be new, and its name must last as long as its entries.
            durable::sync_folder(durable::parent(&path)?)?;
        }
        let mut log = AuditLog { file, path, secrets, chain, recovered: Recovered::default() };
        log.locked(|log| {
            log.check_end_of_head()?;
            log.catch_up().map(drop)
        })?;
        Ok(log)
    }

    /// Appends an entry and hands it to the operating system; [`commit`](AuditLog::commit) makes it last. Returns its place.
    ///
    /// # Errors
    /// [`AuditError::Kind`], [`AuditError::Canonical`], [`AuditError::TooLong`], as [`open`](AuditLog::open) where others
    /// have written meanwhile, and [`AuditError::Artifact`]; then the entry is not in the log.
    pub fn append(&mut self, time_ms: u64, kind: &str, body: &(impl Serialize + ?Sized)) -> Result<Anchor, AuditError> {
        if !is_plain_name(kind) || kind.starts_with(OWN_KINDS) {
            return Err(AuditError::Kind { kind: kind.chars().take(80).collect() });
        }
        let body = value(body)?;
        self.locked(|log| {
            log.recover(time_ms)?;
            let (line, chain) = log.chain.seal(time_ms, kind, body, &log.secrets)?;
            log.put(line.as_bytes(), chain)
        })?;
        Ok(self.chain.at)
    }

    /// Forces all entries to disk and moves the head behind them: from then on no missing entry goes unseen.
    ///
    /// # Errors
    /// As [`open`](AuditLog::open); the entries stay in the log.
    pub fn commit(&mut self) -> Result<Anchor, AuditError> {
        self.locked(|log| {
            log.catch_up()?;
            log.file.sync_data().map_err(|cause| ArtifactError::io("force to disk", &log.path, cause))?;
            log.write_head()
        })?;
        Ok(self.chain.at)
    }

    /// [`append`](AuditLog::append) and [`commit`](AuditLog::commit).
    ///
    /// # Errors
    /// As those.
    pub fn record(&mut self, time_ms: u64, kind: &str, body: &(impl Serialize + ?Sized)) -> Result<Anchor, AuditError> {
        self.append(time_ms, kind, body)?;
        self.commit()
    }

    /// Hands over to the newest of these secrets, by an entry that is sealed with the old one, and commits. Nothing happens where the
    /// newest is in use already. The secrets must hold the old one too.
    ///
    /// # Errors
    /// As [`append`](AuditLog::append).
    pub fn rotate(&mut self, time_ms: u64, secrets: Secrets) -> Result<Anchor, AuditError> {
        self.secrets = secrets;
        self.locked(|log| {
            log.recover(time_ms)?;
            let newest = log.secrets.newest().id();
            if log.chain.key == newest {
                return Ok(());
            }
            let (line, chain) = log.chain.handover(time_ms, newest, &log.secrets)?;
            log.put(line.as_bytes(), chain)
        })?;
        self.commit()
    }

    /// Where the log stands, as far as this handle has seen.
    pub fn end(&self) -> Anchor {
        self.chain.at
    }

    /// The secret that seals the next entry.
    pub fn key(&self) -> SecretId {
        self.chain.key
    }

    /// What dying writers had left, as far as this handle has noted it.
    pub fn recovered(&self) -> Recovered {
        self.recovered
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Works while no other writer does.
    fn locked<T>(&mut self, work: impl FnOnce(&mut AuditLog) -> Result<T, AuditError>) -> Result<T, AuditError> {
        let failed = |path: &Path, cause| ArtifactError::io("lock", path, cause);
        self.file.lock().map_err(|cause| failed(&self.path, cause))?;
        let done = work(self);
        self.file.unlock().map_err(|cause| failed(&self.path, cause))?;
        done
    }

    /// The entry before the place that the head speaks of is the one that it names.
    fn check_end_of_head(&mut self) -> Result<(), AuditError> {
        let length = self.length()?;
        let tampered =
            |byte, problem: &str| AuditError::Tampered { path: self.path.clone(), byte, problem: problem.to_owned() };
        if length < self.chain.bytes {
            return Err(tampered(length, "its end is missing"));
        }
        if self.chain.at.entries == 0 {
            return Ok(());
        }
        let expected = format!("\"{}\"}}\n", self.chain.at.last);
        let mut found = vec![0; expected.len()];
        let from = self.chain.bytes.saturating_sub(expected.len() as u64);
        let read = self.file.seek(SeekFrom::Start(from)).and_then(|_| self.file.read_exact(&mut found));
        read.map_err(|cause| ArtifactError::io("read", &self.path, cause))?;
        if found == expected.as_bytes() {
            Ok(())
        } else {
            Err(tampered(from, "another entry stands where the head ends"))
        }
    }

    /// Reads what others have appended, up to the last whole entry, and says what lies behind it.
    fn catch_up(&mut self) -> Result<Tail, AuditError> {
        self.check_place()?;
        let length = self.length()?;
        if length == self.chain.bytes {
            return Ok(Tail::Nothing);
        }
        let failed = |path: &Path, cause| AuditError::from(ArtifactError::io("read", path, cause));
        let tampered = |path: &Path, byte, problem| AuditError::Tampered { path: path.to_path_buf(), byte, problem };
        if length < self.chain.bytes {
            return Err(tampered(&self.path, length, "its end is missing".to_owned()));
        }
        self.file.seek(SeekFrom::Start(self.chain.bytes)).map_err(|cause| failed(&self.path, cause))?;
        let mut lines = Lines::new(BufReader::with_capacity(64 * 1024, (&self.file).take(length - self.chain.bytes)));
        let mut chain = self.chain.clone();
        let mut notes = Vec::new();
        let mut position = chain.bytes;
        let mut tail = Tail::Nothing;
        while let Some(line) = lines.next().map_err(|cause| failed(&self.path, cause))? {
            let from_byte = position;
            position += line.bytes.len() as u64 + u64::from(line.whole);
            let torn_from = match tail {
                Tail::Torn { from_byte, .. } => Some(from_byte),
                _ => None,
            };
            let mut next = chain.clone();
            let taken = if line.piece { Err(Fault::NoEntry) } else { next.take(line.bytes, &self.secrets) };
            match taken {
                Ok((entry, _)) => {
                    let note = (entry.kind == TORN).then(|| serde_json::from_value::<Unfinished>(entry.body).ok());
                    let note = note.flatten();
                    let expected = torn_from.map(|torn| (torn, from_byte - torn));
                    if note.map(|note| (note.from_byte, note.bytes)) != expected {
                        let problem = format!("entry {} stands behind bytes that are none", entry.seq);
                        return Err(tampered(&self.path, torn_from.unwrap_or(from_byte), problem));
                    }
                    if !line.whole {
                        tail = Tail::Unbroken;
                        break;
                    }
                    notes.extend(note);
                    (chain, tail) = (next, Tail::Nothing);
                    chain.bytes = position;
                }
                Err(Fault::NoEntry) => {
                    let from_byte = torn_from.unwrap_or(from_byte);
                    tail = Tail::Torn { from_byte, to_byte: position, broken: line.whole };
                }
                Err(Fault::UnknownKey(key)) => return Err(AuditError::UnknownKey { key }),
                Err(fault) => return Err(tampered(&self.path, from_byte, fault.to_string())),
            }
        }
        for note in notes {
            if self.hash(note.from_byte, note.bytes)? != note.sha256 {
                return Err(tampered(&self.path, note.from_byte, "torn bytes were changed".to_owned()));
            }
        }
        self.chain = chain;
        Ok(tail)
    }

    /// Catches up, and makes the log end in a whole entry: one that lacks nothing but its line break gets it, and behind other
    /// bytes a note of them is written, so that they stay where they are and nobody takes them for tampering.
    fn recover(&mut self, time_ms: u64) -> Result<(), AuditError> {
        match self.catch_up()? {
            Tail::Nothing => Ok(()),
            Tail::Unbroken => {
                self.write(b"\n")?;
                self.recovered.finished += 1;
                self.catch_up().map(drop)
            }
            Tail::Torn { from_byte, to_byte, broken } => {
                let mut digest = self.digest(from_byte, to_byte - from_byte)?;
                let line_break: &[u8] = if broken { b"" } else { b"\n" };
                digest.update(line_break);
                let bytes = to_byte - from_byte + line_break.len() as u64;
                let note = Unfinished { bytes, from_byte, sha256: Sha256::from_bytes(digest.finalize().into()) };
                let (line, mut chain) = self.chain.seal(time_ms, TORN, value(&note)?, &self.secrets)?;
                chain.bytes += bytes;
                self.put(&[line_break, line.as_bytes()].concat(), chain)?;
                self.recovered.torn += 1;
                self.recovered.torn_bytes += to_byte - from_byte;
                Ok(())
            }
        }
    }

    /// Writes a whole line, or nothing.
    fn put(&mut self, line: &[u8], chain: Chain) -> Result<(), AuditError> {
        self.write(line)?;
        self.chain = chain;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), AuditError> {
        let before = self.length()?;
        self.file.write_all(bytes).map_err(|cause| {
            // The first error is the one to report; should the cut fail too, the next writer finds a torn line.
            let _ = self.file.set_len(before);
            ArtifactError::io("append to", &self.path, cause).into()
        })
    }

    fn write_head(&self) -> Result<(), AuditError> {
        let path = head::path_of(&self.path);
        let line = head::line(&self.chain, &self.secrets)?;
        let mut head = durable::DurableFile::create_private(&path)?;
        head.write_all(line.as_bytes()).map_err(|cause| ArtifactError::io("write", &path, cause))?;
        Ok(head.commit()?)
    }

    fn length(&self) -> Result<u64, AuditError> {
        let data = self.file.metadata().map_err(|cause| ArtifactError::io("look at", &self.path, cause))?;
        Ok(data.len())
    }

    fn hash(&self, from_byte: u64, bytes: u64) -> Result<Sha256, AuditError> {
        Ok(Sha256::from_bytes(self.digest(from_byte, bytes)?.finalize().into()))
    }

    fn digest(&self, from_byte: u64, bytes: u64) -> Result<sha2::Sha256, AuditError> {
        let failed = |cause| ArtifactError::io("read", &self.path, cause);
        (&self.file).seek(SeekFrom::Start(from_byte)).map_err(failed)?;
        let mut reader = (&self.file).take(bytes);
        let mut digest = sha2::Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(digest),
                Ok(count) => digest.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error).into()),
            }
        }
    }

    /// The file that is open is still the one under the name.
    #[cfg(unix)]
    fn check_place(&self) -> Result<(), AuditError> {
        use std::os::unix::fs::MetadataExt;
        let failed = |cause| ArtifactError::io("look at", &self.path, cause);
        let open = self.file.metadata().map_err(failed)?;
        let same =
            fs::symlink_metadata(&self.path).is_ok_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino()));
        if same { Ok(()) } else { Err(AuditError::Replaced { path: self.path.clone() }) }
    }

    /// Elsewhere an open file keeps its name.
    #[cfg(not(unix))]
    fn check_place(&self) -> Result<(), AuditError> {
        Ok(())
    }
}

/// A body as it will be read back: floats of 32 bits are spelled as those of 64 from then on.
fn value(body: &(impl Serialize + ?Sized)) -> Result<Value, AuditError> {
    let text = canonical_json(body)?;
    serde_json::from_str(&text).map_err(|error| CanonicalError::Custom(error.to_string()).into())
}
